"""Lists of resources of all types, in a subscription or in one resource group: what `az resource list` shows."""

from collections.abc import Callable
from typing import Final

from strongroom.controlplane.arm.call import Call, Reply
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.arm.odata import Function, Value, matches, parse_filter
from strongroom.controlplane.arm.pages import filtered, page_of
from strongroom.controlplane.arm.resources.groups import GROUP, SUBSCRIPTION, has_tag, tag_conditions
from strongroom.controlplane.arm.resources.subscriptions import require_visible_subscription, visible
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.state.resources import Resource

# Resources that stand in a group by themselves; what lies below them is listed by their own operations.
TOP_LEVEL: Final = (
    "Microsoft.ContainerService/managedClusters",
    "Microsoft.DataProtection/backupVaults",
    "Microsoft.Storage/storageAccounts",
)
_FIELDS: Final = ("resourceType", "resourceGroup", "name", "location", "tagName", "tagValue")
_SHOWN: Final = ("id", "name", "type", "location", "kind", "sku", "managedBy", "identity", "plan", "tags")


def list_in_subscription(call: Call) -> Reply:
    """List the resources of a subscription that the caller may read."""
    with call.db.read() as tx:
        require_visible_subscription(call, tx)

        def fetch(after: str, limit: int) -> list[Resource]:
            return tx.resources.within(call.subscription, types=TOP_LEVEL, after=after, limit=limit)

        return _page(call, fetch)


def list_in_group(call: Call) -> Reply:
    """List the resources of a resource group that the caller may read."""
    with call.db.read() as tx:
        require_visible_subscription(call, tx)
        group = call.require_group(tx)
        if not visible(call, group):
            raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{call.path['group']}' could not be found.")

        def fetch(after: str, limit: int) -> list[Resource]:
            return tx.resources.within(
                call.subscription, resource_group=group.name, types=TOP_LEVEL, after=after, limit=limit
            )

        return _page(call, fetch)


def _page(call: Call, fetch: Callable[[str, int], list[Resource]]) -> Reply:
    conditions = parse_filter(call.query.get("$filter", ""), fields=_FIELDS, functions=("startswith", "substringof"))
    compared = tuple(c for c in conditions if not isinstance(c, Function) and not c.field.lower().startswith("tag"))
    names = [_named(c) for c in conditions if isinstance(c, Function)]
    tags = tag_conditions(conditions)
    expand = {word.strip().lower() for word in call.query.get("$expand", "").split(",")}
    access, who = call.plane.authorizer.access(), call.principal.object_id

    def keep(resource: Resource) -> bool:
        return (
            matches(compared, lambda field: _value(resource, field))
            and all(named(resource.name.lower()) for named in names)
            and has_tag(resource, tags)
            and access.allowed(who, f"{resource.type}/read", resource.id)
        )

    return page_of(call, filtered(fetch, keep), lambda resource: _shown(resource, expand))


def _value(resource: Resource, field: str) -> Value:
    match field:
        case "resourcetype":
            return resource.type
        case "resourcegroup":
            return resource.id.split("/")[4]
        case "name":
            return resource.name
        case _:
            return str(resource.doc.get("location", ""))


def _named(condition: Function) -> Callable[[str], bool]:
    """Return the test of a name (lower case) that `startswith(name, 'x')` or `substringof('x', name)` is."""
    texts = [argument for argument in condition.arguments if isinstance(argument, str)]
    names = [argument.text.lower() for argument in condition.arguments if not isinstance(argument, str)]
    if names != ["name"] or len(texts) != 1:
        raise ArmError(
            400, "InvalidFilterInQueryString", f"{condition.name} takes 'name' and one text.", target="$filter"
        )
    text = texts[0].lower()
    starts = condition.name.lower() == "startswith"
    return lambda name: name.startswith(text) if starts else text in name


def _shown(resource: Resource, expand: set[str]) -> Json:
    shown: Json = {key: resource.doc[key] for key in _SHOWN if resource.doc.get(key) is not None}
    extra = {
        "createdtime": ("createdTime", resource.created),
        "changedtime": ("changedTime", resource.modified),
        "provisioningstate": ("provisioningState", resource.properties.get("provisioningState", "Succeeded")),
    }
    return shown | {name: value for key, (name, value) in extra.items() if key in expand}


_QUERY: Final = ("$filter", "$expand", "$top", "$skipToken")
OPERATIONS: Final = (
    Operation("Resources_List", "GET", f"{SUBSCRIPTION}/resources", "", list_in_subscription, query=_QUERY),
    Operation("Resources_ListByResourceGroup", "GET", f"{GROUP}/resources", "", list_in_group, query=_QUERY),
)
