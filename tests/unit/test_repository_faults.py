"""Crashes, lost messages and prunes at the worst moment: nothing is lost, nothing half-written is believed."""

from datetime import timedelta
from pathlib import Path

import pytest

from strongroom.dataplane.objectstore.port import Key
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.check import check
from strongroom.dataplane.repository.errors import CommittedTooLate, NoSuchPoint
from strongroom.dataplane.repository.journal import write_restore_entry, write_restore_result
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.model import Manifest
from strongroom.dataplane.repository.prune import PointInUse, delete_point, prune
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.restore.journal import Journal
from strongroom.dataplane.restore.model import RestorePlan, RestoreRequest
from strongroom.testbed.builders import back_up, config_map, new_repository
from strongroom.testbed.unreliable import Killed, Lost, UnreliableStore

MAX_RUN = timedelta(seconds=3600)
LONG_AFTER = 3 * MAX_RUN
OBJECTS = [config_map(f"c{n:04}", f"{n} " * 100) for n in range(600)]


def changed(generation: int) -> list[bytes]:
    return [config_map("a", f"generation {generation}"), *OBJECTS]


async def start(tmp_path: Path) -> tuple[UnreliableStore, Repository]:
    store = UnreliableStore(f"faults-{tmp_path}".replace("/", "-"), create=True)
    seconds = int(MAX_RUN.total_seconds())
    return store, await new_repository(store, tmp_path, max_run_seconds=seconds)


async def reopen(store: UnreliableStore, tmp_path: Path) -> tuple[UnreliableStore, Repository]:
    again = UnreliableStore(store.url.removeprefix("memory://"))
    return again, await Repository.open(again, KeyFile.load(tmp_path / "key.json"))


async def expect_whole(repository: Repository, manifest: Manifest) -> None:
    point = await repository.point(manifest.id)
    for entry in point.manifest.kinds:
        async for rows in point.rows(entry):
            await point.blobs([ref for row in rows for ref in (row.body, row.status, row.managed_fields) if ref])


@pytest.mark.parametrize("lost", Lost)
async def test_a_backup_killed_at_any_write_leaves_nothing_that_hurts(tmp_path: Path, lost: Lost) -> None:
    store, repository = await start(tmp_path)
    _, first = await back_up(repository, OBJECTS)
    store.writes = 0
    await back_up(repository, changed(0), pack_bytes=1)
    writes = store.writes
    assert writes >= 4  # run, pack, list, index, manifest
    for write in range(writes):
        store, repository = await reopen(store, tmp_path)
        store.lose(write, lost, then_dead=True)
        with pytest.raises(Killed):
            await back_up(repository, changed(write + 1), pack_bytes=1)
        store, repository = await reopen(store, tmp_path)
        assert (await check(repository, read_data=True)).sound
        await expect_whole(repository, first)
    _, last = await back_up(repository, changed(99))
    store.age(LONG_AFTER)
    assert (await prune(repository)).condemned_files > 0
    store.age(LONG_AFTER)
    assert (await prune(repository)).swept_files > 0
    report = await check(repository, read_data=True)
    assert report.sound
    await expect_whole(repository, first)
    await expect_whole(repository, last)


@pytest.mark.parametrize("folder", [paths.RUNS, paths.PACKS, paths.LISTS, paths.INDEX, paths.POINTS])
@pytest.mark.parametrize("lost", Lost)
async def test_a_lost_message_is_repeated_and_the_point_committed_once(tmp_path: Path, lost: Lost, folder: str) -> None:
    store, repository = await start(tmp_path)
    _, first = await back_up(repository, changed(0))
    store.lose(0, lost, then_dead=False, prefix=folder)
    _, second = await back_up(repository, changed(1))
    assert [p.id for p in await repository.points()] == [first.id, second.id]
    assert (await check(repository, read_data=True)).sound


async def test_prune_removes_what_a_deleted_point_alone_needed(tmp_path: Path) -> None:
    store, repository = await start(tmp_path)
    _, first = await back_up(repository, OBJECTS)
    _, second = await back_up(repository, [config_map("other", "x" * 5_000)])
    await delete_point(repository, first.id)
    assert [p.id for p in await repository.points()] == [second.id]
    with pytest.raises(NoSuchPoint):
        await repository.point(first.id)
    report = await prune(repository)
    assert (report.condemned_files, report.swept_files) == (0, 0)  # too young: a run may count on them
    store.age(LONG_AFTER)
    report = await prune(repository)
    assert report.condemned_files >= 2
    assert report.swept_points == (first.id,)
    store.age(LONG_AFTER)
    report = await prune(repository)
    assert report.swept_files >= 2
    await expect_whole(repository, second)
    report_after = await check(repository, read_data=True)
    assert report_after.sound
    assert not [i.key async for i in store.list(f"{paths.LISTS}{first.run}")]


async def test_a_new_backup_does_not_count_on_condemned_files(tmp_path: Path) -> None:
    store, repository = await start(tmp_path)
    _, first = await back_up(repository, OBJECTS)
    await delete_point(repository, first.id)
    store.age(LONG_AFTER)
    await prune(repository)
    _, second = await back_up(repository, OBJECTS)
    assert not {p for k in second.kinds for s in k.segments for p in s.packs if p.startswith(first.run)}
    store.age(LONG_AFTER)
    await prune(repository)
    await expect_whole(repository, second)


async def test_what_a_running_backup_counts_on_survives_a_prune_beside_it(tmp_path: Path) -> None:
    """The run began before the point it takes over from was condemned, and commits within maxRun."""
    store, repository = await start(tmp_path)
    _, first = await back_up(repository, OBJECTS)

    async def delete_meanwhile(key: Key) -> None:
        if key.startswith(paths.POINTS):
            store.before_put = None
            await delete_point(repository, first.id)
            store.age(MAX_RUN / 2)
            await prune(repository)

    store.before_put = delete_meanwhile
    _, second = await back_up(repository, changed(1))
    assert {p for k in second.kinds for s in k.segments for p in s.packs if p.startswith(first.run)}
    for _ in range(3):
        store.age(LONG_AFTER)
        await prune(repository)
    await expect_whole(repository, second)


async def test_a_writer_stopped_before_its_commit_while_two_prunes_pass_is_void(tmp_path: Path) -> None:
    store, repository = await start(tmp_path)
    _, first = await back_up(repository, OBJECTS)

    async def sleep_for_days(key: Key) -> None:
        if key.startswith(paths.POINTS):
            store.before_put = None
            await delete_point(repository, first.id)
            for _ in range(2):
                store.age(LONG_AFTER)
                await prune(repository)
            store.age(LONG_AFTER)

    store.before_put = sleep_for_days
    with pytest.raises(CommittedTooLate):
        await back_up(repository, changed(1))
    infos = await repository.points()
    assert [i.void for i in infos] == [True]
    with pytest.raises(NoSuchPoint, match="void"):
        await repository.point(infos[0].id)
    with pytest.raises(NoSuchPoint):
        await repository.point("latest")
    assert (await check(repository, read_data=True)).sound  # void is neither a recovery point nor damage
    _, third = await back_up(repository, changed(2))
    await expect_whole(repository, third)
    store.age(LONG_AFTER)
    assert (await prune(repository)).condemned_points == (infos[0].id,)


async def test_two_runs_of_one_writer_chain_one_behind_the_other(tmp_path: Path) -> None:
    store, repository = await start(tmp_path)

    async def overtake(key: Key) -> None:
        if key.startswith(paths.POINTS):
            store.before_put = None
            await back_up(repository, changed(1))

    store.before_put = overtake
    _, manifest = await back_up(repository, changed(2))
    assert manifest.sequence == 2
    assert (await check(repository, read_data=True)).sound


async def test_deleting_waits_for_a_restore_without_a_result(tmp_path: Path) -> None:
    _, repository = await start(tmp_path)
    _, first = await back_up(repository, OBJECTS)
    await write_restore_entry(repository, "restore-1", 0, {"plan": {"point": first.id}})
    with pytest.raises(PointInUse, match="restore-1"):
        await delete_point(repository, first.id)
    await write_restore_result(repository, "restore-1", {"state": "Completed"})
    await delete_point(repository, first.id)


async def test_a_restore_that_never_ends_does_not_keep_a_point_for_ever(tmp_path: Path) -> None:
    store, repository = await start(tmp_path)
    _, first = await back_up(repository, OBJECTS)
    await write_restore_entry(repository, "restore-1", 0, {"plan": {"point": first.id}})
    store.age(timedelta(days=8))
    await delete_point(repository, first.id)


async def test_the_journal_of_a_real_restore_holds_its_point(tmp_path: Path) -> None:
    """What the restore component writes is what deletion reads."""
    _, repository = await start(tmp_path)
    _, manifest = await back_up(repository, OBJECTS)
    plan = RestorePlan(
        id="0123456789abcdef", point=manifest.id, target=manifest.cluster, request=RestoreRequest(), waves=()
    )
    await Journal.begin(repository, "fedcba9876543210", plan)
    with pytest.raises(PointInUse, match="fedcba9876543210"):
        await delete_point(repository, manifest.id)
