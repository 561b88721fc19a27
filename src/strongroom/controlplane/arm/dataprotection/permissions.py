"""Our own operation `grantPermissions`: gives the identities of vault, cluster and extension the roles they lack.

It is what PowerShell's Set-AzDataProtectionMSIPermission does from outside, in one request, for a backup instance that
is to be configured or for a restore.
"""

from enum import StrEnum
from typing import Required, TypedDict

from azure.mgmt.dataprotection import models

from strongroom.controlplane.arm import lro
from strongroom.controlplane.arm.call import Call, Reply
from strongroom.controlplane.arm.dataprotection.common import (
    INSTANCE,
    INSTANCES,
    VAULT,
    require_instance,
    require_vault,
)
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.identity.assignments import ASSIGNMENTS, assign, read_access
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import now
from strongroom.controlplane.workflows.readiness import read_instance, require_parties
from strongroom.controlplane.workflows.restoring import read_restore
from strongroom.controlplane.workflows.roles import Requirement, missing


class PermissionsScope(StrEnum):
    """How far the roles reach: the words of the how-to's `-PermissionsScope`."""

    RESOURCE = "Resource"
    RESOURCE_GROUP = "ResourceGroup"
    SUBSCRIPTION = "Subscription"


class GrantForBackup(TypedDict, total=False):
    """The backup instance that is to be configured, and how far the roles reach (`Resource` by default)."""

    backupInstance: Required[models.BackupInstance]
    permissionsScope: PermissionsScope


class GrantForRestore(TypedDict, total=False):
    """The restore that is to be carried out, and how far the roles reach (`Resource` by default)."""

    restoreRequestObject: Required[models.AzureBackupRestoreRequest]
    permissionsScope: PermissionsScope


def grant_for_backup(call: Call) -> Reply:
    """Give the roles that a backup instance needs. The caller must be allowed to assign roles at each scope."""
    with call.db.write() as tx:
        vault = require_vault(call, tx)
        request = read_instance(call.body["backupInstance"], vault.id)
        reply = _grant(call, tx, vault, request.cluster, request.snapshot_group)
    call.plane.authorizer.forget()
    return reply


def grant_for_restore(call: Call) -> Reply:
    """Give the roles that a restore needs in its target cluster. The caller must be allowed to assign them."""
    with call.db.write() as tx:
        vault = require_vault(call, tx)
        instance = require_instance(call, tx)
        request = read_restore(tx, instance, call.body["restoreRequestObject"], path="restoreRequestObject.")
        group = read_instance(instance.properties, vault.id).snapshot_group
        reply = _grant(call, tx, vault, request.target, group)
    call.plane.authorizer.forget()
    return reply


def _grant(call: Call, tx: Tx, vault: Resource, cluster: str, group: str) -> Reply:
    reach = PermissionsScope(call.body.get("permissionsScope", PermissionsScope.RESOURCE))
    # Who may not read these learns nothing of them.
    call.demand("Microsoft.ContainerService/managedClusters/read", cluster)
    call.demand("Microsoft.Resources/subscriptions/resourceGroups/read", group)
    needed = missing(read_access(tx, call.plane.tenant), require_parties(tx, vault, cluster, group))
    scopes = {widened(one.scope, reach): None for one in needed}
    for scope in scopes:
        call.demand(f"{ASSIGNMENTS}/write", scope)
    made = {}
    for one in needed:
        resource = _assign(call, tx, one, widened(one.scope, reach))
        made[resource.id] = resource.doc
    return lro.keep(call, tx, Reply(200, {"permissionsScope": str(reach), "roleAssignments": list(made.values())}))


def _assign(call: Call, tx: Tx, required: Requirement, scope: str) -> Resource:
    """Make the assignment, and note it in the audit trail as if it had been made by itself."""
    at, by, role = now(), call.principal.object_id, required.role
    about = f"For backups: the {required.holder} {required.identity.name}"
    resource = assign(tx, role, required.identity.principal, scope, by=by, at=at, description=about)
    detail = f"{role.name} for {required.identity.principal}"
    tx.audit.add(
        "role assigned", principal=by, action=f"{ASSIGNMENTS}/write", scope=scope, outcome="succeeded", detail=detail
    )
    return resource


def widened(scope: str, reach: PermissionsScope) -> str:
    """Return *scope*, or the resource group or subscription that it lies in."""
    segments = scope.rstrip("/").split("/")
    match reach:
        case PermissionsScope.RESOURCE:
            return scope
        case PermissionsScope.RESOURCE_GROUP:
            return "/".join(segments[:5])
        case PermissionsScope.SUBSCRIPTION:
            return "/".join(segments[:3])


OPERATIONS = (
    Operation(
        "BackupVaults_GrantPermissions",
        "POST",
        f"{VAULT}/grantPermissions",
        # Nobody gains by it alone: each assignment asks for the right to make it.
        "Microsoft.DataProtection/backupVaults/validateForBackup/action",
        grant_for_backup,
        shape(GrantForBackup),
    ),
    Operation(
        "BackupInstances_GrantPermissions",
        "POST",
        f"{INSTANCE}/grantPermissions",
        f"{INSTANCES}/validateRestore/action",
        grant_for_restore,
        shape(GrantForRestore),
    ),
)
