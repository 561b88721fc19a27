"""A vault, a cluster and all that a backup of it needs, as rows of a database: for tests that break them one by one."""

import uuid
from dataclasses import dataclass, field
from typing import Any

from strongroom.controlplane.arm.authorizer import ASSIGNMENTS, read_access
from strongroom.controlplane.identity.rbac import RoleAssignment, RoleDefinition
from strongroom.controlplane.identity.roles import CONTRIBUTOR, READER, STORAGE_BLOB_DATA_CONTRIBUTOR
from strongroom.controlplane.state.database import Database, Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.workflows.readiness import (
    BINDINGS,
    DATASOURCE_TYPE,
    EXTENSION_TYPE,
    EXTENSIONS,
    OPERATOR_ROLE,
    PROVIDERS,
    InstanceRequest,
    problems_of_instance,
)
from strongroom.protection.errors import UserError
from strongroom.protection.job import Limits

TENANT = "6f1f7ad1-3f5e-4a3b-9c52-0b1d2f6a7c11"
VAULT_SUBSCRIPTION = "/subscriptions/11111111-2222-3333-4444-555555555555"
SUBSCRIPTION = "/subscriptions/66666666-7777-8888-9999-000000000000"
GROUP = f"{SUBSCRIPTION}/resourceGroups/apps"
SNAPSHOTS = f"{SUBSCRIPTION}/resourceGroups/snapshots"
VAULT = f"{VAULT_SUBSCRIPTION}/resourceGroups/backups/providers/Microsoft.DataProtection/backupVaults/safe"
POLICY = f"{VAULT}/backupPolicies/daily"
CLUSTER = f"{GROUP}/providers/Microsoft.ContainerService/managedClusters/shop"
EXTENSION = f"{CLUSTER}/providers/Microsoft.KubernetesConfiguration/extensions/azure-aks-backup"
BINDING = f"{CLUSTER}/trustedAccessRoleBindings/safe"
ACCOUNT = f"{GROUP}/providers/Microsoft.Storage/storageAccounts/shopbackups"
CONTAINER = f"{ACCOUNT}/blobServices/default/containers/backups"

VAULT_IDENTITY = "00000000-0000-4000-8000-00000000000a"
CLUSTER_IDENTITY = "00000000-0000-4000-8000-00000000000b"
EXTENSION_IDENTITY = "00000000-0000-4000-8000-00000000000c"

ROLES: dict[str, tuple[RoleDefinition, str, str]] = {
    "vault reads cluster": (READER, CLUSTER, VAULT_IDENTITY),
    "vault reads snapshots": (READER, SNAPSHOTS, VAULT_IDENTITY),
    "cluster writes snapshots": (CONTRIBUTOR, SNAPSHOTS, CLUSTER_IDENTITY),
    "extension writes blobs": (STORAGE_BLOB_DATA_CONTRIBUTOR, ACCOUNT, EXTENSION_IDENTITY),
}
"""What the guides have assigned: role, scope, principal."""


@dataclass
class World:
    """Resources by id, and role assignments by the names of `ROLES`; a test takes away or changes what it wants."""

    resources: dict[str, Resource] = field(default_factory=lambda: {r.id: r for r in _resources()})
    roles: dict[str, tuple[RoleDefinition, str, str]] = field(default_factory=lambda: dict(ROLES))

    def change(self, id: str, **properties: Any) -> None:
        self.resources[id] = self.resources[id].with_properties(properties)

    def document(self, id: str, **members: Any) -> None:
        self.resources[id] = self.resources[id].with_doc({**self.resources[id].doc, **members})

    def write(self, db: Database) -> None:
        with db.write() as tx:
            for resource in self.resources.values():
                tx.resources.put(resource)
            for role, scope, principal in self.roles.values():
                arm = RoleAssignment(str(uuid.uuid4()), scope, role.id, principal).as_arm()
                tx.resources.put(Resource(arm["id"], ASSIGNMENTS, arm, scope))


def problems(tx: Tx) -> list[UserError]:
    """Return what keeps the stage's cluster from being protected."""
    vault = tx.resources.get(VAULT)
    assert vault is not None
    request = InstanceRequest(CLUSTER, POLICY, SNAPSHOTS, {})
    return problems_of_instance(tx, vault, request, Limits(), read_access(tx, TENANT), exists=None)


def _resources() -> list[Resource]:
    def make(id: str, type: str, parent: str, properties: dict[str, Any] | None = None, **members: Any) -> Resource:
        document = {"id": id, "name": id.rpartition("/")[2], "type": type, "properties": properties or {}, **members}
        return Resource(id, type, document, parent)

    def identity(principal: str) -> dict[str, str]:
        return {"type": "SystemAssigned", "principalId": principal, "tenantId": TENANT}

    prefix = "configuration.backupStorageLocation."
    settings = {
        prefix + "bucket": "backups",
        prefix + "config.storageAccount": "shopbackups",
        prefix + "config.resourceGroup": "apps",
        prefix + "config.subscriptionId": SUBSCRIPTION.rpartition("/")[2],
    }
    extension = {
        "extensionType": EXTENSION_TYPE,
        "provisioningState": "Succeeded",
        "configurationSettings": settings,
        "aksAssignedIdentity": {"principalId": EXTENSION_IDENTITY},
    }
    binding = {"sourceResourceId": VAULT, "roles": [OPERATOR_ROLE], "provisioningState": "Succeeded"}
    groups = [make(g, "Microsoft.Resources/resourceGroups", SUBSCRIPTION, location="west") for g in (GROUP, SNAPSHOTS)]
    return [
        *groups,
        *(
            make(f"{s}/providers/{p}", "Microsoft.Resources/providers", s, registrationState="Registered")
            for s in (SUBSCRIPTION, VAULT_SUBSCRIPTION)
            for p in PROVIDERS
        ),
        make(
            VAULT,
            "Microsoft.DataProtection/backupVaults",
            f"{VAULT_SUBSCRIPTION}/resourceGroups/backups",
            location="west",
            identity=identity(VAULT_IDENTITY),
        ),
        make(POLICY, "Microsoft.DataProtection/backupVaults/backupPolicies", VAULT),
        make(CLUSTER, DATASOURCE_TYPE, GROUP, location="west", identity=identity(CLUSTER_IDENTITY)),
        make(EXTENSION, EXTENSIONS, CLUSTER, extension),
        make(BINDING, BINDINGS, CLUSTER, binding),
        make(ACCOUNT, "Microsoft.Storage/storageAccounts", GROUP, location="west"),
        make(CONTAINER, "Microsoft.Storage/storageAccounts/blobServices/containers", ACCOUNT),
    ]
