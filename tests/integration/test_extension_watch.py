"""An extension without a control plane carries out the custom resources of a cluster: each once, whatever happens."""

import asyncio
import base64
import json
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from strongroom import __version__
from strongroom.controlplane.clusters import manifests
from strongroom.controlplane.clusters.access import TokenFile
from strongroom.controlplane.clusters.connect import connect
from strongroom.controlplane.clusters.hosted import HostedExtension
from strongroom.controlplane.clusters.installer import (
    ExtensionSettings,
    extension_health,
    install_extension,
    remove_extension,
)
from strongroom.controlplane.clusters.trusted_access import bind_trusted_access
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.config import load_kubeconfig
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.repository.keyentries import add_recipient, add_writer
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.prune import delete_point
from strongroom.dataplane.repository.repository import Repository
from strongroom.extension.api.documents import BackupStorageLocation, Kind, parse_document
from strongroom.extension.keys import ensure_keys
from strongroom.extension.runs.context import RunContext
from strongroom.extension.watching.lease import Lease
from strongroom.extension.watching.resources import KINDS
from strongroom.extension.watching.watcher import Watcher
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.errors import ComponentFailed
from strongroom.testbed.faults import FaultProxy
from strongroom.testbed.faults_rules import Expired, Rule, Status
from strongroom.testbed.sharing import shared_testbed
from strongroom.testbed.stores import azurite

from .clusters_stage import VAULT, admin_of
from .extension_stage import OWN_NAMESPACE, claim, config_map, eventually, get, put, volume_folder
from .watching_stage import WatchStage, backup_spec, define, resource, restore_spec, until_logged


@pytest.fixture(scope="module")
def cluster(testbeds_folder: Path) -> Iterator[Testbed]:
    """A cluster of this file's own: definitions stand for the whole cluster."""
    with shared_testbed(testbeds_folder / "extension-watch") as testbed:
        testbed.kubectl("create", "namespace", "shop")
        put(testbed, "shop", config_map("settings", colour="blue"), claim("data"))
        yield testbed


@pytest.fixture
async def stage(cluster: Testbed, tmp_path: Path) -> AsyncIterator[WatchStage]:
    built = await WatchStage.build(cluster, tmp_path)
    yield built
    built.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def defined(cluster: Testbed) -> Testbed:
    """The cluster with our definitions, and no extension that does anything."""
    define(cluster)
    return cluster


async def test_kubectl_applies_a_location_a_backup_and_a_restore_and_sees_what_became_of_them(
    stage: WatchStage, cluster: Testbed
) -> None:
    (await volume_folder(cluster, "shop", "data") / "file").write_bytes(b"precious")
    with stage.running():
        await stage.locate()
        condition = stage.get("backupstoragelocation", "main")["status"]["conditions"][0]
        assert (condition["type"], condition["status"], condition["reason"]) == ("Available", "True", "Opened")
        status = await stage.back_up("first", "shop")
        assert (status["phase"], status.get("warnings")) == ("Completed", None)
        assert status["volumes"] == {"ready": 1}
        assert status["conditions"][0]["type"] == "Ready"
        assert [each["job"] for each in await stage.callers()] == ["first"]
        assert stage.get("backup", "first")["metadata"].get("finalizers") is None

        stage.apply("Restore", "back", restore_spec(status["recoveryPointId"], "shop", "shop-back"))
        restored = await stage.ended("restore", "back")
        assert (restored["phase"], restored["counts"].get("failed", 0)) == ("Completed", 0)
        assert get(cluster, "configmap", "settings", "-n", "shop-back")["data"] == {"colour": "blue"}
        assert (await volume_folder(cluster, "shop-back", "data") / "file").read_bytes() == b"precious"

        repository = await Repository.open(await open_store(stage.url), stage.keys)
        await delete_point(repository, status["recoveryPointId"])
        deletion = {"storageLocation": "main", "recoveryPointId": status["recoveryPointId"]}
        stage.apply("DeleteBackup", "gone", deletion)
        deleted = await stage.ended("deletebackup", "gone")
        assert (deleted["phase"], deleted["deleted"]) == ("Completed", 1)

        header, row = stage.kubectl("get", "backups").splitlines()
        assert header.split() == ["NAME", "PHASE", "POINT", "AGE"]
        assert row.split()[:3] == ["first", "Completed", status["recoveryPointId"]]
        assert stage.kubectl("get", "restores").split()[4:7] == ["back", "Completed", status["recoveryPointId"]]
        assert stage.kubectl("get", "backupstoragelocations").split()[5:9] == ["main", "Available", stage.url, "Opened"]
        events = stage.get("events", "--field-selector", "involvedObject.name=first")["items"]
        assert {each["reason"] for each in events} >= {"InProgress", "Completed"}
        described = stage.kubectl("describe", "backup", "first")
        assert "Completed" in described
        assert "strongroom-extension" in described
    cluster.kubectl("delete", "namespace", "shop-back", "--wait=false")


def test_kubectl_explains_every_kind(defined: Testbed) -> None:
    assert "includedNamespaces" in defined.kubectl("explain", "backups.spec.selection")
    assert "conflictPolicy" in defined.kubectl("explain", "restores.spec.criteria")
    assert "base64 of 32 bytes" in defined.kubectl("explain", "backupstoragelocations.spec.root")
    assert "No shell runs it" in defined.kubectl("explain", "backuphooks.spec.backupHook.preHooks.exec.command")
    assert "waitTimeout" in defined.kubectl("explain", "restorehooks.spec.restoreHook.postHooks.exec")


AZURE_HOOK = """
apiVersion: clusterbackup.dataprotection.microsoft.com/v1alpha1
kind: BackupHook
metadata:
  name: bkphookname0
  namespace: default
spec:
  backupHook:
  - name: hook1
    includedNamespaces:
    - hrweb
    excludedNamespaces:
    labelSelector:
    preHooks:
      - exec:
          container: webcontainer
          command:
            - /bin/uname
            - -a
          onError: Continue
          timeout: 10s
"""


def test_azure_s_example_of_a_hook_is_taken_with_its_empty_keys(defined: Testbed) -> None:
    defined.kubectl("apply", "-f", "-", stdin=AZURE_HOOK)
    assert defined.kubectl("get", "backuphooks", "-n", "default", "-o", "name").strip()
    defined.kubectl("delete", "backuphook", "bkphookname0", "-n", "default")


ROOT = base64.b64encode(bytes(32)).decode()
LOCATION = {"url": "az://account1/container", "root": ROOT}


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        ("Backup", {**backup_spec("a"), "dryRuns": True}, 'unknown field "spec.dryRuns"'),
        ("Backup", {"storageLocation": "main"}, "spec.selection: Required"),
        ("Backup", {**backup_spec("a"), "storageLocation": ""}, "spec.storageLocation"),
        ("Restore", {**restore_spec("p", "a", "b"), "recoveryPointId": ""}, "spec.recoveryPointId"),
        (
            "Restore",
            {**restore_spec("p", "a", "b"), "criteria": {"includeClusterScopeResources": False, "conflictPolicy": "x"}},
            "spec.criteria.conflictPolicy",
        ),
        ("BackupStorageLocation", {**LOCATION, "root": "c2hvcnQ="}, "spec.root"),
        ("BackupStorageLocation", {**LOCATION, "url": "https://somewhere"}, "spec.url"),
        ("BackupStorageLocation", {**LOCATION, "clusterEndpoint": "somewhere"}, "spec.clusterEndpoint"),
    ],
)
def test_the_api_server_refuses_what_is_no_document(
    defined: Testbed, kind: str, spec: dict[str, Any], said: str
) -> None:
    with pytest.raises(ComponentFailed, match=r"is invalid|strict decoding") as refused:
        defined.kubectl("apply", "-f", "-", stdin=json.dumps(resource(kind, "wrong", spec)))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "spec", "changed"),
    [
        ("Backup", backup_spec("a"), backup_spec("b")),
        ("Restore", restore_spec("p", "a", "b"), restore_spec("p", "a", "c")),
        (
            "DeleteBackup",
            {"storageLocation": "m", "recoveryPointId": "p"},
            {"storageLocation": "m", "recoveryPointId": "q"},
        ),
        ("BackupStorageLocation", LOCATION, {**LOCATION, "root": base64.b64encode(b"x" * 32).decode()}),
        ("BackupStorageLocation", LOCATION, {**LOCATION, "url": "az://account1/other"}),
    ],
)
def test_a_spec_does_not_change(defined: Testbed, kind: str, spec: dict[str, Any], changed: dict[str, Any]) -> None:
    name = uuid.uuid4().hex
    defined.kubectl("create", "-f", "-", stdin=json.dumps(resource(kind, name, spec)))
    with pytest.raises(ComponentFailed, match=r"does not change|is pinned"):
        defined.kubectl("replace", "-f", "-", stdin=json.dumps(resource(kind, name, changed)))
    assert get(defined, kind, name, "-n", OWN_NAMESPACE)["spec"] == spec
    labelled = resource(kind, name, spec)
    labelled["metadata"]["labels"] = {"may": "change"}
    defined.kubectl("replace", "-f", "-", stdin=json.dumps(labelled))


def test_the_cluster_endpoint_of_a_location_may_change(defined: Testbed) -> None:
    for spec in (LOCATION, {**LOCATION, "clusterEndpoint": "http://10.99.0.1:10000"}):
        defined.kubectl("apply", "-f", "-", stdin=json.dumps(resource("BackupStorageLocation", "endpoint", spec)))


async def test_a_location_that_does_not_open_says_why_and_a_backup_to_it_fails_with_the_reason(
    stage: WatchStage,
) -> None:
    with stage.running():
        root = base64.b64encode(stage.keys.root_public).decode()
        stage.apply("BackupStorageLocation", "main", {"url": stage.url, "root": root})
        stage.apply("BackupStorageLocation", "other", {"url": stage.url, "root": ROOT})
        stage.apply("BackupStorageLocation", "absent", {"url": f"{stage.url}-absent", "root": root})

        async def checked() -> bool:
            found = stage.get("backupstoragelocations")["items"]
            return all(each.get("status", {}).get("phase") == "Unavailable" for each in found)

        await eventually(checked)
        found = {each["metadata"]["name"]: each["status"] for each in stage.get("backupstoragelocations")["items"]}
        assert found["main"]["conditions"][0]["reason"] == "NotAllowed"
        command = f"repository allow --recipient {found['main']['recipient']} --writer {found['main']['writer']}"
        assert command in found["main"]["conditions"][0]["message"]
        assert found["other"]["conditions"][0]["reason"] == "NotAllowed"
        assert found["absent"]["conditions"][0]["reason"] not in ("NotAllowed", "Opened")
        status = await stage.back_up("early", "shop")
        assert status["phase"] == "Failed"
        assert "wrapped for this recipient" in status["error"]["message"]
        stage.apply("Backup", "nowhere", {**backup_spec("shop"), "storageLocation": "nowhere"})
        assert "no BackupStorageLocation 'nowhere'" in (await stage.ended("backup", "nowhere"))["error"]["message"]
        await stage.locate()
        assert (await stage.back_up("late", "shop"))["phase"] == "Completed"


async def test_deleting_a_running_backup_cancels_it_and_leaves_nothing(stage: WatchStage, cluster: Testbed) -> None:
    with stage.running():
        await stage.locate()
        stage.doom("store packs/", "hold")
        stage.apply("Backup", "one", backup_spec("shop"))

        async def held() -> bool:
            return stage.doomed()

        await eventually(held)
        assert stage.get("backup", "one")["status"]["phase"] == "InProgress"

        async def progress() -> bool:
            return "phase" in stage.get("backup", "one")["status"].get("progress", {})

        await eventually(progress)
        stage.kubectl("delete", "backup", "one", "--timeout=10s")
        await until_logged(stage, "phase='Cancelled'")

        async def swept() -> bool:
            return not get(cluster, "volumesnapshots", "-n", "shop").get("items")

        await eventually(swept)
        assert await stage.callers() == []
        stage.apply("Backup", "one", backup_spec("shop"))
        assert (await stage.ended("backup", "one"))["phase"] == "Completed"
        assert [each["job"] for each in await stage.callers()] == ["one"]


async def test_a_backup_made_anew_under_the_same_name_is_new_work(stage: WatchStage) -> None:
    with stage.running():
        await stage.locate()
        first = await stage.back_up("same", "shop")
        stage.kubectl("delete", "backup", "same")
        second = await stage.back_up("same", "shop")
    assert first["recoveryPointId"] != second["recoveryPointId"]
    callers = await stage.callers()
    assert [each["job"] for each in callers] == ["same", "same"]
    assert len({each["resourceUid"] for each in callers}) == 2


async def test_a_process_that_starts_later_carries_out_what_waits_and_nothing_twice(stage: WatchStage) -> None:
    with stage.running():
        await stage.locate()
        await stage.back_up("done", "shop")
    stage.apply("Backup", "waiting", backup_spec("shop"))
    with stage.running():
        assert (await stage.ended("backup", "waiting"))["phase"] == "Completed"
    assert sorted(each["job"] for each in await stage.callers()) == ["done", "waiting"]


async def test_one_process_works_and_another_takes_over_when_it_is_killed(stage: WatchStage) -> None:
    with stage.running() as first:
        await stage.locate()
        stage.start()
        await until_logged(stage, "waiting for the lease")
        holder = stage.get("lease", "strongroom-extension")["spec"]["holderIdentity"]
        assert f":{first.pid}:" in holder
        first.kill()
        first.wait()
        stage.processes.remove(first)
        assert (await stage.back_up("after", "shop"))["phase"] == "Completed"
        assert stage.get("lease", "strongroom-extension")["spec"]["holderIdentity"] != holder
        stage.kubectl("delete", "lease", "strongroom-extension")
        assert (await stage.back_up("without", "shop"))["phase"] == "Completed"


async def test_who_lost_the_lease_stops_and_begins_anew_when_it_is_free_again(stage: WatchStage) -> None:
    with stage.running():
        await stage.locate()
        thief = json.dumps({"spec": {"holderIdentity": "process:another-machine:1:1/x"}})
        stage.kubectl("patch", "lease", "strongroom-extension", "--type=merge", "-p", thief)
        await until_logged(stage, "lease lost")
        stage.apply("Backup", "one", backup_spec("shop"))
        await until_logged(stage, "waiting for the lease")
        assert "status" not in stage.get("backup", "one")
        stage.kubectl("delete", "lease", "strongroom-extension")
        assert (await stage.ended("backup", "one"))["phase"] == "Completed"
        stage.kubectl("delete", "backupstoragelocation", "main")
        assert (await stage.back_up("two", "shop"))["phase"] == "Failed"


async def test_a_watch_whose_revision_is_gone_lists_anew(cluster: Testbed, tmp_path: Path) -> None:
    with FaultProxy.for_cluster(cluster.kubeconfig) as proxy:
        kubeconfig = proxy.write_kubeconfig(tmp_path / "kubeconfig")
        stage = await WatchStage.build(cluster, tmp_path, kubeconfig=kubeconfig)
        path = f"/apis/backup.strongroom.dev/v1alpha1/namespaces/{OWN_NAMESPACE}/backups"
        proxy.add(Rule(Expired(), method="GET", path=rf"{path}\?.*watch=true", times=2))
        with stage.running():
            await stage.locate()
            assert (await stage.back_up("one", "shop"))["phase"] == "Completed"
        assert "list anew" in stage.log()


async def test_statuses_that_could_not_be_written_are_written_later_and_not_too_often(
    cluster: Testbed, tmp_path: Path
) -> None:
    with FaultProxy.for_cluster(cluster.kubeconfig) as proxy:
        kubeconfig = proxy.write_kubeconfig(tmp_path / "kubeconfig")
        stage = await WatchStage.build(cluster, tmp_path, kubeconfig=kubeconfig)
        with stage.running():
            await stage.locate()
            path = f"/apis/backup.strongroom.dev/v1alpha1/namespaces/{OWN_NAMESPACE}/backups/one/status"
            proxy.add(Rule(Status(503), method="PATCH", path=path, times=5))
            put(cluster, "shop", config_map("changing", number="later"))
            stage.doom("store packs/", "hold")
            began = asyncio.get_running_loop().time()
            stage.apply("Backup", "one", backup_spec("shop"))

            async def told() -> bool:
                return "progress" in stage.get("backup", "one").get("status", {})

            await eventually(told)
            seconds = asyncio.get_running_loop().time() - began
            # One for each phase, five refused, and one of progress every two seconds.
            assert proxy.count("PATCH", path) <= 2 + 5 + seconds / 2 + 1
            assert "status not written yet" in stage.log()
            stage.kubectl("delete", "backup", "one")
            await until_logged(stage, "phase='Cancelled'")


async def test_credentials_come_from_the_secret_of_the_location_as_they_are_at_each_job(
    cluster: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with azurite() as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        stage = await WatchStage.build(cluster, tmp_path, url=service.make_container("watched"))
        key = service.environment["AZURE_STORAGE_ACCOUNT_KEY"]
        wrong = base64.b64encode(b"WRONGKEY" * 8).decode()

        def secret(value: str) -> None:
            document = stage.kubectl(
                *("create", "secret", "generic", "storage-main", f"--from-literal=accountKey={value}"),
                *("--dry-run=client", "-o", "json"),
            )
            stage.kubectl("apply", "-f", "-", stdin=document)

        secret(key)
        # The extension itself has nothing in its environment.
        for name in service.environment:
            monkeypatch.delenv(name)
        with stage.running():
            root = base64.b64encode(stage.keys.root_public).decode()
            stage.apply("BackupStorageLocation", "main", {"url": stage.url, "root": root})
            monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", key)
            await stage.locate()
            secret(wrong)
            denied = await stage.back_up("denied", "shop")
            assert denied["phase"] == "Failed"
            secret(key)
            assert (await stage.back_up("allowed", "shop"))["phase"] == "Completed"
        assert key not in stage.log()
        assert wrong not in stage.log()
        assert key not in json.dumps(stage.get("backups,backupstoragelocations,events"))
        stage.kubectl("delete", "secret", "storage-main")


async def test_finished_ones_are_removed_after_seven_days_and_others_stay(stage: WatchStage) -> None:
    with stage.running():
        await stage.locate()
        await stage.back_up("old", "shop")
        stage.apply("Backup", "failed", {**backup_spec("shop"), "storageLocation": "nowhere"})
        await stage.ended("backup", "failed")
    access = load_kubeconfig(stage.testbed.kubeconfig, None)
    async with KubeApi(access) as api:
        keys = await ensure_keys(api, OWN_NAMESPACE)
    later = timedelta(days=6, hours=23)

    def clock() -> datetime:
        return datetime.now(UTC) + later

    async def gone() -> bool:
        return not stage.get("backups").get("items")

    context = RunContext(access, keys, OWN_NAMESPACE)
    watching = asyncio.create_task(Watcher(context, hosted=False, clock=clock, clearing_seconds=0.2).run())
    try:
        stage.apply("Backup", "new", backup_spec("shop"))
        assert (await stage.ended("backup", "new"))["phase"] == "Completed"
        assert len(stage.get("backups")["items"]) == 3
        later = timedelta(days=7, hours=1)
        await eventually(gone)
        assert stage.get("backupstoragelocation", "main")
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert len(await stage.callers()) == 2, "recovery points stay"
    assert stage.get("lease", "strongroom-extension")["spec"]["holderIdentity"] == ""


async def test_a_hosted_extension_does_not_open_what_a_resource_says_of_the_server_s_own_disk(
    stage: WatchStage,
) -> None:
    access = load_kubeconfig(stage.testbed.kubeconfig, None)
    async with KubeApi(access) as api:
        keys = await ensure_keys(api, OWN_NAMESPACE)
    watching = asyncio.create_task(Watcher(RunContext(access, keys, OWN_NAMESPACE), hosted=True).run())
    try:
        root = base64.b64encode(KeyFile.load(stage.folder / "key.json").root_public).decode()
        stage.apply("BackupStorageLocation", "main", {"url": stage.url, "root": root})
        stage.apply("BackupStorageLocation", "cloud", {"url": "az://account1/container", "root": root})

        async def checked() -> bool:
            found = stage.get("backupstoragelocations")["items"]
            return all(each.get("status", {}).get("phase") == "Unavailable" for each in found)

        await eventually(checked)
        found = {each["metadata"]["name"]: each["status"] for each in stage.get("backupstoragelocations")["items"]}
        assert found["main"]["conditions"][0]["reason"] == "LocalStoreRefused"
        assert found["cloud"]["conditions"][0]["reason"] == "CredentialsMissing"
        status = await stage.back_up("one", "shop")
        assert (status["phase"], "folder of the server" in status["error"]["message"]) == ("Failed", True)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_holder_that_renews_keeps_the_lease_and_one_that_is_silent_loses_it(stage: WatchStage) -> None:
    def foreign(renewed: str) -> str:
        spec = {"holderIdentity": "process:another-machine:1:1/x", "leaseDurationSeconds": 3, "renewTime": renewed}
        metadata = {"name": "strongroom-extension", "namespace": OWN_NAMESPACE}
        return json.dumps({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec})

    # A clock that is years ahead, and one that is years behind, tell us nothing.
    stage.kubectl("apply", "-f", "-", stdin=foreign("2036-01-01T00:00:00.000000Z"))
    async with KubeApi.from_kubeconfig(stage.testbed.kubeconfig) as api:
        lease = Lease(api, OWN_NAMESPACE, seconds=8.0)
        acquired = asyncio.create_task(lease.acquire())
        began = asyncio.get_running_loop().time()
        for year in ("2016", "2017", "2018"):
            await asyncio.to_thread(stage.kubectl, "apply", "-f", "-", stdin=foreign(f"{year}-01-01T00:00:00.000000Z"))
            await asyncio.sleep(1)
        silent = asyncio.get_running_loop().time()
        assert not acquired.done()
        await asyncio.wait_for(acquired, 30)
        assert asyncio.get_running_loop().time() - began > 8
        assert asyncio.get_running_loop().time() - silent > 5
        assert stage.get("lease", "strongroom-extension")["spec"]["holderIdentity"] == lease.identity
        await lease.release()
        assert stage.get("lease", "strongroom-extension")["spec"]["holderIdentity"] == ""


async def test_a_hosted_extension_carries_out_resources_with_the_rights_that_connecting_and_installing_give(
    stage: WatchStage, cluster: Testbed, tmp_path: Path
) -> None:
    cluster.kubectl("label", "namespace", OWN_NAMESPACE, f"{manifests.MANAGED_BY}={manifests.OWNER}", "--overwrite")
    access = (await connect(admin_of(cluster))).access()
    await install_extension(access, ExtensionSettings(storage_locations=("main",)))
    assert "heartbeat" in str((await extension_health(access, now=datetime.now(UTC))).missing)
    vault = await bind_trusted_access(access, "binding", VAULT)
    extension = HostedExtension(
        server=cluster.server,
        ca=cluster.ca_file.read_text(),
        token_file=tmp_path / "token",
        namespace=OWN_NAMESPACE,
        allow_loopback=True,
    )
    async with TokenFile(access, manifests.EXTENSION, tmp_path / "token"):
        keys = await extension.start()
        try:
            store = await open_store(stage.url)
            await add_writer(store, stage.keys.root, keys.writer, backup_only=True)
            await add_recipient(store, stage.keys, keys.recipient)
            root = base64.b64encode(stage.keys.root_public).decode()
            location = resource("BackupStorageLocation", "main", {"url": stage.url, "root": root})
            known = parse_document(location)
            assert isinstance(known, BackupStorageLocation)
            await extension.location(known)
            stage.apply("BackupStorageLocation", "main", location["spec"])
            async with access.api(vault) as api:
                backup = resource("Backup", "one", backup_spec("shop"))
                await api.create(KINDS[Kind.BACKUP], backup, OWN_NAMESPACE)
            status = await stage.ended("backup", "one")
            assert (status["phase"], status.get("warnings")) == ("Completed", None)

            async def available() -> bool:
                return bool(stage.get("backupstoragelocation", "main").get("status", {}).get("phase") == "Available")

            await eventually(available)
            events = stage.get("events", "--field-selector", "involvedObject.name=one")["items"]
            assert "Completed" in {each["reason"] for each in events}
            health = await extension_health(access, now=datetime.now(UTC))
            assert (health.missing, health.running) == ((), __version__)
            assert (await extension_health(access, now=datetime.now(UTC) + timedelta(minutes=10))).missing
        finally:
            await extension.stop()
    assert stage.get("lease", "strongroom-extension")["spec"]["holderIdentity"] == ""
    await remove_extension(access)
    assert stage.get("lease", "strongroom-extension") == {}


def test_a_resource_is_shown_with_its_group_and_short_category(stage: WatchStage) -> None:
    stage.kubectl("apply", "-f", "-", stdin=json.dumps(resource("Backup", "shown", backup_spec("shop"))))
    assert "backup.backup.strongroom.dev/shown" in stage.kubectl("get", "strongroom", "-o", "name")
