"""Backups of a real API server: what is selected is there at one revision; what did not change is not read again."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from strongroom.dataplane.collector.collect import BackupRequest, BackupResult, Progress, collect
from strongroom.dataplane.collector.selection import UnknownNamespace
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import UnknownKind
from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.model import Manifest, ReadAs, Selection
from strongroom.dataplane.repository.repository import Repository
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.faults import FaultProxy
from strongroom.testbed.faults_rules import CutBody, DropReply, Rule, Status, TooMany


@pytest.fixture
async def repo(tmp_path: Path, request: pytest.FixtureRequest) -> Repository:
    store = MemoryStore(request.node.name, create=True)
    _, key = await Repository.init(store, key_file=tmp_path / "key.json")
    return await Repository.open(store, KeyFile.load(key))


@pytest.fixture
async def api(testbed: Testbed) -> AsyncIterator[KubeApi]:
    async with KubeApi.from_kubeconfig(testbed.kubeconfig) as api:
        yield api


def only(*namespaces: str, **more: object) -> BackupRequest:
    return BackupRequest(Selection(include_namespaces=namespaces, **more), snapshot_volumes=False, marker=True)  # type: ignore[arg-type]


async def objects_of(repo: Repository, manifest: Manifest) -> dict[tuple[str, str, str], dict[str, object]]:
    """Every object of a point as it was served, by (kind, namespace, name)."""
    point = await repo.point(manifest.id)
    found = {}
    for entry in manifest.kinds:
        async for rows in point.rows(entry):
            for row in rows:
                found[row.kind, row.namespace, row.name] = json.loads(await point.served(row))
    return found


async def _keys(repo: Repository) -> AsyncIterator[str]:
    async for info in repo.store.list(""):
        yield info.key


def config_map(name: str, value: str, **labels: str) -> str:
    metadata = {"name": name, "labels": labels}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"v": value}})


def apply(testbed: Testbed, namespace: str, *documents: str) -> None:
    testbed.kubectl("apply", "-n", namespace, "-f", "-", stdin="\n---\n".join(documents))


async def test_objects_come_back_as_the_server_has_them(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str
) -> None:
    apply(testbed, namespace, config_map("one", "1"), config_map("two", "2"))
    testbed.kubectl("create", "deployment", "web", "--image=web:1", "-n", namespace)
    result = await collect(api, repo, only(namespace))
    assert result.manifest.state == "Completed"
    saved = await objects_of(repo, result.manifest)
    for name in ("one", "two"):
        served = json.loads(
            testbed.kubectl("get", "configmap", name, "-n", namespace, "-o", "json", "--show-managed-fields")
        )
        assert saved["ConfigMap", namespace, name] == served
    assert ("Deployment", namespace, "web") in saved
    assert ("Namespace", "", namespace) in saved, "the Namespace object comes along"
    assert {key[1] for key in saved} <= {"", namespace}


async def test_every_served_kind_stands_in_the_coverage_at_the_one_revision(
    api: KubeApi, repo: Repository, namespace: str
) -> None:
    manifest = (await collect(api, repo, BackupRequest(snapshot_volumes=False))).manifest
    kept = [entry for entry in manifest.kinds if entry.read_as is not ReadAs.EXCLUDED]
    assert len(kept) > 40
    assert {(entry.read_as, entry.revision) for entry in kept} == {(ReadAs.EXACT, manifest.instant.revision)}
    assert all(entry.rule for entry in manifest.kinds if entry.read_as is ReadAs.EXCLUDED)
    assert manifest.excluded_namespaces["kube-system"] == "system namespace"
    assert manifest.cluster.id


async def test_unchanged_objects_are_taken_over_and_changes_are_seen(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str
) -> None:
    apply(testbed, namespace, *(config_map(f"cm-{n:03}", "old") for n in range(60)))
    first = (await collect(api, repo, only(namespace))).manifest
    assert first.incremental.base == ""
    apply(testbed, namespace, config_map("cm-007", "new"), config_map("cm-007a", "between"))
    testbed.kubectl("delete", "configmap", "cm-030", "-n", namespace)
    # Deleted and made anew under the same name: another uid, so another object.
    testbed.kubectl("delete", "configmap", "cm-040", "-n", namespace)
    apply(testbed, namespace, config_map("cm-040", "again"))
    second = (await collect(api, repo, only(namespace))).manifest
    assert second.incremental.base == first.id
    assert second.incremental.taken_over >= 57
    saved = await objects_of(repo, second)
    values = {
        key[2]: value["data"]["v"] for key, value in saved.items() if key[0] == "ConfigMap" and key[2][:3] == "cm-"
    }  # type: ignore[index]
    expected = {f"cm-{n:03}": "old" for n in range(60) if n != 30}
    assert values == expected | {"cm-007": "new", "cm-007a": "between", "cm-040": "again"}


async def test_where_nothing_changed_a_backup_writes_a_manifest_and_nothing_else(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str
) -> None:
    apply(testbed, namespace, *(config_map(f"cm-{n:03}", "x" * 2000) for n in range(60)))
    first = await collect(api, repo, only(namespace))
    before = {key async for key in _keys(repo)}
    again = await collect(api, repo, only(namespace))
    assert again.manifest.incremental.base == first.manifest.id
    assert again.manifest.objects == first.manifest.objects
    written = {key async for key in _keys(repo)} - before
    assert {key.partition("/")[0] for key in written} == {"runs", "points"}


async def test_the_whole_reading_that_is_asked_for_says_so(api: KubeApi, repo: Repository, namespace: str) -> None:
    await collect(api, repo, only(namespace))
    request = BackupRequest(Selection(include_namespaces=(namespace,)), snapshot_volumes=False, whole=True)
    assert (await collect(api, repo, request)).manifest.incremental.reason == "a whole reading was asked for"


async def test_without_a_marker_all_is_read_and_the_output_says_why(
    api: KubeApi, repo: Repository, namespace: str
) -> None:
    request = BackupRequest(Selection(include_namespaces=(namespace,)), snapshot_volumes=False, marker=False)
    await collect(api, repo, request)
    second = (await collect(api, repo, request)).manifest
    assert second.incremental.base == ""
    assert "marker" in second.incremental.reason


async def test_labels_take_what_matches_and_what_it_needs(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str
) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "user", "labels": {"app": "shop"}},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "image": "c:1",
                    "envFrom": [{"configMapRef": {"name": "left-out"}}, {"secretRef": {"name": "not-there"}}],
                }
            ],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "folder-wait",
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    apply(
        testbed,
        namespace,
        json.dumps(claim),
        json.dumps(pod),
        config_map("mine", "1", app="shop"),
        config_map("left-out", "2"),
        config_map("marked", "3", app="shop", **{"velero.io/exclude-from-backup": "true"}),
    )
    for selectors in (("app=shop",), ("app=none", "app in (shop)")):
        result = await collect(api, repo, only(namespace, selectors=selectors))
        saved = await objects_of(repo, result.manifest)
        named = {key for key in saved if key[1] == namespace}
        assert named == {
            ("Pod", namespace, "user"),
            ("PersistentVolumeClaim", namespace, "data"),
            ("ConfigMap", namespace, "mine"),
        }
        assert ("StorageClass", "", "folder-wait") in saved
        assert ("Namespace", "", namespace) in saved
        references = {(each.kind, each.name) for each in result.manifest.references}
        assert references == {("ConfigMap", "left-out")}
        entries = {entry.kind: entry for entry in result.manifest.kinds if not entry.group}
        assert entries["ConfigMap"].skipped["labelled velero.io/exclude-from-backup"] == 1
        assert entries["Namespace"].needed_by_only


async def test_namespaces_by_glob_and_kinds_as_in_kubectl(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str
) -> None:
    apply(testbed, namespace, config_map("one", "1"))
    testbed.kubectl("create", "secret", "generic", "hidden", "-n", namespace)
    result = await collect(
        api, repo, only(namespace[:-3] + "*", include_kinds=("cm", "v1/Secret"), exclude_kinds=("secrets",))
    )
    saved = await objects_of(repo, result.manifest)
    assert ("ConfigMap", namespace, "one") in saved
    assert {key[0] for key in saved} == {"ConfigMap", "Namespace"}
    rules = {entry.kind: entry.rule for entry in result.manifest.kinds}
    assert rules["Secret"] == "kind excluded"
    assert rules["Deployment"] == "kind not included"


async def test_a_misspelt_namespace_or_kind_stops_before_anything_is_written(
    api: KubeApi, repo: Repository, namespace: str
) -> None:
    with pytest.raises(UnknownNamespace) as unknown:
        await collect(api, repo, only(namespace + "x"))
    assert namespace in unknown.value.near
    with pytest.raises(UnknownKind):
        await collect(api, repo, only(namespace, include_kinds=("deploymnets",)))
    assert await repo.points() == []
    assert [each async for each in repo.store.list("runs/")] == []


async def test_a_denied_kind_is_named_and_the_rest_is_saved(testbed: Testbed, repo: Repository, namespace: str) -> None:
    apply(testbed, namespace, config_map("one", "1"))
    user = f"reader-{namespace}"[:60]
    testbed.kubectl("create", "role", user, "--verb=list", "--resource=configmaps,pods", "-n", namespace)
    testbed.kubectl("create", "rolebinding", user, f"--role={user}", f"--user={user}", "-n", namespace)
    kubeconfig = testbed.make_client_cert(user, ())
    async with KubeApi.from_kubeconfig(kubeconfig) as api:
        result = await collect(api, repo, only(namespace))
    manifest = result.manifest
    assert manifest.state == "Partial"
    entries = {(entry.group, entry.kind): entry for entry in manifest.kinds}
    assert entries["", "ConfigMap"].read_as is ReadAs.EXACT
    assert ("ConfigMap", namespace, "one") in await objects_of(repo, manifest)
    assert entries["", "Secret"].read_as is ReadAs.FAILED
    assert "list secrets" in entries["", "Secret"].reason
    assert any("marker" in warning for warning in result.warnings)


async def test_credentials_for_one_namespace_are_enough_for_what_they_may_list(
    testbed: Testbed, repo: Repository, namespace: str
) -> None:
    apply(testbed, namespace, config_map("one", "1"))
    user = f"one-{namespace}"[:60]
    testbed.kubectl("create", "role", user, "--verb=list", "--resource=configmaps,pods", "-n", namespace)
    testbed.kubectl("create", "rolebinding", user, f"--role={user}", f"--user={user}", "-n", namespace)
    request = only(namespace, include_kinds=("configmaps",), exclude_kinds=("namespaces", "pvc"))
    async with KubeApi.from_kubeconfig(testbed.make_client_cert(user, ())) as api:
        result = await collect(api, repo, request)
    assert result.manifest.state == "Completed", result.warnings
    assert set(await objects_of(repo, result.manifest)) >= {("ConfigMap", namespace, "one")}


async def test_a_namespace_whose_label_leaves_it_out_is_left_out(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str
) -> None:
    apply(testbed, namespace, config_map("one", "1"))
    testbed.kubectl("label", "namespace", namespace, "velero.io/exclude-from-backup=true")
    manifest = (await collect(api, repo, BackupRequest(snapshot_volumes=False))).manifest
    assert manifest.excluded_namespaces[namespace] == "namespace labelled velero.io/exclude-from-backup"
    assert not [key for key in await objects_of(repo, manifest) if namespace in key]


async def test_a_backup_through_an_unsteady_connection_is_the_same(
    testbed: Testbed, api: KubeApi, repo: Repository, namespace: str, tmp_path: Path
) -> None:
    apply(testbed, namespace, *(config_map(f"cm-{n:03}", "x" * 500) for n in range(120)))
    steady = await collect(api, repo, only(namespace))
    faults = [TooMany(0), Status(500), Status(503), CutBody(2000), DropReply()]
    async with FaultProxy.for_cluster(testbed.kubeconfig) as proxy:
        proxy.add(*(Rule(action, path=f"/{namespace}/configmaps", times=1) for action in faults))
        async with KubeApi.from_kubeconfig(proxy.write_kubeconfig(tmp_path / "proxy")) as unsteady:
            result = await collect(unsteady, repo, BackupRequest(only(namespace).selection, False, whole=True))
            assert unsteady.retries >= len(faults)
    assert result.manifest.state == "Completed"
    assert await objects_of(repo, result.manifest) == await objects_of(repo, steady.manifest)


async def test_progress_ends_with_all_kinds_done(api: KubeApi, repo: Repository, namespace: str) -> None:
    steps: list[Progress] = []
    remember: Callable[[Progress], None] = steps.append
    result: BackupResult = await collect(api, repo, only(namespace), progress=remember)
    reading = [step for step in steps if step.phase == "reading"]
    assert reading[-1].done == reading[-1].total
    assert steps[-1] == Progress("done", objects=result.manifest.objects)
