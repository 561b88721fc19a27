"""The scheduler on PostgreSQL: as on SQLite, by several processes at once, and over the death of the server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.errors import StateUnavailable
from strongroom.testbed.postgres import Postgres

from ..unit.scheduler_stage import Stage
from ..unit.test_scheduler_ticker import KEY, NINE, SchedulerContract


@pytest.fixture
def stage(postgres: Postgres, tmp_path: Path) -> Iterator[Stage]:
    with postgres.database() as url:
        db = Database.open(url, KEY)
        yield Stage(db, tmp_path)
        db.close()


class TestSchedulerOnPostgres(SchedulerContract):
    pass


async def test_it_goes_on_when_its_database_is_back(stage: Stage, postgres: Postgres) -> None:
    if not postgres.killable:
        pytest.skip("the server was named by its URL: it is not ours to kill")
    instance = stage.instance(stage.policy())
    ticker = stage.new_ticker()
    await ticker.start()
    try:
        await asyncio.to_thread(postgres.kill)
        stage.clock.now = NINE
        with pytest.raises(StateUnavailable):
            await stage.new_ticker().tick()
        await asyncio.to_thread(postgres.start)
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(stage.running):  # noqa: ASYNC110 - a database
                await asyncio.sleep(0.05)
    finally:
        await asyncio.to_thread(postgres.start)
        await ticker.stop()
    assert stage.slots(instance) == ["20261123T090000Z"]
