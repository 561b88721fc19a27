"""A run's volume snapshots on a real control plane: the real snapshot-controller, csi-snapshotter and a CSI driver."""

import asyncio
import json
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery, discover
from strongroom.dataplane.repository.model import SecretRef, VolumeEntry, VolumeState
from strongroom.dataplane.snapshots.claims import Claim, PersistentVolume, claim_from_object, volume_from_object
from strongroom.dataplane.snapshots.delete import delete_snapshots
from strongroom.dataplane.snapshots.session import SnapshotSession
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.faults import DropReply, DropRequest, FaultProxy, Rule, Status, TooMany

SNAPSHOT_API = "snapshot.storage.k8s.io/v1"


class Volumes:
    """The volumes of one namespace, and one repository's snapshots of them."""

    def __init__(self, testbed: Testbed, api: KubeApi, discovery: Discovery, namespace: str) -> None:
        self.testbed = testbed
        self.api = api
        self.discovery = discovery
        self.namespace = namespace
        self.repository_id = uuid.uuid4().hex

    def create(self, *names: str, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        """Create claims, and wait until those of the class that binds at once are bound."""
        spec = {"storageClassName": "folder-immediate", **spec}
        for name in names:
            self.apply(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {"name": name, "namespace": self.namespace, "annotations": annotations or {}},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "1Mi"}},
                        **spec,
                    },
                }
            )
        if spec["storageClassName"] == "folder-immediate":
            wait = "--for=jsonpath={.status.phase}=Bound"
            self.testbed.kubectl("wait", wait, "-n", self.namespace, *[f"pvc/{name}" for name in names])

    def apply(self, document: dict[str, Any]) -> None:
        self.testbed.kubectl("apply", "-f", "-", stdin=json.dumps(document))

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        answer: dict[str, Any] = json.loads(self.testbed.kubectl("get", *arguments, "-o", "json"))
        return list(answer["items"])

    async def claims(self) -> list[Claim]:
        path = f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims"
        answer = json.loads(await self.api.get_path(path))
        return [claim_from_object(json.dumps(item).encode()) for item in answer["items"]]

    async def by_uid(self) -> dict[str, Claim]:
        return {claim.uid: claim for claim in await self.claims()}

    async def volumes(self) -> dict[str, PersistentVolume]:
        answer = json.loads(await self.api.get_path("/api/v1/persistentvolumes"))
        volumes = [volume_from_object(json.dumps(item).encode()) for item in answer["items"]]
        return {volume.name: volume for volume in volumes}

    async def start(self, run: str = "", **parameters: str) -> SnapshotSession:
        return await SnapshotSession.start(
            self.api,
            self.discovery,
            run or uuid.uuid4().hex,
            await self.claims(),
            await self.volumes(),
            parameters,
            repository_id=self.repository_id,
        )

    async def path(self, claim: str) -> Path:
        """Return the folder that holds a claim's files."""
        volume = next(one.volume for one in await self.claims() if one.name == claim)
        return self.testbed.volume_path((await self.volumes())[volume].handle)

    def snapshots(self) -> list[dict[str, Any]]:
        return self.items("volumesnapshots", "-A", "-l", f"strongroom.dev/repository={self.repository_id}")

    def contents(self) -> list[dict[str, Any]]:
        prefix = f"strongroom-{self.repository_id}-"
        found = self.items("volumesnapshotcontents")
        return [one for one in found if one["spec"].get("volumeSnapshotClassName", "").startswith(prefix)]

    def classes(self) -> list[dict[str, Any]]:
        return self.items("volumesnapshotclasses", "-l", f"strongroom.dev/repository={self.repository_id}")

    async def on_storage(self) -> list[str]:
        """Return the handles of all snapshots that the storage has of this namespace's volumes."""
        volumes = await self.volumes()
        ours = {volumes[claim.volume].handle for claim in await self.claims() if claim.volume}
        folder = self.testbed.snapshot_path("x").parent
        found = []
        for record in folder.glob("*.json"):
            document = json.loads(record.read_text())
            if ours & {value for value in document.values() if isinstance(value, str)}:
                found.append(record.stem)
        return sorted(found)


@pytest.fixture
async def volumes(testbed: Testbed, namespace: str) -> AsyncIterator[Volumes]:
    async with KubeApi.from_kubeconfig(testbed.kubeconfig) as api:
        found = Volumes(testbed, api, await discover(api), namespace)
        yield found
        testbed.kubectl("delete", "volumesnapshotclass", "-l", f"strongroom.dev/repository={found.repository_id}")


def ready(entries: tuple[VolumeEntry, ...]) -> list[str]:
    return [entry.claim for entry in entries if entry.state is VolumeState.SNAPSHOT_READY]


async def point(volumes: Volumes, session: SnapshotSession) -> tuple[tuple[VolumeEntry, ...], tuple[str, ...]]:
    """Do what the collector does between start and commit."""
    await session.cut()
    taken = datetime.now(UTC)
    at_x = await volumes.by_uid()
    await session.ready()
    return session.entries(at_x, taken)


async def test_after_a_commit_the_storage_keeps_what_the_manifest_owns_and_the_cluster_nothing(
    volumes: Volumes,
) -> None:
    volumes.create("data", "logs")
    (await volumes.path("data") / "file").write_text("before")
    session = await volumes.start()
    await session.cut()
    (await volumes.path("data") / "file").write_text("after")
    await session.ready()
    taken = datetime.now(UTC)
    entries, warnings = session.entries(await volumes.by_uid(), taken)
    assert await session.release() == ()

    assert ready(entries) == ["data", "logs"]
    assert warnings == ()
    data = entries[0]
    assert (volumes.testbed.snapshot_path(data.handle) / "file").read_text() == "before"
    assert data.driver == "folder.csi.strongroom.test"
    assert data.snapshot_class == "folder"
    assert data.restore_size_bytes == 1024 * 1024
    assert data.location == "snapshot on the source's own storage"
    assert data.skew_ms is not None
    assert -30_000 < data.skew_ms < 0
    assert datetime.fromisoformat(data.created).timestamp() == pytest.approx(taken.timestamp(), abs=30)
    assert volumes.snapshots() == []
    assert volumes.contents() == []
    assert await volumes.on_storage() == sorted(entry.handle for entry in entries)
    assert [one["deletionPolicy"] for one in volumes.classes()] == ["Retain"]


async def test_deleting_the_namespace_takes_no_backup_along(volumes: Volumes) -> None:
    volumes.create("data")
    (await volumes.path("data") / "file").write_text("kept")
    session = await volumes.start()
    await session.cut()
    at_x, taken = await volumes.by_uid(), datetime.now(UTC)
    await asyncio.to_thread(volumes.testbed.kubectl, "delete", "namespace", volumes.namespace, "--wait=true")
    await session.ready()
    entries, _ = session.entries(at_x, taken)
    assert await session.release() == ()

    assert ready(entries) == ["data"]
    assert (volumes.testbed.snapshot_path(entries[0].handle) / "file").read_text() == "kept"
    assert volumes.contents() == []


async def test_a_run_that_is_abandoned_leaves_nothing_in_the_cluster_and_nothing_on_the_storage(
    volumes: Volumes,
) -> None:
    volumes.create(*(f"data-{number}" for number in range(6)))
    for wait in (False, True):
        session = await volumes.start()
        if wait:
            await session.cut()
            assert len(await volumes.on_storage()) == 6
        assert await session.abandon() == ()

        assert volumes.snapshots() == []
        assert volumes.contents() == []
        assert await volumes.on_storage() == []


async def test_a_run_that_is_abandoned_finds_its_contents_also_when_the_volumesnapshots_are_gone(
    volumes: Volumes,
) -> None:
    volumes.create("data")
    session = await volumes.start()
    names = ["volumesnapshots", "--all", "-n", volumes.namespace]
    wait = "--for=jsonpath={.status.readyToUse}=true"
    await asyncio.to_thread(volumes.testbed.kubectl, "wait", wait, *names)
    await asyncio.to_thread(volumes.testbed.kubectl, "delete", *names)
    assert len(volumes.contents()) == 1
    assert await session.abandon() == ()

    assert volumes.contents() == []
    assert await volumes.on_storage() == []


async def test_a_run_that_fails_in_its_commit_deletes_nothing_that_a_manifest_may_name(volumes: Volumes) -> None:
    volumes.create("data", "gone")
    session = await volumes.start()
    await session.cut()
    await session.ready()
    at_x = {claim.uid: claim for claim in await volumes.claims() if claim.name == "data"}
    entries, _ = session.entries(at_x, datetime.now(UTC))
    [left] = await session.abandon()

    assert "a recovery point may name its snapshot" in left
    assert await volumes.on_storage() == [entries[0].handle]
    assert len(volumes.snapshots()) == 1
    assert await session.abandon(no_manifest=True) == ()
    assert await volumes.on_storage() == []
    assert volumes.snapshots() == []


def lossy(action: Any) -> list[Rule]:
    """Meet the first request of each sort that a session makes with *action*."""
    contents = "/volumesnapshotcontents/"
    return [
        Rule(action, "GET", "/volumesnapshotclasses", times=1),
        Rule(action, "POST", "/volumesnapshotclasses", times=1),
        Rule(action, "POST", "/volumesnapshots", times=1),
        Rule(action, "GET", "/volumesnapshots", times=1),
        Rule(action, "GET", contents, times=1),
        Rule(action, "PATCH", contents, times=1),
        Rule(action, "DELETE", "/volumesnapshots/", times=1),
        Rule(action, "DELETE", contents, times=1),
    ]


@pytest.mark.parametrize("action", [DropRequest(), DropReply(), TooMany(0.1), Status(503)], ids=repr)
async def test_a_request_or_a_reply_of_each_sort_that_gets_lost_changes_nothing(
    volumes: Volumes, tmp_path: Path, action: Any
) -> None:
    volumes.create("data", "logs")
    direct = volumes.api
    with FaultProxy.for_cluster(volumes.testbed.kubeconfig) as proxy:
        async with KubeApi.from_kubeconfig(proxy.write_kubeconfig(tmp_path / "proxy")) as api:
            volumes.api = api
            claims, found = await volumes.claims(), await volumes.volumes()
            rules = lossy(action)
            proxy.add(*rules)
            session = await SnapshotSession.start(
                api, volumes.discovery, uuid.uuid4().hex, claims, found, {}, repository_id=volumes.repository_id
            )
            entries, warnings = await point(volumes, session)
            assert await session.release() == ()
    volumes.api = direct

    assert [rule.fired for rule in rules] == [1] * len(rules)
    assert ready(entries) == ["data", "logs"]
    assert warnings == ()
    assert volumes.snapshots() == []
    assert volumes.contents() == []
    assert await volumes.on_storage() == sorted(entry.handle for entry in entries)


SNAPSHOTS_ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: %s}
rules:
  - {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotclasses], verbs: [list, get, create]}
  - {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshots], verbs: [list, get, create, delete]}
  - apiGroups: [snapshot.storage.k8s.io]
    resources: [volumesnapshotcontents]
    verbs: [list, get, create, patch, delete]
  - {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotcontents/status], verbs: [patch]}
  - {apiGroups: [storage.k8s.io], resources: [csidrivers], verbs: [get]}
"""


async def test_the_documented_role_is_enough(volumes: Volumes) -> None:
    volumes.create("data")
    claims, found = await volumes.claims(), await volumes.volumes()
    user = f"snapshots-{uuid.uuid4().hex[:8]}"
    kubectl = volumes.testbed.kubectl
    kubectl("apply", "-f", "-", stdin=SNAPSHOTS_ROLE % user)
    kubectl("create", "clusterrolebinding", user, f"--clusterrole={user}", f"--user={user}")
    try:
        async with KubeApi.from_kubeconfig(volumes.testbed.make_client_cert(user)) as api:
            session = await SnapshotSession.start(
                api, volumes.discovery, uuid.uuid4().hex, claims, found, {}, repository_id=volumes.repository_id
            )
            entries, _ = await point(volumes, session)
            assert await session.release() == ()
            assert ready(entries) == ["data"], entries[0].reason
            [outcome] = await delete_snapshots(api, volumes.discovery, entries)
            assert outcome.deleted, outcome.reason
    finally:
        kubectl("delete", f"clusterrole/{user}", f"clusterrolebinding/{user}")
    document = Path(__file__).parents[2] / "docs/reference/volumes.md"
    assert (SNAPSHOTS_ROLE % "strongroom-snapshots").strip() in document.read_text()


async def test_cutting_does_not_wait_until_a_snapshot_is_ready_and_the_commit_does(volumes: Volumes) -> None:
    volumes.create("data")
    session = await volumes.start(readyAfter="3s")
    started = time.monotonic()
    await session.cut()
    cut_after = time.monotonic() - started
    taken = datetime.now(UTC)
    await session.ready()
    ready_after = time.monotonic() - started
    entries, _ = session.entries(await volumes.by_uid(), taken)

    assert ready(entries) == ["data"]
    assert cut_after < 2.5 < ready_after
    await session.release()


async def test_a_snapshot_that_is_not_ready_in_time_is_a_failed_one_and_is_deleted(volumes: Volumes) -> None:
    volumes.create("data")
    session = await volumes.start(readyAfter="600s")
    await session.cut()
    await session.ready(timeout=0.5)
    entries, warnings = session.entries(await volumes.by_uid(), datetime.now(UTC))
    assert await session.release() == ()

    assert entries[0].state is VolumeState.SNAPSHOT_FAILED
    assert entries[0].handle == ""
    assert entries[0].reason.startswith("was not ready to use after")
    assert warnings == (
        f"snapshot of volume {volumes.namespace}/data is not in the recovery point: {entries[0].reason}",
    )
    assert await volumes.on_storage() == []


async def test_a_snapshot_that_the_driver_refuses_fails_with_its_words_and_the_others_do_not(
    volumes: Volumes, snapshot_class: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.dataplane.snapshots.session.CUT_ERROR_SECONDS", 2.0)
    refusing = snapshot_class(parameters={"fail": "the array is full"})
    volumes.create("good")
    volumes.create("bad", annotations={"strongroom.dev/snapshot-class": refusing})
    session = await volumes.start()
    entries, warnings = await point(volumes, session)
    assert await session.release() == ()

    assert ready(entries) == ["good"]
    bad = entries[0]
    assert bad.state is VolumeState.SNAPSHOT_FAILED
    assert "the array is full" in bad.reason
    assert len(warnings) == 1
    assert volumes.snapshots() == []
    assert volumes.contents() == []


@pytest.fixture
def snapshot_class(volumes: Volumes) -> Any:
    """Make VolumeSnapshotClasses that the test alone uses; they are no default and bear no label."""
    made: list[str] = []

    def make(**fields: Any) -> str:
        made.append(f"test-{uuid.uuid4().hex[:8]}")
        # Their driver's default stays the class "folder": other tests run meanwhile.
        document = {
            "apiVersion": SNAPSHOT_API,
            "kind": "VolumeSnapshotClass",
            "metadata": {"name": made[-1]},
            "driver": "folder.csi.strongroom.test",
            "deletionPolicy": "Delete",
        }
        volumes.apply({**document, **fields})
        return made[-1]

    yield make
    volumes.testbed.kubectl("delete", "volumesnapshotclass", "--ignore-not-found", *made)


async def test_the_classes_parameters_and_secrets_are_in_the_manifest(
    volumes: Volumes, snapshot_class: Callable[..., str]
) -> None:
    secret = {
        "csi.storage.k8s.io/snapshotter-secret-name": "${volumesnapshot.namespace}",
        "csi.storage.k8s.io/snapshotter-secret-namespace": "kube-system",
        "csi.storage.k8s.io/snapshotter-list-secret-name": "list",
        "csi.storage.k8s.io/snapshotter-list-secret-namespace": "kube-system",
    }
    chosen = snapshot_class(parameters={"tier": "cold", **secret})
    name = volumes.namespace
    volumes.testbed.kubectl("create", "secret", "generic", name, "-n", "kube-system", "--from-literal=key=value")
    volumes.create("data", annotations={"strongroom.dev/snapshot-class": chosen})
    session = await volumes.start(incremental="true", **{"folder.csi.strongroom.test/resourceGroup": "snapshots"})
    try:
        entries, _ = await point(volumes, session)
        assert await session.release() == ()
        entry = entries[0]

        assert ready(entries) == ["data"], entry.reason
        assert entry.snapshot_class == chosen
        assert entry.class_parameters == {
            "tier": "cold",
            "incremental": "true",
            "resourceGroup": "snapshots",
            **secret,
        }
        assert entry.deletion_secret == SecretRef(namespace="kube-system", name=name)
        assert entry.list_secret == SecretRef(namespace="kube-system", name="list")
        [outcome] = await delete_snapshots(volumes.api, volumes.discovery, entries)
        assert outcome.deleted, outcome.reason
        assert await volumes.on_storage() == []
    finally:
        volumes.testbed.kubectl("delete", "secret", name, "-n", "kube-system")


async def test_a_volume_that_no_driver_can_snapshot_is_a_warning_with_its_reason(volumes: Volumes) -> None:
    volume = f"host-{uuid.uuid4().hex[:8]}"
    volumes.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                "capacity": {"storage": "1Mi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/nowhere"},
                "storageClassName": "",
                "claimRef": {"namespace": volumes.namespace, "name": "host"},
            },
        }
    )
    volumes.create("host", storageClassName="", volumeName=volume)
    volumes.testbed.kubectl("wait", "--for=jsonpath={.status.phase}=Bound", "-n", volumes.namespace, "pvc/host")
    volumes.create("waiting", storageClassName="folder-wait")
    session = await volumes.start()
    entries, warnings = await point(volumes, session)
    assert await session.release() == ()
    volumes.testbed.kubectl("delete", "pv", volume, "--wait=false")

    assert [entry.state for entry in entries] == [VolumeState.NOT_SNAPSHOTTABLE] * 2
    assert entries[0].reason == f"its PersistentVolume {volume} is of type hostPath, which no CSI driver serves"
    assert entries[1].reason == "the claim is not bound to a volume"
    assert len(warnings) == 2


async def test_a_claim_gone_at_x_loses_its_snapshot_and_a_claim_new_at_x_is_a_warning(volumes: Volumes) -> None:
    volumes.create("gone", "again", "stays")
    session = await volumes.start()
    await session.cut()
    lost = await volumes.path("gone")
    await asyncio.to_thread(volumes.testbed.kubectl, "delete", "pvc", "-n", volumes.namespace, "gone", "again")
    volumes.create("again", "new")
    at_x = await volumes.by_uid()
    await session.ready()
    entries, warnings = session.entries(at_x, datetime.now(UTC))
    assert await session.release() == ()

    states = [(entry.claim, entry.state, entry.handle != "") for entry in entries]
    assert sorted(states) == [
        ("again", VolumeState.EXCLUDED, False),
        ("again", VolumeState.NOT_SNAPSHOTTABLE, False),
        ("gone", VolumeState.EXCLUDED, False),
        ("new", VolumeState.NOT_SNAPSHOTTABLE, False),
        ("stays", VolumeState.SNAPSHOT_READY, True),
    ]
    assert len(warnings) == 4
    assert volumes.contents() == []
    folder = volumes.testbed.snapshot_path("x").parent
    assert not [one for one in folder.glob("*.json") if lost.name in one.read_text()]


async def test_a_class_that_somebody_turned_to_delete_is_not_used(volumes: Volumes) -> None:
    volumes.create("data")
    await (await volumes.start()).abandon()
    [copy] = volumes.classes()
    volumes.apply({**copy, "deletionPolicy": "Delete"})
    session = await volumes.start()
    entries, _ = await point(volumes, session)

    assert entries[0].state is VolumeState.SNAPSHOT_FAILED
    assert "its deletionPolicy is Delete" in entries[0].reason
    assert volumes.snapshots() == []


async def test_concurrent_runs_share_their_class(volumes: Volumes) -> None:
    volumes.create("data")
    sessions = await asyncio.gather(*(volumes.start() for _ in range(4)))
    assert len(volumes.classes()) == 1
    results = [await point(volumes, session) for session in sessions]
    assert [ready(entries) for entries, _ in results] == [["data"]] * 4
    await asyncio.gather(*(session.abandon(no_manifest=True) for session in sessions))
    assert await volumes.on_storage() == []


async def test_without_permission_every_snapshot_fails_with_the_verb_and_the_resource(volumes: Volumes) -> None:
    volumes.create("data")
    kubeconfig = volumes.testbed.make_client_cert(f"nobody-{uuid.uuid4().hex[:8]}")
    claims, found = await volumes.claims(), await volumes.volumes()
    async with KubeApi.from_kubeconfig(kubeconfig) as api:
        session = await SnapshotSession.start(
            api, volumes.discovery, uuid.uuid4().hex, claims, found, {}, repository_id=volumes.repository_id
        )
        entries, _ = await point(volumes, session)
        assert await session.release() == ()
    assert entries[0].state is VolumeState.SNAPSHOT_FAILED
    assert "not allowed to list volumesnapshotclasses.snapshot.storage.k8s.io" in entries[0].reason


async def test_a_volumesnapshot_that_the_api_server_refuses_fails_its_volume_alone(volumes: Volumes) -> None:
    volumes.create("data", "ghost")
    claims = await volumes.claims()
    # A namespace that went between the listing of the claims and the run.
    claims = [replace(one, namespace="gone-" + one.namespace[:20]) if one.name == "ghost" else one for one in claims]
    session = await SnapshotSession.start(
        volumes.api,
        volumes.discovery,
        uuid.uuid4().hex,
        claims,
        await volumes.volumes(),
        {},
        repository_id=volumes.repository_id,
    )
    await session.cut()
    await session.ready()
    entries, _ = session.entries({claim.uid: claim for claim in claims}, datetime.now(UTC))
    assert await session.release() == ()

    assert ready(entries) == ["data"]
    refused = next(entry for entry in entries if entry.claim == "ghost")
    assert refused.state is VolumeState.SNAPSHOT_FAILED
    assert "not found" in refused.reason


async def test_a_deletion_is_confirmed_by_the_driver_and_may_be_repeated(volumes: Volumes) -> None:
    volumes.create("data", "logs")
    session = await volumes.start()
    entries, _ = await point(volumes, session)
    await session.release()
    assert len(await volumes.on_storage()) == 2
    # One is lost on the storage already: that it is gone is confirmed all the same.
    folder = volumes.testbed.snapshot_path(entries[1].handle)
    shutil.rmtree(folder)
    folder.with_suffix(".json").unlink()

    for _ in range(2):
        outcomes = await delete_snapshots(volumes.api, volumes.discovery, entries)
        assert [(outcome.entry, outcome.deleted, outcome.reason) for outcome in outcomes] == [
            (entry, True, "") for entry in entries
        ]
        assert await volumes.on_storage() == []
    names = [one["metadata"]["name"] for one in volumes.items("volumesnapshotcontents")]
    assert not [name for name in names if name.startswith("strongroom-delete-")]


async def test_a_deletion_that_no_driver_here_can_do_is_listed_with_its_handle(volumes: Volumes) -> None:
    entry = VolumeEntry(
        namespace="a",
        claim="data",
        claim_uid="u",
        driver="disk.example.org",
        state=VolumeState.SNAPSHOT_READY,
        handle="snap-1",
    )
    unsnapped = VolumeEntry(namespace="a", claim="b", claim_uid="v", state=VolumeState.NOT_SNAPSHOTTABLE)
    stranded, nothing = await delete_snapshots(volumes.api, volumes.discovery, [entry, unsnapped])
    assert not stranded.deleted
    assert stranded.entry.handle == "snap-1"
    assert "no CSI driver disk.example.org" in stranded.reason
    assert nothing.deleted


async def test_a_deletion_without_its_secret_is_not_called_done_and_a_later_call_finishes_it(
    volumes: Volumes,
) -> None:
    volumes.create("data")
    session = await volumes.start()
    entries, _ = await point(volumes, session)
    await session.release()
    secret = f"late-{uuid.uuid4().hex[:8]}"
    ref = SecretRef(namespace=volumes.namespace, name=secret)
    entry = VolumeEntry(**{**{f: getattr(entries[0], f) for f in entries[0].__struct_fields__}, "deletion_secret": ref})
    [early] = await delete_snapshots(volumes.api, volumes.discovery, [entry], timeout=1.0)
    assert not early.deleted
    assert "has not confirmed it in time" in early.reason
    assert await volumes.on_storage() == [entry.handle]

    volumes.testbed.kubectl("create", "secret", "generic", secret, "-n", volumes.namespace)
    [late] = await delete_snapshots(volumes.api, volumes.discovery, [entry], timeout=60.0)
    assert late.deleted, late.reason
    assert await volumes.on_storage() == []
