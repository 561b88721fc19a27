"""Clients that hold connections and say nothing, or say it slowly: others are served, and each is ended in time."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from strongroom.controlplane import main
from strongroom.controlplane.edge import HEAD_BYTES, Edge, EdgeLimits
from strongroom.controlplane.state.times import now
from strongroom.controlplane.tls import ensure_tls, server_context

PLACES = 12
LONG = EdgeLimits(connections=PLACES, of_address=PLACES, first_request_seconds=600, idle_seconds=600, body_seconds=600)
HURRIED = {"nothing", "a part of TLS", "TLS alone", "a part of the head"}


@dataclass
class Serving:
    port: int
    trust: ssl.SSLContext
    released: asyncio.Event
    at_work: list[Request]

    async def until_at_work(self, number: int) -> None:
        async with asyncio.timeout(60):
            while len(self.at_work) < number:  # noqa: ASYNC110 - several wait for several numbers
                await asyncio.sleep(0.01)

    async def connected(self, *, tls: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trust if tls else None)

    async def asked(self, path: str = "/") -> bytes:
        """Return the whole answer to a request of a connection of its own."""
        reader, writer = await self.connected()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer

    async def held(self, sent: bytes, *, tls: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.connected(tls=tls)
        writer.write(sent)
        await writer.drain()
        return reader, writer


@contextlib.asynccontextmanager
async def serving(folder: Path, limits: EdgeLimits) -> AsyncIterator[Serving]:
    released, ready = asyncio.Event(), asyncio.Event()
    at_work: list[Request] = []
    loop = asyncio.get_running_loop()

    async def answer(request: Request) -> Response:
        return Response(str(len(await request.body())))

    async def work(request: Request) -> Response:
        at_work.append(request)
        await released.wait()
        return Response("done")

    app = Starlette(routes=[Route("/", answer, methods=["GET", "POST"]), Route("/work", work)])
    files = ensure_tls(folder, ("127.0.0.1",), now=now())
    listener = main._listen("127.0.0.1", 0)

    def announce() -> None:
        loop.call_soon_threadsafe(ready.set)

    server = main.Server(app, listener, server_context(files), announce, limits)
    running = asyncio.create_task(server.run())
    await ready.wait()
    try:
        trust = ssl.create_default_context(cafile=files.ca_certificate)
        yield Serving(listener.getsockname()[1], trust, released, at_work)
    finally:
        released.set()
        server._server.should_exit = True
        await running
        listener.close()


HELD = {
    "nothing": (b"", False),
    "a part of TLS": (b"\x16\x03\x01", False),
    "TLS alone": (b"", True),
    "a part of the head": (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ", True),
    "a part of the body": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", True),
    "the next head": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT", True),
}


async def test_who_holds_all_places_and_sends_nothing_more_keeps_nobody_out(tmp_path: Path) -> None:
    async with serving(tmp_path, LONG) as server:
        working = asyncio.create_task(server.asked("/work"))
        await server.until_at_work(1)
        held = [await server.held(sent, tls=tls) for _ in range(4) for sent, tls in HELD.values()]
        for _ in range(3):
            assert (await server.asked()).startswith(b"HTTP/1.1 200")
        # A request that is worked on is nobody's to cut, however long it takes.
        server.released.set()
        assert (await working).endswith(b"done")
        for _, writer in held:
            writer.close()


async def test_a_connection_that_sends_no_more_is_ended(tmp_path: Path) -> None:
    # No limit but the one that a connection meets is short: a busy machine must not meet another.
    hurried = replace(LONG, first_request_seconds=1)
    patient = replace(LONG, idle_seconds=1, body_seconds=1)
    async with serving(tmp_path, hurried) as first, serving(tmp_path, patient) as second:
        held = {
            kind: await (first if kind in HURRIED else second).held(sent, tls=tls) for kind, (sent, tls) in HELD.items()
        }
        answers = {}
        for kind, (reader, writer) in held.items():
            answers[kind] = b""
            with contextlib.suppress(ConnectionError):
                answers[kind] = await reader.read()
            writer.close()
    assert answers["a part of the body"].startswith(b"HTTP/1.1 408")
    assert b"RequestTimeout" in answers["a part of the body"]
    assert answers["the next head"].count(b"HTTP/1.1 200") == 1


async def test_more_requests_under_way_than_places_are_refused_and_none_of_them_is_cut(tmp_path: Path) -> None:
    async with serving(tmp_path, LONG) as server:
        working = []
        for _ in range(PLACES):
            reader, writer = await server.held(b"GET /work HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            working.append((reader, writer))
        await server.until_at_work(PLACES)
        with pytest.raises(OSError):  # noqa: PT011 - reset, or the end of TLS, as it comes
            await server.asked()
        server.released.set()
        answers = [await reader.read() for reader, _ in working]
        assert all(answer.endswith(b"done") for answer in answers)
        for _, writer in working:
            writer.close()
        assert (await server.asked()).startswith(b"HTTP/1.1 200")


async def test_a_head_beyond_its_limit_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, LONG) as server:
        reader, writer = await server.held(b"GET / HTTP/1.1\r\nX-A: " + b"a" * HEAD_BYTES * 2)
        with contextlib.suppress(ConnectionError):
            assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()


def test_an_address_of_version_6_is_counted_by_its_network() -> None:
    edge = Edge(EdgeLimits(connections=10, of_address=2))
    pairs = [socket.socketpair() for _ in range(4)]
    addresses = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
    admitted = [edge.admit(ours, (address, 1)) for (_, ours), address in zip(pairs, addresses, strict=False)]
    assert all(admitted)
    for connection in admitted:
        assert connection is not None
        connection.waiting_since = None
    assert edge.admit(pairs[3][1], ("2001:db8::3", 1)) is None
    assert admitted[0] is not None
    admitted[0].close()
    again = socket.socketpair()
    assert edge.admit(again[1], ("2001:db8::3", 1)) is not None
    for one in (*pairs, again):
        one[0].close()
