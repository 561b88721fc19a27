"""Long-running operations: what a client polls after a 201 or 202, until it succeeded, failed or was cancelled."""

import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, select, update

from strongroom.controlplane.state.resources import Document
from strongroom.controlplane.state.schema import operations
from strongroom.controlplane.state.times import stamp


class OperationStatus(StrEnum):
    """As the service spells them: azure-backup-for-aks.md, section 3.3."""

    RUNNING = "Inprogress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"


@dataclass(frozen=True)
class LongOperation:
    """An operation on *resource* (its ARM id). *caller* is the object id of who began it.

    *job* is the ARM id of the job it began, or "". *request* is what a worker needs to carry it out (never a secret),
    *result* the body of `operationResults`, *error* an ARM error object or {}.
    """

    id: str
    kind: str
    resource: str
    status: OperationStatus
    started: str
    ended: str | None = None
    caller: str = ""
    job: str = ""
    request: Document = field(default_factory=dict)
    result: Document = field(default_factory=dict)
    error: Document = field(default_factory=dict)

    def ending(self, status: OperationStatus, at: datetime, **changes: Any) -> "LongOperation":
        return replace(self, status=status, ended=stamp(at), **changes)


class Operations:
    """The long-running operations, inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, id: str) -> LongOperation | None:
        row = self._connection.execute(select(operations).where(operations.c.id == id)).one_or_none()
        return _operation(row) if row else None

    def add(self, operation: LongOperation) -> None:
        """Write a new operation. Raises `Conflict` when its id is taken."""
        self._connection.execute(operations.insert().values(id=operation.id, **_values(operation)))

    def end(self, operation: LongOperation) -> bool:
        """Write how an operation ended, once: returns False when it had ended before, and changes nothing then."""
        running = and_(operations.c.id == operation.id, operations.c.ended.is_(None))
        return bool(self._connection.execute(update(operations).where(running).values(_values(operation))).rowcount)

    def running(self, resource: str, kind: str) -> LongOperation | None:
        """Return the operation of *kind* that runs on *resource*, if one does."""
        condition = and_(
            operations.c.resource == resource.lower(), operations.c.kind == kind, operations.c.ended.is_(None)
        )
        row = self._connection.execute(select(operations).where(condition).limit(1)).one_or_none()
        return _operation(row) if row else None

    def open(self) -> list[LongOperation]:
        """Return all that have not ended."""
        rows = self._connection.execute(select(operations).where(operations.c.ended.is_(None)))
        return [_operation(row) for row in rows]

    def forget(self, before: datetime) -> int:
        """Delete those that ended before *before*; return how many."""
        old = and_(operations.c.ended.is_not(None), operations.c.ended < stamp(before))
        return int(self._connection.execute(delete(operations).where(old)).rowcount)


def _values(operation: LongOperation) -> dict[str, Any]:
    return {
        "kind": operation.kind,
        "resource": operation.resource.lower(),
        "status": operation.status.value,
        "started": operation.started,
        "ended": operation.ended,
        "caller": operation.caller,
        "job": operation.job,
        "request": json.dumps({**operation.request, "resource": operation.resource}),
        "result": json.dumps(operation.result),
        "error": json.dumps(operation.error),
    }


def _operation(row: Row[Any]) -> LongOperation:
    request = json.loads(row.request)
    return LongOperation(
        id=row.id,
        kind=row.kind,
        resource=request.pop("resource"),
        status=OperationStatus(row.status),
        started=row.started,
        ended=row.ended,
        caller=row.caller,
        job=row.job,
        request=request,
        result=json.loads(row.result),
        error=json.loads(row.error),
    )
