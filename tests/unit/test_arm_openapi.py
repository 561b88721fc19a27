"""The OpenAPI document says what the API takes and answers, and nothing that it would refuse."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from azure.mgmt.dataprotection import models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig

from strongroom.controlplane.arm import bodies
from strongroom.controlplane.arm.answers import ANSWERS
from strongroom.controlplane.arm.openapi import document
from strongroom.controlplane.arm.shapes import Shape, shape

CLUSTERS = "/{+scope}/providers/Microsoft.ContainerService/managedClusters"
VAULT = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.DataProtection/backupVaults/{vault}"


def answer() -> None:
    """Answer something.

    And say how.
    """


@dataclass(frozen=True)
class Row:
    name: str
    method: str
    path: str
    body: Shape | None = None
    statuses: tuple[int, ...] = (200,)
    query: tuple[str, ...] = ()
    summary: str = ""
    optional_body: bool = False
    needs_api_version: bool = True
    handler: Callable[..., Any] = answer


ROWS = (
    Row("BackupVaults_CreateOrUpdate", "PUT", VAULT, shape(models.BackupVaultResource), (200, 201)),
    Row("BackupVaults_Update", "PATCH", VAULT, shape(models.PatchResourceRequestInput), (200, 202)),
    Row("BackupVaults_Get", "GET", VAULT),
    Row("BackupPolicies_CreateOrUpdate", "PUT", f"{VAULT}/backupPolicies/{{p}}",
        shape(models.BaseBackupPolicyResource)),
    Row("BackupInstances_CreateOrUpdate", "PUT", f"{VAULT}/backupInstances/{{i}}",
        shape(models.BackupInstanceResource)),
    Row("BackupInstances_TriggerRestore", "POST", f"{VAULT}/backupInstances/{{i}}/restore",
        shape(models.AzureBackupRestoreRequest), (202,)),
    Row("BackupInstances_StopProtection", "POST", f"{VAULT}/backupInstances/{{i}}/stopProtection",
        shape(models.StopProtectionRequest), (200, 202), optional_body=True),
    Row("Jobs_List", "GET", f"{VAULT}/backupJobs", query=("$filter", "$top", "$skipToken"), summary="List jobs."),
    Row("RoleAssignments_Create", "PUT", "/{+scope}/providers/Microsoft.Authorization/roleAssignments/{name}",
        shape(bodies.RoleAssignmentBody), (200, 201)),
    Row("ManagedClusters_CreateOrUpdate", "PUT", f"{CLUSTERS}/{{name}}",
        shape(bodies.ManagedClusterBody), (200, 201)),
    Row("StorageAccounts_Create", "PUT", "/{+scope}/providers/Microsoft.Storage/storageAccounts/{name}",
        shape(bodies.StorageAccountBody), (200, 202)),
    Row("Extensions_Create", "PUT", "/{+scope}/providers/Microsoft.KubernetesConfiguration/extensions/{name}",
        shape(bodies.ExtensionBody), (200, 201)),
    Row("Resources", "POST", "/providers/Microsoft.ResourceGraph/resources", shape(bodies.ResourceGraphQuery)),
)  # fmt: skip
DOCUMENT = document(ROWS, ANSWERS, version="1.2.3", endpoint="https://127.0.0.1:8443")
# NUL is the one character that a shape refuses and the document does not speak of.
GENERATED = schemathesis.openapi.from_dict(
    DOCUMENT, config=SchemathesisConfig.from_dict({"generation": {"allow-x00": False, "mode": "positive"}})
)


def test_the_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    GENERATED.validate()
    assert len(list(GENERATED.get_all_operations())) == len(ROWS)


def test_every_operation_needs_a_token_and_an_api_version_and_has_arms_errors() -> None:
    assert DOCUMENT["security"] == [{"bearer": []}]
    for item in DOCUMENT["paths"].values():
        for operation in item.values():
            assert {"$ref": "#/components/parameters/ApiVersion"} in operation["parameters"]
            assert operation["responses"]["4XX"] == {"$ref": "#/components/responses/Error"}
            assert operation["responses"]["5XX"] == {"$ref": "#/components/responses/Error"}
            assert "default" not in operation["responses"]
    error = DOCUMENT["components"]["schemas"]["ArmErrorDetail"]
    assert error["required"] == ["code", "message"]


def test_answers_have_the_sdks_shapes_and_long_running_ones_say_where_to_ask() -> None:
    put = DOCUMENT["paths"][VAULT]["put"]["responses"]
    vault = {"$ref": "#/components/schemas/BackupVaultResource"}
    assert put["200"]["content"]["application/json"]["schema"] == vault
    assert put["201"]["content"]["application/json"]["schema"] == vault
    assert "Azure-AsyncOperation" in put["201"]["headers"]
    restore = DOCUMENT["paths"][f"{VAULT}/backupInstances/{{i}}/restore"]["post"]
    assert "content" not in restore["responses"]["202"]
    assert set(restore["responses"]["202"]["headers"]) == {"Azure-AsyncOperation", "Location", "Retry-After"}
    page = DOCUMENT["components"]["schemas"]["AzureBackupJobResourcePage"]
    assert page["required"] == ["value"]


def test_parameters_bodies_and_words_come_from_the_table() -> None:
    jobs = DOCUMENT["paths"][f"{VAULT}/backupJobs"]["get"]
    assert [parameter.get("name") for parameter in jobs["parameters"]] == [
        "subscription", "group", "vault", None, "$filter", "$top", "$skipToken",
    ]  # fmt: skip
    assert jobs["summary"] == "List jobs."
    stop = DOCUMENT["paths"][f"{VAULT}/backupInstances/{{i}}/stopProtection"]["post"]
    assert stop["requestBody"]["required"] is False
    assert (stop["summary"], stop["description"]) == ("Answer something.", "And say how.")
    assert stop["tags"] == ["Microsoft.DataProtection"]
    assert "/{scope}/providers/Microsoft.Authorization/roleAssignments/{name}" in DOCUMENT["paths"]


@pytest.mark.parametrize(
    "row",
    [
        Row("BackupVaults_Get", "GET", "/elsewhere"),
        Row("Again", "GET", VAULT),
        Row("OtherNames", "GET", VAULT.replace("{vault}", "{name}")),
    ],
)
def test_what_a_document_cannot_say_is_refused(row: Row) -> None:
    with pytest.raises(ValueError, match="two"):
        document([*ROWS, row], ANSWERS, version="0")


def test_two_shapes_of_one_name_are_refused() -> None:
    Twin = type("BackupVault", (), {})  # noqa: N806 - a class
    other = Shape(Twin.__name__, shape(bodies.TagsPatch).node, "x")
    object.__setattr__(other, "schema", lambda: ({}, {"BackupVault": {"type": "object"}}))
    with pytest.raises(ValueError, match="two shapes are called BackupVault"):
        document([*ROWS, Row("Twin", "GET", "/twin", other)], ANSWERS, version="0")


BODIES = {row.name: row.body for row in ROWS if row.body is not None}


@pytest.mark.parametrize("name", BODIES)
@settings(max_examples=10, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_what_the_document_calls_acceptable_is_read(name: str, data: st.DataObject) -> None:
    case = data.draw(GENERATED.find_operation_by_id(name).as_strategy())
    if isinstance(case.body, dict):
        BODIES[name].read(case.body)
    else:
        assert name == "BackupInstances_StopProtection"
