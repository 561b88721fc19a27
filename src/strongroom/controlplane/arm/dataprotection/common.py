"""What the operations of Microsoft.DataProtection share: ids, types, where they poll, and the group of actions."""

from typing import Final

from strongroom.controlplane.arm.call import Call, Reply
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.arm.lro import accepted
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.operations import LongOperation
from strongroom.controlplane.state.resources import Resource

NAMESPACE: Final = "Microsoft.DataProtection"
VAULTS: Final = f"{NAMESPACE}/backupVaults"
POLICIES: Final = f"{VAULTS}/backupPolicies"
INSTANCES: Final = f"{VAULTS}/backupInstances"
DELETED_INSTANCES: Final = f"{VAULTS}/deletedBackupInstances"
POINTS: Final = f"{INSTANCES}/recoveryPoints"
JOBS: Final = f"{VAULTS}/backupJobs"

SUBSCRIPTION: Final = f"/subscriptions/{{subscription}}/providers/{NAMESPACE}"
GROUP: Final = f"/subscriptions/{{subscription}}/resourceGroups/{{group}}/providers/{NAMESPACE}"
VAULT: Final = f"{GROUP}/backupVaults/{{vault}}"
INSTANCE: Final = f"{VAULT}/backupInstances/{{instance}}"


def vault_id(call: Call) -> str:
    return f"{call.group_id}/providers/{VAULTS}/{call.path['vault']}"


def instance_id(call: Call) -> str:
    return f"{vault_id(call)}/backupInstances/{call.path['instance']}"


def require_vault(call: Call, tx: Tx) -> Resource:
    """Return the vault of the path. Raises ARM's 404."""
    call.require_group(tx)
    return call.require(tx, vault_id(call))


def require_instance(call: Call, tx: Tx) -> Resource:
    """Return the backup instance of the path. Raises ARM's 404."""
    require_vault(call, tx)
    return call.require(tx, instance_id(call))


def results_path(call: Call, vault: Resource) -> str:
    """Return the path of `operationResults` that POST and DELETE answers point to: the vault's location."""
    return f"/subscriptions/{call.subscription}/providers/{NAMESPACE}/locations/{location_of(vault)}/operationResults"


def location_of(resource: Resource) -> str:
    return str(resource.doc.get("location", ""))


def accepted_by_vault(call: Call, tx: Tx, vault: Resource, operation: LongOperation) -> Reply:
    """Return 202 with the status below the vault and the result below its location."""
    return accepted(call, tx, operation, f"{vault.id}/operationStatus", results_path(call, vault))


def invalid_input(target: str, message: str, *actions: str) -> ArmError:
    """Return the service's refusal of a property."""
    return ArmError(400, "BMSUserErrorInvalidInput", message, target=target, actions=actions)


def shown(resource: Resource) -> Json:
    """Return the answer for a resource: its document with the etag."""
    return {**resource.doc, "eTag": resource.etag} if resource.type == VAULTS else resource.doc
