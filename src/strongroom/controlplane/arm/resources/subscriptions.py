"""Subscriptions: the one that the first start makes, further ones by an alias, and what is said of tenant and regions.

A subscription is seen by whoever has a role anywhere in it, as in Azure: `az login` lists them before anything else.
"""

import uuid
from typing import Final

from strongroom.controlplane.arm.call import Call, Reply, listing, require_subscription
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.arm.formats import check_name
from strongroom.controlplane.arm.pages import filtered, page_of
from strongroom.controlplane.arm.resources.bodies import SubscriptionAliasBody
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource

SUBSCRIPTIONS: Final = "Microsoft.Resources/subscriptions"
ALIASES: Final = "Microsoft.Subscription/aliases"
ASSIGN: Final = "Microsoft.Authorization/roleAssignments/write"

# Names of Azure's public regions (az account list-locations), for clients that check what they are given. Strongroom
# runs where it runs: a location is a label that vault and cluster must share.
REGIONS: Final[dict[str, str]] = {
    "local": "Local",
    "australiaeast": "Australia East",
    "australiasoutheast": "Australia Southeast",
    "brazilsouth": "Brazil South",
    "canadacentral": "Canada Central",
    "canadaeast": "Canada East",
    "centralindia": "Central India",
    "centralus": "Central US",
    "eastasia": "East Asia",
    "eastus": "East US",
    "eastus2": "East US 2",
    "francecentral": "France Central",
    "germanywestcentral": "Germany West Central",
    "israelcentral": "Israel Central",
    "italynorth": "Italy North",
    "japaneast": "Japan East",
    "japanwest": "Japan West",
    "koreacentral": "Korea Central",
    "mexicocentral": "Mexico Central",
    "northcentralus": "North Central US",
    "northeurope": "North Europe",
    "norwayeast": "Norway East",
    "polandcentral": "Poland Central",
    "southafricanorth": "South Africa North",
    "southcentralus": "South Central US",
    "southeastasia": "Southeast Asia",
    "southindia": "South India",
    "spaincentral": "Spain Central",
    "swedencentral": "Sweden Central",
    "switzerlandnorth": "Switzerland North",
    "uaenorth": "UAE North",
    "uksouth": "UK South",
    "ukwest": "UK West",
    "westcentralus": "West Central US",
    "westeurope": "West Europe",
    "westus": "West US",
    "westus2": "West US 2",
    "westus3": "West US 3",
}


def subscription(identifier: str, tenant: str, name: str) -> Resource:
    """Return the subscription *identifier* (a GUID) as it is stored."""
    id = f"/subscriptions/{identifier}"
    document: Json = {
        "id": id,
        "subscriptionId": identifier,
        "tenantId": tenant,
        "displayName": name,
        "state": "Enabled",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionPolicies": {"locationPlacementId": "Public_2014-09-01", "quotaId": "", "spendingLimit": "Off"},
    }
    return Resource(id, SUBSCRIPTIONS, document, parent="/")


def visible(call: Call, resource: Resource) -> bool:
    """Say whether the caller may see that a subscription or a resource group exists: by a role in it, or above."""
    return call.plane.authorizer.access().reaches(call.principal.object_id, resource.id)


def require_visible_subscription(call: Call, tx: Tx) -> Resource:
    """Return the subscription of the path. Raises one 404 for what is not there and what the caller may not see."""
    found = require_subscription(tx, call.subscription)
    if not visible(call, found):
        raise ArmError(404, "SubscriptionNotFound", f"The subscription '{call.subscription}' could not be found.")
    return found


def list_subscriptions(call: Call) -> Reply:
    """List the subscriptions in which the caller has any role."""
    with call.db.read() as tx:

        def fetch(after: str, limit: int) -> list[Resource]:
            return tx.resources.of_type(SUBSCRIPTIONS, after=after, limit=limit)

        return page_of(call, filtered(fetch, lambda resource: visible(call, resource)))


def get_subscription(call: Call) -> Reply:
    """Answer one subscription, to whoever has any role in it."""
    with call.db.read() as tx:
        found = tx.resources.get(call.id)
    if found is None or not visible(call, found):
        # Without a role nobody learns whether a subscription exists.
        call.plane.authorizer.demand(call.principal, f"{SUBSCRIPTIONS}/read", call.id)
        raise ArmError(404, "SubscriptionNotFound", f"The subscription '{call.subscription}' could not be found.")
    return Reply(200, found.doc)


def list_tenants(call: Call) -> Reply:
    """Answer the one tenant of this server."""
    tenant = call.plane.tenant
    return listing(
        [
            {
                "id": f"/tenants/{tenant}",
                "tenantId": tenant,
                "displayName": "Strongroom",
                "tenantCategory": "Home",
                "tenantType": "AAD",
                "domains": [],
            }
        ]
    )


def list_locations(call: Call) -> Reply:
    """List the regions that clients know, and `local`."""
    with call.db.read() as tx:
        require_subscription(tx, call.subscription)
    return listing(
        [
            {
                "id": f"/subscriptions/{call.subscription}/locations/{name}",
                "name": name,
                "type": "Region",
                "displayName": shown,
                "regionalDisplayName": shown,
                "metadata": {"regionType": "Physical", "regionCategory": "Recommended"},
            }
            for name, shown in REGIONS.items()
        ]
    )


def put_alias(call: Call) -> Reply:
    """Create a subscription, or give an existing one a further name.

    As Azure's, with one addition: `properties.subscriptionId` may be a GUID that no subscription has yet, and then
    becomes the new one's. Only who may give roles at the root may create one: he is its owner by inheritance.
    """
    call.plane.authorizer.demand(call.principal, ASSIGN, "/")
    check_name("aliases", call.path["alias"])
    asked = call.body["properties"]
    with call.db.write() as tx:
        old = tx.resources.get(call.id)
        if old is not None:
            return Reply(200, old.doc)
        identifier = _guid(asked.get("subscriptionId") or str(uuid.uuid4()))
        name = asked.get("displayName") or call.path["alias"]
        if tx.resources.get(f"/subscriptions/{identifier}") is None:
            tx.resources.put(subscription(identifier, call.plane.tenant, name), if_absent=True)
            tx.audit.add(
                "subscription created",
                principal=call.principal.object_id,
                action=call.operation.action,
                scope=f"/subscriptions/{identifier}",
                outcome="succeeded",
            )
        document: Json = {
            "id": call.id,
            "name": call.path["alias"],
            "type": ALIASES,
            "properties": {"subscriptionId": identifier, "provisioningState": "Succeeded", "displayName": name},
        }
        tx.resources.put(Resource(call.id, ALIASES, document, parent="/"), if_absent=True)
        return Reply(201, document)


def get_alias(call: Call) -> Reply:
    """Answer which subscription an alias stands for."""
    with call.db.read() as tx:
        return Reply(200, call.require(tx, call.id).doc)


def _guid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise ArmError(
            400,
            "InvalidSubscriptionId",
            f"properties.subscriptionId is {text[:60]!a}; accepted is a GUID.",
            target="properties.subscriptionId",
        ) from error


OPERATIONS: Final = (
    Operation("Subscriptions_List", "GET", "/subscriptions", "", list_subscriptions),
    Operation("Subscriptions_Get", "GET", "/subscriptions/{subscription}", "", get_subscription),
    Operation(
        "Subscriptions_ListLocations",
        "GET",
        "/subscriptions/{subscription}/locations",
        f"{SUBSCRIPTIONS}/locations/read",
        list_locations,
    ),
    Operation("Tenants_List", "GET", "/tenants", "", list_tenants),
    Operation(
        "Alias_Create",
        "PUT",
        f"/providers/{ALIASES}/{{alias}}",
        f"{ALIASES}/write",
        put_alias,
        shape(SubscriptionAliasBody),
        (200, 201),
    ),
    Operation("Alias_Get", "GET", f"/providers/{ALIASES}/{{alias}}", f"{ALIASES}/read", get_alias),
)
