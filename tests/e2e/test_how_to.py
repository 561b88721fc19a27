"""The how-to, step for step, by Microsoft's own clients: reference/back-up-aks-using-powershell.md.

Each step's effect is looked for where it must show: in the cluster, in the container, in the API server's audit log,
not only in the answer.
"""

import asyncio
import base64
import contextlib
import io
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.exceptions import HttpResponseError
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.containerservice import ContainerServiceClient
from azure.mgmt.dataprotection import DataProtectionMgmtClient
from azure.mgmt.kubernetesconfiguration.extensions import KubernetesConfigurationExtensionsMgmtClient
from azure.mgmt.resource.resources import ResourceManagementClient
from azure.mgmt.resourcegraph import ResourceGraphClient
from azure.mgmt.storage import StorageManagementClient

from strongroom.controlplane.clusters.manifests import (
    BINDING_LABEL,
    EXTENSION,
    NAMESPACE,
    OWN_GROUP,
    VAULT_ANNOTATION,
    VAULT_RESOURCES,
    VAULT_VERBS,
)
from strongroom.controlplane.home import Home
from strongroom.controlplane.state.database import Database
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.objects import STORAGE_CLASS_IMMEDIATE
from strongroom.testbed.options import TestbedOptions
from strongroom.testbed.sharing import shared_testbed
from strongroom.testbed.stores import Azurite, azurite

from ..arm_bodies import hourly_policy
from ..serving import RunningServer, running_server

LOCATION = "westus"
JOB_SECONDS = 180  # a backup takes seconds; the machine may be busy with other tests
DATASOURCE = "Microsoft.ContainerService/managedClusters"
PROVIDERS = (
    "Microsoft.KubernetesConfiguration",
    "Microsoft.DataProtection",
    "Microsoft.ContainerService",
    "Microsoft.Storage",
)
OPERATOR = "Microsoft.DataProtection/backupVaults/backup-operator"

# The PowerShell template: every 4 hours, kept for 7 days.
POLICY = hourly_policy()


def application(namespace: str) -> str:
    """Return a small application: some of it labelled `env=prod`, some not, and a volume with data."""
    labels = {"env": "prod"}
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": namespace, "labels": labels},
            "data": {"greeting": "hello"},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "scratch", "namespace": namespace},
            "data": {"left": "out"},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "password", "namespace": namespace, "labels": labels},
            "stringData": {"value": "swordfish"},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": namespace, "labels": labels},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": STORAGE_CLASS_IMMEDIATE,
                "resources": {"requests": {"storage": "1Mi"}},
            },
        },
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


@dataclass
class Stage:
    """A server, the official clients for it, and the names of this run. The cluster lies in another subscription."""

    server: RunningServer
    testbed: Testbed
    store: Azurite
    other: str
    namespace: str
    lives: contextlib.ExitStack
    audited: int = 0
    """How much of the audit log was written when the test began."""
    how_it_runs: dict[str, str] = field(default_factory=dict)
    """The extension's further configuration settings: where its process runs. Unsaid: beside the server."""
    container: str = field(default_factory=lambda: f"backups-{uuid.uuid4().hex[:6]}")

    def __post_init__(self) -> None:
        server = self.server
        self.dp: Any = server.client(DataProtectionMgmtClient)
        self.vault_id = self.id_of("testBkpVaultRG", "Microsoft.DataProtection/backupVaults/TestBkpVault")
        self.cluster_id = self.id_of(
            "aksrg", "Microsoft.ContainerService/managedClusters/PSTestAKSCluster", subscription=self.other
        )
        self.snapshots = f"/subscriptions/{self.other}/resourceGroups/snapshotrg"
        self.account_id = self.id_of("aksrg", "Microsoft.Storage/storageAccounts/aksbackups", subscription=self.other)

    def id_of(self, group: str, rest: str, *, subscription: str = "") -> str:
        return f"/subscriptions/{subscription or self.server.subscription}/resourceGroups/{group}/providers/{rest}"

    def client(self, kind: Any, *, subscription: str = "") -> Any:
        return self.server.client(kind, subscription=subscription or self.server.subscription)

    def instance(self, *, blanks: bool = False) -> dict[str, Any]:
        """Return the request of the how-to: everything labelled env=prod, cluster-scoped objects and volumes too."""
        # The how-to's own ids have stray blanks.
        cluster = self.cluster_id.replace("aksrg", "aksrg ") + " " if blanks else self.cluster_id
        source = {
            "objectType": "Datasource",
            "datasourceType": DATASOURCE,
            "resourceType": "Microsoft.ContainerService/managedclusters",
            "resourceID": cluster,
            "resourceUri": cluster,
            "resourceName": "PSTestAKSCluster",
            "resourceLocation": LOCATION,
        }
        return {
            "objectType": "BackupInstance",
            "friendlyName": "PSTestAKSCluster/shop",
            "dataSourceInfo": source,
            "dataSourceSetInfo": {**source, "objectType": "DatasourceSet"},
            "policyInfo": {
                "policyId": f"{self.vault_id}/backupPolicies/aksBkpPolicy",
                "policyParameters": {
                    "dataStoreParametersList": [
                        {
                            "objectType": "AzureOperationalStoreParameters",
                            "dataStoreType": "OperationalStore",
                            "resourceGroupId": self.snapshots,
                        }
                    ],
                    "backupDatasourceParametersList": [
                        {
                            "objectType": "KubernetesClusterBackupDatasourceParameters",
                            "snapshotVolumes": True,
                            "includeClusterScopeResources": True,
                            "labelSelectors": ["env=prod"],
                        }
                    ],
                },
            },
        }

    def wait_for_job(self, job_id: str) -> Any:
        """Poll a job as the portal does, until it has ended."""
        deadline = time.monotonic() + JOB_SECONDS
        while True:
            job = self.dp.jobs.get("testBkpVaultRG", "TestBkpVault", job_id.rpartition("/")[2])
            if job.properties.status != "InProgress":
                return job
            assert time.monotonic() < deadline, f"the job is still {job.properties.status}"
            time.sleep(0.3)

    def kubectl(self, *words: str) -> Any:
        return json.loads(self.testbed.kubectl(*words, "-o", "json"))

    def audit(self, since: int = 0) -> list[Any]:
        """Return what the API server did since, as its audit log has it, by whom and from where."""
        lines = self.testbed.audit_log.read_bytes()[since or self.audited :].splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def stage(testbeds_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("how-to")
    namespace = f"shop-{uuid.uuid4().hex[:6]}"
    # A cluster of its own: other tests make our namespace by hand, and connecting refuses what is not labelled ours.
    with (
        shared_testbed(testbeds_folder / "how-to", TestbedOptions(audit=True)) as testbed,
        azurite() as store,
        contextlib.ExitStack() as lives,
    ):
        server = lives.enter_context(running_server(folder))
        began = testbed.audit_log.stat().st_size
        yield Stage(server, testbed, store, make_subscription(server), namespace, lives, began)


def make_subscription(server: RunningServer) -> str:
    """The how-to's cluster lies in another subscription than its vault."""
    answer = requests.put(
        f"{server.url}/providers/Microsoft.Subscription/aliases/clusters?api-version=2021-10-01",
        json={"properties": {"displayName": "clusters", "workload": "Production"}},
        headers={"Authorization": f"Bearer {server.token()}"},
        verify=server.ready["caFile"],
        timeout=30,
    )
    assert answer.status_code in {200, 201}, answer.text
    return str(answer.json()["properties"]["subscriptionId"])


def test_the_how_to_step_for_step(stage: Stage) -> None:
    follow_the_how_to(stage)


def follow_the_how_to(stage: Stage) -> None:
    register_providers(stage)
    create_vault(stage)
    create_policy(stage)
    prepare_storage(stage)
    connect_cluster(stage)
    connected = stage.testbed.audit_log.stat().st_size
    install_extension(stage)
    enable_trusted_access(stage)
    stage.testbed.kubectl("apply", "-f", "-", stdin=application(stage.namespace))
    stage.testbed.kubectl(
        "wait", "pvc/data", "-n", stage.namespace, "--for=jsonpath={.status.phase}=Bound", "--timeout=60s"
    )
    (volume_of(stage, stage.namespace) / "ledger.txt").write_text("42\n")

    name = f"PSTestAKSCluster-PSTestAKSCluster-{uuid.uuid4()}"
    refused_without_roles(stage)
    assign_roles(stage)
    validate(stage)
    protect(stage, name)
    first = back_up(stage, name, "Default")
    second = back_up(stage, name, "BackupHourly")
    find_jobs(stage, {first, second})
    point = recovery_point(stage, name)
    extension_wrote_nothing_of_users(stage)
    restore(stage, name, point)
    switch_off_and_on(stage)
    back_up(stage, name, "Default")
    take_access_away(stage, name)
    change_protection(stage, name)
    delete_and_undelete(stage, name)
    vault_touched_our_documents_alone(stage)
    nobody_was_administrator(stage, connected)


def volume_of(stage: Stage, namespace: str) -> Path:
    """Return the folder that holds the bytes of the application's volume."""
    claim = stage.kubectl("get", "pvc", "data", "-n", namespace)
    volume = stage.kubectl("get", "pv", claim["spec"]["volumeName"])
    return stage.testbed.volume_path(volume["spec"]["csi"]["volumeHandle"])


def register_providers(stage: Stage) -> None:
    """Before you start: an unregistered provider is a failure, and registering one mends it."""
    for subscription in (stage.server.subscription, stage.other):
        resources = stage.client(ResourceManagementClient, subscription=subscription)
        for namespace in PROVIDERS:
            resources.providers.register(namespace)
            assert resources.providers.get(namespace).registration_state == "Registered"


def create_vault(stage: Stage) -> None:
    resources = stage.client(ResourceManagementClient)
    resources.resource_groups.create_or_update("testBkpVaultRG", {"location": LOCATION})
    elsewhere = stage.client(ResourceManagementClient, subscription=stage.other)
    for group in ("aksrg", "snapshotrg"):
        elsewhere.resource_groups.create_or_update(group, {"location": LOCATION})
    body = {
        "location": "West US",
        "identity": {"type": "SystemAssigned"},
        "properties": {"storageSettings": [{"datastoreType": "OperationalStore", "type": "LocallyRedundant"}]},
    }
    for vault in ("TestBkpVault", "OtherVault"):
        made = stage.dp.backup_vaults.begin_create_or_update("testBkpVaultRG", vault, body).result()
        assert made.properties.provisioning_state == "Succeeded"
        assert made.identity.principal_id
    assert stage.dp.backup_vaults.get("testBkpVaultRG", "testbkpvault").id == stage.vault_id


def create_policy(stage: Stage) -> None:
    made = stage.dp.backup_policies.create_or_update("testBkpVaultRG", "TestBkpVault", "aksBkpPolicy", POLICY)
    rules = stage.dp.backup_policies.get("testBkpVaultRG", "TestBkpVault", "aksBkpPolicy").properties.policy_rules
    assert [rule.name for rule in rules] == ["BackupHourly", "Default"], "the how-to reads rules by their place"
    assert made.name == "aksBkpPolicy"


def prepare_storage(stage: Stage) -> None:
    """An account in a cloud, which here is Azurite: what the extension gets of it goes through the cluster."""
    storage = stage.client(StorageManagementClient, subscription=stage.other)
    key = stage.store.environment["AZURE_STORAGE_ACCOUNT_KEY"]
    location = {
        "url": f"az://{stage.store.account}?endpoint={stage.store.endpoint}",
        "credentials": {"accountKey": key},
    }
    body = {
        "location": LOCATION,
        "kind": "StorageV2",
        "sku": {"name": "Standard_LRS"},
        "properties": {"strongroomLocation": location},
    }
    account = storage.storage_accounts.begin_create("aksrg", "aksbackups", json_body(body)).result()
    assert key not in json.dumps(account.as_dict())
    stage.store.make_container(stage.container)
    storage.blob_containers.create("aksrg", "aksbackups", stage.container, {})


def connect_cluster(stage: Stage) -> None:
    clusters = stage.client(ContainerServiceClient, subscription=stage.other)
    kubeconfig = base64.b64encode(stage.testbed.kubeconfig.read_bytes()).decode()
    body = {
        "location": LOCATION,
        "identity": {"type": "SystemAssigned"},
        "properties": {"strongroomConnection": {"kubeconfig": kubeconfig}},
    }
    made = clusters.managed_clusters.begin_create_or_update("aksrg", "PSTestAKSCluster", json_body(body)).result()
    assert made.provisioning_state == "Succeeded"
    assert made.identity.principal_id
    assert "kubeconfig" not in json.dumps(made.as_dict()).lower()
    assert stage.kubectl("get", "namespace", "dataprotection-microsoft")


def json_body(body: dict[str, Any]) -> Any:
    """Models drop what they do not know: our own property goes as bytes."""
    return io.BytesIO(json.dumps(body).encode())


def install_extension(stage: Stage) -> None:
    extensions = stage.client(KubernetesConfigurationExtensionsMgmtClient, subscription=stage.other)
    prefix = "configuration.backupStorageLocation."
    body = {
        "properties": {
            "extensionType": "microsoft.dataprotection.kubernetes",
            "autoUpgradeMinorVersion": True,
            "releaseTrain": "stable",
            "scope": {"cluster": {}},
            "configurationSettings": {
                f"{prefix}bucket": stage.container,
                f"{prefix}config.storageAccount": "aksbackups",
                f"{prefix}config.resourceGroup": "aksrg",
                f"{prefix}config.subscriptionId": stage.other,
                f"{prefix}config.useAAD": "true",
                "credentials.tenantId": stage.server.ready["tenantId"],
                **stage.how_it_runs,
            },
        }
    }
    where = ("aksrg", "Microsoft.ContainerService", "managedClusters", "PSTestAKSCluster", "azure-aks-backup")
    made = extensions.extensions.begin_create(*where, body).result()
    assert made.properties.provisioning_state == "Succeeded"
    assert made.properties.aks_assigned_identity.principal_id
    accounts = stage.kubectl("get", "serviceaccounts", "-n", "dataprotection-microsoft")["items"]
    assert "strongroom-extension" in {a["metadata"]["name"] for a in accounts}


def enable_trusted_access(stage: Stage) -> None:
    clusters = stage.client(ContainerServiceClient, subscription=stage.other)
    body = {"properties": {"sourceResourceId": stage.vault_id, "roles": [OPERATOR]}}
    bindings = clusters.trusted_access_role_bindings
    made = bindings.begin_create_or_update("aksrg", "PSTestAKSCluster", "tarb", body).result()
    assert made.provisioning_state == "Succeeded"
    words = ("get", "serviceaccounts", "-n", "dataprotection-microsoft", "-l", BINDING_LABEL)
    owners = [account["metadata"]["annotations"][VAULT_ANNOTATION] for account in stage.kubectl(*words)["items"]]
    assert stage.vault_id in owners, "the vault has an account of its own in the cluster"


def refused_without_roles(stage: Stage) -> None:
    """The readiness test before roles are assigned: it names every missing one, with the command that mends it."""
    with pytest.raises(HttpResponseError) as caught:
        stage.dp.backup_instances.begin_validate_for_backup(
            "testBkpVaultRG", "TestBkpVault", {"backupInstance": stage.instance()}
        ).result()
    assert caught.value.error is not None
    told = [detail.message for detail in caught.value.error.details]
    assert len(told) == 4, told
    assert all("role" in message for message in told), told


def assign_roles(stage: Stage) -> None:
    """What Set-AzDataProtectionMSIPermission does: it looks roles up by name and assigns them."""
    authorization = stage.client(AuthorizationManagementClient, subscription=stage.other)
    vault = stage.dp.backup_vaults.get("testBkpVaultRG", "TestBkpVault").identity.principal_id
    clusters = stage.client(ContainerServiceClient, subscription=stage.other)
    cluster = clusters.managed_clusters.get("aksrg", "PSTestAKSCluster").identity.principal_id
    extensions = stage.client(KubernetesConfigurationExtensionsMgmtClient, subscription=stage.other)
    where = ("aksrg", "Microsoft.ContainerService", "managedClusters", "PSTestAKSCluster", "azure-aks-backup")
    extension = extensions.extensions.get(*where).properties.aks_assigned_identity.principal_id
    for principal, role, scope in (
        (vault, "Reader", stage.cluster_id),
        (vault, "Reader", stage.snapshots),
        (cluster, "Contributor", stage.snapshots),
        (extension, "Storage Account Contributor", stage.account_id),
    ):
        (found,) = authorization.role_definitions.list(scope, filter=f"roleName eq '{role}'")
        authorization.role_assignments.create(
            scope,
            str(uuid.uuid4()),
            {"role_definition_id": found.id, "principal_id": principal, "principal_type": "ServicePrincipal"},
        )


def validate(stage: Stage) -> None:
    stage.dp.backup_instances.begin_validate_for_backup(
        "testBkpVaultRG", "TestBkpVault", {"backupInstance": stage.instance(blanks=True)}
    ).result()


def protect(stage: Stage, name: str) -> None:
    made = stage.dp.backup_instances.begin_create_or_update(
        "testBkpVaultRG", "TestBkpVault", name, {"properties": stage.instance(blanks=True)}
    ).result()
    assert made.properties.provisioning_state == "Succeeded"
    assert made.properties.current_protection_state == "ProtectionConfigured"
    assert made.properties.data_source_info.resource_id == stage.cluster_id
    found = [i.name for i in stage.dp.backup_instances.list("testBkpVaultRG", "TestBkpVault")]
    assert found == [name]


def back_up(stage: Stage, name: str, rule: str) -> str:
    """An on-demand backup by a retention rule's name, as the how-to does it, and by the backup rule's."""
    body = {"backupRuleOptions": {"ruleName": rule, "triggerOption": {"retentionTagOverride": "Default"}}}
    begun = stage.dp.backup_instances.begin_adhoc_backup("testBkpVaultRG", "TestBkpVault", name, body).result()
    job = stage.wait_for_job(begun.job_id)
    properties = job.properties
    assert properties.status in {"Completed", "CompletedWithWarnings"}, properties.as_dict()
    assert properties.is_user_triggered
    assert properties.extended_info.target_recover_point.recovery_point_id
    tasks = {task.task_name: task for task in properties.extended_info.sub_tasks}
    assert next(iter(tasks)) == "Trigger Backup"
    assert int(tasks[f"Namespace {stage.namespace}"].additional_details["Objects"]) >= 3
    assert tasks[f"Volume {stage.namespace}/data"].additional_details["SnapshotHandle"]
    return str(begun.job_id)


def find_jobs(stage: Stage, jobs: set[str]) -> None:
    """Search-AzDataProtectionJobInAzGraph over two vaults, with the clients' own query."""
    graph = stage.server.client(ResourceGraphClient, subscription="")
    query = (
        "RecoveryServicesResources | where type =~ 'microsoft.dataprotection/backupvaults/backupjobs'"
        "| extend vaultName = properties.vaultName| extend status = properties.status"
        "| extend operation = case( tolower(properties.operationCategory) startswith 'backup' "
        "and properties.isUserTriggered == 'true', strcat('OnDemand',properties.operationCategory), "
        "tolower(properties.operationCategory) startswith 'backup' and properties.isUserTriggered == 'false', "
        "strcat('Scheduled', properties.operationCategory), "
        "type =~ 'microsoft.dataprotection/backupVaults/backupJobs', properties.operationCategory, 'Invalid')"
        "| extend datasourceId = properties.dataSourceId"
        f" | where properties.dataSourceType in~ ('{DATASOURCE}')"
        " | where resourceGroup in~ ('testBkpVaultRG') | where vaultName in~ ('TestBkpVault','OtherVault')"
        " | where operation in~ ('OnDemandBackup')"
    )
    found = graph.resources({"subscriptions": [stage.server.subscription], "query": query})
    assert {row["id"].lower() for row in found.data} == {job.lower() for job in jobs}


def recovery_point(stage: Stage, name: str) -> str:
    points = list(stage.dp.recovery_points.list("testBkpVaultRG", "TestBkpVault", name))
    assert len(points) == 2
    newest = points[0].properties
    assert newest.recovery_point_type == "Incremental"
    assert newest.retention_tag_name == "default"
    assert asyncio.run(stored_points(stage)) == {p.name for p in points}, "each point lies in the container"
    return str(points[0].name)


async def stored_points(stage: Stage) -> set[str]:
    """Return the recovery points whose manifests lie in the container."""
    url = f"az://{stage.store.account}/{stage.container}?endpoint={stage.store.endpoint}"
    store = await open_store(url, credentials={"accountKey": stage.store.environment["AZURE_STORAGE_ACCOUNT_KEY"]})
    try:
        keys = [found.key async for found in store.list("points/")]
    finally:
        await store.close()
    return {key.split("/")[1] for key in keys if key.endswith("/manifest.json")}


def written(event: Any) -> bool:
    """Say whether an audited request was to change anything; asking what one may changes nothing."""
    reviews = {"authorization.k8s.io", "authentication.k8s.io"}
    return event["verb"] not in {"get", "list", "watch"} and event.get("objectRef", {}).get("apiGroup") not in reviews


def account_of(event: Any) -> str:
    """Return the ServiceAccount of our namespace that sent a request, "" for anybody else."""
    return str(event["user"]["username"].partition(f"system:serviceaccount:{NAMESPACE}:")[2])


def extension_wrote_nothing_of_users(stage: Stage) -> None:
    """As long as restore is off, backups write our namespace and the snapshot API, and nothing else."""
    wrote = [event["objectRef"] for event in stage.audit() if account_of(event) == EXTENSION and written(event)]
    groups = {what.get("apiGroup", "") for what in wrote if what.get("namespace") != NAMESPACE}
    assert groups == {"snapshot.storage.k8s.io"}
    assert {"backups", "leases"} <= {what["resource"] for what in wrote}
    own = [what for what in wrote if what["resource"] in VAULT_RESOURCES]
    assert {what.get("subresource") for what in own} == {"status"}


def switch_off_and_on(stage: Stage) -> None:
    """A server that is off for longer than any token lives works again by itself; here the tokens are spoilt."""
    server = stage.server
    server.process.kill()
    server.process.wait()
    for token in (server.home / "clusters").glob("*/token"):
        token.write_text("what has ended meanwhile")
    port = int(server.url.rpartition(":")[2])
    stage.server = stage.lives.enter_context(running_server(server.home.parent, port=port))


def take_access_away(stage: Stage, name: str) -> None:
    """Without its rights in the cluster a vault's next job fails with Azure's code; the binding made again mends it."""
    stage.testbed.kubectl("delete", "rolebinding", "-n", NAMESPACE, "-l", BINDING_LABEL)
    body = {"backupRuleOptions": {"ruleName": "Default", "triggerOption": {"retentionTagOverride": "Default"}}}
    begun = stage.dp.backup_instances.begin_adhoc_backup("testBkpVaultRG", "TestBkpVault", name, body).result()
    job = stage.wait_for_job(begun.job_id)
    assert job.properties.status == "Failed"
    assert [error.code for error in job.properties.error_details] == ["UserErrorTrustedAccessGatewayReturnedForbidden"]
    enable_trusted_access(stage)
    back_up(stage, name, "Default")


def vault_touched_our_documents_alone(stage: Stage) -> None:
    """The vault's identity made, followed and deleted its documents; nothing else was even tried with it."""
    vaults = [event for event in stage.audit() if account_of(event).startswith("vault-")]
    touched = [event for event in vaults if event["objectRef"].get("apiGroup") != "authorization.k8s.io"]
    assert {(event["objectRef"]["namespace"], event["objectRef"]["apiGroup"]) for event in touched} == {
        (NAMESPACE, OWN_GROUP)
    }
    assert {event["objectRef"]["resource"] for event in touched} <= set(VAULT_RESOURCES)
    assert not [event for event in touched if "subresource" in event["objectRef"]]
    assert {event["verb"] for event in touched} <= set(VAULT_VERBS)
    assert {"backups", "restores"} <= {e["objectRef"]["resource"] for e in touched if e["verb"] == "create"}


def nobody_was_administrator(stage: Stage, connected: int) -> None:
    """The administrator's credential connected the cluster. After that it was not used, and it lies nowhere."""
    ours = [event for event in stage.audit(connected) if event["userAgent"].startswith("strongroom")]
    assert {account_of(event) for event in ours} >= {EXTENSION, "strongroom-installer", "strongroom-connector"}
    assert all(account_of(event) for event in ours)
    asked = [event for event in ours if account_of(event) == "strongroom-connector"]
    assert {event["objectRef"]["subresource"] for event in asked if written(event)} == {"token"}
    home = Home.open(stage.server.home)
    database = Database.open(home.database_url, home.secret_key)
    try:
        with database.read() as tx:
            kept = [tx.secrets.get(name) or b"" for name in tx.secrets.names("")]
    finally:
        database.close()
    kept += [path.read_bytes() for path in stage.server.home.rglob("*") if path.is_file()]
    (user,) = json.loads(stage.testbed.kubectl("config", "view", "--raw", "--minify", "-o", "json"))["users"]
    secrets = [value for key, value in user["user"].items() if key in {"client-key-data", "token", "password"}]
    assert secrets
    for secret in secrets:
        for form in (secret.encode(), base64.b64decode(secret)):
            assert not any(form in content for content in kept)


def restore(stage: Stage, name: str, point: str) -> None:
    """Into a mapped namespace of the same cluster; what was labelled comes back, with its volume's data."""
    copy = f"{stage.namespace}-copy"
    info = stage.instance()["dataSourceInfo"]
    request = {
        "objectType": "AzureBackupRecoveryPointBasedRestoreRequest",
        "recoveryPointId": point,
        "sourceDataStoreType": "OperationalStore",
        "restoreTargetInfo": {
            "objectType": "ItemLevelRestoreTargetInfo",
            "recoveryOption": "FailIfExists",
            "restoreLocation": LOCATION,
            "datasourceInfo": info,
            "datasourceSetInfo": {**info, "objectType": "DatasourceSet"},
            "restoreCriteria": [
                {
                    "objectType": "KubernetesClusterRestoreCriteria",
                    "includeClusterScopeResources": False,
                    "includedNamespaces": [stage.namespace],
                    "persistentVolumeRestoreMode": "RestoreWithVolumeData",
                    "conflictPolicy": "Skip",
                    "namespaceMappings": {stage.namespace: copy},
                }
            ],
        },
    }
    where = ("testBkpVaultRG", "TestBkpVault", name)
    stage.dp.backup_instances.begin_validate_for_restore(*where, {"restoreRequestObject": request}).result()
    begun = stage.dp.backup_instances.begin_trigger_restore(*where, request).result()
    job = stage.wait_for_job(begun.job_id)
    assert job.properties.status in {"Completed", "CompletedWithWarnings"}, job.properties.as_dict()
    assert stage.kubectl("get", "configmap", "settings", "-n", copy)["data"] == {"greeting": "hello"}
    secret = stage.kubectl("get", "secret", "password", "-n", copy)["data"]["value"]
    assert base64.b64decode(secret) == b"swordfish"
    names = {m["metadata"]["name"] for m in stage.kubectl("get", "configmaps", "-n", copy)["items"]}
    assert "scratch" not in names, "what the selection left out was not backed up"
    stage.testbed.kubectl("wait", "pvc/data", "-n", copy, "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
    assert (volume_of(stage, copy) / "ledger.txt").read_text() == "42\n"
    # What the restore needed is taken back with its end.
    stage.testbed.kubectl("wait", "clusterrolebinding/strongroom-restore", "--for=delete", "--timeout=120s")


def change_protection(stage: Stage, name: str) -> None:
    instances = stage.dp.backup_instances
    where = ("testBkpVaultRG", "TestBkpVault", name)
    steps: list[tuple[Callable[..., Any], str]] = [
        (instances.begin_stop_protection, "ProtectionStopped"),
        (instances.begin_resume_protection, "ProtectionConfigured"),
        (instances.begin_suspend_backups, "BackupsSuspended"),
        (instances.begin_resume_backups, "ProtectionConfigured"),
    ]
    for begin, state in steps:
        begin(*where).result()
        assert instances.get(*where).properties.current_protection_state == state


def delete_and_undelete(stage: Stage, name: str) -> None:
    instances = stage.dp.backup_instances
    where = ("testBkpVaultRG", "TestBkpVault", name)
    instances.begin_delete(*where).result()
    assert list(instances.list("testBkpVaultRG", "TestBkpVault")) == []
    (deleted,) = stage.dp.deleted_backup_instances.list("testBkpVaultRG", "TestBkpVault")
    assert deleted.properties.current_protection_state == "SoftDeleted"
    stage.dp.deleted_backup_instances.begin_undelete(*where).result()
    assert instances.get(*where).properties.current_protection_state == "ProtectionStopped"
    assert len(list(stage.dp.recovery_points.list(*where))) == 4, "its recovery points came back with it"
