"""Compares what is known of a backup instance with what its containers hold: the database is a memory of them."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from strongroom.controlplane.catalog.points import list_points
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.errors import StateUnavailable
from strongroom.controlplane.state.points import DELETING, KEPT, StoredPoint
from strongroom.controlplane.workflows.containers import Place, place_named
from strongroom.controlplane.workflows.engine import Body, Steps
from strongroom.controlplane.workflows.pointdocs import store_points
from strongroom.controlplane.workflows.services import (
    Services,
    as_user_error,
    error_json,
    error_of,
    place_of_cluster,
)
from strongroom.controlplane.workflows.writers import ACTION, believed
from strongroom.protection.errors import ErrorCode, Refused, UserError

log = logging.getLogger(__name__)

SYNC: Final = "sync-instance"
SYNC_SECONDS: Final = 1800.0  # reading 10,000 manifests takes minutes; a store that hangs would hold it for ever
SYNC_TIMED_OUT: Final = "OperationTimedOut"
POINT_LOST: Final = "RecoveryPointLost"


@dataclass(frozen=True)
class _Known:
    """An instance's containers, by lower-cased ARM id, and its points in each: id to row."""

    instance: str
    places: Mapping[str, Place]
    points: Mapping[str, Mapping[str, StoredPoint]]


class Syncing:
    """The body `sync-instance`; its id is that of a long-running operation."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def bodies(self) -> dict[str, Body]:
        return {SYNC: self.sync}

    async def sync(self, steps: Steps, operation_id: str) -> None:
        """Make new points known and take away those that are gone; end the operation."""
        found = await steps.run("sync", lambda: self._sync(operation_id))
        await steps.run("finish", lambda: self._finish(operation_id, found))

    async def _sync(self, operation_id: str) -> Any:
        operation = await self._services.operation(operation_id)
        try:
            known = await self._services.read(lambda tx: _read_known(tx, operation.resource))
            async with asyncio.timeout(SYNC_SECONDS):
                for key, place in known.places.items():
                    await self._sync_place(known.instance, place, known.points.get(key, {}))
        except TimeoutError:
            message = f"The containers of the backup instance were not read within {SYNC_SECONDS / 60:.0f} minutes."
            action = "Look whether the storage answers, then repeat."
            return error_json(UserError(SYNC_TIMED_OUT, message, (action,), operation.resource, retryable=True))
        except StateUnavailable:
            raise
        except Exception as error:
            log.warning("an instance was not synchronized", exc_info=error, extra={"instance": operation.resource})
            return error_json(as_user_error(error))
        return None

    async def _finish(self, operation_id: str, found: Any) -> None:
        operation = await self._services.operation(operation_id)
        await self._services.end_operation(operation, error=error_of(found) if found else None)

    async def _sync_place(self, instance: str, place: Place, known: Mapping[str, StoredPoint]) -> None:
        async with self._services.containers.repository(place) as repository:
            listing = await list_points(repository, known=dict.fromkeys(known, ""))
            mine = [p.id for p in listing.points if p.caller.get("instance", "").lower() == instance.lower()]
            manifests = [(await repository.load(point_id)).manifest for point_id in mine]
        for point_id, reason in listing.unreadable.items():
            log.warning("a recovery point cannot be read", extra={"point": point_id, "reason": reason})

        def write(tx: Tx) -> None:
            current = tx.resources.get(instance)
            new = store_points(tx, instance, place, believed(tx, current, manifests)) if current else 0
            for point_id in listing.deleted:
                # The daily prune removes the row, once no CSI snapshot of the point is left.
                tx.points.put(replace(known[point_id], state=DELETING))
            for point_id in listing.lost:
                tx.points.delete(instance, point_id)
                scope = f"{instance}/recoveryPoints/{point_id}"
                detail = (
                    f"it is not in {place.id} any more, and nobody deleted it: the store was rolled back or changed"
                )
                tx.audit.add(POINT_LOST, principal="", action=ACTION, scope=scope, outcome="Failed", detail=detail)
            if new or listing.deleted or listing.lost:
                counts = {"new": new, "deleted": len(listing.deleted), "lost": len(listing.lost)}
                log.warning("a container held other points than were known", extra={"instance": instance, **counts})

        await self._services.write(write)


def _read_known(tx: Tx, instance_id: str) -> _Known:
    instance = tx.resources.get(instance_id)
    if instance is None:
        raise Refused(UserError(str(ErrorCode.RESOURCE_NOT_FOUND), "The backup instance was deleted meanwhile."))
    places: dict[str, Place] = {}
    points: dict[str, dict[str, StoredPoint]] = {}
    for point in tx.points.of_instance(instance.id, states=(KEPT,)):
        container = str(point.private["container"])
        if container.lower() not in places:
            places[container.lower()] = place_named(tx, container)
        points.setdefault(container.lower(), {})[point.id] = point
    try:
        _, place = place_of_cluster(tx, str(instance.properties["dataSourceInfo"]["resourceID"]))
        places.setdefault(place.id.lower(), place)
    except Refused:
        # The extension was removed: there is nothing to compare but what is known.
        if not places:
            raise
    return _Known(instance.id, places, points)
