"""Managed clusters: Kubernetes clusters that were connected, each with the identity that Azure gives a cluster."""

import uuid
from typing import Final
from urllib.parse import urlsplit

from strongroom.controlplane.arm import bodies, lro
from strongroom.controlplane.arm.call import Call, Reply, require_subscription
from strongroom.controlplane.arm.containerservice.common import (
    CLUSTER,
    CLUSTERS,
    GROUP,
    NAMESPACE,
    READ,
    SUBSCRIPTION,
    accepted,
    cluster_id,
    refuse_while_running,
    require_cluster,
)
from strongroom.controlplane.arm.containerservice.connection import FIELD, connected, read_connection, uid_of
from strongroom.controlplane.arm.errors import ArmError, Json, not_supported
from strongroom.controlplane.arm.formats import check_name, check_region
from strongroom.controlplane.arm.pages import page_of
from strongroom.controlplane.arm.preconditions import check_preconditions
from strongroom.controlplane.arm.providers import require_registered
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.clusters.connect import ConnectedCluster
from strongroom.controlplane.identity.principals import managed_identity
from strongroom.controlplane.identity.stored import TxPrincipals
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import now
from strongroom.controlplane.workflows.readiness import INSTANCES, same_id

NODE_GROUP_CHARACTERS: Final = 80  # AKS' own limit of MC_{group}_{cluster}_{location}
_DISCONNECT: Final = "disconnect-cluster"


def put_cluster(call: Call) -> Reply:
    """Connect a cluster with `properties.strongroomConnection`, or change the tags of one that is connected.

    The answer comes when the cluster is connected, and the kubeconfig is gone by then.
    """
    check_name("managedClusters", call.path["cluster"])
    asked = (call.body.get("properties") or {}).get("strongroomConnection")
    _refuse_identity(call.body)
    with call.db.read() as tx:
        old = _before(call, tx)
    if asked is None:
        return _change_tags(call, old, call.body)
    admin = read_connection(call, asked)
    uid = uid_of(call, admin)
    with call.db.read() as tx:
        _refuse_other_cluster(call, tx, old, uid)
    cluster = connected(call, admin)
    with call.db.write() as tx:
        _refuse_other_cluster(call, tx, old, cluster.uid)
        resource = _cluster(call, tx, old, cluster)
        during = resource.with_properties({"provisioningState": "Updating" if old else "Creating"})
        stored = tx.resources.put(during, if_match=old.etag if old else None, if_absent=old is None)
    # Stopped here the state says so, and the same request completes it.
    call.plane.run(call.plane.pool.remember(stored.id, cluster))
    with call.db.write() as tx:
        done = tx.resources.put(stored.with_doc(resource.doc), if_match=stored.etag)
    return Reply(200 if old else 201, done.doc)


def _before(call: Call, tx: Tx) -> Resource | None:
    """Return the cluster as it is. Raises what keeps it from being written."""
    call.require_group(tx)
    require_registered(tx, call.subscription, NAMESPACE)
    old = tx.resources.get(cluster_id(call))
    check_preconditions(call, old)
    refuse_while_running(tx, cluster_id(call), _DISCONNECT)
    location = check_region(call.body["location"])
    if old is not None and location != old.doc["location"]:
        raise ArmError(
            409,
            "InvalidResourceLocation",
            f"The resource '{old.name}' already exists in location '{old.doc['location']}' and cannot be created in "
            f"location '{location}'.",
            target="location",
        )
    return old


def _change_tags(call: Call, old: Resource | None, body: Json) -> Reply:
    if old is None:
        raise ArmError(
            400,
            "InvalidParameter",
            f"{FIELD} is missing: Strongroom connects clusters that exist, and makes none.",
            target=FIELD,
            actions=(
                "Connect it: strongroom cluster connect NAME --resource-group GROUP --kubeconfig FILE",
                f"Or send {FIELD} with the kubeconfig in base64.",
            ),
        )
    document = {k: v for k, v in old.doc.items() if k != "tags"}
    if "tags" in body:
        document["tags"] = body["tags"]
    if document == old.doc:
        return Reply(200, old.doc)
    with call.db.write() as tx:
        return Reply(200, tx.resources.put(old.with_doc(document), if_match=old.etag).doc)


def _refuse_identity(body: Json) -> None:
    kind = str((body.get("identity") or {}).get("type", "SystemAssigned"))
    if kind.lower() != "systemassigned":
        raise not_supported(
            f"identity.type '{kind}' for a cluster", "Use identity.type 'SystemAssigned', or leave it out."
        )


def _refuse_other_cluster(call: Call, tx: Tx, old: Resource | None, uid: str) -> None:
    """Refuse another cluster under this name, and this cluster under another: two would share one extension."""
    if old is not None and old.private.get("uid") not in (None, uid):
        raise ArmError(
            409,
            "ClusterMismatch",
            f"The kubeconfig leads to another Kubernetes cluster than the one that is connected as '{old.name}'.",
            target=f"{FIELD}.kubeconfig",
            actions=("Connect the other cluster under another name, or delete this one first.",),
        )
    for other in tx.resources.of_type(CLUSTERS):
        if other.private.get("uid") == uid and other.id.lower() != cluster_id(call).lower():
            # Who may not read that resource does not learn its name either.
            readable = call.plane.authorizer.allowed(call.principal.object_id, READ, other.id)
            raise ArmError(
                409,
                "ClusterAlreadyConnected",
                f"This Kubernetes cluster is connected already, as {other.id if readable else 'another resource'}.",
                target=f"{FIELD}.kubeconfig",
                actions=("Use that resource, or delete it first.",),
            )


def _cluster(call: Call, tx: Tx, old: Resource | None, cluster: ConnectedCluster) -> Resource:
    identifier = old.id if old else cluster_id(call)
    name = identifier.rpartition("/")[2]
    location = check_region(call.body["location"])
    private = {**(old.private if old else {"incarnation": str(uuid.uuid4())}), "uid": cluster.uid}
    record = managed_identity(
        identifier, call.plane.tenant, incarnation=private["incarnation"], name=name, created=now()
    )
    directory = TxPrincipals(tx)
    if directory.get_by_object_id(record.object_id) is None:
        directory.put(record)
    version = cluster.version.removeprefix("v")
    sent = {k: v for k, v in (call.body.get("properties") or {}).items() if k != "strongroomConnection"}
    node_group = f"MC_{call.path['group']}_{name}_{location}"[:NODE_GROUP_CHARACTERS]
    properties: Json = {
        "nodeResourceGroup": node_group,
        **(old.properties if old else {}),
        **sent,
        "provisioningState": "Succeeded",
        "powerState": {"code": "Running"},
        "kubernetesVersion": version,
        "currentKubernetesVersion": version,
        "fqdn": urlsplit(cluster.server).hostname or "",
        "enableRBAC": True,
        "identityProfile": {"kubeletidentity": {"objectId": record.object_id, "clientId": record.app_id}},
    }
    properties.pop("strongroomWarnings", None)
    if cluster.warnings:
        properties["strongroomWarnings"] = list(cluster.warnings)
    document: Json = {
        "id": identifier,
        "name": name,
        "type": CLUSTERS,
        "location": location,
        "identity": {"type": "SystemAssigned", "principalId": record.object_id, "tenantId": call.plane.tenant},
        "properties": properties,
    }
    if "tags" in call.body:
        document["tags"] = call.body["tags"]
    return Resource(
        identifier, CLUSTERS, document, call.group_id, private, old.etag if old else "", old.created if old else ""
    )


def patch_cluster(call: Call) -> Reply:
    """Change the tags of a cluster."""
    with call.db.read() as tx:
        old = require_cluster(call, tx)
        check_preconditions(call, old)
    tags = call.body.get("tags", old.doc.get("tags"))
    return _change_tags(call, old, {"tags": tags} if tags is not None else {})


def get_cluster(call: Call) -> Reply:
    with call.db.read() as tx:
        cluster = require_cluster(call, tx)
        return Reply(200, cluster.doc, {"ETag": f'"{cluster.etag}"'})


def list_in_group(call: Call) -> Reply:
    with call.db.read() as tx:
        call.require_group(tx)
        return page_of(
            call, lambda after, limit: tx.resources.children(call.group_id, CLUSTERS, after=after, limit=limit)
        )


def list_in_subscription(call: Call) -> Reply:
    with call.db.read() as tx:
        require_subscription(tx, call.subscription)

        def fetch(after: str, limit: int) -> list[Resource]:
            return tx.resources.of_type(CLUSTERS, subscription=call.subscription, after=after, limit=limit)

        return page_of(call, fetch)


def delete_cluster(call: Call) -> Reply:
    """Disconnect a cluster: what Strongroom installed in it is removed as far as it answers, the cluster stays."""
    with call.db.write() as tx:
        call.require_group(tx)
        cluster = tx.resources.get(cluster_id(call))
        if cluster is None:
            return Reply(204)
        location = str(cluster.doc["location"])
        if running := tx.operations.running(cluster.id, _DISCONNECT):
            return accepted(call, tx, location, running)
        check_preconditions(call, cluster)
        refuse_while_protected(tx, cluster.id, "deleted")
        tx.resources.put(cluster.with_properties({"provisioningState": "Deleting"}))
        operation = lro.begin(call, tx, _DISCONNECT, resource=cluster.id, key=cluster.id)
        return accepted(call, tx, location, operation)


def refuse_while_protected(tx: Tx, cluster: str, what: str) -> None:
    """Raise 409 while backup instances protect *cluster*."""
    found = [i.id for i in tx.resources.of_type(INSTANCES) if _protects(i, cluster)]
    if found:
        raise ArmError(
            409,
            "ResourceInUse",
            f"It cannot be {what}: {len(found)} backup instances protect the cluster, the first is {found[0]}.",
            actions=("Stop protection and delete the backup instances first.",),
        )


def _protects(instance: Resource, cluster: str) -> bool:
    return same_id(str((instance.properties.get("dataSourceInfo") or {}).get("resourceID", "")), cluster)


def no_credential(call: Call) -> Reply:
    """Refuse: Strongroom keeps no credential of a cluster that it could hand out."""
    raise not_supported("handing out credentials of a connected cluster: it keeps none", "Use your own kubeconfig.")


OPERATIONS: Final = (
    Operation(
        "ManagedClusters_CreateOrUpdate",
        "PUT",
        CLUSTER,
        f"{CLUSTERS}/write",
        put_cluster,
        shape(bodies.ManagedClusterBody),
        (200, 201),
        waits=True,
    ),
    Operation(
        "ManagedClusters_UpdateTags", "PATCH", CLUSTER, f"{CLUSTERS}/write", patch_cluster, shape(bodies.TagsPatch)
    ),
    Operation("ManagedClusters_Get", "GET", CLUSTER, READ, get_cluster),
    Operation("ManagedClusters_Delete", "DELETE", CLUSTER, f"{CLUSTERS}/delete", delete_cluster, statuses=(202, 204)),
    Operation("ManagedClusters_ListByResourceGroup", "GET", f"{GROUP}/managedClusters", READ, list_in_group),
    Operation("ManagedClusters_List", "GET", f"{SUBSCRIPTION}/managedClusters", READ, list_in_subscription),
    *(
        Operation(
            f"ManagedClusters_{name[0].upper()}{name[1:]}s",
            "POST",
            f"{CLUSTER}/{name}",
            f"{CLUSTERS}/{name}/action",
            no_credential,
            safe=True,
        )
        for name in ("listClusterUserCredential", "listClusterAdminCredential", "listClusterMonitoringUserCredential")
    ),
)
