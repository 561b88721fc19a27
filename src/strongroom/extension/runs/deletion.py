"""Carries out a DeleteBackup: lets the CSI snapshots of a condemned recovery point go, and lists those that stay."""

from strongroom.dataplane.kube.discovery import discover
from strongroom.dataplane.repository.errors import NoSuchPoint
from strongroom.dataplane.repository.model import VolumeEntry
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.snapshots.delete import delete_snapshots
from strongroom.errors import UsageError
from strongroom.extension.api.documents import DeleteBackup
from strongroom.extension.api.status import (
    NOT_DELETED_AT_MOST,
    DeleteBackupStatus,
    Failure,
    NotDeleted,
    Phase,
    cut,
)
from strongroom.extension.runs.context import RunContext
from strongroom.extension.runs.feed import Feed
from strongroom.protection.errors import ErrorCode


class PointAlive(UsageError):
    """The recovery point was not deleted: without its snapshots it could not bring back its volumes."""


async def run_deletion(context: RunContext, deletion: DeleteBackup, feed: Feed) -> DeleteBackupStatus:
    """Delete the CSI snapshots of a point. May run twice; a snapshot that is gone already counts as deleted.

    The point must be condemned, which hides it from lists and restores and refuses while one reads it: condemning is
    the deletion, this clears away what it owned. Raises `PointAlive`, `NoSuchPoint` for a point that nothing is known
    of, and what `RunContext.repository` raises.
    """
    spec = deletion.spec
    feed.progress("opening the storage location")
    async with context.repository(spec.storage_location) as repo:
        volumes = await _volumes(repo, spec.recovery_point_id)
    if not volumes:
        return DeleteBackupStatus(phase=Phase.COMPLETED)
    feed.progress("deleting volume snapshots", total=len(volumes))
    async with context.connect() as api:
        outcomes = await delete_snapshots(api, await discover(api), volumes)
    left = [
        NotDeleted(
            namespace=each.entry.namespace,
            claim=each.entry.claim,
            driver=each.entry.driver,
            handle=each.entry.handle,
            reason=cut(each.reason),
        )
        for each in outcomes
        if not each.deleted
    ]
    return DeleteBackupStatus(
        phase=_phase(len(outcomes), len(left)),
        deleted=len(outcomes) - len(left),
        not_deleted=tuple(left[:NOT_DELETED_AT_MOST]),
        not_deleted_count=len(left),
        error=_failure(left) if left else None,
    )


async def _volumes(repo: Repository, point_id: str) -> list[VolumeEntry]:
    """Return the volumes of a condemned point that have a snapshot."""
    records = await repo.records()
    if point_id not in records.condemned_points:
        await repo.load(point_id)  # raises NoSuchPoint
        raise PointAlive(
            f"the recovery point {point_id} is not condemned: its snapshots belong to it",
            hint="Delete the recovery point first",
        )
    try:
        volumes = (await repo.load(point_id)).manifest.volumes
    except NoSuchPoint:
        # Swept: what is left of it stands in the record that condemned it.
        volumes = tuple(v for record, _ in records.condemned if point_id in record.points for v in record.volumes)
    return [volume for volume in volumes if volume.handle]


def _phase(all_: int, left: int) -> Phase:
    if not left:
        return Phase.COMPLETED
    return Phase.PARTIALLY_FAILED if left < all_ else Phase.FAILED


def _failure(left: list[NotDeleted]) -> Failure:
    return Failure(
        code=str(ErrorCode.DELETE_BACKUP_FAILED),
        message=f"{len(left)} volume snapshots could not be deleted: {left[0].reason}",
        recommended_action=("Mend that and repeat, or delete the snapshots by their handles on the storage",),
        retryable=True,
    )
