"""Resource groups: create, change, list, and delete them with what they hold."""

from collections.abc import Collection
from typing import Final

from strongroom.controlplane.arm import lro
from strongroom.controlplane.arm.bodies import ResourceGroupBody, ResourceGroupPatch
from strongroom.controlplane.arm.call import Call, Reply, require_subscription
from strongroom.controlplane.arm.dataprotection.common import VAULTS
from strongroom.controlplane.arm.dataprotection.vaults import unbind_vault
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.arm.formats import check_name, check_region
from strongroom.controlplane.arm.odata import Comparison, Condition, Value, parse_filter
from strongroom.controlplane.arm.pages import filtered, page_of
from strongroom.controlplane.arm.resources.subscriptions import require_visible_subscription, visible
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.identity.assignments import forget_resource
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource

GROUPS: Final = "Microsoft.Resources/resourceGroups"
ACTIONS: Final = "Microsoft.Resources/subscriptions/resourceGroups"
SUBSCRIPTION: Final = "/subscriptions/{subscription}"
GROUP: Final = f"{SUBSCRIPTION}/resourceGroups/{{group}}"

# What a group is not deleted with: protection is ended on purpose, one instance at a time; a cluster must be left in
# order; and what lies in a storage account may be somebody's only copy.
_KEPT: Final = (
    ("Microsoft.DataProtection/backupVaults/backupInstances", "backup instances"),
    ("Microsoft.DataProtection/backupVaults/deletedBackupInstances", "soft-deleted backup instances"),
    ("Microsoft.ContainerService/managedClusters", "connected clusters"),
    ("Microsoft.Storage/storageAccounts", "storage accounts"),
)


def put_group(call: Call) -> Reply:
    """Create a resource group, or replace its tags."""
    check_name("resourceGroups", call.path["group"])
    location = check_region(call.body["location"], code="LocationNotAvailableForResourceGroup")
    with call.db.write() as tx:
        require_subscription(tx, call.subscription)
        old = tx.resources.get(call.group_id)
        if old is not None and old.doc["location"] != location:
            raise ArmError(
                409,
                "InvalidResourceGroupLocation",
                f"Invalid resource group location '{location}'. The Resource group already exists in location "
                f"'{old.doc['location']}'.",
                target="location",
            )
        identifier = old.id if old else call.group_id
        document: Json = {
            "id": identifier,
            "name": identifier.rpartition("/")[2],
            "type": GROUPS,
            "location": location,
            **{key: call.body[key] for key in ("tags", "managedBy") if key in call.body},
            "properties": {"provisioningState": "Succeeded"},
        }
        parent = f"/subscriptions/{call.subscription}"
        tx.resources.put(
            Resource(identifier, GROUPS, document, parent),
            if_match=old.etag if old else None,
            if_absent=old is None,
        )
        return Reply(200 if old else 201, document)


def patch_group(call: Call) -> Reply:
    """Replace a group's tags."""
    with call.db.write() as tx:
        old = call.require_group(tx)
        changes: Json = {key: call.body[key] for key in ("tags", "managedBy") if key in call.body}
        stored = tx.resources.put(old.with_doc({**old.doc, **changes}), if_match=old.etag)
        return Reply(200, stored.doc)


def get_group(call: Call) -> Reply:
    """Answer one resource group."""
    with call.db.read() as tx:
        return Reply(200, call.require_group(tx).doc)


def check_group(call: Call) -> Reply:
    """Answer whether a resource group exists: 204 or 404."""
    with call.db.read() as tx:
        require_subscription(tx, call.subscription)
        return Reply(204 if tx.resources.get(call.group_id) else 404)


def list_groups(call: Call) -> Reply:
    """List the resource groups of a subscription in which the caller has any role; `$filter` by a tag."""
    wanted = tag_conditions(parse_filter(call.query.get("$filter", ""), fields=("tagName", "tagValue")))
    with call.db.read() as tx:
        parent = require_visible_subscription(call, tx).id

        def keep(resource: Resource) -> bool:
            return visible(call, resource) and has_tag(resource, wanted)

        return page_of(
            call,
            filtered(lambda after, limit: tx.resources.children(parent, GROUPS, after=after, limit=limit), keep),
        )


def tag_conditions(conditions: Collection[Condition]) -> dict[str, Value]:
    """Return what is asked of `tagname` and `tagvalue` (lower case). Raises 400 unless each is compared by eq, once."""
    found: dict[str, Value] = {}
    for condition in conditions:
        if isinstance(condition, Comparison) and condition.field.lower() in ("tagname", "tagvalue"):
            if condition.operator != "eq" or condition.field.lower() in found:
                raise ArmError(
                    400, "InvalidFilterInQueryString", "Tags are compared by 'eq', once each.", target="$filter"
                )
            found[condition.field.lower()] = condition.value
    return found


def has_tag(resource: Resource, wanted: dict[str, Value]) -> bool:
    """Say whether the resource has a tag such as `tag_conditions` tells."""
    name, value = wanted.get("tagname"), wanted.get("tagvalue")
    return not wanted or any(
        ("tagname" not in wanted or str(name).lower() == key.lower()) and ("tagvalue" not in wanted or value == text)
        for key, text in (resource.doc.get("tags") or {}).items()
    )


def delete_group(call: Call) -> Reply:
    """Delete a resource group, with its vaults, policies and role assignments.

    Refused while it holds what a deletion could not give back: see the 409's message.
    """
    with call.db.write() as tx:
        group = call.require_group(tx)
        _refuse_if_kept(call, tx, group)
        for vault in tx.resources.children(group.id, VAULTS):
            unbind_vault(call, tx, vault)
        forget_resource(tx, group.id)
        tx.resources.delete_tree(group.id)
        operation = lro.done(call, tx, "group", resource=group.id)
        place = f"/subscriptions/{call.subscription}/operationresults/{operation.id}"
        headers = {"Location": call.url(place), "Retry-After": "1"}
        reply = lro.keep(call, tx, Reply(202, None, headers))
    call.plane.authorizer.forget()
    return reply


def _refuse_if_kept(call: Call, tx: Tx, group: Resource) -> None:
    held = []
    for kind, word in _KEPT:
        found = tx.resources.of_type(kind, subscription=call.subscription, resource_group=group.name, limit=3)
        if found:
            held.append(f"{word} ({', '.join(r.name for r in found[:2])}{', …' if len(found) > 2 else ''})")
    if held:
        raise ArmError(
            409,
            "ResourceGroupDeletionBlocked",
            f"Deletion of resource group '{group.name}' failed: it holds {'; '.join(held)}.",
            actions=("Delete these first, each by its own operation.",),
        )


OPERATIONS: Final = (
    Operation(
        "ResourceGroups_CreateOrUpdate",
        "PUT",
        GROUP,
        f"{ACTIONS}/write",
        put_group,
        shape(ResourceGroupBody),
        (200, 201),
    ),
    Operation("ResourceGroups_Update", "PATCH", GROUP, f"{ACTIONS}/write", patch_group, shape(ResourceGroupPatch)),
    Operation("ResourceGroups_Get", "GET", GROUP, f"{ACTIONS}/read", get_group),
    Operation("ResourceGroups_CheckExistence", "HEAD", GROUP, f"{ACTIONS}/read", check_group, statuses=(204, 404)),
    Operation("ResourceGroups_Delete", "DELETE", GROUP, f"{ACTIONS}/delete", delete_group, statuses=(202,)),
    Operation(
        "ResourceGroups_List",
        "GET",
        f"{SUBSCRIPTION}/resourceGroups",
        "",
        list_groups,
        query=("$filter", "$top", "$skipToken"),
    ),
    Operation(
        "ResourceGroups_DeletionResult",
        "GET",
        f"{SUBSCRIPTION}/operationresults/{{operation}}",
        "Microsoft.Resources/subscriptions/operationresults/read",
        lro.get_result,
        statuses=(200, 202),
        polls=True,
    ),
)
