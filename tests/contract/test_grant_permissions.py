"""grantPermissions over HTTP: it makes what validation misses, exactly that, and only for who may assign roles."""

import base64
import copy
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from strongroom.controlplane.home import Home
from strongroom.controlplane.identity.assignments import ASSIGNMENTS, assign, forget_resource, read_access
from strongroom.controlplane.identity.principals import (
    PrincipalKind,
    PrincipalRecord,
    add_secret,
    new_service_principal,
)
from strongroom.controlplane.identity.roles import BACKUP_CONTRIBUTOR, OWNER, READER, USER_ACCESS_ADMINISTRATOR
from strongroom.controlplane.identity.stored import TxPrincipals
from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.points import StoredPoint
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import now
from strongroom.controlplane.workflows.readiness import INSTANCES

from ..arm_bodies import hourly_policy
from ..serving import RunningServer, running_server
from ..unit.readiness_stage import (
    ACCOUNT,
    CLUSTER,
    CLUSTER_IDENTITY,
    CONTAINER,
    EXTENSION,
    EXTENSION_IDENTITY,
    GROUP,
    POLICY,
    ROLES,
    SNAPSHOTS,
    SUBSCRIPTION,
    TENANT,
    VAULT,
    VAULT_IDENTITY,
    VAULT_SUBSCRIPTION,
    World,
    problems,
)

VERSION = "2025-01-01"
POLICY_BODY = hourly_policy()
SOURCE = {
    "objectType": "Datasource",
    "datasourceType": "Microsoft.ContainerService/managedClusters",
    "resourceID": CLUSTER,
}
INSTANCE: dict[str, Any] = {
    "objectType": "BackupInstance",
    "dataSourceInfo": SOURCE,
    "dataSourceSetInfo": {**SOURCE, "objectType": "DatasourceSet"},
    "policyInfo": {
        "policyId": POLICY,
        "policyParameters": {
            "dataStoreParametersList": [
                {
                    "objectType": "AzureOperationalStoreParameters",
                    "dataStoreType": "OperationalStore",
                    "resourceGroupId": SNAPSHOTS,
                }
            ],
            "backupDatasourceParametersList": [
                {
                    "objectType": "KubernetesClusterBackupDatasourceParameters",
                    "snapshotVolumes": True,
                    "includeClusterScopeResources": True,
                }
            ],
        },
    },
}


@dataclass
class Stage:
    """A server whose database holds the world of `readiness_stage`, with none of its roles given."""

    server: RunningServer
    db: Database
    session: requests.Session

    def send(self, method: str, path: str, body: Any = None) -> requests.Response:
        """Send a request of the administrator's."""
        url = path if path.startswith("https:") else f"{self.server.url}{path}?api-version={VERSION}"
        headers = {"Authorization": f"Bearer {self.server.token()}"}
        return self.session.request(method, url, json=body, headers=headers, timeout=60)

    def grant(self, reach: str | None = None, *, token: str = "", instance: Any = None) -> requests.Response:
        body: dict[str, Any] = {"backupInstance": instance or INSTANCE}
        if reach is not None:
            body["permissionsScope"] = reach
        headers = {"Authorization": f"Bearer {token or self.server.token()}"}
        url = f"{self.server.url}{VAULT}/grantPermissions?api-version={VERSION}"
        return self.session.post(url, json=body, headers=headers, timeout=60)

    def operation_error(self, path: str, body: Any) -> dict[str, Any]:
        """POST and return the error that the operation ends with."""
        headers = {"Authorization": f"Bearer {self.server.token()}"}
        url = f"{self.server.url}{path}?api-version={VERSION}"
        begun = self.session.post(url, json=body, headers=headers, timeout=60)
        assert begun.status_code == 202, begun.text
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status = self.session.get(begun.headers["Azure-AsyncOperation"], headers=headers, timeout=60).json()
            if status["status"] == "Failed":
                found: dict[str, Any] = status["error"]
                return found
            assert status["status"] == "Inprogress", status
            time.sleep(0.1)
        raise AssertionError("the operation did not end")

    def codes(self) -> list[str]:
        """Return what validation finds."""
        with self.db.read() as tx:
            return [problem.code for problem in problems(tx)]

    def assignments(self) -> dict[str, tuple[str, str, str]]:
        """Return role, principal and scope of all assignments by id."""
        with self.db.read() as tx:
            found = [r.doc for r in tx.resources.of_type(ASSIGNMENTS)]
        return {
            doc["id"]: (
                doc["properties"]["roleDefinitionId"].rpartition("/")[2],
                doc["properties"]["principalId"],
                doc["properties"]["scope"],
            )
            for doc in found
        }

    def caller(self, *roles: tuple[Any, str]) -> str:
        """Return the token of a new principal with *roles*: (role, scope)."""
        record, secret = add_secret(new_service_principal("caller", now=now()), now=now(), lifetime=None)
        with self.db.write() as tx:
            TxPrincipals(tx).put(record)
        assigned = f"{self.server.url}{{}}/providers/{ASSIGNMENTS}/{{}}?api-version={VERSION}"
        headers = {"Authorization": f"Bearer {self.server.token()}"}
        for role, scope in roles:
            body = {"properties": {"roleDefinitionId": role.as_arm(scope)["id"], "principalId": record.object_id}}
            made = self.session.put(assigned.format(scope, uuid.uuid4()), json=body, headers=headers, timeout=60)
            assert made.status_code == 201, made.text
        return self.server.token(self.server.sign_in(record.app_id, secret))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_server(tmp_path_factory.mktemp("grants")) as server, requests.Session() as session:
        session.trust_env = False  # the environment may name another CA bundle
        session.verify = server.ready["caFile"]
        home = Home.open(server.home)
        db = Database.open(home.database_url, home.secret_key)
        with db.write() as tx:
            for id in (SUBSCRIPTION, VAULT_SUBSCRIPTION):
                document = {"id": id, "subscriptionId": id.rpartition("/")[2], "tenantId": TENANT, "state": "Enabled"}
                tx.resources.put(Resource(id, "Microsoft.Resources/subscriptions", document, "/"))
            group = VAULT.partition("/providers/")[0]
            tx.resources.put(Resource(group, "Microsoft.Resources/resourceGroups", {"id": group}, VAULT_SUBSCRIPTION))
        yield Stage(server, db, session)
        db.close()


@pytest.fixture
def stage(running: Stage) -> Stage:
    """The stage with no role given to the three identities."""
    World(roles={}).write(running.db)
    with running.db.write() as tx:
        for resource in tx.resources.of_type(ASSIGNMENTS):
            if resource.properties["principalId"] in {VAULT_IDENTITY, CLUSTER_IDENTITY, EXTENSION_IDENTITY}:
                tx.resources.delete(resource.id)
    assert len(running.codes()) == 4
    return running


def expected(*scopes: str) -> set[tuple[str, str, str]]:
    """Return the four assignments of the guides, each at its scope of *scopes*."""
    return {(role.id, who, at) for (role, _, who), at in zip(ROLES.values(), scopes, strict=True)}


@pytest.mark.parametrize(
    ("reach", "scopes"),
    [
        (None, (CLUSTER, SNAPSHOTS, SNAPSHOTS, ACCOUNT)),
        ("Resource", (CLUSTER, SNAPSHOTS, SNAPSHOTS, ACCOUNT)),
        ("resourcegroup", (GROUP, SNAPSHOTS, SNAPSHOTS, GROUP)),
        ("Subscription", (SUBSCRIPTION, SUBSCRIPTION, SUBSCRIPTION, SUBSCRIPTION)),
    ],
)
def test_exactly_the_missing_roles_are_given_at_the_scope_that_was_asked_for(
    stage: Stage, reach: str | None, scopes: tuple[str, ...]
) -> None:
    before = stage.assignments()
    answer = stage.grant(reach)
    assert answer.status_code == 200, answer.text
    made = {k: v for k, v in stage.assignments().items() if k not in before}
    assert set(made.values()) == expected(*scopes)
    assert len(made) == len(expected(*scopes)), "the same role for the same principal and scope is one assignment"
    assert {one["id"] for one in answer.json()["roleAssignments"]} == set(made)
    assert stage.codes() == [], "what validation missed is there"


@pytest.mark.parametrize("given", ROLES)
def test_what_an_identity_has_is_not_given_again(stage: Stage, given: str) -> None:
    role, scope, who = ROLES[given]
    with stage.db.write() as tx:
        assign(tx, role, who, scope, by="somebody", at=now())
    before = stage.assignments()
    assert stage.grant().status_code == 200
    made = {value for key, value in stage.assignments().items() if key not in before}
    assert made == expected(CLUSTER, SNAPSHOTS, SNAPSHOTS, ACCOUNT) - {(role.id, who, scope)}
    assert stage.codes() == []


def test_asking_again_gives_nothing_more(stage: Stage) -> None:
    stage.grant()
    before = stage.assignments()
    answer = stage.grant("Subscription")
    assert (answer.status_code, answer.json()["roleAssignments"]) == (200, [])
    assert stage.assignments() == before


@pytest.mark.parametrize(
    ("roles", "allowed"),
    [
        ([(BACKUP_CONTRIBUTOR, SUBSCRIPTION), (READER, SUBSCRIPTION)], False),
        ([(READER, SUBSCRIPTION), (OWNER, CLUSTER), (OWNER, SNAPSHOTS)], False),
        ([(OWNER, CLUSTER), (OWNER, SNAPSHOTS), (OWNER, ACCOUNT)], True),
        ([(USER_ACCESS_ADMINISTRATOR, SUBSCRIPTION)], True),
    ],
    ids=["no right to assign", "not at one of the scopes", "Owner of each resource", "User Access Administrator"],
)
def test_the_caller_must_be_allowed_to_assign_roles_at_each_scope(
    stage: Stage, roles: list[tuple[Any, str]], allowed: bool
) -> None:
    token = stage.caller((BACKUP_CONTRIBUTOR, VAULT), *roles)
    before = stage.assignments()
    answer = stage.grant(token=token)
    if allowed:
        assert answer.status_code == 200, answer.text
        assert stage.codes() == []
        return
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "LinkedAuthorizationFailed")
    assert f"{ASSIGNMENTS}/write" in answer.json()["error"]["message"]
    assert stage.assignments() == before, "all or nothing"


def test_a_wider_scope_needs_the_right_to_assign_roles_there(stage: Stage) -> None:
    token = stage.caller((BACKUP_CONTRIBUTOR, VAULT), (OWNER, CLUSTER), (OWNER, SNAPSHOTS), (OWNER, ACCOUNT))
    assert stage.grant("Subscription", token=token).status_code == 403
    assert len(stage.codes()) == 4


def test_who_has_nothing_at_the_vault_is_refused_there(stage: Stage) -> None:
    answer = stage.grant(token=stage.caller((OWNER, SUBSCRIPTION)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "AuthorizationFailed")


def test_whom_roles_cannot_be_given_to_is_told_all_together(stage: Stage) -> None:
    world = World(roles={})
    world.document(VAULT, identity={"type": "None"})
    world.change(EXTENSION, aksAssignedIdentity=None)
    world.write(stage.db)
    answer = stage.grant()
    assert answer.status_code == 400
    assert {detail["code"] for detail in answer.json()["error"]["details"]} == {
        "UserErrorVaultIdentityNotFound",
        "UserErrorKubernetesBackupExtensionIdentityNotFound",
    }
    assert all(who not in {VAULT_IDENTITY, CLUSTER_IDENTITY} for _, who, _ in stage.assignments().values())


def test_a_scope_of_another_word_is_refused(stage: Stage) -> None:
    answer = stage.grant("Tenant")
    assert answer.status_code == 400
    assert "permissionsScope" in answer.text
    assert len(stage.codes()) == 4


def test_an_instance_that_could_not_be_read_is_refused(stage: Stage) -> None:
    instance = copy.deepcopy(INSTANCE)
    instance["dataSourceInfo"]["resourceID"] = "/no/cluster"
    answer = stage.grant(instance=instance)
    assert answer.status_code in {400, 403}
    assert len(stage.codes()) == 4


MISSING = {
    "KubernetesBackupListExtensionsError",
    "UserErrorMissingRoleAssignment",
    "UserErrorExtensionMSIMissingPermissionsOnBackupStorageLocation",
}
RESTORE = {
    "objectType": "AzureBackupRecoveryPointBasedRestoreRequest",
    "sourceDataStoreType": "OperationalStore",
    "recoveryPointId": "point-1",
    "restoreTargetInfo": {
        "objectType": "ItemLevelRestoreTargetInfo",
        "recoveryOption": "FailIfExists",
        "restoreLocation": "west",
        "datasourceInfo": SOURCE,
        "restoreCriteria": [{"objectType": "KubernetesClusterRestoreCriteria", "includeClusterScopeResources": False}],
    },
}


@pytest.fixture
def instance(stage: Stage) -> Iterator[str]:
    """A backup instance with a recovery point, written as a configured one is."""
    id = f"{VAULT}/backupInstances/shop"
    properties = {**INSTANCE, "friendlyName": "shop", "currentProtectionState": "ProtectionConfigured"}
    document = {"id": id, "name": "shop", "type": INSTANCES, "properties": properties}
    point = StoredPoint(id, "point-1", "2026-11-23T00:00:00Z", "", "Default", {}, private={"container": CONTAINER})
    with stage.db.write() as tx:
        tx.resources.put(Resource(id, INSTANCES, document, VAULT))
        tx.points.put(point)
    yield id
    with stage.db.write() as tx:
        tx.resources.delete(id)


def test_validation_of_a_backup_names_all_four_with_the_commands_that_mend_them(stage: Stage) -> None:
    error = stage.operation_error(f"{VAULT}/validateForBackup", {"backupInstance": INSTANCE})
    assert [detail["code"] for detail in error["details"]] == stage.codes()
    actions = error["additionalInfo"][0]["info"]["recommendedAction"]
    assert len([action for action in actions if action.startswith("az role assignment create ")]) == 4


def test_a_restore_misses_the_same_roles_and_is_granted_them_by_its_request(stage: Stage, instance: str) -> None:
    body = {"restoreRequestObject": RESTORE}
    error = stage.operation_error(f"{instance}/validateRestore", body)
    assert {detail["code"] for detail in error["details"]} == MISSING
    headers = {"Authorization": f"Bearer {stage.server.token()}"}
    url = f"{stage.server.url}{instance}/grantPermissions?api-version={VERSION}"
    answer = stage.session.post(url, json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["roleAssignments"]) == 4
    # What is said next is said by the cluster, which is none here.
    after = stage.operation_error(f"{instance}/validateRestore", body)
    assert not MISSING & {after["code"], *(detail["code"] for detail in after["details"] or [])}


def test_a_role_that_was_taken_away_fails_the_next_job_with_its_code(stage: Stage, instance: str) -> None:
    stage.grant()
    send = stage.send
    assert send("PUT", POLICY, POLICY_BODY).status_code in {200, 201}
    for id, (_, who, scope) in stage.assignments().items():
        if (who, scope) == (CLUSTER_IDENTITY, SNAPSHOTS):
            assert send("DELETE", id).status_code == 200
    begun = send("POST", f"{instance}/backup", {"backupRuleOptions": {"ruleName": "BackupHourly", "triggerOption": {}}})
    assert begun.status_code == 202, begun.text
    job_id = send("GET", begun.headers["Azure-AsyncOperation"]).json()["properties"]["jobId"]
    deadline = time.monotonic() + 60
    while (job := send("GET", job_id).json()["properties"])["status"] == "InProgress":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert job["status"] == "Failed"
    [error] = job["errorDetails"]
    assert error["code"] == "UserErrorMissingRoleAssignment"
    assert error["recommendedAction"][0].startswith(
        f"az role assignment create --assignee-object-id {CLUSTER_IDENTITY} "
    )


def test_what_was_assigned_goes_with_the_resource_and_with_its_identity(stage: Stage) -> None:
    stage.grant()
    record = PrincipalRecord(
        EXTENSION_IDENTITY, str(uuid.uuid4()), PrincipalKind.MANAGED_IDENTITY, "extension", now(), EXTENSION
    )
    cluster = PrincipalRecord(
        CLUSTER_IDENTITY, str(uuid.uuid4()), PrincipalKind.MANAGED_IDENTITY, "cluster", now(), CLUSTER
    )
    with stage.db.write() as tx:
        TxPrincipals(tx).put(record)
        TxPrincipals(tx).put(cluster)
        forget_resource(tx, CLUSTER)
        access = read_access(tx, TENANT)
        assert TxPrincipals(tx).get_by_object_id(EXTENSION_IDENTITY) is None
        assert TxPrincipals(tx).get_by_object_id(CLUSTER_IDENTITY) is None
    assert access.roles_at(EXTENSION_IDENTITY, ACCOUNT) == [], "the extension below the cluster goes with it"
    assert access.roles_at(CLUSTER_IDENTITY, SNAPSHOTS) == []
    assert access.roles_at(VAULT_IDENTITY, CLUSTER) == [], "what others had at the resource goes, too"
    assert access.roles_at(VAULT_IDENTITY, SNAPSHOTS) == [READER], "and nothing else"


def test_an_identity_that_is_switched_off_loses_its_roles_for_good(stage: Stage) -> None:
    path = f"{VAULT.rpartition('/')[0]}/switched"
    body: dict[str, Any] = {
        "location": "west",
        "identity": {"type": "SystemAssigned"},
        "properties": {"storageSettings": [{"datastoreType": "OperationalStore", "type": "LocallyRedundant"}]},
    }
    made = stage.send("PUT", path, body)
    assert made.status_code == 201, made.text
    principal = made.json()["identity"]["principalId"]
    with stage.db.write() as tx:
        assign(tx, READER, principal, CLUSTER, by="somebody", at=now())
    assert stage.send("PUT", path, {**body, "identity": {"type": "None"}}).status_code == 201
    assert stage.send("PUT", path, body).status_code == 201
    assert all(who != principal for _, who, _ in stage.assignments().values())


def test_a_removed_application_can_do_nothing_with_a_token_that_it_still_has(stage: Stage) -> None:
    token = stage.caller((OWNER, SUBSCRIPTION))
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{stage.server.url}{GROUP}?api-version={VERSION}"
    assert stage.session.get(url, headers=headers, timeout=60).status_code == 200
    administrator = {"Authorization": f"Bearer {stage.server.token()}"}
    payload = token.split(".")[1]
    own = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["oid"]
    gone = stage.session.delete(f"{stage.server.url}/v1.0/applications/{own}", headers=administrator, timeout=60)
    assert gone.status_code == 204, gone.text
    assert stage.session.get(url, headers=headers, timeout=60).status_code == 403
    assert all(who != own for _, who, _ in stage.assignments().values())
