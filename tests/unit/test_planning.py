"""When instances are due next after their policy changed: all of them at once, each by its state."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.schedules import BATCH
from strongroom.controlplane.state.times import stamp
from strongroom.controlplane.workflows.planning import plan_all
from strongroom.controlplane.workflows.protecting import with_state
from strongroom.protection.instance import ProtectionState

from .scheduler_stage import START, VAULT, Stage, policy_document

HOURLY_ANEW = policy_document(["R/2026-01-01T03:00:00+00:00/PT4H"])
DUE = stamp(START.replace(hour=9, minute=0))
DUE_ANEW = stamp(START.replace(hour=11, minute=0))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    db = Database.open(f"sqlite:///{tmp_path}/state.sqlite", bytes(32))
    yield Stage(db, tmp_path)
    db.close()


def test_a_changed_policy_plans_each_instance_by_its_state(stage: Stage) -> None:
    policy = stage.policy()
    configured, stopped, updating = (stage.instance(policy, name) for name in ("configured", "stopped", "updating"))
    changed = stage.policy(HOURLY_ANEW)
    late = stamp(START - timedelta(minutes=5))
    with stage.db.write() as tx:
        tx.schedules.set(updating.id, late)
        states = (ProtectionState.CONFIGURED, ProtectionState.STOPPED, ProtectionState.UPDATING)
        instances = [with_state(i, s) for i, s in zip((configured, stopped, updating), states, strict=True)]
        plan_all(tx, instances, changed, START)
        assert [tx.schedules.get(i.id) for i in instances] == [DUE_ANEW, None, late]


def test_a_slot_that_is_due_and_waits_stays_where_the_schedule_has_it(stage: Stage) -> None:
    policy = stage.policy()
    kept, dropped = stage.instance(policy, "kept"), stage.instance(policy, "dropped")
    slot = START.replace(hour=5, minute=0)
    with stage.db.write() as tx:
        tx.schedules.set(kept.id, stamp(slot))
        tx.schedules.set(dropped.id, stamp(slot + timedelta(minutes=1)))
        plan_all(tx, [kept, dropped], policy, START)
        assert [tx.schedules.get(i.id) for i in (kept, dropped)] == [stamp(slot), DUE]


def test_more_instances_than_one_statement_takes_are_planned(stage: Stage) -> None:
    policy = stage.policy()
    one = stage.instance(policy, "one")
    many = [Resource(f"{one.id}{n}", one.type, one.doc, VAULT) for n in range(BATCH + 1)]
    with stage.db.write() as tx:
        plan_all(tx, many, policy, START)
        assert set(tx.schedules.planned(i.id for i in many).values()) == {DUE}
        assert len(tx.schedules.planned(i.id for i in many)) == len(many)
