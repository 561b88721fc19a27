"""What workflow bodies work with, and the small steps that all of them share."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from strongroom.controlplane.clusters.errors import ClusterUnreachable
from strongroom.controlplane.clusters.hosted import ExtensionGone
from strongroom.controlplane.clusters.pool import ClusterPool
from strongroom.controlplane.identity.rbac import Access
from strongroom.controlplane.state.database import Database, Tx
from strongroom.controlplane.state.jobs import Job
from strongroom.controlplane.state.operations import LongOperation, OperationStatus
from strongroom.controlplane.state.resources import Document, Resource
from strongroom.controlplane.state.times import now
from strongroom.controlplane.workflows.containers import Containers, Place, find_place
from strongroom.controlplane.workflows.engine import JSON
from strongroom.controlplane.workflows.facing import arm_error
from strongroom.controlplane.workflows.patience import patiently
from strongroom.controlplane.workflows.readiness import extension_of
from strongroom.errors import StrongroomError
from strongroom.protection.errors import ErrorCode, Refused, UserError
from strongroom.protection.job import Limits

T = TypeVar("T")


@dataclass(frozen=True)
class Services:
    """The parts that jobs stand on. *access* gives the role assignments as they are now."""

    db: Database
    pool: ClusterPool
    containers: Containers
    limits: Limits
    access: Callable[[Tx], Access]
    clock: Callable[[], datetime] = now

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Run *work* in a reading transaction, off the event loop; wait for a database that does not answer."""

        def run() -> T:
            with self.db.read() as tx:
                return work(tx)

        return await patiently(lambda: asyncio.to_thread(run))

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Run *work* in a writing transaction, off the event loop; wait for a database that does not answer.

        *work* is done again when nobody knows whether it was kept, so twice must be as once.
        """

        def run() -> T:
            with self.db.write() as tx:
                return work(tx)

        return await patiently(lambda: asyncio.to_thread(run))

    async def job(self, job_id: str) -> Job:
        found = await self.read(lambda tx: tx.jobs.get(job_id))
        assert found is not None, "a workflow is asked for in the transaction that writes its job"
        return found

    async def operation(self, operation_id: str) -> LongOperation:
        found = await self.read(lambda tx: tx.operations.get(operation_id))
        assert found is not None, "a workflow is asked for in the transaction that writes its operation"
        return found

    async def end_operation(
        self, operation: LongOperation, *, error: UserError | None = None, result: Document | None = None
    ) -> None:
        """Write how an operation ended; nothing happens when it had ended before."""
        status = OperationStatus.FAILED if error else OperationStatus.SUCCEEDED
        changed = operation.ending(
            status, self.clock(), error=arm_error(error, operation.id) if error else {}, result=result or {}
        )
        await self.write(lambda tx: tx.operations.end(changed))


def place_of_cluster(tx: Tx, cluster_id: str) -> tuple[Resource, Place]:
    """Return the backup extension of a cluster and its container. Raises `Refused` for what is missing."""
    extension = extension_of(tx, cluster_id)
    if extension is None:
        raise Refused(
            UserError(
                str(ErrorCode.EXTENSION_NOT_FOUND),
                f"The backup extension is not installed in the cluster {cluster_id}.",
                ("Install it: az k8s-extension create --extension-type microsoft.dataprotection.kubernetes …",),
                cluster_id,
            )
        )
    return extension, find_place(tx, extension)


def as_user_error(error: BaseException) -> UserError:
    """Return what a user is told about *error*; the inside of an unforeseen one stays in the log."""
    if isinstance(error, Refused):
        return error.error
    if isinstance(error, StrongroomError):
        code = str(getattr(error, "code", "") or ErrorCode.GENERIC_WARNING)
        return UserError(code, error.message, (error.hint,) if error.hint else ())
    return UserError("InternalServerError", "Strongroom met an error of its own; the server's log has the details.")


def as_job_error(error: BaseException) -> UserError:
    """Return what the job of an instance says of *error*: as `as_user_error`, with Azure's code for a cluster away."""
    told = as_user_error(error)
    if isinstance(error, ClusterUnreachable | ExtensionGone):
        return replace(told, code=str(ErrorCode.EXTENSION_UNHEALTHY), retryable=True)
    return told


def error_json(error: UserError) -> JSON:
    """Return *error* as a step remembers it."""
    found: JSON = json.loads(json.dumps(asdict(error)))
    return found


def error_of(value: Any) -> UserError:
    """Return the error that `error_json` made."""
    return UserError(
        value["code"],
        value["message"],
        tuple(value["recommended_action"]),
        value["target"],
        tuple(error_of(d) for d in value["details"]),
        value["retryable"],
    )
