"""Backup instances: what of which cluster is protected by which policy."""

import uuid
from typing import Final

from azure.mgmt.dataprotection import types as wire

from strongroom.controlplane.arm import lro
from strongroom.controlplane.arm.authorizer import read_access
from strongroom.controlplane.arm.call import Call, Reply
from strongroom.controlplane.arm.dataprotection.common import (
    DELETED_INSTANCES,
    INSTANCE,
    INSTANCES,
    VAULT,
    accepted_by_vault,
    instance_id,
    invalid_input,
    require_instance,
    require_vault,
    vault_id,
)
from strongroom.controlplane.arm.errors import ArmError, Json, not_supported
from strongroom.controlplane.arm.formats import check_name
from strongroom.controlplane.arm.pages import page_of
from strongroom.controlplane.arm.preconditions import check_preconditions
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.workflows.protecting import with_state
from strongroom.controlplane.workflows.readiness import (
    InstanceRequest,
    problems_of_instance,
    problems_of_return,
    read_instance,
)
from strongroom.protection.errors import refuse_if_any
from strongroom.protection.instance import Action, NothingToDo, ProtectionState, decide
from strongroom.protection.job import check_count
from strongroom.protection.settings import check_update, parse_instance

CONFIGURATION_KEYS: Final = (
    "snapshotVolumes",
    "includeClusterScopeResources",
    "includedNamespaces",
    "excludedNamespaces",
    "includedResourceTypes",
    "excludedResourceTypes",
    "labelSelectors",
    "includedVolumeTypes",
    "backupHookReferences",
)
"""The nine names of a Kubernetes backup configuration; answers carry all of them, null when unset."""


def put_instance(call: Call) -> Reply:
    """Protect a cluster, or change how it is protected. What is known to be wrong is refused at once, all together."""
    check_name("backupInstances", call.path["instance"])
    with call.db.write() as tx:
        vault = require_vault(call, tx)
        old = tx.resources.get(call.id)
        check_preconditions(call, old)
        request = read_instance(call.body["properties"], vault.id, limits=call.plane.limits)
        _check_linked(call, request)
        _check_change(call, tx, vault, old, call.body["properties"])
        state = ProtectionState(old.properties["currentProtectionState"]) if old else None
        wanted = _instance(call, old, request, call.body)
        changed = old is None or wanted.doc != old.doc
        decision = decide(wanted.name, state, Action.UPDATE if old else Action.CREATE, changed=changed)
        if isinstance(decision, NothingToDo):
            return Reply(200, wanted.doc)
        access = read_access(tx, call.plane.tenant)
        problems = problems_of_instance(tx, vault, request, call.plane.limits, access, exists=old)
        refuse_if_any(problems, "The backup instance")
        stored = tx.resources.put(with_state(wanted, decision.during, provisioning="Provisioning"))
        states = {"after": str(decision.after), "failed": str(decision.failed)}
        operation = lro.begin(call, tx, "configure", request=states, key=stored.id)
        return lro.created(call, tx, operation, f"{vault.id}/operationStatus", stored.doc)


def _check_linked(call: Call, request: InstanceRequest) -> None:
    """The caller may protect only a cluster that they may read: azure-backup-for-aks.md, section 5."""
    call.demand("Microsoft.ContainerService/managedClusters/read", request.cluster)
    call.demand("Microsoft.Resources/subscriptions/resourceGroups/read", request.snapshot_group)


def _check_change(call: Call, tx: Tx, vault: Resource, old: Resource | None, properties: Json) -> None:
    if old is None:
        count = tx.resources.count(vault.id, INSTANCES)
        check_count(count, call.plane.limits.instances_per_vault, "backup instances in the vault", vault.id)
        if tx.resources.get(f"{vault.id}/deletedBackupInstances/{call.path['instance']}"):
            raise ArmError(
                400,
                "UserErrorDppDatasourceAlreadyHasBackupInstance",
                f"A soft-deleted backup instance is called '{call.path['instance']}'.",
                actions=("Undelete it, or choose another name.",),
            )
        return
    check_update(parse_instance(old.properties), parse_instance(properties))


def _instance(call: Call, old: Resource | None, request: InstanceRequest, body: Json) -> Resource:
    identifier = old.id if old else instance_id(call)
    properties: Json = dict(body["properties"])
    properties.setdefault("friendlyName", identifier.rpartition("/")[2])
    properties["objectType"] = "BackupInstance"
    for info in ("dataSourceInfo", "dataSourceSetInfo"):
        properties[info] = {**properties[info], "resourceID": request.cluster}
        if uri := properties[info].get("resourceUri"):
            properties[info]["resourceUri"] = uri.strip()
    properties["policyInfo"] = {**properties["policyInfo"], "policyId": request.policy}
    parameters = dict(properties["policyInfo"]["policyParameters"])
    configuration = parameters["backupDatasourceParametersList"][0]
    parameters["backupDatasourceParametersList"] = [
        {"objectType": configuration["objectType"], **{key: configuration.get(key) for key in CONFIGURATION_KEYS}}
    ]
    properties["policyInfo"]["policyParameters"] = parameters
    for written in ("currentProtectionState", "protectionStatus", "provisioningState", "protectionErrorDetails"):
        properties.pop(written, None)
        if old and written in old.properties:
            properties[written] = old.properties[written]
    document: Json = {
        "id": identifier,
        "name": identifier.rpartition("/")[2],
        "type": INSTANCES,
        "properties": properties,
    }
    if tags := body.get("tags"):
        document["tags"] = tags
    private = dict(old.private) if old else {"incarnation": str(uuid.uuid4())}
    return Resource(identifier, INSTANCES, document, vault_id(call), private, created=old.created if old else "")


def get_instance(call: Call) -> Reply:
    with call.db.read() as tx:
        instance = require_instance(call, tx)
        return Reply(200, instance.doc, {"ETag": f'"{instance.etag}"'})


def list_instances(call: Call) -> Reply:
    with call.db.read() as tx:
        parent = require_vault(call, tx).id
        return page_of(call, lambda after, limit: tx.resources.children(parent, INSTANCES, after=after, limit=limit))


def list_of_cluster(call: Call) -> Reply:
    """Extension routing: the backup instances that protect the resource in front of the provider."""
    cluster = "/" + call.path["resource"].strip("/")
    with call.db.read() as tx:
        found = [
            instance
            for instance in tx.resources.of_type(INSTANCES)
            if str(instance.properties["dataSourceInfo"]["resourceID"]).lower() == cluster.lower()
        ]
    return Reply(200, {"value": [i.doc for i in found]})


def validate_for_backup(call: Call) -> Reply:
    """Check whether an instance could be protected; nothing changes. What only the cluster knows is asked of it."""
    with call.db.write() as tx:
        vault = require_vault(call, tx)
        request = read_instance(call.body["backupInstance"], vault.id, path="backupInstance", limits=call.plane.limits)
        _check_linked(call, request)
        document = {"properties": call.body["backupInstance"]}
        operation = lro.begin(call, tx, "validate-backup", request=document, resource=vault.id)
        return accepted_by_vault(call, tx, vault, operation)


def validate_for_modify(call: Call) -> Reply:
    """Check whether an instance could be protected in another way."""
    with call.db.write() as tx:
        instance = require_instance(call, tx)
        vault = require_vault(call, tx)
        request = read_instance(call.body["backupInstance"], vault.id, path="backupInstance", limits=call.plane.limits)
        _check_linked(call, request)
        _check_change(call, tx, vault, instance, call.body["backupInstance"])
        document = {"properties": call.body["backupInstance"], "instance": instance.id}
        operation = lro.begin(call, tx, "validate-backup", request=document, resource=instance.id)
        return accepted_by_vault(call, tx, vault, operation)


def delete_instance(call: Call) -> Reply:
    """Delete an instance: with soft delete it can be brought back until its purge, else its points go at once."""
    with call.db.write() as tx:
        vault = require_vault(call, tx)
        instance = tx.resources.get(instance_id(call))
        if instance is None:
            return Reply(204)
        check_preconditions(call, instance)
        if vault.properties["securitySettings"].get("immutabilitySettings", {}).get("state") == "Locked":
            raise invalid_input("", "The vault is immutable (Locked): its recovery points cannot be deleted.")
        soft = vault.properties["securitySettings"]["softDeleteSettings"]["state"] != "Off"
        state = ProtectionState(instance.properties["currentProtectionState"])
        decision = decide(instance.name, state, Action.DELETE, soft_delete=soft)
        if isinstance(decision, NothingToDo):
            running = tx.operations.running(instance.id, "delete-instance")
            if running is None:  # the one that deletes it ends in this moment
                raise ArmError(409, "Conflict", f"The backup instance '{instance.name}' is being deleted.")
            return accepted_by_vault(call, tx, vault, running)
        tx.resources.put(with_state(instance, decision.during, provisioning="Updating"))
        tx.schedules.clear(instance.id)
        states = {"soft": soft, "failed": str(decision.failed)}
        operation = lro.begin(call, tx, "delete-instance", request=states, key=instance.id, resource=instance.id)
        return accepted_by_vault(call, tx, vault, operation)


def list_deleted(call: Call) -> Reply:
    with call.db.read() as tx:
        parent = require_vault(call, tx).id
        return page_of(
            call, lambda after, limit: tx.resources.children(parent, DELETED_INSTANCES, after=after, limit=limit)
        )


def get_deleted(call: Call) -> Reply:
    with call.db.read() as tx:
        require_vault(call, tx)
        return Reply(200, call.require(tx, call.id).doc)


def undelete(call: Call) -> Reply:
    """Bring a soft-deleted instance back, with its recovery points, as `ProtectionStopped`."""
    with call.db.write() as tx:
        vault = require_vault(call, tx)
        deleted = tx.resources.get(f"{vault.id}/deletedBackupInstances/{call.path['instance']}")
        if deleted is None:
            raise ArmError(
                404,
                "UserErrorGenericResourceNotFound",
                f"There is no soft-deleted backup instance '{call.path['instance']}' in this vault.",
                actions=("List them with GET deletedBackupInstances.",),
            )
        if deleted.private.get("purging"):
            raise ArmError(
                409,
                "UserErrorOperationNotAllowed",
                f"The time of the soft-deleted backup instance '{deleted.name}' is over: it is being purged.",
            )
        identifier = f"{vault.id}/backupInstances/{deleted.name}"
        if tx.resources.get(identifier):
            raise ArmError(
                400,
                "UserErrorDppDatasourceAlreadyHasBackupInstance",
                f"A backup instance '{deleted.name}' was created meanwhile.",
                actions=("Delete it first.",),
            )
        refuse_if_any(problems_of_return(tx, vault, deleted, call.plane.limits), "The soft-deleted backup instance")
        properties = {k: v for k, v in deleted.properties.items() if k != "deletionInfo"}
        document = {
            **deleted.doc,
            "id": identifier,
            "type": INSTANCES,
            "properties": {**properties, "objectType": "BackupInstance"},
        }
        tx.resources.delete(deleted.id)
        back = Resource(identifier, INSTANCES, document, vault.id, deleted.private, created=deleted.created)
        tx.resources.put(with_state(back, ProtectionState.STOPPED))
        operation = lro.done(call, tx, "undelete", resource=identifier)
        return accepted_by_vault(call, tx, vault, operation)


def rehydrate(call: Call) -> Reply:
    raise not_supported("rehydration: there is no archive tier for Kubernetes clusters")


_DELETED = f"{VAULT}/deletedBackupInstances"

OPERATIONS = (
    Operation(
        "BackupInstances_CreateOrUpdate",
        "PUT",
        INSTANCE,
        f"{INSTANCES}/write",
        put_instance,
        shape(wire.BackupInstanceResource),
        (200, 201),
    ),
    Operation("BackupInstances_Get", "GET", INSTANCE, f"{INSTANCES}/read", get_instance),
    Operation(
        "BackupInstances_Delete", "DELETE", INSTANCE, f"{INSTANCES}/delete", delete_instance, statuses=(202, 204)
    ),
    Operation("BackupInstances_List", "GET", f"{VAULT}/backupInstances", f"{INSTANCES}/read", list_instances),
    Operation(
        "BackupInstances_ValidateForBackup",
        "POST",
        f"{VAULT}/validateForBackup",
        "Microsoft.DataProtection/backupVaults/validateForBackup/action",
        validate_for_backup,
        shape(wire.ValidateForBackupRequest),
        (202,),
    ),
    Operation(
        "BackupInstances_ValidateForModifyBackup",
        "POST",
        f"{INSTANCE}/validateForModifyBackup",
        f"{INSTANCES}/validateForModifyBackup/action",
        validate_for_modify,
        shape(wire.ValidateForModifyBackupRequest),
        (202,),
    ),
    Operation(
        "BackupInstancesExtensionRouting_List",
        "GET",
        "/{+resource}/providers/Microsoft.DataProtection/backupInstances",
        f"{INSTANCES}/read",
        list_of_cluster,
    ),
    Operation("DeletedBackupInstances_List", "GET", _DELETED, f"{DELETED_INSTANCES}/read", list_deleted),
    Operation(
        "DeletedBackupInstances_Get", "GET", f"{_DELETED}/{{instance}}", f"{DELETED_INSTANCES}/read", get_deleted
    ),
    Operation(
        "DeletedBackupInstances_Undelete",
        "POST",
        f"{_DELETED}/{{instance}}/undelete",
        f"{DELETED_INSTANCES}/undelete/action",
        undelete,
        statuses=(202,),
    ),
    Operation(
        "BackupInstances_TriggerRehydrate",
        "POST",
        f"{INSTANCE}/rehydrate",
        f"{INSTANCES}/rehydrate/action",
        rehydrate,
        statuses=(202, 204),
    ),
)
