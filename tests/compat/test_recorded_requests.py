"""What `az dataprotection`, `az k8s-extension` and their like send, request for request, and what they take as answer.

The requests are those that were recorded: reference/azure-clients.md, section B.4. The accepted status codes are those
of its table A.3. A request is a row; rows run in the order of a how-to and build on each other.
"""

import base64
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from strongroom.testbed.cluster import Testbed

from ..serving import RunningServer, running_server
from .recorded import RecordedClient, Sent

DP = "api-version=2025-07-01"
KIND = "Microsoft.ContainerService/managedClusters"
OPERATOR = "Microsoft.DataProtection/backupVaults/backup-operator"
INSTANCE = f"aks1-aks1-{uuid.uuid1()}"
JOB_SECONDS = 120
LOCATION = "westeurope"


@dataclass
class Site:
    """A server with a connected cluster, the recorded client, and what rows leave for later rows."""

    server: RunningServer
    client: RecordedClient
    cluster: Testbed
    namespace: str
    kept: dict[str, Any] = field(default_factory=dict)
    broken: str = ""

    @property
    def subscription(self) -> str:
        return f"/subscriptions/{self.server.subscription}"

    @property
    def group(self) -> str:
        return f"{self.subscription}/resourceGroups/rg1"

    @property
    def vault(self) -> str:
        return f"{self.group}/providers/Microsoft.DataProtection/backupVaults/vault1"

    @property
    def instance(self) -> str:
        return f"{self.vault}/backupInstances/{INSTANCE}"

    @property
    def aks(self) -> str:
        return f"{self.group}/providers/{KIND}/aks1"

    @property
    def account(self) -> str:
        return f"{self.group}/providers/Microsoft.Storage/storageAccounts/strongsa1"

    @property
    def extension(self) -> str:
        return f"{self.aks}/providers/Microsoft.KubernetesConfiguration/extensions/azure-aks-backup"

    @property
    def binding(self) -> str:
        return f"{self.aks}/trustedAccessRoleBindings/tarb"

    def send(self, method: str, path: str, body: Any = None) -> Sent:
        return self.client.send(method, path, body)

    def get(self, path: str) -> Any:
        sent = self.send("GET", path)
        assert sent.status == 200, sent.body
        return sent.body

    def backup_instance(self, id_name: str) -> dict[str, Any]:
        """Return what `initialize` makes: *id_name* is `resourceId` in actions and `resourceID` in the PUT."""
        source = {
            "datasourceType": KIND,
            "objectType": "Datasource",
            id_name: self.aks,
            "resourceLocation": LOCATION,
            "resourceName": "aks1",
            "resourceType": KIND,
            "resourceUri": self.aks,
        }
        configuration = {
            "objectType": "KubernetesClusterBackupDatasourceParameters",
            "snapshotVolumes": False,
            "includeClusterScopeResources": True,
            "includedNamespaces": [self.namespace],
            "excludedNamespaces": None,
            "includedResourceTypes": None,
            "excludedResourceTypes": None,
            "labelSelectors": None,
            "includedVolumeTypes": None,
            "backupHookReferences": None,
        }
        store = {
            "dataStoreType": "OperationalStore",
            "objectType": "AzureOperationalStoreParameters",
            "resourceGroupId": self.group,
        }
        return {
            "dataSourceInfo": source,
            "dataSourceSetInfo": {**source, "objectType": "DatasourceSet"},
            "datasourceAuthCredentials": None,
            "friendlyName": "aks1/shop",
            "identityDetails": None,
            "objectType": "BackupInstance",
            "policyInfo": {
                "policyId": f"{self.vault}/backupPolicies/policy1",
                "policyParameters": {
                    "backupDatasourceParametersList": [configuration],
                    "dataStoreParametersList": [store],
                },
            },
        }

    def restore_request(self) -> dict[str, Any]:
        target = {
            "datasourceType": KIND,
            "objectType": "Datasource",
            "resourceId": self.aks,
            "resourceLocation": LOCATION,
            "resourceName": "aks1",
            "resourceType": KIND,
            "resourceUri": self.aks,
        }
        criteria = {
            "objectType": "KubernetesClusterRestoreCriteria",
            "conflictPolicy": "Skip",
            "excludedNamespaces": None,
            "excludedResourceTypes": None,
            "includeClusterScopeResources": False,
            "includedNamespaces": [self.namespace],
            "includedResourceTypes": None,
            "labelSelectors": None,
            "namespaceMappings": {self.namespace: f"{self.namespace}-copy"},
            "persistentVolumeRestoreMode": "RestoreWithoutVolumeData",
            "restoreHookReferences": None,
            "stagingResourceGroupId": None,
        }
        return {
            "objectType": "AzureBackupRecoveryPointBasedRestoreRequest",
            "recoveryPointId": self.kept["point"],
            "sourceDataStoreType": "OperationalStore",
            "sourceResourceId": None,
            "restoreTargetInfo": {
                "objectType": "ItemLevelRestoreTargetInfo",
                "datasourceAuthCredentials": None,
                "datasourceInfo": target,
                "datasourceSetInfo": {**target, "objectType": "DatasourceSet"},
                "recoveryOption": "FailIfExists",
                "restoreCriteria": [criteria],
                "restoreLocation": LOCATION,
            },
        }

    def wait_for_job(self, job: str) -> Any:
        deadline = time.monotonic() + JOB_SECONDS
        while True:
            found = self.get(f"{job}?{DP}")["properties"]
            if found["status"] != "InProgress":
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.3)


@pytest.fixture(scope="module")
def site(compat_cluster: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    namespace = f"shop-{uuid.uuid4().hex[:6]}"
    compat_cluster.kubectl("create", "namespace", namespace)
    compat_cluster.kubectl("create", "configmap", "settings", "-n", namespace, "--from-literal=greeting=hello")
    with running_server(tmp_path_factory.mktemp("recorded")) as server:
        client = RecordedClient(server)
        yield Site(server, client, compat_cluster, namespace)
        client.close()
    for name in (namespace, f"{namespace}-copy"):
        compat_cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@dataclass(frozen=True)
class Row:
    """A recorded request. *accepts*: the first answers that SDK and CLI both take, table A.3. *final*: how it polls.

    In *path* `{vault}` and the like stand for the site's ids. *final* is "none" (no polling), "sdk", "failure", or the
    CLI's `final-state-via`. *check* gets the site and what the client ends with: the polled result, else the body.
    """

    command: str
    method: str
    path: str
    accepts: tuple[int, ...]
    body: Any = None
    final: str = "none"
    check: Callable[[Site, Any], None] = lambda site, found: None


LOCATION_STATE = "location"
OPERATION_STATE = "azure-async-operation"

POLICY: dict[str, Any] = {
    "properties": {
        "datasourceTypes": [KIND],
        "name": "AKSPolicy1",
        "objectType": "BackupPolicy",
        "policyRules": [
            {
                "backupParameters": {"backupType": "Incremental", "objectType": "AzureBackupParams"},
                "dataStore": {"dataStoreType": "OperationalStore", "objectType": "DataStoreInfoBase"},
                "name": "BackupHourly",
                "objectType": "AzureBackupRule",
                "trigger": {
                    "objectType": "ScheduleBasedTriggerContext",
                    "schedule": {"repeatingTimeIntervals": ["R/2023-01-04T09:00:00+00:00/PT4H"], "timeZone": "UTC"},
                    "taggingCriteria": [
                        {
                            "criteria": [
                                {"absoluteCriteria": ["FirstOfDay"], "objectType": "ScheduleBasedBackupCriteria"}
                            ],
                            "isDefault": False,
                            "tagInfo": {"id": "Daily_", "tagName": "Daily"},
                            "taggingPriority": 25,
                        },
                        {"isDefault": True, "tagInfo": {"id": "Default_", "tagName": "Default"}, "taggingPriority": 99},
                    ],
                },
            },
            {
                "isDefault": True,
                "lifecycles": [
                    {
                        "deleteAfter": {"duration": "P7D", "objectType": "AbsoluteDeleteOption"},
                        "sourceDataStore": {"dataStoreType": "OperationalStore", "objectType": "DataStoreInfoBase"},
                    }
                ],
                "name": "Default",
                "objectType": "AzureRetentionRule",
            },
            {
                "isDefault": False,
                "lifecycles": [
                    {
                        "deleteAfter": {"duration": "P7D", "objectType": "AbsoluteDeleteOption"},
                        "sourceDataStore": {"dataStoreType": "OperationalStore", "objectType": "DataStoreInfoBase"},
                        "targetDataStoreCopySettings": [
                            {
                                "copyAfter": {"objectType": "ImmediateCopyOption"},
                                "dataStore": {"dataStoreType": "VaultStore", "objectType": "DataStoreInfoBase"},
                            }
                        ],
                    },
                    {
                        "deleteAfter": {"duration": "P84D", "objectType": "AbsoluteDeleteOption"},
                        "sourceDataStore": {"dataStoreType": "VaultStore", "objectType": "DataStoreInfoBase"},
                        "targetDataStoreCopySettings": [],
                    },
                ],
                "name": "Daily",
                "objectType": "AzureRetentionRule",
            },
        ],
    }
}
VAULT: dict[str, Any] = {
    "identity": {"type": "SystemAssigned"},
    "location": LOCATION,
    "properties": {
        "securitySettings": {"softDeleteSettings": {"retentionDurationInDays": 14.0, "state": "On"}},
        "storageSettings": [{"datastoreType": "VaultStore", "type": "LocallyRedundant"}],
    },
}


def equal(field_path: str, expected: Any) -> Callable[[Site, Any], None]:
    """Check one field of the result."""

    def check(site: Site, found: Any) -> None:
        value = found
        for name in field_path.split("."):
            value = value[int(name)] if name.isdigit() else value[name]
        wanted = expected(site) if callable(expected) else expected
        assert value == wanted, f"{field_path} is {value!r}"

    return check


def keep(name: str, field_path: str) -> Callable[[Site, Any], None]:
    """Keep one field of the result for later rows."""

    def check(site: Site, found: Any) -> None:
        value = found
        for part in field_path.split("."):
            value = value[int(part)] if part.isdigit() else value[part]
        site.kept[name] = value

    return check


def names(*expected: str) -> Callable[[Site, Any], None]:
    def check(site: Site, found: Any) -> None:
        assert [one["name"] for one in found["value"]] == list(expected)
        assert found.get("nextLink") is None

    return check


def ended_job(site: Site, found: Any) -> None:
    """The POST's final result names the job by its whole id, which goes on after the operation."""
    assert found["objectType"] == "OperationJobExtendedInfo"
    assert found["jobId"].lower().startswith(f"{site.vault}/backupJobs/".lower())
    site.kept["job"] = found["jobId"]
    job = site.wait_for_job(found["jobId"])
    assert job["status"] in ("Completed", "CompletedWithWarnings"), job


def told_as_az_shows_it(site: Site, error: Any) -> None:
    """The CLI prints code, message and additionalInfo; people read what to do in the last."""
    assert error.code
    assert error.message
    [more] = error.additional_info
    assert more.type == "UserFacingError"
    assert more.info["code"] == error.code
    assert more.info["details"][0]["recommendedAction"], more.info


def whole(changes: Callable[[Any], None], name: str) -> Callable[[Site], Any]:
    """Return the body of the CLI's updates: what the GET before them answered, with *changes*."""

    def body(site: Site) -> Any:
        changes(site.kept[name])
        return site.kept[name]

    return body


def granted(principal: str, role: str) -> Callable[[Site], Any]:
    return lambda site: {
        "properties": {
            "roleDefinitionId": site.kept[role],
            "principalType": "ServicePrincipal",
            "principalId": site.kept[principal],
        }
    }


def grants(principal: str, role: str, scope: str) -> list[Row]:
    """What `update-msi-permissions` and `az role assignment create` send for one role of one principal."""
    command = f"update-msi-permissions: {role} for {principal} at {scope}"
    authorization = f"{{{scope}}}/providers/Microsoft.Authorization"
    named = f"$filter=servicePrincipalNames/any(c:c eq '{{kept[{principal}]}}')"
    who = {"types": ["user", "group", "servicePrincipal", "directoryObjectPartnerReference"]}

    def resolved(site: Site, found: Any) -> None:
        assert [one["id"] for one in found["value"]] == [site.kept[principal]]

    return [
        # az gives up on a principal that is neither found here nor a GUID: an empty list will do.
        Row(command, "GET", f"/v1.0/servicePrincipals?{named}", (200,)),
        Row(command, "GET", f"{authorization}/roleAssignments?api-version=2022-04-01&$filter=atScope()", (200,)),
        Row(
            command,
            "GET",
            f"{authorization}/roleDefinitions?api-version=2022-05-01-preview&$filter=roleName eq '{role}'",
            (200,),
            check=keep(role, "value.0.id"),
        ),
        Row(
            command,
            "POST",
            "/v1.0/directoryObjects/getByIds",
            (200,),
            body=lambda site: {"ids": [site.kept[principal]], **who},
            check=resolved,
        ),
        Row(
            command,
            "PUT",
            f"{authorization}/roleAssignments/{uuid.uuid4()}?api-version=2022-04-01",
            (200, 201),
            body=granted(principal, role),
            check=equal("properties.principalId", lambda site: site.kept[principal]),
        ),
    ]


def connection(site: Site) -> Any:
    kubeconfig = base64.b64encode(site.cluster.kubeconfig.read_bytes()).decode()
    return {"location": LOCATION, "properties": {"strongroomConnection": {"kubeconfig": kubeconfig}}}


def extension_body(site: Site) -> Any:
    prefix = "configuration.backupStorageLocation"
    return {
        "properties": {
            "extensionType": "microsoft.dataprotection.kubernetes",
            "autoUpgradeMinorVersion": True,
            "releaseTrain": "stable",
            "scope": {"cluster": {}},
            "configurationSettings": {
                f"{prefix}.bucket": "cont",
                f"{prefix}.config.storageAccount": "strongsa1",
                f"{prefix}.config.resourceGroup": "rg1",
                f"{prefix}.config.subscriptionId": site.server.subscription,
                f"{prefix}.config.useAAD": "true",
                f"{prefix}.config.storageAccountURI": site.kept["blob endpoint"],
                "credentials.tenantId": site.server.ready["tenantId"],
            },
        }
    }


def rows_of_graph(kind: str, *filters: str) -> str:
    """Return the query that the extension makes: a fixed text, and conditions for its options."""
    head = {
        "jobs": (
            "RecoveryServicesResources | where type =~ 'microsoft.dataprotection/backupvaults/backupjobs'"
            "| extend vaultName = properties.vaultName| extend status = properties.status| extend operation = case( "
            "tolower(properties.operationCategory) startswith 'backup' and properties.isUserTriggered == 'true', "
            "strcat('OnDemand',properties.operationCategory), tolower(properties.operationCategory) "
            "startswith 'backup' and properties.isUserTriggered == 'false', "
            "strcat('Scheduled', properties.operationCategory), "
            "type =~ 'microsoft.dataprotection/backupVaults/backupJobs', properties.operationCategory, 'Invalid')"
            "| extend datasourceId = properties.dataSourceId"
        ),
        "instances": (
            "RecoveryServicesResources | where type =~ 'microsoft.dataprotection/backupvaults/backupinstances'"
            "| extend vaultName = split(split(id, '/Microsoft.DataProtection/backupVaults/')[1],'/')[0]"
            "| extend protectionState = properties.currentProtectionState"
            "| extend datasourceId = properties.dataSourceInfo.resourceID"
        ),
        "vaults": "resources | where type =~ 'microsoft.dataprotection/backupvaults'",
    }[kind]
    return head + "".join(f" | where {one}" for one in filters)


def graph_row(command: str, query: str, check: Callable[[Site, Any], None]) -> Row:
    options = {"$top": 1000, "$skip": 0, "resultFormat": "objectArray", "allowPartialScopes": False}
    path = "/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01"

    def body(site: Site) -> Any:
        return {"subscriptions": [site.server.subscription], "query": query, "options": options}

    return Row(command, "POST", path, (200,), body, check=check)


def one_row(kind: str) -> Callable[[Site, Any], None]:
    def check(site: Site, found: Any) -> None:
        assert (found["totalRecords"], found["count"], found["resultTruncated"]) == (1, 1, "false"), found
        assert found["data"][0]["type"] == kind

    return check


def one_instance(site: Site, found: Any) -> None:
    """The row has what the portal's and the CLI's code reads beside the resource itself."""
    one_row("microsoft.dataprotection/backupvaults/backupinstances")(site, found)
    [row] = found["data"]
    assert (row["resourceGroup"], row["kind"], row["managedBy"], row["sku"]) == ("rg1", "", "", None)
    assert (row["vaultName"], row["datasourceId"]) == ("vault1", site.aks)
    more = row["properties"]["backupInstanceExtendedProperties"]
    assert {"BackupNow", "Restore", "StopBackup", "Delete"} <= set(more["allowedOperations"])
    assert more["policyExtendedInfo"] == {
        "configuredRPGenerationFrequency": "04:00:00",
        "configuredMaximumRetention": "7.00:00:00",
    }


ONDEMAND = {"backupRuleOptions": {"ruleName": "BackupHourly", "triggerOption": {"retentionTagOverride": "Default"}}}
TIMES = "startDate eq '2023-06-16T01:00:00.0000000Z' and endDate eq '2099-06-16T01:00:00.0000000Z'"
PROVIDER = "{subscription}/providers/Microsoft"
STORAGE = "api-version=2025-08-01"
AKS = "api-version=2026-06-01"
EXTENSIONS = "api-version=2023-05-01"


def tag(document: Any) -> None:
    document["tags"] = {"tier": "gold"}


def rename(document: Any) -> None:
    document["properties"]["friendlyName"] = "aks1/renamed"


PREPARED = [
    Row(
        "group create",
        "PUT",
        "{subscription}/resourcegroups/rg1?api-version=2024-11-01",
        (200, 201),
        {"location": LOCATION},
    ),
    Row("group exists", "HEAD", "{subscription}/resourcegroups/rg1?api-version=2024-11-01", (204,)),
    Row("group exists", "HEAD", "{subscription}/resourcegroups/rg2?api-version=2024-11-01", (404,)),
    *(
        Row("provider register", "POST", f"{PROVIDER}.{name}/register?api-version=2024-11-01", (200,))
        for name in ("DataProtection", "ContainerService", "KubernetesConfiguration")
    ),
    Row(
        "provider show",
        "GET",
        f"{PROVIDER}.DataProtection?api-version=2024-11-01",
        (200,),
        check=equal("registrationState", "Registered"),
    ),
    Row("(connect, ours)", "PUT", f"{{aks}}?{AKS}", (200, 201), connection, "sdk"),
    Row("storage account create", "POST", f"{PROVIDER}.Storage/checkNameAvailability?{STORAGE}", (200,), {}),
    Row(
        "storage account create",
        "PUT",
        f"{{account}}?{STORAGE}",
        (200, 202),
        {"kind": "StorageV2", "location": LOCATION, "sku": {"name": "Standard_LRS"}, "properties": {}},
        "sdk",
    ),
    Row("storage account keys list", "POST", f"{{account}}/listKeys?$expand=kerb&{STORAGE}", (200,)),
    Row(
        "storage container-rm create",
        "PUT",
        f"{{account}}/blobServices/default/containers/cont?{STORAGE}",
        (200, 201),
        {"properties": {}},
    ),
]
EXTENSION_AND_ACCESS = [
    Row(
        "k8s-extension create",
        "GET",
        f"{{account}}?{STORAGE}",
        (200,),
        check=keep("blob endpoint", "properties.primaryEndpoints.blob"),
    ),
    Row("k8s-extension create", "GET", f"{{account}}?{STORAGE}", (200,), check=equal("location", LOCATION)),
    Row("k8s-extension create", "GET", f"{{aks}}?{AKS}", (200,), check=equal("location", LOCATION)),
    Row(
        "k8s-extension create",
        "GET",
        f"{PROVIDER}.KubernetesConfiguration?api-version=2025-04-01",
        (200,),
        check=equal("registrationState", "Registered"),
    ),
    Row(
        "k8s-extension create",
        "PUT",
        f"{{extension}}?{EXTENSIONS}",
        (200, 201),
        extension_body,
        OPERATION_STATE,
        equal("properties.provisioningState", "Succeeded"),
    ),
    Row(
        "k8s-extension show",
        "GET",
        f"{{extension}}?{EXTENSIONS}",
        (200,),
        check=keep("extension's identity", "properties.aksAssignedIdentity.principalId"),
    ),
    Row(
        "k8s-extension list",
        "GET",
        f"{{aks}}/providers/Microsoft.KubernetesConfiguration/extensions?{EXTENSIONS}",
        (200,),
        check=names("azure-aks-backup"),
    ),
    Row("k8s-extension update", "GET", f"{{extension}}?{EXTENSIONS}", (200,)),
    Row(
        "k8s-extension update",
        "PATCH",
        f"{{extension}}?{EXTENSIONS}",
        (200, 202),
        {"properties": {"autoUpgradeMinorVersion": True, "configurationSettings": {"resources.limits.cpu": "1"}}},
        OPERATION_STATE,
        equal("properties.provisioningState", "Succeeded"),
    ),
    Row(
        "backup-vault create",
        "PUT",
        f"{{vault}}?{DP}",
        (200, 201),
        VAULT,
        OPERATION_STATE,
        equal("properties.provisioningState", "Succeeded"),
    ),
    Row(
        "backup-vault list -g",
        "GET",
        f"{{group}}/providers/Microsoft.DataProtection/backupVaults?{DP}",
        (200,),
        check=names("vault1"),
    ),
    Row("backup-vault list", "GET", f"{PROVIDER}.DataProtection/backupVaults?{DP}", (200,), check=names("vault1")),
    Row(
        "backup-vault update", "GET", f"{{vault}}?{DP}", (200,), check=lambda site, found: site.kept.update(vault=found)
    ),
    Row(
        "backup-vault update",
        "PUT",
        f"{{vault}}?{DP}",
        (200, 201),
        whole(tag, "vault"),
        OPERATION_STATE,
        equal("tags.tier", "gold"),
    ),
    Row(
        "(SDK) backup_vaults.begin_update",
        "PATCH",
        f"{{vault}}?{DP}",
        (200, 202),
        {"tags": {"tier": "tin"}},
        "sdk",
        equal("tags.tier", "tin"),
    ),
    Row(
        "backup-policy create",
        "PUT",
        f"{{vault}}/backupPolicies/policy1?{DP}",
        (200,),
        POLICY,
        check=equal("name", "policy1"),
    ),
    Row("backup-policy list", "GET", f"{{vault}}/backupPolicies?{DP}", (200,), check=names("policy1")),
    Row("aks trustedaccess rolebinding create", "GET", f"{{binding}}?{AKS}", (404,)),
    Row(
        "aks trustedaccess rolebinding create",
        "PUT",
        f"{{binding}}?{AKS}",
        (200, 201),
        lambda site: {"properties": {"sourceResourceId": site.vault, "roles": [OPERATOR]}},
        "sdk",
        equal("properties.provisioningState", "Succeeded"),
    ),
    Row(
        "aks trustedaccess rolebinding list",
        "GET",
        f"{{aks}}/trustedAccessRoleBindings?{AKS}",
        (200,),
        check=names("tarb"),
    ),
    Row(
        "aks trustedaccess role list",
        "GET",
        f"{PROVIDER}.ContainerService/locations/{LOCATION}/trustedAccessRoles?{AKS}",
        (200,),
    ),
]
ROLES = [
    Row(
        "update-msi-permissions",
        "GET",
        f"{{vault}}?{DP}",
        (200,),
        check=keep("vault's identity", "identity.principalId"),
    ),
    Row(
        "update-msi-permissions",
        "GET",
        "{aks}?api-version=2024-10-02-preview",
        (200,),
        check=keep("cluster's identity", "identity.principalId"),
    ),
    *grants("vault's identity", "Reader", "aks"),
    *grants("vault's identity", "Reader", "group"),
    *grants("cluster's identity", "Contributor", "group"),
    *grants("extension's identity", "Storage Account Contributor", "account"),
]
PROTECTED = [
    Row(
        "backup-instance validate-for-backup",
        "POST",
        f"{{vault}}/validateForBackup?{DP}",
        (200, 202),
        lambda site: {"backupInstance": site.backup_instance("resourceId")},
        LOCATION_STATE,
        equal("objectType", "OperationJobExtendedInfo"),
    ),
    Row(
        "backup-instance create",
        "PUT",
        f"{{instance}}?{DP}",
        (200, 201),
        lambda site: {"properties": site.backup_instance("resourceID")},
        OPERATION_STATE,
        equal("properties.currentProtectionState", "ProtectionConfigured"),
    ),
    Row("backup-instance list", "GET", f"{{vault}}/backupInstances?{DP}", (200,), check=names(INSTANCE)),
    Row(
        "backup-instance show",
        "GET",
        f"{{instance}}?{DP}",
        (200,),
        check=equal("properties.dataSourceInfo.resourceID", lambda site: site.aks),
    ),
    Row(
        "backup-instance adhoc-backup",
        "POST",
        f"{{instance}}/backup?{DP}",
        (200, 202),
        ONDEMAND,
        LOCATION_STATE,
        ended_job,
    ),
    Row("(SDK) begin_adhoc_backup", "POST", f"{{instance}}/backup?{DP}", (200, 202), ONDEMAND, "sdk", ended_job),
    Row("job show", "GET", f"{{kept[job]}}?{DP}", (200,), check=equal("properties.isUserTriggered", True)),
    Row("job list", "GET", f"{{vault}}/backupJobs?{DP}", (200,)),
    graph_row(
        "job list-from-resourcegraph",
        rows_of_graph(
            "jobs",
            f"properties.dataSourceType in~ ('{KIND}')",
            "resourceGroup in~ ('RG1')",
            "vaultName in~ ('vault1','other')",
            "operation in~ ('OnDemandBackup')",
            "status in~ ('Completed','CompletedWithWarnings')",
            "properties.startTime > datetime(2023-06-16T01:00:00.0000000Z)",
            "properties.endTime < datetime(2099-06-16T01:00:00.0000000Z)",  # as PowerShell has it
        ),
        equal("count", 2),
    ),
    graph_row(
        "backup-instance list-from-resourcegraph",
        rows_of_graph(
            "instances",
            f"properties.dataSourceInfo.datasourceType in~ ('{KIND}')",
            "vaultName in~ ('vault1')",
            "protectionState in~ ('ProtectionConfigured')",
        ),
        one_instance,
    ),
    graph_row(
        "backup-vault list-from-resourcegraph",
        rows_of_graph("vaults", "name in~ ('VAULT1')"),
        one_row("microsoft.dataprotection/backupvaults"),
    ),
    Row(
        "recovery-point list",
        "GET",
        f"{{instance}}/recoveryPoints?$filter=&{DP}",
        (200,),
        check=keep("point", "value.0.name"),
    ),
    Row(
        "recovery-point list --start-time",
        "GET",
        f"{{instance}}/recoveryPoints?$filter={TIMES}&{DP}",
        (200,),
        check=keep("point", "value.1.name"),
    ),
    Row("recovery-point show", "GET", f"{{instance}}/recoveryPoints/{{kept[point]}}?{DP}", (200,)),
    Row(
        "validate-for-restore",
        "POST",
        f"{{instance}}/validateRestore?{DP}",
        (200, 202),
        lambda site: {"restoreRequestObject": site.restore_request()},
        LOCATION_STATE,
        equal("objectType", "OperationJobExtendedInfo"),
    ),
    Row(
        "restore trigger",
        "POST",
        f"{{instance}}/restore?{DP}",
        (200, 202),
        lambda site: site.restore_request(),
        LOCATION_STATE,
        ended_job,
    ),
    Row(
        "update-policy", "GET", f"{{instance}}?{DP}", (200,), check=lambda site, found: site.kept.update(instance=found)
    ),
    Row(
        "update-policy",
        "PUT",
        f"{{instance}}?{DP}",
        (200, 201, 202),
        whole(rename, "instance"),
        OPERATION_STATE,
        equal("properties.friendlyName", "aks1/renamed"),
    ),
    Row(
        "(SDK) begin_validate_for_modify_backup",
        "POST",
        f"{{instance}}/validateForModifyBackup?{DP}",
        (202,),
        lambda site: {"backupInstance": site.backup_instance("resourceId")},
        "sdk",
    ),
    *(
        Row(action, "POST", f"{{instance}}/{action}?{DP}", (200, 202), None, OPERATION_STATE)
        for action in ("stopProtection", "resumeProtection", "suspendBackups", "resumeBackups", "resumeBackups")
    ),
    Row(
        "(SDK) begin_sync_backup_instance",
        "POST",
        f"{{instance}}/sync?{DP}",
        (200, 202),
        {"syncType": "Default"},
        "sdk",
    ),
    Row(
        "(SDK) extension routing",
        "GET",
        f"{{aks}}/providers/Microsoft.DataProtection/backupInstances?{DP}",
        (200,),
        check=names(INSTANCE),
    ),
    Row(
        "(SDK) checkFeatureSupport",
        "POST",
        f"{PROVIDER}.DataProtection/locations/{LOCATION}/checkFeatureSupport?{DP}",
        (200,),
        {"objectType": "FeatureValidationRequest", "featureName": "x", "featureType": "DataSourceType"},
    ),
    Row(
        "(SDK) checkNameAvailability",
        "POST",
        f"{{group}}/providers/Microsoft.DataProtection/locations/{LOCATION}/checkNameAvailability?{DP}",
        (200,),
        {"name": "vault1", "type": "Microsoft.DataProtection/backupVaults"},
        check=equal("nameAvailable", False),
    ),
    Row(
        "(SDK) deleted vaults",
        "GET",
        f"{PROVIDER}.DataProtection/locations/{LOCATION}/deletedVaults?{DP}",
        (200,),
        check=names(),
    ),
]
REMOVED = [
    Row("backup-instance delete", "DELETE", f"{{instance}}?{DP}", (200, 202, 204), None, OPERATION_STATE),
    Row("deleted-backup-instance list", "GET", f"{{vault}}/deletedBackupInstances?{DP}", (200,), check=names(INSTANCE)),
    Row("deleted-backup-instance show", "GET", f"{{vault}}/deletedBackupInstances/{INSTANCE}?{DP}", (200,)),
    Row(
        "deleted-backup-instance undelete",
        "POST",
        f"{{vault}}/deletedBackupInstances/{INSTANCE}/undelete?{DP}",
        (200, 202),
        None,
        OPERATION_STATE,
    ),
    Row("backup-instance delete", "DELETE", f"{{instance}}?{DP}", (200, 202, 204), None, "sdk"),
    Row("backup-instance delete, again", "DELETE", f"{{instance}}?{DP}", (204,)),
    Row("aks trustedaccess rolebinding delete", "DELETE", f"{{binding}}?{AKS}", (202, 204), None, "sdk"),
    Row("k8s-extension delete", "GET", f"{{extension}}?{EXTENSIONS}", (200,)),
    Row(
        "k8s-extension delete",
        "DELETE",
        f"{{extension}}?{EXTENSIONS}&forceDelete=false",
        (200, 202, 204),
        None,
        OPERATION_STATE,
    ),
    Row("aks delete", "DELETE", f"{{aks}}?{AKS}", (202, 204), None, "sdk"),
    Row("aks delete, again", "DELETE", f"{{aks}}?{AKS}", (204,)),
    Row("backup-vault create", "PUT", f"{{vault}}2?{DP}", (200, 201), VAULT, OPERATION_STATE),
    Row("backup-vault delete", "DELETE", f"{{vault}}2?{DP}", (200, 202, 204), None, OPERATION_STATE),
    Row("backup-vault delete, again", "DELETE", f"{{vault}}2?{DP}", (200, 202, 204), None, OPERATION_STATE),
]
# Accepted at first, as by the service; the failure comes with the operation.
TOO_EARLY = Row(
    "backup-instance validate-for-backup, without roles",
    "POST",
    f"{{vault}}/validateForBackup?{DP}",
    (202,),
    lambda site: {"backupInstance": site.backup_instance("resourceId")},
    "failure",
    told_as_az_shows_it,
)
ROWS = [*PREPARED, *EXTENSION_AND_ACCESS, TOO_EARLY, *ROLES, *PROTECTED, *REMOVED]


@pytest.mark.parametrize("row", ROWS, ids=[f"{n}-{row.command}-{row.method}" for n, row in enumerate(ROWS, 1)])
def test_a_recorded_request_gets_an_answer_that_its_clients_take(site: Site, row: Row) -> None:
    if site.broken:
        pytest.skip(f"rows build on each other, and this one failed: {site.broken}")
    site.broken = f"{row.command}: {row.method}"
    replay(site, row)
    site.broken = ""


def replay(site: Site, row: Row) -> None:
    path = row.path.format(**{name: getattr(site, name) for name in IDS})
    sent = site.client.send(row.method, path, row.body(site) if callable(row.body) else row.body, command=row.command)
    assert sent.status in row.accepts, f"{sent.status} {sent.body}"
    if sent.status in (201, 202):
        well_formed(site, row, sent)
    match row.final:
        case "none":
            found = sent.body
        case "failure":
            found = site.client.failure(sent, LOCATION_STATE)
        case "sdk":
            found = site.client.wait(sent)
        case state:
            found = site.client.wait(sent, state)
    row.check(site, found)


IDS = ("subscription", "group", "vault", "instance", "aks", "account", "extension", "binding", "kept")


def well_formed(site: Site, row: Row, sent: Sent) -> None:
    """A long-running operation's first answer: absolute URLs, whole seconds, and no Location for a PUT."""
    headers = sent.response.headers
    if "Azure-AsyncOperation" not in headers:
        assert sent.status == 201, "what is not there yet says where to poll"
        return
    assert headers["Azure-AsyncOperation"].startswith(f"{site.server.url}/subscriptions/")
    assert headers["Retry-After"].isdigit()
    if row.method == "PUT" and sent.status == 201:
        assert "Location" not in headers, "az would take it for the resource"
        assert sent.body["id"]
    if sent.status == 202 and "/providers/Microsoft.DataProtection/" in sent.response.request.url:
        assert not sent.body, "as the service answers"
