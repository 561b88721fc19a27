"""Removes one VolumeSnapshot and its content from the cluster, with the snapshot on the storage or without it.

Every step may be repeated and may be the last: what is left is found by the sweep, and says by its class and by the
manifests alone what is to be done with it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeConflict, KubeError, KubeNotFound
from strongroom.dataplane.snapshots.kinds import (
    BEING_DELETED_ANNOTATION,
    CONTENT_FINALIZER,
    CONTENTS,
    FIELD_MANAGER,
    SNAPSHOTS,
    SnapshotKinds,
    VolumeSnapshot,
    VolumeSnapshotContent,
    content_name,
)

REMOVAL_SECONDS: Final = 60.0  # a driver's call and its retry; who waits longer waits for somebody to mend it
SECONDS_PER_VOLUME: Final = 1.0  # csi-snapshotter makes some 3 requests for one, and 5 a second by default
FIRST_PAUSE_SECONDS: Final = 0.05  # a removal takes about 0.1 s where the controllers are idle
REQUESTS_IN_FLIGHT: Final = 16  # the connections that one `KubeApi` holds
NUDGE_SECONDS: Final = 0.5  # several times what csi-snapshotter takes for a deletion where it has nothing else to do
NUDGED_ANNOTATION: Final = "strongroom.dev/removal-seen-at"
LONGEST_PAUSE_SECONDS: Final = 2.0  # what a removal is noticed late by; the API server answers a get in about 1 ms


_T = TypeVar("_T")


class StoredData(StrEnum):
    """What is to become of the snapshot on the storage."""

    KEEP = "Retain"
    DELETE = "Delete"


@dataclass(frozen=True, slots=True)
class Target:
    """What to remove: a VolumeSnapshot by name (and uid, where known), its content by name ("" to work it out)."""

    namespace: str
    snapshot: str
    snapshot_uid: str = ""
    content: str = ""


def pauses(longest: float = LONGEST_PAUSE_SECONDS) -> Iterator[float]:
    """Yield ever longer pauses (seconds) between two looks at a condition."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield min(pause, longest)
        pause *= 1.5


async def together(work: Iterable[Awaitable[_T]]) -> list[_T]:
    """Do all of *work* at once, `REQUESTS_IN_FLIGHT` at a time; return the results in order.

    Each must deal with its own errors: the first one raised leaves the others running.
    """
    slots = asyncio.Semaphore(REQUESTS_IN_FLIGHT)

    async def one(item: Awaitable[_T]) -> _T:
        async with slots:
            return await item

    return await asyncio.gather(*(one(item) for item in work))


def deadline_for(volumes: int, seconds: float | None = None) -> float:
    """Return the loop's time until which that many *volumes* together may take: one for all, they queue anyway."""
    seconds = REMOVAL_SECONDS if seconds is None else seconds
    return asyncio.get_running_loop().time() + seconds + volumes * SECONDS_PER_VOLUME


async def remove(api: KubeApi, kinds: SnapshotKinds, target: Target, data: StoredData, deadline: float) -> str:
    """Remove *target*; return "" when both objects are gone, else in words what stays and why.

    After *deadline* (the loop's time) nothing is waited for; what can be asked for is asked for all the same.
    With `StoredData.DELETE` the content goes only after the driver has deleted the snapshot: "" is its confirmation.
    Killed after any of its requests: the objects that are left are those the sweep looks for.
    """
    clock = asyncio.get_running_loop().time
    nudge_at, nudge_after = clock() + NUDGE_SECONDS, NUDGE_SECONDS
    for pause in pauses():
        nudge = clock() >= nudge_at
        if nudge:
            nudge_after *= 2
            nudge_at = clock() + nudge_after
        try:
            stays = await _step(api, kinds, target, data, nudge=nudge)
        except KubeConflict:
            continue  # somebody changed it between our read and our write: look again
        except KubeError as error:
            return f"VolumeSnapshot {target.namespace}/{target.snapshot}: {error}"
        if not stays:
            return ""
        if clock() + pause > deadline:
            return f"{stays}: still there"
        await asyncio.sleep(pause)
    raise AssertionError("pauses never end")


async def _step(api: KubeApi, kinds: SnapshotKinds, target: Target, data: StoredData, *, nudge: bool) -> str:
    """Do what is left to do; return "" when nothing is there any more, else what was still there."""
    snapshot = await read_snapshot(api, kinds, target)
    name = target.content
    if snapshot is not None:
        name = snapshot.status.bound_volume_snapshot_content_name or name or content_name(snapshot.metadata.uid)
    elif not name and target.snapshot_uid:
        name = content_name(target.snapshot_uid)
    content = await read_content(api, kinds, name) if name else None
    if content is not None and not _belongs(content, target):
        content = None
    if content is not None:
        # First the content says what is to become of the data, then its objects go: see the module's purpose.
        await _mark(api, kinds, content, data, nudge=nudge)
    if snapshot is not None and snapshot.metadata.deletion_timestamp is None:
        with contextlib.suppress(KubeNotFound):
            await api.delete(kinds.snapshot, target.snapshot, target.namespace, uid=snapshot.metadata.uid)
    if content is not None and content.metadata.deletion_timestamp is None:
        with contextlib.suppress(KubeNotFound):
            await api.delete(kinds.content, content.metadata.name, uid=content.metadata.uid)
    if content is not None:
        error = content.status.error.message if content.status.error else ""
        return f"VolumeSnapshotContent {content.metadata.name}" + (f" ({error})" if error else "")
    return f"VolumeSnapshot {target.namespace}/{target.snapshot}" if snapshot is not None else ""


async def _mark(
    api: KubeApi, kinds: SnapshotKinds, content: VolumeSnapshotContent, data: StoredData, *, nudge: bool
) -> None:
    """Write into *content* what its deletion is to do, where it does not say so yet. Raises `KubeConflict`.

    With *nudge* one that is being deleted is changed in any case. csi-snapshotter puts a deletion off while it cuts,
    and then does not look again before its resync, 15 minutes, because it takes the end of the cut for its own doing
    (pkg/utils/util.go, ShouldEnqueueContentChange). An annotation that is not its own makes it look.
    """
    meta = content.metadata
    finalizers = meta.finalizers or []
    # csi-snapshotter overwrites all annotations from its cache when it begins to cut, so the mark may get lost.
    marked = BEING_DELETED_ANNOTATION in (meta.annotations or {})
    # Without the finalizer a content vanishes at once, and a snapshot just being cut would be nobody's. It cannot be
    # added to an object that is being deleted.
    guarded = data is StoredData.KEEP or CONTENT_FINALIZER in finalizers or meta.deletion_timestamp is not None
    nudge = nudge and meta.deletion_timestamp is not None
    if content.spec.deletion_policy == data.value and marked and guarded and not nudge:
        return
    annotations = {BEING_DELETED_ANNOTATION: "yes"} | ({NUDGED_ANNOTATION: meta.resource_version} if nudge else {})
    metadata: dict[str, object] = {
        "annotations": annotations,
        "resourceVersion": meta.resource_version,
    }
    if not guarded:
        metadata["finalizers"] = [*finalizers, CONTENT_FINALIZER]
    body = {"metadata": metadata, "spec": {"deletionPolicy": data.value}}
    with contextlib.suppress(KubeNotFound):
        await api.patch(kinds.content, meta.name, None, body, field_manager=FIELD_MANAGER)


def _belongs(content: VolumeSnapshotContent, target: Target) -> bool:
    ref = content.spec.volume_snapshot_ref
    return (ref.namespace, ref.name) == (target.namespace, target.snapshot)


async def read_snapshot(api: KubeApi, kinds: SnapshotKinds, target: Target) -> VolumeSnapshot | None:
    """Return the VolumeSnapshot of *target*, or None where it is gone (or another has taken its name)."""
    try:
        found = SNAPSHOTS.decode(await api.get(kinds.snapshot, target.snapshot, target.namespace))
    except KubeNotFound:
        return None
    return found if target.snapshot_uid in ("", found.metadata.uid) else None


async def read_content(api: KubeApi, kinds: SnapshotKinds, name: str) -> VolumeSnapshotContent | None:
    """Return the VolumeSnapshotContent of that *name*, or None."""
    try:
        return CONTENTS.decode(await api.get(kinds.content, name))
    except KubeNotFound:
        return None
