"""Keeps connections from crowding each other out: how many there may be, and how long each may make us wait.

uvicorn counts connections only once TLS stands, and never ends one whose request does not come. Here each is counted
from `accept` on. When there is no place left, the one that has made us wait longest gives way, so whoever holds
connections and sends nothing cannot keep others out; one whose request we work on is never closed.
"""

import asyncio
import contextlib
import ipaddress
import json
import logging
import socket
import time
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

HEAD_BYTES: Final = 64 * 1024  # request line and headers; a token with many groups takes 8 KiB
KEEP_ALIVE_SECONDS: Final = 75  # clients poll every 30 s at most: none meets its connection being closed
_LOOK_SECONDS: Final = 1.0
_CLOSING: Final = 64  # that gave way and are not closed yet: more than come between two turns of the event loop


@dataclass(frozen=True)
class EdgeLimits:
    """How many connections there may be, of all and of one address (an IPv6 network of 64 bits is one), and how long
    each may take: to its first request, TLS included; between an answer and the next request, in which the answer has
    to be read too; for a request's body.
    """

    connections: int = 512
    of_address: int = 256
    first_request_seconds: float = 30.0
    idle_seconds: float = KEEP_ALIVE_SECONDS + 15.0
    body_seconds: float = 60.0


class Connection(socket.socket):
    """An accepted connection that tells when it is closed, or forgotten."""

    def __init__(self, accepted: socket.socket, now: float, limit: float) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self.waiting_since: float | None = now
        """Since when it is the other side's turn; None while it is ours."""
        self.limit = limit
        self.gone: weakref.finalize[Any, Any] | None = None

    def close(self) -> None:
        super().close()
        if self.gone is not None:
            self.gone()

    def end(self) -> None:
        """Cut it; whoever reads from it sees its end."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)


class Edge:
    """The connections of one listener. Used in one event loop."""

    def __init__(self, limits: EdgeLimits) -> None:
        self.limits = limits
        self._open: weakref.WeakValueDictionary[tuple[str, int], Connection] = weakref.WeakValueDictionary()
        self._numbers: dict[str, int] = {}
        self._total = 0

    def admit(self, accepted: socket.socket, peer: tuple[str, int]) -> Connection | None:
        """Return *accepted* as one of ours, or None, closed, if all places are held by requests that we work on."""
        place = _network(peer[0])
        if self._numbers.get(place, 0) >= self.limits.of_address:
            room = self._make_room([c for p, c in self._open.items() if _network(p[0]) == place])
        elif self._total >= self.limits.connections:
            room = self._make_room(list(self._open.values()))
        else:
            room = True
        if not room:
            log.warning("connection refused: too many from=%s", peer[0])
            accepted.close()
            return None
        found = Connection(accepted, time.monotonic(), self.limits.first_request_seconds)
        self._numbers[place] = self._numbers.get(place, 0) + 1
        self._total += 1
        found.gone = weakref.finalize(found, self._forget, place)
        found.gone.atexit = False
        self._open[peer] = found
        return found

    def _make_room(self, candidates: list[Connection]) -> bool:
        waiting = [c for c in candidates if c.waiting_since is not None and c.fileno() >= 0]
        if not waiting or self._total >= self.limits.connections + _CLOSING:
            return False
        oldest = min(waiting, key=lambda c: c.waiting_since or 0)
        # It stays counted until the event loop has closed it, and so is no candidate any more.
        oldest.waiting_since = None
        oldest.end()
        return True

    def _forget(self, place: str) -> None:
        self._total -= 1
        self._numbers[place] -= 1
        if not self._numbers[place]:
            del self._numbers[place]

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Cut connections that make us wait too long, while the block runs."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self.limits.first_request_seconds))
            now = time.monotonic()
            for connection in list(self._open.values()):
                if connection.waiting_since is not None and now - connection.waiting_since > connection.limit:
                    connection.waiting_since = None
                    connection.end()

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return *app* with its connections marked as ours or the client's to act, and bodies limited in time."""

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            peer = scope.get("client")
            connection = self._open.get(tuple(peer)) if peer else None
            if scope["type"] != "http" or connection is None:
                await app(scope, receive, send)
                return
            connection.waiting_since = None
            exchange = _Exchange(receive, send, connection, self.limits.body_seconds)
            try:
                await exchange.carried_out_by(app, scope)
            finally:
                connection.limit = self.limits.idle_seconds
                connection.waiting_since = time.monotonic()

        return served


class _Exchange:
    """One request and its answer. Until the request's body is whole, it may take the time that a body has."""

    def __init__(self, receive: Receive, send: Send, connection: Connection, seconds: float) -> None:
        self._receive = receive
        self._send = send
        self._connection = connection
        self._seconds = seconds
        self._ends = time.monotonic() + seconds
        self._whole = self._late = self._answered = False

    async def carried_out_by(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._received, self._sent)
        except Exception:
            if not self._late:
                raise
        if self._late and not self._answered:
            text = f"The request's content did not arrive within {self._seconds:g} seconds."
            content = json.dumps({"error": {"code": "RequestTimeout", "message": text}}).encode()
            # What else arrives is the rest of this request: it must not be taken for another one.
            headers = [(b"content-type", b"application/json; charset=utf-8"), (b"connection", b"close")]
            headers.append((b"content-length", str(len(content)).encode()))
            await self._send({"type": "http.response.start", "status": 408, "headers": headers})
            await self._send({"type": "http.response.body", "body": content})

    async def _received(self) -> Message:
        if self._whole:
            return await self._receive()
        self._connection.limit = self._seconds * 2  # the answer of above comes first
        self._connection.waiting_since = time.monotonic()
        try:
            async with asyncio.timeout(self._ends - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            self._late = True
            return {"type": "http.disconnect"}
        finally:
            self._connection.waiting_since = None
        self._whole = not message.get("more_body", False)
        return message

    async def _sent(self, message: Message) -> None:
        # Once it is late, what the application says of a client that went away goes nowhere.
        if not self._late or self._answered:
            self._answered = True
            await self._send(message)


class EdgeListener(socket.socket):
    """A listening socket whose connections *edge* admits."""

    edge: Edge | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        accepted, address = super().accept()
        if self.edge is None:
            return accepted, address
        admitted = self.edge.admit(accepted, (address[0], address[1]))
        if admitted is None:
            # asyncio takes this for a connection that was given up, and looks for the next one.
            raise ConnectionAbortedError
        return admitted, address


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4 or parsed.ipv4_mapped:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))
