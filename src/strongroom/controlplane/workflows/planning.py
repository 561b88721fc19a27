"""When a backup instance is due next, kept beside the instance in the same transaction as what decides it."""

from datetime import datetime

from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import stamp
from strongroom.protection.instance import ProtectionState
from strongroom.protection.policy import parse_policy
from strongroom.protection.times import Instant


def plan_next(tx: Tx, instance: Resource, policy: Resource, after: datetime) -> None:
    """Plan the first slot of *instance* after *after*, or none when its protection state has no scheduled backups."""
    if not ProtectionState(instance.properties["currentProtectionState"]).takes_scheduled_backups:
        tx.schedules.clear(instance.id)
        return
    schedule = parse_policy(policy.properties).schedule
    due = schedule.next_after(Instant(after))
    tx.schedules.set(instance.id, stamp(due.to_stdlib()))
