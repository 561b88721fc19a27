"""Runs that are killed at each of their writes, and the sweep or deletion that comes after: no orphan, no loss."""

import asyncio
import json
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery, discover
from strongroom.dataplane.repository.model import VolumeEntry
from strongroom.dataplane.snapshots.delete import delete_snapshots
from strongroom.dataplane.snapshots.sweep import sweep_orphans
from strongroom.testbed.cluster import Testbed

VICTIM = Path(__file__).with_name("snapshots_victim.py")
LATER = timedelta(hours=1)


class Scene:
    """One namespace with some volumes, and what a repository's runs leave of them."""

    def __init__(
        self, testbed: Testbed, victims: asyncio.subprocess.Process, namespace: str, folder: Path, *claims: str
    ) -> None:
        self.testbed = testbed
        self.victims = victims
        self.namespace = namespace
        self.folder = folder
        self.volumes = self._create_volumes(claims)

    def _create_volumes(self, claims: Sequence[str]) -> set[str]:
        for name in claims:
            claim = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
            }
            self.testbed.kubectl("apply", "-f", "-", stdin=json.dumps(claim))
        bound = "--for=jsonpath={.status.phase}=Bound"
        self.testbed.kubectl("wait", bound, "-n", self.namespace, *[f"pvc/{name}" for name in claims])
        found = json.loads(self.testbed.kubectl("get", "pv", "-o", "json"))["items"]
        ours = [one for one in found if one["spec"]["claimRef"]["namespace"] == self.namespace]
        assert len(ours) == len(claims)
        return {one["spec"]["csi"]["volumeHandle"] for one in ours}

    def on_storage(self) -> list[str]:
        folder = self.testbed.snapshot_path("x").parent
        records = {one.stem: json.loads(one.read_text()) for one in folder.glob("*.json")}
        return sorted(handle for handle, record in records.items() if self.volumes & set(map(str, record.values())))

    def in_cluster(self, repository: str) -> list[str]:
        """Return the names of all VolumeSnapshots and contents of a repository."""
        label = f"strongroom.dev/repository={repository}"
        kubectl = self.testbed.kubectl
        snapshots = json.loads(kubectl("get", "volumesnapshots", "-A", "-l", label, "-o", "json"))["items"]
        contents = json.loads(kubectl("get", "volumesnapshotcontents", "-o", "json"))["items"]
        of_class = f"strongroom-{repository}-"
        return [one["metadata"]["name"] for one in snapshots] + [
            one["metadata"]["name"]
            for one in contents
            if one["spec"].get("volumeSnapshotClassName", "").startswith(of_class)
        ]

    async def run(self, do: str, before: int, repository: str, **more: Any) -> tuple[int, list[VolumeEntry]]:
        """Run a victim; return how it ended and the volumes that its manifest names."""
        manifest = self.folder / uuid.uuid4().hex
        order = {
            "do": do,
            "before": before,
            "kubeconfig": str(self.testbed.kubeconfig),
            "namespace": self.namespace,
            "repository": repository,
            "run": uuid.uuid4().hex,
            "manifest": str(manifest),
            **more,
        }
        assert self.victims.stdin is not None
        assert self.victims.stdout is not None
        self.victims.stdin.write(json.dumps(order).encode() + b"\n")
        ended = int(await self.victims.stdout.readline())
        return ended, msgspec.json.decode(manifest.read_bytes(), type=list[VolumeEntry]) if manifest.exists() else []

    async def sweep(self, repository: str, handles: list[str], **changed: Any) -> list[str]:
        """Sweep for a repository whose manifests name *handles*, when all that is there is old enough."""
        how: dict[str, Any] = {
            "live_runs": set(),
            "older_than": datetime.now(UTC) + LATER,
            "named_handles": set(handles),
            **changed,
        }
        async with KubeApi.from_kubeconfig(self.testbed.kubeconfig) as api:
            discovery: Discovery = await discover(api)
            return await sweep_orphans(api, discovery, **how, repository_id=repository)

    def forget_classes(self, repository: str) -> None:
        label = f"strongroom.dev/repository={repository}"
        self.testbed.kubectl("delete", "volumesnapshotclass", "-l", label)


@pytest.fixture
async def victims() -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that does our orders in processes of their own, which die as ordered."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, VICTIM, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    yield process
    process.stdin.close()
    assert await process.wait() == 0


@pytest.fixture
def scene(testbed: Testbed, victims: asyncio.subprocess.Process, namespace: str, tmp_path: Path) -> Scene:
    return Scene(testbed, victims, namespace, tmp_path, "data", "logs")


@pytest.fixture
def small_scene(testbed: Testbed, victims: asyncio.subprocess.Process, namespace: str, tmp_path: Path) -> Scene:
    """One volume: half the writes to die at."""
    return Scene(testbed, victims, namespace, tmp_path, "data")


async def test_after_a_kill_at_any_write_of_a_run_the_sweep_leaves_what_its_manifest_names_and_nothing_else(
    scene: Scene,
) -> None:
    await kill_at_each_write(scene, "release")


async def test_after_a_kill_at_any_write_of_a_run_that_fails_the_sweep_leaves_nothing(small_scene: Scene) -> None:
    await kill_at_each_write(small_scene, "abandon")


async def kill_at_each_write(scene: Scene, do: str) -> None:
    """Kill a run before its first write, the next one before its second, and so on until one ends."""
    volumes_there = len(scene.volumes)
    committed = 0
    for before in range(1, 100):
        repository = uuid.uuid4().hex
        ended, volumes = await scene.run(do, before, repository)
        handles = [volume.handle for volume in volumes]
        await scene.sweep(repository, handles)
        scene.forget_classes(repository)

        assert scene.in_cluster(repository) == [], f"killed before write {before}"
        assert scene.on_storage() == sorted(handles), f"killed before write {before}"
        committed += bool(handles)
        # The next turn starts from an empty storage.
        for handle in handles:
            (scene.testbed.snapshot_path(handle).with_suffix(".json")).unlink()
        if ended != -signal.SIGKILL:
            break
    assert ended == 0
    # The class, a VolumeSnapshot for each volume, the commit, and for each volume a mark and two deletions.
    before_commit = 1 + volumes_there
    assert before > before_commit + 3 * volumes_there + (do == "release")
    assert committed == (0 if do == "abandon" else before - before_commit - 1)


async def test_a_sweep_that_is_killed_at_any_write_is_finished_by_the_next(small_scene: Scene) -> None:
    scene = small_scene
    for before in range(1, 100):
        repository = uuid.uuid4().hex
        await scene.run("release", 3, repository)  # killed before the commit
        assert len(scene.on_storage()) == len(scene.volumes)
        ended, _ = await scene.run("sweep", before, repository, handles=[])
        await scene.sweep(repository, [])
        scene.forget_classes(repository)
        assert scene.in_cluster(repository) == [], f"killed before write {before}"
        assert scene.on_storage() == [], f"killed before write {before}"
        if ended != -signal.SIGKILL:
            break
    assert ended == 0
    assert before > 3  # a mark and two deletions


async def test_a_deletion_that_is_killed_at_any_write_is_finished_and_confirmed_by_the_next(small_scene: Scene) -> None:
    scene = small_scene
    for before in range(1, 100):
        repository = uuid.uuid4().hex
        _, volumes = await scene.run("release", 0, repository)
        assert len(scene.on_storage()) == len(scene.volumes)
        ended, _ = await scene.run("delete", before, repository, volumes=msgspec.to_builtins(volumes))
        async with KubeApi.from_kubeconfig(scene.testbed.kubeconfig) as api:
            outcomes = await delete_snapshots(api, await discover(api), volumes)
        scene.forget_classes(repository)
        assert [outcome.reason for outcome in outcomes] == [""] * len(scene.volumes), f"killed before write {before}"
        assert scene.on_storage() == [], f"killed before write {before}"
        if ended != -signal.SIGKILL:
            break
    assert ended == 0
    assert before > 4  # the content, its status, its driver, its deletion


async def test_a_sweep_touches_no_young_run_no_live_run_and_no_other_repositorys_run(scene: Scene) -> None:
    repository = uuid.uuid4().hex
    ended, _ = await scene.run("release", 4, repository, run="alive")
    assert ended == -signal.SIGKILL
    there = sorted(scene.in_cluster(repository))
    assert len(there) == 2 * len(scene.volumes)

    assert await scene.sweep(repository, [], older_than=datetime.now(UTC) - LATER) == []
    assert await scene.sweep(repository, [], live_runs={"alive"}) == []
    assert await scene.sweep(uuid.uuid4().hex, []) == []
    assert sorted(scene.in_cluster(repository)) == there
    assert len(scene.on_storage()) == len(scene.volumes)

    # A manifest's word goes before the run's: one snapshot is kept, the other is nobody's.
    kept = scene.on_storage()[0]
    lines = await scene.sweep(repository, [kept])
    assert len(lines) == len(scene.volumes)
    assert scene.in_cluster(repository) == []
    assert scene.on_storage() == [kept]
    scene.forget_classes(repository)


async def test_orphans_are_found_also_when_their_class_and_namespace_are_gone(scene: Scene) -> None:
    repository = uuid.uuid4().hex
    await scene.run("release", 4, repository)
    scene.forget_classes(repository)
    await asyncio.to_thread(scene.testbed.kubectl, "delete", "namespace", scene.namespace, "--wait=true")
    assert len(scene.in_cluster(repository)) == len(scene.volumes)  # the contents, kept by Retain
    assert len(scene.on_storage()) == len(scene.volumes)

    await scene.sweep(repository, [])
    assert scene.in_cluster(repository) == []
    assert scene.on_storage() == []
