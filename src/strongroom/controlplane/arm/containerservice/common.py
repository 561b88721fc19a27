"""What the operations of Microsoft.ContainerService share: ids, paths, who may poll, and what is under way."""

from typing import Final

from strongroom.controlplane.arm import lro
from strongroom.controlplane.arm.call import Call, Reply
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.operations import LongOperation
from strongroom.controlplane.state.resources import Resource

NAMESPACE: Final = "Microsoft.ContainerService"
CLUSTERS: Final = f"{NAMESPACE}/managedClusters"
SUBSCRIPTION: Final = f"/subscriptions/{{subscription}}/providers/{NAMESPACE}"
GROUP: Final = f"/subscriptions/{{subscription}}/resourceGroups/{{group}}/providers/{NAMESPACE}"
CLUSTER: Final = f"{GROUP}/managedClusters/{{cluster}}"
READ: Final = f"{CLUSTERS}/read"


def cluster_id(call: Call) -> str:
    return f"{call.group_id}/providers/{CLUSTERS}/{call.path['cluster']}"


def require_cluster(call: Call, tx: Tx) -> Resource:
    """Return the cluster of the path. Raises ARM's 404."""
    call.require_group(tx)
    return call.require(tx, cluster_id(call))


def refuse_while_running(tx: Tx, id: str, *kinds: str) -> None:
    """Raise 409 while an operation of one of *kinds* is at work on the resource *id*."""
    for kind in kinds:
        if running := tx.operations.running(id, kind):
            raise ArmError(
                409,
                "OperationNotAllowed",
                f"Another operation ({kind}) is in progress on {id}, since {running.started}.",
                actions=("Wait until it has ended, then repeat the request.",),
            )


def begun(call: Call, tx: Tx, location: str, operation: LongOperation, body: Json, *, status: int) -> Reply:
    """Return 201 or 200 with the resource, and where to poll: below the cluster's location."""
    return lro.created(call, tx, operation, f"{_place(call, location)}/operations", body, status=status)


def accepted(call: Call, tx: Tx, location: str, operation: LongOperation) -> Reply:
    """Return 202, and where to poll: below the cluster's location, because the cluster itself may go."""
    place = _place(call, location)
    return lro.accepted(call, tx, operation, f"{place}/operations", f"{place}/operationresults")


def _place(call: Call, location: str) -> str:
    return f"/subscriptions/{call.subscription}/providers/{NAMESPACE}/locations/{location}"


def get_status(call: Call) -> Reply:
    """Answer how an operation stands: to whoever began it, or may read the cluster."""
    _require_reader(call)
    return lro.get_status(call)


def get_result(call: Call) -> Reply:
    """Answer what an operation ended with: 202 while it runs, then 204, or its error."""
    operation = _require_reader(call)
    if operation.ended is None:
        headers = {"Location": call.url(call.id), "Retry-After": call.retry_after(lro.POLL_SECONDS)}
        return Reply(202, None, headers)
    if operation.error:
        raise ArmError(400, str(operation.error["code"]), str(operation.error["message"]))
    return Reply(204)


def _require_reader(call: Call) -> LongOperation:
    # The path lies at the subscription, where somebody with a role on one resource group has none.
    with call.db.read() as tx:
        operation = lro.find(call, tx)
    if operation.caller != call.principal.object_id:
        call.plane.authorizer.demand(call.principal, READ, operation.resource)
    return operation
