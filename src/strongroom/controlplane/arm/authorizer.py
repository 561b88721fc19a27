"""Decides whether a caller may do an action at a scope, from the role assignments in the database."""

import threading
from typing import Final

from strongroom.controlplane.identity.errors import authorization_failed, linked_authorization_failed
from strongroom.controlplane.identity.principals import Principal
from strongroom.controlplane.identity.rbac import Access, RoleAssignment, role_id_of
from strongroom.controlplane.identity.roles import BUILT_IN
from strongroom.controlplane.state.database import Database, Tx
from strongroom.controlplane.state.resources import Resource

ASSIGNMENTS: Final = "Microsoft.Authorization/roleAssignments"


class Authorizer:
    """Answers for one database, whose assignments it holds indexed until `forget` is called after a change of them."""

    def __init__(self, db: Database, tenant: str) -> None:
        self._db = db
        self._tenant = tenant
        self._lock = threading.Lock()
        self._access: Access | None = None

    def demand(self, principal: Principal, action: str, scope: str) -> None:
        """Check the caller. Raises `AccessDenied` as ARM words it, and writes the denial to the audit trail."""
        if self.allowed(principal.object_id, action, scope):
            return
        with self._db.write() as tx:
            tx.audit.add(
                "denied", principal=principal.object_id, action=action, scope=scope, outcome="AuthorizationFailed"
            )
        raise authorization_failed(principal.app_id, principal.object_id, action, scope)

    def demand_linked(self, principal: Principal, action: str, linked: str, own_action: str, own_scope: str) -> None:
        """Check what a request refers to. Raises `AccessDenied` (LinkedAuthorizationFailed)."""
        if self.allowed(principal.object_id, action, linked):
            return
        with self._db.write() as tx:
            tx.audit.add(
                "denied",
                principal=principal.object_id,
                action=action,
                scope=linked,
                outcome="LinkedAuthorizationFailed",
            )
        pairs = [(action, linked)]
        raise linked_authorization_failed(principal.app_id, principal.object_id, own_action, own_scope, pairs)

    def allowed(self, principal_id: str, action: str, scope: str, *, data: bool = False) -> bool:
        """Say whether the principal may do *action* at *scope*."""
        return self.access().allowed(principal_id, action, scope, data=data)

    def access(self) -> Access:
        """Return the index of all assignments."""
        with self._lock:
            if self._access is None:
                with self._db.read() as tx:
                    self._access = read_access(tx, self._tenant)
            return self._access

    def forget(self) -> None:
        """Let the next question see the assignments as they are now: call it once a change is committed."""
        with self._lock:
            self._access = None


def read_access(tx: Tx, tenant: str) -> Access:
    """Return the index of the assignments that *tx* sees."""
    return Access((assignment_of(r) for r in tx.resources.of_type(ASSIGNMENTS)), BUILT_IN, tenant_id=tenant)


def assignment_of(resource: Resource) -> RoleAssignment:
    """Return the value of a stored role assignment."""
    properties = resource.properties
    return RoleAssignment(
        name=resource.name,
        scope=str(properties["scope"]),
        role_id=role_id_of(str(properties["roleDefinitionId"])),
        principal_id=str(properties["principalId"]),
        principal_type=str(properties.get("principalType", "ServicePrincipal")),
        description=properties.get("description"),
        created_on=properties.get("createdOn"),
        created_by=properties.get("createdBy"),
    )
