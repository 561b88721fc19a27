"""Lets recovery points go: those whose time is over, those of purged instances, and what repositories no longer need.

A point is let go in three steps, each of which may be repeated: its manifest is condemned in the repository, which
hides it for good; its CSI snapshots are deleted by the extension of its cluster; its row is removed. While snapshots
are left (the cluster is gone) the row stays as `Deleting` with the reasons, and the daily prune tries again.
"""

import asyncio
import logging
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from strongroom.controlplane.catalog import pruning
from strongroom.controlplane.catalog.points import VolumeFacts
from strongroom.controlplane.catalog.pruning import DeleteVolumes, WaitingVolume
from strongroom.controlplane.identity.assignments import forget_resource
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.errors import StateUnavailable
from strongroom.controlplane.state.points import DELETING, KEPT, StoredPoint
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.workflows.containers import Containers, Place, place_named
from strongroom.controlplane.workflows.engine import Body, Steps
from strongroom.controlplane.workflows.extension_work import carry_out, unwatched
from strongroom.controlplane.workflows.protecting import DELETED
from strongroom.controlplane.workflows.readiness import extension_of, vault_of
from strongroom.controlplane.workflows.services import Services
from strongroom.controlplane.workflows.work_ids import EXPIRE, PRUNE, PURGE, resource_of
from strongroom.dataplane.repository.errors import NoSuchPoint, RepositoryError
from strongroom.dataplane.repository.prune import PointInUse
from strongroom.dataplane.repository.repository import Repository
from strongroom.errors import StrongroomError
from strongroom.extension.api.documents import DeleteBackup, DeleteBackupSpec, ObjectMeta
from strongroom.extension.api.status import DeleteBackupStatus
from strongroom.protection.errors import Refused
from strongroom.protection.instance import ProtectionState
from strongroom.protection.retention import KeptPoint, RetentionMode, expired
from strongroom.protection.times import Instant, parse_instant

log = logging.getLogger(__name__)

SNAPSHOTS_SECONDS: Final = 1800.0  # for the CSI snapshots of one point: drivers take seconds for each
ACTION: Final = "Microsoft.DataProtection/backupVaults/backupInstances/recoveryPoints/delete"
POINT_DELETED: Final = "RecoveryPointDeleted"
POINT_NOT_DELETED: Final = "RecoveryPointNotDeleted"
INSTANCE_PURGED: Final = "BackupInstancePurged"
PRUNED: Final = "ContainerPruned"

OnRemoved = Callable[[StoredPoint, Sequence[WaitingVolume]], Awaitable[None]]
Remove = Callable[[Containers, Place, Sequence[StoredPoint], DeleteVolumes, OnRemoved], Awaitable[None]]
"""Deletes points from the repository of a container and reports each that is deleted. Raises what the store raises."""


async def remove_points(
    containers: Containers,
    place: Place,
    points: Sequence[StoredPoint],
    delete_volumes: DeleteVolumes,
    on_removed: OnRemoved,
) -> None:
    """Do as `Remove` says. A point that a restore reads is passed over, and one that is gone counts as deleted."""
    async with containers.repository(place) as repository:
        for point in points:
            try:
                left = await pruning.delete_point(repository, point.id, delete_volumes=delete_volumes)
            except NoSuchPoint:
                left = ()
            except PointInUse as error:
                log.info("a restore reads the recovery point", extra={"point": point.id, "reason": str(error)})
                continue
            await on_removed(point, left)


@dataclass(frozen=True)
class Source:
    """What a recovery point was taken from: cluster and vault (ARM ids), "" where that is not known."""

    cluster: str = ""
    vault: str = ""


class Expiring:
    """The bodies `expire`, `purge-instance` and `prune`; their ids are made by `work_id`."""

    def __init__(self, services: Services, *, remove: Remove = remove_points) -> None:
        self._services = services
        self._remove = remove

    def bodies(self) -> dict[str, Body]:
        return {EXPIRE: self.expire, PURGE: self.purge, PRUNE: self.prune}

    async def expire(self, steps: Steps, work: str) -> None:
        """Delete the points of an instance whose expiry has come; what fails is tried again an hour later."""
        await steps.run("expire", lambda: self._expire(resource_of(work)))

    async def _expire(self, instance_id: str) -> Any:
        now = Instant(self._services.clock())

        def find(tx: Tx) -> list[StoredPoint]:
            found = [tx.points.get(instance_id, point_id) for point_id in expired_points(tx, instance_id, now)]
            return [point for point in found if point is not None]

        points = await self._services.read(find)
        failed = await self._delete(points)
        return {"expired": len(points), "failed": failed}

    async def purge(self, steps: Steps, work: str) -> None:
        """Delete a soft-deleted instance for good, with all its points; what fails is tried again an hour later."""
        instance = await steps.run("mark", lambda: self._mark_purge(resource_of(work)))
        if instance is not None:
            await steps.run("purge", lambda: self._purge(resource_of(work), str(instance)))

    async def _mark_purge(self, deleted_id: str) -> Any:
        """From here on the instance cannot be undeleted. Return its id, None when there is nothing to purge."""
        now = self._services.clock()

        def write(tx: Tx) -> str | None:
            deleted = tx.resources.get(deleted_id)
            if deleted is None or not purge_is_due(deleted, Instant(now)):
                return None
            tx.resources.put(deleted.with_private({"purging": True}), if_match=deleted.etag)
            return str(deleted.private["instance"])

        return await self._services.write(write)

    async def _purge(self, deleted_id: str, instance_id: str) -> Any:
        def every(tx: Tx) -> list[StoredPoint]:
            return tx.points.of_instance(instance_id, states=(KEPT,))

        failed = await self._delete(await self._services.read(every), abandon=True)

        def finish(tx: Tx) -> int:
            left = tx.points.count(instance_id)
            if not left and tx.resources.delete(deleted_id):
                # Undeleted it would have kept its roles; now the name is free for another one.
                forget_resource(tx, instance_id)
                _audit(tx, INSTANCE_PURGED, instance_id, "Succeeded")
            return left

        left = await self._services.write(finish)
        return {"left": left, "failed": failed}

    async def prune(self, steps: Steps, work: str) -> None:
        """Collect what no recovery point of a container needs, and try again what volumes of deleted points left."""
        await steps.run("prune", lambda: self._prune(resource_of(work)))

    async def _prune(self, place_id: str) -> Any:
        try:
            place = await self._services.read(lambda tx: place_named(tx, place_id))
        except Refused as refused:
            # Its account was deleted: nothing of it can be reached any more, and nothing is lost by waiting.
            log.info("a container cannot be pruned", extra={"container": place_id, "reason": refused.error.message})
            return {"absent": True}
        # Those that are deleted while this runs are not among what it found in the repository.
        before = await self._services.read(lambda tx: _deleting_in(tx, place))
        try:
            async with self._services.containers.repository(place) as repository:
                deleter = self._deleter(place, lambda point: self._source_of(repository, place, point))
                pruned = await pruning.prune(repository, delete_volumes=deleter)
        except StateUnavailable:
            raise
        except StrongroomError as error:
            reason = str(error)
            log.warning("a container was not pruned", extra={"container": place_id, "reason": reason})
            await self._services.write(lambda tx: _audit(tx, PRUNED, place_id, "Failed", reason))
            return {"failed": reason[:200]}
        waiting: dict[str, list[WaitingVolume]] = defaultdict(list)
        for each in pruned.waiting:
            waiting[each.point].append(each)

        def write(tx: Tx) -> None:
            for point in before:
                _write_removed(tx, point, waiting.get(point.id, ()))
            detail = (
                f"condemned {pruned.condemned_files} files ({pruned.condemned_bytes} bytes), swept "
                f"{pruned.swept_files} ({pruned.swept_bytes} bytes), {len(pruned.waiting)} CSI snapshots wait"
            )
            _audit(tx, PRUNED, place_id, "Succeeded", detail)

        await self._services.write(write)
        return {"swept": pruned.swept_files, "waiting": len(pruned.waiting)}

    async def _delete(self, points: Iterable[StoredPoint], *, abandon: bool = False) -> int:
        """Delete *points*, container by container; return how many are still there.

        *abandon*: those whose container cannot be reached any more because its account was deleted are forgotten.
        """
        of_place: dict[str, list[StoredPoint]] = defaultdict(list)
        for point in points:
            of_place[str(point.private.get("container", ""))].append(point)
        return sum([await self._delete_in(place, group, abandon=abandon) for place, group in of_place.items()])

    async def _delete_in(self, place_id: str, points: Sequence[StoredPoint], *, abandon: bool) -> int:
        try:
            place = await self._services.read(lambda tx: place_named(tx, place_id))
        except Refused as refused:
            await self._say_failed(points, refused.error.message)
            if abandon:
                await self._services.write(lambda tx: _forget(tx, points))
            return 0 if abandon else len(points)
        done: set[str] = set()
        sources = {point.id: _source(point) for point in points}

        async def on_removed(point: StoredPoint, left: Sequence[WaitingVolume]) -> None:
            await self._services.write(lambda tx: _write_removed(tx, point, left))
            done.add(point.id)

        async def source_of(point_id: str) -> Source:
            return sources.get(point_id, Source())

        deleter = self._deleter(place, source_of)
        try:
            await self._remove(self._services.containers, place, points, deleter, on_removed)
        except StateUnavailable:
            raise
        except StrongroomError as error:
            await self._say_failed([p for p in points if p.id not in done], str(error))
        return len(points) - len(done)

    async def _say_failed(self, points: Sequence[StoredPoint], reason: str) -> None:
        log.warning("recovery points were not deleted", extra={"points": len(points), "reason": reason})

        def write(tx: Tx) -> None:
            for point in points:
                _audit(tx, POINT_NOT_DELETED, f"{point.instance}/recoveryPoints/{point.id}", "Failed", reason)

        await self._services.write(write)

    def _deleter(self, place: Place, source_of: Callable[[str], Awaitable[Source]]) -> DeleteVolumes:
        """Return what has the CSI snapshots of a condemned point deleted through the cluster that it was taken from."""
        trouble: dict[Source, str] = {}

        async def delete(point_id: str, volumes: Sequence[VolumeFacts]) -> Mapping[str, str]:
            source = await source_of(point_id)
            if source not in trouble:
                try:
                    return await self._delete_snapshots(source, place, point_id, volumes)
                except (StrongroomError, TimeoutError) as error:
                    # One attempt for each vault in a cluster: the next point would wait as long for the same answer.
                    trouble[source] = str(error) or "the cluster did not answer in time"
                    log.warning("CSI snapshots wait", extra={"cluster": source.cluster, "reason": trouble[source]})
            return {volume.handle: trouble[source] for volume in volumes}

        return delete

    async def _delete_snapshots(
        self, source: Source, place: Place, point_id: str, volumes: Sequence[VolumeFacts]
    ) -> Mapping[str, str]:
        cluster = source.cluster
        extension = await self._services.read(lambda tx: extension_of(tx, cluster) if cluster else None)
        if extension is None:
            return {volume.handle: pruning.NO_CLUSTER for volume in volumes}
        # A new name for each attempt: an extension does nothing twice under one name.
        document = DeleteBackup(
            metadata=ObjectMeta(name=f"delete-{uuid.uuid4()}"),
            spec=DeleteBackupSpec(storage_location=place.location_name, recovery_point_id=point_id),
        )
        async with asyncio.timeout(SNAPSHOTS_SECONDS):
            status = await carry_out(self._services, source.vault, cluster, place, document, unwatched)
        assert isinstance(status, DeleteBackupStatus)
        listed = {each.handle: each.reason for each in status.not_deleted}
        if status.error is not None and not status.not_deleted_count:
            # It failed as a whole: no snapshot is confirmed gone.
            return {volume.handle: status.error.message for volume in volumes}
        return pruning.left_of(volumes, listed, status.not_deleted_count)

    async def _source_of(self, repository: Repository, place: Place, point_id: str) -> Source:
        """Return what a deleted point was taken from, as far as anything says it any more."""

        def known(tx: Tx) -> Source:
            found = [point for point in _deleting_in(tx, place) if point.id == point_id]
            return _source(found[0]) if found else Source()

        found = await self._services.read(known)
        if not found.cluster:
            try:
                caller = (await repository.load(point_id)).manifest.caller
                found = Source(caller.get("dataSource", ""), vault_of(caller.get("instance", "")))
            except RepositoryError:
                log.info("nothing says which cluster a deleted point was of", extra={"point": point_id})
        return found


def _source(point: StoredPoint) -> Source:
    return Source(str(point.private.get("cluster", "")), vault_of(point.instance))


def expired_points(tx: Tx, instance_id: str, now: Instant) -> list[str]:
    """Return the ids of the points of an instance that are let go at *now*, oldest first: never the newest.

    None of an instance that is stopped or deleted: its points are kept until it is resumed or purged.
    """
    mode = retention_mode(tx.resources.get(instance_id))
    if mode is RetentionMode.FOREVER:
        return []
    kept = [
        KeptPoint(point_id, parse_instant(time), parse_instant(expiry) if expiry else None)
        for point_id, time, expiry in tx.points.expiries(instance_id)
    ]
    return [point.id for point in expired(kept, now, mode)]


def retention_mode(instance: Resource | None) -> RetentionMode:
    """Return whether the points of *instance* expire; None: it is not there, but among the deleted ones or purged."""
    if instance is None:
        return RetentionMode.FOREVER
    return ProtectionState(instance.properties["currentProtectionState"]).retention


def purge_is_due(deleted: Resource, now: Instant) -> bool:
    """Say whether the time of a soft-deleted instance is over."""
    assert deleted.type == DELETED, "only deleted instances are purged"
    return parse_instant(deleted.properties["deletionInfo"]["scheduledPurgeTime"]) <= now


def _write_removed(tx: Tx, point: StoredPoint, left: Sequence[WaitingVolume]) -> None:
    """Write that a point is deleted; while CSI snapshots of it are *left*, its row says which and why."""
    scope = f"{point.instance}/recoveryPoints/{point.id}"
    if not left:
        tx.points.delete(point.instance, point.id)
        _audit(tx, POINT_DELETED, scope, "Succeeded")
        return
    listed = [
        {
            "namespace": each.volume.namespace,
            "claim": each.volume.claim,
            "driver": each.volume.driver,
            "handle": each.volume.handle,
            "reason": each.reason,
        }
        for each in left
    ]
    tx.points.put(replace(point, state=DELETING, private={**point.private, "notDeleted": listed}))
    if point.state == KEPT:
        _audit(tx, POINT_DELETED, scope, "Partial", f"{len(left)} CSI snapshots are left: {left[0].reason}")


def _deleting_in(tx: Tx, place: Place) -> list[StoredPoint]:
    """Return the deleted points of a container of which CSI snapshots are left."""
    wanted = place.id.lower()
    return [p for p in tx.points.in_state(DELETING) if str(p.private.get("container", "")).lower() == wanted]


def _forget(tx: Tx, points: Sequence[StoredPoint]) -> None:
    for point in points:
        tx.points.delete(point.instance, point.id)


def _audit(tx: Tx, event: str, scope: str, outcome: str, detail: str = "") -> None:
    tx.audit.add(event, principal="", action=ACTION, scope=scope, outcome=outcome, detail=detail[:1000])
