"""Points that expire, instances that are purged, containers that are pruned and compared: on real repositories."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from strongroom.controlplane.catalog.points import list_points
from strongroom.controlplane.catalog.pruning import delete_point, prune
from strongroom.controlplane.scheduler.housekeeping import Housekeeper
from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.operations import LongOperation, OperationStatus
from strongroom.controlplane.state.points import DELETING, KEPT
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import stamp
from strongroom.controlplane.workflows.engine import WorkflowState
from strongroom.controlplane.workflows.expiring import INSTANCE_PURGED, POINT_DELETED, POINT_NOT_DELETED, Expiring
from strongroom.controlplane.workflows.memory_engine import MemoryEngine
from strongroom.controlplane.workflows.pointdocs import store_points
from strongroom.controlplane.workflows.protecting import DELETED
from strongroom.controlplane.workflows.syncing import SYNC, Syncing
from strongroom.controlplane.workflows.writers import WRITER
from strongroom.dataplane.repository.journal import write_restore_entry
from strongroom.dataplane.repository.model import Instant, Manifest, VolumeEntry, VolumeState
from strongroom.protection.instance import ProtectionState
from strongroom.testbed.builders import back_up, config_map

from .scheduler_stage import ACCOUNT, CLUSTER, PLACE, VAULT, Stage

KEY = bytes(32)
SNAPSHOT = VolumeEntry(
    namespace="shop", claim="data", claim_uid="u", driver="csi.test", state=VolumeState.SNAPSHOT_READY, handle="h1"
)


class Home(Stage):
    """A stage whose points are real, in a local account."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.engine = MemoryEngine()
        for kind, body in {**Expiring(self.services).bodies(), **Syncing(self.services).bodies()}.items():
            self.engine.register(kind, body)
        self.housekeeper = Housekeeper(self.services, lambda: None)
        account = {"id": ACCOUNT, "name": "account1"}
        with self.db.write() as tx:
            tx.resources.put(Resource(ACCOUNT, "Microsoft.Storage/storageAccounts", account, parent=""))

    async def back_up(
        self, instance: Resource, retention: str = "P7D", *, known: bool = True, volumes: tuple[VolumeEntry, ...] = ()
    ) -> Manifest:
        caller = {"instance": instance.id, "retention": retention, "dataSource": CLUSTER, "tag": "Default"}
        taken = Instant(revision="7", taken=stamp(self.clock()))
        async with self.services.containers.repository(PLACE) as repository:
            objects = [config_map("a", stamp(self.clock()))]
            _, manifest = await back_up(repository, objects, caller=caller, instant=taken, volumes=volumes)
        with self.db.write() as tx:
            tx.secrets.put(WRITER + manifest.writer, json.dumps([CLUSTER.lower()]).encode())
            if known:
                store_points(tx, instance.id, PLACE, [manifest])
        return manifest

    async def keep_house(self) -> list[WorkflowState]:
        """Have the hour's round, carry out what it asked for; return how each work ended."""
        await self.housekeeper.look()
        return await self.work()

    async def work(self) -> list[WorkflowState]:
        with self.db.write() as tx:
            works = tx.outbox.waiting()
            for work in works:
                tx.outbox.done(work.id)
        for work in works:
            await self.engine.start(work.kind, work.id, key=work.key)
        async with asyncio.timeout(60):
            while not all([(await self.engine.state(work.id)).finished for work in works]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return [await self.engine.state(work.id) for work in works]

    async def in_container(self) -> set[str]:
        async with self.services.containers.repository(PLACE) as repository:
            return {point.id for point in (await list_points(repository)).points}

    def known(self, instance: Resource, state: str = KEPT) -> list[str]:
        with self.db.read() as tx:
            return [point.id for point in tx.points.of_instance(instance.id, states=(state,))]

    def events(self, event: str) -> list[dict[str, str]]:
        with self.db.read() as tx:
            return [e for e in tx.audit.newest(1000) if e["event"] == event]

    def soft_delete(self, instance: Resource, *, days: float) -> str:
        """Move an instance to the deleted ones, as the body `delete-instance` does."""
        identifier = instance.id.replace("/backupInstances/", "/deletedBackupInstances/")
        purge = stamp(self.clock() + timedelta(days=days))
        properties = {**instance.properties, "deletionInfo": {"scheduledPurgeTime": purge}}
        document = {**instance.doc, "id": identifier, "type": DELETED, "properties": properties}
        with self.db.write() as tx:
            tx.resources.delete(instance.id)
            tx.schedules.clear(instance.id)
            tx.resources.put(Resource(identifier, DELETED, document, VAULT, {"instance": instance.id}))
        return identifier


@pytest.fixture
async def home(tmp_path: Path) -> Home:
    home = Home(Database.open(f"sqlite:///{tmp_path}/state.sqlite", KEY), tmp_path)
    await home.engine.launch()
    return home


@pytest.fixture(autouse=True)
def closed(home: Home) -> Iterator[None]:
    yield
    home.db.close()


async def test_points_go_when_their_time_is_over_but_never_the_newest(home: Home) -> None:
    instance = home.instance(home.policy())
    first = await home.back_up(instance)
    home.clock.forward(days=1)
    long_kept = await home.back_up(instance, "P30D")
    home.clock.forward(days=1)
    newest = await home.back_up(instance)
    home.clock.forward(days=4, hours=23)
    await home.keep_house()
    assert len(home.known(instance)) == 3
    home.clock.forward(hours=2)
    await home.keep_house()
    assert set(home.known(instance)) == await home.in_container() == {long_kept.id, newest.id}
    home.clock.forward(days=60)
    await home.keep_house()
    assert set(home.known(instance)) == await home.in_container() == {newest.id}
    scopes = [event["scope"].rpartition("/")[2] for event in home.events(POINT_DELETED)]
    assert sorted(scopes) == sorted([first.id, long_kept.id])


async def test_points_of_a_stopped_instance_are_kept_for_ever_and_of_a_suspended_one_not(home: Home) -> None:
    instance = home.instance(home.policy())
    for _ in range(2):
        await home.back_up(instance)
        home.clock.forward(hours=1)
    home.into(instance, ProtectionState.STOPPED)
    home.clock.forward(days=400)
    await home.keep_house()
    assert len(home.known(instance)) == 2
    home.into(instance, ProtectionState.SUSPENDED)
    home.clock.forward(hours=1)
    await home.keep_house()
    assert len(home.known(instance)) == len(await home.in_container()) == 1


async def test_snapshots_without_a_cluster_stay_listed_with_their_reason_until_they_are_gone(home: Home) -> None:
    instance = home.instance(home.policy())
    gone = await home.back_up(instance, volumes=(SNAPSHOT,))
    home.clock.forward(hours=1)
    await home.back_up(instance)
    home.clock.forward(days=8)
    await home.keep_house()
    assert gone.id not in home.known(instance)
    assert gone.id not in await home.in_container()
    assert home.known(instance, DELETING) == [gone.id]
    with home.db.read() as tx:
        (point,) = tx.points.in_state(DELETING)
    (left,) = point.private["notDeleted"]
    assert left == {
        "namespace": "shop",
        "claim": "data",
        "driver": "csi.test",
        "handle": "h1",
        "reason": "no cluster to delete it through is connected",
    }
    home.clock.forward(days=1)
    await home.keep_house()
    assert home.known(instance, DELETING) == [gone.id]
    # Somebody removed the snapshot by hand and told the repository so: the next prune forgets the row.
    async with home.services.containers.repository(PLACE) as repository:

        async def delete(_: str, volumes: object) -> dict[str, str]:
            return {}

        await prune(repository, delete_volumes=delete)
    home.clock.forward(days=1)
    await home.keep_house()
    assert home.known(instance, DELETING) == []


async def test_a_point_that_a_restore_reads_waits(home: Home) -> None:
    instance = home.instance(home.policy())
    read = await home.back_up(instance)
    home.clock.forward(hours=1)
    await home.back_up(instance)
    async with home.services.containers.repository(PLACE) as repository:
        await write_restore_entry(repository, "restore-1", 0, {"plan": {"point": read.id}})
    home.clock.forward(days=9)
    assert set(await home.keep_house()) == {WorkflowState.SUCCEEDED}
    assert read.id in home.known(instance)
    assert read.id in await home.in_container()


async def test_when_the_store_fails_nothing_is_forgotten_and_the_next_hour_tries_again(home: Home) -> None:
    instance = home.instance(home.policy())
    for _ in range(2):
        await home.back_up(instance)
        home.clock.forward(hours=1)
    home.clock.forward(days=9)
    storage = home.folder / "storage"
    storage.rename(home.folder / "away")
    storage.write_text("not a folder")
    await home.keep_house()
    assert len(home.known(instance)) == 2
    assert home.events(POINT_NOT_DELETED)[0]["outcome"] == "Failed"
    storage.unlink()
    (home.folder / "away").rename(storage)
    home.clock.forward(hours=1)
    await home.keep_house()
    assert len(home.known(instance)) == 1


async def test_a_soft_deleted_instance_keeps_its_points_until_its_purge_and_nothing_after(home: Home) -> None:
    instance, other = home.instance(home.policy()), home.instance(home.policy(), "other")
    for _ in range(2):
        await home.back_up(instance)
        home.clock.forward(hours=1)
    stays = await home.back_up(other, "P90D")
    deleted = home.soft_delete(instance, days=14)
    home.clock.forward(days=13)
    await home.keep_house()
    assert len(home.known(instance)) == 2
    home.clock.forward(days=1, hours=1)
    await home.keep_house()
    assert home.known(instance) == []
    assert await home.in_container() == {stays.id}
    with home.db.read() as tx:
        assert tx.resources.get(deleted) is None
    assert [event["scope"] for event in home.events(INSTANCE_PURGED)] == [instance.id]


async def test_a_purge_whose_store_is_away_is_ended_later(home: Home) -> None:
    instance = home.instance(home.policy())
    await home.back_up(instance)
    deleted = home.soft_delete(instance, days=0)
    storage = home.folder / "storage"
    storage.rename(home.folder / "away")
    storage.write_text("not a folder")
    await home.keep_house()
    with home.db.read() as tx:
        found = tx.resources.get(deleted)
    assert found is not None
    assert found.private["purging"] is True
    storage.unlink()
    (home.folder / "away").rename(storage)
    home.clock.forward(hours=1)
    await home.keep_house()
    with home.db.read() as tx:
        assert tx.resources.get(deleted) is None
    assert await home.in_container() == set()


async def test_a_purge_forgets_points_whose_account_was_deleted_and_says_so(home: Home) -> None:
    instance = home.instance(home.policy())
    point = await home.back_up(instance)
    deleted = home.soft_delete(instance, days=0)
    with home.db.write() as tx:
        tx.resources.delete(ACCOUNT)
    await home.keep_house()
    with home.db.read() as tx:
        assert tx.resources.get(deleted) is None
    assert home.known(instance) == []
    (event,) = home.events(POINT_NOT_DELETED)
    assert event["scope"].endswith(point.id)
    assert ACCOUNT in event["detail"]


async def test_a_round_is_asked_for_once_an_hour_and_a_prune_once_a_day(home: Home) -> None:
    await home.back_up(home.instance(home.policy()))
    assert len(await home.keep_house()) == 1
    assert await home.keep_house() == []
    home.clock.forward(hours=1)
    assert await home.keep_house() == []
    home.clock.forward(days=1)
    assert len(await home.keep_house()) == 1
    # A process that starts anew asks again, and the engine knows the work already.
    home.housekeeper = Housekeeper(home.services, lambda: None)
    assert await home.keep_house() == [WorkflowState.SUCCEEDED]


async def test_old_operations_and_events_are_forgotten(home: Home) -> None:
    with home.db.write() as tx:
        for name, age in (("old", 8), ("new", 1)):
            ended = LongOperation(name, "x", VAULT, OperationStatus.RUNNING, stamp(home.clock() - timedelta(days=age)))
            tx.operations.add(replace(ended, ended=ended.started))
    await home.keep_house()
    with home.db.read() as tx:
        assert tx.operations.get("old") is None
        assert tx.operations.get("new") is not None


async def _sync(home: Home, instance: Resource) -> LongOperation:
    operation = LongOperation("sync1", SYNC, instance.id, OperationStatus.RUNNING, stamp(home.clock()))
    with home.db.write() as tx:
        tx.operations.add(operation)
        tx.outbox.add(SYNC, operation.id, instance.id)
    await home.work()
    with home.db.read() as tx:
        found = tx.operations.get(operation.id)
    assert found is not None
    return found


async def test_sync_makes_new_points_known_and_takes_away_what_is_gone(home: Home) -> None:
    instance, other = home.instance(home.policy()), home.instance(home.policy(), "other")
    stays = await home.back_up(instance)
    new = await home.back_up(instance, known=False)
    foreign = await home.back_up(other, known=False)
    deleted, lost = await home.back_up(instance), await home.back_up(instance)
    async with home.services.containers.repository(PLACE) as repository:
        await delete_point(repository, deleted.id)
    manifests = list((home.folder / "storage" / "account1" / "backups").rglob(f"*{lost.id}*/manifest.json"))
    assert manifests
    for path in manifests:
        path.unlink()
    assert (await _sync(home, instance)).status is OperationStatus.SUCCEEDED
    assert set(home.known(instance)) == {stays.id, new.id}
    assert home.known(instance, DELETING) == [deleted.id]
    assert home.known(other) == []
    assert foreign.id in await home.in_container()
    assert [e["scope"].rpartition("/")[2] for e in home.events("RecoveryPointLost")] == [lost.id]


async def test_sync_ends_with_the_reason_when_the_container_does_not_answer(home: Home) -> None:
    instance = home.instance(home.policy())
    await home.back_up(instance)
    with home.db.write() as tx:
        tx.resources.delete(ACCOUNT)
    ended = await _sync(home, instance)
    assert ended.status is OperationStatus.FAILED
    assert ACCOUNT in ended.error["message"]
    assert len(home.known(instance)) == 1
