"""The API in this process, over a real database, without the workers: for tests that send it thousands of requests.

Every operation stays where the request left it, so whatever changes in the database was changed by a request.
"""

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.types import ASGIApp, Message

from strongroom.controlplane.arm.app import application
from strongroom.controlplane.arm.authorizer import Authorizer, read_access
from strongroom.controlplane.arm.plane import Plane
from strongroom.controlplane.arm.routing import Router
from strongroom.controlplane.arm.table import OPERATIONS
from strongroom.controlplane.catalog.sealed import StateSecrets
from strongroom.controlplane.clusters.pool import ClusterPool
from strongroom.controlplane.home import Home
from strongroom.controlplane.identity.keys import SigningKeys
from strongroom.controlplane.identity.principals import managed_identity
from strongroom.controlplane.identity.stored import DatabaseSecrets, TxPrincipals
from strongroom.controlplane.identity.tokens import Audiences, TokenAuthority
from strongroom.controlplane.main import first_start
from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.jobs import Job
from strongroom.controlplane.state.operations import OperationStatus
from strongroom.controlplane.state.points import StoredPoint
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.schema import metadata
from strongroom.controlplane.state.times import now, stamp
from strongroom.controlplane.workflows.containers import Containers
from strongroom.protection.addresses import refused_address
from strongroom.protection.job import Limits

from ..arm_bodies import hourly_policy

ENDPOINT = "https://127.0.0.1:8443"
VERSION = "2026-06-01"
LOCATION = "westus"
MANY = Limits(on_demand_backups_per_day=1_000_000, restores_per_day=1_000_000)
CLUSTER_TYPE = "Microsoft.ContainerService/managedClusters"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
CONTRIBUTOR = "b24988ac-6180-42a0-ab88-20f7382dd24c"
BLOB_CONTRIBUTOR = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"
NOT_COMPARED = frozenset({"audit", "replays"})
"""Tables that a refused request may add to: denials are recorded."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Stage:
    """The application, its database, and the names of what was made in it. Used in the event loop it was opened in."""

    app: ASGIApp
    plane: Plane
    db: Database
    home: Path
    token: str
    subscription: str
    names: dict[str, str] = field(default_factory=dict)
    principal: str = ""
    """The vault's managed identity."""

    @property
    def group(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/rg"

    @property
    def vault(self) -> str:
        return f"{self.group}/providers/Microsoft.DataProtection/backupVaults/vault1"

    @property
    def cluster(self) -> str:
        return f"{self.group}/providers/{CLUSTER_TYPE}/aks1"

    @property
    def account(self) -> str:
        return f"{self.group}/providers/Microsoft.Storage/storageAccounts/backups"

    async def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        query: str = f"api-version={VERSION}",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request as uvicorn would hand it over; *path* is percent-encoded already (or wrongly not)."""
        sent = {"authorization": f"Bearer {self.token}", "content-type": "application/json", **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": path,
            "raw_path": path.encode("latin-1"),
            "root_path": "",
            "query_string": query.encode("latin-1"),
            "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in sent.items()],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8443),
        }
        parts: list[bytes] = []
        head: dict[str, Any] = {}

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                head.update(message)
            else:
                parts.append(message.get("body", b""))

        await self.app(scope, receive, send)
        answered = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in head["headers"]}
        return Answer(head["status"], answered, b"".join(parts))

    async def made(self, method: str, path: str, body: Any = None, *, expect: tuple[int, ...] = (200, 201, 202)) -> Any:
        """Send a request that has to succeed; return its document."""
        raw = b"" if body is None else json.dumps(body).encode()
        answer = await self.send(method, quote(path), raw)
        assert answer.status in expect, f"{method} {path}: {answer.status} {answer.content.decode()}"
        return answer.json() if answer.content else None

    def rewind(self, rows: Mapping[str, list[Any]]) -> None:
        """Put the tables back to what `dump` returned."""
        with self.db.write() as tx:
            for table in metadata.sorted_tables:
                tx.connection.execute(table.delete())
                if found := rows.get(table.name):
                    names = [column.name for column in table.columns]
                    tx.connection.execute(table.insert(), [dict(zip(names, row, strict=True)) for row in found])
        self.plane.authorizer.forget()

    def dump(self) -> dict[str, list[Any]]:
        """Return all rows of all tables that a refused request must not change."""
        with self.db.read() as tx:
            return {
                table.name: [tuple(row) for row in tx.connection.execute(table.select().order_by(*table.primary_key))]
                for table in metadata.sorted_tables
                if table.name not in NOT_COMPARED
            }


async def open_stage(folder: Path, database: str = "") -> Stage:
    """Make a home in *folder* and the application over it, with one of everything that can be protected."""
    home = Home.open(folder / "home")
    db = Database.open(database or home.database_url, home.secret_key)
    first_start(db, home, now())
    tokens = TokenAuthority(
        SigningKeys(DatabaseSecrets(db)),
        tenant_id=home.config.tenant_id,
        audiences=Audiences.of([ENDPOINT]),
        authority=f"{ENDPOINT}/{home.config.tenant_id}",
    )
    with db.read() as tx:
        record = TxPrincipals(tx).get_by_app_id(home.config.administrator)
    assert record is not None
    loop = asyncio.get_running_loop()
    plane = Plane(
        db=db,
        endpoint=ENDPOINT,
        tenant=home.config.tenant_id,
        tokens=tokens,
        authorizer=Authorizer(db, home.config.tenant_id),
        pool=ClusterPool(db, home.clusters),
        containers=Containers(home.folder, StateSecrets(db), lambda a: refused_address(a, allow_loopback=True)),
        poke=lambda: None,
        run=lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(),
        limits=MANY,
    )
    token = tokens.mint(record, ENDPOINT, now=now()).text
    stage = Stage(
        application(plane, Router(OPERATIONS), []), plane, db, home.folder, token, home.config.subscription_id
    )
    await _furnish(stage)
    return stage


async def _furnish(stage: Stage) -> None:
    """Make a vault with a policy and an instance with a job and a point, a cluster, storage, and their roles."""
    root = f"/subscriptions/{stage.subscription}"
    for namespace in (
        "Microsoft.DataProtection",
        "Microsoft.ContainerService",
        "Microsoft.KubernetesConfiguration",
        "Microsoft.Storage",
        "Microsoft.Compute",
    ):
        await stage.made("POST", f"{root}/providers/{namespace}/register")
    await stage.made("PUT", stage.group, {"location": LOCATION})
    vault = await stage.made("PUT", stage.vault, bodies_of(stage)["BackupVaults_CreateOrUpdate"])
    stage.principal = vault["identity"]["principalId"]
    await stage.made("PUT", f"{stage.vault}/backupPolicies/policy1", bodies_of(stage)["BackupPolicies_CreateOrUpdate"])
    await stage.made("PUT", stage.account, bodies_of(stage)["StorageAccounts_Create"])
    await stage.made("PUT", f"{stage.account}/blobServices/default/containers/backups", {})
    cluster = _connect(stage)
    binding = f"{stage.cluster}/trustedAccessRoleBindings/binding1"
    await stage.made("PUT", binding, bodies_of(stage)["TrustedAccessRoleBindings_CreateOrUpdate"])
    extension = f"{stage.cluster}/providers/Microsoft.KubernetesConfiguration/extensions/azure-aks-backup"
    made = await stage.made("PUT", extension, bodies_of(stage)["Extensions_Create"])
    finish(stage, binding, lambda r: r.with_properties({"provisioningState": "Succeeded"}))
    finish(stage, extension, lambda r: r.with_properties({"provisioningState": "Succeeded"}))
    for role, scope, principal in (
        (READER, stage.cluster, stage.principal),
        (READER, stage.group, stage.principal),
        (CONTRIBUTOR, stage.group, cluster),
        (BLOB_CONTRIBUTOR, stage.account, made["properties"]["aksAssignedIdentity"]["principalId"]),
    ):
        definition = f"{root}/providers/Microsoft.Authorization/roleDefinitions/{role}"
        properties = {"roleDefinitionId": definition, "principalId": principal, "principalType": "ServicePrincipal"}
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        await stage.made("PUT", path, {"properties": properties})
    instance = f"{stage.vault}/backupInstances/instance1"
    await stage.made("PUT", instance, bodies_of(stage)["BackupInstances_CreateOrUpdate"])
    configured = {
        "provisioningState": "Succeeded",
        "currentProtectionState": "ProtectionConfigured",
        "protectionStatus": {"status": "ProtectionConfigured"},
    }
    finish(stage, instance, lambda r: r.with_properties(configured))
    _history(stage, instance)
    stage.names |= {
        "subscription": stage.subscription,
        "group": "rg",
        "vault": "vault1",
        "policy": "policy1",
        "instance": "instance1",
        "job": JOB,
        "point": POINT,
        "cluster": "aks1",
        "binding": "binding1",
        "extension": "azure-aks-backup",
        "account": "backups",
        "container": "backups",
        "location": LOCATION,
        "namespace": "Microsoft.DataProtection",
        "role": READER,
        "tenant": stage.plane.tenant,
        "scope": stage.group.lstrip("/"),
    }


JOB = "6c9f1f32-75e1-4b53-9a3c-6e6a7c3b1f10"
POINT = "3f0a9c1de24b4cf7a1b2c3d4e5f60718"


def finish(stage: Stage, id: str, change: Callable[[Resource], Resource]) -> None:
    """Leave a resource, and the operations that run, as a worker would."""
    with stage.db.write() as tx:
        found = tx.resources.get(id)
        assert found is not None, id
        tx.resources.put(change(found))
        for operation in tx.operations.open():
            tx.operations.end(operation.ending(OperationStatus.SUCCEEDED, now()))
        for work in tx.outbox.waiting():
            tx.outbox.done(work.id)


def _connect(stage: Stage) -> str:
    """Write down a cluster as connecting one leaves it: there is none to connect to here. Returns its identity."""
    plane, incarnation = stage.plane, str(uuid.uuid4())
    record = managed_identity(stage.cluster, plane.tenant, incarnation=incarnation, name="aks1", created=now())
    document = {
        "id": stage.cluster,
        "name": "aks1",
        "type": CLUSTER_TYPE,
        "location": LOCATION,
        "identity": {"type": "SystemAssigned", "principalId": record.object_id, "tenantId": plane.tenant},
        "properties": {
            "provisioningState": "Succeeded",
            "powerState": {"code": "Running"},
            "kubernetesVersion": "1.33.1",
            "currentKubernetesVersion": "1.33.1",
            "fqdn": "127.0.0.1",
            "nodeResourceGroup": "MC_rg_aks1_westus",
            "enableRBAC": True,
        },
    }
    with stage.db.write() as tx:
        TxPrincipals(tx).put(record)
        private = {"incarnation": incarnation, "uid": str(uuid.uuid4())}
        tx.resources.put(Resource(stage.cluster, CLUSTER_TYPE, document, stage.group, private))
    return record.object_id


def _history(stage: Stage, instance: str) -> None:
    """Write down a finished backup and its recovery point."""
    at = stamp(now() - timedelta(hours=1))
    container = f"{stage.account}/blobServices/default/containers/backups"
    job = {
        "id": f"{stage.vault}/backupJobs/{JOB}",
        "name": JOB,
        "type": "Microsoft.DataProtection/backupVaults/backupJobs",
        "properties": {
            "activityID": JOB,
            "backupInstanceFriendlyName": "aks1",
            "backupInstanceId": instance,
            "dataSourceId": stage.cluster,
            "dataSourceLocation": LOCATION,
            "dataSourceName": "aks1",
            "dataSourceType": CLUSTER_TYPE,
            "duration": "PT0S",
            "startTime": at,
            "endTime": at,
            "isUserTriggered": True,
            "operation": "Backup",
            "operationCategory": "Backup",
            "progressEnabled": False,
            "sourceResourceGroup": "rg",
            "sourceSubscriptionID": stage.subscription,
            "status": "Completed",
            "subscriptionId": stage.subscription,
            "supportedActions": [""],
            "vaultName": "vault1",
        },
    }
    point = {
        "id": f"{instance}/recoveryPoints/{POINT}",
        "name": POINT,
        "type": "Microsoft.DataProtection/backupVaults/backupInstances/recoveryPoints",
        "properties": {
            "objectType": "AzureBackupDiscreteRecoveryPoint",
            "recoveryPointId": POINT,
            "friendlyName": POINT,
            "recoveryPointTime": at,
            "recoveryPointType": "Full",
            "recoveryPointState": "Completed",
            "recoveryPointDataStoresDetails": [],
        },
    }
    private = {"container": container, "cluster": stage.cluster}
    with stage.db.write() as tx:
        tx.jobs.add(Job(JOB, stage.vault, instance, "Backup", "Completed", at, job, ended=at))
        tx.points.put(StoredPoint(instance, POINT, at, "", "Default", point, private=private))
        assert read_access(tx, "")


def bodies_of(stage: Stage) -> dict[str, Any]:
    """Return a good body for each operation that is worth mutating, by operation name."""
    source = {
        "objectType": "Datasource",
        "datasourceType": CLUSTER_TYPE,
        "resourceType": CLUSTER_TYPE,
        "resourceID": stage.cluster,
        "resourceUri": stage.cluster,
        "resourceName": "aks1",
        "resourceLocation": LOCATION,
    }
    datasource = {
        "objectType": "KubernetesClusterBackupDatasourceParameters",
        "snapshotVolumes": True,
        "includeClusterScopeResources": True,
        "includedNamespaces": ["shop"],
        "excludedNamespaces": [],
        "labelSelectors": ["env=prod"],
        "includedVolumeTypes": ["AzureDisk"],
    }
    instance = {
        "objectType": "BackupInstance",
        "friendlyName": "aks1",
        "dataSourceInfo": source,
        "dataSourceSetInfo": {**source, "objectType": "DatasourceSet"},
        "policyInfo": {
            "policyId": f"{stage.vault}/backupPolicies/policy1",
            "policyParameters": {
                "dataStoreParametersList": [
                    {
                        "objectType": "AzureOperationalStoreParameters",
                        "dataStoreType": "OperationalStore",
                        "resourceGroupId": stage.group,
                    }
                ],
                "backupDatasourceParametersList": [datasource],
            },
        },
    }
    restore = {
        "objectType": "AzureBackupRecoveryPointBasedRestoreRequest",
        "recoveryPointId": POINT,
        "sourceDataStoreType": "OperationalStore",
        "restoreTargetInfo": {
            "objectType": "ItemLevelRestoreTargetInfo",
            "recoveryOption": "FailIfExists",
            "restoreLocation": LOCATION,
            "datasourceInfo": source,
            "restoreCriteria": [
                {
                    "objectType": "KubernetesClusterRestoreCriteria",
                    "includeClusterScopeResources": True,
                    "namespaceMappings": {"shop": "shop-copy"},
                    "conflictPolicy": "Skip",
                    "persistentVolumeRestoreMode": "RestoreWithVolumeData",
                }
            ],
        },
    }
    prefix = "configuration.backupStorageLocation."
    return {
        "BackupVaults_CreateOrUpdate": {
            "location": LOCATION,
            "identity": {"type": "SystemAssigned"},
            "tags": {"team": "a"},
            "properties": {
                "storageSettings": [{"datastoreType": "OperationalStore", "type": "LocallyRedundant"}],
                "securitySettings": {"softDeleteSettings": {"state": "On", "retentionDurationInDays": 14.0}},
            },
        },
        "BackupVaults_Update": {
            "tags": {"a": "b"},
            "properties": {
                "securitySettings": {"softDeleteSettings": {"retentionDurationInDays": 30.0, "state": "On"}}
            },
        },
        "BackupPolicies_CreateOrUpdate": POLICY,
        "BackupInstances_CreateOrUpdate": {"properties": instance},
        "BackupInstances_ValidateForBackup": {"backupInstance": instance},
        "BackupInstances_ValidateForModifyBackup": {"backupInstance": instance},
        "BackupInstances_AdhocBackup": {
            "backupRuleOptions": {"ruleName": "BackupHourly", "triggerOption": {"retentionTagOverride": "Default"}}
        },
        "BackupInstances_TriggerRestore": restore,
        "BackupInstances_ValidateForRestore": {"restoreRequestObject": restore},
        "BackupVaults_GrantPermissions": {"backupInstance": instance, "permissionsScope": "Resource"},
        "BackupInstances_GrantPermissions": {"restoreRequestObject": restore, "permissionsScope": "ResourceGroup"},
        "BackupInstances_SyncBackupInstance": {"syncType": "Default"},
        "BackupVaults_CheckNameAvailability": {"name": "vault2", "type": "Microsoft.DataProtection/backupVaults"},
        "DataProtection_CheckFeatureSupport": {
            "objectType": "FeatureValidationRequest",
            "featureType": "DataSourceType",
            "featureName": CLUSTER_TYPE,
        },
        "ResourceGroups_CreateOrUpdate": {"location": LOCATION, "tags": {"a": "b"}},
        "StorageAccounts_Create": {
            "location": LOCATION,
            "kind": "StorageV2",
            "sku": {"name": "Standard_LRS"},
            "properties": {},
        },
        "ManagedClusters_CreateOrUpdate": {"location": LOCATION, "tags": {"a": "b"}, "properties": {}},
        "TrustedAccessRoleBindings_CreateOrUpdate": {
            "properties": {
                "sourceResourceId": stage.vault,
                "roles": ["Microsoft.DataProtection/backupVaults/backup-operator"],
            }
        },
        "Extensions_Create": {
            "identity": {"type": "SystemAssigned"},
            "properties": {
                "extensionType": "microsoft.dataprotection.kubernetes",
                "autoUpgradeMinorVersion": True,
                "releaseTrain": "stable",
                "scope": {"cluster": {"releaseNamespace": "dataprotection-microsoft"}},
                "configurationSettings": {
                    f"{prefix}bucket": "backups",
                    f"{prefix}config.storageAccount": "backups",
                    f"{prefix}config.resourceGroup": "rg",
                    f"{prefix}config.subscriptionId": stage.subscription,
                    "credentials.tenantId": "x",
                },
            },
        },
        "RoleAssignments_Create": {
            "properties": {
                "roleDefinitionId": f"/subscriptions/{stage.subscription}/providers/Microsoft.Authorization"
                f"/roleDefinitions/{CONTRIBUTOR}",
                "principalId": stage.principal,
                "principalType": "ServicePrincipal",
            }
        },
        "Resources": {
            "subscriptions": [stage.subscription],
            "query": "RecoveryServicesResources | where type =~ 'microsoft.dataprotection/backupvaults/backupjobs'"
            " | extend s = properties.status | where s in~ ('Completed') | project id, s | order by id asc",
            "options": {"$top": 10, "resultFormat": "objectArray"},
        },
    }


POLICY = hourly_policy(zone="W. Europe Standard Time")
