"""The journal of a restore: what a later process can know of an earlier one."""

from pathlib import Path

import pytest

from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.repository.model import ClusterIdentity, PointId
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.restore import journal as journals
from strongroom.dataplane.restore.errors import NoSuchRestore, RestoreTakenOver
from strongroom.dataplane.restore.journal import Journal, Outcome, finished
from strongroom.dataplane.restore.model import (
    Action,
    Done,
    PlannedObject,
    RestorePlan,
    RestoreRequest,
    RestoreResult,
    RestoreState,
    Wave,
)
from strongroom.testbed.builders import new_repository

ID = "0123456789abcdef"


def planned(number: int, action: Action = Action.CREATE) -> PlannedObject:
    name = f"c{number}"
    return PlannedObject(
        number=number,
        group="",
        version="v1",
        kind="ConfigMap",
        plural="configmaps",
        namespaced=True,
        source_name=name,
        name=name,
        action=action,
    )


PLAN = RestorePlan(
    id="fedcba9876543210",
    point=PointId("0123456789abcdef-0000000000000001"),
    target=ClusterIdentity(id="c", server="s", version="v"),
    request=RestoreRequest(),
    waves=(
        Wave(name="first", objects=tuple(planned(number) for number in range(5))),
        Wave(name="second", objects=(planned(5),)),
    ),
    skipped=(planned(6, Action.SKIP),),
)


@pytest.fixture(params=[True, False], ids=["encrypted", "plain"])
async def repo(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    store = MemoryStore(request.node.name, create=True)
    return await new_repository(store, tmp_path, encryption=request.param)


@pytest.mark.parametrize("part", [1, 2, 5, 100])
async def test_a_plan_comes_back_whole_from_its_parts(
    repo: Repository, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "PART_OBJECTS", part)
    await Journal.begin(repo, ID, PLAN)
    _, plan = await Journal.resume(repo, ID)
    assert plan == PLAN


async def test_what_was_intended_and_has_no_result_is_known_to_the_next_process(repo: Repository) -> None:
    first = await Journal.begin(repo, ID, PLAN)
    await first.intend([0, 1, 2])
    await first.record([Outcome(0, Done.CREATED, "uid-0"), Outcome(2, Done.FAILED, "", "no")])
    await first.intend([3])
    second, _ = await Journal.resume(repo, ID)
    assert second.intended == {1, 3}
    assert second.outcomes[0].uid == "uid-0"
    assert second.outcomes[2].reason == "no"


async def test_a_journal_that_broke_off_before_its_plan_was_whole_began_nothing(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(repo, ID)
    await journal._append(journals._Entry(process="p", plan=PLAN))
    with pytest.raises(NoSuchRestore):
        await Journal.resume(repo, ID)


async def test_a_second_process_on_the_same_restore_is_found_out(repo: Repository) -> None:
    first = await Journal.begin(repo, ID, PLAN)
    with pytest.raises(RestoreTakenOver):
        await Journal.begin(repo, ID, PLAN)
    second, _ = await Journal.resume(repo, ID)
    await second.intend([0])
    with pytest.raises(RestoreTakenOver):
        await first.intend([0])


async def test_a_result_ends_a_restore_and_can_be_read_again(repo: Repository) -> None:
    journal = await Journal.begin(repo, ID, PLAN)
    assert await finished(repo, ID) is None
    result = RestoreResult(
        restore_id=ID, state=RestoreState.COMPLETED, created=6, patched=0, skipped=1, failed=0, objects=()
    )
    await journal.close(result)
    assert await finished(repo, ID) == result
