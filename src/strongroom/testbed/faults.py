"""A proxy on loopback that misbehaves by rule, for tests: before an API server or before an HTTP object store.

It answers 429, 5xx and 410, delays, cuts bodies, drops requests, drops replies, hangs; what no rule takes passes
unchanged, watches without buffering. It records every request, so tests count calls. It is no tool for production:
whoever has its token is the admin of the cluster behind it.

    with FaultProxy.for_cluster(testbed.kubeconfig) as proxy:      # in a thread of its own
        proxy.add(Rule(TooMany(1), method="GET", path="/api/v1/pods", times=2))
        run("strongroom", "point", "create", "--kubeconfig", proxy.write_kubeconfig(tmp_path / "kubeconfig"))
        assert proxy.count("GET", "/api/v1/pods") == 3

`async with` runs it in the caller's own event loop instead.
"""

import asyncio
import contextlib
import json
import re
import secrets
import ssl
import threading
from pathlib import Path
from typing import Self, assert_never
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from strongroom.testbed.faults_rules import (
    Action,
    CutBody,
    Delay,
    DropReply,
    DropRequest,
    Expired,
    Hang,
    Recorded,
    Rule,
    Status,
    TooMany,
)
from strongroom.testbed.faults_tls import read_upstream, self_signed, write_kubeconfig

__all__ = [
    "Action",
    "CutBody",
    "Delay",
    "DropReply",
    "DropRequest",
    "Expired",
    "FaultProxy",
    "Hang",
    "Recorded",
    "Rule",
    "Status",
    "TooMany",
]

START_SECONDS = 30.0  # a thread that does not listen by then never will
REQUEST_LIMIT_BYTES = 1024**3  # a request is held in memory; the largest in tests is a pack of some 16 MiB
# Headers of one connection, not of the message (RFC 9110 section 7.6.1). `Expect` is answered by us.
HOP_BY_HOP = frozenset(
    [
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
        *("te", "trailer", "transfer-encoding", "upgrade", "expect"),
    ]
)


class FaultProxy:
    """One proxy before one server. Use as `with` (a thread of its own) or `async with` (this event loop)."""

    def __init__(
        self,
        upstream: str,
        *,
        upstream_tls: ssl.SSLContext | None = None,
        upstream_token: str | None = None,
        serve_tls: bool = False,
        token: str | None = None,
    ) -> None:
        """Stand before *upstream* (a URL without a path).

        With *token* only requests that bear it are taken, and the header goes no further: upstream gets
        *upstream_token* or the client certificate of *upstream_tls*.
        """
        self._upstream = upstream.rstrip("/")
        self._upstream_tls = upstream_tls
        self._upstream_token = upstream_token
        self._token = token
        self._rules: list[Rule] = []
        self._requests: list[Recorded] = []
        self._tls: ssl.SSLContext | None = None
        self._certificate = b""
        if serve_tls:
            self._tls, self._certificate = self_signed()
        self._port = 0
        self._stopping = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def for_cluster(cls, kubeconfig: Path) -> Self:
        """Return a TLS proxy before the API server of *kubeconfig*, acting there as that kubeconfig's user."""
        upstream = read_upstream(kubeconfig)
        return cls(
            upstream.server,
            upstream_tls=upstream.tls,
            upstream_token=upstream.token,
            serve_tls=True,
            token=secrets.token_urlsafe(32),
        )

    @classmethod
    def for_store(cls, endpoint: str) -> Self:
        """Return a plain HTTP proxy before an object store; `Host` and signatures pass through as they are."""
        return cls(endpoint)

    @property
    def url(self) -> str:
        """Where clients connect, without a slash at the end."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def certificate(self) -> bytes:
        """The certificate (PEM) that clients must trust; empty for plain HTTP."""
        return self._certificate

    def write_kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig (0600) whose cluster is this proxy, and return *path*."""
        assert self._token is not None, "only a proxy made by for_cluster has a token"
        return write_kubeconfig(path, self.url, self._certificate, self._token)

    # Rules and records; from any thread: lists are replaced or appended to, never changed in the middle.

    def add(self, *rules: Rule) -> None:
        """Add rules behind those that are there; the first that fires on a request has it."""
        self._rules = [*self._rules, *rules]

    def remove(self, rule: Rule) -> None:
        """Take one rule away."""
        self._rules = [known for known in self._rules if known is not rule]

    def clear(self) -> None:
        """Take all rules away and forget what was recorded."""
        self._rules = []
        self._requests = []

    @property
    def requests(self) -> tuple[Recorded, ...]:
        """All requests since the last `clear`, by arrival; those under way included."""
        return tuple(self._requests)

    def count(self, method: str | None = None, path: str = "") -> int:
        """Return how many recorded requests had *method* (None: any) and contain the regex *path*."""
        return sum(1 for one in self.requests if method in (None, one.method) and re.search(path, one.target))

    # Life

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    def __enter__(self) -> Self:
        started = threading.Event()
        failure: list[BaseException] = []

        async def serve() -> None:
            try:
                await self._start()
            except BaseException as error:
                failure.append(error)
                return
            finally:
                started.set()
            await self._stopping.wait()
            await self._stop()

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), name="fault-proxy", daemon=True)
        self._thread.start()
        if not started.wait(START_SECONDS):
            raise TimeoutError(f"the fault proxy did not start within {START_SECONDS:.0f} s")
        if failure:
            raise failure[0]
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread is not None
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    async def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._upstream_tls or True),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        application = web.Application(client_max_size=REQUEST_LIMIT_BYTES)
        application.router.add_route("*", "/{path:.*}", self._handle)
        # Cancelled when the client goes away: a watch or a hanging request must not outlive it.
        self._runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        self._stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    # One request

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        record = Recorded(request.method, request.raw_path)
        self._requests.append(record)
        if self._token is not None:
            given = request.headers.get("Authorization", "").encode()
            if not secrets.compare_digest(given, f"Bearer {self._token}".encode()):
                return _status(record, 401, "Unauthorized", "the fault proxy does not know this token")
        body = await request.read()
        record.bytes_in = len(body)
        rule = next((rule for rule in self._rules if rule.takes(request.method, request.raw_path)), None)
        if rule is None:
            return await self._forward(request, record, body)
        record.action = rule.action
        if rule.on_match is not None:
            rule.on_match(record)
        return await self._act(rule.action, request, record, body)

    async def _act(self, action: Action, request: web.Request, record: Recorded, body: bytes) -> web.StreamResponse:
        match action:
            case TooMany(retry_after):
                headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
                return _status(record, 429, "TooManyRequests", "too many requests", headers=headers)
            case Status(code, b""):
                return _status(record, code, _REASONS.get(code, ""), f"the fault proxy answers {code}")
            case Status(code, text, content_type):
                record.status, record.bytes_out = code, len(text)
                return web.Response(status=code, body=text, content_type=content_type)
            case Expired():
                message = "the provided continue parameter is too old"
                return _status(record, 410, "Expired", message, continue_token="inconsistent-on-purpose")
            case Delay(seconds):
                await asyncio.sleep(seconds)
                return await self._forward(request, record, body)
            case CutBody(after_bytes):
                return await self._forward(request, record, body, cut_after=after_bytes)
            case DropReply():
                with contextlib.suppress(aiohttp.ClientError):  # nobody hears of it either way
                    async with self._upstream_request(request, record, body) as answer:
                        await answer.read()
                return _drop(request)
            case DropRequest():
                return _drop(request)
            case Hang():
                await self._stopping.wait()
                return _drop(request)
            case _:
                assert_never(action)

    async def _forward(
        self, request: web.Request, record: Recorded, body: bytes, *, cut_after: int | None = None
    ) -> web.StreamResponse:
        response: web.StreamResponse | None = None
        try:
            async with self._upstream_request(request, record, body) as answer:
                response = web.StreamResponse(status=answer.status, reason=answer.reason)
                for name, value in answer.headers.items():
                    if name.lower() not in HOP_BY_HOP:
                        response.headers.add(name, value)
                await response.prepare(request)
                record.status = answer.status
                if request.method == "HEAD":
                    return response
                async for chunk in answer.content.iter_any():
                    if cut_after is not None and record.bytes_out + len(chunk) > cut_after:
                        rest = chunk[: cut_after - record.bytes_out]
                        record.bytes_out += len(rest)
                        await response.write(rest)
                        return _drop(request)
                    record.bytes_out += len(chunk)
                    await response.write(chunk)
                if cut_after is not None:
                    return _drop(request)  # shorter than the cut: at least its end is missing
                await response.write_eof()
                return response
        except aiohttp.ClientError as error:
            if response is not None and response.prepared:
                return _drop(request)  # the server broke off in mid-answer, so do we
            return _status(record, 502, "BadGateway", f"the fault proxy cannot reach the server: {error}")

    def _upstream_request(
        self, request: web.Request, record: Recorded, body: bytes
    ) -> "aiohttp.client._RequestContextManager":
        assert self._session is not None
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
        if self._token is not None:
            headers = [(name, value) for name, value in headers if name.lower() not in ("authorization", "host")]
            if self._upstream_token is not None:
                headers.append(("Authorization", f"Bearer {self._upstream_token}"))
        record.forwarded = True
        upstream = urlsplit(self._upstream)
        return self._session.request(
            request.method,
            # From the request's own URL, so that its path and query stay as they were sent: they may be signed.
            request.url.with_scheme(upstream.scheme).with_host(upstream.hostname or "").with_port(upstream.port),
            headers=headers,
            data=body or None,
            allow_redirects=False,
        )


_REASONS = {400: "BadRequest", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 500: "InternalError"}
_REASONS |= {503: "ServiceUnavailable", 504: "Timeout"}


def _status(
    record: Recorded,
    code: int,
    reason: str,
    message: str,
    *,
    headers: dict[str, str] | None = None,
    continue_token: str = "",
) -> web.Response:
    """Return an answer in the shape of a Kubernetes Status; object stores' clients look at the code alone."""
    document = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {"continue": continue_token} if continue_token else {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    body = json.dumps(document).encode()
    record.status, record.bytes_out = code, len(body)
    return web.Response(status=code, body=body, content_type="application/json", headers=headers)


def _drop(request: web.Request) -> web.StreamResponse:
    """Close the client's connection after what was written; the returned response goes nowhere."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()
