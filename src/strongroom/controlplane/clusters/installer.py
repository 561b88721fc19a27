"""Installs the extension in a connected cluster, with the installer's token: account, rights, settings.

In mode *hosted* a child process of `serve` runs the extension with a token of this account, in mode *in-cluster* a pod
(`in_cluster.py`).
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from strongroom.controlplane.clusters import manifests
from strongroom.controlplane.clusters.access import ClusterAccess
from strongroom.controlplane.clusters.answers import Found, Lease, read
from strongroom.controlplane.clusters.documents import KINDS
from strongroom.controlplane.clusters.errors import (
    ClusterError,
    ExtensionNotInstalled,
    ExtensionUnhealthy,
    translated,
)
from strongroom.controlplane.clusters.in_cluster import pod_is_ready, remove_pod, run_pod, wait_for_pod
from strongroom.controlplane.clusters.kinds import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    DEFINITIONS,
    LEASES,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from strongroom.controlplane.clusters.manifests import NAMESPACE
from strongroom.controlplane.clusters.rights import Right, wait_for_pods_rights, wait_for_rights
from strongroom.controlplane.clusters.workload import Workload
from strongroom.controlplane.clusters.writing import put, refuse_foreign, remove, write_connector_list
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeNotFound, KubeProtocolError
from strongroom.dataplane.kube.kinds import Kind
from strongroom.extension.api.lease import LEASE_SECONDS, VERSION_ANNOTATION

HEARTBEAT: Final = timedelta(seconds=LEASE_SECONDS + 60)  # a lost lease, and clocks that differ
POLL_SECONDS: Final = 0.3  # between looks for the first sign of life; somebody waits for the installation


class Mode(StrEnum):
    """Where the extension runs."""

    HOSTED = "hosted"
    IN_CLUSTER = "inCluster"


@dataclass(frozen=True, slots=True)
class ExtensionSettings:
    """How the extension is to be installed.

    *configuration* is what the user sent (`configurationSettings` of ARM), kept with it as it is and so no secret.
    Of each of *storage_locations* it may read the Secret `storage-<location>`. In *hook_namespaces* it may run commands
    in pods, nowhere else. *cluster_endpoint* is where a pod sees the stores, if at another address than this server.
    """

    mode: Mode = Mode.HOSTED
    version: str = ""
    configuration: Mapping[str, str] = field(default_factory=dict)
    storage_locations: tuple[str, ...] = ()
    hook_namespaces: tuple[str, ...] = ()
    cluster_endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What the extension that works last said of itself by its Lease.

    *holder* is "" where none works, *at* when it renewed the Lease (UTC, by its clock), *version* its own;
    *transitions* counts how often another process took the Lease.
    """

    holder: str = ""
    at: datetime | None = None
    version: str = ""
    transitions: int = 0

    def lives(self, now: datetime) -> bool:
        """Whether an extension has said at *now*, or the minutes before, that it works."""
        return bool(self.holder) and self.at is not None and now - self.at <= HEARTBEAT


@dataclass(frozen=True, slots=True)
class ExtensionHealth:
    """What the cluster has of the extension. *missing* lists what it should have, empty when all is there.

    *heartbeat* is when an extension that watches custom resources last said that it lives (UTC, by its clock), and
    *running* its version; None and "" where none ever did, or the last one ended by itself.
    """

    installed: bool
    settings: ExtensionSettings | None
    restore_enabled: bool
    missing: tuple[str, ...]
    heartbeat: datetime | None = None
    running: str = ""

    @property
    def healthy(self) -> bool:
        """Whether it is installed, and whole."""
        return self.installed and not self.missing


_PLACES: Final[tuple[tuple[Kind, str, str | None], ...]] = (
    (SERVICE_ACCOUNTS, manifests.EXTENSION, NAMESPACE),
    (ROLES, manifests.EXTENSION, NAMESPACE),
    (ROLE_BINDINGS, manifests.EXTENSION, NAMESPACE),
    (CLUSTER_ROLE_BINDINGS, manifests.READ, None),
    (CLUSTER_ROLE_BINDINGS, manifests.SNAPSHOTS, None),
)


_RIGHTS: Final = (
    Right("list", "*", "*"),
    Right("create", "snapshot.storage.k8s.io", "volumesnapshots"),
    Right("create", "", "configmaps", NAMESPACE),
    Right("watch", manifests.OWN_GROUP, manifests.LOCATIONS, NAMESPACE),
)
"""One right of each binding: with them all bindings count."""


async def install_extension(
    access: ClusterAccess, settings: ExtensionSettings, workload: Workload | None = None
) -> None:
    """Make the extension's account, its rights and its settings as *settings* say; also an update. Not restore.

    On return the rights count; in mode *in-cluster* the pod that *workload* describes is ready.

    Raises `ExtensionUnhealthy` where it does not become so, `ClusterForbidden` (an older `connect` left the installer
    with less), `ClusterOwned`, `ClusterError`s.
    """
    hosted = settings.mode is Mode.HOSTED
    with translated("install the extension"):
        async with access.api(manifests.INSTALLER) as api:
            before = await _settings(api)
            if hosted and before is not None and before.mode is Mode.IN_CLUSTER:
                # Before the settings say otherwise: they are how an attempt that was cut off knows of it.
                await remove_pod(api)
            # The settings go first: they say where `remove_extension` has to look, also after a run cut off half-way.
            known = (*settings.hook_namespaces, *(before.hook_namespaces if before else ()))
            # What lies in a container of before has to be deleted some day.
            places = (*(before.storage_locations if before else ()), *settings.storage_locations)
            settings = replace(settings, storage_locations=tuple(dict.fromkeys(places)))
            await put(api, manifests.settings_map(_encode(settings, hook_namespaces=known)))
            for document in manifests.extension(settings.storage_locations, listed=hosted):
                await put(api, document)
            for document in manifests.extension_cluster_bindings():
                await put(api, document)
            for place in settings.hook_namespaces:
                await put(api, manifests.hooks_binding(place))
            for place in set(known) - set(settings.hook_namespaces):
                await remove(api, ROLE_BINDINGS, manifests.HOOKS, place)
            await write_connector_list(api)
            await _update_definitions(api)
            await put(api, manifests.settings_map(_encode(settings, hook_namespaces=settings.hook_namespaces)))
            if not hosted:
                # Nobody but the pod has a token of the account: that it is ready says that its rights count.
                access.forget(manifests.EXTENSION)
                await run_pod(api, workload or Workload())
                await wait_for_pod(api)
                return
        hooks = [Right("create", "", "pods/exec", place) for place in settings.hook_namespaces]
        secrets = [_right_to_secret(place) for place in settings.storage_locations]
        await wait_for_rights(access, manifests.EXTENSION, (*_RIGHTS, *hooks, *secrets))


async def list_location(access: ClusterAccess, name: str) -> ExtensionSettings:
    """Let the extension read the credentials of one more storage location, unless it may; return its settings.

    Raises `ExtensionNotInstalled`, `ClusterError`s.
    """
    with translated(f"add the storage location {name}"):
        async with access.api(manifests.INSTALLER) as api:
            settings = await _settings(api)
            if settings is None:
                raise ExtensionNotInstalled("the cluster has no extension", hint="Install it first")
            if name in settings.storage_locations:
                return settings
            settings = replace(settings, storage_locations=(*settings.storage_locations, name))
            listed = settings.mode is Mode.HOSTED
            for document in manifests.extension(settings.storage_locations, listed=listed):
                await put(api, document)
            # Last: it says that the Role has the name.
            await put(api, manifests.settings_map(_encode(settings, hook_namespaces=settings.hook_namespaces)))
            await _wait_for_rights(access, api, settings, [_right_to_secret(name)])
        return settings


async def _wait_for_rights(
    access: ClusterAccess, api: KubeApi, settings: ExtensionSettings | None, rights: Sequence[Right]
) -> None:
    if settings is not None and settings.mode is Mode.IN_CLUSTER:
        await wait_for_pods_rights(api, manifests.EXTENSION, rights)
    else:
        await wait_for_rights(access, manifests.EXTENSION, rights)


def _right_to_secret(location: str) -> Right:
    return Right("get", "", "secrets", NAMESPACE, manifests.STORAGE_SECRET_PREFIX + location)


async def heartbeat(access: ClusterAccess) -> Heartbeat:
    """Return what the active extension last said of itself. Raises `ClusterError`s."""
    with translated("look at the extension's heartbeat"):
        async with access.api(manifests.INSTALLER) as api:
            return await _heartbeat(api)


async def wait_for_heartbeat(access: ClusterAccess, seconds: float) -> Heartbeat:
    """Return when an extension works in the cluster. Raises `ExtensionUnhealthy` after *seconds*, `ClusterError`s."""
    deadline = time.monotonic() + seconds
    while not (found := await heartbeat(access)).lives(datetime.now(UTC)):
        if time.monotonic() > deadline:
            raise ExtensionUnhealthy(f"the backup extension gave no sign of life within {seconds:.0f} seconds")
        await asyncio.sleep(POLL_SECONDS)
    return found


async def enable_restore(access: ClusterAccess) -> None:
    """Give the extension *restore*, as much as cluster-admin. Raises `ExtensionNotInstalled`, `ClusterError`s."""
    with translated("enable restore"):
        async with access.api(manifests.INSTALLER) as api:
            if not await _there(api, SERVICE_ACCOUNTS, manifests.EXTENSION, NAMESPACE):
                raise ExtensionNotInstalled("the cluster has no extension", hint="Install it first")
            await put(api, manifests.restore_binding())
            rights = [Right("create", "*", "*"), Right("patch", "*", "*")]
            await _wait_for_rights(access, api, await _settings(api), rights)


async def disable_restore(access: ClusterAccess) -> None:
    """Take *restore* from the extension again. Raises `ClusterError`s."""
    with translated("disable restore"):
        async with access.api(manifests.INSTALLER) as api:
            await remove(api, CLUSTER_ROLE_BINDINGS, manifests.RESTORE)


async def remove_extension(access: ClusterAccess) -> None:
    """Remove the extension's rights, account, keys, settings and documents. Repeating it completes it.

    The namespace, the marker in it, and what `connect` made stay. Raises `ClusterError`s.
    """
    with translated("remove the extension"):
        access.forget(manifests.EXTENSION)
        async with access.api(manifests.INSTALLER) as api:
            settings = await _settings(api)
            if settings is not None and settings.mode is Mode.IN_CLUSTER:
                await remove_pod(api)
            for role in (manifests.RESTORE, manifests.SNAPSHOTS, manifests.READ):
                await remove(api, CLUSTER_ROLE_BINDINGS, role)
            for place in settings.hook_namespaces if settings else ():
                await remove(api, ROLE_BINDINGS, manifests.HOOKS, place)
            await remove(api, ROLE_BINDINGS, manifests.EXTENSION, NAMESPACE)
            await remove(api, ROLES, manifests.EXTENSION, NAMESPACE)
            await remove(api, SERVICE_ACCOUNTS, manifests.EXTENSION, NAMESPACE)
            await write_connector_list(api)
            await _remove_keys(api)
            await _remove_documents(api)
            for place in settings.storage_locations if settings else ():
                await remove(api, SECRETS, manifests.STORAGE_SECRET_PREFIX + place, NAMESPACE)
            with contextlib.suppress(KubeNotFound):
                await api.delete(LEASES, manifests.EXTENSION_LEASE, NAMESPACE)  # the extension's own, as the keys are
            await remove(api, CONFIG_MAPS, manifests.SETTINGS_MAP, NAMESPACE)


async def extension_health(access: ClusterAccess, *, now: datetime | None = None) -> ExtensionHealth:
    """Return what the cluster has of the extension, all that is missing at once. Raises `ClusterError`s.

    With *now* (UTC) a heartbeat of the last minutes is among what it should have.
    """
    with translated("look at the extension"):
        async with access.api(manifests.INSTALLER) as api:
            settings = await _settings(api)
            missing = [
                f"{kind.name} {name}" for kind, name, place in _PLACES if not await _there(api, kind, name, place)
            ]
            for place in settings.hook_namespaces if settings else ():
                if not await _there(api, ROLE_BINDINGS, manifests.HOOKS, place):
                    missing.append(f"{ROLE_BINDINGS.name} {manifests.HOOKS} in namespace {place}")
            missing += await _old_roles(api)
            missing += [f"{name}: connect the cluster again" for name in await _missing_definitions(api)]
            if settings is not None and settings.mode is Mode.IN_CLUSTER and not await pod_is_ready(api):
                missing.append(f"a pod of the Deployment {manifests.EXTENSION} that is ready")
            beat = await _heartbeat(api)
            restore = await _there(api, CLUSTER_ROLE_BINDINGS, manifests.RESTORE)
    at, running = (beat.at, beat.version) if beat.holder else (None, "")
    if settings is None:
        return ExtensionHealth(False, None, restore, tuple(missing), at, running)
    if now is not None and not beat.lives(now):
        missing.append(f"a heartbeat of the extension: {f'the last one was at {at}' if at else 'none yet'}")
    if settings.mode is Mode.IN_CLUSTER:  # its account is not listed: only the pod has its tokens
        return ExtensionHealth(True, settings, restore, tuple(missing), at, running)
    try:
        await access.token(manifests.EXTENSION)
    except ClusterError as error:
        missing.append(f"a token of {manifests.EXTENSION}: {error.message}")
    return ExtensionHealth(True, settings, restore, tuple(missing), at, running)


async def _old_roles(api: KubeApi) -> list[str]:
    """Return the ClusterRoles that are absent or not those of this version: the installer may not write them."""
    found = []
    for name in manifests.FOUR_ROLES:
        try:
            metadata = read(await api.get(CLUSTER_ROLES, name), Found).metadata
        except KubeNotFound:
            found.append(f"{CLUSTER_ROLES.name} {name}: connect the cluster again")
            continue
        if metadata.annotation(manifests.RULES_ANNOTATION) != manifests.rules_hash(name):
            found.append(f"{CLUSTER_ROLES.name} {name} of this version: connect the cluster again")
    return found


async def _heartbeat(api: KubeApi) -> Heartbeat:
    try:
        lease = read(await api.get(LEASES, manifests.EXTENSION_LEASE, NAMESPACE), Lease)
    except KubeNotFound:
        return Heartbeat()
    spec = lease.spec
    version = lease.metadata.annotation(VERSION_ANNOTATION)
    return Heartbeat(spec.holder_identity or "", spec.renew_time, version, spec.lease_transitions or 0)


async def _missing_definitions(api: KubeApi) -> list[str]:
    """Return the custom resource definitions that are absent, or not those of this version."""
    found = []
    for document in manifests.resource_definitions():
        name = document["metadata"]["name"]
        wanted = document["metadata"]["annotations"][manifests.SCHEMA_ANNOTATION]
        try:
            metadata = read(await api.get(DEFINITIONS, name), Found).metadata
        except KubeNotFound:
            found.append(f"{DEFINITIONS.name} {name}")
            continue
        if metadata.annotation(manifests.SCHEMA_ANNOTATION) != wanted:
            found.append(f"{DEFINITIONS.name} {name} of this version")
    return found


async def _update_definitions(api: KubeApi) -> None:
    """Make the definitions that are there this version's. Absent ones only `connect` may make: the health tells."""
    for document in manifests.resource_definitions():
        if await refuse_foreign(api, DEFINITIONS, document["metadata"]["name"]):
            await put(api, document)


async def _there(api: KubeApi, kind: Kind, name: str, place: str | None = None) -> bool:
    try:
        await api.get(kind, name, place)
    except KubeNotFound:
        return False
    return True


async def _remove_documents(api: KubeApi) -> None:
    """Delete our custom resources: what has not ended would begin with the next installation, unasked."""
    for kind in KINDS.values():
        try:
            names = [
                read(item, Found).metadata.name
                async for page in api.list_pages(kind, namespace=NAMESPACE, metadata_only=True)
                for item in page.items
            ]
        except KubeNotFound:
            continue  # its definition is gone
        for name in names:
            with contextlib.suppress(KubeNotFound):
                await api.delete(kind, name, NAMESPACE)


async def _remove_keys(api: KubeApi) -> None:
    # The extension made this Secret itself; that it is ours its name says.
    try:
        await api.delete(SECRETS, manifests.EXTENSION_KEYS_SECRET, NAMESPACE)
    except KubeNotFound:
        return


async def _settings(api: KubeApi) -> ExtensionSettings | None:
    try:
        found = read(await api.get(CONFIG_MAPS, manifests.SETTINGS_MAP, NAMESPACE), Found)
    except KubeNotFound:
        return None
    try:
        return msgspec.json.decode((found.data or {}).get("settings.json", ""), type=ExtensionSettings)
    except msgspec.DecodeError as error:
        raise KubeProtocolError(f"the ConfigMap {manifests.SETTINGS_MAP} holds no settings: {error}") from error


def _encode(settings: ExtensionSettings, *, hook_namespaces: tuple[str, ...]) -> str:
    value = {
        "mode": settings.mode.value,
        "version": settings.version,
        "configuration": dict(settings.configuration),
        "storage_locations": settings.storage_locations,
        "cluster_endpoint": settings.cluster_endpoint,
        "hook_namespaces": sorted(set(hook_namespaces)),
    }
    return msgspec.json.encode(value).decode()
