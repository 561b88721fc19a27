"""The directory beside ARM: resolving principals as az does, and making a caller with a small role."""

import uuid
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient
from azure.mgmt.resource.subscriptions import SubscriptionClient

from ..serving import RunningServer

READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
OWNER = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"


@pytest.fixture
def group(server: RunningServer) -> Any:
    name = f"rg-{uuid.uuid4().hex[:8]}"
    return server.client(ResourceManagementClient).resource_groups.create_or_update(name, {"location": "westus"})


def test_a_caller_with_a_small_role_sees_and_does_what_the_role_says(server: RunningServer, group: Any) -> None:
    _, credential = server.caller(READER, group.id)
    resources = server.client(ResourceManagementClient, credential=credential)
    assert [g.name for g in resources.resource_groups.list()] == [group.name]
    subscriptions = server.client(SubscriptionClient, subscription="", credential=credential).subscriptions
    assert [s.subscription_id for s in subscriptions.list()] == [server.subscription]
    with pytest.raises(HttpResponseError) as refused:
        resources.resource_groups.update(group.name, {"tags": {}})
    assert refused.value.error.code == "AuthorizationFailed"


def test_a_removed_role_counts_from_the_next_request_on(server: RunningServer, group: Any) -> None:
    application, credential = server.caller(READER, group.id)
    resources = server.client(ResourceManagementClient, credential=credential)
    assert resources.resource_groups.get(group.name).id == group.id
    assignments = server.client(AuthorizationManagementClient).role_assignments
    for one in assignments.list_for_scope(group.id, filter=f"principalId eq '{application['id']}'"):
        assignments.delete_by_id(one.id)
    with pytest.raises(HttpResponseError) as refused:
        resources.resource_groups.get(group.name)
    assert refused.value.status_code == 403
    with pytest.raises(ResourceNotFoundError):
        list(resources.resource_groups.list())  # who has no role is not told that the subscription is there


def test_who_is_no_owner_of_the_root_changes_nothing_in_the_directory(server: RunningServer, group: Any) -> None:
    application, credential = server.caller(OWNER, group.id)
    for method, path, body in (
        ("POST", "/v1.0/applications", {"displayName": "x"}),
        ("POST", "/v1.0/servicePrincipals", {"appId": application["appId"]}),
        ("POST", f"/v1.0/applications/{application['id']}/addPassword", {}),
        ("DELETE", f"/v1.0/applications/{application['id']}", None),
    ):
        status, answer = server.request(method, path, body, credential=credential)
        assert (status, answer["error"]["code"]) == (403, "AuthorizationFailed"), path
    alias = f"/providers/Microsoft.Subscription/aliases/{uuid.uuid4().hex}?api-version=2021-10-01"
    assert server.request("PUT", alias, {"properties": {}}, credential=credential)[0] == 403


def test_principals_are_resolved_as_az_asks_for_them(server: RunningServer) -> None:
    application, _ = server.caller(READER)
    query = f"?$filter=servicePrincipalNames/any(c:c%20eq%20'{application['appId']}')"
    assert [p["id"] for p in server.request("GET", f"/v1.0/servicePrincipals{query}")[1]["value"]] == [
        application["id"]
    ]
    ids = {"ids": [application["id"]], "types": ["user", "group", "servicePrincipal"]}
    status, found = server.request("POST", "/v1.0/directoryObjects/getByIds", ids)
    assert (status, found["value"][0]["displayName"]) == (200, application["displayName"])
    assert server.request("GET", f"/v1.0/servicePrincipals/{application['id']}")[1]["appId"] == application["appId"]
    by_app = f"/v1.0/servicePrincipals(appId='{application['appId']}')"
    assert server.request("GET", by_app)[1]["id"] == application["id"]
    assert server.request("GET", f"/v1.0/applications/{application['id']}")[1]["appId"] == application["appId"]
    named = f"?$filter=startswith(displayName,'{application['displayName']}')"
    assert len(server.request("GET", f"/v1.0/applications{named}")[1]["value"]) == 1


def test_a_removed_application_signs_in_no_more(server: RunningServer) -> None:
    application, credential = server.caller(READER)
    assert server.token(credential)
    assert server.request("DELETE", f"/v1.0/applications/{application['id']}")[0] == 204
    assert server.request("GET", f"/v1.0/applications/{application['id']}")[0] == 404
    status, answer = server.request("GET", f"/v1.0/servicePrincipals/{application['id']}")
    assert (status, answer["error"]["code"]) == (404, "Request_ResourceNotFound")
    fresh = server.sign_in(application["appId"], "whatever")
    with pytest.raises(ClientAuthenticationError):
        server.token(fresh)


def test_a_token_of_a_removed_application_allows_nothing(server: RunningServer, group: Any) -> None:
    application, credential = server.caller(READER, group.id)
    path = f"{group.id}?api-version=2024-11-01"
    assert server.request("GET", path, credential=credential)[0] == 200
    assert server.request("DELETE", f"/v1.0/servicePrincipals/{application['id']}")[0] == 204
    assert server.request("GET", path, credential=credential)[0] == 403


def test_the_last_owner_at_the_root_cannot_be_removed_with_his_application(server: RunningServer) -> None:
    query = f"?$filter=appId%20eq%20'{server.ready['clientId']}'"
    [own] = server.request("GET", f"/v1.0/applications{query}")[1]["value"]
    status, answer = server.request("DELETE", f"/v1.0/applications/{own['id']}")
    assert (status, answer["error"]["code"]) == (409, "LastOwnerAssignment")
    assert server.token()


def test_a_secret_ends_when_it_was_asked_to(server: RunningServer) -> None:
    application, _ = server.caller(READER)
    path = f"/v1.0/applications/{application['id']}/addPassword"
    wish = {"passwordCredential": {"displayName": "short", "endDateTime": "2999-01-01T00:00:00Z"}}
    status, secret = server.request("POST", path, wish)
    assert (status, secret["endDateTime"]) == (200, "2999-01-01T00:00:00Z")
    wish["passwordCredential"]["endDateTime"] = "2001-01-01T00:00:00Z"
    assert server.request("POST", path, wish)[0] == 400
    shown = server.request("GET", f"/v1.0/applications/{application['id']}")[1]
    assert all(one["secretText"] is None for one in shown["passwordCredentials"])


def test_a_removed_secret_signs_nobody_in_while_the_others_do(server: RunningServer) -> None:
    application, credential = server.caller(READER)
    path = f"/v1.0/applications/{application['id']}"
    second = server.request("POST", f"{path}/addPassword", {})[1]
    [first] = [
        secret for secret in server.request("GET", path)[1]["passwordCredentials"] if secret["keyId"] != second["keyId"]
    ]
    removal = {"keyId": first["keyId"].upper()}
    assert server.request("POST", f"{path}/removePassword", removal)[0] == 204
    assert server.request("POST", f"{path}/removePassword", removal)[0] == 400, "it is gone"
    with pytest.raises(ClientAuthenticationError):
        server.token(credential)
    assert server.token(server.sign_in(application["appId"], second["secretText"]))


def test_the_last_secret_of_the_last_owner_cannot_be_removed(server: RunningServer) -> None:
    query = f"?$filter=appId%20eq%20'{server.ready['clientId']}'"
    [own] = server.request("GET", f"/v1.0/applications{query}")[1]["value"]
    [secret] = own["passwordCredentials"]
    removal = {"keyId": secret["keyId"]}
    status, answer = server.request("POST", f"/v1.0/applications/{own['id']}/removePassword", removal)
    assert (status, answer["error"]["code"]) == (409, "LastOwnerAssignment")
    # A credential that has no token yet has to sign in with the secret.
    assert server.token(server.sign_in(server.ready["clientId"], server.ready["clientSecret"]))
