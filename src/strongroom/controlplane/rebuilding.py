"""Makes vaults, policies, backup instances and recovery points anew from a container, after the home was lost.

Works on the home's database beside a running server or without one. What stands already is left as it is, so it may
be stopped and repeated. What a manifest says of resources came through a cluster: it is read as the API reads a
request, and what does not pass is replaced by defaults and told (`Rebuilt.doubts`).
"""

import asyncio
import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec
from azure.mgmt.dataprotection import types as wire

from strongroom.controlplane.arm.dataprotection.instances import CONFIGURATION_KEYS
from strongroom.controlplane.arm.formats import ArmId, check_name, region_of
from strongroom.controlplane.arm.resources.subscriptions import subscription
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.arm.storage.containers import CONTAINERS
from strongroom.controlplane.catalog.errors import AttachmentRefused, CatalogError
from strongroom.controlplane.catalog.keys import repository_keys
from strongroom.controlplane.catalog.rebuild import RebuiltInstance, read_instances
from strongroom.controlplane.catalog.recovery_kit import RecoveryKit, adopt_with_kit, open_with_kit
from strongroom.controlplane.catalog.sealed import StateSecrets
from strongroom.controlplane.catalog.stores import StorageAccount
from strongroom.controlplane.identity.principals import managed_identity
from strongroom.controlplane.identity.stored import TxPrincipals
from strongroom.controlplane.rebuilding_defaults import STORAGE, daily_policy, least_instance, security_settings
from strongroom.controlplane.state.database import Database, Tx
from strongroom.controlplane.state.resources import Document, Resource
from strongroom.controlplane.state.times import stamp
from strongroom.controlplane.workflows.containers import ACCOUNTS, SEALED, Containers, Place, read_account
from strongroom.controlplane.workflows.pointdocs import store_points
from strongroom.controlplane.workflows.protecting import DELETED, with_state
from strongroom.controlplane.workflows.readiness import INSTANCES, read_instance
from strongroom.controlplane.workflows.remembered import CONTAINER, INSTANCE, LOCATIONS, POLICY, VAULT
from strongroom.dataplane.objectstore.port import ObjectStore
from strongroom.dataplane.repository.errors import RepositoryError
from strongroom.dataplane.repository.model import Manifest
from strongroom.dataplane.repository.repository import READERS, Repository
from strongroom.errors import UsageError
from strongroom.protection.errors import Refused, invalid
from strongroom.protection.instance import ProtectionState
from strongroom.protection.policy import parse_policy

VAULTS: Final = "Microsoft.DataProtection/backupVaults"
POLICIES: Final = f"{VAULTS}/backupPolicies"
GROUPS: Final = "Microsoft.Resources/resourceGroups"
DEFAULT_LOCATION: Final = "local"  # for a vault whose points do not tell theirs


class RebuildError(CatalogError, UsageError):
    """What was named to rebuild from is not enough, or does not fit."""


@dataclass(frozen=True)
class Source:
    """What to rebuild from, as a person names it.

    *named* is a container's ARM id or its URL. *container* is the ARM id that it had, where neither kit nor points tell
    it. *credentials* as in `objectstore.credentials.GIVEN`; empty means the kit's.
    """

    named: str
    container: str = ""
    credentials: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Source({self.named!r}, …)"


@dataclass(frozen=True)
class Rebuilt:
    """What was made (ARM ids), what stood already and was left as it is, and how many points became known.

    *strangers* counts points that no backup instance made, *unreadable* maps point ids to why they cannot be used.
    *doubts* are sentences about what could not be made as it was, or may not be what it says.
    """

    container: str
    url: str
    repository: str
    made: tuple[str, ...]
    stood: tuple[str, ...]
    points: int
    strangers: int
    unreadable: Mapping[str, str]
    doubts: tuple[str, ...]


class Rebuilding:
    """Rebuilds in one home: its database, its tenant, the containers as it opens them."""

    def __init__(self, db: Database, containers: Containers, tenant: str) -> None:
        self._db = db
        self._secrets = StateSecrets(db)
        self._containers = containers
        self._tenant = tenant

    async def rebuild(
        self, source: Source, kit: RecoveryKit, *, vaults: Collection[str] = (), location: str = "", now: datetime
    ) -> Rebuilt:
        """Make everything of the container anew, or what belongs to *vaults* (ARM ids) alone.

        *location* is for vaults whose points do not tell theirs. Raises `RebuildError`, `KitInvalid`, and what the
        store and the repository raise.
        """
        place = await self._find_place(source, kit)
        async with self._containers.store(place) as store:
            if await repository_keys(self._secrets, place.id) is None:
                await adopt_with_kit(store, self._secrets, place.id, kit)
            keys = await self._containers.keys(place, store)
            repository = await Repository.open(store, keys)
            found = await read_instances(repository)
            wanted = [i for i in found.instances if not vaults or i.vault.lower() in {v.lower() for v in vaults}]
            if vaults and not wanted:
                raise RebuildError(
                    f"no recovery point of {store.url} belongs to {', '.join(vaults)}",
                    hint=f"It has points of: {', '.join(found.vaults) or 'no vault'}",
                )
            manifests = {i.id: await _manifests(repository, [p.id for p in i.points]) for i in wanted}
        making = _Making(self._tenant, now, location, _locations(wanted))

        def write() -> int:
            with self._db.write() as tx:
                making.container(tx, place)
            new = 0
            for instance in wanted:
                # Each in a transaction of its own: a running server waits for one, not for all.
                with self._db.write() as tx:
                    if made := making.instance(tx, instance):
                        new += store_points(tx, made, place, manifests[instance.id])
            return new

        points = await asyncio.to_thread(write)
        return Rebuilt(
            container=place.id,
            url=self._containers.url(place),
            repository=keys.repository_id,
            made=tuple(making.made),
            stood=tuple(making.stood),
            points=points,
            strangers=len(found.strangers),
            unreadable=found.unreadable,
            doubts=tuple(making.doubts),
        )

    async def _find_place(self, source: Source, kit: RecoveryKit) -> Place:
        """Return the container: as this home knows it, else as the kit does, else as its points say."""
        if source.named.startswith("/"):
            return await self._place_of_id(_container_id(source.named), source, kit)
        url = source.named
        known = [c.id for c in kit.containers if c.url.rstrip("/") == url.rstrip("/")]
        named = source.container or (known[0] if known else "")
        if named:
            return await self._place_at(_container_id(named), url, source, kit)
        # Its points tell the id; until then any does, as nothing is written.
        account_url, name = _split(url)
        account = self._account(account_url, source.credentials)
        async with self._containers.store(Place(replace(account, name="unknown"), "", name)) as store:
            told = await _told_container(store, kit)
        return await self._place_at(_container_id(told), url, source, kit)

    async def _place_of_id(self, id: str, source: Source, kit: RecoveryKit) -> Place:
        known = await asyncio.to_thread(self._known_place, id)
        if known is not None:
            return known
        urls = [c.url for c in kit.containers if c.id.lower() == id.lower()]
        if not urls:
            raise RebuildError(
                f"neither this home nor the recovery kit knows where {id} lies",
                hint="Name its URL: --from URL",
            )
        return await self._place_at(id, urls[0], source, kit)

    def _known_place(self, id: str) -> Place | None:
        with self._db.read() as tx:
            account = tx.resources.get(id.rpartition("/blobServices/")[0])
            if account is None or tx.resources.get(id) is None:
                return None
            return Place(read_account(tx, account), account.id, id.rpartition("/")[2])

    async def _place_at(self, id: str, url: str, source: Source, kit: RecoveryKit) -> Place:
        known = await asyncio.to_thread(self._known_place, id)
        if known is not None:
            if self._containers.url(known).rstrip("/") != url.rstrip("/"):
                raise RebuildError(
                    f"in this home {id} lies at {self._containers.url(known)}, not at {url}",
                    hint="Attach the other place as another storage account, and name it with --container",
                )
            return known
        account_url, name = _split(url)
        if name != id.rpartition("/")[2]:
            raise RebuildError(
                f"the container {id.rpartition('/')[2]} cannot lie at {url}: the last part of the URL is its name",
                hint="Name the ARM id that fits with --container, or copy the files to a place of that name",
            )
        of_kit = next((c.credentials for c in kit.containers if c.id.lower() == id.lower()), {})
        account_id = id.rpartition("/blobServices/")[0]
        account = self._account(account_url, source.credentials or of_kit)
        return Place(replace(account, name=account_id.rpartition("/")[2]), account_id, name)

    def _account(self, url: str, credentials: Mapping[str, str]) -> StorageAccount:
        try:
            return self._containers.validate(url, credentials)
        except AttachmentRefused as error:
            hint = f"{error.hint}, with --credential KEY=@FILE" if "credentials" in error.field else error.hint
            raise RebuildError(f"{url} cannot be attached: {error.message}", hint=hint) from error


class _Making:
    """Makes resources in transactions, and keeps account of them."""

    def __init__(self, tenant: str, now: datetime, location: str, told: Mapping[str, str]) -> None:
        self._tenant = tenant
        self._now = now
        self._location = region_of(location)
        self._told = told
        self.made: list[str] = []
        self.stood: list[str] = []
        self.doubts: list[str] = []

    def _put(self, tx: Tx, resource: Resource) -> Resource:
        """Store *resource* unless it stands; return what stands then."""
        old = tx.resources.get(resource.id)
        if old is None:
            old = tx.resources.put(resource, if_absent=True)
            self.made.append(old.id)
        elif old.id not in self.stood and old.id not in self.made:
            self.stood.append(old.id)
        return old

    def _where(self, id: str, otherwise: str = "") -> str:
        """Return the location of *id*: as points tell it, else as the caller says, else *otherwise*."""
        return self._told.get(id.lower()) or self._location or otherwise or DEFAULT_LOCATION

    def _group(self, tx: Tx, id: str, otherwise: str = "") -> None:
        """Make a resource group and its subscription: under the ids that they had, so that all others stay valid."""
        _, _, guid, _, name = id.split("/")
        self._put(tx, subscription(guid, self._tenant, f"rebuilt {stamp(self._now)[:10]}"))
        document = {
            "id": id,
            "name": name,
            "type": GROUPS,
            "location": self._where(id, otherwise),
            "properties": {"provisioningState": "Succeeded"},
        }
        self._put(tx, Resource(id, GROUPS, document, f"/subscriptions/{guid}"))

    def container(self, tx: Tx, place: Place) -> None:
        """Make the storage account (attached where the container lies) and the container."""
        if tx.resources.get(place.id) is not None:
            self.stood.append(place.id)
            return
        group = place.account_id.rpartition("/providers/")[0]
        location = self._where(place.account_id)
        self._group(tx, group)
        parts = urlsplit(place.account.url)
        shown = f"file:///{place.account.name}/" if parts.scheme == "file" else f"{place.account.url.rstrip('/')}/"
        account: Document = {
            "id": place.account_id,
            "name": place.account.name,
            "type": ACCOUNTS,
            "location": location,
            "kind": "StorageV2",
            "sku": {"name": "Standard_LRS", "tier": "Standard"},
            "properties": {
                "allowBlobPublicAccess": False,
                "allowSharedKeyAccess": True,
                "supportsHttpsTrafficOnly": True,
                "minimumTlsVersion": "TLS1_2",
                "creationTime": stamp(self._now),
                "provisioningState": "Succeeded",
                "primaryLocation": location,
                "primaryEndpoints": {"blob": shown},
                "statusOfPrimary": "available",
            },
            "tags": {},
        }
        stood = self._put(tx, Resource(place.account_id, ACCOUNTS, account, group, {"attached": True}))
        if stood.id in self.made:
            kept = {"url": place.account.url, "credentials": dict(place.account.credentials)}
            tx.secrets.put(SEALED + stood.id.lower(), json.dumps(kept).encode())
        elif read_account(tx, stood).url != place.account.url:
            raise RebuildError(
                f"the storage account {stood.id} of this home lies elsewhere than {place.account.url}",
                hint="Delete or move what has its name",
            )
        container: Document = {
            "id": place.id,
            "name": place.container,
            "type": CONTAINERS,
            "properties": {
                "publicAccess": "None",
                "hasImmutabilityPolicy": False,
                "hasLegalHold": False,
                "lastModifiedTime": stamp(self._now),
            },
        }
        self._put(tx, Resource(place.id, CONTAINERS, container, place.account_id))

    def instance(self, tx: Tx, found: RebuiltInstance) -> str:
        """Make an instance, with its vault and policy; return its id, "" when it cannot be one."""
        try:
            id = _instance_id(found.id)
        except Refused as error:
            self.doubts.append(f"{found.id[:200]!r} is not a backup instance: {error.error.message}")
            return ""
        if tx.resources.get(id.replace("/backupInstances/", "/deletedBackupInstances/")) is not None:
            self.stood.append(id.replace("/backupInstances/", f"/{DELETED.rpartition('/')[2]}/"))
            return ""
        if len(found.clusters) > 1:
            self.doubts.append(
                f"The recovery points of {id} come from {len(found.clusters)} clusters ({', '.join(found.clusters)}): "
                "it moved, or one of them wrote into what belongs to another. Look at whose data a restore brings."
            )
        said = found.points[-1].caller
        vault = self._vault(tx, id.partition("/backupInstances/")[0], said)
        properties = self._properties(id, vault.id, found, said)
        self._policy(tx, properties["policyInfo"]["policyId"], vault.id, said)
        document: Document = {"id": id, "name": id.rpartition("/")[2], "type": INSTANCES, "properties": properties}
        resource = Resource(id, INSTANCES, document, vault.id, {"incarnation": str(uuid.uuid4())})
        # Stopped: nothing is backed up or expires before somebody has looked and says resumeProtection.
        return self._put(tx, with_state(resource, ProtectionState.STOPPED)).id

    def _vault(self, tx: Tx, id: str, said: Mapping[str, str]) -> Resource:
        stands = tx.resources.get(id)
        if stands is not None:
            return self._put(tx, stands)
        told = _read(shape(wire.BackupVaultResource), said.get(VAULT, "")) or {}
        asked = told.get("properties", {})
        location = region_of(told.get("location", "")) or self._where("")
        if not told:
            self.doubts.append(
                f"No point tells the settings of {id}: it is in {location!r}, with soft delete and not immutable."
            )
        group = id.rpartition("/providers/")[0]
        self._group(tx, group, location)
        private = {"incarnation": str(uuid.uuid4())}
        name = id.rpartition("/")[2]
        record = managed_identity(id, self._tenant, incarnation=private["incarnation"], name=name, created=self._now)
        TxPrincipals(tx).put(record)
        document: Document = {
            "id": id,
            "name": name,
            "type": VAULTS,
            "location": location,
            "identity": {"type": "SystemAssigned", "principalId": record.object_id, "tenantId": self._tenant},
            "properties": {
                "provisioningState": "Succeeded",
                "storageSettings": asked.get("storageSettings") or STORAGE,
                "securitySettings": security_settings(asked.get("securitySettings", {})),
                "featureSettings": {},
                "monitoringSettings": {},
                "isVaultProtectedByResourceGuard": False,
                "secureScore": "None",
                "bcdrSecurityLevel": "Poor",
                "replicatedRegions": [],
                "resourceMoveState": "Unknown",
            },
        }
        tx.audit.add("vault rebuilt", principal="", action=f"{VAULTS}/write", scope=id, outcome="succeeded")
        return self._put(tx, Resource(id, VAULTS, document, group, private))

    def _properties(self, id: str, vault: str, found: RebuiltInstance, said: Mapping[str, str]) -> Document:
        """Return the properties of an instance: as its newest point tells them, else the least that fits."""
        body = _read(shape(wire.BackupInstanceResource), said.get(INSTANCE, ""), inside="properties")
        properties: Document = dict((body or {}).get("properties", {}))
        try:
            check_name("backupPolicies", read_instance(properties, vault).policy.rpartition("/")[2])
        except Refused:
            self.doubts.append(
                f"No point tells how {id} was configured: it would back up everything, volumes included."
            )
            properties = least_instance(id, vault, found)
        parameters = properties["policyInfo"]["policyParameters"]
        (configuration,) = parameters["backupDatasourceParametersList"]
        parameters["backupDatasourceParametersList"] = [
            {"objectType": configuration["objectType"], **{key: configuration.get(key) for key in CONFIGURATION_KEYS}}
        ]
        properties.setdefault("friendlyName", id.rpartition("/")[2])
        return {**properties, "objectType": "BackupInstance"}

    def _policy(self, tx: Tx, id: str, vault: str, said: Mapping[str, str]) -> None:
        body = _read(shape(wire.BaseBackupPolicyResource), said.get(POLICY, ""), inside="properties")
        properties: Document = (body or {}).get("properties", {})
        try:
            parse_policy(properties)
        except Refused:
            if tx.resources.get(id) is None:
                self.doubts.append(f"No point tells the rules of {id}: it is daily, kept for 30 days.")
            properties = daily_policy()
        document: Document = {"id": id, "name": id.rpartition("/")[2], "type": POLICIES, "properties": properties}
        version = str(int(self._now.timestamp() * 1_000_000))
        self._put(tx, Resource(id, POLICIES, document, vault, {"version": version}))


def _locations(instances: Iterable[RebuiltInstance]) -> dict[str, str]:
    """Return what points tell of locations, by lower-cased ARM id; the newest instance's word counts."""
    found: dict[str, str] = {}
    for instance in sorted(instances, key=lambda i: i.points[-1].time):
        try:
            told = msgspec.json.decode(instance.points[-1].caller.get(LOCATIONS, "{}"), type=dict[str, str])
        except (msgspec.DecodeError, RecursionError):
            continue
        found |= {id.lower(): region_of(location) for id, location in told.items()}
    return found


async def _manifests(repository: Repository, ids: Sequence[str]) -> list[Manifest]:
    gate = asyncio.Semaphore(READERS)

    async def read(id: str) -> Manifest | None:
        async with gate:
            try:
                return (await repository.load(id)).manifest
            except RepositoryError:
                return None  # deleted since the list was read

    found = await asyncio.gather(*(read(id) for id in ids))
    return [manifest for manifest in found if manifest is not None]


async def _told_container(store: ObjectStore, kit: RecoveryKit) -> str:
    """Return the ARM id that the newest point says its container had."""
    repository = await Repository.open(store, await open_with_kit(store, kit))
    found = await read_instances(repository)
    points = sorted((p for i in found.instances for p in i.points), key=lambda p: (p.time, p.id), reverse=True)
    told = next((t for p in points if (t := p.caller.get(CONTAINER, ""))), "")
    if not told:
        raise RebuildError(
            f"neither the recovery kit nor a point tells the ARM id that the container at {store.url} had",
            hint="Name it: --container /subscriptions/…/blobServices/default/containers/NAME",
        )
    return told


def _container_id(text: str) -> str:
    try:
        id = ArmId.parse(text, kind=CONTAINERS)
        uuid.UUID(id.subscription)
    except Refused as error:
        raise RebuildError(
            f"{text[:200]!r} is not the ARM id of a container: {error.error.message}",
            hint="It ends with storageAccounts/ACCOUNT/blobServices/default/containers/NAME",
        ) from error
    except ValueError as error:
        raise RebuildError(f"{text[:200]!r} names a subscription that is not a GUID") from error
    return id.text


def _instance_id(text: str) -> str:
    id = ArmId.parse(text, kind=INSTANCES)
    try:
        uuid.UUID(id.subscription)
    except ValueError as error:
        raise Refused(invalid("", f"its subscription {id.subscription[:80]!r} is not a GUID")) from error
    check_name("resourceGroups", id.resource_group)
    check_name("backupVaults", id.names[0])
    check_name("backupInstances", id.names[1])
    return id.text


def _split(url: str) -> tuple[str, str]:
    """Return the account's URL and the container's name: `catalog.stores.container_url` puts them together."""
    parts = urlsplit(url)
    above, _, name = parts.path.rstrip("/").rpartition("/")
    if not name:
        raise RebuildError(
            f"{url!r} does not name a container", hint="Write az://account/container, file:///folder/name"
        )
    return urlunsplit(parts._replace(path=above)), name


def _read(reader: Any, text: str, *, inside: str = "") -> Document | None:
    """Return the document that *text* spells, below *inside* if it is a part of one; None if it is none."""
    if not text:
        return None
    try:
        whole = f'{{"{inside}":{text}}}' if inside else text
        found: Document = reader.read(whole.encode())
    except Refused:
        return None
    return found
