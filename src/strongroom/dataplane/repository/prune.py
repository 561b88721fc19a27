"""Deletes recovery points and collects garbage, without locks, safe with any number of writers and prunes.

What is wanted gone is condemned first (hidden, absent to new runs) and swept two maxRun later, after a second look at
all manifests (docs/format/repository.md, "Prune").
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec

from strongroom.dataplane.objectstore.port import Key
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import NoSuchPoint, RepositoryError
from strongroom.dataplane.repository.journal import open_restores, restored_point
from strongroom.dataplane.repository.model import Manifest, VolumeEntry
from strongroom.dataplane.repository.prune_plan import live_files, to_condemn, to_sweep
from strongroom.dataplane.repository.records import CondemnedRecord, PruneRecords, SweptRecord
from strongroom.dataplane.repository.repository import Repository
from strongroom.errors import ExitCode

RESTORE_WAIT = timedelta(days=7)  # a restore that left no result in a week is not coming back: issue 3, "Decided"

DeleteVolumes = Callable[[Sequence[VolumeEntry]], Awaitable[Sequence[VolumeEntry]]]
"""Deletes CSI snapshots; returns those that it could not confirm gone."""


class PointInUse(RepositoryError):
    """A restore of this point has begun and left no result."""

    exit_code = ExitCode.FAILED


@dataclass(frozen=True)
class PruneReport:
    """What a prune did: counts and bytes of files, ids of points, and CSI snapshots that wait for deletion."""

    condemned_files: int = 0
    condemned_bytes: int = 0
    condemned_points: tuple[str, ...] = ()
    swept_files: int = 0
    swept_bytes: int = 0
    swept_points: tuple[str, ...] = ()
    waiting_volumes: tuple[VolumeEntry, ...] = field(default=())
    next_sweep: str = ""
    """ISO 8601 UTC: when the oldest condemned record that is left may be swept, "" if none is."""


async def delete_point(
    repository: Repository, point_id: str, *, delete_volumes: DeleteVolumes | None = None
) -> tuple[VolumeEntry, ...]:
    """Condemn a recovery point: from now on it does not exist for lists, restores and take-overs.

    Its CSI snapshots are deleted by *delete_volumes*; returns those that are left (all of them without it), which stay
    in the condemned record and are tried again by every prune. Raises `NoSuchPoint`, `PointInUse`. May run twice. If it
    stops after the record, the point is gone and its CSI snapshots wait for the next prune.
    """
    records = await repository.records()
    if point_id not in await repository.point_ids() or point_id in records.condemned_points:
        raise NoSuchPoint(f"no recovery point is called {point_id!r}", hint="See them: strongroom point list")
    volumes: tuple[VolumeEntry, ...] = ()
    try:
        volumes = _with_handle((await repository.load(point_id)).manifest)
    except NoSuchPoint:
        raise
    except RepositoryError:
        # A damaged or untrusted manifest can be deleted too; which CSI snapshots it owned cannot be known from it.
        volumes = ()
    await _refuse_while_restored(repository, point_id)
    record = await _condemn(repository, points=(point_id,), volumes=volumes)
    if not volumes or delete_volumes is None:
        return volumes
    return await _retry_volumes(repository, record, delete_volumes)


async def retry_volumes(
    repository: Repository, point_id: str, *, delete_volumes: DeleteVolumes | None
) -> tuple[VolumeEntry, ...]:
    """Try again to delete the CSI snapshots of a condemned point; return those that are left, and go on waiting.

    () for a point that nothing is left of, or that is not condemned. May run twice.
    """
    left: list[VolumeEntry] = []
    for record, _ in (await repository.records()).condemned:
        if point_id in record.points and record.volumes:
            left += (
                record.volumes if delete_volumes is None else await _retry_volumes(repository, record, delete_volumes)
            )
    return tuple(left)


async def prune(repository: Repository, *, delete_volumes: DeleteVolumes | None = None) -> PruneReport:
    """Condemn what no live manifest names, and sweep what was condemned long enough ago.

    Raises what the store raises, and `Damaged` or `NotTrusted` for a manifest that cannot be read: then nothing is
    condemned or swept, because what it names is not known. May run twice, and beside writers and other prunes. If it
    stops after the swept record, the next prune sweeps the same things again.
    """
    now = await _store_now(repository)
    max_run = timedelta(seconds=repository.info.max_run_seconds)
    records = await repository.records()
    waiting: list[VolumeEntry] = []
    for record, _ in records.condemned:
        if record.volumes:
            left = (
                record.volumes if delete_volumes is None else await _retry_volumes(repository, record, delete_volumes)
            )
            waiting += left
    stored, sizes = await _stored(repository)
    manifests = await _manifests(repository, records)
    void = tuple(m.id for m in manifests if m.id not in records.condemned_points and records.void(m))
    garbage = to_condemn(stored, live_files(manifests, records), records, now, max_run)
    if garbage or void:
        await _condemn(repository, points=void, files=tuple(garbage))
    # The second look: a run may have committed since, and made condemned files live.
    records = await repository.records()
    live = live_files(await _manifests(repository, records), records)
    sweep = to_sweep(stored, live, records, now, max_run)
    if sweep.files or sweep.points:
        record_id = secrets.token_hex(8)
        key = paths.swept_path(record_id)
        swept = SweptRecord(
            id=record_id,
            writer=repository.require_pruner(),
            written=_now_text(),
            points=sweep.points,
            files=sweep.files,
        )
        # What goes is written down before it goes: a writer that counted on it looks here after its commit.
        await repository.files.create(key, record_id, repository.sign(key, msgspec.json.encode(swept)))
        await repository.store.delete([Key(f) for f in sweep.files])
        await repository.store.delete([paths.manifest_path(p) for p in sweep.points])
    # Last: until here the record hides the points and the files whose deletion may have stopped half-way.
    await repository.store.delete([paths.condemned_path(r) for r in sweep.fulfilled])
    left_records = [written for record, written in records.condemned if record.id not in sweep.fulfilled]
    return PruneReport(
        condemned_files=len(garbage),
        condemned_bytes=sum(sizes[k] for k in garbage),
        condemned_points=void,
        swept_files=len(sweep.files),
        swept_bytes=sum(sizes[k] for k in sweep.files),
        swept_points=sweep.points,
        waiting_volumes=tuple(waiting),
        next_sweep=(min(left_records) + 2 * max_run).isoformat(timespec="seconds") if left_records else "",
    )


async def _condemn(
    repository: Repository,
    *,
    points: tuple[str, ...] = (),
    files: tuple[str, ...] = (),
    volumes: tuple[VolumeEntry, ...] = (),
) -> CondemnedRecord:
    record_id = secrets.token_hex(8)
    key = paths.condemned_path(record_id)
    record = CondemnedRecord(
        id=record_id,
        writer=repository.require_pruner(),
        written=_now_text(),
        points=points,
        files=files,
        volumes=volumes,
    )
    await repository.files.create(key, record_id, repository.sign(key, msgspec.json.encode(record)))
    return record


async def _retry_volumes(
    repository: Repository, record: CondemnedRecord, delete_volumes: DeleteVolumes
) -> tuple[VolumeEntry, ...]:
    left = tuple(await delete_volumes(record.volumes))
    if len(left) < len(record.volumes):
        # A record never changes: the shorter one is written first, so a crash between them only repeats deletions.
        await _condemn(repository, points=record.points, files=record.files, volumes=left)
        await repository.store.delete([paths.condemned_path(record.id)])
    return left


async def _refuse_while_restored(repository: Repository, point_id: str) -> None:
    now = datetime.now(UTC)
    for restore_id in await open_restores(repository):
        if await restored_point(repository, restore_id) != point_id:
            continue
        begun = (await repository.store.head(paths.journal_path(restore_id, 0))).modified
        if now - begun < RESTORE_WAIT:
            raise PointInUse(
                f"the restore {restore_id} of the recovery point {point_id} began at {begun:%Y-%m-%dT%H:%M:%SZ} "
                "and has no result",
                hint=f"Finish it (restore apply --resume {restore_id}), or wait until it is 7 days old",
            )


async def _manifests(repository: Repository, records: PruneRecords) -> list[Manifest]:
    manifests = []
    for point_id in await repository.point_ids():
        if point_id in records.condemned_points:
            continue
        try:
            manifests.append((await repository.load(point_id)).manifest)
        except NoSuchPoint:
            continue  # swept by another prune since it was listed
    return manifests


async def _stored(repository: Repository) -> tuple[dict[str, datetime], dict[str, int]]:
    stored: dict[str, datetime] = {}
    sizes: dict[str, int] = {}
    async for info in repository.store.list(""):
        stored[info.key] = info.modified
        sizes[info.key] = info.size
    return stored, sizes


async def _store_now(repository: Repository) -> datetime:
    """Return the time by the store's clock: that of a run record of our own, which a later prune collects."""
    run_id = secrets.token_hex(8)
    key = paths.run_path(run_id)
    record = {"id": run_id, "writer": repository.require_pruner(), "prune": True}
    await repository.files.create(key, run_id, msgspec.json.encode(record))
    return (await repository.store.head(key)).modified


def _with_handle(manifest: Manifest) -> tuple[VolumeEntry, ...]:
    return tuple(v for v in manifest.volumes if v.handle)


def _now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
