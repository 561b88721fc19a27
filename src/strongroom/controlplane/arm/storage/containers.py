"""Blob containers: each is made where its account lies, and proven usable when it is created."""

from typing import Final

from strongroom.controlplane.arm import bodies
from strongroom.controlplane.arm.call import Call, Reply
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.arm.formats import check_name
from strongroom.controlplane.arm.pages import page_of
from strongroom.controlplane.arm.preconditions import check_preconditions
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.arm.storage.accounts import ACCOUNT
from strongroom.controlplane.catalog.keys import forget_container
from strongroom.controlplane.identity.assignments import forget_resource
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import now, stamp
from strongroom.controlplane.workflows.containers import ACCOUNTS, Place, account_of_extension, read_account
from strongroom.controlplane.workflows.readiness import EXTENSIONS
from strongroom.errors import StrongroomError
from strongroom.protection.errors import Refused

CONTAINERS: Final = f"{ACCOUNTS}/blobServices/containers"
CONTAINER: Final = f"{ACCOUNT}/blobServices/default/containers/{{container}}"


def put_container(call: Call) -> Reply:
    """Create a container: 201, or 200 when it is there. A store that refuses or cannot be written safely is told."""
    check_name("containers", call.path["container"])
    with call.db.read() as tx:
        call.require_group(tx)
        account = call.require(tx, call.id.rpartition("/blobServices/")[0])
        place = Place(read_account(tx, account), account.id, call.path["container"])
        old = tx.resources.get(call.id)
    check_preconditions(call, old)
    if old is None:
        try:
            # Outside of any transaction: a store may take its time.
            call.plane.run(call.plane.containers.prove(place))
        except StrongroomError as error:
            raise ArmError(
                400,
                "StorageLocationUnusable",
                f"The container '{place.container}' cannot be used: {error.message}.",
                target="properties.strongroomLocation" if account.private.get("attached") else "",
                actions=(error.hint,) if error.hint else (),
            ) from error
    with call.db.write() as tx:
        account = call.require(tx, account.id)
        old = tx.resources.get(call.id)
        identifier = old.id if old else call.id
        properties: Json = {
            "publicAccess": "None",
            "hasImmutabilityPolicy": False,
            "hasLegalHold": False,
            "lastModifiedTime": stamp(now()),
            **call.body.get("properties", {}),
        }
        document: Json = {
            "id": identifier,
            "name": identifier.rpartition("/")[2],
            "type": CONTAINERS,
            "properties": properties,
        }
        stored = tx.resources.put(Resource(identifier, CONTAINERS, document, account.id))
        return Reply(200 if old else 201, stored.doc)


def get_container(call: Call) -> Reply:
    with call.db.read() as tx:
        call.require_group(tx)
        return Reply(200, call.require(tx, call.id).doc)


def list_containers(call: Call) -> Reply:
    with call.db.read() as tx:
        call.require_group(tx)
        account = call.require(tx, call.id.rpartition("/blobServices/")[0])
        return page_of(
            call, lambda after, limit: tx.resources.children(account.id, CONTAINERS, after=after, limit=limit)
        )


def delete_container(call: Call) -> Reply:
    """Forget a container that no extension uses. Its content stays: recovery points are never deleted in passing."""
    with call.db.write() as tx:
        call.require_group(tx)
        container = tx.resources.get(call.id)
        if container is None:
            return Reply(204)
        check_preconditions(call, container)
        if user := _user_of(tx, container):
            raise ArmError(
                409,
                "ContainerInUse",
                f"The backup extension {user.id} keeps its recovery points in this container.",
                actions=("Delete the extension first.",),
            )
        forget_resource(tx, container.id)
        tx.resources.delete(container.id)
        forget_container(tx.secrets, container.id)
        return Reply(200)


def _user_of(tx: Tx, container: Resource) -> Resource | None:
    for extension in tx.resources.of_type(EXTENSIONS):
        try:
            account, name = account_of_extension(extension)
        except Refused:
            continue
        if f"{account}/blobServices/default/containers/{name}".lower() == container.id.lower():
            return extension
    return None


OPERATIONS = (
    Operation(
        "BlobContainers_Create",
        "PUT",
        CONTAINER,
        f"{CONTAINERS}/write",
        put_container,
        shape(bodies.BlobContainerBody),
        (200, 201),
        optional_body=True,
        waits=True,
    ),
    Operation("BlobContainers_Get", "GET", CONTAINER, f"{CONTAINERS}/read", get_container),
    Operation(
        "BlobContainers_Delete", "DELETE", CONTAINER, f"{CONTAINERS}/delete", delete_container, statuses=(200, 204)
    ),
    Operation(
        "BlobContainers_List",
        "GET",
        f"{ACCOUNT}/blobServices/default/containers",
        f"{CONTAINERS}/read",
        list_containers,
    ),
)
