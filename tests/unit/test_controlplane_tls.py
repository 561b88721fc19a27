"""The server's certificates: made once, trusted by clients, renewed when needed, private."""

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from strongroom.controlplane.tls import (
    RENEW_BEFORE,
    SERVER_LIFE,
    TlsFiles,
    TlsMaterialUnusable,
    client_context,
    ensure_tls,
    load_into,
    server_context,
)

NOW = datetime.now(UTC)


def greet(files: TlsFiles, name: str, trust: ssl.SSLContext, context: ssl.SSLContext | None = None) -> str:
    """Return what a client that calls the server *name* hears from it over TLS."""
    ours, theirs = socket.socketpair()
    said = b""

    def serve() -> None:
        with ours:
            try:
                with (context or server_context(files)).wrap_socket(ours, server_side=True) as connection:
                    connection.sendall(b"hello")
            except (ssl.SSLError, OSError):
                return  # the client turned away

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with theirs, trust.wrap_socket(theirs, server_hostname=name) as connection:
            while part := connection.recv(16):
                said += part
    finally:
        theirs.close()
        thread.join(timeout=10)
    return said.decode()


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "localhost"])
def test_a_client_that_has_the_authority_trusts_the_server(tmp_path: Path, name: str) -> None:
    files = ensure_tls(tmp_path / "tls", now=NOW)
    assert greet(files, name, client_context(files)) == "hello"


def test_nobody_else_trusts_it_and_it_has_no_other_name(tmp_path: Path) -> None:
    files = ensure_tls(tmp_path / "tls", now=NOW)
    other = ensure_tls(tmp_path / "other", now=NOW)
    for name, trust in [
        ("localhost", ssl.create_default_context()),
        ("localhost", client_context(other)),
        ("example.org", client_context(files)),
        ("127.0.0.2", client_context(files)),
    ]:
        with pytest.raises(ssl.SSLCertVerificationError):
            greet(files, name, trust)


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    files = ensure_tls(tmp_path / "tls", now=NOW)
    assert stat.S_IMODE(files.folder.stat().st_mode) == 0o700
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files.folder.iterdir()}
    assert found == dict.fromkeys(["ca.crt", "ca.key", "server.crt", "server.key"], 0o600)


def test_a_second_start_keeps_everything(tmp_path: Path) -> None:
    files = ensure_tls(tmp_path / "tls", now=NOW)
    before = {path.name: path.read_bytes() for path in files.folder.iterdir()}
    ensure_tls(tmp_path / "tls", now=NOW + SERVER_LIFE - RENEW_BEFORE - timedelta(hours=1))
    assert {path.name: path.read_bytes() for path in files.folder.iterdir()} == before


def test_the_servers_certificate_is_renewed_before_it_ends_and_the_authority_is_not(tmp_path: Path) -> None:
    files = ensure_tls(tmp_path / "tls", now=NOW)
    old, authority = serial(files.server_certificate), serial(files.ca_certificate)
    later = NOW + SERVER_LIFE - RENEW_BEFORE + timedelta(hours=1)
    ensure_tls(tmp_path / "tls", now=later)
    assert serial(files.server_certificate) != old
    assert serial(files.ca_certificate) == authority
    renewed = x509.load_pem_x509_certificate(files.server_certificate.read_bytes())
    assert renewed.not_valid_after_utc - later > RENEW_BEFORE


def test_new_names_make_a_new_certificate_under_the_same_authority(tmp_path: Path) -> None:
    files = ensure_tls(tmp_path / "tls", now=NOW)
    trust = client_context(files)
    ensure_tls(tmp_path / "tls", ["localhost", "Backup.example.org", "[fd00::5]"], now=NOW)
    assert greet(files, "backup.example.org", trust) == "hello"
    assert greet(files, "fd00::5", trust) == "hello"
    with pytest.raises(ssl.SSLCertVerificationError):
        greet(files, "127.0.0.1", trust)


@pytest.mark.parametrize("damage", ["server.crt", "server.key"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense", "other"])
def test_a_lost_or_damaged_server_certificate_is_made_anew(tmp_path: Path, damage: str, content: object) -> None:
    files = ensure_tls(tmp_path / "tls", now=NOW)
    victim = files.folder / damage
    if content is None:
        victim.unlink()
    elif content == "other":
        victim.write_bytes((ensure_tls(tmp_path / "other", now=NOW).folder / damage).read_bytes())
    else:
        victim.write_bytes(bytes(content))  # type: ignore[call-overload]
    ensure_tls(tmp_path / "tls", now=NOW)
    assert greet(files, "localhost", client_context(files)) == "hello"


@pytest.mark.parametrize("damage", ["ca.crt", "ca.key"])
def test_a_damaged_authority_is_told_and_never_replaced(tmp_path: Path, damage: str) -> None:
    files = ensure_tls(tmp_path / "tls", now=NOW)
    other = ensure_tls(tmp_path / "other", now=NOW)
    for content in (b"nonsense", (other.folder / damage).read_bytes()):
        (files.folder / damage).write_bytes(content)
        with pytest.raises(TlsMaterialUnusable):
            ensure_tls(tmp_path / "tls", now=NOW)
        assert (files.folder / damage).read_bytes() == content


def test_a_lost_authority_is_told_and_never_replaced(tmp_path: Path) -> None:
    files = ensure_tls(tmp_path / "tls", now=NOW)
    files.ca_certificate.unlink()
    with pytest.raises(TlsMaterialUnusable):
        ensure_tls(tmp_path / "tls", now=NOW)
    assert not files.ca_certificate.exists()


def test_a_running_server_takes_a_renewed_certificate(tmp_path: Path) -> None:
    files = ensure_tls(tmp_path / "tls", now=NOW)
    context = server_context(files)
    ensure_tls(tmp_path / "tls", ["example.org"], now=NOW)
    load_into(context, files)
    assert greet(files, "example.org", client_context(files), context) == "hello"


def test_an_authority_that_ends_is_told(tmp_path: Path) -> None:
    ensure_tls(tmp_path / "tls", now=NOW)
    with pytest.raises(TlsMaterialUnusable, match="ends on"):
        ensure_tls(tmp_path / "tls", now=NOW + timedelta(days=3640))


def test_a_start_that_was_stopped_between_two_files_goes_on(tmp_path: Path) -> None:
    files = ensure_tls(tmp_path / "tls", now=NOW)
    for lost in (["ca.crt", "server.crt", "server.key"], ["server.crt"]):
        for name in lost:
            (files.folder / name).unlink()
        ensure_tls(tmp_path / "tls", now=NOW)
        assert greet(files, "localhost", client_context(files)) == "hello"


@pytest.mark.parametrize("name", ["", "a b", "-a", "a..b", "ü.example", "a" * 64, "http://x", "a\n"])
def test_what_is_no_name_of_a_server_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TlsMaterialUnusable, match="neither"):
        ensure_tls(tmp_path / "tls", [name], now=NOW)


def test_a_certificate_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(TlsMaterialUnusable, match="cannot be used"):
        server_context(TlsFiles(tmp_path))
