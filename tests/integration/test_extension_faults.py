"""A watching extension whose process, lease, API server or store goes away in mid-run: it ends right or says why.

Each time another backup and restore go through afterwards, and no CSI snapshot is left that no manifest names.
"""

import asyncio
import itertools
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.testbed.cluster import Testbed
from strongroom.testbed.components import VOLUME_COMPONENTS
from strongroom.testbed.faults import FaultProxy
from strongroom.testbed.faults_rules import DropRequest, Rule
from strongroom.testbed.sharing import shared_testbed
from strongroom.testbed.stores import moto

from .extension_stage import OWN_NAMESPACE, claim, config_map, eventually, get, put, volume_folder
from .watching_stage import FINAL, Life, WatchStage, backup_spec, restore_spec, until_logged

SWEEPING_DAYS = 3  # later than twice the longest run: what dead runs left may be swept
AWAY_SECONDS = 60  # as issue 5 asks; less than what ends a lease, more than the retries of any one request
LOOK_SECONDS = 0.1  # between two looks by kubectl, each of which takes as long


@pytest.fixture(scope="module")
def cluster(testbeds_folder: Path) -> Iterator[Testbed]:
    """A cluster of this file's own: it is stopped, and definitions stand for the whole cluster."""
    with shared_testbed(testbeds_folder / "extension-faults") as testbed:
        testbed.kubectl("create", "namespace", "shop")
        put(testbed, "shop", config_map("settings", colour="blue"), claim("data"))
        yield testbed


@pytest.fixture
async def stage(cluster: Testbed, tmp_path: Path) -> AsyncIterator[WatchStage]:
    built = await WatchStage.build(cluster, tmp_path)
    (await volume_folder(cluster, "shop", "data") / "file").write_bytes(b"precious")
    yield built
    built.stop(signal.SIGKILL)


async def settled(stage: WatchStage, before: set[str], *, made: int) -> None:
    """Check that the next backup and restore go through, and that *made* points and their snapshots are all there is.

    *before* is what the storage held when the test began.
    """
    cluster = stage.testbed
    stage.stop()
    with stage.running(days=SWEEPING_DAYS):
        after = await stage.back_up("after", "shop")
        assert (after["phase"], after["volumes"]) == ("Completed", {"ready": 1}), after
        await restored(stage, after["recoveryPointId"])

        async def swept() -> bool:
            await asyncio.sleep(0)
            return not (volume_objects(cluster) or snapshots_of(cluster) - before - await owned(stage))

        try:
            await eventually(swept, 90)
        except AssertionError as error:
            error.add_note(f"left: {volume_objects(cluster)}, {snapshots_of(cluster) - before}\n{stage.log()[-6000:]}")
            raise
        assert await owned(stage) == snapshots_of(cluster) - before, "no snapshot of a point was lost"
    assert len(await stage.callers()) == made + 1
    intents = get(cluster, "configmaps", "-n", OWN_NAMESPACE)["items"]
    assert not [each for each in intents if each["metadata"]["name"].startswith("freeze-")]


async def restored(stage: WatchStage, point: str) -> None:
    """Check that a restore of *point* goes through."""
    target = f"shop-{uuid.uuid4().hex[:8]}"
    stage.apply("Restore", target, restore_spec(point, "shop", target))
    await came_back(stage, target)


async def came_back(stage: WatchStage, target: str) -> None:
    """Check that the Restore *target* into the namespace of its name ends with everything there once."""
    cluster = stage.testbed
    status = await stage.ended("restore", target, 120)
    assert (status["phase"], status.get("counts", {}).get("failed", 0)) == ("Completed", 0), status
    assert get(cluster, "configmap", "settings", "-n", target)["data"] == {"colour": "blue"}
    assert (await volume_folder(cluster, target, "data") / "file").read_bytes() == b"precious"
    volumes = [each for each in get(cluster, "pv")["items"] if each["spec"]["claimRef"]["namespace"] == target]
    assert len(volumes) == 1
    cluster.kubectl("delete", "namespace", target, "--wait=false")


def snapshots_of(cluster: Testbed) -> set[str]:
    """Return the handles of all snapshots on the storage."""
    return {path.name for path in cluster.snapshot_path("x").parent.glob("*/")}


def volume_objects(cluster: Testbed) -> list[Any]:
    kinds = (("volumesnapshots", "-A"), ("volumesnapshotcontents",))
    return [each for words in kinds for each in get(cluster, *words).get("items", [])]


async def owned(stage: WatchStage) -> set[str]:
    """Return the handles of all snapshots that a manifest names."""
    return {volume.handle for manifest in await stage.manifests() for volume in manifest.volumes}


async def dying(stage: WatchStage, kind: str, name: str) -> int:
    """Let one process after the other die, each at a step where none died before; return how many did.

    The last one brings the resource to its end, and lives.
    """
    stage.doom(".", "each")
    for deaths in itertools.count():
        life = stage.start()

        async def over(life: Life = life) -> bool:
            await asyncio.sleep(LOOK_SECONDS)
            return life.poll() is not None or stage.get(kind, name).get("status", {}).get("phase") in FINAL

        await eventually(over, 120)
        if life.poll() is None:
            stage.stop()
            stage.fate.unlink()
            return deaths
        stage.processes.remove(life)
        assert life.poll() == -signal.SIGKILL, stage.log()[-3000:]
    raise AssertionError("the steps of a run have an end")


def steps(stage: WatchStage) -> set[str]:
    """Return the writes at which processes died."""
    return {line.partition(" ")[2] for line in stage.fate.with_name("fate.steps").read_text().splitlines()}


async def test_killed_at_each_step_a_backup_ends_right_and_once(stage: WatchStage, cluster: Testbed) -> None:
    before = snapshots_of(cluster)
    with stage.running():
        await stage.locate()
    # From the commit on a next process finds the point: the steps after it need backups of their own to die at.
    names: list[str] = []
    deaths = 1
    while deaths:
        names.append(f"backup-{len(names)}")
        put(cluster, "shop", config_map("changing", number=names[-1]))  # or there would be no pack to write
        stage.apply("Backup", names[-1], backup_spec("shop"))
        deaths = await dying(stage, "backup", names[-1])
        status = stage.get("backup", names[-1])["status"]
        assert (status["phase"], status["volumes"]) == ("Completed", {"ready": 1}), status
    assert "store points/*-*/manifest.json" in steps(stage)
    assert sorted(each["job"] for each in await stage.callers()) == sorted(names)
    await settled(stage, before, made=len(names))


async def test_killed_at_each_step_a_restore_ends_right_and_once(stage: WatchStage, cluster: Testbed) -> None:
    before = snapshots_of(cluster)
    with stage.running():
        await stage.locate()
        point = (await stage.back_up("one", "shop"))["recoveryPointId"]
    deaths = 1
    while deaths:
        target = f"shop-{uuid.uuid4().hex[:8]}"
        stage.apply("Restore", target, restore_spec(point, "shop", target))
        deaths = await dying(stage, "restore", target)
        await came_back(stage, target)
    assert {"store restores/*/journal/*", "store restores/*/result"} <= steps(stage)
    await settled(stage, before, made=1)


async def test_a_lease_deleted_in_mid_run_gives_the_work_to_another_and_makes_one_point(
    stage: WatchStage, cluster: Testbed
) -> None:
    before = snapshots_of(cluster)
    with stage.running():
        await stage.locate()
        stage.start()
        await until_logged(stage, "waiting for the lease")
        put(cluster, "shop", config_map("changing", number="lease"))
        stage.doom("store packs/", "pause")
        stage.apply("Backup", "one", backup_spec("shop"))
        await stage.paused()
        stage.kubectl("delete", "lease", "strongroom-extension")
        status = await stage.ended("backup", "one", 120)
        assert (status["phase"], status["volumes"]) == ("Completed", {"ready": 1}), status
        stage.go_on()
        await until_logged(stage, "lease lost")
        # Alone, a process whose lease is deleted in mid-run keeps it.
        stage.stop()
        stage.start()
        stage.doom("store packs/", "pause")
        put(cluster, "shop", config_map("changing", number="alone"))
        stage.apply("Backup", "two", backup_spec("shop"))
        await stage.paused()
        stage.kubectl("delete", "lease", "strongroom-extension")
        stage.go_on()
        assert (await stage.ended("backup", "two", 120))["phase"] == "Completed"
    assert [each["job"] for each in await stage.callers()] == ["one", "two"]
    await settled(stage, before, made=2)


async def test_an_api_server_away_for_a_minute_in_mid_run_stops_neither_backup_nor_restore(
    stage: WatchStage, cluster: Testbed
) -> None:
    before = snapshots_of(cluster)
    with stage.running():
        await stage.locate()
        point = (await stage.back_up("one", "shop"))["recoveryPointId"]
        stage.doom("POST .*/volumesnapshots$", "pause")
        stage.apply("Backup", "two", backup_spec("shop"))
        await stage.paused()
        target = f"shop-{uuid.uuid4().hex[:8]}"
        stage.doom(f"POST .*/{target}/configmaps", "pause")
        stage.apply("Restore", target, restore_spec(point, "shop", target))

        async def met() -> bool:
            return stage.doomed()

        await eventually(met)
        await asyncio.to_thread(cluster.stop, "kube-apiserver", kill=True)
        stage.go_on()
        # What is tried is an outage of a minute; nothing else here takes so long that it could be waited for.
        await asyncio.sleep(AWAY_SECONDS)
        await asyncio.to_thread(cluster.start, "kube-apiserver")
        # In a cluster they end when they lose their leases; here they would wait for their back-off, most of a minute.
        for name in ("kube-controller-manager", *VOLUME_COMPONENTS):
            await asyncio.to_thread(cluster.stop, name, kill=True)
            await asyncio.to_thread(cluster.start, name)
        await came_back(stage, target)
        status = await stage.ended("backup", "two", 180)
        assert (status["phase"], status["volumes"]) == ("Completed", {"ready": 1}), status
        assert "lease not renewed yet" in stage.log()
        assert "lease lost" not in stage.log()
    await settled(stage, before, made=2)


async def test_a_store_away_in_mid_run_fails_the_backup_with_its_reason_and_only_delays_the_next(
    cluster: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshots_of(cluster)
    with moto() as service, FaultProxy.for_store(service.endpoint) as proxy:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        (await volume_folder(cluster, "shop", "data") / "file").write_bytes(b"precious")
        stage = await WatchStage.build(cluster, tmp_path, url=service.make_bucket("away", endpoint=proxy.url))
        with stage.running():
            await stage.locate()
            point = (await stage.back_up("one", "shop"))["recoveryPointId"]
            put(cluster, "shop", config_map("changing", number="away"))
            stage.doom("store packs/", "pause")
            stage.apply("Backup", "two", backup_spec("shop"))
            await stage.paused()
            away = Rule(DropRequest())
            proxy.add(away)
            stage.go_on()
            failed = await stage.ended("backup", "two", 240)
            assert (failed["phase"], failed["error"]["code"], failed["error"]["retryable"]) == (
                "Failed",
                "UserErrorBackupStorageLocationNotReady",
                True,
            ), failed
            proxy.remove(away)
            assert (await stage.back_up("three", "shop"))["phase"] == "Completed"

            target = f"shop-{uuid.uuid4().hex[:8]}"
            stage.doom(f"POST .*/{target}/configmaps", "pause")
            stage.apply("Restore", target, restore_spec(point, "shop", target))
            await stage.paused()
            short = Rule(DropRequest(), times=4)
            proxy.add(short)
            stage.go_on()
            await came_back(stage, target)
            assert short.fired == 4
        assert sorted(each["job"] for each in await stage.callers()) == ["one", "three"]
        await settled(stage, before, made=2)
