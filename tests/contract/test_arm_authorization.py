"""Role definitions and assignments, by the official client, and that they decide what callers may do."""

import uuid
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.dataprotection import DataProtectionMgmtClient
from azure.mgmt.resource.resources import ResourceManagementClient

from ..serving import RunningServer

READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
OWNER = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"


@pytest.fixture
def authorization(server: RunningServer) -> Any:
    return server.client(AuthorizationManagementClient)


@pytest.fixture
def vault(server: RunningServer) -> Any:
    """A vault with an identity, in a group of its own."""
    resources = server.client(ResourceManagementClient)
    resources.providers.register("Microsoft.DataProtection")
    group = f"rg-{uuid.uuid4().hex[:8]}"
    resources.resource_groups.create_or_update(group, {"location": "westus"})
    body = {
        "location": "westus",
        "identity": {"type": "SystemAssigned"},
        "properties": {"storageSettings": [{"datastoreType": "VaultStore", "type": "LocallyRedundant"}]},
    }
    vaults = server.client(DataProtectionMgmtClient).backup_vaults
    return vaults.begin_create_or_update(group, "vault", body).result()


def group_of(vault: Any) -> str:
    return "/".join(vault.id.split("/")[:5])


def role(server: RunningServer, id: str) -> str:
    return f"/subscriptions/{server.subscription}/providers/Microsoft.Authorization/roleDefinitions/{id}"


def assign(server: RunningServer, authorization: Any, scope: str, principal: str, **other: Any) -> Any:
    properties = {"roleDefinitionId": role(server, READER), "principalId": principal, **other}
    return authorization.role_assignments.create(scope, str(uuid.uuid4()), {"properties": properties})


def test_a_role_is_found_by_its_name_and_read_by_its_id(server: RunningServer, authorization: Any) -> None:
    scope = f"/subscriptions/{server.subscription}"
    [found] = authorization.role_definitions.list(scope, filter="roleName eq 'Reader'")
    assert (found.name, found.id) == (READER, role(server, READER))
    assert found.permissions[0].actions == ["*/read"]
    assert authorization.role_definitions.get_by_id(found.id).role_name == "Reader"
    names = {r.role_name for r in authorization.role_definitions.list(scope, filter="atScopeAndBelow()")}
    assert {"Owner", "Backup Contributor", "Storage Blob Data Contributor"} <= names


def test_custom_roles_are_not_supported(server: RunningServer, authorization: Any) -> None:
    body = {"roleName": "mine", "permissions": [{"actions": ["*"]}], "assignableScopes": ["/"]}
    with pytest.raises(HttpResponseError) as refused:
        authorization.role_definitions.create_or_update("/", str(uuid.uuid4()), {"properties": body})
    assert (refused.value.status_code, refused.value.error.code) == (501, "NotSupported")


def test_an_assignment_is_listed_at_its_scope_below_and_above(
    server: RunningServer, authorization: Any, vault: Any
) -> None:
    made = assign(server, authorization, group_of(vault), vault.identity.principal_id, principalType="ServicePrincipal")
    assert made.scope == group_of(vault)
    listing = authorization.role_assignments
    mine = f"principalId eq '{vault.identity.principal_id}'"
    assert [a.id for a in listing.list_for_scope(vault.id, filter=f"assignedTo('{vault.identity.principal_id}')")] == [
        made.id
    ]
    assert [a.id for a in listing.list_for_scope(group_of(vault), filter="atScope() and " + mine)] == [made.id]
    assert [a.id for a in listing.list_for_subscription(filter=mine)] == [made.id]
    assert [a.id for a in listing.list_for_subscription(filter="atScope() and " + mine)] == []
    # The administrator's role at the root holds everywhere.
    assert OWNER in {
        a.role_definition_id.rpartition("/")[2] for a in listing.list_for_scope(vault.id, filter="atScope()")
    }
    assert listing.get_by_id(made.id).principal_id == vault.identity.principal_id


def test_a_removed_assignment_is_gone_and_may_be_removed_again(
    server: RunningServer, authorization: Any, vault: Any
) -> None:
    made = assign(server, authorization, group_of(vault), vault.identity.principal_id)
    assert authorization.role_assignments.delete_by_id(made.id).id == made.id
    assert authorization.role_assignments.delete_by_id(made.id) is None
    with pytest.raises(HttpResponseError) as refused:
        authorization.role_assignments.get_by_id(made.id)
    assert refused.value.status_code == 404


def test_the_same_role_is_given_once(server: RunningServer, authorization: Any, vault: Any) -> None:
    made = assign(server, authorization, vault.id, vault.identity.principal_id)
    with pytest.raises(ResourceExistsError) as exists:
        assign(server, authorization, vault.id, vault.identity.principal_id)
    assert exists.value.error.code == "RoleAssignmentExists"
    assert made.name.replace("-", "") in str(exists.value)
    other = {"roleDefinitionId": role(server, OWNER), "principalId": vault.identity.principal_id}
    with pytest.raises(ResourceExistsError) as changed:
        authorization.role_assignments.create(vault.id, made.name, {"properties": other})
    assert changed.value.error.code == "RoleAssignmentUpdateNotPermitted"
    same = {"roleDefinitionId": role(server, READER), "principalId": vault.identity.principal_id}
    assert authorization.role_assignments.create(vault.id, made.name, {"properties": same}).id == made.id


def test_who_is_not_in_the_directory_gets_no_role(server: RunningServer, authorization: Any, vault: Any) -> None:
    with pytest.raises(HttpResponseError) as refused:
        assign(server, authorization, vault.id, str(uuid.uuid4()))
    assert refused.value.error.code == "PrincipalNotFound"
    assert "does not exist in the directory" in str(refused.value)  # what az waits for


@pytest.mark.parametrize(
    ("name", "properties", "code"),
    [
        ("not-a-guid", {}, "InvalidRoleAssignmentId"),
        ("", {"roleDefinitionId": str(uuid.uuid4())}, "RoleDefinitionDoesNotExist"),
        ("", {"principalType": "Group"}, "UnmatchedPrincipalType"),
        ("", {"condition": "@Resource[x] StringEquals 'y'", "conditionVersion": "2.0"}, "NotSupported"),
    ],
)
def test_an_assignment_that_cannot_be_is_refused(
    server: RunningServer, authorization: Any, vault: Any, name: str, properties: dict[str, str], code: str
) -> None:
    body = {"roleDefinitionId": role(server, READER), "principalId": vault.identity.principal_id, **properties}
    with pytest.raises(HttpResponseError) as refused:
        authorization.role_assignments.create(vault.id, name or str(uuid.uuid4()), {"properties": body})
    assert refused.value.error.code == code


def test_there_are_no_roles_at_what_does_not_exist(server: RunningServer, authorization: Any, vault: Any) -> None:
    with pytest.raises(HttpResponseError) as refused:
        assign(server, authorization, f"{vault.id}x", vault.identity.principal_id)
    assert refused.value.status_code == 404


def test_the_last_owner_at_the_root_stays(authorization: Any) -> None:
    [root] = [
        a
        for a in authorization.role_assignments.list_for_scope("/", filter="atScope()")
        if a.role_definition_id.endswith(OWNER)
    ]
    with pytest.raises(ResourceExistsError) as refused:
        authorization.role_assignments.delete_by_id(root.id)
    assert refused.value.error.code == "LastOwnerAssignment"


def test_the_caller_sees_what_his_own_roles_allow(authorization: Any, vault: Any) -> None:
    group = group_of(vault).rpartition("/")[2]
    assert ["*"] in [p.actions for p in authorization.permissions.list_for_resource_group(group)]
