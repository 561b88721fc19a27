"""Azure Blob Storage, S3 and what speaks it, and Google Cloud Storage, through `obstore`.

obstore repeats what failed on the way (connections, 5xx, 429) with back-off; a create whose reply was lost is
reported, not repeated, unless the server answered with an error first. No obstore type or error leaves this module.
"""

import os
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from strongroom.dataplane.objectstore.credentials import require_credentials, require_given
from strongroom.dataplane.objectstore.errors import (
    ObjectExists,
    ObjectNotFound,
    ObjectStoreError,
    StoreDenied,
    StoreMissing,
    StoreMisused,
    StoreUnavailable,
)
from strongroom.dataplane.objectstore.location import AzureLocation, GcsLocation, S3Location
from strongroom.dataplane.objectstore.port import (
    DELETE_CHUNK,
    Key,
    ObjectInfo,
    check_range,
    is_key,
    parse_prefix,
)

if TYPE_CHECKING:
    from obstore.store import (
        AzureAccessKey,
        AzureConfig,
        AzureCredentialProvider,
        AzureSASToken,
        ClientConfig,
        GCSConfig,
        RetryConfig,
        S3Config,
        S3Credential,
        S3CredentialProvider,
    )

REASON_CHARACTERS = 300  # of a foreign error's text: servers answer with whole XML documents
# obstore asks for credentials again 5 minutes before they expire: so given ones are read anew every 5 minutes.
RENEWED_AFTER = timedelta(minutes=10)
LIST_CHUNK = 1_000  # objects handed over from Rust at once: a page of S3 and GCS


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one call goes on before it is `StoreUnavailable`; seconds."""

    connect: float = 10  # a TLS handshake across an ocean takes about 1
    request: float = 180  # 20 MiB at 1 Mbit/s take 168
    stall: float = 60  # no byte for so long: the connection is dead
    retries: int = 6  # with the back-off below about 20 s of failing answers
    first_wait: float = 0.2
    longest_wait: float = 10
    total: float = 120  # no new attempt after this


PATIENCE = Patience()
# At opening, and to find out why a call failed, somebody waits for a small answer: 20 s in all if none comes.
BRISK = Patience(connect=5, request=10, stall=10, retries=2, total=12)


class CloudStore:
    """An `ObjectStore` in a container or bucket. Made by `open_cloud_store`, which also asks whether it is there."""

    def __init__(
        self,
        location: AzureLocation | S3Location | GcsLocation,
        patience: Patience,
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        self.url = location.url
        self.bytes_read = 0
        self.bytes_written = 0
        self.requests = 0
        # Azure Blob has no "last n bytes".
        self._suffix_ranges = not isinstance(location, AzureLocation)
        try:
            self._store = _build(location, patience, credentials)
            self._brisk = _build(location, BRISK, credentials)
        except BaseError as error:
            raise unbuildable(error, self.url, given=credentials is not None) from (
                error if credentials is None else None
            )

    async def require_readable(self) -> None:
        """Raise what is wrong, if the container cannot be listed: one request, no waiting for a dead endpoint."""
        with self._translated(""):
            # Only a listing tells an absent container from an absent object; this one matches nothing.
            async for _ in obstore.list(self._brisk, "probe/readable", chunk_size=1):
                break

    async def put(self, key: Key, data: bytes | memoryview, *, if_absent: bool = True) -> None:
        try:
            with self._translated(key, writing=True):
                await obstore.put_async(
                    self._store, key, data, mode="create" if if_absent else "overwrite", use_multipart=False
                )
        except StoreDenied as denied:
            # Who may create and not replace is refused a taken key as a lack of permission (Azure's SAS with `c`
            # without `w`), before anybody looks at the condition.
            if not if_absent or not await self._is_there(key):
                raise
            raise ObjectExists(f"{key} exists already in {self.url}", store=self.url, key=key) from denied
        self.bytes_written += len(data)

    async def get(self, key: Key) -> bytes:
        with self._translated(key):
            result = await obstore.get_async(self._store, key)
            size = result.meta["size"]
            data = bytes(await result.bytes_async())
        if len(data) != size:
            raise StoreUnavailable(
                f"{key} in {self.url}: the answer was cut after {len(data)} of {size} bytes",
                hint="Try again",
                store=self.url,
                key=key,
            )
        self.bytes_read += size
        return data

    async def get_range(self, key: Key, start: int, length: int) -> bytes:
        check_range(key, start, length)
        if length == 0:
            await self.head(key)
            return b""
        try:
            with self._translated(key):
                part = bytes(await obstore.get_range_async(self._store, key, start=start, length=length))
        except StoreUnavailable:
            # A range that begins beyond the end is an error in HTTP (416), and obstore does not tell it from others.
            if start >= await self._size(key):
                return b""
            raise
        self.bytes_read += len(part)
        return part

    async def get_tail(self, key: Key, length: int) -> tuple[int, bytes]:
        check_range(key, 0, length)
        if length == 0:
            return await self._size(key), b""
        if self._suffix_ranges:
            try:
                with self._translated(key):
                    result = await obstore.get_async(self._store, key, options={"range": {"suffix": length}})
                    size = result.meta["size"]
                    tail = bytes(await result.bytes_async())
            except StoreUnavailable:
                if await self._size(key) == 0:  # 416 again: an empty object has no last bytes
                    return 0, b""
                raise
            self.bytes_read += len(tail)
            return size, tail
        size = await self._size(key)
        start = max(0, size - length)
        return size, await self.get_range(key, start, size - start)

    async def head(self, key: Key) -> ObjectInfo:
        with self._translated(key):
            meta = await obstore.head_async(self._store, key)
        return ObjectInfo(key, meta["size"], meta["last_modified"])

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        parse_prefix(prefix)
        # obstore's prefixes are whole segments: the last, partial one is ours to compare.
        folder, _, _ = prefix.rpartition("/")
        with self._translated(""):
            async for chunk in obstore.list(self._store, folder or None, chunk_size=LIST_CHUNK):
                for meta in chunk:
                    path = meta["path"]
                    if path.startswith(prefix) and is_key(path):
                        yield ObjectInfo(Key(path), meta["size"], meta["last_modified"])

    async def delete(self, keys: Iterable[Key]) -> None:
        remaining = iter(keys)
        while chunk := [*islice(remaining, DELETE_CHUNK)]:
            try:
                with self._translated(chunk[0]):
                    await obstore.delete_async(self._store, chunk)
            except ObjectNotFound:
                await self._delete_one_by_one(chunk)

    async def close(self) -> None:
        """obstore closes idle connections by itself."""

    async def _delete_one_by_one(self, keys: Iterable[Key]) -> None:
        for key in keys:
            try:
                with self._translated(key):
                    await obstore.delete_async(self._store, key)
            except ObjectNotFound:
                continue

    async def _is_there(self, key: Key) -> bool:
        try:
            await self._size(key)
        except ObjectStoreError:
            return False
        return True

    async def _size(self, key: Key) -> int:
        with self._translated(key):
            return (await obstore.head_async(self._brisk, key))["size"]

    @contextmanager
    def _translated(self, key: str, *, writing: bool = False) -> Iterator[None]:
        self.requests += 1
        try:
            yield
        except (BaseError, OSError) as error:
            raise _translate(error, self.url, key, writing=writing) from error


def unbuildable(error: BaseError, url: str, *, given: bool) -> ObjectStoreError:
    """Return why no client for *url* can be made, before anything was sent; *given*: credentials were handed over."""
    if "No CA certificates" in str(error):  # also for a plain http:// endpoint: the client is made for both
        return StoreMisused(
            "this system has no certificates of authorities, so no store can be trusted",
            hint="Install the package ca-certificates, or name a PEM file in SSL_CERT_FILE",
            store=url,
        )
    # The URL is parsed, so what else obstore cannot read is a credential. Its text is not repeated where a key was
    # handed over: it may quote it.
    where = "that were given" if given else "in the environment"
    return StoreDenied(
        f"the credentials for {url} cannot be read" + ("" if given else f" ({_reason(error)})"),
        hint=f"Check the credentials {where}: a key may be cut or quoted",
        store=url,
    )


def _translate(error: Exception, url: str, key: str, *, writing: bool) -> ObjectStoreError:
    what = f"{key} in {url}" if key else url
    status = _status(error)
    match error:
        case AlreadyExistsError() | PreconditionError():
            return ObjectExists(f"{key} exists already in {url}", store=url, key=key)
        case FileNotFoundError() if key and not writing:
            return ObjectNotFound(f"{key} is not in {url}", store=url, key=key)
    if isinstance(error, FileNotFoundError) or status == HTTPStatus.NOT_FOUND:
        return StoreMissing(
            f"the container or bucket of {url} does not exist ({_reason(error)})",
            hint="Correct the URL or its endpoint, or make the container with the provider's own tools",
            store=url,
            key=key,
        )
    refused = isinstance(error, UnauthenticatedError | PermissionDeniedError)
    if refused or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return StoreDenied(
            f"{what}: the store refused the credentials or the permission ({_reason(error)})",
            hint="Check the credentials in the environment, their expiry, and what they may do in this container",
            store=url,
            key=key,
        )
    return StoreUnavailable(
        f"{what}: the store did not answer as it should ({_reason(error)})",
        hint="Check the endpoint and the network, then try again",
        store=url,
        key=key,
    )


def _status(error: Exception) -> int | None:
    """Return the HTTP status inside *error*: obstore has typed errors for single objects, only text for listings.

    `tests/contract/test_objectstore_cloud.py` notices if a new obstore words it otherwise.
    """
    # Of a deletion in bulk "(code: 403)", else "status code: 403"; "code: 111" alone is an error number of the system.
    found = re.search(r"(?:status |\()code: (\d{3})\b", str(error))
    return int(found[1]) if found else None


def _reason(error: Exception) -> str:
    """Return in a few words why: the status and the provider's code, or the system's reason, or obstore's sentence."""
    text = str(error)
    status, code = _status(error), re.search(r"<Code>(\w+)</Code>", text)
    if status is not None:
        return f"HTTP {status}{' ' + code[1] if code else ''}"
    sentence, _, debug = text.partition("Debug source:")
    # The innermost reason (connection refused, a name that does not resolve) stands in the debug text only.
    system = re.findall(r'(?:message: |error: |source: )"([^"]+)"', debug)
    # The query of a URL may hold a SAS token's signature. obstore hides it; so do we.
    line = " ".join(re.sub(r"\?\S*", "", sentence.rpartition(" - ")[2]).split())
    # What follows quotes the answer. Redirects are followed, so it may be that of a service which trusts this machine,
    # and the endpoint may have been named by somebody whom it does not trust.
    line = re.sub(r"(Got invalid [\w ]+?response).*", r"\1", line)
    return f"{line}{': ' + system[-1] if system else ''}"[:REASON_CHARACTERS]


def _build(
    location: AzureLocation | S3Location | GcsLocation, patience: Patience, credentials: Mapping[str, str] | None
) -> AzureStore | S3Store | GCSStore:
    endpoint = location.endpoint
    client: ClientConfig = {
        # Only where somebody wrote http:// into the URL: never through a variable of the environment.
        "allow_http": endpoint is not None and endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=patience.connect),
        "timeout": timedelta(seconds=patience.request),
        "read_timeout": timedelta(seconds=patience.stall),
    }
    bundle = os.environ.get("SSL_CERT_FILE")  # OpenSSL's variable, for a store behind a private CA
    if bundle:
        client["root_certificate"] = _read_bundle(bundle, location.url)
    retry: RetryConfig = {
        "max_retries": patience.retries,
        "retry_timeout": timedelta(seconds=patience.total),
        "backoff": {
            "init_backoff": timedelta(seconds=patience.first_wait),
            "max_backoff": timedelta(seconds=patience.longest_wait),
            "base": 2,
        },
    }
    prefix = location.prefix or None
    match location:
        case AzureLocation():
            azure: AzureConfig = {
                "account_name": location.account,
                "endpoint": _azure_endpoint(location),
                "use_emulator": False,
            }
            # obstore reads the other names by itself, and prefers what it is given.
            if credentials is not None:
                return AzureStore(
                    location.container,
                    prefix=prefix,
                    config=azure,
                    client_options=client,
                    retry_config=retry,
                    credential_provider=_azure_provider(credentials),
                )
            if "AZURE_STORAGE_ACCOUNT_KEY" not in os.environ and (key := os.environ.get("AZURE_STORAGE_KEY")):
                azure["account_key"] = key
            return AzureStore(
                location.container, prefix=prefix, config=azure, client_options=client, retry_config=retry
            )
        case S3Location():
            # Said again because AWS_CONDITIONAL_PUT=disabled in the environment would take it away.
            s3: S3Config = {"conditional_put": "etag"}
            if endpoint:
                s3["endpoint"] = endpoint
                s3["virtual_hosted_style_request"] = False
            if location.region:
                s3["region"] = location.region
            if credentials is not None:
                return S3Store(
                    location.bucket,
                    prefix=prefix,
                    config=s3,
                    client_options=client,
                    retry_config=retry,
                    credential_provider=_s3_provider(credentials),
                )
            return S3Store(location.bucket, prefix=prefix, config=s3, client_options=client, retry_config=retry)
        case GcsLocation():
            gcs: GCSConfig = {"base_url": endpoint} if endpoint else {}
            if credentials is not None:
                gcs["service_account_key"] = credentials["serviceAccountKey"]
            return GCSStore(location.bucket, prefix=prefix, config=gcs, client_options=client, retry_config=retry)


def _azure_provider(credentials: Mapping[str, str]) -> "AzureCredentialProvider":
    def provide() -> "AzureAccessKey | AzureSASToken":
        again = datetime.now(UTC) + RENEWED_AFTER
        if key := credentials.get("accountKey"):
            return {"access_key": key, "expires_at": again}
        return {"sas_token": credentials.get("sasToken", "").removeprefix("?"), "expires_at": again}

    return provide


def _s3_provider(credentials: Mapping[str, str]) -> "S3CredentialProvider":
    def provide() -> "S3Credential":
        return {
            "access_key_id": credentials.get("accessKeyId", ""),
            "secret_access_key": credentials.get("secretAccessKey", ""),
            "token": credentials.get("sessionToken") or None,
            "expires_at": datetime.now(UTC) + RENEWED_AFTER,
        }

    return provide


def _azure_endpoint(location: AzureLocation) -> str:
    """Return the address of the account: emulators have it in the path, clouds in the host's name.

    An endpoint may be given with the account or without: `https://blob.core.chinacloudapi.cn` and
    `https://account.blob.core.chinacloudapi.cn` mean the same, as do `http://127.0.0.1:10000` and
    `http://127.0.0.1:10000/account`. Any other host is a custom domain of the account and taken as it is.
    """
    if location.endpoint is None:
        return f"https://{location.account}.blob.core.windows.net"
    parts = urlsplit(location.endpoint)
    host = parts.hostname or ""
    if "." not in host or _is_address(host):
        in_path = parts.path.rstrip("/").endswith(f"/{location.account}")
        return location.endpoint if in_path else f"{location.endpoint}/{location.account}"
    if host.startswith("blob."):
        return f"{parts.scheme}://{location.account}.{parts.netloc}{parts.path}"
    return location.endpoint


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _read_bundle(path: str, url: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StoreMisused(
            f"SSL_CERT_FILE names a file that cannot be read: {error.strerror}",
            hint="Set SSL_CERT_FILE to a PEM file of CA certificates, or unset it",
            store=url,
        ) from error


async def open_cloud_store(
    location: AzureLocation | S3Location | GcsLocation, patience: Patience, credentials: Mapping[str, str] | None = None
) -> CloudStore:
    """Return the store at *location* after one request to it; raises as `open_store` says."""
    if credentials is None:
        require_credentials(location, os.environ)
    else:
        require_given(location, credentials)
    store = CloudStore(location, patience, credentials)
    await store.require_readable()
    return store
