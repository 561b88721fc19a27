"""A backup that is killed at any of its writes: nothing that was there is lost, and nothing stays in the way.

`strongroom point create` runs as a process of its own against Azurite. A proxy holds one write, the test sends SIGKILL.
"""

import asyncio
import re
import signal
import threading
import time
from collections.abc import Iterator
from enum import Enum
from itertools import count
from pathlib import Path

import pytest

from strongroom.dataplane.objectstore.opening import open_store
from strongroom.errors import ExitCode
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.faults import DropReply, FaultProxy, Hang, Recorded, Rule
from strongroom.testbed.stores import Azurite, azurite

from .faults_stage import Ended, Stage, azure_stage, wait

MAX_RUN_SECONDS = 5  # ten times what one of these runs takes; prune waits twice as long
POLL_SECONDS = 0.02  # how often we look whether the process ended by itself
PRUNED_SECONDS = 60.0  # three times maxRun and some


class When(Enum):
    """Where the write is when the process dies."""

    ON_ITS_WAY = "before the store has it"
    STORED = "after the store has it"


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


@pytest.mark.parametrize("when", When)
def test_a_backup_killed_at_any_of_its_writes_costs_nothing_and_leaves_nothing(
    stage: Stage, proxy: FaultProxy, when: When
) -> None:
    first = stage.back_up()
    saved = {first: stage.saved(first)}
    assert saved[first] == stage.live()
    kinds, dead = set(), set()
    for write in count():
        stage.change(write)
        held, ended = _kill_at(stage, proxy, write, when, "point", "create", *stage.selection)
        if held is None:
            break  # it has no write of that number: this is the next backup, and it succeeded
        kinds.add(held.path.split("/")[3])
        points = stage.points()
        committed = when is When.STORED and held.path.endswith("/manifest.json")
        assert points.keys() - saved.keys() == ({held.path.split("/")[-2]} if committed else set()), held
        assert set(points.values()) == {"Completed"}
        if committed:
            # The process died before it knew, and the point is whole all the same.
            saved |= {point: stage.live() for point in points.keys() - saved.keys()}
        else:
            dead |= _runs(proxy)
        stage.expect_sound()
    proxy.clear()
    assert kinds == {"runs", "packs", "lists", "index", "points"}
    last = str(ended.json["recoveryPointId"])
    saved[last] = stage.live()
    _prune_until_gone(stage, dead)
    stage.expect_sound()
    assert stage.points().keys() == saved.keys()
    assert len(saved) == (3 if when is When.STORED else 2)
    for point, objects in saved.items():
        assert stage.saved(point) == objects
    if when is When.STORED:
        _expect_restorable(stage, first)


def _kill_at(stage: Stage, proxy: FaultProxy, write: int, when: When, *command: str) -> tuple[Recorded | None, Ended]:
    """Run *command*, kill it at its write number *write*, and return that request: None if it has not so many."""
    proxy.clear()
    reached = threading.Event()
    hit: list[Recorded] = []

    def hold_repetition(request: Recorded) -> None:
        # A client that is still there repeats a create whose reply was lost: then the store has the first for sure.
        hit.append(request)
        again = Rule(Hang(), method="PUT", path=re.escape(request.path), on_match=lambda _: reached.set())
        proxy.add(again)

    def hold(request: Recorded) -> None:
        hit.append(request)
        reached.set()

    if when is When.STORED:
        proxy.add(Rule(DropReply(), method="PUT", skip=write, times=1, on_match=hold_repetition))
    else:
        proxy.add(Rule(Hang(), method="PUT", skip=write, on_match=hold))
    process = stage.begin(*command)
    while process.poll() is None and not reached.wait(POLL_SECONDS):
        pass
    process.send_signal(signal.SIGKILL)
    ended = wait(process)
    assert ended.code == (-signal.SIGKILL if hit else 0), ended
    return (hit[0] if hit else None), ended


def _runs(proxy: FaultProxy) -> set[str]:
    """Return the ids of the runs whose writes the proxy has seen since it was cleared."""
    puts = (request.path for request in proxy.requests if request.method == "PUT")
    keys = (re.search(r"/(?:runs|packs|lists|index)/([0-9a-f]{16})[.-]", path) for path in puts)
    return {key[1] for key in keys if key}


def _prune_until_gone(stage: Stage, runs: set[str]) -> None:
    """Prune until no file of the dead *runs* is left in the store."""
    deadline = time.monotonic() + PRUNED_SECONDS
    while left := [key for key in _keys(stage) if any(run in key for run in runs)]:
        assert time.monotonic() < deadline, left
        pruned = stage.ask("repository", "prune")
        assert pruned.code == 0, pruned.err


def _keys(stage: Stage) -> list[str]:
    async def listed() -> list[str]:
        store = await open_store(stage.direct)
        try:
            return [info.key async for info in store.list("")]
        finally:
            await store.close()

    with pytest.MonkeyPatch.context() as patch:
        for name, value in stage.environment.items():
            patch.setenv(name, value)
        return asyncio.run(listed())


def _expect_restorable(stage: Stage, point: str) -> None:
    """Restore *point* into another namespace, and find there what it was made of."""
    target = f"{stage.namespace[:50]}-back"
    arguments = ("--point", point, "--include-namespace", stage.namespace, "--map-namespace")
    cluster = ("--kubeconfig", str(stage.testbed.kubeconfig))
    try:
        restored = stage.run("restore", "apply", *arguments, f"{stage.namespace}={target}", *cluster)
        assert restored.code == ExitCode.WHOLE, restored
        there = Stage(stage.testbed, target, stage.url, stage.direct).live()
        for name, served in stage.saved(point).items():
            if name != "ConfigMap/kube-root-ca.crt":  # the cluster makes its own
                assert there[name].get("data") == served.get("data")
    finally:
        stage.testbed.kubectl("delete", "namespace", target, "--wait=false", "--ignore-not-found")


def test_an_init_killed_after_any_of_its_writes_is_repeated_as_if_nothing_had_been(
    testbed: Testbed, tmp_path: Path, server: Azurite, proxy: FaultProxy
) -> None:
    """Its writes follow one another, so dying after one is dying before the next."""
    stage = azure_stage(testbed, "default", tmp_path, server, proxy)
    for write in count():
        held, _ = _kill_at(stage, proxy, write, When.STORED, "repository", "init")
        assert held is not None, "the last write is repository.json"
        if held.path.endswith("/repository.json"):
            break  # the repository is there, though nobody was there to be told
    proxy.clear()
    # What the dead ones left is told, and hurts nobody.
    notes = stage.ask("repository", "check").json["notes"]
    assert [note for note in notes if note["subject"].startswith("keys/")]
    point = stage.back_up()
    assert stage.points() == {point: "Completed"}
    stage.expect_sound()
