"""Finds the object store of a storage container, for the control plane and, with less rights, for an extension.

A storage account is *local* (folders in the home), or attached: a URL at which its containers lie as folders, or for
`az://account` as containers. What users attach is untrusted input; the rules are in `validate_attachment`.
"""

import asyncio
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from strongroom.controlplane.catalog.errors import AttachmentRefused
from strongroom.controlplane.catalog.sas import SAS_LIFETIME, container_sas
from strongroom.dataplane.objectstore.credentials import GIVEN, require_given
from strongroom.dataplane.objectstore.errors import ObjectStoreError, StoreMisused
from strongroom.dataplane.objectstore.location import (
    AzureLocation,
    FileLocation,
    GcsLocation,
    MemoryLocation,
    S3Location,
    parse_location,
)
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.objectstore.port import ObjectStore

# Learn: "Naming rules for Azure resources", Microsoft.Storage. They also make safe names of folders.
_ACCOUNT: Final = re.compile(r"[a-z0-9]{3,24}", re.ASCII)
_CONTAINER: Final = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)

RefuseAddress = Callable[[str], str]
"""Says why an IP address may not be connected to, "" where it may: `clusters.addresses.refused_address`."""


@dataclass(frozen=True)
class StorageAccount:
    """Where the containers of an account lie: *url* is "" for a local account. *credentials* as in `GIVEN`."""

    name: str
    url: str = ""
    credentials: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"StorageAccount(name={self.name!r}, url={self.url!r}, …)"

    @property
    def local(self) -> bool:
        return not self.url

    @property
    def is_folder(self) -> bool:
        """Whether its containers are folders of the server's own machine: a pod of a cluster does not reach them."""
        return self.local or self.url.startswith("file:")


@dataclass(frozen=True)
class ExtensionAccess:
    """What an extension gets for one container: the URL, credentials, when they end (None: never by themselves).

    *warnings* are whole sentences for the validation's answer.
    """

    url: str
    credentials: Mapping[str, str]
    expires: datetime | None = None
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"ExtensionAccess(url={self.url!r}, …)"


@dataclass(frozen=True)
class Folders:
    """Which folders of the server's machine may be attached: those below *roots* (None: any) outside of *home*."""

    home: Path
    roots: tuple[Path, ...] | None

    def refuse(self, folder: Path) -> None:
        """Raise `AttachmentRefused` unless *folder* may be used. Asked at each use too, as links may change."""
        if ".." in folder.parts:
            hint = "Write file:///folder"
            raise AttachmentRefused("url", "the folder is not an absolute path without '..'", hint=hint)
        # Symbolic links are followed: a link in a root may lead elsewhere, or a link elsewhere to the home.
        real, home = folder.resolve(), self.home.resolve()
        if real == home or real.is_relative_to(home) or home.is_relative_to(real):
            raise AttachmentRefused(
                "url",
                "the folder lies in the server's home, or the home in it",
                hint="Name another folder; a local account (no strongroomLocation) has one in the home by itself",
            )
        if self.roots is not None and not any(real.is_relative_to(root.resolve()) for root in self.roots):
            raise AttachmentRefused(
                "url",
                "the folder does not lie below one that the server's administrator gave as --storage-root",
                hint="Start serve with --storage-root FOLDER, or leave strongroomLocation out for a local account",
            )


def validate_attachment(
    url: str, credentials: Mapping[str, str], *, folders: Folders, refuse_address: RefuseAddress
) -> StorageAccount:
    """Return the account (without a name) that a user describes, or raise `AttachmentRefused` naming the field.

    The rules: one of the four schemes, with no credentials in the URL; credentials of the scheme's own fields, complete
    and of one kind, never those of the server's environment; an endpoint whose host, if it is an address, is not one
    that *refuse_address* refuses (names are looked at by `refuse_endpoint`, when they are used); a folder that
    *folders* allow.
    """
    if url.startswith("memory:"):
        raise AttachmentRefused("url", "a memory:// store ends with the server", hint=_FORMS)
    try:
        if not url.startswith("az:"):
            parse_location(url)  # of an Azure account the container comes with the container's name only
        location = parse_location(_below(url, "container"))
    except ObjectStoreError as error:
        raise AttachmentRefused("url", error.message, hint=error.hint) from error
    match location:
        case FileLocation(path):
            if credentials:
                raise AttachmentRefused("credentials", "a folder takes no credentials", hint="Leave them out")
            folders.refuse(path.parent)  # of the container that was put below it
        case AzureLocation() | S3Location() | GcsLocation():
            _check_fields(location.url, credentials)
            try:
                require_given(location, credentials)
            except ObjectStoreError as error:
                raise AttachmentRefused("credentials", error.message, hint=error.hint) from error
            if isinstance(location, GcsLocation):
                _check_service_account(credentials["serviceAccountKey"])
            host = urlsplit(location.endpoint or "").hostname or ""
            if host == "localhost" or host.endswith(".localhost"):  # RFC 6761: always loopback
                host = "127.0.0.1"
            if why := _refused(host, refuse_address):
                raise AttachmentRefused("url", f"its endpoint is refused: {why}", hint="Name another endpoint")
    return StorageAccount("", url, dict(credentials))


async def refuse_endpoint(account: StorageAccount, refuse_address: RefuseAddress) -> None:
    """Raise `AttachmentRefused` if the name of the account's endpoint leads to an address that is refused.

    Asked before each use, as names change. What is left: a name whose answer changes between this and the connection.
    """
    if account.local:
        return
    location = parse_location(_below(account.url, "container"))
    endpoint = location.endpoint if isinstance(location, AzureLocation | S3Location | GcsLocation) else None
    parts = urlsplit(endpoint or "")
    if not parts.hostname:
        return
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    except OSError:
        return  # opening the store says so, in its own words
    for address in {str(each[4][0]) for each in found}:
        if why := refuse_address(address):
            raise AttachmentRefused("url", f"its endpoint is refused: {why}", hint="Name another endpoint")


def container_url(account: StorageAccount, container: str, *, storage: Path) -> str:
    """Return where a container lies; *storage* is the home's folder of local accounts. Raises `StoreMisused`."""
    if not _CONTAINER.fullmatch(container):
        raise StoreMisused(f"{container!r} is not the name of a container")
    if not account.local:
        return _below(account.url, container)
    if not _ACCOUNT.fullmatch(account.name):
        raise StoreMisused(f"{account.name!r} is not the name of a storage account")
    return FileLocation(storage.absolute() / account.name / container).url


async def open_container(
    account: StorageAccount, container: str, *, storage: Path, refuse_address: RefuseAddress
) -> ObjectStore:
    """Open a container with the control plane's rights: it may delete. The caller closes it.

    A local container's folder is made; attached ones must be there. Raises what `open_store` and `refuse_endpoint` do.
    """
    await refuse_endpoint(account, refuse_address)
    url = container_url(account, container, storage=storage)
    credentials = None if account.is_folder else account.credentials
    return await open_store(url, create=account.local, credentials=credentials)


async def make_container(
    account: StorageAccount, container: str, *, storage: Path, refuse_address: RefuseAddress
) -> None:
    """Make the folder of a new container, or look whether a cloud has it: there it is made with the provider's tools.

    May run twice. Raises as `open_container` does; `StoreMissing` for a cloud's container that is not there.
    """
    await refuse_endpoint(account, refuse_address)
    url = container_url(account, container, storage=storage)
    # A folder of a file server is made here and not at use: while it is not mounted, backups must not land beneath.
    credentials = None if account.is_folder else account.credentials
    store = await open_store(url, create=account.is_folder, credentials=credentials)
    await store.close()


def extension_access(account: StorageAccount, container: str, *, storage: Path, now: datetime) -> ExtensionAccess:
    """Return what an extension may use: create, read and list, for an hour, as far as the store's kind allows it.

    Pure. Raises `StoreDenied` for an account key that cannot be one.
    """
    url = container_url(account, container, storage=storage)
    location = parse_location(url)
    match location:
        case FileLocation() | MemoryLocation():
            return ExtensionAccess(url, {}, warnings=(_LOCAL,))
        case AzureLocation() if key := account.credentials.get("accountKey"):
            token = container_sas(location, key, now=now)
            return ExtensionAccess(url, {"sasToken": token}, expires=now + SAS_LIFETIME)
        case _:
            return ExtensionAccess(url, dict(account.credentials), warnings=(_AS_GIVEN,))


_FORMS = "Write az://account, s3://bucket/prefix, gs://bucket/prefix or file:///folder"
_LOCAL = (
    "The storage account is served from this server's own disk: only the extension that the server hosts reaches it, "
    "and a loss of this machine takes cluster backups and server together."
)
_AS_GIVEN = (
    "The credentials go to the extension as they are: that it can create and read, and not replace or delete, holds "
    "only if the store's own policy says so (for S3 a bucket policy that demands If-None-Match on writes)."
)


def _below(url: str, container: str) -> str:
    """Return the URL of a container of an account: its name is the next part of the path."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url  # `parse_location` says what is wrong with it
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(container)}"))


def _check_fields(url: str, credentials: Mapping[str, str]) -> None:
    known = sorted({name for way in GIVEN[url.partition(":")[0]] for name in way})
    for name, value in credentials.items():
        if not isinstance(value, str):
            raise AttachmentRefused(f"credentials.{name}", "it is not text", hint=f"Give {' or '.join(known)} as text")


def _check_service_account(text: str) -> None:
    """Raise unless *text* is Google's key file of a service account and nothing in it leads elsewhere."""
    field = "credentials.serviceAccountKey"
    try:
        key = msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise AttachmentRefused(field, "it is not the JSON text of a key file", hint=_SERVICE_ACCOUNT) from None
    if unknown := sorted(key.keys() - _SERVICE_ACCOUNT_FIELDS):
        # gcs_base_url and disable_oauth would send requests, and the signature, to any address.
        raise AttachmentRefused(field, f"it has the field {unknown[0]!r}", hint=_SERVICE_ACCOUNT)
    if key.get("type") != "service_account" or key.get("token_uri", _TOKEN_URI) != _TOKEN_URI:
        raise AttachmentRefused(field, "it is not the key of a service account of Google's", hint=_SERVICE_ACCOUNT)


_TOKEN_URI: Final = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_SERVICE_ACCOUNT: Final = "Give the file that Google made for a service account, unchanged"
# As `gcloud iam service-accounts keys create` writes it.
_SERVICE_ACCOUNT_FIELDS: Final = frozenset(
    [
        "type",
        "project_id",
        "private_key_id",
        "private_key",
        "client_email",
        "client_id",
        "auth_uri",
        "token_uri",
        "auth_provider_x509_cert_url",
        "client_x509_cert_url",
        "universe_domain",
    ]
)


def _refused(host: str, refuse_address: RefuseAddress) -> str:
    return refuse_address(host) if host and _is_address(host) else ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
