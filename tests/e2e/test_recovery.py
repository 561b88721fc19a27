"""Cluster and server are lost: docs/how-to/disaster-recovery.md is followed, and everything is there again."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.containerservice import ContainerServiceClient
from azure.mgmt.dataprotection import DataProtectionMgmtClient
from azure.mgmt.kubernetesconfiguration.extensions import KubernetesConfigurationExtensionsMgmtClient
from azure.mgmt.resource.resources import ResourceManagementClient
from azure.mgmt.storage import StorageManagementClient

from strongroom.testbed.cluster import Testbed
from strongroom.testbed.options import TestbedOptions

from ..arm_bodies import hourly_policy
from ..serving import RunningServer, running_server

HOW_TO = (Path(__file__).parents[2] / "docs/how-to/disaster-recovery.md").read_text()
LOCATION = "westeurope"
JOB_SECONDS = 180  # a job takes seconds; the machine may be busy with other tests
DATASOURCE = "Microsoft.ContainerService/managedClusters"
PROVIDERS = (
    "Microsoft.KubernetesConfiguration",
    "Microsoft.DataProtection",
    "Microsoft.ContainerService",
    "Microsoft.Storage",
)
POLICY = hourly_policy()


def follow(heading: str, folder: Path, **words: object) -> str:
    """Run what the how-to shows below *heading*, in *folder*; capital words in it become *words*."""
    section = HOW_TO.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    script = "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
    assert script, heading
    script = script.replace("/var/lib/strongroom", str(words.pop("home", "")))
    for word, value in words.items():
        script = re.sub(rf"\b{word}\b", str(value), script)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, script + done.stdout + done.stderr
    assert "AGE-SECRET-KEY" not in done.stdout + done.stderr
    return done.stdout


class Site:
    """A server as an administrator works with it: the resources lie in *subscription* whatever server it is."""

    def __init__(self, server: RunningServer, subscription: str) -> None:
        self.server = server
        self.subscription = subscription
        self.dp: Any = self.client(DataProtectionMgmtClient)
        self.vault = f"{self.group}/providers/Microsoft.DataProtection/backupVaults/vault1"
        self.cluster = f"{self.group}/providers/{DATASOURCE}/aks1"
        self.account = f"{self.group}/providers/Microsoft.Storage/storageAccounts/backups"

    @property
    def group(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/rg"

    @property
    def container(self) -> str:
        return f"{self.account}/blobServices/default/containers/box"

    def client(self, kind: Any) -> Any:
        return self.server.client(kind, subscription=self.subscription)

    def command(self, *words: str) -> None:
        where = ["--ready-file", str(self.server.home.parent / "ready.json"), "--subscription", self.subscription]
        subprocess.run([Path(sys.executable).parent / "strongroom", *words, *where], check=True, timeout=120)

    def register(self) -> None:
        resources = self.client(ResourceManagementClient)
        for namespace in PROVIDERS:
            resources.providers.register(namespace)
        resources.resource_groups.create_or_update("rg", {"location": LOCATION})

    def make_storage(self, url: str) -> None:
        self.command("storage", "attach", "backups", "-g", "rg", "--url", url)
        self.client(StorageManagementClient).blob_containers.create("rg", "backups", "box", {})

    def make_vault(self) -> None:
        body = {
            "location": LOCATION,
            "identity": {"type": "SystemAssigned"},
            "properties": {"storageSettings": [{"datastoreType": "OperationalStore", "type": "LocallyRedundant"}]},
        }
        self.dp.backup_vaults.begin_create_or_update("rg", "vault1", body).result()
        self.dp.backup_policies.create_or_update("rg", "vault1", "gold", POLICY)

    def connect(self, testbed: Testbed) -> None:
        """Connect a cluster as `aks1`, with extension, trusted access and the roles that backups need."""
        self.command("cluster", "connect", "aks1", "-g", "rg", "--kubeconfig", str(testbed.kubeconfig))
        extensions = self.client(KubernetesConfigurationExtensionsMgmtClient)
        prefix = "configuration.backupStorageLocation."
        settings = {
            f"{prefix}bucket": "box",
            f"{prefix}config.storageAccount": "backups",
            f"{prefix}config.resourceGroup": "rg",
            f"{prefix}config.subscriptionId": self.subscription,
        }
        where = ("rg", "Microsoft.ContainerService", "managedClusters", "aks1", "azure-aks-backup")
        extension = extensions.extensions.begin_create(
            *where,
            {
                "properties": {
                    "extensionType": "microsoft.dataprotection.kubernetes",
                    "scope": {"cluster": {}},
                    "configurationSettings": settings,
                }
            },
        ).result()
        clusters = self.client(ContainerServiceClient)
        role = "Microsoft.DataProtection/backupVaults/backup-operator"
        clusters.trusted_access_role_bindings.begin_create_or_update(
            "rg", "aks1", "tarb", {"properties": {"sourceResourceId": self.vault, "roles": [role]}}
        ).result()
        cluster = clusters.managed_clusters.get("rg", "aks1").identity.principal_id
        vault = self.dp.backup_vaults.get("rg", "vault1").identity.principal_id
        for principal, name, scope in (
            (vault, "Reader", self.cluster),
            (vault, "Reader", self.group),
            (cluster, "Contributor", self.group),
            (extension.properties.aks_assigned_identity.principal_id, "Storage Account Contributor", self.account),
        ):
            self.assign(principal, name, scope)

    def assign(self, principal: str, role: str, scope: str) -> None:
        authorization = self.client(AuthorizationManagementClient)
        (found,) = authorization.role_definitions.list(scope, filter=f"roleName eq '{role}'")
        authorization.role_assignments.create(
            scope,
            str(uuid.uuid4()),
            {"role_definition_id": found.id, "principal_id": principal, "principal_type": "ServicePrincipal"},
        )

    def source(self, kind: str = "Datasource") -> dict[str, str]:
        return {
            "objectType": kind,
            "datasourceType": DATASOURCE,
            "resourceType": DATASOURCE,
            "resourceID": self.cluster,
            "resourceName": "aks1",
            "resourceLocation": LOCATION,
        }

    def protect(self) -> None:
        parameters = {
            "dataStoreParametersList": [
                {
                    "objectType": "AzureOperationalStoreParameters",
                    "dataStoreType": "OperationalStore",
                    "resourceGroupId": self.group,
                }
            ],
            "backupDatasourceParametersList": [
                {
                    "objectType": "KubernetesClusterBackupDatasourceParameters",
                    "snapshotVolumes": False,
                    "includeClusterScopeResources": True,
                    "includedNamespaces": ["shop"],
                }
            ],
        }
        instance = {
            "objectType": "BackupInstance",
            "friendlyName": "the shop",
            "dataSourceInfo": self.source(),
            "dataSourceSetInfo": self.source("DatasourceSet"),
            "policyInfo": {"policyId": f"{self.vault}/backupPolicies/gold", "policyParameters": parameters},
        }
        self.dp.backup_instances.begin_create_or_update("rg", "vault1", "shop", {"properties": instance}).result()

    def back_up(self) -> None:
        body = {"backupRuleOptions": {"ruleName": "BackupHourly", "triggerOption": {}}}
        begun = self.dp.backup_instances.begin_adhoc_backup("rg", "vault1", "shop", body).result()
        self.wait(begun.job_id)

    def restore(self, point: str) -> None:
        criteria = {
            "objectType": "KubernetesClusterRestoreCriteria",
            "includeClusterScopeResources": False,
            "includedNamespaces": ["shop"],
            "persistentVolumeRestoreMode": "RestoreWithoutVolumeData",
            "conflictPolicy": "Skip",
        }
        request = {
            "objectType": "AzureBackupRecoveryPointBasedRestoreRequest",
            "recoveryPointId": point,
            "sourceDataStoreType": "OperationalStore",
            "restoreTargetInfo": {
                "objectType": "ItemLevelRestoreTargetInfo",
                "recoveryOption": "FailIfExists",
                "restoreLocation": LOCATION,
                "datasourceInfo": self.source(),
                "datasourceSetInfo": self.source("DatasourceSet"),
                "restoreCriteria": [criteria],
            },
        }
        where = ("rg", "vault1", "shop")
        self.dp.backup_instances.begin_validate_for_restore(*where, {"restoreRequestObject": request}).result()
        self.wait(self.dp.backup_instances.begin_trigger_restore(*where, request).result().job_id)

    def wait(self, job_id: str) -> None:
        deadline = time.monotonic() + JOB_SECONDS
        while (job := self.dp.jobs.get("rg", "vault1", job_id.rpartition("/")[2])).properties.status == "InProgress":
            assert time.monotonic() < deadline, "the job does not end"
            time.sleep(0.3)
        assert job.properties.status in {"Completed", "CompletedWithWarnings"}, job.properties.as_dict()

    def points(self) -> list[str]:
        return [p.name for p in self.dp.recovery_points.list("rg", "vault1", "shop")]


def open_shop(testbed: Testbed) -> None:
    items: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": "shop"},
            "data": {"greeting": "hello"},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "password", "namespace": "shop"},
            "stringData": {"value": "swordfish"},
        },
    ]
    testbed.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def shop(testbed: Testbed) -> tuple[Any, Any]:
    """Return the data of the shop's ConfigMap and Secret."""
    kinds = (("configmap", "settings"), ("secret", "password"))
    settings, password = (json.loads(testbed.kubectl("get", *k, "-n", "shop", "-o", "json"))["data"] for k in kinds)
    return settings, password


@pytest.fixture
def cluster(own_testbed: Callable[..., Testbed]) -> Callable[[], Testbed]:
    return lambda: own_testbed(TestbedOptions(volumes=False))


def test_a_new_server_restores_into_a_second_cluster(cluster: Callable[[], Testbed], tmp_path: Path) -> None:
    first = cluster()
    url = f"file://{tmp_path}/cloud"
    with running_server(tmp_path / "one", storage_roots=(tmp_path,)) as server:
        site = Site(server, server.subscription)
        site.register()
        site.make_storage(url)
        site.make_vault()
        site.connect(first)
        open_shop(first)
        site.protect()
        site.back_up()
        (point,) = site.points()
        before = shop(first)
        follow("Prepare", tmp_path, home=server.home)
        assert not (server.home / "recovery.key").exists()
        home, subscription = server.home, server.subscription
    first.down()
    shutil.rmtree(home)

    new = tmp_path / "two" / "home"
    follow("Rebuild the vaults from a container", tmp_path, home=new, CONTAINER=site.container)
    second = cluster()
    with running_server(tmp_path / "two", storage_roots=(tmp_path,)) as server:
        assert server.subscription != subscription, "it is another server"
        site = Site(server, subscription)
        site.register()
        site.connect(second)
        instance = site.dp.backup_instances.get("rg", "vault1", "shop").properties
        assert instance.current_protection_state == "ProtectionStopped"
        assert site.points() == [point]
        site.restore(point)
        assert shop(second) == before

        site.dp.backup_instances.begin_resume_protection("rg", "vault1", "shop").result()
        site.back_up()
        assert len(site.points()) == 2, "protection goes on as it was"
        follow("Prepare", second_folder(tmp_path), home=server.home)

    # No server any more: the plain command line, by the first kit.
    second.kubectl("delete", "namespace", "shop", "--wait=true", "--timeout=60s")
    (tmp_path / "other.kubeconfig").write_bytes(second.kubeconfig.read_bytes())
    follow("Restore without a server", tmp_path, URL=f"{url}/box")
    assert shop(second) == before


def second_folder(tmp_path: Path) -> Path:
    """The new home's kit and copy go elsewhere: those of the old one are still there."""
    folder = tmp_path / "of-two"
    folder.mkdir()
    return folder


def test_a_home_is_put_back_from_its_copy(cluster: Callable[[], Testbed], tmp_path: Path) -> None:
    testbed = cluster()
    with running_server(tmp_path / "one", storage_roots=(tmp_path,)) as server:
        site = Site(server, server.subscription)
        site.register()
        site.make_storage(f"file://{tmp_path}/cloud")
        site.make_vault()
        site.connect(testbed)
        open_shop(testbed)
        site.protect()
        site.back_up()
        follow("Prepare", tmp_path, home=server.home)
        site.back_up()  # after the copy: the home that is put back does not know of it
        home, points, ready = server.home, set(site.points()), server.ready
    shutil.rmtree(home)
    follow("Put a copy of the home back", tmp_path, home=home, CONTAINER=site.container)
    with running_server(tmp_path / "one", storage_roots=(tmp_path,)) as server:
        site = Site(server, server.subscription)
        assert {k: v for k, v in server.ready.items() if k != "endpoint"} == {
            k: v for k, v in ready.items() if k != "endpoint"
        }
        assert set(site.points()) == points
        site.back_up()
        assert len(site.points()) == len(points) + 1
