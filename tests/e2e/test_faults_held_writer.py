"""A writer that stands still between its last look at the time and its commit, while prunes go over what it needs."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.errors import ExitCode
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.faults import Delay, FaultProxy, Recorded, Rule
from strongroom.testbed.stores import Azurite, azurite

from .faults_stage import Stage, azure_stage, expect_refused, wait

MAX_RUN_SECONDS = 5
PRUNED_SECONDS = 60.0  # three times maxRun and some
HELD_SECONDS = 120.0  # longer than the prunes take; the writer's own patience is 180


@pytest.fixture(scope="module")
def server() -> Iterator[Azurite]:
    with azurite() as server:
        yield server


@pytest.fixture
def proxy(server: Azurite) -> Iterator[FaultProxy]:
    with FaultProxy.for_store(server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def stage(testbed: Testbed, namespace: str, tmp_path: Path, server: Azurite, proxy: FaultProxy) -> Stage:
    stage = azure_stage(testbed, namespace, tmp_path, server, proxy)
    made = stage.ask("repository", "init", "--max-run", f"{MAX_RUN_SECONDS}s")
    assert made.code == 0, made.err
    stage.set_up()
    return stage


def test_a_writer_held_before_its_commit_while_two_prunes_pass_reports_failure_and_its_point_is_void(
    stage: Stage, proxy: FaultProxy
) -> None:
    first = stage.back_up()
    written = time.monotonic()
    stage.change(1)
    held, released = threading.Event(), threading.Event()

    def hold(_: Recorded) -> None:
        # In the proxy's own thread: from here on nothing at all gets through it until the test lets go.
        held.set()
        released.wait(HELD_SECONDS)

    proxy.add(Rule(Delay(0), method="PUT", path="/points/", times=1, on_match=hold))
    writer = stage.begin("point", "create", *stage.selection)
    try:
        while writer.poll() is None and not held.wait(0.02):
            pass
        assert held.is_set(), wait(writer).err
        deleted = stage.ask("point", "delete", first)
        assert deleted.code == 0, deleted.err
        # Younger files are not condemned: before that a prune could find the run's record alone, which nobody needs.
        time.sleep(max(0.0, written + MAX_RUN_SECONDS + 1 - time.monotonic()))
        # The prunes reach the store past the proxy.
        _prune_until(stage, "condemnedFiles")
        _prune_until(stage, "sweptFiles")
    finally:
        released.set()
        ended = wait(writer)
    expect_refused(ended, "CommittedTooLate", "void")
    listed = stage.ask("point", "list")
    assert [point["state"] for point in listed.json] == ["Void"]
    void = listed.json[0]["recoveryPointId"]
    expect_refused(stage.ask("point", "show", void), "NoSuchPoint", "void")
    expect_refused(stage.ask("point", "show", "latest"), "NoSuchPoint")
    kubeconfig = ("--kubeconfig", str(stage.testbed.kubeconfig))
    expect_refused(stage.ask("restore", "plan", "--point", void, *kubeconfig), "NoSuchPoint", "void")
    checked = stage.ask("repository", "check", "--read-data")
    assert (checked.code, checked.json["damage"]) == (ExitCode.WHOLE, [])
    assert any(void in note["recoveryPoints"] or void in note["subject"] for note in checked.json["notes"])
    proxy.clear()
    third = stage.back_up()
    assert stage.saved(third) == stage.live()
    stage.expect_sound()


def test_a_writer_that_outlives_the_longest_run_commits_nothing(stage: Stage, proxy: FaultProxy) -> None:
    first = stage.back_up()
    stage.change(1)
    rule = Rule(Delay(MAX_RUN_SECONDS + 1), method="PUT", path="/index/", times=1)
    proxy.add(rule)
    ended = stage.run("point", "create", *stage.selection)
    assert rule.fired == 1
    expect_refused(ended, "RunTooLong", f"{MAX_RUN_SECONDS} s", "run it again")
    assert not proxy.count("PUT", "/points/.*0002/manifest.json")
    assert stage.points() == {first: "Completed"}
    stage.expect_sound()


def _prune_until(stage: Stage, what: str) -> None:
    """Prune until a prune counts something under *what*."""
    deadline = time.monotonic() + PRUNED_SECONDS
    while True:
        pruned = stage.ask("repository", "prune")
        assert pruned.code == 0, pruned.err
        if pruned.json[what]:
            return
        assert time.monotonic() < deadline, pruned.json
