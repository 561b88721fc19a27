"""The rest of Microsoft.DataProtection: what clients poll, name and feature checks, and what is not supported."""

from typing import Final

from azure.mgmt.dataprotection import types as wire

from strongroom.controlplane.arm import lro
from strongroom.controlplane.arm.call import Call, Reply, listing, require_subscription
from strongroom.controlplane.arm.dataprotection.common import GROUP, INSTANCE, NAMESPACE, SUBSCRIPTION, VAULT, VAULTS
from strongroom.controlplane.arm.errors import ArmError, not_supported
from strongroom.controlplane.arm.formats import check_name
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.protection.errors import Refused

READ: Final = f"{NAMESPACE}/locations/operationStatus/read"
VAULT_READ: Final = f"{VAULTS}/operationStatus/read"

GUARDS: Final = "Resource guards and multi-user authorization"
SECONDARY: Final = "Cross-region restore"


def check_name_availability(call: Call) -> Reply:
    """Say whether a vault may be called so in this resource group."""
    name, kind = str(call.body.get("name", "")), str(call.body.get("type", ""))
    if kind.lower() != VAULTS.lower():
        message = f"type is '{kind[:100]}'; '{VAULTS}' is accepted."
        raise ArmError(400, "BMSUserErrorInvalidInput", message, target="type")
    try:
        check_name("backupVaults", name)
    except Refused as error:
        return Reply(200, {"nameAvailable": False, "reason": "Invalid", "message": error.message})
    with call.db.read() as tx:
        call.require_group(tx)
        taken = tx.resources.get(f"{call.group_id}/providers/{VAULTS}/{name}") is not None
    if taken:
        message = f"A backup vault named '{name}' exists in this resource group."
        return Reply(200, {"nameAvailable": False, "reason": "AlreadyExists", "message": message})
    return Reply(200, {"nameAvailable": True})


def check_feature_support(call: Call) -> Reply:
    """Say which features there are: Kubernetes clusters are what is protected here, and nothing else."""
    with call.db.read() as tx:
        require_subscription(tx, call.subscription)
    kind = str(call.body.get("featureType", ""))
    feature = str(call.body.get("featureName", ""))
    supported = kind.lower() == "datasourcetype" and feature.lower() == "microsoft.containerservice/managedclusters"
    status = "GenerallyAvailable" if supported else "NotSupported"
    return Reply(
        200,
        {
            "objectType": "FeatureValidationResponse",
            "featureType": kind or "Invalid",
            "features": [{"featureName": feature, "supportStatus": status, "exposureControlledFeatures": []}],
        },
    )


def no_guards(call: Call) -> Reply:
    raise not_supported(GUARDS)


def no_guards_there(call: Call) -> Reply:
    """Lists of what is not supported are empty: clients ask for them without meaning to use them."""
    return listing([])


def no_secondary(call: Call) -> Reply:
    raise not_supported(SECONDARY, "Restore into any connected cluster instead: no region is special here.")


_PROXY = f"{VAULT}/backupResourceGuardProxies"
_GUARD = f"{GROUP}/resourceGuards"
_GUARD_ACTION = f"{NAMESPACE}/resourceGuards"
_LOCATION = "locations/{location}"

OPERATIONS = (
    Operation(
        "OperationStatusBackupVaultContext_Get",
        "GET",
        f"{VAULT}/operationStatus/{{operation}}",
        VAULT_READ,
        lro.get_status,
        polls=True,
    ),
    Operation(
        "OperationStatusResourceGroupContext_Get",
        "GET",
        f"{GROUP}/operationStatus/{{operation}}",
        READ,
        lro.get_status,
        polls=True,
    ),
    Operation(
        "OperationStatus_GetInGroupLocation",
        "GET",
        f"{GROUP}/{_LOCATION}/operationStatus/{{operation}}",
        READ,
        lro.get_status,
        polls=True,
    ),
    Operation(
        "OperationStatus_Get",
        "GET",
        f"{SUBSCRIPTION}/{_LOCATION}/operationStatus/{{operation}}",
        READ,
        lro.get_status,
        polls=True,
    ),
    Operation(
        "OperationResult_Get",
        "GET",
        f"{SUBSCRIPTION}/{_LOCATION}/operationResults/{{operation}}",
        f"{NAMESPACE}/locations/operationResults/read",
        lro.get_result,
        statuses=(200, 202),
        polls=True,
    ),
    Operation(
        "BackupVaultOperationResults_Get",
        "GET",
        f"{VAULT}/operationResults/{{operation}}",
        f"{VAULTS}/operationResults/read",
        lro.get_result,
        statuses=(200, 202),
        polls=True,
    ),
    Operation(
        "BackupInstances_GetBackupInstanceOperationResult",
        "GET",
        f"{INSTANCE}/operationResults/{{operation}}",
        f"{VAULTS}/backupInstances/operationResults/read",
        lro.get_result,
        statuses=(200, 202),
        polls=True,
    ),
    Operation(
        "BackupVaults_CheckNameAvailability",
        "POST",
        f"{GROUP}/{_LOCATION}/checkNameAvailability",
        f"{NAMESPACE}/locations/checkNameAvailability/action",
        check_name_availability,
        shape(wire.CheckNameAvailabilityRequest),
        safe=True,
    ),
    Operation(
        "DataProtection_CheckFeatureSupport",
        "POST",
        f"{SUBSCRIPTION}/{_LOCATION}/checkFeatureSupport",
        f"{NAMESPACE}/locations/checkFeatureSupport/action",
        check_feature_support,
        shape(wire.FeatureValidationRequest),
        safe=True,
    ),
    Operation(
        "DppResourceGuardProxy_List", "GET", _PROXY, f"{VAULTS}/backupResourceGuardProxies/read", no_guards_there
    ),
    Operation(
        "DppResourceGuardProxy_Get",
        "GET",
        f"{_PROXY}/{{proxy}}",
        f"{VAULTS}/backupResourceGuardProxies/read",
        no_guards,
    ),
    Operation(
        "DppResourceGuardProxy_CreateOrUpdate",
        "PUT",
        f"{_PROXY}/{{proxy}}",
        f"{VAULTS}/backupResourceGuardProxies/write",
        no_guards,
    ),
    Operation(
        "DppResourceGuardProxy_Delete",
        "DELETE",
        f"{_PROXY}/{{proxy}}",
        f"{VAULTS}/backupResourceGuardProxies/delete",
        no_guards,
        statuses=(200, 204),
    ),
    Operation(
        "DppResourceGuardProxy_UnlockDelete",
        "POST",
        f"{_PROXY}/{{proxy}}/unlockDelete",
        f"{VAULTS}/backupResourceGuardProxies/unlockDelete/action",
        no_guards,
    ),
    Operation("ResourceGuards_GetResourcesInResourceGroup", "GET", _GUARD, f"{_GUARD_ACTION}/read", no_guards_there),
    Operation(
        "ResourceGuards_GetResourcesInSubscription",
        "GET",
        f"{SUBSCRIPTION}/resourceGuards",
        f"{_GUARD_ACTION}/read",
        no_guards_there,
    ),
    Operation("ResourceGuards_Get", "GET", f"{_GUARD}/{{guard}}", f"{_GUARD_ACTION}/read", no_guards),
    Operation(
        "ResourceGuards_Put", "PUT", f"{_GUARD}/{{guard}}", f"{_GUARD_ACTION}/write", no_guards, statuses=(200, 201)
    ),
    Operation("ResourceGuards_Patch", "PATCH", f"{_GUARD}/{{guard}}", f"{_GUARD_ACTION}/write", no_guards),
    Operation(
        "ResourceGuards_Delete",
        "DELETE",
        f"{_GUARD}/{{guard}}",
        f"{_GUARD_ACTION}/delete",
        no_guards,
        statuses=(200, 204),
    ),
    *(
        Operation(
            f"CrossRegionRestore_{name}",
            "POST",
            f"{GROUP}/{_LOCATION}/{name}",
            f"{NAMESPACE}/locations/{name}/action",
            no_secondary,
            statuses=(200, 202),
        )
        for name in (
            "crossRegionRestore",
            "validateCrossRegionRestore",
            "fetchSecondaryRecoveryPoints",
            "fetchCrossRegionRestoreJob",
            "fetchCrossRegionRestoreJobs",
        )
    ),
)
