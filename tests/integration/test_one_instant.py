"""A recovery point shows the cluster as it stood at one instant: what would break that, done on purpose."""

import asyncio
import json
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from strongroom.dataplane.collector.collect import BackupRequest, Progress, collect
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import discover
from strongroom.dataplane.kube.errors import KubeError
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.model import KindEntry, Manifest, ReadAs, Selection
from strongroom.dataplane.repository.repository import Repository
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.options import TestbedOptions
from strongroom.testbed.sharing import shared_testbed

BACKUPS = 50
PLAIN_LISTS = 4  # of both kinds before each backup
RESTART_WRITES = 500  # more than the programs of a control plane write when they start
GROUP = "one-instant.example.com"
LIST = frozenset({"list"})
CONFIG_MAPS = Kind("", "v1", "ConfigMap", "configmaps", namespaced=True, verbs=LIST)
PAIRS = Kind(GROUP, "v1", "Pair", "pairs", namespaced=True, verbs=LIST)
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"pairs.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "pairs", "kind": "Pair"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "properties": {"v": {"type": "string"}}}},
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def breakable(testbeds_folder: Path) -> Iterator[Testbed]:
    """A cluster whose API server keeps no past revisions in memory: what etcd compacts is gone at once."""
    options = TestbedOptions(volumes=False, apiserver_flags=("--feature-gates=ListFromCacheSnapshot=false",))
    with shared_testbed(testbeds_folder / "one-instant", options) as cluster:
        yield cluster


@pytest.fixture
async def repo(tmp_path: Path, request: pytest.FixtureRequest) -> Repository:
    store = MemoryStore(request.node.name, create=True)
    _, key = await Repository.init(store, key_file=tmp_path / "key.json")
    return await Repository.open(store, KeyFile.load(key))


@pytest.fixture
async def breakable_api(breakable: Testbed) -> AsyncIterator[KubeApi]:
    async with KubeApi.from_kubeconfig(breakable.kubeconfig) as api:
        yield api


async def value_of(repo: Repository, manifest: Manifest, group: str, kind: str, namespace: str, name: str) -> str:
    """The value `v` of one object as a recovery point has it."""
    point = await repo.point(manifest.id)
    row = await point.find(group, kind, namespace, name)
    assert row is not None
    document = json.loads(await point.served(row))
    return str(document["spec" if group else "data"]["v"])


def entry_of(manifest: Manifest, kind: str, group: str = "") -> KindEntry:
    return next(entry for entry in manifest.kinds if (entry.group, entry.kind) == (group, kind))


def request_for(namespace: str, **more: object) -> BackupRequest:
    return BackupRequest(Selection(include_namespaces=(namespace,), **more), snapshot_volumes=False)  # type: ignore[arg-type]


def config_map(name: str, value: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"v": value}}


class LockStepWriter:
    """Writes n to a ConfigMap, then n to a custom resource, then n + 1 …, as fast as it can, in a thread of its own.

    At every instant the ConfigMap is thus equal to the custom resource or one ahead.
    """

    def __init__(self, testbed: Testbed, namespace: str) -> None:
        self._testbed = testbed
        self._namespace = namespace
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._write()))
        self.written = 0

    async def _write(self) -> None:
        async with KubeApi.from_kubeconfig(self._testbed.kubeconfig) as api:
            while not self._stop.is_set():
                number = self.written + 1
                await api.patch(CONFIG_MAPS, "pair", self._namespace, {"data": {"v": str(number)}})
                await api.patch(PAIRS, "pair", self._namespace, {"spec": {"v": str(number)}})
                self.written = number

    def __enter__(self) -> "LockStepWriter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


async def served(api: KubeApi, kind: Kind) -> bool:
    """Whether a new kind can be listed already."""
    try:
        async for _ in api.list_pages(kind, limit=1):
            return True
    except KubeError:
        return False
    return False


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until the condition, a function or coroutine function, holds."""
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            await asyncio.sleep(0.05)


async def newest(api: KubeApi, kind: Kind, namespace: str) -> int:
    """The value of the object `pair` in a plain list of the whole kind, page by page."""
    found = [
        int(document["spec" if kind.group else "data"]["v"])
        async for page in api.list_pages(kind, namespace=namespace)
        for document in map(json.loads, map(bytes, page.items))
        if document["metadata"]["name"] == "pair"
    ]
    (value,) = found
    return value


async def test_no_backup_of_a_lock_step_writer_breaks_its_invariant_while_plain_lists_do(
    testbed: Testbed, repo: Repository, namespace: str
) -> None:
    async with KubeApi.from_kubeconfig(testbed.kubeconfig) as api:
        definitions = (await discover(api)).find("customresourcedefinitions")
        await api.create(definitions, DEFINITION)
        try:
            await until(lambda: served(api, PAIRS))
            await api.create(CONFIG_MAPS, config_map("pair", "0"), namespace)
            pair = {"apiVersion": f"{GROUP}/v1", "kind": "Pair", "metadata": {"name": "pair"}, "spec": {"v": "0"}}
            await api.create(PAIRS, pair, namespace)
            # So many that a list has several pages, and that one changed object is worth a single read.
            await asyncio.gather(
                *(api.create(CONFIG_MAPS, config_map(f"filler-{n:03}", "x"), namespace) for n in range(120))
            )
            kinds = ("configmaps", f"pairs.{GROUP}")
            broken = plain_broken = incremental = 0
            with LockStepWriter(testbed, namespace) as writer:
                await until(lambda: writer.written > 3)
                for _ in range(BACKUPS):
                    for _ in range(PLAIN_LISTS):
                        plain = await newest(api, CONFIG_MAPS, namespace) - await newest(api, PAIRS, namespace)
                        plain_broken += plain not in (0, 1)
                    manifest = (await collect(api, repo, request_for(namespace, include_kinds=kinds))).manifest
                    assert entry_of(manifest, "ConfigMap").read_as is ReadAs.EXACT
                    assert entry_of(manifest, "Pair", GROUP).read_as is ReadAs.EXACT
                    first = int(await value_of(repo, manifest, "", "ConfigMap", namespace, "pair"))
                    second = int(await value_of(repo, manifest, GROUP, "Pair", namespace, "pair"))
                    broken += first - second not in (0, 1)
                    incremental += manifest.incremental.taken_over > 100
            assert writer.written > BACKUPS, "the writer wrote all the while"
            assert incremental >= BACKUPS - 2
            assert plain_broken > 0, "the test would not notice a broken invariant"
            assert broken == 0
        finally:
            await api.delete(definitions, f"pairs.{GROUP}")


async def test_config_maps_in_an_etcd_of_their_own_are_said_to_be_and_nothing_is_taken_over(
    own_testbed: Callable[..., Testbed], repo: Repository
) -> None:
    cluster = own_testbed(TestbedOptions(volumes=False, etcd_servers_overrides=("/configmaps",)))
    async with KubeApi.from_kubeconfig(cluster.kubeconfig) as api:
        # Bring the other etcd's revision above the core's: an exact list would then answer with a mix-up of the past.
        for value in range(3):
            await api.create(CONFIG_MAPS, config_map(f"cm-{value}", str(value)), "default")
        manifests = [(await collect(api, repo, request_for("default"))).manifest for _ in range(2)]
    for manifest in manifests:
        entry = entry_of(manifest, "ConfigMap")
        assert entry.read_as is ReadAs.AT_REVISION
        assert not entry.etcd_shared
        assert entry.revision != manifest.instant.revision
        assert "core etcd" in entry.reason
        assert any(line.startswith("ConfigMap was read at its own revision") for line in manifest.warnings)
        assert entry_of(manifest, "Secret").read_as is ReadAs.EXACT
        assert manifest.state == "Completed"
        assert await value_of(repo, manifest, "", "ConfigMap", "default", "cm-2") == "2"
    assert manifests[1].incremental.base == ""
    assert "do not share the core etcd" in manifests[1].incremental.reason


async def test_after_etcd_is_put_back_nothing_is_taken_over_wrongly(
    breakable: Testbed, repo: Repository, tmp_path: Path
) -> None:
    names = [f"cm-{n:03}" for n in range(80)]

    async def write(api: KubeApi, value: str) -> None:
        for name in names:
            await api.patch(CONFIG_MAPS, name, "default", {"data": {"v": f"{value} {name}"}})

    async def write_until(api: KubeApi, revision: int) -> None:
        """Use up revisions, so that the writes after the restoration get the numbers of those that it undid."""
        async with asyncio.timeout(30):
            now = number = 0
            while now < revision:
                number += 1
                answer = await api.patch(CONFIG_MAPS, "burnt", "default", {"data": {"v": str(number)}})
                now = int(json.loads(answer)["metadata"]["resourceVersion"])

    async with KubeApi.from_kubeconfig(breakable.kubeconfig) as api:
        for name in (*names, "burnt"):
            await api.create(CONFIG_MAPS, config_map(name, f"first {name}"), "default")
        before = (await collect(api, repo, request_for("default"))).manifest
        breakable.save_etcd(tmp_path / "etcd")
        again_at = breakable.revision() + RESTART_WRITES
        await write_until(api, again_at)
        await write(api, "lost")
        lost = (await collect(api, repo, request_for("default"))).manifest
        assert lost.incremental.base == before.id
    breakable.restore_etcd(tmp_path / "etcd")
    async with KubeApi.from_kubeconfig(breakable.kubeconfig) as api:
        await until(lambda: served(api, CONFIG_MAPS))
        await write_until(api, again_at)
        await write(api, "later")
        after = (await collect(api, repo, request_for("default"))).manifest
    points = [await repo.point(manifest.id) for manifest in (lost, after)]
    same_identity = 0
    for name in names:
        assert await value_of(repo, after, "", "ConfigMap", "default", name) == f"later {name}"
        rows = [await point.find("", "ConfigMap", "default", name) for point in points]
        identities = {(row.uid, row.resource_version) for row in rows if row is not None}
        same_identity += len(identities) == 1
    assert same_identity > 0, "no uid and resourceVersion stood for other content: the test shows nothing"
    assert after.incremental.base == before.id, "the marker went back together with the objects"


async def compacting(cluster: Testbed, api: KubeApi, repo: Repository, times: int) -> tuple[Manifest, list[int]]:
    """Back up everything, and compact etcd in the middle of reading it, *times* times."""
    compacted: list[int] = []
    kinds_before = -1

    def progress(step: Progress) -> None:
        nonlocal kinds_before
        if step.phase == "reading" and step.done < kinds_before:
            kinds_before = -1  # another pass began
        if step.phase == "reading" and step.done >= 3 > kinds_before and len(compacted) < times:
            # Something is written first, so that the revision that is read at is not the newest any more.
            cluster.kubectl("annotate", "namespace", "default", f"compacted={uuid.uuid4()}", "--overwrite")
            compacted.append(cluster.compact(wait=False))
        kinds_before = step.done

    return (await collect(api, repo, BackupRequest(snapshot_volumes=False), progress=progress)).manifest, compacted


async def test_a_revision_that_is_compacted_away_in_mid_run_is_taken_anew_for_all_kinds(
    breakable: Testbed, breakable_api: KubeApi, repo: Repository
) -> None:
    manifest, compacted = await compacting(breakable, breakable_api, repo, times=1)
    assert len(compacted) == 1
    assert manifest.instant.attempts == 2
    assert int(manifest.instant.revision) >= compacted[0]
    kept = [entry for entry in manifest.kinds if entry.read_as is not ReadAs.EXCLUDED]
    assert {(entry.read_as, entry.revision) for entry in kept} == {(ReadAs.EXACT, manifest.instant.revision)}
    assert manifest.state == "Completed"
    assert manifest.incremental.taken_over > 0, "what the first try stored is built upon"
    point = await repo.point(manifest.id)
    for entry in kept:
        names = [row.sort_name async for rows in point.rows(entry) for row in rows]
        assert len(names) == entry.objects
        assert names == sorted(set(names))


async def test_when_every_revision_is_compacted_away_the_point_says_at_which_a_kind_was_read(
    breakable: Testbed, breakable_api: KubeApi, repo: Repository
) -> None:
    manifest, compacted = await compacting(breakable, breakable_api, repo, times=3)
    assert len(compacted) == 3
    assert manifest.instant.attempts == 3
    off = [entry for entry in manifest.kinds if entry.read_as is ReadAs.AT_REVISION]
    assert off
    assert all(int(entry.revision) > int(manifest.instant.revision) for entry in off)
    assert all("compacted" in entry.reason for entry in off)
    assert all(entry.read_as is not ReadAs.FAILED for entry in manifest.kinds)
    assert manifest.state == "Completed"
    assert len([line for line in manifest.warnings if "its own revision" in line]) == len(off)


async def test_a_dead_api_service_makes_the_point_partial_and_everything_else_is_there(
    breakable: Testbed, breakable_api: KubeApi, repo: Repository
) -> None:
    whole = (await collect(breakable_api, repo, BackupRequest(snapshot_volumes=False))).manifest
    service = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1.dead.example.com"},
        "spec": {
            "group": "dead.example.com",
            "version": "v1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"name": "nobody", "namespace": "default"},
        },
    }
    breakable.kubectl("apply", "-f", "-", stdin=json.dumps(service))
    try:
        manifest = (await collect(breakable_api, repo, BackupRequest(snapshot_volumes=False))).manifest
    finally:
        breakable.kubectl("delete", "apiservice", "v1.dead.example.com")
    assert whole.state == "Completed"
    assert manifest.state == "Partial"
    (failure,) = manifest.failed_groups
    assert failure.group == "dead.example.com/v1"
    assert failure.reason
    assert any("dead.example.com" in line and failure.reason in line for line in manifest.warnings)
    kept = {(e.group, e.kind): e.objects for e in whole.kinds if e.read_as is ReadAs.EXACT}
    still = {(e.group, e.kind): e.objects for e in manifest.kinds if e.read_as is ReadAs.EXACT}
    assert still == kept | {("apiregistration.k8s.io", "APIService"): kept["apiregistration.k8s.io", "APIService"] + 1}
