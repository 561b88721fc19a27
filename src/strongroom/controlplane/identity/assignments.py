"""Role assignments as resources of the database: read, made, and removed with what they are about."""

import uuid
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Final

from strongroom.controlplane.identity.rbac import Access, RoleAssignment, RoleDefinition, role_id_of
from strongroom.controlplane.identity.roles import BUILT_IN
from strongroom.controlplane.identity.stored import TxPrincipals
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import stamp

ASSIGNMENTS: Final = "Microsoft.Authorization/roleAssignments"

# Names of assignments that the control plane makes: the same role for the same principal at the same place is one.
_NAMES: Final = uuid.UUID("b1f7c0de-3c1e-5d0a-9f5e-6d6f1f0a7c55")


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


def assignment_resource(assignment: RoleAssignment) -> Resource:
    """Return *assignment* as the database keeps it: below the scope that it is made at."""
    document = assignment.as_arm()
    return Resource(document["id"], ASSIGNMENTS, document, assignment.scope.rstrip("/") or "/")


def assign(
    tx: Tx, role: RoleDefinition, principal_id: str, scope: str, *, by: str, at: datetime, description: str = ""
) -> Resource:
    """Give *role* to a principal at *scope*, on behalf of the principal *by*; the same again changes nothing.

    Let the authorizer forget what it knows once the transaction is committed.
    """
    name = str(uuid.uuid5(_NAMES, f"{role.id}|{principal_id.lower()}|{scope.lower().rstrip('/')}"))
    time = stamp(at)
    resource = assignment_resource(
        RoleAssignment(
            name, scope, role.id, principal_id, description=description or None, created_on=time, created_by=by
        )
    )
    return tx.resources.get(resource.id) or tx.resources.put(resource)


def forget_resource(tx: Tx, id: str) -> None:
    """Remove what identity knows of the resource or resource group *id*, which is deleted in this transaction.

    That is: the role assignments at it and below, its managed identity and those of what lies below it, and what these
    identities were assigned anywhere. Let the authorizer forget what it knows once the transaction is committed.
    """
    _delete(tx, tx.resources.at_or_below(id, ASSIGNMENTS))
    forget_principals(tx, {row.object_id for row in tx.principals.at_or_below(id)})


def forget_principals(tx: Tx, gone: Collection[str]) -> None:
    """Remove principals, by their object ids, and what they were assigned: a token that one still has is worth nothing.

    Let the authorizer forget what it knows once the transaction is committed.
    """
    if not gone:
        return
    directory = TxPrincipals(tx)
    held = (one for one in tx.resources.of_type(ASSIGNMENTS) if str(one.properties["principalId"]).lower() in gone)
    _delete(tx, list(held))
    for principal in gone:
        directory.delete(principal)


def _delete(tx: Tx, assignments: Iterable[Resource]) -> None:
    for assignment in assignments:
        tx.resources.delete(assignment.id)
