"""When a backup instance is due next, kept beside the instance in the same transaction as what decides it."""

from datetime import datetime

from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import stamp
from strongroom.protection.instance import ProtectionState
from strongroom.protection.policy import parse_policy
from strongroom.protection.times import Instant, parse_instant


def plan_next(tx: Tx, instance: Resource, policy: Resource, after: datetime) -> None:
    """Plan the first slot of *instance* after *after*, or none when its protection state has no scheduled backups.

    A slot that is due and still waits is kept, if the schedule has it: the end of an update must not cost a backup.
    """
    state = ProtectionState(instance.properties["currentProtectionState"])
    if state is ProtectionState.UPDATING:
        return
    if not state.takes_scheduled_backups:
        tx.schedules.clear(instance.id)
        return
    schedule = parse_policy(policy.properties).schedule
    planned = tx.schedules.get(instance.id)
    waiting = parse_instant(planned) if planned else None
    if waiting is not None and waiting <= Instant(after) and schedule.latest_at_or_before(waiting) == waiting:
        return
    due = schedule.next_after(Instant(after))
    tx.schedules.set(instance.id, stamp(due.to_stdlib()))
