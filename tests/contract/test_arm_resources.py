"""Subscriptions, groups, resources and providers, by the official clients."""

import uuid

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.mgmt.dataprotection import DataProtectionMgmtClient
from azure.mgmt.resource.resources import ResourceManagementClient
from azure.mgmt.resource.subscriptions import SubscriptionClient

from ..serving import RunningServer

BACKUP_PROVIDERS = ("Microsoft.DataProtection", "Microsoft.ContainerService", "Microsoft.KubernetesConfiguration")


def fresh(stem: str) -> str:
    return f"{stem}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def resources(server: RunningServer) -> ResourceManagementClient:
    return server.client(ResourceManagementClient)


@pytest.fixture
def group(resources: ResourceManagementClient) -> str:
    name = fresh("rg")
    resources.resource_groups.create_or_update(name, {"location": "West US", "tags": {"team": name}})
    return name


def new_subscription(server: RunningServer, identifier: str = "") -> str:
    """Make a subscription by an alias: no official client that is installed has the operation."""
    properties = {"displayName": "another", "workload": "Production", "subscriptionId": identifier or None}
    path = f"/providers/Microsoft.Subscription/aliases/{fresh('alias')}?api-version=2021-10-01"
    status, body = server.request("PUT", path, {"properties": properties})
    assert status == 201, body
    assert server.request("PUT", path, {"properties": {}}) == (200, body)
    return str(body["properties"]["subscriptionId"])


def test_the_subscription_of_the_first_start_is_listed_with_its_tenant_and_regions(server: RunningServer) -> None:
    client = server.client(SubscriptionClient, subscription="")
    [found] = [s for s in client.subscriptions.list() if s.subscription_id == server.subscription]
    assert (found.state, found.tenant_id) == ("Enabled", server.ready["tenantId"])
    assert client.subscriptions.get(server.subscription).display_name == "Strongroom"
    assert [t.tenant_id for t in client.tenants.list()] == [server.ready["tenantId"]]
    assert {"local", "westeurope"} <= {
        region.name for region in client.subscriptions.list_locations(server.subscription)
    }


def test_a_second_subscription_is_made_by_an_alias_and_may_have_a_chosen_id(server: RunningServer) -> None:
    chosen = str(uuid.uuid4())
    assert new_subscription(server, chosen) == chosen
    made = new_subscription(server)
    listed = {s.subscription_id for s in server.client(SubscriptionClient, subscription="").subscriptions.list()}
    assert {chosen, made, server.subscription} <= listed


def test_a_subscription_that_is_not_there_is_not_found(server: RunningServer) -> None:
    client = server.client(SubscriptionClient, subscription="")
    with pytest.raises(ResourceNotFoundError) as refused:
        client.subscriptions.get(str(uuid.uuid4()))
    assert refused.value.error.code == "SubscriptionNotFound"


def test_a_group_is_created_read_changed_and_found_by_its_tag(resources: ResourceManagementClient) -> None:
    name = fresh("rg")
    assert resources.resource_groups.check_existence(name) is False
    made = resources.resource_groups.create_or_update(name, {"location": "West US", "tags": {"team": name}})
    assert (made.location, made.properties.provisioning_state) == ("westus", "Succeeded")
    assert made.id.endswith(f"/resourceGroups/{name}")
    assert resources.resource_groups.check_existence(name) is True
    found = list(resources.resource_groups.list(filter=f"tagName eq 'team' and tagValue eq '{name}'"))
    assert [g.name for g in found] == [name]
    assert resources.resource_groups.update(name, {"tags": {"a": "b"}}).tags == {"a": "b"}
    assert resources.resource_groups.get(name.upper()).name == name


def test_a_group_stays_where_it_was_created(resources: ResourceManagementClient, group: str) -> None:
    with pytest.raises(ResourceExistsError) as refused:
        resources.resource_groups.create_or_update(group, {"location": "eastus"})
    assert refused.value.error.code == "InvalidResourceGroupLocation"


def test_deleting_a_group_takes_its_empty_vaults_along(server: RunningServer, resources, group: str) -> None:
    resources.providers.register("Microsoft.DataProtection")
    vaults = server.client(DataProtectionMgmtClient).backup_vaults
    vaults.begin_create_or_update(
        group,
        "vault",
        {
            "location": "westus",
            "identity": {"type": "SystemAssigned"},
            "properties": {"storageSettings": [{"datastoreType": "VaultStore", "type": "LocallyRedundant"}]},
        },
    ).result()
    listed = list(resources.resources.list_by_resource_group(group, expand="createdTime"))
    assert [(r.name, r.type) for r in listed] == [("vault", "Microsoft.DataProtection/backupVaults")]
    assert listed[0].created_time is not None
    resources.resource_groups.begin_delete(group).result()
    assert resources.resource_groups.check_existence(group) is False
    with pytest.raises(ResourceNotFoundError):
        vaults.get(group, "vault")


def test_resources_are_listed_by_type_group_and_name(server: RunningServer, resources, group: str) -> None:
    resources.providers.register("Microsoft.DataProtection")
    vaults = server.client(DataProtectionMgmtClient).backup_vaults
    for name in ("one", "two"):
        body = {
            "location": "westus",
            "properties": {"storageSettings": [{"datastoreType": "VaultStore", "type": "LocallyRedundant"}]},
        }
        vaults.begin_create_or_update(group, name, body).result()
    kind = "Microsoft.DataProtection/backupVaults"
    both = resources.resources.list(filter=f"resourceType eq '{kind}' and resourceGroup eq '{group}'")
    assert [r.name for r in both] == ["one", "two"]
    assert [r.name for r in resources.resources.list_by_resource_group(group, filter="name eq 'TWO'")] == ["two"]
    paged = resources.resources.list_by_resource_group(group, top=1).by_page()
    assert [[r.name for r in page] for page in paged] == [["one"], ["two"]]
    with pytest.raises(HttpResponseError) as refused:
        list(resources.resources.list(filter="plan/name eq 'x'"))
    assert refused.value.error.code == "InvalidFilterInQueryString"


def test_the_three_backup_providers_are_registered_by_users_and_all_others_are_registered(
    server: RunningServer,
) -> None:
    providers = server.client(ResourceManagementClient, subscription=new_subscription(server)).providers
    states = {p.namespace: p.registration_state for p in providers.list()}
    assert {n for n, state in states.items() if state == "NotRegistered"} == set(BACKUP_PROVIDERS)
    assert states["Microsoft.Storage"] == "Registered"
    for namespace in BACKUP_PROVIDERS:
        assert providers.register(namespace).registration_state == "Registered"
        assert providers.get(namespace).registration_state == "Registered"
    assert providers.unregister(BACKUP_PROVIDERS[0]).registration_state == "Unregistered"


def test_a_provider_says_its_types_regions_and_versions(resources: ResourceManagementClient) -> None:
    provider = resources.providers.get("microsoft.dataprotection")
    [vaults] = [t for t in provider.resource_types if t.resource_type == "backupVaults"]
    assert "West US" in vaults.locations
    assert vaults.api_versions[0] == "2026-06-01"
    with pytest.raises(ResourceNotFoundError) as refused:
        resources.providers.get("Microsoft.Nothing")
    assert refused.value.error.code == "InvalidResourceNamespace"


def test_a_provider_is_not_unregistered_while_it_has_resources(server: RunningServer, resources, group: str) -> None:
    resources.providers.register("Microsoft.DataProtection")
    body = {
        "location": "westus",
        "properties": {"storageSettings": [{"datastoreType": "VaultStore", "type": "LocallyRedundant"}]},
    }
    server.client(DataProtectionMgmtClient).backup_vaults.begin_create_or_update(group, "vault", body).result()
    with pytest.raises(ResourceExistsError):
        resources.providers.unregister("Microsoft.DataProtection")


@pytest.mark.parametrize("text", ["startswith(location, 'x')", "tagName ne 'a'", "tagName eq 'a' and tagName eq 'b'"])
def test_a_filter_that_a_list_cannot_check_is_refused_even_for_an_empty_list(resources, group: str, text: str) -> None:
    with pytest.raises(HttpResponseError) as refused:
        list(resources.resources.list_by_resource_group(group, filter=text))
    assert refused.value.error.code == "InvalidFilterInQueryString"


def test_a_location_is_a_name(resources: ResourceManagementClient) -> None:
    with pytest.raises(HttpResponseError) as refused:
        resources.resource_groups.create_or_update(fresh("rg"), {"location": "/etc"})
    assert refused.value.error.code == "LocationNotAvailableForResourceGroup"
