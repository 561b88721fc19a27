"""Keeps at least one Owner at the root who can sign in: without one nobody could manage the server any more."""

from collections.abc import Callable

from strongroom.controlplane.arm.authorizer import ASSIGNMENTS, assignment_of
from strongroom.controlplane.arm.errors import ArmError
from strongroom.controlplane.identity.rbac import RoleAssignment
from strongroom.controlplane.identity.roles import OWNER
from strongroom.controlplane.identity.stored import TxPrincipals
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.times import now


def require_other_owner(tx: Tx, stays: Callable[[RoleAssignment], bool]) -> None:
    """Check that an Owner at the root *stays* who can sign in. Raises 409 if none does."""
    directory = TxPrincipals(tx)
    for resource in tx.resources.children("/", ASSIGNMENTS):
        assignment = assignment_of(resource)
        if assignment.role_id != OWNER.id or not stays(assignment):
            continue
        record = directory.get_by_object_id(assignment.principal_id)
        # Managed identities have no secret: none of them could ever give the role again.
        if record is not None and any(secret.valid_at(now()) for secret in record.secrets):
            return
    raise ArmError(
        409,
        "LastOwnerAssignment",
        "This is the last Owner at the root that can sign in: nobody could manage this server any more.",
        actions=("Make another service principal Owner at the scope / first.",),
    )
