"""The slice of Graph: what az asks before it makes a role assignment."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.controlplane.identity.graph import MAX_IDS, Directory, answer
from strongroom.controlplane.identity.principals import (
    MemoryPrincipals,
    add_secret,
    managed_identity,
    new_service_principal,
)

TENANT = "6f1f7ad1-3f5e-4a3b-9c52-0b1d2f6a7c11"
NOW = datetime(2026, 11, 23, 16, 30, tzinfo=UTC)
VAULT_ID = "/subscriptions/S/resourceGroups/RG/providers/Microsoft.DataProtection/backupVaults/v1"
# Given ids: they stand in the names of tests, which every worker of a run must collect alike.
APP_ID, OBJECT_ID = "528c449d-9390-4cf8-b038-fda6cca34c33", "6d695a61-286d-4f39-998a-60492d1ffa10"
SCRIPT, SECRET = add_secret(
    new_service_principal("Tom's script", now=NOW, app_id=APP_ID, object_id=OBJECT_ID),
    now=NOW,
    lifetime=timedelta(days=1),
)
VAULT = managed_identity(VAULT_ID, TENANT, incarnation="1", name="v1", created=NOW)
DIRECTORY = Directory(MemoryPrincipals([SCRIPT, VAULT]), TENANT, "https://127.0.0.1:8443")


def get(path: str, **query: str) -> tuple[int, dict[str, Any]]:
    return answer(DIRECTORY, "GET", path, {f"${name}": value for name, value in query.items()})


def ids(found: tuple[int, dict[str, Any]]) -> list[str]:
    assert found[0] == 200, found[1]
    return [one["id"] for one in found[1]["value"]]


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        (f"servicePrincipalNames/any(c:c eq '{SCRIPT.app_id}')", [SCRIPT]),
        (f"servicePrincipalNames/any(x: x eq '{SCRIPT.app_id.upper()}')", [SCRIPT]),
        (f"serviceprincipalnames/any(c:c eq '{VAULT.app_id}')", [VAULT]),
        ("servicePrincipalNames/any(c:c eq 'nobody')", []),
        (f"appId eq '{SCRIPT.app_id}'", [SCRIPT]),
        (f"id eq '{VAULT.object_id}'", [VAULT]),
        ("displayName eq 'Tom''s script'", [SCRIPT]),
        ("startswith(displayName,'tom')", [SCRIPT]),
        ("servicePrincipalType eq 'ManagedIdentity'", [VAULT]),
        (f"displayName eq 'v1' and appId eq '{SCRIPT.app_id}'", []),
        (f"displayName eq 'v1' or appId eq '{SCRIPT.app_id}'", [SCRIPT, VAULT]),
    ],
)
def test_service_principals_are_found_by_the_filters_of_the_clients(filter_: str, expected: list[Any]) -> None:
    assert ids(get("/v1.0/servicePrincipals", filter=filter_)) == sorted(one.object_id for one in expected)


def test_an_object_id_that_no_filter_finds_is_resolved_by_get_by_ids() -> None:
    """az role assignment create --assignee OBJECT-ID asks in this order."""
    by_name = get("/v1.0/servicePrincipals", filter=f"servicePrincipalNames/any(c:c eq '{VAULT.object_id}')")
    assert ids(by_name) == []
    body = {
        "ids": [VAULT.object_id.upper()],
        "types": ["user", "group", "servicePrincipal", "directoryObjectPartnerReference"],
    }
    status, found = answer(DIRECTORY, "POST", "/v1.0/directoryObjects/getByIds", {}, body)
    assert status == 200
    assert [one["id"] for one in found["value"]] == [VAULT.object_id]
    assert found["value"][0]["@odata.type"] == "#microsoft.graph.servicePrincipal"
    assert found["value"][0]["servicePrincipalType"] == "ManagedIdentity"
    assert found["value"][0]["alternativeNames"] == ["isExplicit=False", VAULT_ID]


def test_get_by_ids_leaves_out_whom_it_does_not_know() -> None:
    body = {"ids": [TENANT, SCRIPT.object_id, SCRIPT.object_id]}
    _, found = answer(DIRECTORY, "POST", "/v1.0/directoryObjects/getByIds", {}, body)
    assert [one["id"] for one in found["value"]] == [SCRIPT.object_id]
    users = answer(DIRECTORY, "POST", "/v1.0/directoryObjects/getByIds", {}, body | {"types": ["user"]})
    assert users[1]["value"] == []


@pytest.mark.parametrize(
    "body", [None, {}, {"ids": "x"}, {"ids": [1]}, {"ids": ["x"] * (MAX_IDS + 1)}, {"ids": [], "types": 3}]
)
def test_a_bad_get_by_ids_is_refused(body: dict[str, Any] | None) -> None:
    status, found = answer(DIRECTORY, "POST", "/v1.0/directoryObjects/getByIds", {}, body)
    assert (status, found["error"]["code"]) == (400, "Request_BadRequest")


@pytest.mark.parametrize(
    "path",
    [
        f"/v1.0/servicePrincipals/{SCRIPT.object_id}",
        f"/v1.0/serviceprincipals/{SCRIPT.object_id.upper()}/",
        f"/v1.0/servicePrincipals(appId='{SCRIPT.app_id}')",
        f"/v1.0/directoryObjects/{SCRIPT.object_id}",
        f"/beta/servicePrincipals/{SCRIPT.object_id}",
    ],
)
def test_one_service_principal_is_shown(path: str) -> None:
    status, found = get(path)
    assert (status, found["appId"], found["displayName"]) == (200, SCRIPT.app_id, "Tom's script")


def test_who_does_not_exist_is_a_404_as_graph_words_it() -> None:
    status, found = get(f"/v1.0/servicePrincipals/{TENANT}")
    assert (status, found["error"]["code"]) == (404, "Request_ResourceNotFound")


def test_applications_are_service_principals_that_sign_in_and_their_secrets_stay_hidden() -> None:
    assert ids(get("/v1.0/applications")) == [SCRIPT.object_id]
    assert ids(get("/v1.0/applications", filter=f"appId eq '{VAULT.app_id}'")) == []
    _, found = get("/v1.0/applications", filter=f"appId eq '{SCRIPT.app_id}'")
    assert found["value"][0]["passwordCredentials"][0]["secretText"] is None
    assert SECRET not in str(found)
    assert SCRIPT.secrets[0].hash not in str(found)


def test_users_and_groups_are_empty_and_everything_else_is_not_served() -> None:
    assert ids(get("/v1.0/users", filter="userPrincipalName eq 'x'")) == []
    for path in ("/v1.0/me", "/v1.0/", "/v2.0/servicePrincipals", "/v1.0/servicePrincipals/a/owners", ""):
        assert get(path)[0] == 400
    assert answer(DIRECTORY, "DELETE", f"/v1.0/servicePrincipals/{SCRIPT.object_id}", {})[0] == 400


def test_a_long_list_comes_in_pages_without_gap_or_repeat() -> None:
    everybody = [new_service_principal(f"p{n}", now=NOW) for n in range(25)]
    directory = Directory(MemoryPrincipals(everybody), TENANT, "https://h")
    seen: list[str] = []
    query = {"$top": "10", "$filter": "startswith(displayName,'p')"}
    for _ in range(4):
        status, page = answer(directory, "GET", "/v1.0/servicePrincipals", query)
        assert status == 200
        seen += [one["id"] for one in page["value"]]
        if "@odata.nextLink" not in page:
            break
        query = query | {"$skiptoken": page["value"][-1]["id"]}
        assert f"$skiptoken={query['$skiptoken']}" in page["@odata.nextLink"]
    assert seen == sorted(one.object_id for one in everybody)


@pytest.mark.parametrize("top", ["0", "-1", "1000", "x", "1e3", "99999999999999999999"])
def test_a_bad_page_size_is_refused(top: str) -> None:
    assert get("/v1.0/servicePrincipals", top=top)[0] == 400


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["appId", " eq ", "'x'", " and ", " or ", "(", "'", "id"])).map("".join)
)
def test_any_filter_is_answered_or_refused(filter_: str) -> None:
    status, found = get("/v1.0/servicePrincipals", filter=filter_)
    assert status in (200, 400)
    assert status == 200 or found["error"]["code"] == "Request_UnsupportedQuery"
