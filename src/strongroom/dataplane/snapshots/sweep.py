"""Removes what runs that were killed left in the cluster, and never a snapshot that a manifest names."""

import logging
from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery
from strongroom.dataplane.snapshots.classes import REPOSITORY_LABEL, copy_prefix
from strongroom.dataplane.snapshots.kinds import (
    CONTENTS,
    SNAPSHOTS,
    SnapshotApiMissing,
    SnapshotKinds,
    VolumeSnapshotContent,
    content_name,
    find_kinds,
    objects,
    run_of,
)
from strongroom.dataplane.snapshots.removal import StoredData, Target, deadline_for, remove, together

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Leftover:
    target: Target
    data: StoredData
    handle: str


async def sweep_orphans(
    api: KubeApi,
    discovery: Discovery,
    live_runs: Container[str],
    older_than: datetime,
    named_handles: Container[str],
    *,
    repository_id: str,
) -> list[str]:
    """Remove the VolumeSnapshots and contents that runs of the repository *repository_id* left behind.

    Looked at are those created before *older_than* (now less the longest run: a run that may still commit is
    younger). Where a manifest names the handle (*named_handles*: of all recovery points, the condemned ones
    included), the objects go and the storage keeps the snapshot. Where the run is one of *live_runs* nothing is
    touched: put there each run that may still be at work and each whose manifest cannot be read. Everything else is
    nobody's: it is deleted on the storage too. Our classes stay: runs share them.

    Returns a line for each object, what was done or why it could not be. Raises a `KubeError` where the cluster's
    snapshots cannot be listed; returns nothing where it has none.
    """
    try:
        kinds = find_kinds(discovery)
    except SnapshotApiMissing as missing:
        if missing.failed:
            raise
        return []
    leftovers = await _leftovers(api, kinds, live_runs, older_than, named_handles, repository_id)
    deadline = deadline_for(len(leftovers))
    return await together(_sweep(api, kinds, leftover, deadline) for leftover in leftovers)


async def _leftovers(
    api: KubeApi,
    kinds: SnapshotKinds,
    live_runs: Container[str],
    older_than: datetime,
    named_handles: Container[str],
    repository_id: str,
) -> list[_Leftover]:
    # Snapshots first: a content that is made after it was listed belongs to a VolumeSnapshot that we have seen.
    labels = f"{REPOSITORY_LABEL}={repository_id}"
    snapshots = [one async for one in objects(api, kinds.snapshot, SNAPSHOTS, labels)]
    prefix = copy_prefix(repository_id)
    contents = {
        one.metadata.name: one async for one in objects(api, kinds.content, CONTENTS) if one.run and not _static(one)
    }

    found: list[_Leftover] = []
    for content in contents.values():
        if _of_class(content, prefix) and content.metadata.creation_timestamp < older_than:
            ref = content.spec.volume_snapshot_ref
            target = Target(ref.namespace, ref.name, ref.uid, content.metadata.name)
            if (data := _verdict(content.run, content.handle, live_runs, named_handles)) is not None:
                found.append(_Leftover(target, data, content.handle))
    for snapshot in snapshots:
        meta = snapshot.metadata
        run = run_of(meta.name)  # ours is only what bears the name too, not what a user labelled
        bound = contents.get(snapshot.status.bound_volume_snapshot_content_name or content_name(meta.uid))
        if not run or meta.creation_timestamp >= older_than or (bound and _of_class(bound, prefix)):
            continue  # one with a content of our class was judged with it
        handle = bound.handle if bound else ""
        if (data := _verdict(run, handle, live_runs, named_handles)) is not None:
            name = bound.metadata.name if bound else ""
            found.append(_Leftover(Target(meta.namespace, meta.name, meta.uid, name), data, handle))
    return found


def _of_class(content: VolumeSnapshotContent, prefix: str) -> bool:
    return (content.spec.volume_snapshot_class_name or "").startswith(prefix)


def _static(content: VolumeSnapshotContent) -> bool:
    """Whether *content* imports a snapshot: a restore's or a user's, and not for us to judge."""
    return content.spec.source.snapshot_handle is not None


def _verdict(run: str, handle: str, live_runs: Container[str], named_handles: Container[str]) -> StoredData | None:
    """Return what is to become of a snapshot, None to leave it alone. A manifest's word goes before all else."""
    if handle and handle in named_handles:
        return StoredData.KEEP
    return None if run in live_runs else StoredData.DELETE


async def _sweep(api: KubeApi, kinds: SnapshotKinds, leftover: _Leftover, deadline: float) -> str:
    name = f"VolumeSnapshot {leftover.target.namespace}/{leftover.target.snapshot}"
    handle = f", handle {leftover.handle}" if leftover.handle else ""
    reason = await remove(api, kinds, leftover.target, leftover.data, deadline)
    if reason:
        log.warning("leftover of a volume snapshot not removed", extra={"snapshot": name, "reason": reason})
        return f"{name}{handle}: not removed: {reason}"
    log.info("leftover of a volume snapshot removed", extra={"snapshot": name, "policy": leftover.data.value})
    kept = "the snapshot stays on the storage: a recovery point owns it"
    return f"{name}{handle}: removed; " + (kept if leftover.data is StoredData.KEEP else "deleted on the storage")
