"""Azure RBAC: which action a principal may carry out at which scope.

Pure. Rules: https://learn.microsoft.com/azure/role-based-access-control/role-definitions. A role grants its actions
without its notActions; roles add up; what is granted at a scope holds below it. There are no deny assignments.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from strongroom.controlplane.identity.errors import ScopeInvalid
from strongroom.controlplane.identity.scopes import Scope, above, parse_scope, within

_DEFINITIONS_PATH: Final = "/providers/Microsoft.Authorization/roleDefinitions/"
_ASSIGNMENTS_PATH: Final = "/providers/Microsoft.Authorization/roleAssignments/"


@dataclass(frozen=True, slots=True)
class Permission:
    """Action patterns; `*` stands for any text, slashes included."""

    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    not_data_actions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RoleDefinition:
    """A role; *id* is a lower-case GUID, *kind* `BuiltInRole` or `CustomRole`."""

    id: str
    name: str
    description: str
    permissions: tuple[Permission, ...]
    assignable_scopes: tuple[str, ...] = ("/",)
    kind: str = "BuiltInRole"

    def as_arm(self, scope: str = "") -> dict[str, Any]:
        """Return the ARM document; *scope* is where it was asked for (`/subscriptions/S`, "" for the root)."""
        subscription = "/".join(scope.split("/")[:3]) if scope.lower().startswith("/subscriptions/") else ""
        return {
            "id": f"{subscription}{_DEFINITIONS_PATH}{self.id}",
            "type": "Microsoft.Authorization/roleDefinitions",
            "name": self.id,
            "properties": {
                "roleName": self.name,
                "type": self.kind,
                "description": self.description,
                "assignableScopes": list(self.assignable_scopes),
                "permissions": [
                    {
                        "actions": list(permission.actions),
                        "notActions": list(permission.not_actions),
                        "dataActions": list(permission.data_actions),
                        "notDataActions": list(permission.not_data_actions),
                    }
                    for permission in self.permissions
                ],
            },
        }


@dataclass(frozen=True, slots=True)
class RoleAssignment:
    """The principal has the role at the scope and below. *name*, *role_id*, *principal_id* are GUIDs."""

    name: str
    scope: str
    role_id: str
    principal_id: str
    principal_type: str = "ServicePrincipal"
    description: str | None = None
    created_on: str | None = None
    created_by: str | None = None

    def as_arm(self) -> dict[str, Any]:
        """Return the ARM document."""
        scope = self.scope.rstrip("/")
        subscription = "/".join(scope.split("/")[:3]) if scope.lower().startswith("/subscriptions/") else ""
        return {
            "id": f"{scope}{_ASSIGNMENTS_PATH}{self.name}",
            "type": "Microsoft.Authorization/roleAssignments",
            "name": self.name,
            "properties": {
                "roleDefinitionId": f"{subscription}{_DEFINITIONS_PATH}{self.role_id}",
                "principalId": self.principal_id,
                "principalType": self.principal_type,
                "scope": self.scope,
                "condition": None,
                "conditionVersion": None,
                "delegatedManagedIdentityResourceId": None,
                "description": self.description,
                "createdOn": self.created_on,
                "updatedOn": self.created_on,
                "createdBy": self.created_by,
                "updatedBy": self.created_by,
            },
        }


@dataclass(frozen=True, slots=True)
class Need:
    """What a principal must be able to do at a scope, and the role that Azure's guide gives it for that."""

    role: RoleDefinition
    actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()


class Access:
    """Role assignments, indexed: each question costs as much as the scope has segments, however many there are."""

    def __init__(
        self, assignments: Iterable[RoleAssignment], definitions: Iterable[RoleDefinition], *, tenant_id: str = ""
    ) -> None:
        """Assignments of unknown roles, or at texts that are no scopes, grant nothing."""
        self._tenant_id = tenant_id
        roles = {definition.id.lower(): definition for definition in definitions}
        self._granted: dict[str, dict[Scope, list[RoleDefinition]]] = {}
        for assignment in assignments:
            role = roles.get(assignment.role_id.lower())
            scope = self._scope(assignment.scope)
            if role is not None and scope is not None:
                at = self._granted.setdefault(assignment.principal_id.lower(), {})
                at.setdefault(scope, []).append(role)

    def allowed(self, principal_id: str, action: str, scope: str, *, data: bool = False) -> bool:
        """Say whether *principal_id* may carry out *action* (*data*: a data action) at *scope*."""
        at = self._granted.get(principal_id.lower())
        parsed = self._scope(scope) if at else None
        if at is None or parsed is None or not action.strip():
            return False
        folded = action.strip().lower()
        return any(_grants(role, folded, data) for outer in above(parsed) for role in at.get(outer, ()))

    def meets(self, principal_id: str, need: Need, scope: str) -> bool:
        """Say whether *principal_id* can do all that *need* names at *scope*, by whatever roles."""
        return all(self.allowed(principal_id, action, scope) for action in need.actions) and all(
            self.allowed(principal_id, action, scope, data=True) for action in need.data_actions
        )

    def reaches(self, principal_id: str, scope: str) -> bool:
        """Say whether the principal has a role at *scope*, above it, or anywhere below: it may know that it exists."""
        at = self._granted.get(principal_id.lower(), {})
        parsed = self._scope(scope)
        return parsed is not None and any(within(parsed, one) or within(one, parsed) for one in at)

    def roles_at(self, principal_id: str, scope: str) -> list[RoleDefinition]:
        """Return the roles that hold for *principal_id* at *scope*, the nearest first."""
        at = self._granted.get(principal_id.lower(), {})
        parsed = self._scope(scope)
        return [] if parsed is None else [role for outer in above(parsed) for role in at.get(outer, ())]

    def _scope(self, text: str) -> Scope | None:
        try:
            return parse_scope(text, tenant_id=self._tenant_id)
        except ScopeInvalid:
            return None


def allowed(
    assignments: Iterable[RoleAssignment],
    definitions: Mapping[str, RoleDefinition] | Iterable[RoleDefinition],
    principal_id: str,
    action: str,
    scope: str,
    *,
    data: bool = False,
    tenant_id: str = "",
) -> bool:
    """Answer one question without keeping an index: see `Access.allowed`. *definitions* may be a mapping by id."""
    wanted = principal_id.lower()
    mine = [assignment for assignment in assignments if assignment.principal_id.lower() == wanted]
    roles = definitions.values() if isinstance(definitions, Mapping) else definitions
    return Access(mine, roles, tenant_id=tenant_id).allowed(principal_id, action, scope, data=data)


def effective(
    assignments: Iterable[RoleAssignment], scope: str, *, principal_id: str = "", tenant_id: str = ""
) -> list[RoleAssignment]:
    """Return the assignments that hold at *scope*: those made there and above (ARM's `$filter=atScope()`).

    With *principal_id* only that principal's. Raises `ScopeInvalid`.
    """
    target = parse_scope(scope, tenant_id=tenant_id)
    wanted = principal_id.lower()
    return [one for one in _of(assignments, wanted) if within(target, parse_scope(one.scope, tenant_id=tenant_id))]


def at_or_below(
    assignments: Iterable[RoleAssignment], scope: str, *, principal_id: str = "", tenant_id: str = ""
) -> list[RoleAssignment]:
    """Return the assignments made at *scope* or below it (ARM's list without a filter adds those of `effective`)."""
    target = parse_scope(scope, tenant_id=tenant_id)
    wanted = principal_id.lower()
    return [one for one in _of(assignments, wanted) if within(parse_scope(one.scope, tenant_id=tenant_id), target)]


def assignable(definition: RoleDefinition, scope: str, *, tenant_id: str = "") -> bool:
    """Say whether *definition* may be assigned at *scope*. Raises `ScopeInvalid`."""
    target = parse_scope(scope, tenant_id=tenant_id)
    return any(within(target, parse_scope(outer, tenant_id=tenant_id)) for outer in definition.assignable_scopes)


def role_id_of(role_definition_id: str) -> str:
    """Return the GUID of a role definition's ARM id (or of a bare GUID), lower-case; "" if the text is neither."""
    trimmed = role_definition_id.strip().rstrip("/")
    before, slash, last = trimmed.rpartition("/")
    folded = last.lower()
    if slash and not (before + slash).lower().endswith(_DEFINITIONS_PATH.lower()):
        return ""
    bare = folded.replace("-", "")
    return folded if len(folded) == 36 and len(bare) == 32 and all(c in "0123456789abcdef" for c in bare) else ""


def _of(assignments: Iterable[RoleAssignment], principal_id: str) -> Iterable[RoleAssignment]:
    return (one for one in assignments if not principal_id or one.principal_id.lower() == principal_id)


class _Patterns:
    """Action patterns, prepared: plain texts by lookup, the others in time linear in the action's length."""

    def __init__(self, patterns: Sequence[str]) -> None:
        folded = {pattern.strip().lower() for pattern in patterns}
        self._plain = frozenset(pattern for pattern in folded if "*" not in pattern)
        self._globs = tuple(tuple(pattern.split("*")) for pattern in sorted(folded) if "*" in pattern)

    def match(self, action: str) -> bool:
        return action in self._plain or any(_glob(pieces, action) for pieces in self._globs)


def _glob(pieces: tuple[str, ...], text: str) -> bool:
    """Match *text* against the pieces between the stars. Taking each middle piece where it first fits loses nothing."""
    first, *middle, last = pieces
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    position, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return True


@lru_cache(maxsize=1024)  # custom roles included, an installation has tens
def _prepared(permission: Permission) -> tuple[_Patterns, _Patterns, _Patterns, _Patterns]:
    return (
        _Patterns(permission.actions),
        _Patterns(permission.not_actions),
        _Patterns(permission.data_actions),
        _Patterns(permission.not_data_actions),
    )


def _grants(role: RoleDefinition, action: str, data: bool) -> bool:
    for permission in role.permissions:
        actions, not_actions, data_actions, not_data_actions = _prepared(permission)
        granted, withheld = (data_actions, not_data_actions) if data else (actions, not_actions)
        if granted.match(action) and not withheld.match(action):
            return True
    return False
