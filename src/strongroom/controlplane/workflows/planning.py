"""When a backup instance is due next, kept beside the instance in the same transaction as what decides it."""

from collections.abc import Iterable
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
    plan_all(tx, (instance,), policy, after)


def plan_all(tx: Tx, instances: Iterable[Resource], policy: Resource, after: datetime) -> None:
    """Do as `plan_next` for all *instances* of a policy, which is read once."""
    schedule = parse_policy(policy.properties).schedule
    due = stamp(schedule.next_after(Instant(after)).to_stdlib())
    states = {i.id: ProtectionState(i.properties["currentProtectionState"]) for i in instances}
    settled = {id: state for id, state in states.items() if state is not ProtectionState.UPDATING}
    planned = tx.schedules.planned(settled)

    def stays(id: str) -> bool:
        waiting = parse_instant(planned[id.lower()]) if id.lower() in planned else None
        if waiting is None or waiting > Instant(after):
            return planned.get(id.lower()) == due
        return schedule.latest_at_or_before(waiting) == waiting

    takes = [id for id, state in settled.items() if state.takes_scheduled_backups]
    tx.schedules.set_all([id for id in takes if not stays(id)], due)
    tx.schedules.set_all([id for id, state in settled.items() if not state.takes_scheduled_backups], None)
