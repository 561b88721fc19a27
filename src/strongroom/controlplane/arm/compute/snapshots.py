"""The CSI snapshots that recovery points hold, as resources of their instances' snapshot resource groups.

Nothing is stored for them: they are read from what is remembered of the points. A snapshot's name is its point's id and
its place among the point's volumes.
"""

from collections.abc import Iterator
from typing import Final

from strongroom.controlplane.arm.call import Call, Reply, listing, require_subscription
from strongroom.controlplane.arm.dataprotection.common import DELETED_INSTANCES, INSTANCES
from strongroom.controlplane.arm.errors import Json, not_found
from strongroom.controlplane.arm.paging import page_size, read_token, skip_token
from strongroom.controlplane.arm.resources.groups import GROUP, SUBSCRIPTION
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.points import StoredPoint
from strongroom.controlplane.state.resources import Resource

SNAPSHOTS: Final = "Microsoft.Compute/snapshots"
KINDS: Final = (INSTANCES, DELETED_INSTANCES)  # a soft-deleted instance keeps its points
BATCH: Final = 200  # instances or points read at once
_GIB: Final = 1024**3


def snapshots(tx: Tx, subscription: str, group: str = "") -> Iterator[Json]:
    """Yield the snapshots whose resource group lies in *subscription*, or of *group* (its name) alone."""
    for instance, place in _instances(tx, subscription, group):
        for point in _points(tx, point_owner(instance)):
            yield from documents(tx, instance, place, point)


def documents(tx: Tx, instance: Resource, group: str, point: StoredPoint) -> list[Json]:
    """Return the snapshots of one point, in the snapshot resource group *group* (its ARM id)."""
    found = tx.resources.get(group)
    location = str(found.doc.get("location", "")) if found else ""
    volumes: list[Json] = point.private.get("volumes", [])
    return [
        _document(instance, found.id if found else group, location, point, number, volume)
        for number, volume in enumerate(volumes)
    ]


def _document(instance: Resource, group: str, location: str, point: StoredPoint, number: int, volume: Json) -> Json:
    name = f"{point.id}-{number}"
    size = volume.get("sizeBytes")
    return {
        "id": f"{group}/providers/{SNAPSHOTS}/{name}",
        "name": name,
        "type": SNAPSHOTS,
        "location": location,
        "tags": {
            "cluster": point.private.get("cluster", ""),
            "namespace": volume["namespace"],
            "persistentVolumeClaim": volume["claim"],
            "recoveryPoint": point.id,
            "backupInstance": point_owner(instance),
        },
        "properties": {
            "provisioningState": "Succeeded",
            "timeCreated": volume.get("created") or point.time,
            "creationData": {"createOption": "Copy"},
            "diskSizeBytes": size,
            "diskSizeGB": None if size is None else -(-size // _GIB),
            "strongroomSnapshot": {
                "driver": volume["driver"],
                "handle": volume["handle"],
                "snapshotClass": volume.get("snapshotClass", ""),
                "storageClass": volume.get("storageClass", ""),
                "volume": volume.get("volume", ""),
            },
        },
    }


def snapshot_group(instance: Resource) -> str:
    """Return the ARM id of the resource group that an instance names for its snapshots, "" if it names none."""
    parameters = (instance.properties.get("policyInfo") or {}).get("policyParameters") or {}
    for entry in parameters.get("dataStoreParametersList") or []:
        if entry.get("resourceGroupId"):
            return "/".join(segment.strip() for segment in str(entry["resourceGroupId"]).strip().split("/"))
    return ""


def point_owner(instance: Resource) -> str:
    """Return the id under which the points of an instance are kept, also once it is soft-deleted."""
    return instance.id.replace("/deletedBackupInstances/", "/backupInstances/")


def _instances(
    tx: Tx, subscription: str, group: str, *, kind: int = 0, after: str = ""
) -> Iterator[tuple[Resource, str]]:
    """Yield instances and their snapshot groups, those of the first kind first, from past the id *after* on."""
    wanted = f"/subscriptions/{subscription}/resourcegroups/{group}".lower()
    for type in KINDS[kind:]:
        while True:
            page = tx.resources.of_type(type, after=after, limit=BATCH)
            for instance in page:
                place = snapshot_group(instance)
                if place.lower() == wanted or (not group and place.lower().startswith(wanted)):
                    yield instance, place
            if len(page) < BATCH:
                break
            after = page[-1].id
        after = ""


def _points(tx: Tx, owner: str, before: tuple[str, str] | None = None) -> Iterator[StoredPoint]:
    while True:
        page = tx.points.of_instance(owner, before=before, limit=BATCH)
        yield from page
        if len(page) < BATCH:
            return
        before = (page[-1].time, page[-1].id.lower())


def list_in_group(call: Call) -> Reply:
    """List the CSI snapshots of a snapshot resource group, newest first for each backup instance."""
    with call.db.read() as tx:
        return _page(call, tx, call.require_group(tx).name)


def list_in_subscription(call: Call) -> Reply:
    """List the CSI snapshots of all snapshot resource groups of a subscription."""
    with call.db.read() as tx:
        require_subscription(tx, call.subscription)
        return _page(call, tx, "")


def _page(call: Call, tx: Tx, group: str) -> Reply:
    """Return a page, which ends with a recovery point: it may be longer than asked by that point's volumes."""
    size = page_size(call.query)
    token = read_token(call.query)
    kind = 1 if token and token["kind"] == "1" else 0
    found: list[Json] = []
    last: dict[str, str] | None = None
    for instance, place, point in _walk(tx, call.subscription, group, kind, token):
        more = documents(tx, instance, place, point)
        if more and len(found) >= size and last is not None:
            return listing(found, call.next_link(**{"$skipToken": skip_token(last)}))
        found += more
        number = KINDS.index(instance.type) if instance.type in KINDS else 0
        last = {"kind": str(number), "instance": instance.id, "before": point.time, "point": point.id.lower()}
    return listing(found)


def _walk(
    tx: Tx, subscription: str, group: str, kind: int, token: dict[str, str] | None
) -> Iterator[tuple[Resource, str, StoredPoint]]:
    if token:
        unfinished = tx.resources.get(token["instance"])
        place = snapshot_group(unfinished) if unfinished else ""
        # The token comes from the caller: it opens no group that was not asked for.
        wanted = f"/subscriptions/{subscription}/resourcegroups/{group}".lower()
        if unfinished is not None and (place.lower() == wanted if group else place.lower().startswith(wanted)):
            for point in _points(tx, point_owner(unfinished), (token["before"], token.get("point", ""))):
                yield unfinished, place, point
    after = token["instance"] if token else ""
    for instance, place in _instances(tx, subscription, group, kind=kind, after=after):
        for point in _points(tx, point_owner(instance)):
            yield instance, place, point


def get_snapshot(call: Call) -> Reply:
    """Answer one CSI snapshot."""
    point_id, _, number = call.path["snapshot"].rpartition("-")
    with call.db.read() as tx:
        group = call.require_group(tx)
        for instance, place in _instances(tx, call.subscription, group.name):
            point = tx.points.get(point_owner(instance), point_id) if point_id else None
            if point is not None and number.isascii() and number.isdigit():
                found = documents(tx, instance, place, point)
                if int(number[:6]) < len(found):
                    return Reply(200, found[int(number[:6])])
    raise not_found(call.id)


_QUERY: Final = ("$top", "$skipToken")
OPERATIONS: Final = (
    Operation(
        "Snapshots_List",
        "GET",
        f"{SUBSCRIPTION}/providers/{SNAPSHOTS}",
        f"{SNAPSHOTS}/read",
        list_in_subscription,
        query=_QUERY,
    ),
    Operation(
        "Snapshots_ListByResourceGroup",
        "GET",
        f"{GROUP}/providers/{SNAPSHOTS}",
        f"{SNAPSHOTS}/read",
        list_in_group,
        query=_QUERY,
    ),
    Operation("Snapshots_Get", "GET", f"{GROUP}/providers/{SNAPSHOTS}/{{snapshot}}", f"{SNAPSHOTS}/read", get_snapshot),
)
