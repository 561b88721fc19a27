"""All operations of subscriptions, resource groups, lists of resources, and resource providers."""

from typing import Final

from strongroom.controlplane.arm.resources import groups, inventory, registration, subscriptions

OPERATIONS: Final = (
    *subscriptions.OPERATIONS,
    *groups.OPERATIONS,
    *inventory.OPERATIONS,
    *registration.OPERATIONS,
)
