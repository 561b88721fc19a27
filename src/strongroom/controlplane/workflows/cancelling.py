"""Cancels a job that a user does not want any more: one that waits never begins, one that runs is stopped."""

import asyncio
import logging
from typing import Any, Final

from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.jobs import Job
from strongroom.controlplane.workflows.engine import Body, Engine, Steps, WorkflowState
from strongroom.controlplane.workflows.following import end_job
from strongroom.controlplane.workflows.services import Services, error_json, error_of
from strongroom.protection.errors import ErrorCode, UserError
from strongroom.protection.job import JobStatus

log = logging.getLogger(__name__)

CANCEL: Final = "cancel-job"
LOOK_SECONDS: Final = 0.5  # between looks whether the job has ended; a person waits for it


class Cancelling:
    """The body `cancel-job`; its id is that of a long-running operation on the job."""

    def __init__(self, services: Services, engine: Engine) -> None:
        self._services = services
        self._engine = engine

    def bodies(self) -> dict[str, Body]:
        return {CANCEL: self.cancel}

    async def cancel(self, steps: Steps, operation_id: str) -> None:
        """Ask the job's workflow to end, and end the operation when the job has ended.

        Stopped anywhere, it asks again, which changes nothing.
        """
        found = await steps.run("cancel", lambda: self._cancel(operation_id))
        await steps.run("finish", lambda: self._finish(operation_id, found))

    async def _cancel(self, operation_id: str) -> Any:
        """Return None when the job ended as cancelled, else the error that says how it ended."""
        operation = await self._services.operation(operation_id)
        job_id = operation.resource.rpartition("/")[2]
        job = await cancel_job(self._services, self._engine, job_id)
        if job is not None and job.status == JobStatus.CANCELLED:
            return None
        status = "was removed" if job is None else f"ended as {job.status}"
        message = f"The job {job_id} {status} before it could be cancelled."
        return error_json(UserError(str(ErrorCode.INVALID_INPUT), message, target=operation.resource))

    async def _finish(self, operation_id: str, found: Any) -> None:
        operation = await self._services.operation(operation_id)
        await self._services.end_operation(operation, error=error_of(found) if found else None)


async def cancel_job(services: Services, engine: Engine, job_id: str) -> Job | None:
    """Have a job end, and return it when it has; None where there is none."""
    while True:
        job, waits = await services.read(lambda tx: _look(tx, job_id))
        if job is None or job.ended is not None:
            return job
        if not waits:
            # Asked every time: the engine may have got the job only now.
            await engine.cancel(job_id)
            state = await engine.state(job_id)
            if state is WorkflowState.ABSENT or state.finished:
                # It never began, so its body cannot write this; where it did, it has, and this changes nothing.
                await services.write(lambda tx: end_job(tx, job_id, JobStatus.CANCELLED, services.clock()))
                continue
        await asyncio.sleep(LOOK_SECONDS)


def _look(tx: Tx, job_id: str) -> tuple[Job | None, bool]:
    """Return the job, and whether the engine does not have its workflow yet."""
    return tx.jobs.get(job_id), any(work.id == job_id for work in tx.outbox.waiting(limit=1_000_000))
