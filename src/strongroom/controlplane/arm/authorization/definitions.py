"""Role definitions: the built-in ones, at every scope. Custom roles are not supported."""

from collections.abc import Callable
from typing import Final

from strongroom.controlplane.arm.authorization.scoping import scope_in
from strongroom.controlplane.arm.bodies import RoleDefinitionBody
from strongroom.controlplane.arm.call import Call, Reply, listing
from strongroom.controlplane.arm.errors import ArmError, Json, not_supported
from strongroom.controlplane.arm.odata import Function, Value, matches, parse_filter
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.identity.rbac import RoleDefinition
from strongroom.controlplane.identity.roles import BUILT_IN, BY_ID

DEFINITIONS: Final = "Microsoft.Authorization/roleDefinitions"
LIST: Final = f"/{{+scope}}/providers/{DEFINITIONS}"
ONE: Final = f"{LIST}/{{role}}"


def list_definitions(call: Call) -> Reply:
    """List the role definitions; `$filter`: `roleName eq 'X'`, `type eq 'BuiltInRole'`, `atScopeAndBelow()`."""
    conditions = parse_filter(
        call.query.get("$filter", ""), fields=("roleName", "type"), functions=("atScopeAndBelow", "atScope")
    )
    # Built-in roles hold at every scope, so the two functions leave out none.
    compared = tuple(c for c in conditions if not isinstance(c, Function))
    scope = scope_in(call)
    return listing([role.as_arm(scope) for role in BUILT_IN if matches(compared, _values(role))])


def _values(role: RoleDefinition) -> Callable[[str], Value]:
    return lambda field: role.name if field == "rolename" else role.kind


def get_definition(call: Call) -> Reply:
    """Answer one role definition."""
    role = BY_ID.get(call.path["role"].lower())
    if role is None:
        raise ArmError(
            404,
            "RoleDefinitionDoesNotExist",
            f"The specified role definition with ID '{call.path['role'].replace('-', '')}' does not exist.",
        )
    return Reply(200, role.as_arm(scope_in(call)))


def refuse_custom(call: Call) -> Reply:
    """Refuse to make or remove a custom role."""
    raise not_supported("custom roles", "Assign one of the built-in roles: az role definition list.")


def list_permissions(call: Call) -> Reply:
    """List what the caller's own roles allow at a scope."""
    roles = call.plane.authorizer.access().roles_at(call.principal.object_id, scope_in(call))
    found: list[Json] = [one for role in roles for one in role.as_arm()["properties"]["permissions"]]
    return listing(found)


_BODY: Final = shape(RoleDefinitionBody)
OPERATIONS: Final = (
    Operation("RoleDefinitions_List", "GET", LIST, f"{DEFINITIONS}/read", list_definitions, query=("$filter",)),
    Operation("RoleDefinitions_Get", "GET", ONE, f"{DEFINITIONS}/read", get_definition),
    Operation(
        "RoleDefinitions_CreateOrUpdate", "PUT", ONE, f"{DEFINITIONS}/write", refuse_custom, _BODY, statuses=(201,)
    ),
    Operation("RoleDefinitions_Delete", "DELETE", ONE, f"{DEFINITIONS}/delete", refuse_custom, statuses=(200, 204)),
    Operation(
        "Permissions_List", "GET", "/{+scope}/providers/Microsoft.Authorization/permissions", "", list_permissions
    ),
)
