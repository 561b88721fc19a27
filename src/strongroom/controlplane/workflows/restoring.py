"""A restore request as a value: which recovery point, into which cluster, what of it and how."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.workflows.readiness import trimmed
from strongroom.protection.errors import ErrorCode, UserError, refuse_if_any
from strongroom.protection.job import Limits
from strongroom.protection.restore import parse_restore_request


@dataclass(frozen=True)
class RestoreRequest:
    """*point* is a recovery point's id, *target* the ARM id of the cluster to restore into, *criteria* ARM's own."""

    point: str
    target: str
    criteria: Mapping[str, Any]


def read_restore(
    tx: Tx, instance: Resource, body: Mapping[str, Any], *, path: str, limits: Limits | None = None
) -> RestoreRequest:
    """Return what a restore request of *instance* asks for; *path* goes before names. Raises `Refused`: every problem.

    For Kubernetes clusters the wire shape is always an item-level restore with one criterion, a full restore included
    (azure-backup-for-aks.md, section 1.6).
    """
    found = parse_restore_request(body, path.rstrip("."), limits)
    problems: list[UserError] = []
    point = found.recovery_point_id.strip().rpartition("/")[2]
    if tx.points.get(instance.id, point) is None:
        problems.append(
            UserError(
                str(ErrorCode.RESOURCE_NOT_FOUND),
                f"The backup instance has no recovery point '{point[:80]}'.",
                ("List them: az dataprotection recovery-point list.",),
                f"{path}recoveryPointId",
            )
        )
    if tx.resources.get(found.target.id) is None:
        problems.append(
            UserError(
                str(ErrorCode.RESOURCE_NOT_FOUND),
                f"The target cluster {found.target.id[:200]} does not exist.",
                ("Connect it: strongroom cluster connect NAME --resource-group GROUP --kubeconfig FILE",),
                f"{path}restoreTargetInfo.datasourceInfo.resourceID",
            )
        )
    refuse_if_any(problems, "The restore request")
    return RestoreRequest(point, found.target.id, body["restoreTargetInfo"]["restoreCriteria"][0])


def restore_of(body: Mapping[str, Any]) -> RestoreRequest:
    """Return the request of a job that was checked when it began."""
    info = body["restoreTargetInfo"]
    point = str(body["recoveryPointId"]).strip().rpartition("/")[2]
    return RestoreRequest(point, trimmed(info["datasourceInfo"]["resourceID"]), info["restoreCriteria"][0])
