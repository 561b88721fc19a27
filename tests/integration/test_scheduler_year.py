"""A year of the real scheduler, its jobs, points and expiry: for every day, how many points are kept against the rules.

The independent calculation is that of test_protection_year. What a cluster's extension would do happens in no time.
"""

import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from strongroom.controlplane.catalog.pruning import DeleteVolumes
from strongroom.controlplane.scheduler.housekeeping import Housekeeper
from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.points import StoredPoint
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import moment
from strongroom.controlplane.workflows.containers import Containers, Place
from strongroom.controlplane.workflows.engine import JSON
from strongroom.controlplane.workflows.expiring import Expiring, OnRemoved
from strongroom.testbed.postgres import Postgres

from ..unit.scheduler_stage import ACCOUNT, Clock, Stage
from ..unit.test_protection_year import (
    ALL_TAGS,
    BEGIN,
    DAYS,
    fails,
    kept_by_the_rules,
    points_by_the_rules,
    policy_document,
    slots_by_the_rules,
)

ZONES = ("Europe/Paris", "America/New_York", "Australia/Lord_Howe")
WALL_CLOCK = datetime(2026, 1, 1, 2, 15)  # noqa: DTZ001  clocks skip and repeat it in all three zones
RESTART_DAYS = 7  # the server is started anew so often
KEY = bytes(32)


class AtOnce:
    """Runs the steps of a body, and remembers nothing: no body of this test is interrupted."""

    async def run(self, name: str, step: Callable[[], Awaitable[JSON]]) -> JSON:
        return await step()

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("no body of this test sleeps")


async def remove_at_once(
    _: Containers, __: Place, points: Sequence[StoredPoint], ___: DeleteVolumes, on_removed: OnRemoved
) -> None:
    for point in points:
        await on_removed(point, ())


async def points_kept(stage: Stage, instances: dict[str, Resource], days: int) -> dict[str, list[int]]:
    """Return how many points of each instance are kept on each evening."""
    expiring = Expiring(stage.services, remove=remove_at_once)
    ticker, housekeeper = stage.new_ticker(), Housekeeper(stage.services, lambda: None)
    counts: dict[str, list[int]] = {name: [] for name in instances}
    for day in range(days):
        night = BEGIN + timedelta(days=day + 1)
        while (due := stage.next_due()) is not None and due <= night:
            stage.clock.now = due
            assert await ticker.tick() > 0
            stage.finish(fails=lambda job: fails(moment(job.private["slot"])))
        stage.clock.now = night
        await housekeeper.look()
        with stage.db.write() as tx:
            works = [work for work in tx.outbox.waiting() if work.kind == "expire"]
            for work in works:
                tx.outbox.done(work.id)
        for work in works:
            await expiring.expire(AtOnce(), work.id)
        with stage.db.read() as tx:
            for name, instance in instances.items():
                counts[name].append(tx.points.count(instance.id))
        if day % RESTART_DAYS == 0:
            ticker, housekeeper = stage.new_ticker(), Housekeeper(stage.services, lambda: None)
    return counts


def expected(zone: str, period: str, days: int) -> list[int]:
    info = ZoneInfo(zone)
    slots = slots_by_the_rules(WALL_CLOCK, 4 if period == "PT4H" else None, info)
    points = points_by_the_rules([slot for slot in slots if not fails(slot)], info, ALL_TAGS)
    return [kept_by_the_rules(points, BEGIN + timedelta(days=day + 1)) for day in range(days)]


async def _show(db: Database, folder: Path, days: int, zones: Sequence[str] = ZONES) -> None:
    stage = Stage(db, folder, Clock(BEGIN - timedelta(days=1)))
    with db.write() as tx:
        document = {"id": ACCOUNT, "name": "account1"}
        tx.resources.put(Resource(ACCOUNT, "Microsoft.Storage/storageAccounts", document, parent=""))
    cases = {f"{period}-{zone.partition('/')[2]}": (zone, period) for zone in zones for period in ("PT4H", "P1D")}
    instances = {}
    for name, (zone, period) in cases.items():
        policy = stage.policy(policy_document(WALL_CLOCK.isoformat(), period, zone, ALL_TAGS), f"policy-{name}")
        instances[name] = stage.instance(policy, name)
    counts = await points_kept(stage, instances, days)
    for name, (zone, period) in cases.items():
        assert counts[name] == expected(zone, period, days), name
        # One job for each slot, no more and no fewer, over all changes of clocks and restarts.
        end = BEGIN + timedelta(days=days)
        slots = [s for s in slots_by_the_rules(WALL_CLOCK, 4 if period == "PT4H" else None, ZoneInfo(zone)) if s <= end]
        assert stage.slots(instances[name]) == [f"{slot:%Y%m%dT%H%M%SZ}" for slot in slots]


@pytest.fixture
def fast_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the system has such a place: a year has some 17,000 transactions, each with its sync."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="strongroom-year-", dir=memory) as folder:
        yield Path(folder)


@pytest.mark.parametrize("zone", ZONES)
async def test_on_each_day_of_a_year_the_points_kept_are_those_of_the_rules(
    fast_folder: Path, tmp_path: Path, zone: str
) -> None:
    db = Database.open(f"sqlite:///{fast_folder}/state.sqlite", KEY)
    await _show(db, tmp_path, DAYS, [zone])
    db.close()


async def test_postgres_keeps_the_same_points(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.database() as url:
        db = Database.open(url, KEY)
        await _show(db, tmp_path, 40)
        db.close()
