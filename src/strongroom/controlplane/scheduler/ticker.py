"""Makes the job of each slot that is due, exactly once, whatever happens to this process, its database or its clock.

The job of a slot and the plan of the next one are written in one transaction, which begins by moving the plan on from
the slot that was seen (`Schedules.advance`): of two tickers one succeeds. The name of a slot is unique in the table of
jobs, so a slot that comes again, after the clock was put back or a plan was made anew, is not made again.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from strongroom.controlplane.scheduler.turns import LeaveOut, PlanAnew, Take, Turn, Wait, planned_too_late, turn_of
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.errors import Conflict, StateError, StateUnavailable
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.schedules import Due
from strongroom.controlplane.state.times import stamp
from strongroom.controlplane.workflows.jobdocs import BACKUP, new_job
from strongroom.controlplane.workflows.readiness import INSTANCES
from strongroom.controlplane.workflows.services import Services
from strongroom.protection.instance import ProtectionState
from strongroom.protection.job import JobStatus
from strongroom.protection.policy import Policy, parse_policy
from strongroom.protection.times import Instant, parse_instant, slot_key

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 1.0  # between looks at what is due: slots lie on whole seconds
TROUBLE_SECONDS: Final = 2.0  # between attempts while the database does not answer
HOLD_SECONDS: Final = 60.0  # before an instance is tried again whose slot failed for a reason of its own
BACK_SECONDS: Final = 2.0  # a clock that is set smoothly may step back by less
TOGETHER: Final = 25  # slots in one transaction: its sync costs as much as they do, and others wait for it
DUE_AT_ONCE: Final = 20_000  # due rows read in one tick: more than instances of a home, of which some may wait for long
POLICIES_KEPT: Final = 1_000  # parsed policies in memory; 5,000 instances share a few
POINTS_LOOKED_AT: Final = 100  # newest points among which a scheduled one is looked for when the jobs are lost

ACTION: Final = "Microsoft.DataProtection/backupVaults/backupInstances/backup/action"
MISSED: Final = "ScheduledBackupMissed"
_SUCCEEDED: Final = tuple(s.value for s in JobStatus if s.succeeded)


class Ticker:
    """The scheduler of one home. *poke* wakes the dispatcher of the outbox; it may be called from any thread."""

    def __init__(self, services: Services, poke: Callable[[], None]) -> None:
        self._db = services.db
        self._clock = services.clock
        self._poke = poke
        self._policies: OrderedDict[tuple[str, str], Policy] = OrderedDict()
        self._held: dict[str, datetime] = {}
        self._seen: datetime | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to tick, until `stop`."""
        self._task = asyncio.create_task(self._run(), name="scheduler")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def tick(self) -> int:
        """Make the jobs that are due now; return how many. Raises `StateError` when the database does not answer."""
        # A tick that was begun ends, also when the server stops: it takes as long as its transactions.
        return await asyncio.to_thread(self._tick)

    async def _run(self) -> None:
        while True:
            try:
                await self.tick()
            except StateError as error:
                log.warning("the scheduler waits for the database", extra={"reason": str(error)})
                await asyncio.sleep(TROUBLE_SECONDS)
            except Exception:
                # Schedules must outlive a mistake of ours: it is said, and the next tick tries again.
                log.exception("a tick of the scheduler failed")
                await asyncio.sleep(TROUBLE_SECONDS)
            else:
                await asyncio.sleep(TICK_SECONDS)

    def _tick(self) -> int:
        now = self._clock()
        if self._seen is None or now < self._seen - timedelta(seconds=BACK_SECONDS):
            self._correct_plans(now)
        self._seen = now
        with self._db.read() as tx:
            due = tx.schedules.due(stamp(now), limit=DUE_AT_ONCE)
            busy = tx.jobs.busy(BACKUP) if due else set()
        self._held = {key: until for key, until in self._held.items() if until > now}
        turns = [row for row in due if row.instance not in self._held and not self._waits(row, now, busy)]
        made = 0
        for at in range(0, len(turns), TOGETHER):
            made_now = self._together(turns[at : at + TOGETHER], now)
            if made_now:
                made += made_now
                # At once: thousands may be due together, and the first ones need not wait for the last.
                self._poke()
        return made

    def _waits(self, row: Due, now: datetime, busy: set[str]) -> bool:
        """Say whether there is nothing to write for an instance whose backup runs: no transaction is spent on it."""
        if row.instance not in busy:
            return False
        try:
            with self._db.read() as tx:
                look = self._look(tx, row, now)
        except StateUnavailable:
            raise
        except Exception:
            return self._hold(row, now)
        return look is not None and isinstance(look.turn, Wait)

    def _together(self, rows: list[Due], now: datetime) -> int:
        """Carry out the turns of some instances; return how many jobs were made. Never lets one stop the others."""
        try:
            with self._db.write() as tx:
                return sum([self._turn(tx, row, now) for row in rows])
        except StateUnavailable:
            raise
        except Exception as error:
            if len(rows) > 1:
                # Nothing of it was kept: each has its own transaction now.
                log.info("slots are made one by one", extra={"reason": str(error)})
                return sum([self._together([row], now) for row in rows])
            if isinstance(error, Conflict):
                # A request or another ticker was faster; the next tick sees what it wrote.
                log.info("the slot is somebody else's", extra={"instance": rows[0].instance, "due": rows[0].due})
            else:
                self._hold(rows[0], now)
        return 0

    def _hold(self, row: Due, now: datetime) -> bool:
        """Say what is wrong with an instance, and leave it alone for a while. For use in an except clause."""
        log.exception("the slot could not be made into a job", extra={"instance": row.instance, "due": row.due})
        self._held[row.instance] = now + timedelta(seconds=HOLD_SECONDS)
        return True

    def _look(self, tx: Tx, row: Due, now: datetime) -> "_Look | None":
        """Return the turn of an instance, None when it takes no scheduled backups."""
        instance = tx.resources.get(row.instance)
        found = self._policy(tx, instance) if instance is not None else None
        if instance is None or found is None:
            return None
        resource, policy = found
        state = ProtectionState(instance.properties["currentProtectionState"])
        if state is ProtectionState.UPDATING:
            # What is due during an update is taken after it.
            return _Look(Wait(), instance, resource, policy)
        if not state.takes_scheduled_backups:
            return None
        busy = bool(tx.jobs.running(instance.id, BACKUP))
        turn = turn_of(policy.schedule, parse_instant(row.due), Instant(now), busy=busy)
        return _Look(turn, instance, resource, policy)

    def _turn(self, tx: Tx, row: Due, now: datetime) -> bool:
        look = self._look(tx, row, now)
        if look is None:
            tx.schedules.clear(row.instance)
            return False
        match look.turn:
            case Wait():
                pass
            case PlanAnew(following):
                tx.schedules.advance(row.instance, row.due, stamp(following.to_stdlib()))
            case LeaveOut(following):
                if tx.schedules.advance(row.instance, row.due, stamp(following.to_stdlib())):
                    _say_missed(tx, row, following, "a backup of this instance was still running")
            case Take(slot, following, missed_from):
                if tx.schedules.advance(row.instance, row.due, stamp(following.to_stdlib())):
                    if missed_from is not None:
                        _say_missed(tx, row, slot, "the server was not running, or its clock was put forward")
                    return self._make(tx, look, slot, now)
        return False

    def _make(self, tx: Tx, look: "_Look", slot: Instant, now: datetime) -> bool:
        instance, parsed, resource = look.instance, look.policy, look.resource
        name = slot_name(instance.id, slot)
        if tx.jobs.has_slot(name):
            # The clock was put back, or the plan was made anew: this slot has had its backup.
            return False
        vault = tx.resources.get(instance.parent)
        assert vault is not None, "an instance lies in a vault"
        rule = parsed.rule_for_slot(slot, latest_success(tx, instance, slot))
        job = new_job(
            instance,
            BACKUP,
            now,
            vault=vault,
            on_demand=False,
            policy_name=resource.name,
            task="Trigger Backup",
            slot=name,
            private={
                "rule": parsed.backup_rule.name,
                "tag": rule.name,
                "policyVersion": resource.private.get("version", ""),
                "retention": rule.operational.text,
                "slot": stamp(slot.to_stdlib()),
                "incarnation": instance.private.get("incarnation", ""),
            },
            details={"RetentionTag": rule.name.lower()},
        )
        tx.jobs.add(job)
        tx.outbox.add("backup", job.id, f"{instance.id}/backup")
        return True

    def _correct_plans(self, now: datetime) -> None:
        """Plan anew what lies beyond the next slot, or is not planned: the clock was ahead, or a row was lost."""
        with self._db.read() as tx:
            keys = [instance.id for instance in tx.resources.of_type(INSTANCES)]
        for key in keys:
            try:
                self._correct_plan(key, now)
            except StateUnavailable:
                raise
            except Exception:
                log.exception("the plan of a backup instance could not be looked at", extra={"instance": key})
        self._held.clear()

    def _correct_plan(self, key: str, now: datetime) -> None:
        with self._db.read() as tx:
            better = self._better_plan(tx, key, now)
        if better is None:
            return
        with self._db.write() as tx:
            # Read again: a request may have changed it since.
            better = self._better_plan(tx, key, now)
            if better is not None:
                log.warning("the plan was not that of the schedule", extra={"instance": key, "due": better})
                tx.schedules.set(key, better)

    def _better_plan(self, tx: Tx, key: str, now: datetime) -> str | None:
        instance = tx.resources.get(key)
        if instance is None:
            return None
        if not ProtectionState(instance.properties["currentProtectionState"]).takes_scheduled_backups:
            return None
        policy = self._policy(tx, instance)
        if policy is None:
            return None
        planned = tx.schedules.get(key)
        better = planned_too_late(policy[1].schedule, parse_instant(planned) if planned else None, Instant(now))
        return None if better is None else stamp(better.to_stdlib())

    def _policy(self, tx: Tx, instance: Resource) -> tuple[Resource, Policy] | None:
        """Return the policy of an instance, read once for each change of it."""
        policy_id = instance.properties["policyInfo"]["policyId"]
        resource = tx.resources.get(policy_id)
        if resource is None:
            log.error("the policy of a backup instance is gone", extra={"instance": instance.id, "policy": policy_id})
            return None
        key = (resource.id.lower(), resource.etag)
        parsed = self._policies.get(key)
        if parsed is None:
            parsed = self._policies[key] = parse_policy(resource.properties)
            while len(self._policies) > POLICIES_KEPT:
                self._policies.popitem(last=False)
        return resource, parsed


@dataclass(frozen=True)
class _Look:
    """An instance that takes scheduled backups, its policy as stored and as read, and its turn."""

    turn: Turn
    instance: Resource
    resource: Resource
    policy: Policy


def slot_name(instance: str, slot: Instant) -> str:
    """Return what names the slot of an instance (ARM id) in the table of jobs."""
    return f"{instance.lower()}/{slot_key(slot)}"


def latest_success(tx: Tx, instance: Resource, before: Instant) -> Instant | None:
    """Return the slot of the latest successful scheduled backup before the slot *before*, None if there was none.

    The jobs tell it. Where they are lost (the vault was rebuilt from its containers) the recovery points do.
    """
    job = tx.jobs.latest_of_slots(instance.id, BACKUP, slot_name(instance.id, before), _SUCCEEDED)
    if job is not None:
        # An instance of the same name that was purged has left its jobs, but no points.
        mine = job.private.get("incarnation", "") == instance.private.get("incarnation", "")
        return parse_instant(job.private["slot"]) if mine else None
    for point in tx.points.of_instance(instance.id, limit=POINTS_LOOKED_AT):
        slot = point.private.get("slot", "") if point.private.get("trigger") == "scheduled" else ""
        if slot and slot < stamp(before.to_stdlib()):
            return parse_instant(slot)
    return None


def _say_missed(tx: Tx, row: Due, until: Instant, reason: str) -> None:
    missed = f"from {row.due} to before {stamp(until.to_stdlib())}"
    log.warning("scheduled backups were left out", extra={"instance": row.instance, "missed": missed, "reason": reason})
    tx.audit.add(
        MISSED, principal="", action=ACTION, scope=row.instance, outcome="Missed", detail=f"{missed}: {reason}"
    )
