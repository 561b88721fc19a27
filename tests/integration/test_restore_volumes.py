"""Volumes come back with their bytes, through CSI snapshots imported into the target (checklist rows 23 to 25)."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.dataplane.collector.collect import BackupRequest, collect
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.model import Selection
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.restore.execute import execute
from strongroom.dataplane.restore.gather import gather_plan
from strongroom.dataplane.restore.imports import CONTENT_KIND, NUDGED_ANNOTATION, RESTORE_LABEL, sweep_imports
from strongroom.dataplane.restore.model import Conflict, Done, RestorePlan, RestoreRequest, RestoreResult, VolumeMode
from strongroom.testbed.cluster import Testbed


@pytest.fixture
async def api(testbed: Testbed) -> AsyncIterator[KubeApi]:
    async with KubeApi.from_kubeconfig(testbed.kubeconfig) as api:
        yield api


@pytest.fixture
async def repo(tmp_path: Path, request: pytest.FixtureRequest) -> Repository:
    store = MemoryStore(request.node.name, create=True)
    _, key = await Repository.init(store, key_file=tmp_path / "key.json")
    return await Repository.open(store, KeyFile.load(key))


@pytest.fixture
def other(testbed: Testbed, namespace: str) -> Any:
    """The name of a namespace to restore into, removed afterwards."""
    yield f"{namespace}-r"
    testbed.kubectl("delete", "namespace", f"{namespace}-r", "--wait=false", "--ignore-not-found")


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not become so in time"
        await asyncio.sleep(0.1)


def apply(testbed: Testbed, namespace: str, *objects: dict[str, Any]) -> None:
    testbed.kubectl("apply", "-n", namespace, "-f", "-", stdin="\n---\n".join(json.dumps(obj) for obj in objects))


def get(testbed: Testbed, *words: str) -> dict[str, Any]:
    found = json.loads(testbed.kubectl("get", *words, "-o", "json", "--ignore-not-found") or "{}")
    assert isinstance(found, dict)
    return found


def claim(name: str, storage_class: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }


def pod(name: str, claim_name: str) -> dict[str, Any]:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}]
    containers = [{"name": "main", "image": "example.test/i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": containers, "volumes": volumes, "terminationGracePeriodSeconds": 0},
    }


async def bound(testbed: Testbed, namespace: str, name: str) -> Path:
    """Wait until a claim is bound; return the folder that is its volume."""

    async def is_bound() -> bool:
        return get(testbed, "pvc", name, "-n", namespace).get("status", {}).get("phase") == "Bound"

    await eventually(is_bound)
    volume = get(testbed, "pv", get(testbed, "pvc", name, "-n", namespace)["spec"]["volumeName"])
    return testbed.volume_path(volume["spec"]["csi"]["volumeHandle"])


async def save(api: KubeApi, repo: Repository, namespace: str, *, volumes: bool = True) -> RecoveryPoint:
    selection = Selection(include_namespaces=(namespace,))
    request = BackupRequest(selection=selection, snapshot_volumes=volumes, marker=False, whole=True)
    return await repo.point((await collect(api, repo, request)).manifest.id)


async def restore(
    api: KubeApi, repo: Repository, point: RecoveryPoint, request: RestoreRequest
) -> tuple[RestorePlan, RestoreResult]:
    plan = await gather_plan(api, point, request)
    return plan, await execute(api, repo, point, plan)


def done(result: RestoreResult, kind: str, name: str) -> Done:
    return next(obj.action for obj in result.objects if (obj.kind, obj.name) == (kind, name))


async def imports(api: KubeApi, restore_id: str) -> list[dict[str, Any]]:
    labels = f"{RESTORE_LABEL}={restore_id}"
    return [msgspec.json.decode(i) async for page in api.list_pages(CONTENT_KIND, labels=labels) for i in page.items]


async def test_row_23_and_25_claims_come_back_with_their_bytes_and_the_imports_go(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str, other: str
) -> None:
    apply(testbed, namespace, claim("now", "folder-immediate"), claim("later", "folder-wait"), pod("user", "later"))
    for name in ("now", "later"):
        folder = await bound(testbed, namespace, name)
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_bytes(name.encode() * 1000)
    point = await save(api, repo, namespace)
    for name in ("now", "later"):  # what is written after the backup is not part of it
        (await bound(testbed, namespace, name) / "sub" / "file").write_bytes(b"changed")
    plan, result = await restore(api, repo, point, RestoreRequest(map_namespaces={namespace: other}))
    assert result.failed == 0
    assert not result.warnings
    planned = {obj.name: obj for obj in plan.objects() if obj.kind == "PersistentVolumeClaim"}
    assert planned["later"].volume is not None
    assert planned["later"].volume.waits_for_consumer
    for name in ("now", "later"):
        assert done(result, "PersistentVolumeClaim", name) is Done.CREATED
        folder = await bound(testbed, other, name)
        assert (folder / "sub" / "file").read_bytes() == name.encode() * 1000

    async def swept() -> bool:
        await sweep_imports(api)
        snapshots = get(testbed, "volumesnapshots", "-n", other).get("items", [])
        return not snapshots and not await imports(api, result.restore_id)

    await eventually(swept)
    # The recovery point still owns its snapshots: it can be restored again.
    for volume in point.manifest.volumes:
        assert testbed.snapshot_path(volume.handle).exists()


async def test_row_23_a_claim_without_a_consumer_is_not_waited_for_and_keeps_its_import(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str, other: str
) -> None:
    apply(testbed, namespace, claim("data", "folder-wait"), pod("user", "data"))
    (await bound(testbed, namespace, "data") / "file").write_bytes(b"kept")
    point = await save(api, repo, namespace)
    chosen = Selection(include_kinds=("PersistentVolumeClaim",))
    _, result = await restore(api, repo, point, RestoreRequest(selection=chosen, map_namespaces={namespace: other}))
    assert result.failed == 0
    assert get(testbed, "pvc", "data", "-n", other)["status"]["phase"] == "Pending"
    left = await imports(api, result.restore_id)
    assert [content["spec"]["deletionPolicy"] for content in left] == ["Retain"]
    await sweep_imports(api)
    assert await imports(api, result.restore_id)
    apply(testbed, other, pod("user", "data"))
    assert (await bound(testbed, other, "data") / "file").read_bytes() == b"kept"

    async def swept() -> bool:
        await sweep_imports(api)
        return not await imports(api, result.restore_id)

    await eventually(swept)


async def test_row_23_a_snapshot_that_is_gone_fails_its_claim_with_the_drivers_reason_and_leaves_no_empty_volume(
    testbed: Testbed,
    api: KubeApi,
    repo: Repository,
    namespace: str,
    other: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    apply(testbed, namespace, claim("data", "folder-immediate"))
    await bound(testbed, namespace, "data")
    point = await save(api, repo, namespace)
    lost = point.manifest.volumes[0]
    broken = msgspec.structs.replace(lost, handle=lost.handle + "-gone")
    point.manifest = msgspec.structs.replace(point.manifest, volumes=(broken,))
    monkeypatch.setattr("strongroom.dataplane.restore.imports.READY_SECONDS", 3)
    monkeypatch.setattr("strongroom.dataplane.restore.imports.NUDGE_SECONDS", 0.2)
    restoring = asyncio.create_task(restore(api, repo, point, RestoreRequest(map_namespaces={namespace: other})))

    async def nudged() -> bool:
        assert not restoring.done(), "the controllers were not made to look again at what is not ready"
        found = [
            msgspec.json.decode(i) async for p in api.list_pages(CONTENT_KIND, labels=RESTORE_LABEL) for i in p.items
        ]
        mine = [each for each in found if each["spec"]["source"].get("snapshotHandle") == broken.handle]
        return any(NUDGED_ANNOTATION in each["metadata"]["annotations"] for each in mine)

    await eventually(nudged)
    _, result = await restoring
    failed = next(obj for obj in result.objects if obj.kind == "PersistentVolumeClaim")
    assert failed.action is Done.FAILED
    assert broken.handle in failed.reason
    assert not get(testbed, "pvc", "data", "-n", other)

    async def removed() -> bool:
        return not await imports(api, result.restore_id)

    await eventually(removed)


async def test_row_23_without_data_a_claim_is_provisioned_empty(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str, other: str
) -> None:
    apply(testbed, namespace, claim("data", "folder-immediate"))
    (await bound(testbed, namespace, "data") / "file").write_bytes(b"x")
    point = await save(api, repo, namespace)
    request = RestoreRequest(map_namespaces={namespace: other}, volumes=VolumeMode.NONE)
    _, result = await restore(api, repo, point, request)
    assert done(result, "PersistentVolumeClaim", "data") is Done.CREATED
    assert list((await bound(testbed, other, "data")).iterdir()) == []


async def test_row_24_a_static_volume_is_bound_to_its_claim_again(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str
) -> None:
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": namespace},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "hostPath": {"path": "/nowhere"},
        },
    }
    static = claim("data", "")
    static["spec"]["volumeName"] = namespace

    async def is_bound() -> bool:
        return get(testbed, "pvc", "data", "-n", namespace).get("status", {}).get("phase") == "Bound"

    try:
        apply(testbed, namespace, volume, static)
        await eventually(is_bound)
        before = get(testbed, "pvc", "data", "-n", namespace)["metadata"]["uid"]
        point = await save(api, repo, namespace)
        testbed.kubectl("delete", "pvc", "data", "-n", namespace)
        testbed.kubectl("delete", "pv", namespace)
        _, result = await restore(api, repo, point, RestoreRequest())
        assert done(result, "PersistentVolume", namespace) is Done.CREATED
        await eventually(is_bound)
        reference = get(testbed, "pv", namespace)["spec"]["claimRef"]
        assert reference["uid"] == get(testbed, "pvc", "data", "-n", namespace)["metadata"]["uid"] != before
        # With the claim alone gone the volume stays, Released, and is given back where patching is allowed.
        testbed.kubectl("delete", "pvc", "data", "-n", namespace)

        async def is_released() -> bool:
            return get(testbed, "pv", namespace)["status"]["phase"] == "Released"

        await eventually(is_released)
        _, refused = await restore(api, repo, point, RestoreRequest())
        assert done(refused, "PersistentVolumeClaim", "data") is Done.FAILED
        _, patched = await restore(api, repo, point, RestoreRequest(conflict=Conflict.PATCH))
        assert done(patched, "PersistentVolume", namespace) is Done.PATCHED
        await eventually(is_bound)
        assert get(testbed, "pvc", "data", "-n", namespace)["spec"]["volumeName"] == namespace
    finally:
        testbed.kubectl("delete", "pv", namespace, "--wait=false", "--ignore-not-found")
