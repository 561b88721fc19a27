"""Runs one command in a container over the exec endpoint, and says how it ended.

The endpoint is a WebSocket whose frames begin with the number of a channel (Kubernetes' remote command protocol,
k8s.io/apimachinery, pkg/util/remotecommand): v5.channel.k8s.io, or v4 where the server or a proxy knows no other. The
last frame is a Status on the error channel; a connection that ends without one has lost the command's end.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp
import msgspec

from strongroom.dataplane.kube.errors import (
    KubeBadRequest,
    KubeError,
    KubeExecFailed,
    KubeExecTimeout,
    KubeProtocolError,
)
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.kube.transport import Call, Transport

PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
OUTPUT_BYTES: Final = 16 * 1024  # kept of each stream, its end: there a program says why it failed
EXEC_RESOURCE: Final = "pods/exec"

_PODS: Final = Kind("", "v1", "Pod", "pods", namespaced=True, verbs=frozenset())
_STDOUT, _STDERR, _ERROR = 1, 2, 3
_EXIT_CODE: Final = "ExitCode"  # reason of the Status' cause whose message is the number
# A frame of a stream is at most 32 KiB (the buffer of the server's copy); a Status is small.
_FRAME_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended: its *exit_code*, and the last `OUTPUT_BYTES` of each stream; *cut* if there was more."""

    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""
    cut: bool = False


class _StatusCause(msgspec.Struct, frozen=True):
    reason: str = ""
    message: str = ""


class _StatusDetails(msgspec.Struct, frozen=True):
    causes: list[_StatusCause] | None = None


class _Status(msgspec.Struct, frozen=True):
    status: str = ""
    reason: str = ""
    message: str = ""
    details: _StatusDetails | None = None


class _Tail:
    """The end of a stream."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = bytearray()
        self.cut = False

    def add(self, data: bytes) -> None:
        self._bytes += data
        if len(self._bytes) > self._most:
            self.cut = True
            del self._bytes[: -self._most]

    def bytes(self) -> bytes:
        return bytes(self._bytes)


async def exec_in_container(
    transport: Transport,
    namespace: str,
    pod: str,
    container: str,
    command: Sequence[str],
    *,
    timeout: float,
    keep_bytes: int = OUTPUT_BYTES,
) -> ExecResult:
    """Run *command* and return how it ended. As `KubeApi.exec`, which says what is raised."""
    path = _PODS.path(namespace, pod, "exec")
    pairs = [("container", container), ("stdout", "true"), ("stderr", "true"), *(("command", each) for each in command)]
    call = Call("exec", "GET", path, EXEC_RESOURCE, pairs, repeatable=False)
    where = f"{namespace}/{pod}, container {container}"
    out, err = _Tail(keep_bytes), _Tail(keep_bytes)
    sent = False
    try:
        async with asyncio.timeout(timeout):
            socket = await _connect(transport, call)
            sent = True
            try:
                status = await _read(transport, call, socket, out, err)
            finally:
                # Not waiting for the other side: it may be a command that does not end.
                await asyncio.shield(_close(socket))
    except TimeoutError as error:
        raise KubeExecTimeout(
            f"the command in {where} did not end within {timeout:.3g} s{_said(out, err)}",
            hint="Give it a longer timeout. It may still be running",
            verb="exec",
            path=path,
            resource=EXEC_RESOURCE,
            after_retry=sent,
        ) from error
    cut = out.cut or err.cut
    if status.status == "Success":
        return ExecResult(0, out.bytes(), err.bytes(), cut)
    for cause in (status.details and status.details.causes) or ():
        if cause.reason == _EXIT_CODE and cause.message.isdecimal():
            return ExecResult(int(cause.message), out.bytes(), err.bytes(), cut)
    raise KubeExecFailed(
        f"the command in {where} could not be run: {status.message or status.reason or 'no reason given'}",
        hint="Check that the container runs and has that program",
        verb="exec",
        path=path,
        resource=EXEC_RESOURCE,
        reason=status.reason,
        detail=status.message,
    )


async def _connect(transport: Transport, call: Call) -> aiohttp.ClientWebSocketResponse:
    try:
        return await transport.websocket(call, PROTOCOLS, _FRAME_BYTES)
    except KubeError as error:
        if error.status is None or error.status in (401, 429) or error.status >= 500:
            raise
        # A refused handshake has no body that could be read. Without the upgrade nothing is run, and the server gives
        # its reasons: permission, pod and container are checked first.
        try:
            await transport.request(call)
        except KubeBadRequest as told:
            if "pgrade" in told.detail:  # "unable to upgrade: …", "Upgrade request required": all before it was fine
                raise error from told
            raise
        raise


async def _read(
    transport: Transport, call: Call, socket: aiohttp.ClientWebSocketResponse, out: _Tail, err: _Tail
) -> _Status:
    """Read the streams to their end and return the Status."""
    status: _Status | None = None
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        data: bytes = message.data
        transport.bytes_read += len(data)
        channel, rest = data[0], data[1:]
        if channel == _STDOUT:
            out.add(rest)
        elif channel == _STDERR:
            err.add(rest)
        elif channel == _ERROR and rest:
            try:
                status = msgspec.json.decode(rest, type=_Status)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise KubeProtocolError(
                    f"the end of a command is no Status: {error}",
                    verb=call.verb,
                    path=call.path,
                    resource=EXEC_RESOURCE,
                ) from error
            break  # the last that a server says; one of v4 may leave the connection open
    if status is None:
        broken = socket.exception()
        cause = broken if isinstance(broken, Exception) else ConnectionError("the connection ended before the command")
        raise transport.broken(call, cause) from cause
    return status


async def _close(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.close()


def _said(out: _Tail, err: _Tail) -> str:
    text = (err.bytes() or out.bytes()).decode("utf-8", "replace").strip()
    return f"; it said: {text[-500:]}" if text else ""
