"""The blob container of a cluster's extension: where it lies, its repository, and what the extension gets of it."""

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from strongroom.controlplane.catalog.keys import allow_extension, ensure_repository
from strongroom.controlplane.catalog.recovery_kit import recovery_recipient
from strongroom.controlplane.catalog.sealed import Secrets
from strongroom.controlplane.catalog.stores import (
    Folders,
    RefuseAddress,
    StorageAccount,
    container_url,
    extension_access,
    make_container,
    open_container,
    validate_attachment,
)
from strongroom.controlplane.clusters.hosted import ExtensionKeys
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import now
from strongroom.dataplane.objectstore.create import probe_conditional_create
from strongroom.dataplane.objectstore.location import FileLocation, parse_location
from strongroom.dataplane.objectstore.port import ObjectStore
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.repository import Repository
from strongroom.extension.api.documents import BackupStorageLocation, ObjectMeta, StorageLocationSpec
from strongroom.protection.errors import ErrorCode, Refused, UserError

ACCOUNTS: Final = "Microsoft.Storage/storageAccounts"
SEALED: Final = "storage/"  # the sealed place of an attached account, by its ARM id: {"url", "credentials"}
PREFIX: Final = "configuration.backupStorageLocation."


@dataclass(frozen=True)
class Place:
    """A container: *account* as the catalog opens it, *container* its name, *id* its ARM id."""

    account: StorageAccount
    account_id: str
    container: str

    @property
    def id(self) -> str:
        return f"{self.account_id}/blobServices/default/containers/{self.container}"

    @property
    def location_name(self) -> str:
        """The name of the storage location in a cluster: a Kubernetes name, one for each container."""
        return "location-" + hashlib.sha256(self.id.lower().encode()).hexdigest()[:16]


def account_of_extension(extension: Resource) -> tuple[str, str]:
    """Return the ARM id of the storage account and the container's name that an extension was installed with.

    Raises `Refused` (`UserErrorNoDefaultBackupStorageLocationFound`).
    """
    settings = {k.lower(): str(v) for k, v in (extension.properties.get("configurationSettings") or {}).items()}

    def setting(name: str) -> str:
        return settings.get((PREFIX + name).lower(), "").strip()

    container, account = setting("bucket"), setting("config.storageAccount")
    group, subscription = setting("config.resourceGroup"), setting("config.subscriptionId")
    if not (container and account and group):
        raise Refused(
            UserError(
                str(ErrorCode.NO_DEFAULT_LOCATION),
                f"The backup extension {extension.name} names no storage location.",
                (
                    "Install it with the configuration settings blobContainer, storageAccount, "
                    "storageAccountResourceGroup and storageAccountSubscriptionId.",
                ),
                extension.id,
            )
        )
    subscription = subscription or extension.id.split("/")[2]
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{ACCOUNTS}/{account}", container


def find_place(tx: Tx, extension: Resource) -> Place:
    """Return the container that an extension uses. Raises `Refused` when account or container do not exist."""
    account_id, container = account_of_extension(extension)
    if problem := missing_place(tx, extension):
        raise Refused(problem)
    account = tx.resources.get(account_id)
    assert account is not None, "missing_place has found it"
    return Place(read_account(tx, account), account.id, container)


def missing_place(tx: Tx, extension: Resource) -> UserError | None:
    """Return the error that the storage account or container of *extension* do not exist, None when they do.

    Raises `Refused` when it names none.
    """
    account_id, container = account_of_extension(extension)
    place = f"{account_id}/blobServices/default/containers/{container}"
    missing = next((id for id in (account_id, place) if tx.resources.get(id) is None), None)
    if missing is None:
        return None
    _, _, subscription, _, group, *_, account = account_id.split("/")
    where = f"--subscription {subscription} --resource-group {group}"
    cluster = tx.resources.get(extension.parent)
    region = f" --location {cluster.doc.get('location')}" if cluster else ""
    # container-rm: `az storage container create` asks the account itself, which here is no service of Azure's.
    command = (
        f"az storage account create {where} --name {account}{region}"
        if missing == account_id
        else f"az storage container-rm create {where} --storage-account {account} --name {container}"
    )
    return UserError(
        str(ErrorCode.NO_DEFAULT_LOCATION),
        f"The storage location of the backup extension is gone or was never there: {missing}.",
        (command, "Or install the extension with another storage account and container."),
        missing,
    )


def place_named(tx: Tx, id: str) -> Place:
    """Return the container with the ARM id *id*, which a recovery point lies in. Raises `Refused` without its account.

    That the container itself was deleted in ARM does not matter: its content stays.
    """
    account_id, _, container = id.partition("/blobServices/default/containers/")
    if not container:
        account_id, _, container = id.lower().partition("/blobservices/default/containers/")
    account = tx.resources.get(account_id)
    if account is None:
        message = f"The storage account {account_id} was deleted."
        action = "Create it again with the same location, or attach it: strongroom storage attach."
        raise Refused(UserError(str(ErrorCode.NO_DEFAULT_LOCATION), message, (action,), account_id))
    return Place(read_account(tx, account), account.id, container)


def read_account(tx: Tx, account: Resource) -> StorageAccount:
    """Return how the catalog opens a storage account: local, or attached with the credentials that are kept sealed."""
    sealed = tx.secrets.get(SEALED + account.id.lower())
    if sealed is None:
        return StorageAccount(account.name)
    kept = json.loads(sealed)
    return StorageAccount(account.name, kept["url"], kept["credentials"])


@dataclass(frozen=True)
class Located:
    """A container as an extension is told of it."""

    document: BackupStorageLocation
    credentials: Mapping[str, str] = field(repr=False)


class Containers:
    """Opens containers for the control plane, and prepares them for extensions."""

    def __init__(
        self, home: Path, secrets: Secrets, refuse_address: RefuseAddress, roots: tuple[Path, ...] | None = ()
    ) -> None:
        """Of the machine's own folders those below *roots* may be used as attached accounts; None: any."""
        self._home = home
        self._folders = Folders(home, roots)
        self._storage = home / "storage"
        self._secrets = secrets
        self._refuse_address = refuse_address

    def validate(self, url: str, credentials: Mapping[str, str]) -> StorageAccount:
        """Return the account that a user attaches, without a name. Raises `AttachmentRefused` naming the field."""
        return validate_attachment(url, credentials, folders=self._folders, refuse_address=self._refuse_address)

    async def prove(self, place: Place) -> None:
        """Show that a new container can be listed, written and read, and keeps what is written from being replaced.

        The folder of one that is a folder is made. Raises errors of the store, `StoreUnsafe` among them.
        """
        await asyncio.to_thread(self._refuse_folder, place)
        await make_container(place.account, place.container, storage=self._storage, refuse_address=self._refuse_address)
        async with self.store(place) as store:
            await probe_conditional_create(store)

    @contextlib.asynccontextmanager
    async def store(self, place: Place) -> AsyncIterator[ObjectStore]:
        """Open the container with the control plane's rights, for as long as the block runs."""
        await asyncio.to_thread(self._refuse_folder, place)
        store = await open_container(
            place.account, place.container, storage=self._storage, refuse_address=self._refuse_address
        )
        try:
            yield store
        finally:
            await store.close()

    async def keys(self, place: Place, store: ObjectStore) -> KeyFile:
        """Return the keys of the container's repository, which is made when it was never used."""
        recipient = await asyncio.to_thread(recovery_recipient, self._home)
        return await ensure_repository(store, self._secrets, place.id, recipient)

    @contextlib.asynccontextmanager
    async def repository(self, place: Place) -> AsyncIterator[Repository]:
        """Open the repository of a container for the control plane: it may delete recovery points."""
        async with self.store(place) as store:
            yield await Repository.open(store, await self.keys(place, store))

    async def allow(self, place: Place, extension: ExtensionKeys) -> None:
        """Let an extension into the repository."""
        async with self.store(place) as store:
            keys = await self.keys(place, store)
            await allow_extension(store, keys, extension.recipient, extension.writer)

    async def location(self, place: Place) -> Located:
        """Return a container as the storage location of an extension, with credentials for the next hour."""
        async with self.store(place) as store:
            keys = await self.keys(place, store)
        access = extension_access(place.account, place.container, storage=self._storage, now=now())
        document = BackupStorageLocation(
            metadata=ObjectMeta(name=place.location_name),
            spec=StorageLocationSpec(
                url=access.url,
                root=base64.b64encode(keys.root.public_key().public_bytes_raw()).decode(),
                repository_id=keys.repository_id,
            ),
        )
        return Located(document, dict(access.credentials))

    def _refuse_folder(self, place: Place) -> None:
        """Raise `AttachmentRefused` for a folder that may not be used, or no longer. A file server may hold it up."""
        if place.account.url.startswith("file:"):
            match parse_location(container_url(place.account, place.container, storage=self._storage)):
                case FileLocation(path):
                    self._folders.refuse(path)

    def url(self, place: Place) -> str:
        """Return where a container lies, without credentials."""
        return container_url(place.account, place.container, storage=self._storage)
