"""Bodies of subscriptions, tenants, locations and resource providers, as Azure's clients read and send them."""

from typing import Annotated, Required, TypedDict

from strongroom.controlplane.arm.shapes import READ_ONLY


class SubscriptionBody(TypedDict, total=False):
    """A subscription."""

    id: Required[str]
    subscriptionId: Required[str]
    tenantId: str
    displayName: str
    state: str


class TenantBody(TypedDict, total=False):
    """The tenant that all subscriptions belong to."""

    id: Required[str]
    tenantId: Required[str]
    displayName: str


class RegionBody(TypedDict, total=False):
    """A region that resources may name as their location."""

    id: Required[str]
    name: Required[str]
    displayName: str


class SubscriptionAliasProperties(TypedDict, total=False):
    """The subscription that an alias stands for; *billingScope* and *workload* mean nothing here."""

    displayName: str
    subscriptionId: str
    billingScope: str
    workload: str
    provisioningState: Annotated[str, READ_ONLY]


class SubscriptionAliasBody(TypedDict, total=False):
    """A request for a subscription, which may be repeated under the same alias."""

    id: Annotated[str, READ_ONLY]
    name: Annotated[str, READ_ONLY]
    type: Annotated[str, READ_ONLY]
    properties: Required[SubscriptionAliasProperties]


class ProviderBody(TypedDict, total=False):
    """A resource provider and whether the subscription is registered to use it."""

    id: str
    namespace: Required[str]
    registrationState: str


class ResourceTypeBody(TypedDict, total=False):
    """A type of a resource provider: where and in which versions of the API there is one."""

    resourceType: str
    locations: list[str]
    apiVersions: list[str]
    defaultApiVersion: str
    capabilities: str


class GenericResourceBody(TypedDict, total=False):
    """A resource of any type, as lists show it."""

    id: Required[str]
    name: Required[str]
    type: Required[str]
    location: str
    tags: dict[str, str]
