"""The job of a restore, and the check of one: planned and carried out by the extension of the target cluster."""

import asyncio
import logging
import uuid
from typing import Any, Final

from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.errors import StateUnavailable
from strongroom.controlplane.state.jobs import Job
from strongroom.controlplane.workflows import jobdocs
from strongroom.controlplane.workflows.containers import Place
from strongroom.controlplane.workflows.engine import StepFailed, Steps, WorkflowCancelled
from strongroom.controlplane.workflows.extension_work import DISCARD_SECONDS, carry_out, unwatched, withdraw
from strongroom.controlplane.workflows.following import finish, follow
from strongroom.controlplane.workflows.protecting import CHECK_SECONDS, NO_ANSWER, of_failure
from strongroom.controlplane.workflows.readiness import read_instance, target_problems, vault_of
from strongroom.controlplane.workflows.restore_rights import RestoreRights
from strongroom.controlplane.workflows.restoring import RestoreRequest, restore_of
from strongroom.controlplane.workflows.services import (
    Services,
    as_job_error,
    error_json,
    error_of,
    place_of_cluster,
)
from strongroom.extension.api.documents import Kind, ObjectMeta, Restore, RestoreCriteria, RestoreSpec
from strongroom.extension.api.status import Phase, RestoreStatus, parse_status, status_json
from strongroom.protection.errors import ErrorCode, Refused, UserError, refuse_if_any
from strongroom.protection.job import JobStatus

log = logging.getLogger(__name__)

MAX_SECONDS: Final = 86_400.0  # as for a backup: a restore that takes a day is stuck


class Restoring:
    """The bodies `restore` (the id is the job's) and `validate-restore` (the id is the operation's)."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._rights = RestoreRights(services)

    async def body(self, steps: Steps, job_id: str) -> None:
        """Carry out the restore of a job.

        Stopped anywhere, the same document is applied again, and the extension goes on by the restore's journal.
        """
        try:
            outcome = await steps.run("restore", lambda: self._restore(job_id))
            await steps.run("record", lambda: self._record(job_id, outcome))
        except WorkflowCancelled:
            await steps.run("cancel", lambda: self._cancel(job_id))
        except StepFailed as failure:
            log.error("restore failed", extra={"job": job_id, "reason": str(failure)})
            error = as_job_error(failure.__cause__ or failure)
            await steps.run("fail", lambda: finish(self._services, job_id, JobStatus.FAILED, error))
        await steps.run("take back", lambda: self._take_back(job_id))

    async def validate(self, steps: Steps, operation_id: str) -> None:
        """Answer a `validateRestore`: the extension plans it, nothing changes in the target."""
        found = await steps.run("check", lambda: self._check(operation_id))
        await steps.run("finish", lambda: self._finish(operation_id, found))

    async def _check(self, operation_id: str) -> Any:
        operation = await self._services.operation(operation_id)
        request = restore_of(operation.request["request"])
        vault = vault_of(operation.resource)
        name = f"check-{uuid.uuid4()}"
        try:
            place = await self._services.read(lambda tx: self._prepare(tx, operation.resource, request))
            document = _document(name, place, request, {"instance": operation.resource}, dry_run=True)
            async with asyncio.timeout(CHECK_SECONDS):
                status = await carry_out(self._services, vault, request.target, place, document, unwatched)
            if status.phase is Phase.FAILED and status.error is not None:
                return error_json(of_failure(status.error))
        except TimeoutError:
            await withdraw(self._services, vault, request.target, Kind.RESTORE, name, seconds=DISCARD_SECONDS)
            return error_json(NO_ANSWER)
        except StateUnavailable:
            raise
        except Exception as error:
            log.warning("the restore could not be checked", exc_info=error)
            return error_json(as_job_error(error))
        return None

    async def _finish(self, operation_id: str, found: Any) -> None:
        operation = await self._services.operation(operation_id)
        await self._services.end_operation(operation, error=error_of(found) if found else None)

    def _prepare(self, tx: Tx, instance_id: str, request: RestoreRequest) -> Place:
        """Check again what may have changed since the request; return the container that holds the point."""
        instance = tx.resources.get(instance_id)
        vault = tx.resources.get(vault_of(instance_id))
        if instance is None or vault is None:
            raise Refused(UserError(str(ErrorCode.RESOURCE_NOT_FOUND), "The backup instance was deleted meanwhile."))
        point = tx.points.get(instance.id, request.point)
        if point is None:
            message = f"The recovery point {request.point} was deleted meanwhile."
            raise Refused(UserError(str(ErrorCode.RESOURCE_NOT_FOUND), message))
        group = read_instance(instance.properties, vault.id).snapshot_group
        problems = target_problems(tx, vault, request.target, group, self._services.access(tx))
        refuse_if_any(problems, "The restore request")
        _, place = place_of_cluster(tx, request.target)
        if place.id.lower() != str(point.private["container"]).lower():
            raise Refused(
                UserError(
                    str(ErrorCode.INVALID_INPUT),
                    f"The extension of the target cluster uses the container {place.id}, and the recovery point "
                    f"lies in {point.private['container']}.",
                    ("Install the target's extension with the container of the source.",),
                    request.target,
                )
            )
        return place

    async def _restore(self, job_id: str) -> Any:
        job = await self._services.job(job_id)
        if job.ended is not None:
            return {"ended": True}
        request = restore_of(job.private["request"])
        try:
            place = await self._services.read(lambda tx: self._prepare(tx, job.instance, request))
            await self._rights.give(request.target)
            document = _document(job.id, place, request, {"instance": job.instance, "job": job.id})
            async with asyncio.timeout(MAX_SECONDS):
                status = await carry_out(
                    self._services, job.vault, request.target, place, document, follow(self._services, job_id)
                )
            return {"status": status_json(status)}
        except TimeoutError:
            await withdraw(self._services, job.vault, request.target, Kind.RESTORE, job_id)
            message = f"The restore did not end within {MAX_SECONDS / 3600:.0f} hours and was given up."
            return {"error": error_json(UserError(str(ErrorCode.CUSTOM_RESOURCES_TIMEOUT), message))}
        except StateUnavailable:
            raise
        except Exception as error:
            log.warning("restore not carried out", exc_info=error, extra={"job": job_id})
            await withdraw(self._services, job.vault, request.target, Kind.RESTORE, job_id)
            return {"error": error_json(as_job_error(error))}

    async def _record(self, job_id: str, outcome: Any) -> None:
        if outcome.get("ended"):
            return
        if "error" in outcome:
            await finish(self._services, job_id, JobStatus.FAILED, error_of(outcome["error"]))
            return
        status = parse_status(Kind.RESTORE, outcome["status"])
        assert isinstance(status, RestoreStatus)
        at = self._services.clock()

        def write(tx: Tx) -> None:
            job = tx.jobs.get(job_id)
            if job is None or job.ended is not None:
                return
            job = _with_result(job, status)
            match status.phase:
                case Phase.COMPLETED:
                    ended = JobStatus.COMPLETED_WITH_WARNINGS if status.warning_count else JobStatus.COMPLETED
                case Phase.PARTIALLY_FAILED:
                    ended = JobStatus.COMPLETED_WITH_WARNINGS
                case Phase.CANCELLED:
                    ended = JobStatus.CANCELLED
                case _:
                    ended = JobStatus.FAILED
            errors = (of_failure(status.error),) if status.error else ()
            tx.jobs.save(jobdocs.ended(job, ended, at, *errors))

        await self._services.write(write)

    async def _take_back(self, job_id: str) -> None:
        job = await self._services.job(job_id)
        await self._rights.take_back(restore_of(job.private["request"]).target, job_id)

    async def _cancel(self, job_id: str) -> None:
        job = await self._services.job(job_id)
        await withdraw(self._services, job.vault, restore_of(job.private["request"]).target, Kind.RESTORE, job_id)
        await finish(self._services, job_id, JobStatus.CANCELLED)


def _with_result(job: Job, status: RestoreStatus) -> Job:
    before = job.doc["properties"]["extendedInfo"]
    counts = status.counts
    details = {
        **before["additionalDetails"],
        "RestoreId": status.restore_id,
        "Report": status.report,
        "WarningCount": str(status.warning_count),
    }
    if counts is not None:
        details |= {
            "Created": str(counts.created),
            "Patched": str(counts.patched),
            "Skipped": str(counts.skipped),
            "Failed": str(counts.failed),
        }
    warnings = [jobdocs.warning(w.resource, UserError(w.code, w.message), job.id) for w in status.warnings]
    return job.changed(
        extendedInfo={**before, "additionalDetails": details, "warningDetails": warnings or None},
    )


def _document(
    name: str, place: Place, request: RestoreRequest, caller: dict[str, str], *, dry_run: bool = False
) -> Restore:
    return Restore(
        metadata=ObjectMeta(name=name),
        spec=RestoreSpec(
            storage_location=place.location_name,
            recovery_point_id=request.point,
            criteria=RestoreCriteria.from_arm(request.criteria),
            caller=caller,
            dry_run=dry_run,
        ),
    )
