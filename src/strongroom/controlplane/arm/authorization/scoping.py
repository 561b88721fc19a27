"""The scope that an authorisation request is about: what stands before `/providers/Microsoft.Authorization`."""

from strongroom.controlplane.arm.call import Call, require_subscription
from strongroom.controlplane.arm.errors import ArmError, not_found
from strongroom.controlplane.identity.scopes import ROOT, parse_scope
from strongroom.controlplane.state.database import Tx


def scope_in(call: Call) -> str:
    """Return the scope of the path as the caller wrote it, "/" for the root; the tenant's own group is the root."""
    scope = "/" + call.path["scope"].strip("/")
    return "/" if parse_scope(scope, tenant_id=call.plane.tenant) == ROOT else scope


def require_scope(tx: Tx, scope: str) -> str:
    """Return *scope* with the casing of the resource that it names. Raises ARM's 404 when there is none.

    What lies below a resource (a container below its storage account) need not be known here by itself.
    """
    if scope == "/":
        return scope
    segments = scope.split("/")
    if segments[1].lower() != "subscriptions":
        raise not_found(scope)
    subscription = require_subscription(tx, segments[2]) if len(segments) > 2 else None
    if subscription is None or len(segments) == 3:
        return subscription.id if subscription else scope
    if segments[3].lower() == "resourcegroups" and len(segments) > 4:
        group = tx.resources.get("/".join(segments[:5]))
        if group is None:
            raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{segments[4]}' could not be found.")
    # The innermost resource that is known; at least the one that stands in the group by itself must be.
    for end in range(len(segments), 4, -2):
        found = tx.resources.get("/".join(segments[:end]))
        if found is not None and (end == 5) == (len(segments) == 5):
            return found.id + "".join(f"/{segment}" for segment in segments[end:])
    raise not_found(scope)
