"""Serves the parent on the other end of a pipe: begins when it is configured, and takes folders as locations."""

import asyncio
import base64
import logging
import os
import signal
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, assert_never

import msgspec

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.config import ClusterAccess, is_loopback
from strongroom.dataplane.kube.credentials import TokenFileCredentials
from strongroom.dataplane.kube.transport import RetryPolicy
from strongroom.errors import StrongroomError, UsageError
from strongroom.extension.api import pipe as wire
from strongroom.extension.api.documents import (
    BackupStorageLocation,
    DocumentInvalid,
    parse_document,
)
from strongroom.extension.keys import ensure_keys
from strongroom.extension.runs.context import RunContext
from strongroom.extension.runs.failures import failure_of
from strongroom.extension.watching.watcher import Watcher
from strongroom.protection.addresses import refused_address

log = logging.getLogger(__name__)

# The parent waits a minute for the first answer; a server that is away longer is its to report.
FIRST_CALLS: Final = RetryPolicy(attempts=5, total_s=30.0)

Write = Callable[[bytes], Awaitable[None]]


class NotConfigured(UsageError):
    """An order came before `configure`, or a second `configure`."""


class PipeServer:
    """Carries out the parent's orders, and answers each by *write*."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._context: RunContext | None = None
        self._watching: asyncio.Task[None] | None = None

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Take orders until the parent closes its end."""
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                # What follows is the rest of a message: there is no way back to the beginning of one.
                log.error("an order is longer than a line may be", extra={"bytes": wire.LINE_BYTES})
                return
            if not line.endswith(b"\n"):
                return  # the end, perhaps in the middle of a message
            await self._take(line)

    async def close(self) -> None:
        """Stop what runs; the next process goes on with it."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _take(self, line: bytes) -> None:
        try:
            order = msgspec.json.decode(line, type=wire.Order)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.error("an order cannot be read", extra={"reason": str(error)})
            await self._answer(wire.Error(seq=_seq_of(line), code="OrderInvalid", message=f"not an order: {error}"))
            return
        try:
            answer = await self._carry_out(order)
        except StrongroomError as error:
            failure = failure_of(error)
            answer = wire.Error(
                seq=order.seq, code=failure.code, message=failure.message, field=failure.target, hint=error.hint
            )
        await self._answer(answer)

    async def _answer(self, event: wire.Event) -> None:
        await self._write(msgspec.json.encode(event) + b"\n")

    async def _carry_out(self, order: wire.Order) -> wire.Event:
        match order:
            case wire.Configure():
                return await self._configure(order)
            case wire.Location():
                if self._context is None:
                    raise NotConfigured("the extension was not configured yet: configure comes first")
                self._context.locate(_location(order.document), None)
                return wire.Done(seq=order.seq)
            case _:
                assert_never(order)

    async def _configure(self, order: wire.Configure) -> wire.Ready:
        if self._context is not None:
            raise NotConfigured("the extension was configured already: start another process for another cluster")
        access = cluster_access(
            order.server, order.ca, Path(order.token_file), order.namespace, allow_loopback=order.allow_loopback
        )
        async with KubeApi(access, retry=FIRST_CALLS, user_agent="strongroom-extension") as api:
            keys = await ensure_keys(api, order.namespace)
        context = RunContext(access, keys, order.namespace)
        for document in order.locations:
            context.locate(_location(document), None)
        self._context = context
        self._watching = asyncio.create_task(_watch(context))
        writer = base64.b64encode(keys.writer_public).decode()
        return wire.Ready(seq=order.seq, recipient=keys.recipient_public, writer=writer)


def cluster_access(server: str, ca: str, token_file: Path, namespace: str, *, allow_loopback: bool) -> ClusterAccess:
    """Return how to reach the API server at *server*, whose CA is the PEM text *ca*, with the token in a file.

    Addresses that the parent would refuse are refused here, at each connection: its answer from DNS is not ours.
    The file is read again every minute and after a refusal, so whoever renews the token need not tell. Raises
    `DocumentInvalid` for a CA that is none and for a server without TLS.
    """
    if not server.startswith("https://"):
        raise DocumentInvalid(f"the server {server[:200]!r} is no https:// URL", field="server")
    try:
        tls = ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise DocumentInvalid("the CA is no PEM certificate", field="ca") from error
    # As for kubeconfigs: authorities of clusters often lack the extensions that Python 3.13 demands by default.
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return ClusterAccess(
        server=server.rstrip("/"),
        tls=tls,
        credentials=TokenFileCredentials(token_file),
        namespace=namespace,
        compression=not is_loopback(server),
        refuse_address=lambda address: refused_address(address, allow_loopback=allow_loopback),
    )


def _location(document: dict[str, Any]) -> BackupStorageLocation:
    location = parse_document(document)
    if not isinstance(location, BackupStorageLocation):
        raise DocumentInvalid(f"a {location.kind} is no location", field="kind")
    return location


async def _watch(context: RunContext) -> None:
    """Carry custom resources out, for ever; a fault of ours ends the process, and the parent starts another one."""
    try:
        await Watcher(context, hosted=True).run()
    except Exception:
        log.exception("watching stopped by a fault of ours")
        os.kill(os.getpid(), signal.SIGTERM)


class _Numbered(msgspec.Struct, frozen=True):
    seq: int = 0


def _seq_of(line: bytes) -> int:
    """Return the number of an order that cannot be read otherwise, 0 where it has none."""
    try:
        return msgspec.json.decode(line, type=_Numbered).seq
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0


def writer_to(descriptor: int) -> Write:
    """Return a function that writes all of its bytes to *descriptor*, without blocking the loop."""

    def write_all(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    async def write(data: bytes) -> None:
        await asyncio.to_thread(write_all, data)

    return write
