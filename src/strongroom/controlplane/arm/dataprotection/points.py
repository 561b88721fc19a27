"""Recovery points as the API lists them, newest first, and what may be restored from."""

from collections.abc import Mapping

from azure.mgmt.dataprotection import types as wire

from strongroom.controlplane.arm.call import Call, Reply, listing
from strongroom.controlplane.arm.dataprotection.common import INSTANCE, INSTANCES, POINTS, instance_id, require_instance
from strongroom.controlplane.arm.errors import not_found, not_supported
from strongroom.controlplane.arm.odata import time_range
from strongroom.controlplane.arm.paging import page_size, read_token, skip_token
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape


def list_points(call: Call) -> Reply:
    """Return the recovery points of an instance, `$filter=startDate eq '…' and endDate eq '…'` understood."""
    start, end = time_range(call.query.get("$filter", ""))
    size = page_size(call.query)
    token = read_token(call.query)
    with call.db.read() as tx:
        require_instance(call, tx)
        points = tx.points.of_instance(instance_id(call), start=start, end=end, before=_before(token), limit=size + 1)
    link = None
    if len(points) > size:
        last = points[size - 1]
        link = call.next_link(**{"$skipToken": skip_token({"before": last.time, "id": last.id.lower()})})
    return listing([point.doc for point in points[:size]], link)


def _before(token: Mapping[str, str] | None) -> tuple[str, str] | None:
    """Return after which point a page begins; a link of an older version names its time alone."""
    return (str(token["before"]), str(token.get("id", ""))) if token else None


def get_point(call: Call) -> Reply:
    with call.db.read() as tx:
        instance = require_instance(call, tx)
        point = tx.points.get(instance.id, call.path["point"])
    if point is None:
        raise not_found(call.id)
    return Reply(200, point.doc)


def find_ranges(call: Call) -> Reply:
    raise not_supported(
        "findRestorableTimeRanges: a Kubernetes cluster is restored from discrete recovery points",
        "List the recovery points.",
    )


OPERATIONS = (
    Operation(
        "RecoveryPoints_List",
        "GET",
        f"{INSTANCE}/recoveryPoints",
        f"{POINTS}/read",
        list_points,
        query=("$filter", "$skipToken"),
    ),
    Operation("RecoveryPoints_Get", "GET", f"{INSTANCE}/recoveryPoints/{{point}}", f"{POINTS}/read", get_point),
    Operation(
        "RestorableTimeRanges_Find",
        "POST",
        f"{INSTANCE}/findRestorableTimeRanges",
        f"{INSTANCES}/findRestorableTimeRanges/action",
        find_ranges,
        shape(wire.AzureBackupFindRestorableTimeRangesRequest),
    ),
)
