"""Asks, every hour, for what time itself makes due: points that expire, instances to purge, containers to prune.

Nothing is done here but forgetting what is old; the work runs as durable workflows. Asking twice changes nothing: the
id of the work holds its hour or its day.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final

from strongroom.controlplane.catalog.keys import CONTAINER
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.errors import Conflict, StateError
from strongroom.controlplane.workflows.expiring import expired_points, purge_is_due
from strongroom.controlplane.workflows.protecting import DELETED
from strongroom.controlplane.workflows.services import Services
from strongroom.controlplane.workflows.work_ids import EXPIRE, PRUNE, PURGE, work_id
from strongroom.protection.times import Instant

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 60.0  # between looks at the clock: rounds are told apart by it, not by how long was slept
TROUBLE_SECONDS: Final = 10.0  # between attempts while the database does not answer
OPERATIONS_KEPT: Final = timedelta(days=7)  # clients poll for hours at most
REPLAYS_KEPT: Final = timedelta(hours=1)  # a repeated request gets its answer for 10 minutes
AUDIT_KEPT: Final = timedelta(days=365)


class Housekeeper:
    """What is to be done now and then in one home. *poke* wakes the dispatcher of the outbox."""

    def __init__(self, services: Services, poke: Callable[[], None]) -> None:
        self._db = services.db
        self._clock = services.clock
        self._poke = poke
        self._asked: set[str] = set()
        self._hour: datetime | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, with a round at once, until `stop`."""
        self._task = asyncio.create_task(self._run(), name="housekeeping")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except StateError as error:
                log.warning("housekeeping waits for the database", extra={"reason": str(error)})
                await asyncio.sleep(TROUBLE_SECONDS)
            except Exception:
                log.exception("a round of housekeeping failed")
                await asyncio.sleep(LOOK_SECONDS)
            else:
                await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> int:
        """Have a round if none was in this hour; return how much work was asked for. Raises `StateError`."""
        hour = self._clock().replace(minute=0, second=0, microsecond=0)
        if hour == self._hour:
            return 0
        asked = await asyncio.to_thread(self._round, hour)
        self._hour = hour
        return asked

    def _round(self, hour: datetime) -> int:
        now = self._clock()
        with self._db.read() as tx:
            wanted = list(due_work(tx, now, hour))
            waiting = {work.id for work in tx.outbox.waiting(limit=1_000_000)}
        new = [(kind, id, key) for kind, id, key in wanted if id not in waiting and id not in self._asked]
        for kind, id, key in new:
            with contextlib.suppress(Conflict), self._db.write() as tx:
                tx.outbox.add(kind, id, key)
        # Only what is still asked for is worth remembering.
        self._asked = {id for _, id, _ in wanted}
        with self._db.write() as tx:
            tx.operations.forget(now - OPERATIONS_KEPT)
            tx.replays.forget(now - REPLAYS_KEPT)
            tx.audit.forget(now - AUDIT_KEPT)
        if new:
            self._poke()
        return len(new)


def due_work(tx: Tx, now: datetime, hour: datetime) -> Iterator[tuple[str, str, str]]:
    """Yield what is due at *now*, in the *hour* that began last: kind of work, its id, and the key it runs under."""
    for instance in tx.points.instances_with_expired(now):
        if expired_points(tx, instance, Instant(now)):
            yield EXPIRE, work_id(EXPIRE, instance, hour), f"{instance}/expire"
    for deleted in tx.resources.of_type(DELETED):
        if purge_is_due(deleted, Instant(now)):
            yield PURGE, work_id(PURGE, deleted.id, hour), deleted.id
    for name in tx.secrets.names(CONTAINER):
        place = name.removeprefix(CONTAINER)
        yield PRUNE, work_id(PRUNE, place, hour.replace(hour=0)), place
