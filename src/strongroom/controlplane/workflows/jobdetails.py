"""What a backup's job tells of each namespace and each volume, once its recovery point is there.

Azure answers a single sub-task; these come after it, and clients that do not look for them do not see them.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from strongroom.controlplane.state.resources import Document
from strongroom.controlplane.workflows.jobdocs import sub_task
from strongroom.dataplane.repository.model import HookSummary, Manifest, VolumeEntry, VolumeState
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.protection.job import JobStatus

OBJECTS_COUNTED: Final = 50_000
"""Larger points are not counted by namespace: reading their lists takes a second and more, and the report has them."""
NAMESPACES_TOLD: Final = 800  # as many as a backup instance may name: azure-backup-for-aks.md, section 1.3
VOLUMES_TOLD: Final = 1_000  # 300 bytes each: a job's document stays below half a megabyte
FIRST_NUMBER: Final = 2  # after the service's own sub-task


async def count_by_namespace(point: RecoveryPoint) -> Mapping[str, int]:
    """Return how many objects of each namespace the point holds; empty for a point that is too large to count."""
    counts: Counter[str] = Counter()
    if point.manifest.objects > OBJECTS_COUNTED:
        return counts
    for entry in point.manifest.kinds:
        async for rows in point.rows(entry):
            counts.update(row.namespace for row in rows if row.namespace)
    return counts


def sub_tasks(manifest: Manifest, namespaces: Mapping[str, int], activity: str) -> list[Document]:
    """Return a sub-task for each namespace, then for each volume, in the order of their names, and one for hooks."""
    told = [
        (f"Namespace {name}", JobStatus.COMPLETED, {"Objects": str(namespaces[name])})
        for name in sorted(namespaces)[:NAMESPACES_TOLD]
    ]
    volumes = sorted(manifest.volumes, key=lambda v: (v.namespace, v.claim))
    told += [(f"Volume {v.namespace}/{v.claim}", _status(v), _facts(v)) for v in volumes[:VOLUMES_TOLD]]
    if manifest.hooks is not None:
        status = JobStatus.COMPLETED_WITH_WARNINGS if manifest.hooks.failed else JobStatus.COMPLETED
        told.append(("Hooks", status, _hook_facts(manifest.hooks)))
    return [
        sub_task(number, name, status.value, activity, progress=100, details=details)
        for number, (name, status, details) in enumerate(told, FIRST_NUMBER)
    ]


def _status(volume: VolumeEntry) -> JobStatus:
    match volume.state:
        case VolumeState.SNAPSHOT_READY:
            return JobStatus.COMPLETED
        case VolumeState.SNAPSHOT_FAILED:
            return JobStatus.FAILED
        case _:
            return JobStatus.COMPLETED_WITH_WARNINGS


def _hook_facts(hooks: HookSummary) -> dict[str, str]:
    facts = {
        "Pods": str(hooks.pods),
        "Commands": str(hooks.commands),
        "Failed": str(hooks.failed),
        "Failures": "\n".join(f"{each.pod}: {each.hook}: {each.reason}" for each in hooks.failures),
        "Frozen": hooks.frozen,
        "Thawed": hooks.thawed,
    }
    return {name: fact for name, fact in facts.items() if fact}


def _facts(volume: VolumeEntry) -> dict[str, str]:
    facts = {
        "State": volume.state.value,
        "Reason": volume.reason,
        "Driver": volume.driver,
        "SnapshotHandle": volume.handle,
        "Created": volume.created,
        "RestoreSizeInBytes": "" if volume.restore_size_bytes is None else str(volume.restore_size_bytes),
        "Consistency": "crash-consistent" if volume.crash_consistent else "frozen by hooks",
    }
    return {name: fact for name, fact in facts.items() if fact}
