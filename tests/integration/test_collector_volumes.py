"""Backups with volumes: data snapshotted before X, objects never lost because a snapshot is."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.dataplane.collector.collect import BackupRequest, collect
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.model import Manifest, Selection, VolumeEntry, VolumeState
from strongroom.dataplane.repository.repository import Repository
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.unreliable import Killed, Lost, UnreliableStore


@pytest.fixture
async def repo(tmp_path: Path, request: pytest.FixtureRequest) -> Repository:
    store = MemoryStore(request.node.name, create=True)
    _, key = await Repository.init(store, key_file=tmp_path / "key.json")
    return await Repository.open(store, KeyFile.load(key))


@pytest.fixture
async def api(testbed: Testbed) -> AsyncIterator[KubeApi]:
    async with KubeApi.from_kubeconfig(testbed.kubeconfig) as api:
        yield api


def claim(name: str, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "folder-immediate",
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }


async def make_claims(testbed: Testbed, namespace: str, *claims: dict[str, Any]) -> dict[str, str]:
    """Create claims, wait until each is bound, and return the handle of each one's volume."""
    testbed.kubectl(
        "apply", "-n", namespace, "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": claims})
    )
    handles: dict[str, str] = {}
    async with asyncio.timeout(30):
        while len(handles) < len(claims):
            for one in claims:
                name = one["metadata"]["name"]
                got = json.loads(testbed.kubectl("get", "pvc", name, "-n", namespace, "-o", "json"))
                if got.get("status", {}).get("phase") == "Bound":
                    volume = json.loads(testbed.kubectl("get", "pv", got["spec"]["volumeName"], "-o", "json"))
                    handles[name] = volume["spec"]["csi"]["volumeHandle"]
            await asyncio.sleep(0.1)
    return handles


def volume_of(manifest: Manifest, name: str) -> VolumeEntry:
    return next(entry for entry in manifest.volumes if entry.claim == name)


async def test_a_volume_is_snapshotted_before_x_and_its_bytes_are_there(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str
) -> None:
    handles = await make_claims(
        testbed, namespace, claim("data"), claim("cache", {"velero.io/exclude-from-backup": "true"})
    )
    (testbed.volume_path(handles["data"]) / "file").write_text("precious")
    result = await collect(api, repo, BackupRequest(Selection(include_namespaces=(namespace,))))
    (testbed.volume_path(handles["data"]) / "file").write_text("overwritten")
    manifest = result.manifest
    assert manifest.state == "Completed", result.warnings
    data = volume_of(manifest, "data")
    assert data.state is VolumeState.SNAPSHOT_READY
    assert (testbed.snapshot_path(data.handle) / "file").read_text() == "precious"
    assert data.skew_ms is not None
    assert data.skew_ms <= 0
    assert data.location
    assert volume_of(manifest, "cache").state is VolumeState.EXCLUDED
    kinds = {entry.kind: entry.objects for entry in manifest.kinds}
    assert kinds["PersistentVolumeClaim"] == 2, "the claim's object is kept, whatever becomes of its data"
    assert kinds["PersistentVolume"] == 2
    assert kinds["VolumeSnapshot"] == 0, "what the backup itself makes is not in it"
    left = json.loads(testbed.kubectl("get", "volumesnapshots", "-n", namespace, "-o", "json"))
    assert left["items"] == []


async def test_a_snapshot_that_fails_makes_the_point_partial_and_loses_no_object(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str
) -> None:
    await make_claims(testbed, namespace, claim("data"))
    request = BackupRequest(
        Selection(include_namespaces=(namespace,)), snapshot_parameters={"fail": "the array is on fire"}
    )
    manifest = (await collect(api, repo, request)).manifest
    assert manifest.state == "Partial"
    entry = volume_of(manifest, "data")
    assert entry.state is VolumeState.SNAPSHOT_FAILED
    assert "the array is on fire" in entry.reason
    assert any("the array is on fire" in line for line in manifest.warnings)
    assert {e.kind: e.objects for e in manifest.kinds}["PersistentVolumeClaim"] == 1


async def test_volumes_that_were_not_asked_for_are_in_the_report(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str
) -> None:
    await make_claims(testbed, namespace, claim("data"))
    request = BackupRequest(Selection(include_namespaces=(namespace,)), snapshot_volumes=False)
    manifest = (await collect(api, repo, request)).manifest
    assert manifest.state == "Completed"
    assert volume_of(manifest, "data").state is VolumeState.NOT_REQUESTED


async def test_a_claim_that_only_a_selected_pod_uses_is_snapshotted(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str
) -> None:
    await make_claims(testbed, namespace, claim("data"), claim("other"))
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "user", "labels": {"app": "shop"}},
        "spec": {
            "containers": [{"name": "c", "image": "c:1"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    }
    testbed.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(pod))
    selection = Selection(include_namespaces=(namespace,), selectors=("app=shop",))
    manifest = (await collect(api, repo, BackupRequest(selection))).manifest
    assert manifest.state == "Completed"
    assert [(entry.claim, entry.state) for entry in manifest.volumes] == [("data", VolumeState.SNAPSHOT_READY)]
    assert {e.kind: e.objects for e in manifest.kinds}["PersistentVolume"] == 1


class TestARunThatFails:
    """What is left behind by a backup that did not reach its commit."""

    async def snapshots_left(self, testbed: Testbed, namespace: str) -> list[str]:
        left = json.loads(testbed.kubectl("get", "volumesnapshots", "-n", namespace, "-o", "json"))["items"]
        contents = json.loads(testbed.kubectl("get", "volumesnapshotcontents", "-o", "json"))["items"]
        ours = [each for each in contents if each["spec"]["volumeSnapshotRef"]["namespace"] == namespace]
        return [each["metadata"]["name"] for each in (*left, *ours)]

    @pytest.mark.parametrize("prefix", ["packs/", "lists/"])
    async def test_leaves_no_point_and_no_snapshot_when_the_store_fails_before_the_commit(
        self, testbed: Testbed, api: KubeApi, tmp_path: Path, namespace: str, prefix: str
    ) -> None:
        await make_claims(testbed, namespace, claim("data"))
        store = UnreliableStore(f"{namespace}-{prefix}", create=True)
        _, key = await Repository.init(store, key_file=tmp_path / "key.json")
        repo = await Repository.open(store, KeyFile.load(key))
        store.lose(0, Lost.REQUEST, then_dead=True, prefix=prefix)
        with pytest.raises(Killed):
            await collect(api, repo, BackupRequest(Selection(include_namespaces=(namespace,))))
        assert await self.snapshots_left(testbed, namespace) == []
        again = await Repository.open(MemoryStore(f"{namespace}-{prefix}"), KeyFile.load(key))
        assert await again.points() == []
        result = await collect(api, again, BackupRequest(Selection(include_namespaces=(namespace,))))
        assert result.manifest.state == "Completed"

    async def test_keeps_its_snapshots_when_the_commit_may_have_gone_through(
        self, testbed: Testbed, api: KubeApi, tmp_path: Path, namespace: str
    ) -> None:
        await make_claims(testbed, namespace, claim("data"))
        store = UnreliableStore(namespace, create=True)
        _, key = await Repository.init(store, key_file=tmp_path / "key.json")
        repo = await Repository.open(store, KeyFile.load(key))
        store.lose(0, Lost.REPLY, then_dead=True, prefix="points/")
        with pytest.raises(Killed):
            await collect(api, repo, BackupRequest(Selection(include_namespaces=(namespace,))))
        (point,) = await (await Repository.open(MemoryStore(namespace), KeyFile.load(key))).points()
        assert point.manifest is not None
        entry = volume_of(point.manifest, "data")
        assert entry.state is VolumeState.SNAPSHOT_READY
        assert testbed.snapshot_path(entry.handle).is_dir(), "the manifest owns the snapshot"


async def test_the_snapshot_objects_of_the_run_itself_are_not_backed_up(
    testbed: Testbed, namespace: str, api: KubeApi, repo: Repository
) -> None:
    """They exist at X and are gone after the commit: in the point they would only mislead a restore."""
    await make_claims(testbed, namespace, claim("data"))
    selection = Selection(include_namespaces=(namespace,), cluster_scoped=True)
    manifest = (await collect(api, repo, BackupRequest(selection))).manifest
    assert [volume.state for volume in manifest.volumes] == [VolumeState.SNAPSHOT_READY]
    kinds = {entry.kind: entry for entry in manifest.kinds if entry.group == "snapshot.storage.k8s.io"}
    for kind in ("VolumeSnapshot", "VolumeSnapshotContent"):
        assert kinds[kind].skipped["made by a backup"] >= 1
    assert kinds["VolumeSnapshot"].objects == 0
