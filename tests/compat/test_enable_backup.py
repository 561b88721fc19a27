"""What `az dataprotection enable-backup trigger` asks for, in its order: reference/azure-clients.md, section B.5."""

import base64
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from strongroom.testbed.cluster import Testbed

from ..serving import RunningServer, running_server
from .recorded import RecordedClient, Sent

LOCATION = "westeurope"
KIND = "Microsoft.ContainerService/managedClusters"
EXTENSIONS = "api-version=2023-05-01"
STORAGE = "api-version=2025-08-01"
DP = "api-version=2026-03-01"
OPERATION = "azure-async-operation"


class Site:
    """A server with a connected cluster, and short ways to send to it."""

    def __init__(self, server: RunningServer, client: RecordedClient) -> None:
        self.server = server
        self.client = client
        self.subscription = f"/subscriptions/{server.subscription}"
        self.cluster = f"{self.subscription}/resourceGroups/aksrg/providers/{KIND}/aks1"
        self.group = f"{self.subscription}/resourceGroups/AKSAzureBackup_{LOCATION}"
        self.account = (
            f"{self.group}/providers/Microsoft.Storage/storageAccounts/aksbkp{LOCATION}{uuid.uuid4().hex[:6]}"
        )
        self.vault = f"{self.group}/providers/Microsoft.DataProtection/backupVaults/AKSAzureBackup-{LOCATION}"

    def send(self, method: str, path: str, body: Any = None) -> Sent:
        return self.client.send(method, path, body, command="dataprotection enable-backup trigger")

    def get(self, path: str) -> Any:
        sent = self.send("GET", path)
        assert sent.status == 200, sent.body
        return sent.body

    def put(self, path: str, body: Any, *accepted: int) -> Any:
        """Send a PUT and wait for the resource."""
        sent = self.send("PUT", path, body)
        assert sent.status in (accepted or (200, 201)), sent.body
        return self.client.wait(sent, OPERATION)

    def assign(self, scope: str, role: str, principal: str) -> Sent:
        roles = self.get(
            f"{scope}/providers/Microsoft.Authorization/roleDefinitions"
            f"?api-version=2022-05-01-preview&$filter=roleName eq '{role}'"
        )
        body = {
            "properties": {
                "roleDefinitionId": roles["value"][0]["id"],
                "principalId": principal,
                "principalType": "ServicePrincipal",
            }
        }
        name = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        return self.send("PUT", f"{name}?api-version=2022-04-01", body)

    def instance(self, policy: str) -> dict[str, Any]:
        source = {
            "datasourceType": KIND,
            "objectType": "Datasource",
            "resourceID": self.cluster,
            "resourceLocation": LOCATION,
            "resourceName": "aks1",
            "resourceType": KIND,
            "resourceUri": self.cluster,
        }
        return {
            "objectType": "BackupInstance",
            "friendlyName": "aks1\\fullbackup",
            "dataSourceInfo": source,
            "dataSourceSetInfo": {**source, "objectType": "DatasourceSet"},
            "policyInfo": {
                "policyId": policy,
                "policyParameters": {
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
                            "snapshotVolumes": True,
                            "includeClusterScopeResources": True,
                            "includedNamespaces": None,
                            "excludedNamespaces": None,
                        }
                    ],
                },
            },
        }


@pytest.fixture
def site(compat_cluster: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_server(tmp_path_factory.mktemp("enable-backup")) as server:
        client = RecordedClient(server)
        site = Site(server, client)
        for name in ("DataProtection", "ContainerService", "KubernetesConfiguration"):
            site.send("POST", f"{site.subscription}/providers/Microsoft.{name}/register?api-version=2024-11-01")
        site.put(f"{site.subscription}/resourcegroups/aksrg?api-version=2024-11-01", {"location": LOCATION})
        kubeconfig = base64.b64encode(compat_cluster.kubeconfig.read_bytes()).decode()
        connection = {"location": LOCATION, "properties": {"strongroomConnection": {"kubeconfig": kubeconfig}}}
        site.put(f"{site.cluster}?api-version=2026-06-01", connection)
        yield site
        client.close()


def lifecycle(store: str, duration: str, *copies: str) -> dict[str, Any]:
    return {
        "deleteAfter": {"objectType": "AbsoluteDeleteOption", "duration": duration},
        "sourceDataStore": {"objectType": "DataStoreInfoBase", "dataStoreType": store},
        "targetDataStoreCopySettings": [
            {
                "copyAfter": {"objectType": "ImmediateCopyOption"},
                "dataStore": {"objectType": "DataStoreInfoBase", "dataStoreType": copy},
            }
            for copy in copies
        ],
    }


def policy(*, vault_tier: bool) -> dict[str, Any]:
    """Return the policy of the strategy Week, or with *vault_tier* that of DisasterRecovery."""
    tags: list[dict[str, Any]] = [
        {"isDefault": True, "tagInfo": {"id": "Default_", "tagName": "Default"}, "taggingPriority": 99}
    ]
    retention = [
        {
            "objectType": "AzureRetentionRule",
            "name": "Default",
            "isDefault": True,
            "lifecycles": [lifecycle("OperationalStore", "P7D")],
        }
    ]
    if vault_tier:
        first = {"objectType": "ScheduleBasedBackupCriteria", "absoluteCriteria": ["FirstOfDay"]}
        named = {"id": "Vault_", "tagName": "Vault"}
        tags.insert(0, {"isDefault": False, "tagInfo": named, "taggingPriority": 50, "criteria": [first]})
        stores = [lifecycle("OperationalStore", "P7D", "VaultStore"), lifecycle("VaultStore", "P90D")]
        rule = {"objectType": "AzureRetentionRule", "name": "Vault", "isDefault": False, "lifecycles": stores}
        retention.append(rule)
    daily = {
        "objectType": "AzureBackupRule",
        "name": "BackupDaily",
        "backupParameters": {"objectType": "AzureBackupParams", "backupType": "Incremental"},
        "dataStore": {"objectType": "DataStoreInfoBase", "dataStoreType": "OperationalStore"},
        "trigger": {
            "objectType": "ScheduleBasedTriggerContext",
            "schedule": {"repeatingTimeIntervals": ["R/2024-01-01T00:00:00+00:00/P1D"], "timeZone": "UTC"},
            "taggingCriteria": tags,
        },
    }
    rules = [daily, *retention]
    return {"properties": {"objectType": "BackupPolicy", "datasourceTypes": [KIND], "policyRules": rules}}


def extension(site: Site, blob: str) -> dict[str, Any]:
    prefix = "configuration.backupStorageLocation"
    settings = {
        f"{prefix}.bucket": "aks1-aksrg",
        f"{prefix}.config.storageAccount": site.account.rpartition("/")[2],
        f"{prefix}.config.resourceGroup": site.group.rpartition("/")[2],
        f"{prefix}.config.subscriptionId": site.server.subscription,
        f"{prefix}.config.useAAD": "true",
        f"{prefix}.config.storageAccountURI": blob,
        "credentials.tenantId": site.server.ready["tenantId"],
    }
    return {
        "properties": {
            "extensionType": "microsoft.dataprotection.kubernetes",
            "autoUpgradeMinorVersion": True,
            "releaseTrain": "stable",
            "scope": {"cluster": {}},
            "configurationSettings": settings,
        }
    }


def test_a_cluster_is_protected_in_the_steps_of_enable_backup(site: Site) -> None:
    routing = site.send(
        "GET", f"{site.cluster}/providers/Microsoft.DataProtection/backupInstances?api-version=2024-04-01"
    )
    assert routing.status == 404 or routing.body["value"] == [], "the command goes on only without an instance"
    cluster = site.get(f"{site.cluster}?api-version=2024-08-01")["identity"]["principalId"]

    groups = site.get(f"{site.subscription}/resourcegroups?api-version=2024-11-01")["value"]
    assert [one["name"] for one in groups] == ["aksrg"]
    tags = {"AKSAzureBackup": LOCATION}
    made = site.put(f"{site.group}?api-version=2024-11-01", {"location": LOCATION, "tags": tags})
    assert made["tags"] == tags

    listed = f"{site.cluster}/providers/Microsoft.KubernetesConfiguration/extensions"
    assert site.get(f"{listed}?{EXTENSIONS}")["value"] == []
    assert site.get(f"{site.subscription}/providers/Microsoft.Storage/storageAccounts?{STORAGE}")["value"] == []
    account = site.put(
        f"{site.account}?{STORAGE}",
        {
            "location": LOCATION,
            "kind": "StorageV2",
            "sku": {"name": "Standard_LRS"},
            "tags": tags,
            "properties": {"allowSharedKeyAccess": False, "allowBlobPublicAccess": False},
        },
        200,
        202,
    )
    assert account["properties"]["allowSharedKeyAccess"] is False
    site.put(f"{site.account}/blobServices/default/containers/aks1-aksrg?{STORAGE}", {"properties": {}})
    blob = account["properties"]["primaryEndpoints"]["blob"]
    installed = site.put(f"{listed}/azure-aks-backup?{EXTENSIONS}", extension(site, blob))["properties"]
    assert installed["provisioningState"] == "Succeeded"
    uploader = installed["aksAssignedIdentity"]["principalId"]

    vaults = f"{site.subscription}/providers/Microsoft.DataProtection/backupVaults?api-version=2025-07-01"
    assert site.get(vaults)["value"] == []
    vault = site.put(
        f"{site.vault}?api-version=2025-07-01",
        {
            "location": LOCATION,
            "identity": {"type": "SystemAssigned"},
            "tags": tags,
            "properties": {
                "storageSettings": [{"datastoreType": "VaultStore", "type": "GeoRedundant"}],
                "securitySettings": {
                    "immutabilitySettings": {"state": "Unlocked"},
                    "softDeleteSettings": {"state": "On", "retentionDurationInDays": 14.0},
                },
                "featureSettings": {"crossRegionRestoreSettings": {"state": "Enabled"}},
            },
        },
    )["identity"]["principalId"]

    assert site.get(f"{site.vault}/backupPolicies?{DP}")["value"] == []
    for name, vault_tier in (("DisasterRecovery", True), ("Week", False)):
        path = f"{site.vault}/backupPolicies/AKSBackupPolicy-{name}"
        site.put(f"{path}?{DP}", policy(vault_tier=vault_tier), 200)

    bindings = f"{site.cluster}/trustedAccessRoleBindings"
    assert site.get(f"{bindings}?api-version=2026-06-01")["value"] == []
    roles = ["Microsoft.DataProtection/backupVaults/backup-operator"]
    access = {"properties": {"sourceResourceId": site.vault, "roles": roles}}
    bound = site.put(f"{bindings}/tarb-{uuid.uuid4().hex[:16]}?api-version=2026-06-01", access)
    assert bound["properties"]["provisioningState"] == "Succeeded"

    grants = (
        (site.group, "Contributor", cluster),
        (site.account, "Storage Blob Data Contributor", uploader),
        (site.cluster, "Reader", vault),
        (site.group, "Reader", vault),
        (site.group, "Disk Snapshot Contributor", vault),
        (site.account, "Storage Blob Data Reader", vault),
    )
    for grant in grants:
        assert site.assign(*grant).status in (200, 201), grant
    for grant in grants:
        again = site.assign(*grant)
        assert (again.status, again.body["error"]["code"]) == (409, "RoleAssignmentExists"), (
            "which the command takes for done"
        )

    path = f"{site.vault}/backupPolicies/AKSBackupPolicy-Week"
    request = {"backupInstance": site.instance(path)}
    site.client.wait(site.send("POST", f"{site.vault}/validateForBackup?{DP}", request), "location")
    name = f"{site.vault}/backupInstances/aks1-{uuid.uuid4().hex[:8]}"
    protected = site.put(f"{name}?{DP}", {"properties": site.instance(path)}, 200, 201, 202)["properties"]
    assert protected["currentProtectionState"] == "ProtectionConfigured"
    assert protected["friendlyName"] == "aks1\\fullbackup"
    routed = site.get(f"{site.cluster}/providers/Microsoft.DataProtection/backupInstances?api-version=2024-04-01")
    assert [one["id"] for one in routed["value"]] == [name], "a second run of the command is told"

    # Leave the cluster to the next server.
    site.client.wait(site.send("DELETE", f"{name}?{DP}"), OPERATION)
    site.client.wait(site.send("DELETE", f"{listed}/azure-aks-backup?{EXTENSIONS}&forceDelete=false"), OPERATION)
    site.client.wait(site.send("DELETE", f"{site.cluster}?api-version=2026-06-01"))
