"""The fault proxy does to a request what its rule says, and nothing to the others."""

import asyncio
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from strongroom.testbed.faults import (
    CutBody,
    Delay,
    DropReply,
    DropRequest,
    Expired,
    FaultProxy,
    Hang,
    Recorded,
    Rule,
    Status,
    TooMany,
)

BODY = bytes(range(256)) * 400


class Store:
    """A server that remembers what reached it, as it reached it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str, bytes]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        host = request.headers["Host"]
        self.seen.append((request.method, request.raw_path, host, await request.read()))
        if request.path.startswith("/stream"):
            response = web.StreamResponse()
            await response.prepare(request)
            for number in range(1000):
                await response.write(b"line %d\n" % number)
                await asyncio.sleep(0.02)
            return response
        return web.Response(body=BODY, headers={"X-Kept": "yes"})


@pytest.fixture
async def store() -> AsyncIterator[tuple[Store, str]]:
    behind = Store()
    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_route("*", "/{path:.*}", behind.handle)
    async with TestServer(app) as server:
        yield behind, str(server.make_url("/"))


@pytest.fixture
async def proxy(store: tuple[Store, str]) -> AsyncIterator[FaultProxy]:
    async with FaultProxy.for_store(store[1]) as running:
        yield running


async def test_without_rules_target_host_body_and_headers_pass_unchanged(
    proxy: FaultProxy, store: tuple[Store, str]
) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"{proxy.url}/c%2Fd/e?x=a%20b&y"
        async with session.put(URL(url, encoded=True), data=BODY, headers={"Host": "account.blob.local"}) as answer:
            assert await answer.read() == BODY
            assert answer.headers["X-Kept"] == "yes"
    assert store[0].seen == [("PUT", "/c%2Fd/e?x=a%20b&y", "account.blob.local", BODY)]
    [record] = proxy.requests
    assert (record.status, record.bytes_in, record.bytes_out, record.forwarded) == (200, len(BODY), len(BODY), True)


@pytest.mark.parametrize(
    ("action", "status"),
    [(TooMany(3), 429), (Status(500), 500), (Status(503), 503), (Status(418, b"tea"), 418), (Expired(), 410)],
)
async def test_an_answered_fault_never_reaches_the_server(
    proxy: FaultProxy, store: tuple[Store, str], action: TooMany | Status | Expired, status: int
) -> None:
    proxy.add(Rule(action))
    async with aiohttp.ClientSession() as session, session.get(f"{proxy.url}/x") as answer:
        assert answer.status == status
        assert answer.headers.get("Retry-After") == ("3" if status == 429 else None)
        await answer.read()
    assert store[0].seen == []
    assert proxy.requests[0].action == action


async def test_a_rule_skips_then_fires_its_times_and_leaves_other_requests_alone(proxy: FaultProxy) -> None:
    rule = Rule(Status(500), method="GET", path=r"^/a", skip=1, times=2)
    proxy.add(rule)
    async with aiohttp.ClientSession() as session:

        async def status(method: str, path: str) -> int:
            async with session.request(method, proxy.url + path) as answer:
                return answer.status

        assert [await status("GET", "/a") for _ in range(4)] == [200, 500, 500, 200]
        assert await status("GET", "/b") == 200
        assert await status("PUT", "/a") == 200
        assert (rule.seen, rule.fired) == (4, 2)
        proxy.clear()
        proxy.add(again := Rule(Status(503)))
        assert await status("GET", "/a") == 503
        proxy.remove(again)
        assert await status("GET", "/a") == 200
    assert proxy.count("GET", "^/a$") == 2


async def test_a_dropped_request_is_never_seen_and_a_dropped_reply_comes_from_a_request_that_was(
    proxy: FaultProxy, store: tuple[Store, str]
) -> None:
    proxy.add(Rule(DropRequest(), path="lost-request"), Rule(DropReply(), path="lost-reply"))
    async with aiohttp.ClientSession() as session:
        for path in ("lost-request", "lost-reply"):
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.post(f"{proxy.url}/{path}", data=b"x")
    assert [seen[1] for seen in store[0].seen] == ["/lost-reply"]
    assert [record.forwarded for record in proxy.requests] == [False, True]
    assert [record.status for record in proxy.requests] == [None, None]


@pytest.mark.parametrize("after", [0, 1, 5000, len(BODY)])
async def test_a_cut_body_ends_after_the_given_bytes_and_the_client_can_tell(proxy: FaultProxy, after: int) -> None:
    proxy.add(Rule(CutBody(after)))
    async with aiohttp.ClientSession() as session, session.get(f"{proxy.url}/x") as answer:
        assert answer.status == 200
        if after == len(BODY):  # every promised byte was sent: nothing is missing but the connection
            assert await answer.read() == BODY
            return
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert proxy.requests[0].bytes_out == after


async def test_a_delay_waits_and_then_passes(proxy: FaultProxy) -> None:
    proxy.add(Rule(Delay(0.2)))
    started = time.monotonic()
    async with aiohttp.ClientSession() as session, session.get(f"{proxy.url}/x") as answer:
        assert answer.status == 200
    assert time.monotonic() - started >= 0.2


async def test_a_hanging_request_ends_when_the_proxy_stops(store: tuple[Store, str]) -> None:
    async with FaultProxy.for_store(store[1]) as proxy, aiohttp.ClientSession() as session:
        arrived = asyncio.Event()
        proxy.add(Rule(Hang(), on_match=lambda _: arrived.set()))
        request: asyncio.Task[aiohttp.ClientResponse] = asyncio.ensure_future(_get(session, f"{proxy.url}/x"))
        await asyncio.wait_for(arrived.wait(), 5)
        assert not request.done()
        await proxy.__aexit__(None, None, None)
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(request, 5)
    assert store[0].seen == []


async def test_a_stream_arrives_piece_by_piece(proxy: FaultProxy) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{proxy.url}/stream") as answer:
        started = time.monotonic()
        assert await answer.content.readline() == b"line 0\n"
        assert time.monotonic() - started < 5  # the whole stream takes 20 s


async def test_a_server_that_is_gone_is_a_502(unused_tcp_port: int) -> None:
    gone = f"http://127.0.0.1:{unused_tcp_port}"
    async with (
        FaultProxy.for_store(gone) as proxy,
        aiohttp.ClientSession() as session,
        session.get(f"{proxy.url}/x") as answer,
    ):
        assert answer.status == 502


async def test_on_match_is_told_of_the_request_before_the_action(proxy: FaultProxy) -> None:
    told: list[Recorded] = []
    proxy.add(Rule(Status(500), on_match=told.append))
    async with aiohttp.ClientSession() as session, session.get(f"{proxy.url}/told"):
        pass
    assert [record.path for record in told] == ["/told"]


async def test_a_proxy_with_a_token_serves_only_who_bears_it_and_gives_its_own_to_the_server(
    tmp_path: Path, serve: Callable[[web.Application], Awaitable[str]]
) -> None:
    async def who(request: web.Request) -> web.Response:
        return web.Response(text=request.headers.get("Authorization", "nobody"))

    app = web.Application()
    app.router.add_get("/", who)
    upstream = await serve(app)
    proxy = FaultProxy(upstream, upstream_token="real", serve_tls=True, token="ours")
    async with proxy, aiohttp.ClientSession() as session:
        for given, expected in (("ours", 200), ("other", 401)):
            headers = {"Authorization": f"Bearer {given}"}
            async with session.get(f"{proxy.url}/", headers=headers, ssl=False) as answer:
                assert answer.status == expected
                if expected == 200:
                    assert await answer.text() == "Bearer real"
        path = proxy.write_kubeconfig(tmp_path / "kubeconfig")
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[web.Application], Awaitable[str]]]:
    servers: list[TestServer] = []

    async def start(app: web.Application) -> str:
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return str(server.make_url("/"))

    yield start
    for server in servers:
        await server.close()


async def _get(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientResponse:
    async with session.get(url) as answer:
        return answer


async def test_a_proxy_runs_in_a_thread_for_callers_without_an_event_loop(store: tuple[Store, str]) -> None:
    def use() -> int:
        with FaultProxy.for_store(store[1]) as proxy:
            with urllib.request.urlopen(f"{proxy.url}/x", timeout=10) as answer:
                assert answer.read() == BODY
            return proxy.count("GET", "^/x$")

    assert await asyncio.to_thread(use) == 1
