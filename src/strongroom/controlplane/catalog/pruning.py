"""Lets recovery points go, with the CSI snapshots that they own, and collects what nobody needs.

Works while the cluster is gone: what could not be removed stays listed in the repository, and every prune tries it
again.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from strongroom.controlplane.catalog.points import VolumeFacts, volume_facts
from strongroom.dataplane.repository import prune as repository_prune
from strongroom.dataplane.repository.errors import NoSuchPoint, RepositoryError
from strongroom.dataplane.repository.model import VolumeEntry
from strongroom.dataplane.repository.repository import Repository

DeleteVolumes = Callable[[str, Sequence[VolumeFacts]], Awaitable[Mapping[str, str]]]
"""Has the CSI snapshots of a condemned point (its id) deleted; returns why, by handle, for each not confirmed gone."""

NO_CLUSTER: Final = "no cluster to delete it through is connected"


@dataclass(frozen=True)
class WaitingVolume:
    """A CSI snapshot of a deleted *point* that is still there, and the *reason*."""

    point: str
    volume: VolumeFacts
    reason: str


@dataclass(frozen=True)
class Pruned:
    """What a prune did: files and bytes condemned (waiting for the sweep) and swept (gone), points gone for good.

    *next_sweep* is when the oldest of what is condemned may be swept, None if nothing is.
    """

    condemned_files: int
    condemned_bytes: int
    swept_files: int
    swept_bytes: int
    swept_points: tuple[str, ...]
    waiting: tuple[WaitingVolume, ...]
    next_sweep: datetime | None


async def delete_point(
    repository: Repository, point_id: str, *, delete_volumes: DeleteVolumes | None = None
) -> tuple[WaitingVolume, ...]:
    """Delete a recovery point; return its CSI snapshots that are still there. It is hidden from now on; files follow.

    Without *delete_volumes* (the cluster is gone) all of its snapshots are left, and wait. May run twice, also after a
    kill at any step and after the files are swept: then only the snapshots are tried again. Raises `NoSuchPoint` for
    one that was never there, and `PointInUse` while a restore reads it.
    """
    tried = _Tried({}, delete_volumes)
    try:
        tried.points = dict.fromkeys(await _handles(repository, point_id), point_id)
        left = await repository_prune.delete_point(repository, point_id, delete_volumes=tried.call)
    except NoSuchPoint:
        records = await repository.records()
        if point_id not in records.condemned_points | records.swept_points:
            raise
        tried.points = await _condemned(repository)
        left = await repository_prune.retry_volumes(repository, point_id, delete_volumes=tried.call)
    # After a kill between two records of one point, a snapshot can stand in both.
    distinct = {(v.driver, v.handle): v for v in left}.values()
    return tuple(WaitingVolume(point_id, volume_facts(v), tried.reason(v)) for v in distinct)


async def prune(repository: Repository, *, delete_volumes: DeleteVolumes | None = None) -> Pruned:
    """Condemn what no recovery point needs, sweep what was condemned long enough ago, try waiting snapshots again.

    Raises as the repository's prune does: nothing is condemned while a manifest cannot be read. May run twice.
    """
    tried = _Tried(await _condemned(repository), delete_volumes)
    report = await repository_prune.prune(repository, delete_volumes=tried.call)
    return Pruned(
        condemned_files=report.condemned_files,
        condemned_bytes=report.condemned_bytes,
        swept_files=report.swept_files,
        swept_bytes=report.swept_bytes,
        swept_points=report.swept_points,
        waiting=tuple(
            WaitingVolume(tried.points.get(v.handle, ""), volume_facts(v), tried.reason(v))
            for v in report.waiting_volumes
        ),
        next_sweep=datetime.fromisoformat(report.next_sweep) if report.next_sweep else None,
    )


async def waiting_volumes(repository: Repository) -> tuple[WaitingVolume, ...]:
    """Return the CSI snapshots of deleted points that are still to be deleted, without trying."""
    return tuple(
        WaitingVolume(record.points[0] if record.points else "", volume_facts(volume), "it waits for the next prune")
        for record, _ in (await repository.records()).condemned
        for volume in record.volumes
    )


def left_of(volumes: Sequence[VolumeFacts], listed: Mapping[str, str], count: int) -> Mapping[str, str]:
    """Return why, by handle, for each snapshot that is not confirmed gone, from a list that may have been cut short.

    Pure. A status names at most so many; where *count* says that there were more than are *listed*, none of the others
    is confirmed.
    """
    if count <= len(listed):
        return listed
    unsaid = "the extension left more snapshots than it could list"
    return {volume.handle: listed.get(volume.handle, unsaid) for volume in volumes}


class _Tried:
    """Carries deletions from the repository to the port, point by point, and remembers what was said of each."""

    def __init__(self, points: Mapping[str, str], delete_volumes: DeleteVolumes | None) -> None:
        self.points = dict(points)
        self._delete = delete_volumes
        self._reasons: dict[str, str] = {}

    @property
    def call(self) -> repository_prune.DeleteVolumes | None:
        return None if self._delete is None else self._call

    def reason(self, volume: VolumeEntry) -> str:
        return self._reasons.get(volume.handle, NO_CLUSTER)

    async def _call(self, volumes: Sequence[VolumeEntry]) -> Sequence[VolumeEntry]:
        assert self._delete is not None
        of_point: dict[str, list[VolumeEntry]] = {}
        for volume in volumes:
            of_point.setdefault(self.points.get(volume.handle, ""), []).append(volume)
        left: list[VolumeEntry] = []
        for point_id, entries in of_point.items():
            reasons = await self._delete(point_id, [volume_facts(v) for v in entries])
            self._reasons.update(reasons)
            left += [v for v in entries if v.handle in reasons]
        return left


async def _handles(repository: Repository, point_id: str) -> list[str]:
    """Return the handles of a point's snapshots; [] where its manifest cannot be read."""
    try:
        return [v.handle for v in (await repository.load(point_id)).manifest.volumes if v.handle]
    except NoSuchPoint:
        raise
    except RepositoryError:
        return []


async def _condemned(repository: Repository) -> dict[str, str]:
    """Return which condemned point each waiting snapshot (handle) was of."""
    return {
        volume.handle: record.points[0]
        for record, _ in (await repository.records()).condemned
        if record.points
        for volume in record.volumes
    }
