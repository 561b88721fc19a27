"""The job of a backup: have the extension take it, follow it, and make the recovery point known."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from strongroom.controlplane.catalog.points import list_points
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.errors import StateUnavailable
from strongroom.controlplane.state.jobs import Job
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.workflows import jobdocs
from strongroom.controlplane.workflows.containers import Place
from strongroom.controlplane.workflows.engine import StepFailed, Steps, WorkflowCancelled
from strongroom.controlplane.workflows.extension_work import carry_out, withdraw
from strongroom.controlplane.workflows.following import finish, follow
from strongroom.controlplane.workflows.jobdetails import count_by_namespace, sub_tasks
from strongroom.controlplane.workflows.pointdocs import point_time, store_points
from strongroom.controlplane.workflows.protecting import backup_document, of_failure
from strongroom.controlplane.workflows.readiness import problems_of_instance, read_instance
from strongroom.controlplane.workflows.remembered import remembered
from strongroom.controlplane.workflows.services import (
    Services,
    as_job_error,
    error_json,
    error_of,
    place_of_cluster,
)
from strongroom.controlplane.workflows.writers import believed
from strongroom.dataplane.repository.model import Manifest
from strongroom.errors import StrongroomError
from strongroom.extension.api.documents import Kind
from strongroom.extension.api.status import BackupStatus, Phase, Status, parse_status, status_json
from strongroom.protection.errors import ErrorCode, Refused, UserError, refuse_if_any
from strongroom.protection.job import JobStatus

log = logging.getLogger(__name__)

MAX_SECONDS: Final = 86_400.0  # the repository's own maxRun: a later commit would be void (design.md, section 6)


class BackingUp:
    """The body `backup`; the workflow's id is the job's."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def body(self, steps: Steps, job_id: str) -> None:
        """Take the backup of a job.

        Stopped in `take`, it applies the same document again, and the extension finds what it had committed. Stopped
        after it, the recovery point is in the container, and `record` makes it known.
        """
        try:
            outcome = await steps.run("take", lambda: self._take(job_id))
            await steps.run("record", lambda: self._record(job_id, outcome))
        except WorkflowCancelled:
            await steps.run("cancel", lambda: self._cancel(job_id))
        except StepFailed as failure:
            log.error("backup failed", extra={"job": job_id, "reason": str(failure)})
            error = as_job_error(failure.__cause__ or failure)
            await steps.run("fail", lambda: self._fail(job_id, error))

    async def _take(self, job_id: str) -> Any:
        """Return {"status": …} of the extension, or {"error": …}; nothing is left that a second run would not meet."""
        job = await self._services.job(job_id)
        if job.ended is not None:
            return {"ended": True}
        try:
            async with asyncio.timeout(MAX_SECONDS):
                return {"status": status_json(await self._run(job))}
        except TimeoutError:
            # It must not go on beside the next backup of the instance.
            await self._withdraw(job_id)
            hours = MAX_SECONDS / 3600
            message = f"The backup did not end within {hours:.0f} hours and was given up."
            return {"error": error_json(UserError(str(ErrorCode.CUSTOM_RESOURCES_TIMEOUT), message))}
        except StateUnavailable:
            raise
        except Exception as error:
            log.warning("backup not taken", exc_info=error, extra={"job": job_id})
            await self._withdraw(job_id)
            return {"error": error_json(as_job_error(error))}

    async def _run(self, job: Job) -> Status:
        def prepare(tx: Tx) -> tuple[dict[str, str], Place, Any]:
            instance, vault = tx.resources.get(job.instance), tx.resources.get(job.vault)
            if instance is None or vault is None:
                raise Refused(
                    UserError(str(ErrorCode.RESOURCE_NOT_FOUND), "The backup instance was deleted meanwhile.")
                )
            request = read_instance(instance.properties, vault.id)
            # What was taken away since the instance was configured fails this job with its own code.
            access = self._services.access(tx)
            problems = problems_of_instance(tx, vault, request, self._services.limits, access, exists=instance)
            refuse_if_any(problems, "The backup instance")
            _, place = place_of_cluster(tx, request.cluster)
            ids = (place.account_id, vault.parent, place.account_id.partition("/providers/")[0])
            around = [tx.resources.get(id) for id in ids]
            told = remembered(instance, tx.resources.get(request.policy), vault, place.id, around)
            return {**told, **_caller(job, instance)}, place, request

        caller, place, request = await self._services.read(prepare)
        document = backup_document(job.id, place, request, caller=caller, created=job.started)
        on_status = follow(self._services, job.id)
        return await carry_out(self._services, job.vault, request.cluster, place, document, on_status)

    async def _record(self, job_id: str, outcome: Any) -> None:
        """Write the recovery point and the job's end in one transaction."""
        if outcome.get("ended"):
            return
        if "error" in outcome:
            # Whoever did not hear of the commit does not know whether there was one.
            await self._keep_committed(job_id)
            await self._fail(job_id, error_of(outcome["error"]))
            return
        status = parse_status(Kind.BACKUP, outcome["status"])
        assert isinstance(status, BackupStatus)
        if status.phase is Phase.CANCELLED:
            await finish(self._services, job_id, JobStatus.CANCELLED)
            return
        if status.phase is Phase.FAILED or not status.recovery_point_id:
            message = "The backup failed without a reason."
            error = of_failure(status.error) if status.error else UserError(str(ErrorCode.GENERIC_WARNING), message)
            await self._fail(job_id, error)
            return
        details = {
            "Objects": str(status.objects),
            "BytesReadFromCluster": str(status.bytes_read),
            "BytesWritten": str(status.bytes_written),
            "Report": status.report,
            "WarningCount": str(status.warning_count),
        }
        warnings = [jobdocs.warning(w.resource, UserError(w.code, w.message), job_id) for w in status.warnings]
        place = await self._place(job_id)
        async with self._services.containers.repository(place) as repository:
            recovery_point = await repository.load(status.recovery_point_id)
            manifest, namespaces = recovery_point.manifest, await count_by_namespace(recovery_point)
        if not await self._believed(await self._services.job(job_id), [manifest]):
            message = f"The recovery point {manifest.id} is none that the cluster's extension made for this instance."
            await self._fail(job_id, UserError(str(ErrorCode.GENERIC_WARNING), message))
            return
        whole = status.phase is Phase.COMPLETED and not status.warning_count
        written = status.bytes_written
        await self._keep(
            job_id,
            place,
            manifest,
            whole,
            namespaces,
            dataTransferredInBytes=written,
            additionalDetails=details,
            warningDetails=warnings or None,
        )

    async def _place(self, job_id: str) -> Place:
        """Return the container of a job's backups. Raises `Refused` where the instance or the extension is gone."""
        job = await self._services.job(job_id)

        def find(tx: Tx) -> Place:
            instance = tx.resources.get(job.instance)
            if instance is None:
                raise Refused(
                    UserError(str(ErrorCode.RESOURCE_NOT_FOUND), "The backup instance was deleted meanwhile.")
                )
            return place_of_cluster(tx, str(instance.properties["dataSourceInfo"]["resourceID"]))[1]

        return await self._services.read(find)

    async def _keep(
        self, job_id: str, place: Place, manifest: Manifest, whole: bool, namespaces: Mapping[str, int], **extended: Any
    ) -> None:
        """Write the recovery point and the end of its job in one transaction; *extended* lies below extendedInfo."""
        at = self._services.clock()

        def write(tx: Tx) -> None:
            current = tx.jobs.get(job_id)
            if current is None:
                return
            store_points(tx, current.instance, place, [manifest])
            if current.ended is not None:
                return
            tag = {"RetentionTag": manifest.caller.get("tag", "").lower()}
            extended["additionalDetails"] = {**tag, **extended.get("additionalDetails", {})}
            point = {"recoveryPointID": manifest.id, "recoveryPointTime": point_time(manifest)}
            first = current.doc["properties"]["extendedInfo"]["subTasks"][0]
            tasks = [first, *sub_tasks(manifest, namespaces, job_id)]
            current = jobdocs.extended(current, at, targetRecoverPoint=point, subTasks=tasks, **extended)
            status = JobStatus.COMPLETED if whole else JobStatus.COMPLETED_WITH_WARNINGS
            tx.jobs.save(jobdocs.ended(current, status, at))

        await self._services.write(write)

    async def _cancel(self, job_id: str) -> None:
        """Stop the extension, and end the job: as completed where its recovery point was committed before."""
        await self._withdraw(job_id)
        await self._keep_committed(job_id)
        await finish(self._services, job_id, JobStatus.CANCELLED)

    async def _keep_committed(self, job_id: str) -> None:
        """End the job as completed if its recovery point is in the container."""
        try:
            place = await self._place(job_id)
            manifest = await self._committed(job_id, place)
        except StateUnavailable:
            raise
        except StrongroomError as error:
            # What there is in a container that does not answer, a sync of the instance finds.
            log.warning(
                "the point of a broken off backup was not looked for", extra={"job": job_id, "reason": str(error)}
            )
            manifest = None
        if manifest is not None:
            await self._keep(job_id, place, manifest, manifest.state == "Completed" and not manifest.warnings, {})

    async def _committed(self, job_id: str, place: Place) -> Manifest | None:
        job = await self._services.job(job_id)
        known = await self._services.read(lambda tx: [point.id for point in tx.points.of_instance(job.instance)])
        async with self._services.containers.repository(place) as repository:
            found = await list_points(repository, known=dict.fromkeys(known, ""))
            mine = [point.id for point in found.points if point.caller.get("job") == job_id]
            manifests = [(await repository.load(point_id)).manifest for point_id in mine]
        return next(iter(await self._believed(job, manifests)), None)

    async def _believed(self, job: Job, manifests: list[Manifest]) -> list[Manifest]:
        """Return those of *manifests* that the extension of the job's cluster signed for its instance."""

        def check(tx: Tx) -> list[Manifest]:
            instance = tx.resources.get(job.instance)
            return believed(tx, instance, manifests) if instance else []

        return await self._services.write(check)

    async def _withdraw(self, job_id: str) -> None:
        job = await self._services.job(job_id)
        cluster = str(job.doc["properties"]["dataSourceId"])
        await withdraw(self._services, job.vault, cluster, Kind.BACKUP, job_id)

    async def _fail(self, job_id: str, error: UserError) -> None:
        await finish(self._services, job_id, JobStatus.FAILED, error)


def _caller(job: Job, instance: Resource) -> dict[str, str]:
    """Return what the manifest keeps of the job: `remembered` says what it keeps of the resources."""
    properties = instance.properties
    return {
        "job": job.id,
        "instance": instance.id,
        "policy": str(properties["policyInfo"]["policyId"]),
        "policyVersion": str(job.private.get("policyVersion", "")),
        "rule": str(job.private.get("rule", "")),
        "tag": str(job.private.get("tag", "")),
        "retention": str(job.private.get("retention", "")),
        "trigger": "scheduled" if job.slot else "adhoc",
        "slot": str(job.private.get("slot", "")),
        "dataSource": str(properties["dataSourceInfo"]["resourceID"]),
        "friendlyName": str(properties.get("friendlyName", "")),
    }
