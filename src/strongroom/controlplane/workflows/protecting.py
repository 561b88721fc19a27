"""Puts a backup instance under protection, checks whether it could be, and takes it away again."""

import asyncio
import logging
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.errors import StateUnavailable
from strongroom.controlplane.state.resources import Document, Resource
from strongroom.controlplane.state.times import stamp
from strongroom.controlplane.workflows.cancelling import cancel_job
from strongroom.controlplane.workflows.containers import Place
from strongroom.controlplane.workflows.engine import Engine, Steps
from strongroom.controlplane.workflows.extension_work import DISCARD_SECONDS, carry_out, unwatched, withdraw
from strongroom.controlplane.workflows.facing import facing
from strongroom.controlplane.workflows.planning import plan_next
from strongroom.controlplane.workflows.readiness import InstanceRequest, problems_of_instance, read_instance, vault_of
from strongroom.controlplane.workflows.services import (
    Services,
    as_user_error,
    error_json,
    error_of,
    place_of_cluster,
)
from strongroom.controlplane.workflows.work_ids import PURGE, work_id
from strongroom.extension.api.documents import Backup, BackupSpec, Kind, ObjectMeta, Selection, SnapshotSettings
from strongroom.extension.api.status import Failure, Phase
from strongroom.protection.errors import ErrorCode, Refused, UserError, refuse_if_any
from strongroom.protection.instance import ProtectionState

log = logging.getLogger(__name__)

DELETED: Final = "Microsoft.DataProtection/backupVaults/deletedBackupInstances"
CHECK_SECONDS: Final = 300.0  # a validation looks at every selected claim; a person waits for it
NO_ANSWER: Final = UserError(
    str(ErrorCode.CUSTOM_RESOURCES_TIMEOUT),
    f"The extension did not answer within {CHECK_SECONDS:.0f} seconds.",
    ("Look at the health of the cluster and its extension, then repeat.",),
    retryable=True,
)

_STATUS_OF: Final[Mapping[ProtectionState, str]] = {
    ProtectionState.CONFIGURING: "ConfiguringProtection",
    ProtectionState.UPDATING: "ConfiguringProtection",
    ProtectionState.CONFIGURED: "ProtectionConfigured",
    ProtectionState.SUSPENDED: "ProtectionConfigured",
    ProtectionState.STOPPED: "ProtectionStopped",
    ProtectionState.ERROR: "ConfiguringProtectionFailed",
    ProtectionState.CONFIGURING_FAILED: "ConfiguringProtectionFailed",
    ProtectionState.SOFT_DELETING: "SoftDeleting",
    ProtectionState.SOFT_DELETED: "SoftDeleted",
}
"""`protectionStatus.status` mirrors the state in six words: azure-backup-for-aks.md, section 1.8."""


def with_state(
    instance: Resource,
    state: ProtectionState,
    *,
    provisioning: str = "Succeeded",
    error: UserError | None = None,
    activity: str = "",
) -> Resource:
    """Return *instance* in *state*, with the reason when it is an error."""
    properties = {k: v for k, v in instance.properties.items() if k != "protectionErrorDetails"}
    status: Document = {"status": _STATUS_OF[state]}
    if error is not None:
        details = facing(error, activity)
        properties["protectionErrorDetails"] = details
        status["errorDetails"] = details
    properties |= {"currentProtectionState": str(state), "protectionStatus": status, "provisioningState": provisioning}
    return instance.with_doc({**instance.doc, "properties": properties})


class Protecting:
    """The bodies `configure`, `validate-backup` and `delete-instance`; each id is that of a long-running operation."""

    def __init__(self, services: Services, engine: Engine) -> None:
        self._services = services
        self._engine = engine

    async def configure(self, steps: Steps, operation_id: str) -> None:
        """Check everything, in the cluster too, and let the schedule begin.

        Stopped anywhere, it goes on with the same check; the instance stands as `ConfiguringProtection` until then.
        """
        found = await steps.run("check", lambda: self._check_configured(operation_id))
        await steps.run("finish", lambda: self._finish_configure(operation_id, found))

    async def _check_configured(self, operation_id: str) -> Any:
        operation = await self._services.operation(operation_id)
        instance = await self._services.read(lambda tx: tx.resources.get(operation.resource))
        if instance is None:
            return error_json(
                UserError(str(ErrorCode.RESOURCE_NOT_FOUND), "The backup instance was deleted meanwhile.")
            )
        return await self._check(instance.properties, instance.id, exists=instance)

    async def _finish_configure(self, operation_id: str, found: Any) -> None:
        operation = await self._services.operation(operation_id)
        error = error_of(found) if found else None
        at = self._services.clock()

        def write(tx: Tx) -> None:
            instance = tx.resources.get(operation.resource)
            if instance is None:
                return
            state = ProtectionState(operation.request["failed" if error else "after"])
            provisioning = "Failed" if error else "Succeeded"
            changed = with_state(instance, state, provisioning=provisioning, error=error, activity=operation.id)
            stored = tx.resources.put(changed)
            policy = tx.resources.get(stored.properties["policyInfo"]["policyId"])
            if policy is not None:
                plan_next(tx, stored, policy, at)

        await self._services.write(write)
        await self._services.end_operation(operation, error=error)

    async def validate(self, steps: Steps, operation_id: str) -> None:
        """Answer a `validateForBackup`: nothing is written but the operation's end."""
        found = await steps.run("check", lambda: self._check_asked(operation_id))
        await steps.run("finish", lambda: self._finish(operation_id, found))

    async def _check_asked(self, operation_id: str) -> Any:
        operation = await self._services.operation(operation_id)
        vault = vault_of(operation.resource)
        instance = operation.request.get("instance")
        exists = await self._services.read(lambda tx: tx.resources.get(instance) if instance else None)
        return await self._check(operation.request["properties"], f"{vault}/backupInstances/-", exists=exists)

    async def _finish(self, operation_id: str, found: Any) -> None:
        operation = await self._services.operation(operation_id)
        await self._services.end_operation(operation, error=error_of(found) if found else None)

    async def _check(self, properties: Mapping[str, Any], instance_id: str, *, exists: Resource | None) -> Any:
        """Return every problem as one error, None when there is none."""
        vault_id = vault_of(instance_id)
        try:
            request = read_instance(properties, vault_id)

            def known(tx: Tx) -> list[UserError]:
                vault = tx.resources.get(vault_id)
                if vault is None:
                    return [UserError(str(ErrorCode.RESOURCE_NOT_FOUND), f"The vault {vault_id} was deleted.")]
                access = self._services.access(tx)
                return problems_of_instance(tx, vault, request, self._services.limits, access, exists=exists)

            problems = await self._services.read(known)
            # The cluster is asked only when it can be expected to answer.
            if not problems:
                problems = await self._ask_cluster(vault_id, request)
            refuse_if_any(problems, "The backup instance")
        except Refused as error:
            return error_json(error.error)
        return None

    async def _ask_cluster(self, vault: str, request: InstanceRequest) -> list[UserError]:
        name = f"check-{uuid.uuid4()}"
        try:
            _, place = await self._services.read(lambda tx: place_of_cluster(tx, request.cluster))
            document = backup_document(name, place, request, caller={}, dry_run=True)
            async with asyncio.timeout(CHECK_SECONDS):
                status = await carry_out(self._services, vault, request.cluster, place, document, unwatched)
        except TimeoutError:
            # It would hold one of the few places for checks in the extension for as long as it hangs.
            await withdraw(self._services, vault, request.cluster, Kind.BACKUP, name, seconds=DISCARD_SECONDS)
            return [NO_ANSWER]
        except StateUnavailable:
            raise
        except Exception as error:
            log.warning("the cluster could not be asked", exc_info=error)
            return [as_user_error(error)]
        if status.phase in (Phase.COMPLETED, Phase.PARTIALLY_FAILED) or status.error is None:
            return []
        found = of_failure(status.error)
        return list(found.details) or [found]

    async def delete(self, steps: Steps, operation_id: str) -> None:
        """Take an instance away: to the soft-deleted ones, or with its recovery points.

        Until the last step the instance stands as `SoftDeleting`.
        """
        await steps.run("cancel jobs", lambda: self._cancel_jobs(operation_id))
        await steps.run("delete", lambda: self._delete(operation_id))

    async def _cancel_jobs(self, operation_id: str) -> None:
        """Cancel what runs for the instance: nobody can want the end of it, which may be a day away."""
        operation = await self._services.operation(operation_id)
        while running := await self._services.read(lambda tx: tx.jobs.running(operation.resource)):
            await cancel_job(self._services, self._engine, running[0].id)

    async def _delete(self, operation_id: str) -> None:
        operation = await self._services.operation(operation_id)
        at = self._services.clock()

        def write(tx: Tx) -> None:
            instance = tx.resources.get(operation.resource)
            if instance is None:
                return
            vault = tx.resources.get(instance.parent)
            soft = operation.request["soft"] and vault is not None
            days = (
                float(vault.properties["securitySettings"]["softDeleteSettings"]["retentionDurationInDays"])
                if vault
                else 0
            )
            purge = at + timedelta(days=days if soft else 0)
            tx.resources.delete(instance.id)
            tx.schedules.clear(instance.id)
            identifier = instance.id.replace("/backupInstances/", "/deletedBackupInstances/")
            deleted = with_state(instance, ProtectionState.SOFT_DELETED)
            properties = {
                **deleted.properties,
                "objectType": "DeletedBackupInstance",
                "deletionInfo": {
                    "deletionTime": stamp(at),
                    "billingEndDate": stamp(at),
                    "scheduledPurgeTime": stamp(purge),
                    "deleteActivityID": operation.id,
                },
            }
            document = {**instance.doc, "id": identifier, "type": DELETED, "properties": properties}
            private = {**instance.private, "instance": instance.id}
            tx.resources.put(
                Resource(identifier, DELETED, document, instance.parent, private, created=instance.created)
            )
            if not soft:
                tx.outbox.add(PURGE, work_id(PURGE, identifier, at), identifier)

        await self._services.write(write)
        await self._services.end_operation(operation)


def backup_document(
    name: str,
    place: Place,
    request: InstanceRequest,
    *,
    caller: Mapping[str, str],
    created: str = "",
    dry_run: bool = False,
) -> Backup:
    """Return the Backup that carries out what an instance asks for.

    *created* is when its job began (a stamp): a repetition looks no further back for what the job has committed.
    """
    return Backup(
        metadata=ObjectMeta(name=name, creation_timestamp=created),
        spec=BackupSpec(
            storage_location=place.location_name,
            selection=Selection.from_arm(request.configuration),
            # Not the snapshot resource group: a driver that does not know that parameter refuses to cut.
            snapshot=SnapshotSettings(),
            caller=dict(caller),
            dry_run=dry_run,
        ),
    )


def of_failure(failure: Failure) -> UserError:
    """Return what an extension reported as the error that users see."""
    return UserError(
        failure.code,
        failure.message,
        failure.recommended_action,
        failure.target,
        tuple(of_failure(d) for d in failure.details),
        failure.retryable,
    )
