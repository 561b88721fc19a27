"""Vaults, backup instances, recovery points and jobs as the command line shows them, and the requests for them. Pure.

*document* is the resource as the server sent it, for output as JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self

from strongroom.client.problems import Problem, problems_of
from strongroom.client.resources import CLUSTERS, group_of

Json = dict[str, Any]

VAULTS: Final = "Microsoft.DataProtection/backupVaults"
JOB_RUNNING: Final = "InProgress"
JOB_WHOLE: Final = "Completed"
JOB_WARNED: Final = "CompletedWithWarnings"
JOB_FAILED: Final = "Failed"


@dataclass(frozen=True)
class BackupVault:
    """A backup vault; *principal* is the object id of its identity, "" without one."""

    id: str
    name: str
    group: str
    location: str
    state: str
    principal: str
    soft_delete: str
    document: Json = field(repr=False)

    @classmethod
    def of(cls, document: Json) -> Self:
        """Read a backupVaults document; what it lacks is ""."""
        properties = _object(document, "properties")
        soft = _object(_object(properties, "securitySettings"), "softDeleteSettings")
        days = soft.get("retentionDurationInDays")
        return cls(
            id=_text(document, "id"),
            name=_text(document, "name"),
            group=group_of(_text(document, "id")),
            location=_text(document, "location"),
            state=_text(properties, "provisioningState"),
            principal=_text(_object(document, "identity"), "principalId"),
            soft_delete=_text(soft, "state") + (f", {days:g} days" if isinstance(days, int | float) else ""),
            document=document,
        )


@dataclass(frozen=True)
class BackupInstance:
    """A backup instance; *cluster*, *policy* and *snapshot_group* are ARM ids, *problems* why it is in an error."""

    id: str
    name: str
    cluster: str
    policy: str
    snapshot_group: str
    state: str
    problems: tuple[Problem, ...]
    document: Json = field(repr=False)

    @classmethod
    def of(cls, document: Json) -> Self:
        """Read a backupInstances document; what it lacks is ""."""
        properties = _object(document, "properties")
        policy = _object(properties, "policyInfo")
        stores = _object(policy, "policyParameters").get("dataStoreParametersList")
        groups = [_text(store, "resourceGroupId") for store in stores or () if isinstance(store, dict)]
        return cls(
            id=_text(document, "id"),
            name=_text(document, "name"),
            cluster=_text(_object(properties, "dataSourceInfo"), "resourceID"),
            policy=_text(policy, "policyId"),
            snapshot_group=next((group for group in groups if group), ""),
            state=_text(properties, "currentProtectionState"),
            problems=problems_of(properties.get("protectionErrorDetails")),
            document=document,
        )

    @property
    def request(self) -> Json:
        """The properties that protect the cluster in the same way: without what only the service writes."""
        written = ("currentProtectionState", "protectionStatus", "provisioningState", "protectionErrorDetails")
        return {key: value for key, value in _object(self.document, "properties").items() if key not in written}


@dataclass(frozen=True)
class RecoveryPoint:
    """A recovery point; *time* is None where the server's cannot be read."""

    name: str
    time: datetime | None
    type: str
    state: str
    tag: str
    expires: str
    document: Json = field(repr=False)

    @classmethod
    def of(cls, document: Json) -> Self:
        """Read a recoveryPoints document; what it lacks is ""."""
        properties = _object(document, "properties")
        return cls(
            name=_text(document, "name"),
            time=read_time(_text(properties, "recoveryPointTime")),
            type=_text(properties, "recoveryPointType"),
            state=_text(properties, "recoveryPointState"),
            tag=_text(properties, "retentionTagName"),
            expires=_text(properties, "expiryTime"),
            document=document,
        )


@dataclass(frozen=True)
class Job:
    """A backup or restore. *percent* is that of its task in progress, None where it is not told."""

    id: str
    name: str
    category: str
    status: str
    instance: str
    started: datetime | None
    duration: str
    on_demand: bool
    task: str
    percent: int | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    document: Json = field(repr=False)

    @classmethod
    def of(cls, document: Json) -> Self:
        """Read a backupJobs document; what it lacks is "" or empty."""
        properties = _object(document, "properties")
        extended = _object(properties, "extendedInfo")
        tasks = [task for task in extended.get("subTasks") or () if isinstance(task, dict)]
        running = [task for task in tasks if task.get("taskStatus") == JOB_RUNNING]
        task = (running or tasks or [{}])[-1 if running else 0]
        percent = _text(task, "taskProgress")
        errors = properties.get("errorDetails") or ()
        warnings = extended.get("warningDetails") or ()
        return cls(
            id=_text(document, "id"),
            name=_text(document, "name"),
            category=_text(properties, "operationCategory"),
            status=_text(properties, "status"),
            instance=_text(properties, "backupInstanceId"),
            started=read_time(_text(properties, "startTime")),
            duration=_text(properties, "duration"),
            on_demand=properties.get("isUserTriggered") is True,
            task=_text(task, "taskName"),
            percent=int(percent) if percent.isascii() and percent.isdigit() else None,
            problems=tuple(problem for error in errors for problem in problems_of(error)),
            warnings=tuple(
                problem for each in warnings if isinstance(each, dict) for problem in problems_of(each.get("warning"))
            ),
            document=document,
        )

    @property
    def ended(self) -> bool:
        """Whether the status never changes again."""
        return self.status != JOB_RUNNING

    @property
    def point(self) -> str:
        """The recovery point that it made, "" for none."""
        made = _object(_object(_object(self.document, "properties"), "extendedInfo"), "targetRecoverPoint")
        return _text(made, "recoveryPointID")


def instance_request(
    *,
    cluster: str,
    location: str,
    policy: str,
    snapshot_group: str,
    friendly_name: str = "",
    configuration: Mapping[str, Any] | None = None,
) -> Json:
    """Return the properties of a backup instance: ARM ids, and *configuration* in ARM's names (nothing: everything)."""
    selected: Json = {"snapshotVolumes": True, "includeClusterScopeResources": True, **(configuration or {})}
    return {
        "objectType": "BackupInstance",
        "friendlyName": friendly_name or cluster.rpartition("/")[2],
        **_sources("dataSourceInfo", "dataSourceSetInfo", cluster, location),
        "policyInfo": {
            "policyId": policy,
            "policyParameters": {
                "dataStoreParametersList": [
                    {
                        "objectType": "AzureOperationalStoreParameters",
                        "dataStoreType": "OperationalStore",
                        "resourceGroupId": snapshot_group,
                    }
                ],
                "backupDatasourceParametersList": [
                    {"objectType": "KubernetesClusterBackupDatasourceParameters", **selected}
                ],
            },
        },
    }


def restore_request(*, point: str, cluster: str, location: str, criteria: Mapping[str, Any]) -> Json:
    """Return the request to restore recovery point *point* into *cluster* (an ARM id); *criteria* in ARM's names."""
    return {
        "objectType": "AzureBackupRecoveryPointBasedRestoreRequest",
        "recoveryPointId": point,
        "sourceDataStoreType": "OperationalStore",
        "restoreTargetInfo": {
            "objectType": "ItemLevelRestoreTargetInfo",
            "recoveryOption": "FailIfExists",
            "restoreLocation": location,
            **_sources("datasourceInfo", "datasourceSetInfo", cluster, location),
            "restoreCriteria": [{"objectType": "KubernetesClusterRestoreCriteria", **criteria}],
        },
    }


def rule_names(policy: Json) -> tuple[str, str, Sequence[str]]:
    """Return the name of a policy's backup rule, its default retention tag, and the intervals of its schedule."""
    rules: list[Json] = _object(policy, "properties").get("policyRules") or []
    backup: Json = next((rule for rule in rules if rule.get("objectType") == "AzureBackupRule"), {})
    trigger = _object(backup, "trigger")
    criteria: list[Json] = trigger.get("taggingCriteria") or []
    default: Json = next((each for each in criteria if each.get("isDefault")), {})
    intervals = _object(trigger, "schedule").get("repeatingTimeIntervals") or ()
    return _text(backup, "name"), _text(_object(default, "tagInfo"), "tagName"), [str(each) for each in intervals]


def read_time(text: str) -> datetime | None:
    """Return a time of the service (UTC, up to seven digits of a second), None for what is none."""
    whole, point, fraction = text.removesuffix("Z").removesuffix("+00:00").partition(".")
    try:
        return datetime.fromisoformat(whole + (point and f".{fraction[:6].ljust(6, '0')}")).replace(tzinfo=UTC)
    except ValueError:
        return None


def _sources(one: str, whole: str, cluster: str, location: str) -> Json:
    source = {
        "objectType": "Datasource",
        "datasourceType": CLUSTERS,
        "resourceType": CLUSTERS,
        "resourceID": cluster,
        "resourceUri": cluster,
        "resourceName": cluster.rpartition("/")[2],
        "resourceLocation": location,
    }
    # For a Kubernetes cluster the datasource set is the cluster itself.
    return {one: source, whole: {**source, "objectType": "DatasourceSet"}}


def _object(document: Json, key: str) -> Json:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _text(document: Json, key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""
