"""Trusted access: which Backup vault may act in a cluster, and the roles that such bindings can give."""

from typing import Final

from strongroom.controlplane.arm import bodies, lro
from strongroom.controlplane.arm.call import Call, Reply, listing, require_subscription
from strongroom.controlplane.arm.containerservice.common import (
    CLUSTER,
    NAMESPACE,
    SUBSCRIPTION,
    accepted,
    begun,
    get_result,
    get_status,
    refuse_while_running,
    require_cluster,
)
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.arm.formats import ArmId, check_name
from strongroom.controlplane.arm.pages import page_of
from strongroom.controlplane.arm.preconditions import check_preconditions
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.clusters.manifests import OWN_GROUP, VAULT_RESOURCES, VAULT_VERBS
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.workflows.readiness import BINDINGS, OPERATOR_ROLE, ORPHANED

VAULTS: Final = "Microsoft.DataProtection/backupVaults"
BINDING: Final = f"{CLUSTER}/trustedAccessRoleBindings/{{binding}}"
_KINDS: Final = ("bind-access", "unbind-access")


def put_binding(call: Call) -> Reply:
    """Let a vault use Strongroom's custom resources in a cluster. Sent again it is made whole again in the cluster."""
    check_name("trustedAccessRoleBindings", call.path["binding"])
    asked = call.body["properties"]
    vault = ArmId.parse(asked["sourceResourceId"], target="properties.sourceResourceId", kind=VAULTS).text
    # Before anything is said of the vault: who may not read it does not learn whether it is there.
    call.demand(f"{VAULTS}/read", vault)
    with call.db.write() as tx:
        cluster = require_cluster(call, tx)
        old = tx.resources.get(call.id)
        check_preconditions(call, old)
        roles = _roles(asked["roles"])
        found = tx.resources.get(vault)
        if found is None:
            raise ArmError(
                400,
                "InvalidParameter",
                f"The Backup vault {vault} does not exist.",
                target="properties.sourceResourceId",
                actions=("Create it first: az dataprotection backup-vault create.",),
            )
        location = str(cluster.doc["location"])
        if old is not None and (running := tx.operations.running(old.id, "bind-access")):
            before = (old.properties["sourceResourceId"], old.properties["roles"])
            if before == (found.id, roles):  # the very request that is carried out: its answer may have been lost
                return begun(call, tx, location, running, old.doc, status=200)
        refuse_while_running(tx, cluster.id, "disconnect-cluster")
        refuse_while_running(tx, call.id, *_KINDS)
        identifier = old.id if old else call.id
        document: Json = {
            "id": identifier,
            "name": identifier.rpartition("/")[2],
            "type": BINDINGS,
            "properties": {"provisioningState": "Updating", "sourceResourceId": found.id, "roles": roles},
        }
        stored = tx.resources.put(
            Resource(
                identifier,
                BINDINGS,
                document,
                cluster.id,
                {k: v for k, v in old.private.items() if k != ORPHANED} if old else {},
                old.etag if old else "",
                old.created if old else "",
            )
        )
        operation = lro.begin(call, tx, "bind-access", resource=stored.id, key=stored.id)
        return begun(call, tx, location, operation, stored.doc, status=200 if old else 201)


def _roles(asked: list[str]) -> list[str]:
    if [role.lower() for role in asked] != [OPERATOR_ROLE.lower()]:
        shown = ", ".join(asked)[:200]
        raise ArmError(
            400,
            "InvalidParameter",
            f"properties.roles is [{shown}]; Strongroom knows one trusted access role: {OPERATOR_ROLE}.",
            target="properties.roles",
            actions=(f"Send ['{OPERATOR_ROLE}'].",),
        )
    return [OPERATOR_ROLE]


def get_binding(call: Call) -> Reply:
    with call.db.read() as tx:
        require_cluster(call, tx)
        return Reply(200, call.require(tx, call.id).doc)


def list_bindings(call: Call) -> Reply:
    with call.db.read() as tx:
        cluster = require_cluster(call, tx).id
        return page_of(call, lambda after, limit: tx.resources.children(cluster, BINDINGS, after=after, limit=limit))


def delete_binding(call: Call) -> Reply:
    """Take a vault's access to the cluster away."""
    with call.db.write() as tx:
        cluster = require_cluster(call, tx)
        binding = tx.resources.get(call.id)
        if binding is None:
            return Reply(204)
        location = str(cluster.doc["location"])
        if running := tx.operations.running(binding.id, "unbind-access"):
            return accepted(call, tx, location, running)
        check_preconditions(call, binding)
        refuse_while_running(tx, binding.id, *_KINDS)
        tx.resources.put(binding.with_properties({"provisioningState": "Deleting"}))
        operation = lro.begin(call, tx, "unbind-access", resource=binding.id, key=binding.id)
        return accepted(call, tx, location, operation)


def list_roles(call: Call) -> Reply:
    """Answer which roles a trusted access binding can give, with what they allow in the cluster."""
    with call.db.read() as tx:
        require_subscription(tx, call.subscription)
    source, _, name = OPERATOR_ROLE.rpartition("/")
    rules = [
        {
            "verbs": list(VAULT_VERBS),
            "apiGroups": [OWN_GROUP],
            "resources": list(VAULT_RESOURCES),
            "resourceNames": [],
            "nonResourceURLs": [],
        }
    ]
    return listing([{"sourceResourceType": source, "name": name, "rules": rules}])


_ACTION: Final = f"{NAMESPACE}/managedClusters/trustedAccessRoleBindings"
_LOCATION: Final = f"{SUBSCRIPTION}/locations/{{location}}"

OPERATIONS: Final = (
    Operation(
        "TrustedAccessRoleBindings_CreateOrUpdate",
        "PUT",
        BINDING,
        f"{_ACTION}/write",
        put_binding,
        shape(bodies.TrustedAccessRoleBindingBody),
        (200, 201),
    ),
    Operation("TrustedAccessRoleBindings_Get", "GET", BINDING, f"{_ACTION}/read", get_binding),
    Operation(
        "TrustedAccessRoleBindings_Delete",
        "DELETE",
        BINDING,
        f"{_ACTION}/delete",
        delete_binding,
        statuses=(202, 204),
    ),
    Operation(
        "TrustedAccessRoleBindings_List",
        "GET",
        f"{CLUSTER}/trustedAccessRoleBindings",
        f"{_ACTION}/read",
        list_bindings,
    ),
    Operation(
        "TrustedAccessRoles_List",
        "GET",
        f"{_LOCATION}/trustedAccessRoles",
        f"{NAMESPACE}/locations/trustedAccessRoles/read",
        list_roles,
    ),
    # Any signed-in caller: the handler itself asks who began the operation, or may read the cluster.
    Operation("ContainerServiceOperations_Get", "GET", f"{_LOCATION}/operations/{{operation}}", "", get_status),
    Operation(
        "ContainerServiceOperationResults_Get",
        "GET",
        f"{_LOCATION}/operationresults/{{operation}}",
        "",
        get_result,
        statuses=(202, 204),
    ),
)
