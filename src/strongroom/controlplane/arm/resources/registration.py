"""Resource providers: which there are, with which types, and registering a subscription to use them."""

from typing import Final

from strongroom.controlplane.arm.bodies import ProviderConsent
from strongroom.controlplane.arm.call import Call, Reply, listing, require_subscription
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.arm.providers import PROVIDERS, registration_state
from strongroom.controlplane.arm.resources.groups import SUBSCRIPTION
from strongroom.controlplane.arm.resources.subscriptions import REGIONS
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import Shape, shape
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource

# namespace: (types, api-versions that official clients send, newest first). Any api-version is accepted; `az resource`
# takes the newest of these.
KNOWN: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "Microsoft.Authorization": (
        ("roleAssignments", "roleDefinitions", "permissions"),
        ("2022-04-01", "2020-10-01", "2018-01-01-preview"),
    ),
    "Microsoft.Compute": (("snapshots",), ("2025-01-02", "2024-03-02")),
    "Microsoft.ContainerService": (
        ("managedClusters", "managedClusters/trustedAccessRoleBindings", "locations/trustedAccessRoles"),
        ("2026-08-01", "2026-06-01", "2024-08-01"),
    ),
    "Microsoft.DataProtection": (
        (
            "backupVaults",
            "backupVaults/backupInstances",
            "backupVaults/backupJobs",
            "backupVaults/backupPolicies",
            "backupVaults/deletedBackupInstances",
            "locations/operationStatus",
            "locations/operationResults",
            "operations",
        ),
        ("2026-06-01", "2025-07-01", "2024-04-01", "2023-01-01"),
    ),
    "Microsoft.KubernetesConfiguration": (("extensions", "operations"), ("2025-03-01", "2023-05-01")),
    "Microsoft.ResourceGraph": (("resources", "operations"), ("2021-03-01",)),
    "Microsoft.Resources": (
        ("subscriptions", "subscriptions/resourceGroups", "resources", "tenants", "providers"),
        ("2025-04-01", "2024-11-01", "2022-12-01"),
    ),
    "Microsoft.Storage": (
        ("storageAccounts", "storageAccounts/blobServices", "checkNameAvailability"),
        ("2026-09-01", "2025-08-01"),
    ),
    "Microsoft.Subscription": (("aliases",), ("2021-10-01",)),
}
# Parts of Azure Resource Manager itself, which nobody registers for.
_ALWAYS: Final = ("Microsoft.Authorization", "Microsoft.ResourceGraph", "Microsoft.Resources", "Microsoft.Subscription")
_NAMES: Final = {name.lower(): name for name in KNOWN}
_PROVIDER: Final = f"{SUBSCRIPTION}/providers/{{namespace}}"
_READ: Final = "Microsoft.Resources/subscriptions/providers/read"


def list_providers(call: Call) -> Reply:
    """List the resource providers, with the subscription's registration."""
    with call.db.read() as tx:
        require_subscription(tx, call.subscription)
        return listing([_provider(name, call.subscription, _state(tx, call, name)) for name in KNOWN])


def get_provider(call: Call) -> Reply:
    """Answer one resource provider, with the subscription's registration."""
    name = _known(call.path["namespace"])
    with call.db.read() as tx:
        require_subscription(tx, call.subscription)
        return Reply(200, _provider(name, call.subscription, _state(tx, call, name)))


def list_at_tenant(call: Call) -> Reply:
    """List the resource providers, without a subscription."""
    return listing([_provider(name) for name in KNOWN])


def get_at_tenant(call: Call) -> Reply:
    """Answer one resource provider, without a subscription."""
    return Reply(200, _provider(_known(call.path["namespace"])))


def list_types(call: Call) -> Reply:
    """List the types of a resource provider."""
    return listing(_types(_known(call.path["namespace"])))


def register(call: Call) -> Reply:
    """Register the subscription for a resource provider; it may be used at once."""
    return _set(call, "Registered")


def unregister(call: Call) -> Reply:
    """End a subscription's registration; refused while it has resources of the provider."""
    return _set(call, "Unregistered")


def _set(call: Call, state: str) -> Reply:
    name = _known(call.path["namespace"])
    with call.db.write() as tx:
        parent = require_subscription(tx, call.subscription).id
        if state != "Registered":
            _refuse_unregistering(tx, call, name)
        identifier = f"{parent}/providers/{name}"
        document = _provider(name, call.subscription, state)
        tx.resources.put(Resource(identifier, PROVIDERS, {**document, "resourceTypes": []}, parent))
        return Reply(200, document)


def _refuse_unregistering(tx: Tx, call: Call, name: str) -> None:
    if name in _ALWAYS:
        raise ArmError(409, "ProviderUnregistrationNotAllowed", f"'{name}' is part of Resource Manager itself.")
    kinds = [f"{name}/{kind}" for kind in KNOWN[name][0]]
    used = tx.resources.within(call.subscription, types=kinds, limit=1)
    if used:
        raise ArmError(
            409,
            "CannotUnregisterProviderWithResources",
            f"'{name}' cannot be unregistered: the subscription has resources of it, such as {used[0].id}.",
        )


def _state(tx: Tx, call: Call, name: str) -> str:
    return "Registered" if name in _ALWAYS else registration_state(tx, call.subscription, name)


def _known(namespace: str) -> str:
    name = _NAMES.get(namespace.lower())
    if name is None:
        raise ArmError(
            404,
            "InvalidResourceNamespace",
            f"The resource namespace '{namespace}' is invalid; there are {', '.join(KNOWN)}.",
        )
    return name


def _provider(name: str, subscription: str = "", state: str = "") -> Json:
    place = f"/subscriptions/{subscription}" if subscription else ""
    document: Json = {
        "id": f"{place}/providers/{name}",
        "namespace": name,
        "registrationPolicy": "RegistrationFree" if name in _ALWAYS else "RegistrationRequired",
        "authorizations": [],
        "resourceTypes": _types(name),
    }
    return document | ({"registrationState": state} if state else {})


def _types(name: str) -> list[Json]:
    types, versions = KNOWN[name]
    return [
        {
            "resourceType": kind,
            "locations": list(REGIONS.values()),
            "apiVersions": list(versions),
            "defaultApiVersion": versions[0],
            "capabilities": "SupportsTags, SupportsLocation" if "/" not in kind else "None",
        }
        for kind in types
    ]


_CONSENT: Final[Shape] = shape(ProviderConsent)
_ACTION: Final = "Microsoft.Resources/subscriptions/providers"
OPERATIONS: Final = (
    Operation("Providers_List", "GET", f"{SUBSCRIPTION}/providers", _READ, list_providers, query=("$expand",)),
    Operation("Providers_Get", "GET", _PROVIDER, _READ, get_provider, query=("$expand",)),
    Operation("ProviderResourceTypes_List", "GET", f"{_PROVIDER}/resourceTypes", _READ, list_types),
    Operation("Providers_ListAtTenantScope", "GET", "/providers", "", list_at_tenant, query=("$expand",)),
    Operation("Providers_GetAtTenantScope", "GET", "/providers/{namespace}", "", get_at_tenant, query=("$expand",)),
    Operation(
        "Providers_Register",
        "POST",
        f"{_PROVIDER}/register",
        f"{_ACTION}/register/action",
        register,
        _CONSENT,
        optional_body=True,
    ),
    Operation("Providers_Unregister", "POST", f"{_PROVIDER}/unregister", f"{_ACTION}/unregister/action", unregister),
)
