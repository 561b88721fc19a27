"""Storage accounts: *local* ones lie in the home folder, attached ones where their `strongroomLocation` says.

The location and its credentials are write-only: checked, sealed, and never in an answer.
"""

import base64
import json
import secrets
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from strongroom.controlplane.arm import bodies
from strongroom.controlplane.arm.call import Call, Reply, require_subscription
from strongroom.controlplane.arm.errors import ArmError, Json, not_supported
from strongroom.controlplane.arm.formats import check_name, check_region
from strongroom.controlplane.arm.pages import page_of
from strongroom.controlplane.arm.preconditions import check_preconditions
from strongroom.controlplane.arm.providers import require_registered
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.catalog.errors import AttachmentRefused
from strongroom.controlplane.catalog.stores import StorageAccount
from strongroom.controlplane.identity.assignments import forget_resource
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import now, stamp
from strongroom.controlplane.workflows.containers import ACCOUNTS, SEALED
from strongroom.protection.errors import Refused

NAMESPACE: Final = "Microsoft.Storage"
SUBSCRIPTION: Final = f"/subscriptions/{{subscription}}/providers/{NAMESPACE}"
GROUP: Final = f"/subscriptions/{{subscription}}/resourceGroups/{{group}}/providers/{NAMESPACE}"
ACCOUNT: Final = f"{GROUP}/storageAccounts/{{account}}"
KEYS: Final = "storage-keys/"  # the sealed keys of a local account, by its ARM id
LEFT: Final = "storage-left/"  # the ARM id of the local account that had a name, by the name: its folder is still there
KEY_BYTES: Final = 64  # as long as Azure's
# Repositories are encrypted with keys that the service holds. `az storage account update` fails without this.
ENCRYPTION: Final[Json] = {
    "keySource": "Microsoft.Storage",
    "services": {"blob": {"enabled": True, "keyType": "Account"}},
    "requireInfrastructureEncryption": False,
}


def put_account(call: Call) -> Reply:
    """Create an account or change it. Always 200: clients refuse a 201 here (azure-clients.md, A.3)."""
    check_name("storageAccounts", call.path["account"])
    location = (call.body.get("properties") or {}).get("strongroomLocation")
    attached = _attachment(call, location) if location else None
    with call.db.write() as tx:
        call.require_group(tx)
        require_registered(tx, call.subscription, NAMESPACE)
        old = tx.resources.get(call.id)
        check_preconditions(call, old)
        _refuse_taken(call, tx, old)
        if old is not None and attached is not None:
            _refuse_move(tx, old, attached)
        stored = tx.resources.put(_account(call, call.body, old, attached))
        if attached is not None:
            kept = json.dumps({"url": attached.url, "credentials": dict(attached.credentials)})
            tx.secrets.put(SEALED + stored.id.lower(), kept.encode())
        return Reply(200, stored.doc)


def patch_account(call: Call) -> Reply:
    """Change tags, redundancy's name, or the credentials of an attached account."""
    location = (call.body.get("properties") or {}).get("strongroomLocation")
    attached = _attachment(call, location) if location else None
    with call.db.write() as tx:
        call.require_group(tx)
        old = call.require(tx, call.id)
        check_preconditions(call, old)
        if attached is not None:
            _refuse_move(tx, old, attached)
            kept = json.dumps({"url": attached.url, "credentials": dict(attached.credentials)})
            tx.secrets.put(SEALED + old.id.lower(), kept.encode())
        body = {"location": old.doc["location"], "kind": old.doc["kind"], "sku": old.doc["sku"], **call.body}
        body.setdefault("tags", old.doc.get("tags", {}))
        return Reply(200, tx.resources.put(_account(call, body, old, attached)).doc)


def _attachment(call: Call, location: Json) -> StorageAccount:
    """Return the attached account that a body describes. Raises `ArmError` naming the field, never its credentials."""
    try:
        account = call.plane.containers.validate(location["url"], location.get("credentials") or {})
    except AttachmentRefused as error:
        raise ArmError(
            400,
            "StrongroomLocationRefused",
            error.message,
            target=f"properties.strongroomLocation.{error.field}",
            actions=(error.hint,) if error.hint else (),
        ) from error
    return replace(account, name=call.path["account"])


def _refuse_move(tx: Tx, old: Resource, attached: StorageAccount) -> None:
    """An account with containers does not move: its recovery points would seem gone."""
    sealed = tx.secrets.get(SEALED + old.id.lower())
    before = json.loads(sealed)["url"] if sealed else ""
    if before != attached.url and tx.resources.count(old.id, f"{ACCOUNTS}/blobServices/containers"):
        raise ArmError(
            409,
            "StorageAccountInUse",
            f"The storage account '{old.name}' has containers, so its location cannot change.",
            target="properties.strongroomLocation.url",
            actions=("Attach the other location under another name.",),
        )


def _refuse_taken(call: Call, tx: Tx, old: Resource | None) -> None:
    """Names of accounts are unique in the whole service: they are folders of the home."""
    if old is not None:
        return
    name = call.path["account"]
    left = tx.secrets.get(LEFT + name)
    if any(a.name.lower() == name for a in tx.resources.of_type(ACCOUNTS)):
        raise ArmError(409, "StorageAccountAlreadyTaken", f"The storage account named {name} is already taken.")
    if left is not None and left.decode() != call.id.lower():
        # What the deleted one held still lies there, and is not for whoever takes the name next.
        raise ArmError(
            409,
            "StorageAccountAlreadyTaken",
            f"A storage account named {name} was deleted, and what it held is kept: the name is still taken.",
            actions=("Choose another name, or create it again in its own subscription and resource group.",),
        )


def _account(call: Call, body: Json, old: Resource | None, attached: StorageAccount | None) -> Resource:
    identifier = old.id if old else call.id
    location = check_region(body["location"])
    if old is not None and old.doc["location"] != location:
        message = (
            f"The resource '{old.name}' exists in location '{old.doc['location']}' and cannot move to '{location}'."
        )
        raise ArmError(409, "InvalidResourceLocation", message, target="location")
    private = dict(old.private) if old else {}
    if attached is not None:
        private["attached"] = True
    sent = {k: v for k, v in (body.get("properties") or {}).items() if k != "strongroomLocation"}
    endpoint = _endpoint(call, call.path["account"], attached, old)
    properties = {
        "allowBlobPublicAccess": False,
        "allowSharedKeyAccess": True,
        "supportsHttpsTrafficOnly": True,
        "minimumTlsVersion": "TLS1_2",
        **(old.properties if old else {"creationTime": stamp(now())}),
        **sent,
        "provisioningState": "Succeeded",
        "primaryLocation": location,
        "primaryEndpoints": {"blob": endpoint},
        "statusOfPrimary": "available",
        "encryption": ENCRYPTION,
    }
    document: Json = {
        "id": identifier,
        "name": identifier.rpartition("/")[2],
        "type": ACCOUNTS,
        "location": location,
        "kind": body["kind"],
        "sku": {"name": body["sku"]["name"], "tier": "Standard"},
        "properties": properties,
        "tags": body.get("tags", {}),
    }
    return Resource(identifier, ACCOUNTS, document, call.group_id, private, created=old.created if old else "")


def _endpoint(call: Call, name: str, attached: StorageAccount | None, old: Resource | None) -> str:
    """Return the address that clients are told: informative, as the backup extension gets its own."""
    if attached is None and old is not None:
        return str(old.properties["primaryEndpoints"]["blob"])
    if attached is None:
        return f"{call.plane.endpoint}/storage/{name}/"
    parts = urlsplit(attached.url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}/" if parts.scheme != "file" else f"file:///{name}/"


def get_account(call: Call) -> Reply:
    with call.db.read() as tx:
        call.require_group(tx)
        return Reply(200, call.require(tx, call.id).doc)


def list_in_group(call: Call) -> Reply:
    with call.db.read() as tx:
        group = call.require_group(tx)
        return page_of(call, lambda after, limit: tx.resources.children(group.id, ACCOUNTS, after=after, limit=limit))


def list_in_subscription(call: Call) -> Reply:
    with call.db.read() as tx:
        require_subscription(tx, call.subscription)

        def fetch(after: str, limit: int) -> list[Resource]:
            return tx.resources.of_type(ACCOUNTS, subscription=call.subscription, after=after, limit=limit)

        return page_of(call, fetch)


def delete_account(call: Call) -> Reply:
    """Forget an account without containers. What lies in it is not touched."""
    with call.db.write() as tx:
        call.require_group(tx)
        account = tx.resources.get(call.id)
        if account is None:
            return Reply(204)
        check_preconditions(call, account)
        if count := tx.resources.count(account.id, f"{ACCOUNTS}/blobServices/containers"):
            raise ArmError(
                409,
                "StorageAccountInUse",
                f"The storage account '{account.name}' has {count} containers.",
                actions=("Delete its containers first; their content stays where it lies.",),
            )
        forget_resource(tx, account.id)
        tx.resources.delete_tree(account.id)
        if not account.private.get("attached"):
            tx.secrets.put(LEFT + account.name.lower(), account.id.lower().encode())
        tx.secrets.delete(SEALED + account.id.lower())
        tx.secrets.delete(KEYS + account.id.lower())
        return Reply(200)


def list_keys(call: Call) -> Reply:
    """Answer the keys of a local account. Those of an attached one were never ours to hand out."""
    with call.db.write() as tx:
        call.require_group(tx)
        account = call.require(tx, call.id.rpartition("/")[0])
        if account.private.get("attached"):
            raise not_supported("listing the keys of an attached account: its credentials are write-only")
        sealed = tx.secrets.get(KEYS + account.id.lower())
        keys = (
            json.loads(sealed) if sealed else [base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode() for _ in "12"]
        )
        if sealed is None:
            tx.secrets.put(KEYS + account.id.lower(), json.dumps(keys).encode())
    values = [
        {"keyName": f"key{n}", "value": key, "permissions": "FULL", "creationTime": account.created}
        for n, key in enumerate(keys, 1)
    ]
    return Reply(200, {"keys": values})


def check_name_availability(call: Call) -> Reply:
    name = str(call.body.get("name", ""))
    if not name:
        return Reply(200, {"nameAvailable": True})
    try:
        check_name("storageAccounts", name)
    except Refused as error:
        return Reply(200, {"nameAvailable": False, "reason": "AccountNameInvalid", "message": error.message})
    with call.db.read() as tx:
        require_subscription(tx, call.subscription)
        taken = any(a.name.lower() == name for a in tx.resources.of_type(ACCOUNTS))
    if taken:
        message = f"The storage account named {name} is already taken."
        return Reply(200, {"nameAvailable": False, "reason": "AlreadyExists", "message": message})
    return Reply(200, {"nameAvailable": True})


OPERATIONS = (
    Operation(
        "StorageAccounts_Create", "PUT", ACCOUNT, f"{ACCOUNTS}/write", put_account, shape(bodies.StorageAccountBody)
    ),
    Operation(
        "StorageAccounts_Update",
        "PATCH",
        ACCOUNT,
        f"{ACCOUNTS}/write",
        patch_account,
        shape(bodies.StorageAccountPatch),
    ),
    Operation("StorageAccounts_GetProperties", "GET", ACCOUNT, f"{ACCOUNTS}/read", get_account),
    Operation("StorageAccounts_Delete", "DELETE", ACCOUNT, f"{ACCOUNTS}/delete", delete_account, statuses=(200, 204)),
    Operation(
        "StorageAccounts_ListByResourceGroup", "GET", f"{GROUP}/storageAccounts", f"{ACCOUNTS}/read", list_in_group
    ),
    Operation(
        "StorageAccounts_List", "GET", f"{SUBSCRIPTION}/storageAccounts", f"{ACCOUNTS}/read", list_in_subscription
    ),
    Operation(
        "StorageAccounts_ListKeys",
        "POST",
        f"{ACCOUNT}/listKeys",
        f"{ACCOUNTS}/listKeys/action",
        list_keys,
        safe=True,
    ),
    Operation(
        "StorageAccounts_CheckNameAvailability",
        "POST",
        f"{SUBSCRIPTION}/checkNameAvailability",
        f"{NAMESPACE}/checkNameAvailability/read",
        check_name_availability,
        shape(bodies.StorageNameCheck),
        optional_body=True,
        safe=True,
    ),
)
