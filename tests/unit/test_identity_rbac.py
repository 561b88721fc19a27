"""RBAC: actions, scopes, inheritance, and the built-in roles."""

import fnmatch
import re
import time
import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.controlplane.identity import roles
from strongroom.controlplane.identity.errors import (
    ScopeInvalid,
    authorization_failed,
    linked_authorization_failed,
    principal_not_found,
    role_assignment_exists,
)
from strongroom.controlplane.identity.rbac import (
    Access,
    Permission,
    RoleAssignment,
    RoleDefinition,
    allowed,
    assignable,
    at_or_below,
    effective,
    role_id_of,
)
from strongroom.controlplane.identity.scopes import ROOT, above, parse_scope, within

ME = "7a1b7b36-0f0c-4f0e-9e6b-000000000001"
SOMEBODY = "7a1b7b36-0f0c-4f0e-9e6b-000000000002"
TENANT = "6f1f7ad1-3f5e-4a3b-9c52-0b1d2f6a7c11"
SUBSCRIPTION = "/subscriptions/11111111-2222-3333-4444-555555555555"
GROUP = f"{SUBSCRIPTION}/resourceGroups/rg1"
VAULT = f"{GROUP}/providers/Microsoft.DataProtection/backupVaults/v1"
INSTANCE = f"{VAULT}/backupInstances/i1"
CLUSTER = f"{GROUP}/providers/Microsoft.ContainerService/managedClusters/aks1"

BACKUP = "Microsoft.DataProtection/backupVaults/backupInstances/backup/action"
READ_VAULT = "Microsoft.DataProtection/backupVaults/read"
ASSIGN = "Microsoft.Authorization/roleAssignments/write"
WRITE_BLOB = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write"


def assignment(role: RoleDefinition, scope: str, principal: str = ME) -> RoleAssignment:
    return RoleAssignment(str(uuid.uuid4()), scope, role.id, principal)


def may(role: RoleDefinition, action: str, scope: str = INSTANCE, *, at: str = GROUP, data: bool = False) -> bool:
    return allowed([assignment(role, at)], roles.BUILT_IN, ME, action, scope, data=data)


def custom(*actions: str, without: tuple[str, ...] = (), scopes: tuple[str, ...] = ("/",)) -> RoleDefinition:
    return RoleDefinition(str(uuid.uuid4()), "custom", "", (Permission(actions, without),), scopes, "CustomRole")


@pytest.mark.parametrize(
    ("role", "action", "expected"),
    [
        (roles.OWNER, BACKUP, True),
        (roles.OWNER, ASSIGN, True),
        (roles.CONTRIBUTOR, BACKUP, True),
        (roles.CONTRIBUTOR, ASSIGN, False),
        (roles.CONTRIBUTOR, "Microsoft.Authorization/roleAssignments/read", True),
        (roles.CONTRIBUTOR, "microsoft.authorization/roleassignments/DELETE", False),
        (roles.READER, READ_VAULT, True),
        (roles.READER, "Microsoft.KubernetesConfiguration/extensions/read", True),
        (roles.READER, BACKUP, False),
        (roles.READER, "Microsoft.Storage/storageAccounts/listKeys/action", False),
        (roles.USER_ACCESS_ADMINISTRATOR, ASSIGN, True),
        (roles.USER_ACCESS_ADMINISTRATOR, BACKUP, False),
        (roles.RBAC_ADMINISTRATOR, ASSIGN, True),
        (roles.RBAC_ADMINISTRATOR, "Microsoft.Authorization/roleDefinitions/write", False),
        (roles.BACKUP_READER, READ_VAULT, True),
        (roles.BACKUP_READER, "Microsoft.DataProtection/backupVaults/backupJobs/read", True),
        (roles.BACKUP_READER, BACKUP, False),
        (roles.BACKUP_OPERATOR, BACKUP, True),
        (roles.BACKUP_OPERATOR, "Microsoft.DataProtection/backupVaults/backupInstances/restore/action", True),
        (roles.BACKUP_OPERATOR, "Microsoft.DataProtection/backupVaults/backupInstances/delete", False),
        (roles.BACKUP_OPERATOR, "Microsoft.DataProtection/backupVaults/backupInstances/stopProtection/action", False),
        (roles.BACKUP_OPERATOR, "Microsoft.DataProtection/backupVaults/backupPolicies/write", False),
        (roles.BACKUP_OPERATOR, "Microsoft.DataProtection/backupVaults/write", False),
        (roles.BACKUP_CONTRIBUTOR, "Microsoft.DataProtection/backupVaults/backupInstances/delete", True),
        (roles.BACKUP_CONTRIBUTOR, "Microsoft.DataProtection/backupVaults/backupInstances/suspendBackups/action", True),
        (roles.BACKUP_CONTRIBUTOR, "Microsoft.DataProtection/backupVaults/delete", False),
        (roles.BACKUP_CONTRIBUTOR, ASSIGN, False),
        (roles.STORAGE_ACCOUNT_CONTRIBUTOR, "Microsoft.Storage/storageAccounts/listKeys/action", True),
        (roles.DISK_SNAPSHOT_CONTRIBUTOR, "Microsoft.Compute/snapshots/delete", True),
        (roles.KUBERNETES_EXTENSION_CONTRIBUTOR, "Microsoft.KubernetesConfiguration/extensions/write", True),
    ],
)
def test_built_in_roles_allow_what_azures_do(role: RoleDefinition, action: str, expected: bool) -> None:
    assert may(role, action) is expected


def test_data_actions_are_apart_from_actions() -> None:
    assert may(roles.STORAGE_BLOB_DATA_CONTRIBUTOR, WRITE_BLOB, data=True)
    assert not may(roles.STORAGE_BLOB_DATA_CONTRIBUTOR, WRITE_BLOB)
    assert not may(roles.STORAGE_BLOB_DATA_READER, WRITE_BLOB, data=True)
    assert not may(roles.OWNER, WRITE_BLOB, data=True)


def test_the_needs_of_a_backup_are_met_by_the_roles_that_azures_guide_assigns() -> None:
    needs = (
        roles.VAULT_READS_CLUSTER,
        roles.VAULT_READS_SNAPSHOT_GROUP,
        roles.CLUSTER_WRITES_SNAPSHOT_GROUP,
        roles.EXTENSION_WRITES_BLOBS,
        roles.EXTENSION_WRITES_BLOBS_BY_KEY,
    )
    for need in needs:
        assert Access([assignment(need.role, GROUP)], roles.BUILT_IN).meets(ME, need, CLUSTER)
        assert not Access([assignment(need.role, GROUP, SOMEBODY)], roles.BUILT_IN).meets(ME, need, CLUSTER)
        assert not Access([assignment(roles.BACKUP_READER, GROUP)], roles.BUILT_IN).meets(ME, need, CLUSTER)


def test_ids_and_names_of_built_in_roles_are_unique_guids() -> None:
    assert len({role.id for role in roles.BUILT_IN}) == len({role.name for role in roles.BUILT_IN}) == len(roles.BY_ID)
    assert all(str(uuid.UUID(role.id)) == role.id for role in roles.BUILT_IN)
    assert roles.find_by_name("backup contributor") is roles.BACKUP_CONTRIBUTOR


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("/", True),
        (f"/providers/Microsoft.Management/managementGroups/{TENANT}", True),
        ("/providers/Microsoft.Management/managementGroups/other", False),
        (SUBSCRIPTION, True),
        (SUBSCRIPTION.upper(), True),
        (SUBSCRIPTION + "/", True),
        (f" {GROUP} ", True),
        (f"{SUBSCRIPTION}/resourcegroups/RG1", True),
        (VAULT, True),
        (INSTANCE, True),
        (f"{INSTANCE}/recoveryPoints/p", False),
        (GROUP[:-1], False),
        (f"{GROUP}0", False),
        (f"{VAULT}0", False),
        ("/subscriptions/other", False),
        ("", False),
        ("//", False),
        (f"{GROUP}/../rg1", False),
    ],
)
def test_a_role_holds_at_its_scope_and_below_segment_by_segment(at: str, expected: bool) -> None:
    access = Access([assignment(roles.OWNER, at)], roles.BUILT_IN, tenant_id=TENANT)
    assert access.allowed(ME, BACKUP, INSTANCE) is expected


@pytest.mark.parametrize("scope", ["", "subscriptions/x", "//", "/subscriptions//x", f"{GROUP}/..", "/" + "a/" * 3000])
def test_what_is_no_scope_is_denied_even_to_an_owner_of_everything(scope: str) -> None:
    assert not allowed([assignment(roles.OWNER, "/")], roles.BUILT_IN, ME, BACKUP, scope)


def test_a_look_alike_letter_does_not_open_another_group() -> None:
    kelvin = f"{SUBSCRIPTION}/resourceGroups/\u212a8s"  # folds to "k8s" in Unicode, not here
    assert not allowed(
        [assignment(roles.OWNER, f"{SUBSCRIPTION}/resourceGroups/k8s")], roles.BUILT_IN, ME, "x/y", kelvin
    )


def test_ids_of_principals_and_roles_are_compared_in_any_case() -> None:
    given_ = RoleAssignment("n", GROUP, roles.OWNER.id.upper(), ME.upper())
    assert allowed([given_], roles.BY_ID, ME, BACKUP, INSTANCE)


def test_notactions_take_away_from_their_own_role_only() -> None:
    denied = custom("*", without=("*/delete",))
    deleting = custom("Microsoft.X/things/delete")
    definitions = [denied, deleting]
    assert not allowed([assignment(denied, GROUP)], definitions, ME, "Microsoft.X/things/delete", GROUP)
    both = [assignment(denied, GROUP), assignment(deleting, SUBSCRIPTION)]
    assert allowed(both, definitions, ME, "Microsoft.X/things/delete", GROUP)


def test_notactions_of_one_permission_leave_the_others_of_the_role_alone() -> None:
    role = RoleDefinition("r", "r", "", (Permission(("*",), ("a/b",)), Permission(("a/b",))))
    assert allowed([assignment(role, "/")], [role], ME, "a/b", "/")


def test_an_assignment_of_an_unknown_role_grants_nothing() -> None:
    assert not allowed([assignment(custom("*"), "/")], roles.BUILT_IN, ME, BACKUP, "/")


def test_an_empty_action_is_denied() -> None:
    assert not may(roles.OWNER, "")
    assert not may(roles.OWNER, " ")


segments = st.lists(st.sampled_from(["a", "bb", "*", "read", "a*", "*b"]), min_size=1, max_size=5).map("/".join)
texts = st.lists(st.sampled_from(["a", "bb", "ab", "read", "aab"]), min_size=1, max_size=6).map("/".join)


@given(st.text(alphabet="ab*/", max_size=12) | segments, st.text(alphabet="ab/", min_size=1, max_size=12) | texts)
def test_wildcards_match_as_a_regular_expression_would(pattern: str, action: str) -> None:
    role = custom(pattern)
    expected = re.fullmatch(".*".join(re.escape(piece) for piece in pattern.split("*")), action) is not None
    assert allowed([assignment(role, "/")], [role], ME, action, "/") is expected
    assert expected is fnmatch.fnmatchcase(action, pattern)


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=4), st.lists(st.sampled_from(["a", "b", "c"]), max_size=6))
def test_inheritance_is_the_prefix_relation(outer: list[str], inner: list[str]) -> None:
    at, scope = "/" + "/".join(outer), "/" + "/".join(inner)
    expected = inner[: len(outer)] == outer
    assert allowed([assignment(roles.OWNER, at)], roles.BUILT_IN, ME, "x", scope) is expected
    assert within(parse_scope(scope), parse_scope(at)) is expected
    assert (parse_scope(at) in above(parse_scope(scope))) is expected


@given(st.lists(st.tuples(st.sampled_from(roles.BUILT_IN), st.sampled_from(["/", SUBSCRIPTION, GROUP, VAULT]))))
def test_more_assignments_never_take_anything_away(given_: list[tuple[RoleDefinition, str]]) -> None:
    assignments = [assignment(role, scope) for role, scope in given_]
    for end in range(len(assignments)):
        before = Access(assignments[:end], roles.BUILT_IN)
        after = Access(assignments[: end + 1], roles.BUILT_IN)
        for action in (BACKUP, READ_VAULT, ASSIGN):
            assert after.allowed(ME, action, INSTANCE) or not before.allowed(ME, action, INSTANCE)


@given(st.lists(st.tuples(st.sampled_from([ME, SOMEBODY]), st.sampled_from(roles.BUILT_IN))))
def test_roles_of_others_do_not_matter(given_: list[tuple[str, RoleDefinition]]) -> None:
    everybody = [assignment(role, GROUP, principal) for principal, role in given_]
    mine = [one for one in everybody if one.principal_id == ME]
    for action in (BACKUP, READ_VAULT, ASSIGN):
        assert allowed(everybody, roles.BUILT_IN, ME, action, VAULT) is allowed(mine, roles.BUILT_IN, ME, action, VAULT)


def test_many_stars_cost_no_more_than_linear_time() -> None:
    role = custom("*a" * 500 + "*b")
    start = time.perf_counter()
    assert not allowed([assignment(role, "/")], [role], ME, "a" * 4000, "/")
    assert time.perf_counter() - start < 1


def test_five_thousand_assignments_are_answered_from_an_index() -> None:
    vaults = [f"{GROUP}/providers/Microsoft.DataProtection/backupVaults/v{n}" for n in range(5000)]
    access = Access((assignment(roles.BACKUP_OPERATOR, vault) for vault in vaults), roles.BUILT_IN)
    start = time.perf_counter()
    for vault in vaults:
        assert access.allowed(ME, BACKUP, f"{vault}/backupInstances/i")
    # Measured: about 5 µs a question. A scan of all assignments would take milliseconds each.
    assert time.perf_counter() - start < 2


def test_effective_lists_what_holds_at_a_scope_and_at_or_below_what_lies_under_it() -> None:
    root, group, vault = (assignment(roles.READER, scope) for scope in ("/", GROUP, VAULT))
    other = replace(assignment(roles.READER, "/subscriptions/x"), principal_id=SOMEBODY)
    everything = [root, group, vault, other]
    assert effective(everything, GROUP) == [root, group]
    assert effective(everything, "/subscriptions/x", principal_id=SOMEBODY) == [other]
    assert at_or_below(everything, SUBSCRIPTION) == [group, vault]
    assert at_or_below(everything, "/", principal_id=ME) == [root, group, vault]
    with pytest.raises(ScopeInvalid):
        effective(everything, "nowhere")


def test_roles_at_a_scope_come_nearest_first() -> None:
    access = Access([assignment(roles.READER, "/"), assignment(roles.CONTRIBUTOR, VAULT)], roles.BUILT_IN)
    assert access.roles_at(ME, INSTANCE) == [roles.CONTRIBUTOR, roles.READER]
    assert access.roles_at(SOMEBODY, INSTANCE) == []


def test_a_custom_role_is_assignable_within_its_scopes() -> None:
    role = custom("*", scopes=(GROUP, "/subscriptions/y"))
    assert assignable(role, VAULT)
    assert assignable(role, GROUP.upper())
    assert not assignable(role, SUBSCRIPTION)
    assert assignable(roles.OWNER, "/")


def test_the_root_is_above_everything() -> None:
    assert parse_scope("/") == ROOT
    assert list(above(parse_scope("/a/b"))) == [("a", "b"), ("a",), ()]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (roles.OWNER.id, roles.OWNER.id),
        (f"/providers/Microsoft.Authorization/roleDefinitions/{roles.OWNER.id.upper()}", roles.OWNER.id),
        (f"{SUBSCRIPTION}/providers/microsoft.authorization/roledefinitions/{roles.OWNER.id}", roles.OWNER.id),
        (f"{SUBSCRIPTION}/providers/Microsoft.Other/things/{roles.OWNER.id}", ""),
        ("Owner", ""),
        ("", ""),
    ],
)
def test_a_role_definition_id_is_read_in_any_form(text: str, found: str) -> None:
    assert role_id_of(text) == found


def test_documents_have_arms_shape() -> None:
    definition = roles.READER.as_arm(GROUP)
    assert definition["id"] == f"{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/{roles.READER.id}"
    assert definition["properties"]["roleName"] == "Reader"
    assert definition["properties"]["permissions"][0]["actions"] == ["*/read"]
    made = assignment(roles.READER, VAULT)
    document = made.as_arm()
    assert document["id"] == f"{VAULT}/providers/Microsoft.Authorization/roleAssignments/{made.name}"
    assert document["properties"]["roleDefinitionId"] == definition["id"]
    assert document["properties"]["scope"] == VAULT
    assert assignment(roles.READER, "/").as_arm()["id"].startswith("/providers/Microsoft.Authorization/")


def test_refusals_are_worded_as_azure_words_them() -> None:
    assert authorization_failed("app", "oid", READ_VAULT, VAULT).message == (
        f"The client 'app' with object id 'oid' does not have authorization to perform action '{READ_VAULT}' over "
        f"scope '{VAULT}' or the scope is invalid. If access was recently granted, please refresh your credentials."
    )
    linked = linked_authorization_failed("app", "oid", BACKUP, INSTANCE, [("a/read", CLUSTER), ("b/read", GROUP)])
    assert linked.status == 403
    assert f"action(s) 'a/read,b/read' on the linked scope(s) '{CLUSTER},{GROUP}' (respectively)" in linked.message
    assert role_assignment_exists("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee").message.endswith(
        "aaaaaaaabbbbccccddddeeeeeeeeeeee."
    )
    assert "does not exist in the directory" in principal_not_found(ME, TENANT).message
