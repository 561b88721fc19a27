"""The scheduler on a virtual clock: each slot has one job, whatever happens to the process, the clock or the instance.

The same behaviours hold on PostgreSQL: tests/integration/test_scheduler_postgres.py runs this class there.
"""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from strongroom.controlplane.scheduler.ticker import MISSED
from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.times import moment
from strongroom.protection.instance import ProtectionState

from .scheduler_stage import EVERY_4_HOURS, START, Stage, policy_document

KEY = bytes(32)
NINE = datetime(2026, 11, 23, 9, tzinfo=UTC)


class SchedulerContract:
    """What the scheduler does on every database; *stage* is a fresh control plane at 08:30."""

    async def test_nothing_is_made_before_a_slot_is_due_and_one_job_at_it(self, stage: Stage) -> None:
        instance = stage.instance(stage.policy())
        stage.clock.now = NINE - timedelta(microseconds=1)
        assert await stage.ticker.tick() == 0
        stage.clock.now = NINE
        assert await stage.ticker.tick() == 1
        assert await stage.ticker.tick() == 0
        (job,) = stage.running()
        assert stage.asked() == [job.id]
        assert stage.poked == 1
        assert job.slot == f"{instance.id.lower()}/20261123T090000Z"
        assert job.doc["properties"]["isUserTriggered"] is False
        private = {key: job.private[key] for key in ("rule", "tag", "retention", "policyVersion", "slot")}
        assert private == {
            "rule": "Backup",
            "tag": "Default",
            "retention": "P7D",
            "policyVersion": "1",
            "slot": "2026-11-23T09:00:00.0000000Z",
        }
        assert stage.planned(instance) == NINE + timedelta(hours=4)

    async def test_after_downtime_the_latest_missed_slot_alone_is_caught_up(self, stage: Stage) -> None:
        instance = stage.instance(stage.policy())
        stage.clock.now = NINE + timedelta(days=2, hours=5)
        assert await stage.new_ticker().tick() == 1
        assert stage.slots(instance) == ["20261125T130000Z"]
        assert stage.planned(instance) == NINE + timedelta(days=2, hours=8)
        with stage.db.read() as tx:
            (event,) = [e for e in tx.audit.newest(10) if e["event"] == MISSED]
        assert event["scope"] == instance.id.lower()
        assert "2026-11-23T09:00:00" in event["detail"]

    async def test_a_slot_is_not_made_again_when_the_clock_is_put_back(self, stage: Stage) -> None:
        instance = stage.instance(stage.policy())
        stage.clock.now = NINE
        await stage.ticker.tick()
        stage.finish()
        for ticker in (stage.ticker, stage.new_ticker()):
            stage.clock.now = NINE - timedelta(hours=2)
            assert await ticker.tick() == 0
            stage.clock.now = NINE + timedelta(seconds=1)
            assert await ticker.tick() == 0
        assert stage.slots(instance) == ["20261123T090000Z"]
        stage.clock.now = NINE + timedelta(hours=4)
        assert await stage.ticker.tick() == 1

    async def test_backups_go_on_after_the_clock_was_far_ahead_for_a_while(self, stage: Stage) -> None:
        instance = stage.instance(stage.policy())
        stage.clock.now = NINE + timedelta(days=3650)
        await stage.ticker.tick()
        stage.finish()
        stage.clock.now = NINE - timedelta(minutes=1)
        await stage.ticker.tick()
        assert stage.planned(instance) == NINE
        stage.clock.now = NINE
        assert await stage.ticker.tick() == 1

    async def test_two_tickers_make_one_job_of_a_slot(self, stage: Stage) -> None:
        instances = [stage.instance(stage.policy(), f"i{n}") for n in range(12)]
        stage.clock.now = NINE
        tickers = [stage.new_ticker() for _ in range(4)]
        made = await asyncio.gather(*(ticker.tick() for ticker in tickers))
        assert sum(made) == len(instances)
        assert [stage.slots(i) for i in instances] == [["20261123T090000Z"]] * len(instances)
        assert len(stage.asked()) == len(instances)
        assert sum([await ticker.tick() for ticker in tickers]) == 0

    async def test_a_slot_waits_for_a_running_backup_and_is_taken_when_that_ends(self, stage: Stage) -> None:
        instance = stage.instance(stage.policy())
        stage.clock.now = NINE
        await stage.ticker.tick()
        stage.clock.now = NINE + timedelta(hours=4)
        assert await stage.ticker.tick() == 0
        stage.clock.forward(hours=3)
        assert await stage.ticker.tick() == 0
        stage.finish()
        assert await stage.ticker.tick() == 1
        assert stage.slots(instance) == ["20261123T090000Z", "20261123T130000Z"]

    async def test_a_slot_that_waited_until_the_next_was_due_is_left_out_and_said(self, stage: Stage) -> None:
        instance = stage.instance(stage.policy())
        stage.clock.now = NINE
        await stage.ticker.tick()
        stage.clock.now = NINE + timedelta(hours=4)
        await stage.ticker.tick()
        stage.clock.now = NINE + timedelta(hours=8)
        assert await stage.ticker.tick() == 0
        assert stage.planned(instance) == NINE + timedelta(hours=8)
        with stage.db.read() as tx:
            (event,) = [e for e in tx.audit.newest(10) if e["event"] == MISSED]
        assert "still running" in event["detail"]
        stage.finish()
        assert await stage.ticker.tick() == 1
        assert stage.slots(instance) == ["20261123T090000Z", "20261123T170000Z"]

    @pytest.mark.parametrize("state", [ProtectionState.SUSPENDED, ProtectionState.STOPPED, ProtectionState.ERROR])
    async def test_what_takes_no_backups_is_passed_over_and_goes_on_by_the_schedule(
        self, stage: Stage, state: ProtectionState
    ) -> None:
        instance = stage.instance(stage.policy())
        stage.into(instance, state)
        stage.clock.now = NINE + timedelta(hours=9)
        assert await stage.ticker.tick() == 0
        stage.into(instance, ProtectionState.CONFIGURED)
        assert await stage.ticker.tick() == 0
        stage.clock.now = NINE + timedelta(hours=12)
        assert await stage.ticker.tick() == 1
        assert stage.slots(instance) == ["20261123T210000Z"]

    async def test_a_slot_that_is_due_during_an_update_is_taken_after_it(self, stage: Stage) -> None:
        instance = stage.instance(stage.policy())
        stage.into(instance, ProtectionState.UPDATING)
        stage.clock.now = NINE
        assert await stage.ticker.tick() == 0
        stage.clock.forward(seconds=40)
        stage.into(instance, ProtectionState.CONFIGURED)
        assert await stage.ticker.tick() == 1
        assert stage.slots(instance) == ["20261123T090000Z"]

    async def test_a_deleted_instance_has_no_more_slots(self, stage: Stage) -> None:
        instance = stage.instance(stage.policy())
        with stage.db.write() as tx:
            tx.resources.delete(instance.id)
        stage.clock.now = NINE
        assert await stage.ticker.tick() == 0
        assert stage.planned(instance) is None

    async def test_a_changed_schedule_holds_from_its_change_on(self, stage: Stage) -> None:
        instance = stage.instance(stage.policy())
        stage.clock.now = NINE
        await stage.ticker.tick()
        stage.finish()
        stage.policy(policy_document(["R/2026-01-01T10:30:00+00:00/P1D"]))
        stage.into(instance, ProtectionState.CONFIGURED)
        stage.clock.now = NINE + timedelta(hours=2)
        assert await stage.ticker.tick() == 1
        assert stage.slots(instance) == ["20261123T090000Z", "20261123T103000Z"]
        assert stage.planned(instance) == moment("2026-11-24T10:30:00.0000000Z")

    async def test_a_plan_that_was_lost_is_made_anew_at_the_start(self, stage: Stage) -> None:
        instance = stage.instance(stage.policy())
        with stage.db.write() as tx:
            tx.schedules.clear(instance.id)
        await stage.new_ticker().tick()
        assert stage.planned(instance) == NINE

    async def test_one_broken_instance_does_not_stop_the_others(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        broken, whole = stage.instance(stage.policy(), "broken"), stage.instance(stage.policy(), "whole")
        with stage.db.write() as tx:
            tx.resources.put(broken.with_properties({"dataSourceSetInfo": None}))
        stage.clock.now = NINE
        assert await stage.ticker.tick() == 1
        assert stage.slots(whole) == ["20261123T090000Z"]
        assert any("could not be made into a job" in record.message for record in caplog.records)
        # Repaired, it is caught up.
        with stage.db.write() as tx:
            tx.resources.put(broken)
        stage.clock.forward(minutes=5)
        assert await stage.ticker.tick() == 1
        assert stage.slots(broken) == ["20261123T090000Z"]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    db = Database.open(f"sqlite:///{tmp_path}/state.sqlite", KEY)
    yield Stage(db, tmp_path)
    db.close()


class TestSchedulerOnSqlite(SchedulerContract):
    pass


FIRST_OF_DAY = (("Daily", "FirstOfDay", "P30D"), ("Default", "", "P7D"))


async def _tags_of(stage: Stage, slots: int, *, failing: tuple[str, ...] = ()) -> list[str]:
    tags = []
    for _ in range(slots):
        due = stage.next_due()
        assert due is not None
        stage.clock.now = due
        assert await stage.ticker.tick() == 1
        (job,) = stage.running()
        tags.append(job.private["tag"])
        stage.finish(fails=lambda job: job.private["slot"][:16] in failing)
    return tags


async def test_the_first_backup_of_a_day_that_succeeds_gets_its_tag(stage: Stage) -> None:
    stage.instance(stage.policy(policy_document(["R/2026-01-01T00:00:00+00:00/PT6H"], tags=FIRST_OF_DAY)))
    assert await _tags_of(stage, 6) == ["Daily", "Default", "Daily", "Default", "Default", "Default"]
    failing = ("2026-11-25T00:00", "2026-11-25T06:00")
    assert await _tags_of(stage, 4, failing=failing) == ["Daily", "Daily", "Daily", "Default"]


async def test_an_instance_made_anew_under_an_old_name_begins_its_day_anew(stage: Stage) -> None:
    policy = stage.policy(policy_document(["R/2026-01-01T00:00:00+00:00/PT6H"], tags=FIRST_OF_DAY))
    stage.instance(policy)
    assert await _tags_of(stage, 1) == ["Daily"]
    stage.instance(policy, incarnation="two")
    assert await _tags_of(stage, 1) == ["Daily"]


async def test_when_the_jobs_are_lost_the_points_tell_the_latest_success(stage: Stage, tmp_path: Path) -> None:
    policy = policy_document(["R/2026-01-01T00:00:00+00:00/PT6H"], tags=FIRST_OF_DAY)
    instance = stage.instance(stage.policy(policy))
    assert await _tags_of(stage, 1) == ["Daily"]
    rebuilt = Stage(Database.open(f"sqlite:///{tmp_path}/rebuilt.sqlite", KEY), tmp_path, stage.clock)
    rebuilt.instance(rebuilt.policy(policy))
    with stage.db.read() as tx, rebuilt.db.write() as other:
        for point in tx.points.of_instance(instance.id):
            other.points.put(point)
    assert await _tags_of(rebuilt, 1) == ["Default"]


async def test_a_running_scheduler_makes_jobs_until_it_is_stopped(stage: Stage) -> None:
    stage.instance(stage.policy(EVERY_4_HOURS))
    assert stage.clock.now == START
    await stage.ticker.start()
    stage.clock.now = NINE
    async with asyncio.timeout(30):
        while not stage.running():  # noqa: ASYNC110 - a database
            await asyncio.sleep(0.05)
    await stage.ticker.stop()
