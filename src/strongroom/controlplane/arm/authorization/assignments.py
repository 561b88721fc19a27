"""Role assignments: who has which role where. A change counts from the next request on."""

from typing import Final

from strongroom.controlplane.arm.authorization.last_owner import require_other_owner
from strongroom.controlplane.arm.authorization.scoping import require_scope, scope_in
from strongroom.controlplane.arm.authorizer import ASSIGNMENTS, assignment_of
from strongroom.controlplane.arm.bodies import RoleAssignmentBody
from strongroom.controlplane.arm.call import Call, Reply, listing
from strongroom.controlplane.arm.errors import ArmError, Json, not_supported
from strongroom.controlplane.arm.formats import check_name
from strongroom.controlplane.arm.odata import Comparison, Condition, Function, parse_filter
from strongroom.controlplane.arm.paging import page_size, read_token, skip_token
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.identity import errors
from strongroom.controlplane.identity.principals import PrincipalKind
from strongroom.controlplane.identity.rbac import RoleAssignment, RoleDefinition, assignable, role_id_of
from strongroom.controlplane.identity.roles import BY_ID, OWNER
from strongroom.controlplane.identity.stored import TxPrincipals
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import now, stamp

LIST: Final = f"/{{+scope}}/providers/{ASSIGNMENTS}"
ONE: Final = f"{LIST}/{{assignment}}"


def put_assignment(call: Call) -> Reply:
    """Give a principal a role at a scope."""
    check_name("roleAssignments", call.path["assignment"])
    asked = call.body["properties"]
    for unsupported in ("condition", "conditionVersion", "delegatedManagedIdentityResourceId"):
        if asked.get(unsupported):
            raise not_supported(f"properties.{unsupported} of role assignments", "Leave it out.")
    with call.db.write() as tx:
        scope = require_scope(tx, scope_in(call))
        role = _role(call, scope, asked["roleDefinitionId"])
        principal = _principal(call, tx, asked)
        wanted = RoleAssignment(
            name=call.path["assignment"].lower(),
            scope=scope,
            role_id=role.id,
            principal_id=principal,
            principal_type="ServicePrincipal",
            description=asked.get("description"),
            created_on=stamp(now()),
            created_by=call.principal.object_id,
        )
        document = wanted.as_arm()
        old = tx.resources.get(document["id"])
        if old is not None:
            return Reply(200, _unchanged(old, wanted).doc)
        for other in tx.resources.children(scope, ASSIGNMENTS):
            if _same(assignment_of(other), wanted):
                raise errors.role_assignment_exists(other.name)
        tx.resources.put(Resource(document["id"], ASSIGNMENTS, document, parent=scope), if_absent=True)
        _audit(call, tx, "role assigned", wanted, role)
    call.plane.authorizer.forget()
    return Reply(201, document)


def _role(call: Call, scope: str, id: str) -> RoleDefinition:
    found = role_id_of(id)
    role = BY_ID.get(found)
    if role is None:
        raise errors.role_definition_missing(found or id[:200])
    if not assignable(role, scope, tenant_id=call.plane.tenant):
        raise errors.role_not_assignable(role.name, scope)
    return role


def _principal(call: Call, tx: Tx, asked: Json) -> str:
    record = TxPrincipals(tx).get_by_object_id(asked["principalId"])
    if record is None:
        raise errors.principal_not_found(asked["principalId"], call.plane.tenant)
    # A managed identity is a service principal to whoever assigns roles.
    kind = asked.get("principalType", "ServicePrincipal")
    if kind != PrincipalKind.SERVICE_PRINCIPAL:
        raise errors.principal_type_unmatched(record.object_id, "ServicePrincipal", kind)
    return record.object_id


def _unchanged(old: Resource, wanted: RoleAssignment) -> Resource:
    """Return the assignment that has the name already. Raises 409 if it says something else."""
    if not _same(assignment_of(old), wanted):
        raise errors.role_assignment_update_not_permitted()
    return old


def _same(one: RoleAssignment, other: RoleAssignment) -> bool:
    return (one.role_id, one.principal_id.lower(), one.scope.lower()) == (
        other.role_id,
        other.principal_id.lower(),
        other.scope.lower(),
    )


def get_assignment(call: Call) -> Reply:
    """Answer one role assignment."""
    with call.db.read() as tx:
        found = tx.resources.get(_id(call))
    if found is None:
        raise ArmError(404, "RoleAssignmentNotFound", f"The role assignment '{call.path['assignment']}' is not found.")
    return Reply(200, found.doc)


def delete_assignment(call: Call) -> Reply:
    """Take a role from a principal: 200 with what was removed, 204 when there is no such assignment."""
    with call.db.write() as tx:
        found = tx.resources.get(_id(call))
        if found is None:
            return Reply(204)
        assignment = assignment_of(found)
        if assignment.role_id == OWNER.id and assignment.scope == "/":
            require_other_owner(tx, lambda other: other.name != assignment.name)
        tx.resources.delete(found.id)
        _audit(call, tx, "role removed", assignment, BY_ID.get(assignment.role_id))
    call.plane.authorizer.forget()
    return Reply(200, found.doc)


def list_assignments(call: Call) -> Reply:
    """List role assignments at a scope, above it and below it.

    `$filter`: `atScope()` leaves out those below; `principalId eq '…'` and `assignedTo('…')` ask for one principal's.
    """
    conditions = parse_filter(
        call.query.get("$filter", ""), fields=("principalId",), functions=("atScope", "assignedTo")
    )
    at_scope = any(isinstance(c, Function) and c.name.lower() == "atscope" for c in conditions)
    whose = {one for c in conditions if (one := _principal_of(c)) is not None}
    size = page_size(call.query)
    token = read_token(call.query)
    with call.db.read() as tx:
        scope = require_scope(tx, scope_in(call))
        found = {r.id.lower(): r for outer in _upwards(scope) for r in tx.resources.children(outer, ASSIGNMENTS)}
        if not at_scope:
            found |= {r.id.lower(): r for r in tx.resources.at_or_below(scope, ASSIGNMENTS)}
    after = token["after"] if token else ""
    rest = [
        found[key]
        for key in sorted(found)
        if key > after and all(found[key].properties["principalId"].lower() == one for one in whose)
    ]
    more = len(rest) > size
    link = call.next_link(**{"$skipToken": skip_token({"after": rest[size - 1].id.lower()})}) if more else None
    return listing([r.doc for r in rest[:size]], link)


def _principal_of(condition: Condition) -> str | None:
    if isinstance(condition, Comparison):
        if condition.operator != "eq" or not isinstance(condition.value, str):
            raise _bad_filter("principalId is compared by 'eq' with a text")
        return condition.value.lower()
    if condition.name.lower() != "assignedto":
        return None
    if len(condition.arguments) != 1 or not isinstance(condition.arguments[0], str):
        raise _bad_filter("assignedTo takes one text")
    return condition.arguments[0].lower()


def _bad_filter(reason: str) -> ArmError:
    return ArmError(400, "InvalidFilterInQueryString", f"$filter is not understood: {reason}.", target="$filter")


def _upwards(scope: str) -> list[str]:
    """Return *scope* and everything above it, as the parents of assignments are written."""
    segments = scope.rstrip("/").split("/")
    return ["/".join(segments[:end]) for end in range(len(segments), 1, -1)] + ["/"]


def _id(call: Call) -> str:
    scope = scope_in(call)
    return f"{'' if scope == '/' else scope}/providers/{ASSIGNMENTS}/{call.path['assignment']}"


def _audit(call: Call, tx: Tx, event: str, assignment: RoleAssignment, role: RoleDefinition | None) -> None:
    tx.audit.add(
        event,
        principal=call.principal.object_id,
        action=call.operation.action,
        scope=assignment.scope,
        outcome="succeeded",
        detail=f"{role.name if role else assignment.role_id} for {assignment.principal_id}",
    )


OPERATIONS: Final = (
    Operation(
        "RoleAssignments_Create",
        "PUT",
        ONE,
        f"{ASSIGNMENTS}/write",
        put_assignment,
        shape(RoleAssignmentBody),
        (200, 201),
    ),
    Operation("RoleAssignments_Get", "GET", ONE, f"{ASSIGNMENTS}/read", get_assignment),
    Operation("RoleAssignments_Delete", "DELETE", ONE, f"{ASSIGNMENTS}/delete", delete_assignment, statuses=(200, 204)),
    Operation(
        "RoleAssignments_ListForScope",
        "GET",
        LIST,
        f"{ASSIGNMENTS}/read",
        list_assignments,
        query=("$filter", "$top", "$skipToken"),
    ),
)
