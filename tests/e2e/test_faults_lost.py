"""Messages between a backup and its store that are lost, on the way there or back: the backup succeeds all the same."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.errors import ExitCode
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.faults import Action, CutBody, Delay, DropReply, DropRequest, FaultProxy, Recorded, Rule
from strongroom.testbed.stores import Azurite, azurite

from .faults_stage import Stage, azure_stage, expect_refused


class EveryFirstAttempt(Rule):
    """Takes every request of *method* the first time, the third, and so on: what is repeated at once gets through."""

    def __init__(self, action: Action, method: str) -> None:
        super().__init__(action, method=method)
        self.attempts: Counter[str] = Counter()

    def takes(self, method: str, target: str) -> bool:
        if method != self.method:
            return False
        self.attempts[target] += 1
        fires = self.attempts[target] % 2 == 1
        self.fired += fires
        return fires


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
    made = stage.ask("repository", "init")
    assert made.code == 0, made.err
    stage.set_up()
    return stage


LOST = pytest.mark.parametrize("lost", [DropRequest(), DropReply()], ids=["request", "reply"])


@LOST
def test_a_backup_of_which_every_write_is_lost_once_commits_once(stage: Stage, proxy: FaultProxy, lost: Action) -> None:
    rule = EveryFirstAttempt(lost, "PUT")
    proxy.add(rule)
    point = stage.back_up()
    assert {target.split("/")[3] for target in rule.attempts} == {"runs", "packs", "lists", "index", "points"}
    assert min(rule.attempts.values()) >= 2, "each was repeated"
    assert stage.points() == {point: "Completed"}
    stage.expect_sound()
    assert stage.saved(point) == stage.live()


@LOST
def test_a_backup_of_which_every_read_is_lost_once_succeeds(stage: Stage, proxy: FaultProxy, lost: Action) -> None:
    first = stage.back_up()
    stage.change(1)
    rule = EveryFirstAttempt(lost, "GET")
    proxy.add(rule)
    second = stage.back_up()
    assert len(rule.attempts) >= 10, "configuration, keys, records, and the earlier point's manifest and lists"
    assert min(rule.attempts.values()) >= 2, "each was repeated"
    assert list(stage.points()) == [first, second]
    stage.expect_sound()
    assert stage.saved(second) == stage.live()


def test_a_backup_ends_whole_or_without_a_point_when_its_last_read_is_cut_short(
    stage: Stage, proxy: FaultProxy
) -> None:
    """The look at `swept/` after the commit: the point is there and whole, whether or not the process could say so."""
    committed: list[Recorded] = []
    cut = Rule(CutBody(10), method="GET", path="prefix=swept")
    proxy.add(
        Rule(Delay(0), method="PUT", path="/points/", on_match=lambda put: (committed.append(put), proxy.add(cut)))
    )
    ended = stage.run("point", "create", *stage.selection)
    assert cut.fired
    if ended.code != ExitCode.WHOLE:
        expect_refused(ended, "StoreUnavailable")
    point = committed[0].path.split("/")[-2]
    assert stage.points() == {point: "Completed"}
    stage.expect_sound()
    assert stage.saved(point) == stage.live()
    proxy.clear()
    stage.change(1)
    assert stage.saved(stage.back_up()) == stage.live()
