"""Puts storage locations and their credentials into a cluster, as the installer, and learns the extension's keys there.

Not as a vault: a location pins whose recovery points the extension restores, so whoever may write one could have his
own restored, and thereby become administrator of the cluster.
"""

import asyncio
import base64
import contextlib
from collections.abc import Mapping
from typing import Final

import msgspec

from strongroom.controlplane.clusters import manifests
from strongroom.controlplane.clusters.access import ClusterAccess
from strongroom.controlplane.clusters.answers import Metadata, read
from strongroom.controlplane.clusters.documents import KINDS
from strongroom.controlplane.clusters.errors import ExtensionUnhealthy, translated
from strongroom.controlplane.clusters.hosted import ExtensionKeys
from strongroom.controlplane.clusters.installer import list_location
from strongroom.controlplane.clusters.manifests import FIELD_MANAGER, NAMESPACE
from strongroom.controlplane.clusters.writing import put
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeInvalid, KubeNotFound, KubeProtocolError
from strongroom.extension.api.documents import BackupStorageLocation, Kind
from strongroom.extension.api.status import LocationStatus

KEYS_SECONDS: Final = 60.0  # an extension that runs looks at a new location within a second
POLL_SECONDS: Final = 0.2
_KIND: Final = KINDS[Kind.BACKUP_STORAGE_LOCATION]


class _Location(msgspec.Struct, frozen=True):
    metadata: Metadata
    status: LocationStatus | None = None


async def write_location(
    access: ClusterAccess, location: BackupStorageLocation, credentials: Mapping[str, str]
) -> ExtensionKeys:
    """Make a storage location with its Secret what is given; return the extension's keys, which its status tells.

    Repeated, it renews the credentials. Without *credentials* there is no Secret: an extension in a pod has its own
    then. Raises `ExtensionNotInstalled`, `ExtensionUnhealthy` where it tells no keys within a minute, `ClusterError`s.
    """
    with translated(f"write the storage location {location.name}"):
        settings = await list_location(access, location.name)
        if settings.cluster_endpoint:
            location = msgspec.structs.replace(
                location, spec=msgspec.structs.replace(location.spec, cluster_endpoint=settings.cluster_endpoint)
            )
        async with access.api(manifests.INSTALLER) as api:
            # First, so that a new location is not tried without it.
            if credentials:
                await put(api, manifests.storage_secret(location.name, credentials))
            found = await _apply(api, location)
            try:
                async with asyncio.timeout(KEYS_SECONDS):
                    while (keys := _keys(found)) is None:
                        await asyncio.sleep(POLL_SECONDS)
                        found = read(await api.get(_KIND, location.name, NAMESPACE), _Location)
            except TimeoutError:
                raise ExtensionUnhealthy(
                    f"the backup extension did not look at its storage location within {KEYS_SECONDS:.0f} seconds",
                    hint="Look at the extension's statuses (az k8s-extension show)",
                ) from None
    return keys


async def _apply(api: KubeApi, location: BackupStorageLocation) -> _Location:
    sent = location.to_json()
    labels = {manifests.MANAGED_BY: manifests.OWNER}
    document = {**sent, "metadata": {"name": location.name, "namespace": NAMESPACE, "labels": labels}}
    try:
        made = await api.apply(_KIND, location.name, NAMESPACE, document, field_manager=FIELD_MANAGER, force=True)
    except KubeInvalid:
        # Its container was made anew elsewhere, with another repository: what it pins never changes.
        with contextlib.suppress(KubeNotFound):
            await api.delete(_KIND, location.name, NAMESPACE)
        made = await api.apply(_KIND, location.name, NAMESPACE, document, field_manager=FIELD_MANAGER, force=True)
    return read(made, _Location)


def _keys(found: _Location) -> ExtensionKeys | None:
    if found.status is None or not (found.status.recipient and found.status.writer):
        return None
    try:
        return ExtensionKeys(found.status.recipient, base64.b64decode(found.status.writer, validate=True))
    except ValueError:
        raise KubeProtocolError(f"the status of the storage location {found.metadata.name} holds no keys") from None
