"""Backup vaults: create, change, list and delete them, and the identity that each one has."""

import uuid
from dataclasses import replace
from typing import Final

from azure.mgmt.dataprotection import types as wire

from strongroom.controlplane.arm import lro
from strongroom.controlplane.arm.call import Call, Reply, listing, require_subscription
from strongroom.controlplane.arm.containerservice.common import refuse_while_running
from strongroom.controlplane.arm.dataprotection.common import (
    DELETED_INSTANCES,
    GROUP,
    INSTANCES,
    NAMESPACE,
    SUBSCRIPTION,
    VAULT,
    VAULTS,
    invalid_input,
    location_of,
    require_vault,
    shown,
    vault_id,
)
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.arm.formats import check_name, check_region
from strongroom.controlplane.arm.pages import page_of
from strongroom.controlplane.arm.preconditions import check_preconditions
from strongroom.controlplane.arm.providers import require_registered
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.identity.assignments import forget_principals, forget_resource
from strongroom.controlplane.identity.principals import managed_identity
from strongroom.controlplane.identity.stored import TxPrincipals
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import now
from strongroom.controlplane.workflows.readiness import BINDINGS, ORPHANED, same_id

SOFT_DELETE_DAYS: Final = 14.0  # the service's default, and its minimum: azure-backup-for-aks.md, section 1.3
SOFT_DELETE_DAYS_MAX: Final = 180.0


def put_vault(call: Call) -> Reply:
    """Create or replace a vault: 201 when something changed, 200 when it is as asked already."""
    check_name("backupVaults", call.path["vault"])
    if "x-ms-deleted-vault-id" in call.headers:
        raise ArmError(501, "NotSupported", "Strongroom does not support bringing back deleted vaults.")
    with call.db.write() as tx:
        call.require_group(tx)
        require_registered(tx, call.subscription, NAMESPACE)
        old = tx.resources.get(vault_id(call))
        check_preconditions(call, old)
        resource = _vault(call, tx, call.body, old)
        if old is not None and old.doc == resource.doc:
            return Reply(200, shown(old))
        stored = tx.resources.put(resource, if_match=old.etag if old else None, if_absent=old is None)
        return _changed(call, tx, stored)


def patch_vault(call: Call) -> Reply:
    """Change tags, identity or settings of a vault."""
    with call.db.write() as tx:
        old = require_vault(call, tx)
        check_preconditions(call, old)
        changes = call.body.get("properties", {})
        body = {
            "location": location_of(old),
            "tags": call.body.get("tags", old.doc.get("tags")),
            "identity": call.body.get("identity", old.doc.get("identity")),
            "properties": _laid_over(old.properties, changes),
        }
        resource = _vault(call, tx, {k: v for k, v in body.items() if v is not None}, old)
        if old.doc == resource.doc:
            return Reply(200, shown(old))
        stored = tx.resources.put(resource, if_match=old.etag)
        operation = lro.done(call, tx, "vault", result={"resource": stored.id})
        return lro.accepted(call, tx, operation, f"{stored.id}/operationStatus", f"{stored.id}/operationResults")


def _changed(call: Call, tx: Tx, stored: Resource) -> Reply:
    operation = lro.done(call, tx, "vault")
    document = shown(stored)
    # As the service answers a PUT that changed something; the operation has succeeded when the client first asks.
    body = {**document, "properties": {**document["properties"], "provisioningState": "Provisioning"}}
    return lro.created(call, tx, operation, f"{stored.id}/operationStatus", body)


def _vault(call: Call, tx: Tx, body: Json, old: Resource | None) -> Resource:
    """Return the vault that *body* asks for. Raises what is not acceptable about it."""
    asked = body.get("properties", {})
    location = check_region(body["location"])
    if old is not None and location != location_of(old):
        raise ArmError(
            409,
            "InvalidResourceLocation",
            f"The resource '{old.name}' already exists in location '{location_of(old)}' and cannot be created in "
            f"location '{location}'.",
            target="location",
        )
    identifier = old.id if old else vault_id(call)
    private = dict(old.private) if old else {"incarnation": str(uuid.uuid4())}
    document: Json = {
        "id": identifier,
        "name": identifier.rpartition("/")[2],
        "type": VAULTS,
        "location": location,
        "identity": _identity(call, tx, identifier, body.get("identity", {}), private["incarnation"]),
        "properties": {
            "provisioningState": "Succeeded",
            "storageSettings": _storage_settings(asked, old),
            "securitySettings": _security_settings(asked, old),
            "featureSettings": asked.get("featureSettings", {}),
            "monitoringSettings": asked.get("monitoringSettings", {}),
            "isVaultProtectedByResourceGuard": False,
            "secureScore": "None",
            "bcdrSecurityLevel": "Poor",
            "replicatedRegions": asked.get("replicatedRegions", []),
            "resourceMoveState": "Unknown",
        },
    }
    if "tags" in body:
        document["tags"] = body["tags"]
    document["properties"]["secureScore"] = _secure_score(document["properties"]["securitySettings"])
    return Resource(
        identifier, VAULTS, document, call.group_id, private, old.etag if old else "", old.created if old else ""
    )


def _identity(call: Call, tx: Tx, identifier: str, asked: Json, incarnation: str) -> Json:
    kind = asked.get("type", "None")
    if "userassigned" in kind.lower():
        raise ArmError(
            501,
            "NotSupported",
            f"identity.type is '{kind}'; Strongroom supports 'SystemAssigned' and 'None' for a Backup vault.",
            target="identity.type",
            actions=("Use identity.type 'SystemAssigned'.",),
        )
    if kind.lower() != "systemassigned":
        # As in Azure, an identity that is switched off is gone, with its roles; switched on again it has none.
        with_it = tx.principals.of_resource(identifier)
        forget_principals(tx, {row.object_id for row in with_it})
        return {"type": "None"}
    record = managed_identity(
        identifier, call.plane.tenant, incarnation=incarnation, name=identifier.rpartition("/")[2], created=now()
    )
    directory = TxPrincipals(tx)
    if directory.get_by_object_id(record.object_id) is None:
        directory.put(record)
    return {"type": "SystemAssigned", "principalId": record.object_id, "tenantId": call.plane.tenant}


def _storage_settings(asked: Json, old: Resource | None) -> list[Json]:
    settings: list[Json] = asked.get("storageSettings") or []
    if not settings:
        raise invalid_input(
            "properties.storageSettings",
            "properties.storageSettings is empty; a vault needs one entry with datastoreType and type.",
            'Send for example [{"datastoreType": "OperationalStore", "type": "LocallyRedundant"}].',
        )
    found: list[Json] = [{"datastoreType": s.get("datastoreType"), "type": s.get("type")} for s in settings]
    if old is not None and found != old.properties["storageSettings"]:
        raise invalid_input(
            "properties.storageSettings",
            f"properties.storageSettings is fixed when a vault is created: it is {old.properties['storageSettings']}.",
            "Leave it as it is, or create another vault.",
        )
    return found


def _security_settings(asked: Json, old: Resource | None) -> Json:
    settings: Json = dict(asked.get("securitySettings", {}))
    before: Json = old.properties["securitySettings"] if old else {}
    soft: Json = {"state": "On", "retentionDurationInDays": SOFT_DELETE_DAYS, **settings.get("softDeleteSettings", {})}
    days = soft["retentionDurationInDays"]
    if soft["state"] != "Off" and not SOFT_DELETE_DAYS <= days <= SOFT_DELETE_DAYS_MAX:
        raise invalid_input(
            "properties.securitySettings.softDeleteSettings.retentionDurationInDays",
            f"retentionDurationInDays is {days:g}; {SOFT_DELETE_DAYS:g} to {SOFT_DELETE_DAYS_MAX:g} days are accepted.",
        )
    if before.get("softDeleteSettings", {}).get("state") == "AlwaysOn" and soft["state"] != "AlwaysOn":
        raise invalid_input(
            "properties.securitySettings.softDeleteSettings.state",
            f"softDeleteSettings.state is AlwaysOn, which cannot be undone; found '{soft['state']}'.",
        )
    immutability = settings.get("immutabilitySettings", {}).get("state")
    if before.get("immutabilitySettings", {}).get("state") == "Locked" and immutability != "Locked":
        raise invalid_input(
            "properties.securitySettings.immutabilitySettings.state",
            f"immutabilitySettings.state is Locked, which cannot be undone; found '{immutability or 'nothing'}'.",
        )
    if settings.get("encryptionSettings", {}).get("state") == "Enabled":
        raise ArmError(
            501,
            "NotSupported",
            "Strongroom does not support customer-managed keys for a vault: every repository has a key of its own.",
            target="properties.securitySettings.encryptionSettings.state",
        )
    return {**settings, "softDeleteSettings": soft}


def _secure_score(security: Json) -> str:
    """Return the cosmetic score as it was observed: section 1.9 of the reference."""
    soft = security["softDeleteSettings"]["state"] != "Off"
    locked = security.get("immutabilitySettings", {}).get("state") == "Locked"
    return "Adequate" if soft and locked else "None"


def _laid_over(old: Json, changes: Json) -> Json:
    """Return *old* with *changes* merged in, object by object, as a PATCH means it."""
    merged = dict(old)
    for key, value in changes.items():
        before = merged.get(key)
        merged[key] = _laid_over(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def get_vault(call: Call) -> Reply:
    with call.db.read() as tx:
        vault = require_vault(call, tx)
    # Ours, read-only: whoever watches vaults should see that a loss of the server's machine would take all backups.
    kit = "Taken" if call.plane.kit_taken() else "NotTaken"
    document = shown(vault.with_properties({"strongroomRecoveryKit": kit}))
    return Reply(200, document, {"ETag": f'"{vault.etag}"'})


def list_in_group(call: Call) -> Reply:
    with call.db.read() as tx:
        call.require_group(tx)
        return page_of(
            call, lambda after, limit: tx.resources.children(call.group_id, VAULTS, after=after, limit=limit), shown
        )


def list_in_subscription(call: Call) -> Reply:
    with call.db.read() as tx:
        require_subscription(tx, call.subscription)

        def fetch(after: str, limit: int) -> list[Resource]:
            return tx.resources.of_type(VAULTS, subscription=call.subscription, after=after, limit=limit)

        return page_of(call, fetch, shown)


def delete_vault(call: Call) -> Reply:
    """Delete an empty vault, with its policies and its identity; what its containers hold is not touched."""
    with call.db.write() as tx:
        call.require_group(tx)
        vault = tx.resources.get(vault_id(call))
        if vault is None:
            return Reply(204)
        check_preconditions(call, vault)
        for kind, word in ((INSTANCES, "backup instances"), (DELETED_INSTANCES, "soft-deleted backup instances")):
            if count := tx.resources.count(vault.id, kind):
                raise ArmError(
                    400,
                    "UserErrorVaultNotEmpty",
                    f"The vault '{vault.name}' cannot be deleted: it holds {count} {word}.",
                    actions=(
                        "Stop protection and delete them first; soft-deleted ones leave when their time is over.",
                    ),
                )
        unbind_vault(call, tx, vault)
        forget_resource(tx, vault.id)
        tx.resources.delete_tree(vault.id)
        operation = lro.done(call, tx, "vault", resource=vault.id)
        place = f"{call.group_id}/providers/{NAMESPACE}/locations/{location_of(vault)}/operationStatus"
        results = f"/subscriptions/{call.subscription}/providers/{NAMESPACE}/locations/{location_of(vault)}"
        return lro.accepted(call, tx, operation, place, f"{results}/operationResults")


def unbind_vault(call: Call, tx: Tx, vault: Resource) -> None:
    """Begin to take the vault's access to clusters away. One that cannot go yet stands as failed."""
    for binding in tx.resources.of_type(BINDINGS):
        if not same_id(str(binding.properties.get("sourceResourceId", "")), vault.id):
            continue
        refuse_while_running(tx, binding.id, "bind-access")
        orphan = binding.with_properties({"provisioningState": "Deleting"})
        # Also where it is going already: that may fail yet, after the vault.
        tx.resources.put(replace(orphan, private={**binding.private, ORPHANED: True}))
        if not tx.operations.running(binding.id, "unbind-access"):
            lro.begin(call, tx, "unbind-access", resource=binding.id, key=binding.id)


def list_deleted(call: Call) -> Reply:
    """Answer which vaults could be brought back: none, since a vault is deleted only when it is empty."""
    with call.db.read() as tx:
        require_subscription(tx, call.subscription)
    return listing([])


OPERATIONS = (
    Operation(
        "BackupVaults_CreateOrUpdate",
        "PUT",
        VAULT,
        f"{VAULTS}/write",
        put_vault,
        shape(wire.BackupVaultResource),
        (200, 201),
    ),
    Operation(
        "BackupVaults_Update",
        "PATCH",
        VAULT,
        f"{VAULTS}/write",
        patch_vault,
        shape(wire.PatchResourceRequestInput),
        (200, 202),
    ),
    Operation("BackupVaults_Get", "GET", VAULT, f"{VAULTS}/read", get_vault),
    Operation("BackupVaults_Delete", "DELETE", VAULT, f"{VAULTS}/delete", delete_vault, statuses=(202, 204)),
    Operation("BackupVaults_GetInResourceGroup", "GET", f"{GROUP}/backupVaults", f"{VAULTS}/read", list_in_group),
    Operation(
        "BackupVaults_GetInSubscription", "GET", f"{SUBSCRIPTION}/backupVaults", f"{VAULTS}/read", list_in_subscription
    ),
    Operation(
        "DeletedBackupVaults_ListByLocation",
        "GET",
        f"{SUBSCRIPTION}/locations/{{location}}/deletedVaults",
        f"{NAMESPACE}/locations/deletedVaults/read",
        list_deleted,
    ),
)
