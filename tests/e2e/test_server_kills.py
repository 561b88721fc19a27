"""Issue 4, Show 4: server, hosted extension and database are killed at every step; every job ends, once, whole.

Each database has one control plane, whose home lives through all tests of this file in their order.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from strongroom.testbed.cluster import Testbed
from strongroom.testbed.postgres import Postgres
from strongroom.testbed.sharing import shared_testbed

from .kills_stage import GOOD, Point, Stage, eventually, staged

OUTAGE_SECONDS = 3
CHILD_DEATHS = 4  # of two jobs, each of which endures five


@pytest.fixture(scope="module")
def cluster(testbeds_folder: Path) -> Iterator[Testbed]:
    """A cluster for this file: two control planes do not share an extension's account."""
    with shared_testbed(testbeds_folder / "kills") as testbed:
        yield testbed


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def stage(
    request: pytest.FixtureRequest, cluster: Testbed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp(str(request.param))
    if request.param == "sqlite":
        with staged(folder, "", cluster) as stage:
            yield stage
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as url, staged(folder, url, cluster) as stage:
        yield stage


def deaths(kind: str, *steps: str) -> list[Point]:
    """Return every place of *steps* at which the server dies, alone or with its children in turn."""
    places = [(kind, step, place) for step in steps for place in ("before", "inside", "ended")]
    places.append((kind, steps[-1], "recorded"))
    return [(*place, ("server", "group")[number % 2]) for number, place in enumerate(places)]


def test_a_backup_outlives_the_death_of_its_server_at_every_step(stage: Stage) -> None:
    through = stage.outlive(deaths("backup", "take", "record"))
    job_id = stage.begin_backup()
    through()
    job = stage.job_ended(job_id)
    assert job["status"] in GOOD, job
    stage.check_all_is_settled()
    stage.check_snapshots()


def test_a_restore_outlives_the_death_of_its_server_at_every_step(stage: Stage) -> None:
    copy = f"{stage.namespace}-restored"
    point = stage.newest_point()
    through = stage.outlive(deaths("restore", "restore", "record"))
    job_id = stage.begin_restore(point, copy)
    through()
    job = stage.job_ended(job_id)
    assert job["status"] in GOOD, job
    stage.check_copy(copy)
    stage.check_all_is_settled()


@pytest.mark.parametrize("action", ["backup", "restore"])
def test_a_request_whose_answer_is_lost_is_carried_out_once(stage: Stage, action: str) -> None:
    point = stage.newest_point()
    before = stage.jobs()
    stage.outlive([("answer", action, "before", "group")])
    job_id = stage.begin_backup() if action == "backup" else stage.begin_restore(point, f"{stage.namespace}-lost")
    assert not stage.planned(), "the server died before it answered"
    assert stage.job_ended(job_id)["status"] in GOOD
    assert stage.jobs() - before == {job_id}
    stage.check_all_is_settled()


def test_jobs_outlive_the_deaths_of_the_extension_at_any_moment(stage: Stage) -> None:
    copy = f"{stage.namespace}-orphan"
    chance = random.Random(4)
    point = stage.newest_point()
    jobs = [stage.begin_backup(), stage.begin_restore(point, copy)]
    deaths = 0
    while deaths < CHILD_DEATHS:
        for pid in eventually("the extension runs", stage.children):
            time.sleep(chance.uniform(0, 0.8))
            os.kill(pid, signal.SIGKILL)
            deaths += 1
            eventually("it is gone", lambda pid=pid: pid not in stage.children())
    for job_id in jobs:
        job = stage.job_ended(job_id)
        assert job["status"] in GOOD, job
    stage.check_copy(copy)
    stage.check_all_is_settled()


@pytest.mark.parametrize("place", ["before", "ended"])
def test_a_cancelled_backup_ends_once_though_its_server_dies(stage: Stage, place: str) -> None:
    """Before anything was committed it ends as cancelled; after that as completed, with its recovery point."""
    hold: Point = ("backup", "take", place, "hold")
    deaths = [("backup", "cancel", "before", "group"), ("backup", "cancel", "ended", "server")]
    through = stage.outlive([*deaths, ("cancel-job", "cancel", "ended", "group")], hold)
    job_id = stage.begin_backup()
    eventually("the backup is where it is held", lambda: list(hold) not in stage.planned())
    answer = stage.arm("POST", f"{stage.vault}/backupJobs/{job_id}/cancel")
    assert answer.status_code == 202, answer.text
    through()
    job = stage.job_ended(job_id)
    assert job["status"] in ({"Cancelled"} if place == "before" else GOOD), job
    assert any(p.caller["job"] == job_id for p in stage.points()) == (place == "ended")
    stage.check_all_is_settled()
    assert stage.get(answer.headers["Azure-AsyncOperation"])["status"] == (
        "Succeeded" if place == "before" else "Failed"
    )
    assert stage.arm("POST", f"{stage.vault}/backupJobs/{job_id}/cancel").status_code == 409


def test_a_backup_that_is_cancelled_at_once_leaves_nothing_half_done(stage: Stage) -> None:
    job_id = stage.begin_backup()
    assert stage.arm("POST", f"{stage.vault}/backupJobs/{job_id}/cancel").status_code == 202
    job = stage.job_ended(job_id)
    assert job["status"] in {"Cancelled", *GOOD}, job
    assert any(p.caller["job"] == job_id for p in stage.points()) == (job["status"] in GOOD)
    stage.check_all_is_settled()
    stage.back_up()


@pytest.mark.parametrize("stage", ["postgres"], indirect=True)
def test_work_goes_on_after_postgresql_was_killed_under_it(stage: Stage, request: pytest.FixtureRequest) -> None:
    server: Postgres = request.getfixturevalue("postgres")
    if not server.killable:
        pytest.skip("PostgreSQL was named by its URL: it is not ours to kill")
    copy = f"{stage.namespace}-outage"
    point = stage.newest_point()
    # Both are at work when their database goes, and ask it for the first time when it is away.
    stage.outlive([], ("backup", "take", "before", "pause"), ("restore", "restore", "before", "pause"))
    jobs = [stage.begin_backup(), stage.begin_restore(point, copy)]
    eventually("both have begun", lambda: not stage.planned())
    began = len(stage.answers)
    with outage(server, stage):
        # For longer than anything here waits before it tries again.
        until = time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < until:
            assert set(stage.ask_all()) == {503}
    assert set(stage.answers[began:]) <= {200, 503}
    for job_id in jobs:
        job = stage.job_ended(job_id)
        assert job["status"] in GOOD, job
    stage.check_copy(copy)
    stage.check_all_is_settled()

    before = stage.jobs()
    with ThreadPoolExecutor(1) as beside:
        with outage(server, stage):
            begun = beside.submit(stage.begin_backup)
            eventually("the request is refused", lambda: stage.answers[-1] == 503)
        job_id = begun.result()
    assert stage.job_ended(job_id)["status"] in GOOD
    assert stage.jobs() - before == {job_id}
    stage.check_all_is_settled()


@contextlib.contextmanager
def outage(server: Postgres, stage: Stage) -> Iterator[None]:
    """Kill PostgreSQL, and start it again when the block ends; return when requests are answered."""
    server.kill()
    try:
        eventually("requests are refused", lambda: stage.ask() == 503, 30)
        yield
    finally:
        server.start()
    eventually("requests are answered", lambda: stage.ask() == 200, 60)


def test_what_expires_goes_though_the_server_dies_at_every_step(stage: Stage) -> None:
    """Eight days on, old points go, and with them their snapshots; one missed slot is made up for."""
    while len(stage.known_points()) < 2:
        stage.back_up()
    before = {point.id: point for point in stage.points()}
    scheduled = stage.jobs()
    (stage.folder / "days").write_text("8")
    through = stage.outlive([*deaths("expire", "expire"), *deaths("prune", "prune")])
    os.kill(stage.lives.pid, signal.SIGKILL)
    assert stage.lives.wait(30) == -signal.SIGKILL
    stage.start()
    through()
    (caught_up,) = stage.jobs() - scheduled
    assert stage.job_ended(caught_up)["status"] in GOOD
    # The newest stays until the backup that makes up for the missed slot is newer.
    newest = max(before.values(), key=lambda point: point.time).id
    eventually("old points go", lambda: stage.known_points() & before.keys() <= {newest})
    stage.check_all_is_settled()
    stage.check_snapshots()
    left = {point.id for point in stage.points()}
    assert len(left - before.keys()) == 1
    for point in before.keys() - left:
        assert not stage.testbed.snapshot_path(before[point].volumes[0].handle).exists()
