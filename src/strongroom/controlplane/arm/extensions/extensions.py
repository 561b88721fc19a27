"""The backup extension of a cluster: install, change, look at and remove it, and the identity that it has."""

import asyncio
import uuid
from typing import Final

from strongroom import __version__
from strongroom.controlplane.arm import bodies, lro
from strongroom.controlplane.arm.call import Call, Reply
from strongroom.controlplane.arm.containerservice.clusters import refuse_while_protected
from strongroom.controlplane.arm.containerservice.common import (
    CLUSTER,
    cluster_id,
    refuse_while_running,
    require_cluster,
)
from strongroom.controlplane.arm.errors import ArmError, Json, not_supported
from strongroom.controlplane.arm.formats import check_name
from strongroom.controlplane.arm.pages import page_of
from strongroom.controlplane.arm.preconditions import check_preconditions
from strongroom.controlplane.arm.providers import require_registered
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.clusters.errors import ClusterError
from strongroom.controlplane.clusters.installer import ExtensionHealth, extension_health
from strongroom.controlplane.clusters.manifests import NAMESPACE as RELEASE_NAMESPACE
from strongroom.controlplane.clusters.manifests import RESTORE
from strongroom.controlplane.identity.principals import managed_identity
from strongroom.controlplane.identity.stored import TxPrincipals
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.operations import LongOperation
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import now, stamp
from strongroom.controlplane.workflows.cluster_work import extension_status
from strongroom.controlplane.workflows.containers import ACCOUNTS, PREFIX, account_of_extension, find_place
from strongroom.controlplane.workflows.extension_settings import cluster_endpoint_of, hook_namespaces_of, workload_of
from strongroom.controlplane.workflows.readiness import EXTENSION_TYPE, EXTENSIONS, extension_of
from strongroom.controlplane.workflows.restore_rights import restores_into

NAMESPACE: Final = "Microsoft.KubernetesConfiguration"
LIST: Final = f"{CLUSTER}/providers/{EXTENSIONS}"
EXTENSION: Final = f"{LIST}/{{extension}}"
HEALTH_SECONDS: Final = 5.0  # whoever looks at an extension waits; the stored state is answered then
_KINDS: Final = ("install-extension", "remove-extension")


def put_extension(call: Call) -> Reply:
    """Install the backup extension, or install it anew with other settings."""
    check_name("extensions", call.path["extension"])
    asked = call.body["properties"]
    _refuse_what_is_not_there(asked)
    with call.db.write() as tx:
        cluster = require_cluster(call, tx)
        require_registered(tx, call.subscription, NAMESPACE)
        old = tx.resources.get(call.id)
        check_preconditions(call, old)
        settings = asked.get("configurationSettings", {})
        changes = {k: asked[k] for k in ("autoUpgradeMinorVersion", "releaseTrain", "version") if k in asked}
        return _begin(call, tx, cluster, old, settings, changes, status=200 if old else 201)


def patch_extension(call: Call) -> Reply:
    """Change settings of the extension, key by key, and install it anew with them."""
    asked = call.body.get("properties", {})
    _refuse_what_is_not_there(asked)
    with call.db.write() as tx:
        cluster = require_cluster(call, tx)
        old = call.require(tx, call.id)
        check_preconditions(call, old)
        settings = {**(old.properties.get("configurationSettings") or {}), **asked.get("configurationSettings", {})}
        changes = {k: asked[k] for k in ("autoUpgradeMinorVersion", "releaseTrain", "version") if k in asked}
        return _begin(call, tx, cluster, old, settings, changes, status=202)


def _begin(
    call: Call, tx: Tx, cluster: Resource, old: Resource | None, settings: Json, changes: Json, *, status: int
) -> Reply:
    resource = _extension(call, tx, cluster, old, settings, changes)
    _check(call, tx, cluster, resource)
    if old is not None and (running := tx.operations.running(old.id, "install-extension")):
        state = old.properties["provisioningState"]
        if resource.with_properties({"provisioningState": state}).doc == old.doc:
            # The very request that is carried out: its answer may have been lost.
            return lro.created(call, tx, running, f"{old.id}/operations", old.doc, status=status)
    refuse_while_running(tx, cluster.id, "disconnect-cluster")
    refuse_while_running(tx, call.id, *_KINDS)
    stored = tx.resources.put(resource)
    operation = lro.begin(call, tx, "install-extension", resource=stored.id, key=cluster.id)
    return lro.created(call, tx, operation, f"{stored.id}/operations", stored.doc, status=status)


def _refuse_what_is_not_there(asked: Json) -> None:
    kind = str(asked.get("extensionType", EXTENSION_TYPE))
    if kind.lower() != EXTENSION_TYPE:
        raise ArmError(
            400,
            "ExtensionTypeNotSupported",
            f"properties.extensionType is '{kind[:100]}'; Strongroom has '{EXTENSION_TYPE}'.",
            target="properties.extensionType",
            actions=(f"Use the extension type {EXTENSION_TYPE}.",),
        )
    if asked.get("configurationProtectedSettings"):
        raise not_supported(
            "configurationProtectedSettings: its extension has no secret settings",
            "Leave them out; the storage account holds its own credentials.",
        )
    if (asked.get("scope") or {}).get("namespace"):
        raise not_supported("the extension in one namespace", "Leave properties.scope out, or send {'cluster': {}}.")
    version = asked.get("version")
    if version and version != __version__:
        raise not_supported(
            f"version '{version[:40]}' of its extension: this server installs {__version__}",
            "Leave properties.version out.",
        )


def _check(call: Call, tx: Tx, cluster: Resource, extension: Resource) -> None:
    """Refuse what Azure's own client refuses, and what could only fail later."""
    other = extension_of(tx, cluster.id)
    if other is not None and other.id.lower() != extension.id.lower():
        raise ArmError(
            409,
            "ExtensionTypeAlreadyInstalled",
            f"The cluster has the backup extension already, as '{other.name}'.",
            actions=(f"Change or delete the extension '{other.name}'.",),
        )
    hook_namespaces_of(extension)
    workload_of(extension)
    cluster_endpoint_of(extension)
    account_id, container = account_of_extension(extension)
    # Installing makes the repository in the container, so the caller must be one who may write there.
    call.demand(
        f"{ACCOUNTS}/blobServices/containers/write", f"{account_id}/blobServices/default/containers/{container}"
    )
    target = f"properties.configurationSettings.{PREFIX}config"
    if account_id.split("/")[2].lower() != cluster.id.split("/")[2].lower():
        raise ArmError(
            400,
            "InvalidStorageAccount",
            "The storage account and the cluster must be in one subscription; the account is in "
            f"{account_id.split('/')[2]}.",
            target=f"{target}.subscriptionId",
            actions=("Use a storage account of the cluster's subscription.",),
        )
    find_place(tx, extension)
    account = tx.resources.get(account_id)
    assert account is not None, "its place was found"
    if account.doc.get("location") != cluster.doc.get("location"):
        raise ArmError(
            400,
            "InvalidStorageAccount",
            f"The storage account '{account.name}' is in '{account.doc.get('location')}' and the cluster in "
            f"'{cluster.doc.get('location')}'; both must be in one region.",
            target=f"{target}.storageAccount",
            actions=("Use a storage account of the cluster's region.",),
        )


def _extension(call: Call, tx: Tx, cluster: Resource, old: Resource | None, settings: Json, changes: Json) -> Resource:
    identifier = old.id if old else call.id
    name = identifier.rpartition("/")[2]
    private = dict(old.private) if old else {"incarnation": str(uuid.uuid4())}
    record = managed_identity(
        identifier, call.plane.tenant, incarnation=private["incarnation"], name=name, created=now()
    )
    directory = TxPrincipals(tx)
    if directory.get_by_object_id(record.object_id) is None:
        directory.put(record)
    identity = {"type": "SystemAssigned", "principalId": record.object_id, "tenantId": call.plane.tenant}
    before = old.properties if old else {}
    properties: Json = {
        "autoUpgradeMinorVersion": True,
        "releaseTrain": "stable",
        "currentVersion": "",
        "statuses": [],
        **before,
        **changes,
        "extensionType": EXTENSION_TYPE,
        "scope": {"cluster": {"releaseNamespace": RELEASE_NAMESPACE}},
        "configurationSettings": settings,
        "configurationProtectedSettings": {},
        "provisioningState": "Updating" if old else "Creating",
        "errorInfo": None,
        "aksAssignedIdentity": identity,
        "isSystemExtension": False,
    }
    document: Json = {
        "id": identifier,
        "name": name,
        "type": EXTENSIONS,
        "identity": identity,
        "properties": properties,
    }
    return Resource(
        identifier, EXTENSIONS, document, cluster.id, private, old.etag if old else "", old.created if old else ""
    )


def get_extension(call: Call) -> Reply:
    """Answer with the extension; `statuses` say what the cluster has of it now."""
    with call.db.read() as tx:
        require_cluster(call, tx)
        extension = call.require(tx, call.id)
    headers = {"ETag": f'"{extension.etag}"'}
    if extension.properties.get("provisioningState") != "Succeeded":
        return Reply(200, extension.doc, headers)
    return Reply(200, extension.with_properties({"statuses": _health(call)}).doc, headers)


def _health(call: Call) -> list[Json]:
    async def look() -> ExtensionHealth:
        async with asyncio.timeout(HEALTH_SECONDS):
            return await extension_health(await call.plane.pool.access(cluster_id(call)), now=now())

    at = stamp(now())
    try:
        health = call.plane.run(look())
    except TimeoutError:
        message = f"The cluster did not answer within {HEALTH_SECONDS:.0f} seconds."
        return [extension_status("ClusterUnreachable", "Error", message, at)]
    except ClusterError as error:
        return [extension_status("ClusterUnreachable", "Error", error.message, at)]
    missing = list(health.missing) if health.installed else ["the extension's settings", *health.missing]
    rights = _restore_rights(call, at) if health.restore_enabled else []
    if missing:
        message = f"The cluster lacks: {'; '.join(missing)}. Install the extension again."
        return [extension_status("Unhealthy", "Error", message, at), *rights]
    return [extension_status("Installed", "Information", "The cluster has all of the extension.", at), *rights]


def _restore_rights(call: Call, at: str) -> list[Json]:
    """Tell that the extension may write everywhere, and whether that is what it needs now."""
    with call.db.read() as tx:
        running = restores_into(tx, cluster_id(call))
    if running:
        message = "A restore runs: until it ends, the extension has as much as cluster-admin."
        return [extension_status("RestoreEnabled", "Information", message, at)]
    message = (
        "No restore runs, and the extension still has as much as cluster-admin. The end of the next restore takes it "
        f"back, or: kubectl delete clusterrolebinding {RESTORE}"
    )
    return [extension_status("RestoreEnabled", "Warning", message, at)]


def list_extensions(call: Call) -> Reply:
    with call.db.read() as tx:
        cluster = require_cluster(call, tx).id
        return page_of(call, lambda after, limit: tx.resources.children(cluster, EXTENSIONS, after=after, limit=limit))


def delete_extension(call: Call) -> Reply:
    """Remove the extension from the cluster. Recovery points stay, the container is not touched.

    With `forceDelete=true` also while backup instances need it, and when the cluster does not answer.
    """
    force = call.query.get("forcedelete", "").lower() == "true"
    with call.db.write() as tx:
        cluster = require_cluster(call, tx)
        extension = tx.resources.get(call.id)
        if extension is None:
            return Reply(204)
        if running := tx.operations.running(extension.id, "remove-extension"):
            return _accepted(call, tx, extension, running)
        check_preconditions(call, extension)
        refuse_while_running(tx, extension.id, *_KINDS)
        if not force:
            refuse_while_protected(tx, cluster.id, "removed")
        tx.resources.put(extension.with_properties({"provisioningState": "Deleting"}))
        operation = lro.begin(
            call, tx, "remove-extension", request={"force": force}, resource=extension.id, key=cluster.id
        )
        return _accepted(call, tx, extension, operation)


def _accepted(call: Call, tx: Tx, extension: Resource, operation: LongOperation) -> Reply:
    return lro.accepted(call, tx, operation, f"{extension.id}/operations", f"{extension.id}/operationResults")


def get_result(call: Call) -> Reply:
    """Answer what an operation on an extension ended with: 202 while it runs, then 204, or its error."""
    with call.db.read() as tx:
        operation = lro.find(call, tx)
    if operation.ended is None:
        headers = {"Location": call.url(call.id), "Retry-After": call.retry_after(lro.POLL_SECONDS)}
        return Reply(202, None, headers)
    if operation.error:
        raise ArmError(400, str(operation.error["code"]), str(operation.error["message"]))
    return Reply(204)


OPERATIONS: Final = (
    Operation(
        "Extensions_Create",
        "PUT",
        EXTENSION,
        f"{EXTENSIONS}/write",
        put_extension,
        shape(bodies.ExtensionBody),
        (200, 201),
    ),
    Operation(
        "Extensions_Update",
        "PATCH",
        EXTENSION,
        f"{EXTENSIONS}/write",
        patch_extension,
        shape(bodies.ExtensionPatch),
        (202,),
    ),
    Operation("Extensions_Get", "GET", EXTENSION, f"{EXTENSIONS}/read", get_extension, waits=True),
    Operation(
        "Extensions_Delete",
        "DELETE",
        EXTENSION,
        f"{EXTENSIONS}/delete",
        delete_extension,
        statuses=(202, 204),
        query=("forceDelete",),
    ),
    Operation("Extensions_List", "GET", LIST, f"{EXTENSIONS}/read", list_extensions),
    Operation(
        "OperationStatusExtensions_Get",
        "GET",
        f"{EXTENSION}/operations/{{operation}}",
        f"{EXTENSIONS}/operations/read",
        lro.get_status,
        polls=True,
    ),
    Operation(
        "OperationResultsExtensions_Get",
        "GET",
        f"{EXTENSION}/operationResults/{{operation}}",
        f"{EXTENSIONS}/operations/read",
        get_result,
        statuses=(202, 204),
        polls=True,
    ),
)
