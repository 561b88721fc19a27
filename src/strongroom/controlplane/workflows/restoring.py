"""A restore request as a value: which recovery point, into which cluster, what of it and how."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.workflows.readiness import DATASOURCE_TYPE, trimmed
from strongroom.protection.errors import ErrorCode, UserError, invalid, refuse_if_any

POINT_RESTORE: Final = "AzureBackupRecoveryPointBasedRestoreRequest"
CRITERIA: Final = "KubernetesClusterRestoreCriteria"


@dataclass(frozen=True)
class RestoreRequest:
    """*point* is a recovery point's id, *target* the ARM id of the cluster to restore into, *criteria* ARM's own."""

    point: str
    target: str
    criteria: Mapping[str, Any]


def read_restore(tx: Tx, instance: Resource, body: Mapping[str, Any], *, path: str) -> RestoreRequest:
    """Return what a restore request of *instance* asks for; *path* goes before names. Raises `Refused`: every problem.

    For Kubernetes clusters the wire shape is always an item-level restore with one criterion, a full restore included
    (azure-backup-for-aks.md, section 1.6).
    """
    problems: list[UserError] = []
    if body.get("objectType") != POINT_RESTORE:
        problems.append(
            invalid(f"{path}objectType", f"objectType is '{body.get('objectType')}'; '{POINT_RESTORE}' is accepted.")
        )
    if body.get("sourceDataStoreType", "OperationalStore") != "OperationalStore":
        problems.append(
            UserError(
                str(ErrorCode.NOT_SUPPORTED),
                f"sourceDataStoreType is '{body.get('sourceDataStoreType')}'; Strongroom keeps recovery points in the "
                "OperationalStore only.",
                ("Use sourceDataStoreType 'OperationalStore'.",),
                f"{path}sourceDataStoreType",
            )
        )
    point = str(body.get("recoveryPointId", "")).strip().rpartition("/")[2]
    if tx.points.get(instance.id, point) is None:
        problems.append(
            UserError(
                str(ErrorCode.RESOURCE_NOT_FOUND),
                f"The backup instance has no recovery point '{point[:80]}'.",
                ("List them: az dataprotection recovery-point list.",),
                f"{path}recoveryPointId",
            )
        )
    target_info = body.get("restoreTargetInfo") or {}
    target = trimmed((target_info.get("datasourceInfo") or {}).get("resourceID", ""))
    problems += _target_problems(tx, target, target_info, path)
    criteria = target_info.get("restoreCriteria") or []
    if len(criteria) != 1 or criteria[0].get("objectType") != CRITERIA:
        problems.append(
            invalid(
                f"{path}restoreTargetInfo.restoreCriteria",
                f"Exactly one {CRITERIA} is needed; found {[c.get('objectType') for c in criteria]}.",
            )
        )
    refuse_if_any(problems, "The restore request")
    return RestoreRequest(point, target, criteria[0])


def _target_problems(tx: Tx, target: str, info: Mapping[str, Any], path: str) -> list[UserError]:
    field = f"{path}restoreTargetInfo.datasourceInfo.resourceID"
    if info.get("objectType") != "ItemLevelRestoreTargetInfo":
        return [
            invalid(
                f"{path}restoreTargetInfo.objectType",
                f"objectType is '{info.get('objectType')}'; 'ItemLevelRestoreTargetInfo' is accepted.",
            )
        ]
    kind = (info.get("datasourceInfo") or {}).get("datasourceType") or DATASOURCE_TYPE
    if kind.lower() != DATASOURCE_TYPE.lower():
        return [
            invalid(f"{path}restoreTargetInfo.datasourceInfo.datasourceType", f"'{kind}' is not '{DATASOURCE_TYPE}'.")
        ]
    if tx.resources.get(target) is None:
        return [
            UserError(
                str(ErrorCode.RESOURCE_NOT_FOUND),
                f"The target cluster {target[:200]} does not exist.",
                ("Connect it: strongroom cluster connect NAME --resource-group GROUP --kubeconfig FILE",),
                field,
            )
        ]
    return []


def restore_of(body: Mapping[str, Any]) -> RestoreRequest:
    """Return the request of a job that was checked when it began."""
    info = body["restoreTargetInfo"]
    point = str(body["recoveryPointId"]).strip().rpartition("/")[2]
    return RestoreRequest(point, trimmed(info["datasourceInfo"]["resourceID"]), info["restoreCriteria"][0])
