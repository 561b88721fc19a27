"""Carries one request to an API server: connection, credentials, retries, and the answer or a typed error.

Retried are 429 (after the server's Retry-After), 5xx and broken connections, with exponential back-off and full
jitter. A request that was sent and got no clear answer may have been carried out; the errors after it say so in
`after_retry`, and a request that must not be carried out twice is not repeated then.
"""

import asyncio
import random
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar

import aiohttp

from strongroom.dataplane.kube.config import ClusterAccess
from strongroom.dataplane.kube.errors import KubeAddressRefused, KubeError, KubeUnreachable, error_of_answer

CONNECT_SECONDS: Final = 10.0  # TCP and TLS: longer than two lost SYNs
READ_SECONDS: Final = 60.0  # silence inside an answer; an API server's own limit for a request is 60 s
CONNECTIONS: Final = 16  # a server's default is 400 requests in flight for all clients: leave room for the others
READ_BUFFER_BYTES: Final = 1024 * 1024  # measured best for pages of 1 to 8 MiB: reference/dependencies.md 3B
_WEBSOCKET_CLOSE_SECONDS: Final = 1.0  # for the other side's farewell; nothing is read after it

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again: at most *attempts* in all, none that would start later than *total_s* after the first.

    Before attempt n + 1 the wait is random between 0 and min(*cap_s*, *base_s* × 2ⁿ⁻¹): full jitter keeps clients
    that failed together from coming back together. A Retry-After of the server is the least wait.
    """

    attempts: int = 6
    total_s: float = 130.0  # two attempts that hang for READ_SECONDS, and the waits
    base_s: float = 0.2
    cap_s: float = 10.0

    def wait(self, attempt: int, retry_after_s: float | None, draw: Callable[[], float] = random.random) -> float:
        """Return the seconds to wait after the failed *attempt* (1 is the first); *draw* gives numbers in [0, 1)."""
        jitter = draw() * min(self.cap_s, self.base_s * 2.0 ** (attempt - 1))
        return jitter if retry_after_s is None else retry_after_s + jitter


@dataclass(frozen=True, slots=True)
class Call:
    """One request. *repeatable* is False where carrying it out twice does harm (a create under a generated name)."""

    verb: str
    method: str
    path: str
    resource: str = ""
    params: Mapping[str, str] | Sequence[tuple[str, str]] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"
    accept: str = "application/json"
    repeatable: bool = True
    silence_s: float = READ_SECONDS


class Transport:
    """Connections to one API server. An async context manager; counts what it did."""

    def __init__(
        self,
        access: ClusterAccess,
        *,
        retry: RetryPolicy | None = None,
        connections: int = CONNECTIONS,
        compression: bool | None = None,
        user_agent: str = "strongroom",
    ) -> None:
        self.access = access
        self.retry = retry or RetryPolicy()
        self.requests = 0
        self.bytes_read = 0
        self.retries = 0
        self._connections = connections
        self._compression = access.compression if compression is None else compression
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None
        self._refused = ""

    async def __aenter__(self) -> Self:
        checked = self._socket if self.access.refuse_address is not None else None
        connector = aiohttp.TCPConnector(limit=self._connections, ssl=self.access.tls or True, socket_factory=checked)
        headers = [
            ("User-Agent", self._user_agent),
            ("Accept-Encoding", "gzip" if self._compression else "identity"),
            *self.access.headers,
        ]
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS),
            read_bufsize=READ_BUFFER_BYTES,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        # aiohttp would repeat a PUT or DELETE by itself after a lost reply, and we could not tell our caller. It has
        # no public switch for that; test_kube_transport.py fails should this one go.
        self._session._retry_connection = False
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(self, call: Call) -> bytes:
        """Return the body of the 2xx answer to *call*. Raises a `KubeError` as the module says."""
        return await self._attempts(call, self._read)

    async def request_large(self, call: Call) -> bytearray:
        """Return the body as `request` does, in a buffer that nobody may change.

        A page of 30 MB so takes 50 MB at its peak, joined from pieces it takes 67.
        """

        async def gather(response: aiohttp.ClientResponse) -> bytearray:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
            self.bytes_read += len(body)
            return body

        return await self._attempts(call, gather)

    async def stream(self, call: Call) -> aiohttp.ClientResponse:
        """Return the open 2xx answer to *call*; the caller reads and closes it."""

        async def keep(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
            return response

        return await self._attempts(call, keep)

    async def websocket(
        self, call: Call, protocols: Sequence[str], frame_bytes: int
    ) -> aiohttp.ClientWebSocketResponse:
        """Return the open WebSocket of *call*, speaking one of *protocols*; the caller closes it.

        It holds one of the connections. Tried again is only what surely was not carried out: where no connection came
        about, and after 429. A refused handshake raises by its status alone, without the server's words.
        """
        started = time.monotonic()
        renewed = False
        attempt = 0
        while True:
            attempt += 1
            failure: KubeError
            cause: Exception
            try:
                return await self._open_websocket(call, protocols, frame_bytes)
            except aiohttp.WSServerHandshakeError as error:
                wait = _seconds(error.headers.get("Retry-After")) if error.headers else None
                failure, cause = (
                    error_of_answer(
                        error.status,
                        error.message.encode(),
                        verb=call.verb,
                        path=call.path,
                        resource=call.resource,
                        retry_after_s=wait,
                    ),
                    error,
                )
                if error.status == 401 and not renewed and self.access.credentials.renew():
                    renewed = True
                    attempt -= 1
                    continue
                if error.status != 429:
                    raise failure from error
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                never = _never_connected(error)
                failure, cause = self.broken(call, error, after_retry=not never), error
                if not never or _tls_error(error) is not None or self._refused:
                    raise failure from error
            pause = self.retry.wait(attempt, failure.retry_after_s)
            if attempt >= self.retry.attempts or time.monotonic() - started + pause > self.retry.total_s:
                raise failure from cause
            self.retries += 1
            await asyncio.sleep(pause)

    async def _open_websocket(
        self, call: Call, protocols: Sequence[str], frame_bytes: int
    ) -> aiohttp.ClientWebSocketResponse:
        if self._session is None:
            raise RuntimeError("a KubeApi is used inside `async with`")
        authorization = await self.access.credentials.authorization()
        self.requests += 1
        return await self._session.ws_connect(
            self.access.server + call.path,
            params=call.params or None,
            protocols=protocols,
            headers={"Authorization": authorization} if authorization is not None else None,
            proxy=self.access.proxy,
            server_hostname=self.access.tls_server_name,
            timeout=aiohttp.ClientWSTimeout(ws_close=_WEBSOCKET_CLOSE_SECONDS),
            max_msg_size=frame_bytes,
        )

    def broken(self, call: Call, error: Exception, *, after_retry: bool = True) -> KubeUnreachable:
        """Return our error for *error* of the connection during *call*."""
        said = str(error) or type(error).__name__
        hint = "Check the server's address and that it runs"
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            said = str(error.certificate_error)
            hint = "The kubeconfig's certificate authority did not sign this server's certificate"
        elif _tls_error(error) is not None:
            hint = "The server may not accept the client certificate"
        elif isinstance(error, TimeoutError):
            said = f"no answer: {said}"
        message = f"could not {call.verb} {call.resource or call.path} at {self.access.server}: {said}"
        return KubeUnreachable(
            message, hint=hint, verb=call.verb, path=call.path, resource=call.resource, after_retry=after_retry
        )

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """Return the socket that is about to be connected to *address*, the very one: DNS is not asked again."""
        family, kind, protocol, _, place = address
        assert self.access.refuse_address is not None
        if why := self.access.refuse_address(str(place[0])):
            self._refused = why  # aiohttp tells the errors of several addresses as one text
            raise PermissionError(why)
        return socket.socket(family, kind, protocol)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = await response.read()
        self.bytes_read += len(body)
        return body

    async def _attempts(self, call: Call, use: Callable[[aiohttp.ClientResponse], Awaitable[T]]) -> T:
        started = time.monotonic()
        uncertain = renewed = False
        attempt = 0
        while True:
            attempt += 1
            sent = False
            failure: KubeError
            cause: Exception | None = None
            try:
                response = await self._send(call)
                sent = True
                try:
                    if 200 <= response.status < 300:
                        return await use(response)
                    body = await self._read(response)
                except BaseException:
                    response.close()  # half-read: the connection cannot serve another request
                    raise
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                # Only a connection that was never made is sure to have carried nothing.
                uncertain = uncertain or sent or not _never_connected(error)
                failure, cause = self.broken(call, error, after_retry=uncertain), error
                if self._refused and _never_connected(error):
                    message = f"will not connect to {self.access.server}: {self._refused}"
                    raise KubeAddressRefused(message, verb=call.verb, path=call.path, resource=call.resource) from cause
                if _tls_error(error) is not None:
                    raise failure from cause
            else:
                failure = error_of_answer(
                    response.status,
                    body,
                    verb=call.verb,
                    path=call.path,
                    resource=call.resource,
                    retry_after_s=_seconds(response.headers.get("Retry-After")),
                    after_retry=uncertain,
                )
                if response.status == 401 and not renewed and self.access.credentials.renew():
                    renewed = True
                    attempt -= 1
                    continue
                if response.status != 429 and response.status < 500:
                    raise failure
                uncertain = uncertain or response.status != 429
            wait = self.retry.wait(attempt, failure.retry_after_s)
            spent = time.monotonic() - started
            ambiguous = uncertain and not call.repeatable
            if ambiguous or attempt >= self.retry.attempts or spent + wait > self.retry.total_s:
                raise failure from cause
            self.retries += 1
            await asyncio.sleep(wait)

    async def _send(self, call: Call) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("a KubeApi is used inside `async with`")
        headers = {"Accept": call.accept}
        authorization = await self.access.credentials.authorization()
        if authorization is not None:
            headers["Authorization"] = authorization
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        self.requests += 1
        return await self._session.request(
            call.method,
            self.access.server + call.path,
            params=call.params or None,
            data=call.body,
            headers=headers,
            allow_redirects=False,  # an API server has no reason to send our credentials elsewhere
            proxy=self.access.proxy,
            server_hostname=self.access.tls_server_name,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=call.silence_s),
        )


def _never_connected(error: Exception) -> bool:
    return isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)


def _tls_error(error: BaseException) -> BaseException | None:
    """Return the TLS failure inside *error* that another attempt would meet again, None for any other error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error.__cause__
    if isinstance(inner, ssl.SSLEOFError | ssl.SSLZeroReturnError) or not isinstance(inner, ssl.SSLError):
        return None  # a server that goes down or comes up ends handshakes in the middle
    # In TLS 1.3 a refused client certificate shows as an alert to the first read, after the handshake.
    lasting = isinstance(error, aiohttp.ClientConnectorError) or "ALERT" in (inner.reason or "")
    return inner if lasting else None


def _seconds(header: str | None) -> float | None:
    """Return a Retry-After in seconds; an API server never sends the date form."""
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None
