"""Decides what becomes of a slot that is due: taken, waited for, or left out. Values only."""

from dataclasses import dataclass

from strongroom.protection.schedule import Schedule
from strongroom.protection.times import Instant


@dataclass(frozen=True, slots=True)
class Take:
    """Make the backup of *slot*, and plan *following*. The slots from *missed_from* on (None: none) are left out."""

    slot: Instant
    following: Instant
    missed_from: Instant | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """A backup of the instance runs: look again soon."""


@dataclass(frozen=True, slots=True)
class LeaveOut:
    """The backup that runs lasted until *following* was due: what waited before is left out, and this waits."""

    following: Instant


@dataclass(frozen=True, slots=True)
class PlanAnew:
    """What was due is no slot of the schedule as it is now: plan *following*."""

    following: Instant


Turn = Take | Wait | LeaveOut | PlanAnew


def turn_of(schedule: Schedule, due: Instant, now: Instant, *, busy: bool) -> Turn:
    """Return what becomes of the slot *due*, which is not later than *now*; *busy*: a backup of the instance runs.

    However many slots have passed, the latest one alone is taken: after downtime, and after the clock was put forward.
    """
    latest = schedule.latest_at_or_before(now)
    if latest is None or latest < due:
        return PlanAnew(schedule.next_after(now))
    if busy:
        return Wait() if latest == due else LeaveOut(latest)
    return Take(latest, schedule.next_after(latest), missed_from=due if due < latest else None)


def planned_too_late(schedule: Schedule, planned: Instant | None, now: Instant) -> Instant | None:
    """Return what is to be planned in place of *planned* (None: nothing), None when that is right.

    Nothing later than the next slot is ever planned, unless the clock was ahead and was put back.
    """
    following = schedule.next_after(now)
    return following if planned is None or planned > following else None
