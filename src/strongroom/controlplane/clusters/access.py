"""Tokens of a cluster's accounts, asked for through the connector, kept and renewed; and the API as one of them.

The connector's long-lived token is all that is stored of a cluster. So a server that was off for longer than any other
token lives works again by itself: the next request asks for a new one.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from strongroom.controlplane.clusters.errors import ClusterError, ClusterUnreachable, translated
from strongroom.controlplane.clusters.kinds import SERVICE_ACCOUNTS
from strongroom.controlplane.clusters.kubeconfig import kube_access
from strongroom.controlplane.clusters.manifests import NAMESPACE
from strongroom.controlplane.state.private_file import write_private
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.credentials import StaticCredentials
from strongroom.dataplane.kube.errors import KubeProtocolError
from strongroom.dataplane.kube.transport import RetryPolicy

MIN_SECONDS: Final = 600  # the API server issues none for less (validation of TokenRequest)
MAX_SECONDS: Final = 3600  # design.md section 8: a token that gets lost opens nothing after an hour
RENEW_BEFORE_SECONDS: Final = 600.0  # an outage of that length is not noticed by those who have a token
RENEW_SHARE: Final = 1 / 3  # of the life of a token that a server gave for less than half an hour
USABLE_SECONDS: Final = 30.0  # a request under way must not outlive its token, and clocks differ
FILE_CHECK_SECONDS: Final = 15.0  # finds a token that ended while the machine slept, and the end of an outage
RETRY: Final = RetryPolicy(attempts=4, total_s=30.0)  # whoever asks for a token waits meanwhile

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token of an account and when it ends, by this machine's clock (UTC)."""

    text: str = field(repr=False)
    expires: datetime


@dataclass(frozen=True, slots=True)
class HeldToken:
    """A token with the moments, of `time.monotonic`, at which it should be renewed and at which it ends."""

    token: Token
    renew_at: float
    ends_at: float

    def fresh(self, now: float, today: datetime) -> bool:
        # The monotonic clock stands still while a machine sleeps, the other one may be set.
        return now < self.renew_at and today < self.token.expires - timedelta(seconds=USABLE_SECONDS)

    def usable(self, now: float, today: datetime) -> bool:
        margin = timedelta(seconds=USABLE_SECONDS)
        return now < self.ends_at - USABLE_SECONDS and today < self.token.expires - margin


class _RequestStatus(msgspec.Struct, frozen=True, rename="camel"):
    token: str
    expiration_timestamp: datetime


class _RequestMeta(msgspec.Struct, frozen=True, rename="camel"):
    creation_timestamp: datetime | None = None


class _TokenRequest(msgspec.Struct, frozen=True):
    status: _RequestStatus
    metadata: _RequestMeta = _RequestMeta()


class ClusterAccess:
    """A connected cluster: gives tokens of the accounts that its connector may ask for, and the API as one of them.

    *server* and *ca* (PEM) are the connection's, *connector_token* is the secret that `connect` returned,
    *allow_loopback* as for `parse_kubeconfig`. Belongs to one event loop. No method keeps a connection open.
    """

    def __init__(self, server: str, ca: bytes, connector_token: str, *, allow_loopback: bool = False) -> None:
        self.server = server
        self.ca = ca
        self.allow_loopback = allow_loopback
        self._connector_token = connector_token
        self._held: dict[str, HeldToken] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def token(self, account: str, *, seconds: int = MAX_SECONDS) -> Token:
        """Return a token of *account* (a ServiceAccount of our namespace), good for 10 minutes at least.

        A held one is returned until 10 minutes before its end (a third of its life, where that is less); then one for
        *seconds* (600 to 3600) is asked for, and where that fails for the moment, the held one serves while it lasts.
        Raises `ClusterUnreachable`, `ClusterUnauthorized` (the connector was revoked), `ClusterForbidden` (it may not
        ask for this account's), `ClusterError` (there is no such account).
        """
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            raise ValueError(f"a token lives {MIN_SECONDS} to {MAX_SECONDS} seconds, not {seconds}")
        async with self._locks.setdefault(account, asyncio.Lock()):  # many requests wait for one
            held = self._held.get(account)
            now, today = time.monotonic(), datetime.now(UTC)
            if held is not None and held.fresh(now, today):
                return held.token
            try:
                found = await self._request(account, seconds)
            except ClusterUnreachable as error:
                if held is None or not held.usable(time.monotonic(), datetime.now(UTC)):
                    raise
                log.warning("token of %s could not be renewed, the one before serves on: %s", account, error.message)
                return held.token
            except ClusterError:
                self.forget(account)
                raise
            self._held[account] = found
            return found.token

    def forget(self, account: str) -> None:
        """Let the next `token` ask the cluster: the held one was refused, or the account is gone."""
        self._held.pop(account, None)

    def api(self, account: str, *, retry: RetryPolicy | None = None) -> KubeApi:
        """Return the cluster's API as *account*: an async context manager, whose methods raise `KubeError`.

        Where a token cannot be had, a request raises what `token` raises.
        """
        credentials = _AccountCredentials(self, account)
        access = kube_access(self.server, self.ca, credentials, allow_loopback=self.allow_loopback)
        return KubeApi(access, retry=retry)

    async def _request(self, account: str, seconds: int) -> HeldToken:
        credentials = StaticCredentials(f"Bearer {self._connector_token}")
        access = kube_access(self.server, self.ca, credentials, allow_loopback=self.allow_loopback)
        with translated(f"get a token of {account}"):
            async with KubeApi(access, retry=RETRY, connections=1) as api:
                return await request_token(api, account, seconds)


async def request_token(api: KubeApi, account: str, seconds: int) -> HeldToken:
    """Ask *api* for a token of *account*. Raises `KubeError`."""
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": seconds},
    }
    before, today = time.monotonic(), datetime.now(UTC)
    answer = await api.create(SERVICE_ACCOUNTS, body, NAMESPACE, name=account, subresource="token")
    try:
        request = msgspec.json.decode(answer, type=_TokenRequest)
    except msgspec.DecodeError as error:  # its text names the field and holds no value
        raise KubeProtocolError(f"a request for a token was answered with what is none: {error}") from error
    # Both times are the server's, so its clock may differ from ours. A server may grant less than was asked for.
    made = request.metadata.creation_timestamp
    life = float(seconds) if made is None else (request.status.expiration_timestamp - made).total_seconds()
    token = Token(request.status.token, today + timedelta(seconds=life))
    return HeldToken(token, before + life - min(RENEW_BEFORE_SECONDS, life * RENEW_SHARE), before + life)


class _AccountCredentials:
    """The `Credentials` of `dataplane.kube` for one account of a connected cluster."""

    def __init__(self, access: ClusterAccess, account: str) -> None:
        self._access = access
        self._account = account

    async def authorization(self) -> str | None:
        return f"Bearer {(await self._access.token(self._account)).text}"

    def renew(self) -> bool:
        self._access.forget(self._account)
        return True


class TokenFile:
    """Keeps a file with an account's token fresh, for a process that reads it again (`TokenFileCredentials`).

    The file has mode 0600 and is replaced whole. Every 15 s it is seen to, for ever: after an outage of any length, or
    a sleep of the machine, it is right again by itself. `failure` says what the last attempt met, None if it went well.
    An async context manager: entering writes the first token, leaving removes the file.
    """

    def __init__(self, access: ClusterAccess, account: str, path: Path, *, check_s: float = FILE_CHECK_SECONDS) -> None:
        self.path = path
        self.failure: ClusterError | None = None
        self._access = access
        self._account = account
        self._check_s = check_s
        self._written = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Write the first token and keep it fresh from now on. Raises what `ClusterAccess.token` raises."""
        if self._task is None:
            await self._write()
            self._task = asyncio.create_task(self._keep(), name=f"token file of {self._account}")

    async def renew(self) -> None:
        """Write a new token now, because the one in the file was refused. Raises what `ClusterAccess.token` raises."""
        self._access.forget(self._account)
        await self._write()

    async def stop(self) -> None:
        """Stop, and remove the file."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(self.path.unlink, missing_ok=True)

    async def __aenter__(self) -> "TokenFile":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._check_s)
            try:
                await self._write()
            except ClusterError as error:
                self.failure = error
                log.warning("token file of %s could not be renewed: %s", self._account, error.message)
            except OSError as error:
                self.failure = ClusterError(f"the token file of {self._account} cannot be written: {error.strerror}")
                log.exception("token file of %s could not be written", self._account)

    async def _write(self) -> None:
        token = await self._access.token(self._account)
        if token.text != self._written or not await asyncio.to_thread(self.path.exists):
            await asyncio.to_thread(write_private, self.path, token.text.encode())
            self._written = token.text
        self.failure = None
