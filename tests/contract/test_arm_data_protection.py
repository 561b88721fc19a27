"""Microsoft.DataProtection on the wire: status codes, headers, casing, etags, paging and refusals, to the letter.

Sources of the rules: reference/azure-clients.md (A.2, A.3, "Ground truth") and azure-backup-for-aks.md section 3.
"""

import copy
import uuid
from typing import Any

import pytest
import requests
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.dataprotection import DataProtectionMgmtClient

from ..arm_bodies import hourly_policy
from ..serving import RunningServer

VERSION = "2026-06-01"
VAULT_BODY: dict[str, Any] = {
    "location": "West US",
    "identity": {"type": "SystemAssigned"},
    "properties": {"storageSettings": [{"datastoreType": "OperationalStore", "type": "LocallyRedundant"}]},
}
POLICY_BODY = hourly_policy()
POLICY_BODY["properties"]["name"] = "the CLI sends a name here"
POLICY_BODY["properties"]["policyRules"][1]["lifecycles"][0]["targetDataStoreCopySettings"] = None


class Arm:
    """Bare requests to one server, in a resource group of the test's own."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.group = f"rg-{uuid.uuid4().hex[:8]}"
        self.session = requests.Session()
        self.session.trust_env = False  # the environment may name another CA bundle
        self.session.verify = server.ready["caFile"]
        self.session.headers["Authorization"] = f"Bearer {server.token()}"
        for namespace in ("Microsoft.DataProtection",):
            self.post(f"/subscriptions/{server.subscription}/providers/{namespace}/register")
        made = self.put(f"/subscriptions/{server.subscription}/resourcegroups/{self.group}", {"location": "westus"})
        assert made.status_code in {200, 201}, made.text

    @property
    def root(self) -> str:
        return (
            f"/subscriptions/{self.server.subscription}/resourceGroups/{self.group}/providers/Microsoft.DataProtection"
        )

    def vault(self, name: str = "vault1") -> str:
        return f"{self.root}/backupVaults/{name}"

    def send(self, method: str, path: str, body: Any = None, *, query: str = "", **headers: str) -> requests.Response:
        url = path if path.startswith("https:") else f"{self.server.url}{path}?api-version={VERSION}{query}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.request(method, url, json=body, headers=named, timeout=30)

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.send("GET", path, **more)

    def put(self, path: str, body: Any, **more: Any) -> requests.Response:
        return self.send("PUT", path, body, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> requests.Response:
        return self.send("POST", path, body, **more)

    def delete(self, path: str, **more: Any) -> requests.Response:
        return self.send("DELETE", path, **more)


@pytest.fixture
def arm(server: RunningServer) -> Arm:
    return Arm(server)


def code_of(answer: requests.Response) -> str:
    error = answer.json()["error"]
    info = error["additionalInfo"][0]
    assert info["type"] == "UserFacingError"
    assert info["info"]["code"] == error["code"]
    assert info["info"]["message"] == error["message"]
    return str(error["code"])


def test_a_vault_is_created_with_201_and_polled_by_azure_async_operation_alone(arm: Arm) -> None:
    made = arm.put(arm.vault(), VAULT_BODY)
    assert made.status_code == 201
    assert made.json()["properties"]["provisioningState"] == "Provisioning"
    assert made.json()["location"] == "westus"
    assert "Location" not in made.headers, "az would take it for the resource"
    assert made.headers["Retry-After"] == "1", "whole seconds for clients that read nothing else"
    status = arm.get(made.headers["Azure-AsyncOperation"])
    assert (status.status_code, status.json()["status"]) == (200, "Succeeded")
    vault = arm.get(arm.vault()).json()
    assert vault["properties"]["provisioningState"] == "Succeeded"
    assert vault["identity"]["principalId"]
    assert vault["properties"]["securitySettings"]["softDeleteSettings"]["state"] == "On"


def test_the_first_answer_names_whole_seconds_also_to_azure_core_whose_code_reads_an_integer(arm: Arm) -> None:
    made = arm.put(arm.vault(), VAULT_BODY, User_Agent="azsdk-python-mgmt-dataprotection/2.2.0 Python/3.11")
    assert int(made.headers["Retry-After"]) == 1


def test_a_put_that_changes_nothing_answers_200_and_keeps_the_etag(arm: Arm) -> None:
    arm.put(arm.vault(), VAULT_BODY)
    first = arm.get(arm.vault()).json()
    again = arm.put(arm.vault(), VAULT_BODY)
    assert again.status_code == 200
    assert again.json()["eTag"] == first["eTag"]
    whole = arm.put(arm.vault(), first)
    assert whole.status_code == 200, "az updates by sending back what it got"


def test_paths_are_found_in_any_casing_and_names_keep_theirs(arm: Arm) -> None:
    arm.put(arm.vault("MyVault"), VAULT_BODY)
    found = arm.get(arm.vault("MYVAULT").upper())
    assert found.json()["id"] == arm.vault("MyVault")
    shouted = {"LOCATION": "westus", "IDENTITY": {"TYPE": "systemassigned"}, "Unknown": 1, "tags": None}
    shouted["Properties"] = {"STORAGESETTINGS": [{"DataStoreType": "operationalstore", "TYPE": "locallyredundant"}]}
    assert arm.put(arm.vault("myvault"), shouted).status_code == 200, "the same vault, spelled otherwise"


def test_conditions_are_kept(arm: Arm) -> None:
    arm.put(arm.vault(), VAULT_BODY)
    etag = arm.get(arm.vault()).headers["ETag"]
    tagged = {**VAULT_BODY, "tags": {"a": "b"}}
    assert arm.put(arm.vault(), tagged, If_Match='"0000"').status_code == 412
    assert arm.get(arm.vault()).headers["ETag"] == etag
    assert arm.put(arm.vault(), tagged, If_Match=etag).status_code == 201
    assert arm.put(arm.vault(), VAULT_BODY, If_None_Match="*").status_code == 412


def test_a_vault_is_deleted_with_202_and_again_with_204(arm: Arm) -> None:
    arm.put(arm.vault(), VAULT_BODY)
    gone = arm.delete(arm.vault())
    assert gone.status_code == 202
    assert gone.content == b""
    assert "/locations/westus/operationStatus/" in gone.headers["Azure-AsyncOperation"]
    assert arm.get(gone.headers["Azure-AsyncOperation"]).json()["status"] == "Succeeded"
    assert arm.get(gone.headers["Location"]).status_code == 200
    assert arm.delete(arm.vault()).status_code == 204
    assert code_of(arm.get(arm.vault())) == "ResourceNotFound"


@pytest.mark.parametrize(
    ("change", "target"),
    [
        ({"storageSettings": []}, "properties.storageSettings"),
        (
            {"securitySettings": {"softDeleteSettings": {"state": "On", "retentionDurationInDays": 3}}},
            "properties.securitySettings.softDeleteSettings.retentionDurationInDays",
        ),
    ],
)
def test_what_is_not_acceptable_in_a_vault_is_named(arm: Arm, change: dict[str, Any], target: str) -> None:
    body = copy.deepcopy(VAULT_BODY)
    body["properties"] |= change
    refused = arm.put(arm.vault(), body)
    assert refused.status_code == 400
    assert code_of(refused) == "BMSUserErrorInvalidInput"
    assert refused.json()["error"]["target"] == target
    assert arm.get(arm.vault()).status_code == 404, "nothing half-made is left"


def test_what_cannot_be_undone_stays(arm: Arm) -> None:
    locked = copy.deepcopy(VAULT_BODY)
    locked["properties"]["securitySettings"] = {
        "softDeleteSettings": {"state": "AlwaysOn", "retentionDurationInDays": 14},
        "immutabilitySettings": {"state": "Locked"},
    }
    assert arm.put(arm.vault(), locked).status_code == 201
    assert arm.put(arm.vault(), VAULT_BODY).status_code == 400
    assert arm.get(arm.vault()).json()["properties"]["secureScore"] == "Adequate"


def test_policies_are_synchronous_keep_their_order_and_forget_a_stray_name(arm: Arm) -> None:
    arm.put(arm.vault(), VAULT_BODY)
    path = f"{arm.vault()}/backupPolicies/policy1"
    made = arm.put(path, POLICY_BODY)
    assert made.status_code == 200
    assert [r["name"] for r in made.json()["properties"]["policyRules"]] == ["BackupHourly", "Default"]
    assert "name" not in made.json()["properties"]
    assert arm.get(path).json() == made.json()
    assert arm.delete(path).status_code == 200
    assert arm.delete(path).status_code == 204


def test_all_problems_of_a_policy_are_told_together(arm: Arm) -> None:
    arm.put(arm.vault(), VAULT_BODY)
    body = copy.deepcopy(POLICY_BODY)
    trigger = body["properties"]["policyRules"][0]["trigger"]
    trigger["schedule"]["repeatingTimeIntervals"] = ["R/PT4H"]
    trigger["schedule"]["timeZone"] = "Middle Earth"
    body["properties"]["policyRules"][1]["lifecycles"][0]["deleteAfter"]["duration"] = "P3Y"
    refused = arm.put(f"{arm.vault()}/backupPolicies/policy1", body)
    assert refused.status_code == 400
    assert code_of(refused) == "BMSUserErrorInvalidInput"
    assert len(refused.json()["error"]["details"]) == 3


def test_lists_come_in_pages_whose_links_lead_to_all(arm: Arm) -> None:
    for n in range(5):
        arm.put(arm.vault(f"vault{n}"), VAULT_BODY)
    names = []
    answer = arm.get(f"{arm.root}/backupVaults", query="&$top=2")
    while True:
        names += [v["name"] for v in answer.json()["value"]]
        link = answer.json().get("nextLink")
        if not link:
            break
        assert len(names) <= 5
        answer = arm.get(link)
    assert names == [f"vault{n}" for n in range(5)]


def test_a_repeated_post_gets_the_first_answer_and_begins_nothing_again(arm: Arm) -> None:
    arm.put(arm.vault(), VAULT_BODY)
    body = {"backupInstance": instance_of(arm)}
    path = f"{arm.vault()}/validateForBackup"
    first = arm.post(path, body, x_ms_client_request_id="one")
    again = arm.post(path, body, x_ms_client_request_id="one")
    other = arm.post(path, body, x_ms_client_request_id="two")
    assert [a.status_code for a in (first, again, other)] == [202, 202, 202]
    operations = [a.headers["Azure-AsyncOperation"] for a in (first, again, other)]
    assert operations[0] == operations[1] != operations[2]
    assert first.headers["Location"].startswith(arm.server.url)


def test_what_is_known_to_be_missing_is_refused_at_once_and_all_together(arm: Arm) -> None:
    arm.put(arm.vault(), VAULT_BODY)
    refused = arm.put(f"{arm.vault()}/backupInstances/i1", {"properties": instance_of(arm)})
    assert refused.status_code == 400
    codes = {d["code"] for d in refused.json()["error"]["details"]}
    assert {"MissingSubscriptionRegistration", "ResourceNotFound", "ResourceGroupNotFound"} <= codes
    assert list(arm.get(f"{arm.vault()}/backupInstances").json()["value"]) == []


def test_a_missing_datasource_set_has_its_own_code(arm: Arm) -> None:
    arm.put(arm.vault(), VAULT_BODY)
    body = instance_of(arm)
    del body["dataSourceSetInfo"]
    refused = arm.put(f"{arm.vault()}/backupInstances/i1", {"properties": body})
    assert refused.status_code == 400
    assert code_of(refused) == "ScenarioPluginInvalidWorkflowDataRequest"


def test_the_official_client_reads_our_errors(server: RunningServer, arm: Arm) -> None:
    client = server.client(DataProtectionMgmtClient)
    with pytest.raises(ResourceNotFoundError) as missing:
        client.backup_vaults.get(arm.group, "nobody")
    assert missing.value.error is not None
    assert missing.value.error.code == "ResourceNotFound"
    with pytest.raises(HttpResponseError) as refused:
        client.backup_vaults.begin_create_or_update(arm.group, "9vault", VAULT_BODY)
    assert refused.value.status_code == 400


def test_a_vault_needs_its_resource_group_and_its_provider(arm: Arm) -> None:
    elsewhere = arm.vault().replace(arm.group, "nowhere")
    assert code_of(arm.put(elsewhere, VAULT_BODY)) == "ResourceGroupNotFound"
    stranger = arm.vault().replace(arm.server.subscription, str(uuid.uuid4()))
    assert code_of(arm.put(stranger, VAULT_BODY)) == "SubscriptionNotFound"


def test_requests_are_numbered_and_need_an_api_version(arm: Arm) -> None:
    answer = arm.get(f"{arm.root}/backupVaults", x_ms_correlation_request_id="mine")
    assert answer.headers["x-ms-request-id"]
    assert answer.headers["x-ms-correlation-request-id"] == "mine"
    bare = arm.session.get(f"{arm.server.url}{arm.root}/backupVaults", timeout=30)
    assert bare.status_code == 400
    assert code_of(bare) == "MissingApiVersionParameter"


def test_what_is_not_built_says_so(arm: Arm) -> None:
    arm.put(arm.vault(), VAULT_BODY)
    for method, path in (
        ("POST", f"{arm.vault()}/exportBackupJobs"),
        ("PUT", f"{arm.vault()}/backupResourceGuardProxies/DppResourceGuardProxy"),
        ("POST", f"{arm.root}/locations/westus/crossRegionRestore"),
    ):
        answer = arm.send(method, path, {})
        assert (answer.status_code, code_of(answer)) == (501, "NotSupported")


def test_names_and_features_can_be_asked_for(arm: Arm) -> None:
    path = f"{arm.root}/locations/westus/checkNameAvailability"
    question = {"name": "vault1", "type": "Microsoft.DataProtection/BackupVaults"}
    assert arm.post(path, question).json() == {"nameAvailable": True}
    arm.put(arm.vault(), VAULT_BODY)
    assert arm.post(path, question).json()["reason"] == "AlreadyExists"
    place = f"/subscriptions/{arm.server.subscription}/providers/Microsoft.DataProtection/locations/westus"
    feature = {
        "objectType": "FeatureValidationRequest",
        "featureType": "DataSourceType",
        "featureName": "Microsoft.ContainerService/managedClusters",
    }
    answer = arm.post(f"{place}/checkFeatureSupport", feature)
    assert answer.json()["features"][0]["supportStatus"] == "GenerallyAvailable"


def instance_of(arm: Arm) -> dict[str, Any]:
    """Return an instance whose cluster was never connected."""
    cluster = (
        f"/subscriptions/{arm.server.subscription}/resourceGroups/{arm.group}"
        "/providers/Microsoft.ContainerService/managedClusters/c1"
    )
    source = {
        "objectType": "Datasource",
        "datasourceType": "Microsoft.ContainerService/managedClusters",
        "resourceId": cluster,
        "resourceLocation": "westus",
    }
    return {
        "objectType": "BackupInstance",
        "friendlyName": "c1/all",
        "dataSourceInfo": source,
        "dataSourceSetInfo": {**source, "objectType": "DatasourceSet"},
        "policyInfo": {
            "policyId": f"{arm.vault()}/backupPolicies/p1",
            "policyParameters": {
                "dataStoreParametersList": [
                    {
                        "objectType": "AzureOperationalStoreParameters",
                        "dataStoreType": "OperationalStore",
                        "resourceGroupId": f"/subscriptions/{arm.server.subscription}/resourceGroups/snapshots",
                    }
                ],
                "backupDatasourceParametersList": [
                    {
                        "objectType": "KubernetesClusterBackupDatasourceParameters",
                        "snapshotVolumes": True,
                        "includeClusterScopeResources": True,
                        "includedNamespaces": None,
                    }
                ],
            },
        },
    }
