"""Deletes the snapshots that a recovery point owned, on any cluster that has their driver.

A snapshot is deleted through the CSI side of a cluster: a static VolumeSnapshotContent with `deletionPolicy: Delete`
is made and deleted, and it goes only after the driver has said that the snapshot is gone. That no restore reads from
the snapshot is the caller's to know.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery
from strongroom.dataplane.kube.errors import KubeAlreadyExists, KubeError, KubeForbidden, KubeNotFound, UnknownKind
from strongroom.dataplane.repository.model import VolumeEntry
from strongroom.dataplane.snapshots.claims import MANAGED_BY, MANAGED_BY_LABEL
from strongroom.dataplane.snapshots.kinds import (
    CONTENT_FINALIZER,
    DELETION_SECRET_NAME_ANNOTATION,
    DELETION_SECRET_NAMESPACE_ANNOTATION,
    FIELD_MANAGER,
    SnapshotApiMissing,
    SnapshotKinds,
    VolumeSnapshotContent,
    find_kinds,
)
from strongroom.dataplane.snapshots.removal import deadline_for, pauses, read_content, together

DELETE_SECONDS: Final = 120.0  # a driver answers within csi-snapshotter's own time for one call, 60 s, or its retry

NOBODYS_DRIVER: Final = "deletion.strongroom.dev"
"""The driver of a content that is not yet to be seen by its csi-snapshotter: each looks at its own driver's only."""

# A content must say which VolumeSnapshot may use it. None will: nobody but an administrator makes one there.
_NOBODYS_NAMESPACE = "kube-system"
_HASH_CHARACTERS = 32  # 128 bits: the name stands for a driver and a handle of any length


@dataclass(frozen=True, slots=True)
class DeleteOutcome:
    """What became of one volume's snapshot: confirmed gone, or in *reason* why not (its handle is the entry's)."""

    entry: VolumeEntry
    deleted: bool
    reason: str = ""


async def delete_snapshots(
    api: KubeApi, discovery: Discovery, volumes: Sequence[VolumeEntry], *, timeout: float = DELETE_SECONDS
) -> list[DeleteOutcome]:
    """Delete the storage's snapshots that *volumes* name; return one outcome for each, in order.

    `deleted` is true only where the driver confirmed it (also for a snapshot that was gone already), or where the
    entry has no snapshot. Never raises for one volume. May be repeated; a deletion that was not confirmed within
    *timeout* seconds, and one more for each volume, goes on in the cluster and is confirmed by the next call.
    """
    named = {(entry.driver, entry.handle): entry for entry in volumes if entry.handle}
    try:
        kinds = find_kinds(discovery)
    except SnapshotApiMissing as missing:
        reasons = dict.fromkeys(named, missing.message)
    else:
        deadline = deadline_for(len(named), timeout)
        drivers = list({driver for driver, _ in named})
        missing_drivers = dict(
            zip(drivers, await together(_driver_missing(api, discovery, driver) for driver in drivers), strict=True)
        )

        async def delete(entry: VolumeEntry) -> str:
            return missing_drivers[entry.driver] or await _delete(api, kinds, entry, deadline)

        texts = await together(delete(entry) for entry in named.values())
        reasons = dict(zip(named, texts, strict=True))
    outcomes = []
    for entry in volumes:
        reason = reasons[entry.driver, entry.handle] if entry.handle else ""
        outcomes.append(DeleteOutcome(entry, not reason, reason))
    return outcomes


async def _delete(api: KubeApi, kinds: SnapshotKinds, entry: VolumeEntry, deadline: float) -> str:
    """Delete the snapshot of *entry*; return "" when the driver confirmed it, else why not."""
    name = content_to_delete(entry)
    try:
        with contextlib.suppress(KubeAlreadyExists):  # of an earlier call: carry it on
            await api.create(kinds.content, _content(kinds, name, entry), field_manager=FIELD_MANAGER)
        return await _delete_content(api, kinds, name, entry, deadline)
    except KubeError as error:
        return str(error)


async def _driver_missing(api: KubeApi, discovery: Discovery, driver: str) -> str:
    try:
        await api.get(discovery.find("csidrivers.storage.k8s.io"), driver)
    except (KubeNotFound, UnknownKind):
        return f"this cluster has no CSI driver {driver}: delete the snapshot where that driver is"
    except KubeForbidden:
        return ""  # not allowed to look; a driver that is not there shows as a deletion that nobody confirms
    except KubeError as error:
        return str(error)
    return ""


def content_to_delete(entry: VolumeEntry) -> str:
    """Return the name of the content that deletes the snapshot of *entry*: the same one at each attempt."""
    said = f"{entry.driver}\0{entry.handle}".encode()
    return f"strongroom-delete-{hashlib.sha256(said).hexdigest()[:_HASH_CHARACTERS]}"


def _content(kinds: SnapshotKinds, name: str, entry: VolumeEntry) -> dict[str, object]:
    annotations = {}
    if entry.deletion_secret is not None:
        annotations[DELETION_SECRET_NAME_ANNOTATION] = entry.deletion_secret.name
        annotations[DELETION_SECRET_NAMESPACE_ANNOTATION] = entry.deletion_secret.namespace
    return {
        "apiVersion": kinds.content.api_version,
        "kind": kinds.content.kind,
        "metadata": {
            "name": name,
            "labels": {MANAGED_BY_LABEL: MANAGED_BY},
            "annotations": annotations,
            # snapshot-controller gives it to a content only once it is bound. Without it the content would go at once
            # and the driver would never be asked.
            "finalizers": [CONTENT_FINALIZER],
        },
        "spec": {
            "deletionPolicy": "Delete",
            "driver": NOBODYS_DRIVER,
            "source": {"snapshotHandle": entry.handle},
            "sourceVolumeMode": entry.volume_mode,
            "volumeSnapshotRef": {
                "apiVersion": kinds.snapshot.api_version,
                "kind": kinds.snapshot.kind,
                "name": name,
                "namespace": _NOBODYS_NAMESPACE,
            },
        },
    }


async def _delete_content(api: KubeApi, kinds: SnapshotKinds, name: str, entry: VolumeEntry, deadline: float) -> str:
    """Delete the content *name* until it is gone; return "" then, or after *deadline* what is in the way."""
    clock = asyncio.get_running_loop().time
    for pause in pauses():
        content = await read_content(api, kinds, name)
        if content is None:
            return ""
        with contextlib.suppress(KubeNotFound):
            await _hand_over(api, kinds, content, entry)
        if clock() + pause > deadline:
            error = content.status.error.message if content.status.error else None
            return f"the driver {entry.driver} has not confirmed it in time" + (f": {error}" if error else "")
        await asyncio.sleep(pause)
    raise AssertionError("pauses never end")


async def _hand_over(api: KubeApi, kinds: SnapshotKinds, content: VolumeSnapshotContent, entry: VolumeEntry) -> None:
    """Let the driver's csi-snapshotter find *content* as it must be for a deletion that confirms itself.

    csi-snapshotter deletes what the status names; a content whose status names nothing it lets go, and nobody would
    have deleted anything. On its own it fills the status from ListSnapshots, and where that fails (a busy driver, a
    secret for listing, a snapshot already lost) it puts an error in the status's place. So the status is written while
    the content is nobody's: csi-snapshotter sees it ready, does not list, writes nothing, and at the deletion calls
    DeleteSnapshot, which succeeds where nothing is left. Killed after any step, the next call does the rest.
    """
    name = content.metadata.name
    if content.spec.driver != entry.driver:
        status = {"status": {"snapshotHandle": entry.handle, "readyToUse": True}}
        await api.patch(kinds.content, name, None, status, subresource="status", field_manager=FIELD_MANAGER)
        spec = {"spec": {"driver": entry.driver}}
        await api.patch(kinds.content, name, None, spec, field_manager=FIELD_MANAGER)
    if content.metadata.deletion_timestamp is None:
        await api.delete(kinds.content, name, uid=content.metadata.uid)
