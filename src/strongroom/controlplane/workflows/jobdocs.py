"""The document of a job: Azure's properties, filled as a job begins, goes on and ends."""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from strongroom.controlplane.state.jobs import Job
from strongroom.controlplane.state.resources import Document, Resource
from strongroom.controlplane.state.times import stamp
from strongroom.controlplane.workflows.facing import facing
from strongroom.protection.errors import UserError
from strongroom.protection.job import JobCategory, JobStatus, job_duration
from strongroom.protection.times import parse_instant

JOBS: Final = "Microsoft.DataProtection/backupVaults/backupJobs"
IN_PROGRESS: Final = JobStatus.IN_PROGRESS.value
BACKUP: Final = JobCategory.BACKUP.value
RESTORE: Final = JobCategory.RESTORE.value


def new_job(
    instance: Resource,
    category: str,
    at: datetime,
    *,
    vault: Resource,
    on_demand: bool,
    policy_name: str,
    task: str,
    slot: str | None = None,
    private: Document | None = None,
    details: Mapping[str, str] | None = None,
    **extended: Any,
) -> Job:
    """Return a job that begins now. Shape: azure-backup-for-aks.md, section 3.5; *extended* lies below extendedInfo."""
    identifier = str(uuid.uuid4())
    properties = instance.properties
    source = properties["dataSourceInfo"]
    policy = properties["policyInfo"]["policyId"]
    cluster = str(source["resourceID"])
    started = stamp(at)
    document: Document = {
        "id": f"{vault.id}/backupJobs/{identifier}",
        "name": identifier,
        "type": JOBS,
        "properties": {
            "activityID": identifier,
            "subscriptionId": vault.id.split("/")[2],
            "backupInstanceId": instance.id,
            "backupInstanceFriendlyName": properties.get("friendlyName", instance.name),
            "policyId": policy,
            "policyName": policy_name,
            "dataSourceId": cluster,
            "dataSourceName": source.get("resourceName") or cluster.rpartition("/")[2],
            "dataSourceSetName": properties["dataSourceSetInfo"].get("resourceName") or cluster.rpartition("/")[2],
            "dataSourceType": source.get("datasourceType", "Microsoft.ContainerService/managedClusters"),
            "dataSourceLocation": source.get("resourceLocation") or vault.doc["location"],
            "vaultName": vault.name,
            "sourceResourceGroup": cluster.split("/")[4],
            "sourceSubscriptionID": cluster.split("/")[2],
            "sourceDataStoreName": None,
            "sourceDataStoreType": "OperationalStore" if category == RESTORE else None,
            "destinationDataStoreName": None,
            "operationCategory": category,
            "operation": category,
            "status": IN_PROGRESS,
            "isUserTriggered": on_demand,
            "restoreType": None,
            "startTime": started,
            "endTime": None,
            "duration": "PT0S",
            "progressEnabled": True,
            "progressUrl": None,
            "supportedActions": [""],
            "rehydrationPriority": None,
            "isCrossRegionRestore": None,
            "etag": etag_at(at),
            "errorDetails": None,
            "extendedInfo": {
                "backupInstanceState": None,
                "dataTransferredInBytes": None,
                "recoveryDestination": None,
                "sourceRecoverPoint": None,
                "targetRecoverPoint": None,
                "subTasks": [sub_task(1, task, IN_PROGRESS, identifier)],
                "additionalDetails": dict(details or {}),
                "warningDetails": None,
                **extended,
            },
        },
    }
    return Job(
        identifier, vault.id, instance.id, category, IN_PROGRESS, started, document, slot=slot, private=private or {}
    )


def sub_task(
    number: int,
    name: str,
    status: str,
    activity: str,
    *,
    progress: int | None = None,
    details: Mapping[str, str] | None = None,
) -> Document:
    """Return a sub-task; *progress* is per cent. Azure answers one without progress; ours has one for the phase."""
    return {
        "taskId": number,
        "taskName": name,
        "taskStatus": status,
        "taskProgress": None if progress is None else str(progress),
        "additionalDetails": {
            "TaskId": activity,
            "DatasourceType": "Microsoft.ContainerService/managedClusters",
            **(details or {}),
        },
    }


def extended(job: Job, at: datetime, **changes: Any) -> Job:
    """Return *job* with *changes* below its extendedInfo, as of *at*."""
    before: Document = job.doc["properties"]["extendedInfo"]
    return job.changed(extendedInfo={**before, **changes}, etag=etag_at(at))


def ended(job: Job, status: JobStatus, at: datetime, *errors: UserError) -> Job:
    """Return *job* as it ended at *at*; its open sub-tasks end with it."""
    before: Document = job.doc["properties"]["extendedInfo"]
    tasks = [
        {**t, "taskStatus": status.value, "taskProgress": "100" if status.succeeded else t["taskProgress"]}
        if t["taskStatus"] == IN_PROGRESS
        else t
        for t in before["subTasks"]
    ]
    changed = job.changed(
        status=status.value,
        endTime=stamp(at),
        duration=job_duration(parse_instant(job.started), parse_instant(stamp(at))),
        etag=etag_at(at),
        errorDetails=[facing(e, job.id) for e in errors] or None,
        extendedInfo={**before, "subTasks": tasks},
    )
    return replace(changed, ended=stamp(at))


def warning(resource: str, error: UserError, activity: str) -> Document:
    return {"resourceName": resource, "warning": facing(error, activity)}


def etag_at(at: datetime) -> str:
    quoted = stamp(at).replace(":", "%3A")
    return f"W/\"datetime'{quoted}'\""
