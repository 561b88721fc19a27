"""Long-running operations on the wire: the headers of a 201 or 202, and the documents that clients poll.

Rules and shapes: azure-clients.md (A.2, A.3, "Ground truth") and azure-backup-for-aks.md section 3.3. A PUT answers
201 with `Azure-AsyncOperation` only: azure-cli would take a `Location` for the resource. POST and DELETE answer 202
with both.
"""

import base64
import re
import uuid
from typing import Final

from strongroom.controlplane.arm.call import Call, Reply
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.operations import LongOperation, OperationStatus
from strongroom.controlplane.state.times import now, stamp
from strongroom.protection.times import UNSET_TIMESTAMP

POLL_SECONDS: Final = 0.5  # most operations end within a second; azure-core's own fallback is 30 s
JOB_INFO: Final = "OperationJobExtendedInfo"
_LOCATION: Final = re.compile(r"/providers/[^/]+/locations/[^/]+$")


def new_id() -> str:
    """Return an operation id in the service's form: base64 of two GUIDs."""
    return base64.b64encode(f"{uuid.uuid4()};{uuid.uuid4()}".encode()).decode()


def begin(
    call: Call, tx: Tx, kind: str, *, request: Json | None = None, resource: str = "", key: str = ""
) -> LongOperation:
    """Begin an operation that a worker carries out: the row, and the work in the outbox, in one transaction."""
    operation = LongOperation(
        id=new_id(),
        kind=kind,
        resource=resource or call.id,
        status=OperationStatus.RUNNING,
        started=stamp(now()),
        caller=call.principal.object_id,
        request=request or {},
    )
    tx.operations.add(operation)
    tx.outbox.add(kind, operation.id, key)
    return operation


def done(
    call: Call, tx: Tx, kind: str, *, job: str = "", result: Json | None = None, resource: str = ""
) -> LongOperation:
    """Write an operation that needed no worker: it has succeeded when the client first polls it."""
    at = now()
    operation = LongOperation(
        id=new_id(),
        kind=kind,
        resource=resource or call.id,
        status=OperationStatus.SUCCEEDED,
        started=stamp(at),
        ended=stamp(at),
        caller=call.principal.object_id,
        job=job,
        result=result or {},
    )
    tx.operations.add(operation)
    return operation


def created(call: Call, tx: Tx, operation: LongOperation, status_path: str, body: Json, *, status: int = 201) -> Reply:
    """Return 201 with the resource, and where to poll."""
    return keep(call, tx, Reply(status, body, _headers(call, operation, status_path)))


def accepted(call: Call, tx: Tx, operation: LongOperation, status_path: str, result_path: str) -> Reply:
    """Return 202 without a body, and where to poll: *status_path* and *result_path* take the operation's id."""
    headers = _headers(call, operation, status_path)
    headers["Location"] = call.url(f"{result_path}/{operation.id}")
    return keep(call, tx, Reply(202, None, headers))


def keep(call: Call, tx: Tx, reply: Reply) -> Reply:
    """Remember the answer in the transaction that made it true, for a repetition of the same request."""
    if call.replay_key is not None:
        call.plane.replays.keep(tx, call.replay_key, reply)
    return reply


def _headers(call: Call, operation: LongOperation, status_path: str) -> dict[str, str]:
    # Whole seconds here, also for azure-core: the SDKs' own code reads this header of a first answer as an int, and
    # nobody waits for it, because the first poll is immediate. Fractions come with the answers to polls.
    return {"Azure-AsyncOperation": call.url(f"{status_path}/{operation.id}"), "Retry-After": "1"}


def find(call: Call, tx: Tx) -> LongOperation:
    """Return the operation that the path names. Raises 404 for one outside the path's scope, as for none at all."""
    operation = tx.operations.get(call.path["operation"])
    scope = call.id.lower().rsplit("/", 2)[0]  # without `operationStatus/{id}`, whatever resources are called
    # Below a location the id names no resource: there the subscription (and group) is the scope.
    scope = _LOCATION.sub("", scope)
    if operation is None or not (operation.resource.lower() + "/").startswith(scope + "/"):
        raise ArmError(404, "ResourceNotFound", f"The operation '{call.path['operation']}' was not found.")
    return operation


def status_document(call: Call, operation: LongOperation) -> Json:
    """Return the body of `operationStatus`."""
    document: Json = {
        "id": call.id,
        "name": operation.id,
        "status": operation.status.value,
        "startTime": operation.started,
        "endTime": operation.ended or UNSET_TIMESTAMP,
    }
    if operation.job:
        document["properties"] = {"jobId": operation.job, "objectType": JOB_INFO}
    if operation.error:
        document["error"] = operation.error
    return document


def get_status(call: Call) -> Reply:
    """Answer `GET …/operationStatus/{operation}`."""
    with call.db.read() as tx:
        operation = find(call, tx)
    headers = {} if operation.ended else {"Retry-After": call.retry_after(POLL_SECONDS)}
    return Reply(200, status_document(call, operation), headers)


def get_result(call: Call) -> Reply:
    """Answer `GET …/operationResults/{operation}`: 202 while it runs, then its result, or its error."""
    with call.db.read() as tx:
        operation = find(call, tx)
        if operation.ended is None:
            return Reply(202, None, {"Location": call.url(call.id), "Retry-After": call.retry_after(POLL_SECONDS)})
        if operation.error:
            raise ArmError(400, str(operation.error["code"]), str(operation.error["message"]))
        if resource := operation.result.get("resource"):
            return Reply(200, call.require(tx, resource).doc)
    body: Json = {"objectType": JOB_INFO, **operation.result}
    return Reply(200, {**body, "jobId": operation.job} if operation.job else body)
