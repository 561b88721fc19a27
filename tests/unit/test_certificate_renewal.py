"""A server that runs for a year: its certificate is renewed while it serves."""

import asyncio
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from strongroom.controlplane.main import renew_certificate
from strongroom.controlplane.state.times import now
from strongroom.controlplane.tls import DEFAULT_NAMES, client_context, ensure_tls, server_context

EVERY = timedelta(milliseconds=20)
DEADLINE_SECONDS = 20.0


async def served(port: int, trust: ssl.SSLContext) -> x509.Certificate:
    """Return the certificate that a new connection gets, if *trust* takes it."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")
    try:
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(found)
    finally:
        writer.close()


async def test_a_certificate_near_its_end_is_renewed_while_serving_and_new_connections_get_it(tmp_path: Path) -> None:
    began = now()
    files = ensure_tls(tmp_path / "tls", DEFAULT_NAMES, now=began)
    context, trust = server_context(files), client_context(files)
    # The renewed certificate of this test begins in 340 days: it is read without being judged.
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    later = [began]
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    renewing = asyncio.create_task(renew_certificate(context, files.folder, DEFAULT_NAMES, lambda: later[0], EVERY))
    try:
        port = server.sockets[0].getsockname()[1]
        first = await served(port, trust)
        later[0] = began + timedelta(days=340)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (second := await served(port, blind)) == first:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        assert second.not_valid_after_utc > first.not_valid_after_utc + timedelta(days=300)
    finally:
        renewing.cancel()
        server.close()


async def test_a_lost_authority_is_told_and_the_server_serves_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = ensure_tls(tmp_path / "tls", DEFAULT_NAMES, now=now())
    context = server_context(files)
    files.ca_key.unlink()
    renewing = asyncio.create_task(renew_certificate(context, files.folder, DEFAULT_NAMES, now, EVERY))
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while sum("certificate not renewed" in r.message for r in caplog.records) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not renewing.done()
    finally:
        renewing.cancel()
