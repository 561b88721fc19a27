"""Request bodies: what clients send is read as it is meant, everything else is refused with its place."""

import enum
import json
from typing import Any

import pytest
from azure.mgmt.dataprotection import models
from azure.mgmt.dataprotection import types as azure_types
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.controlplane.arm.shapes import MAX_BODY_BYTES, Shape, shape
from strongroom.protection.errors import Refused

CLUSTER = "/subscriptions/S/resourceGroups/aksrg/providers/Microsoft.ContainerService/managedClusters/clusterA"
VAULT_ID = "/subscriptions/S/resourceGroups/rg/providers/Microsoft.DataProtection/backupVaults/v"

# The bodies are those of recordings and of real requests by az: reference/azure-backup-for-aks.md, section 3.5.
VAULT: dict[str, Any] = {
    "location": "westus",
    "identity": {"type": "SystemAssigned"},
    "properties": {
        "storageSettings": [{"datastoreType": "VaultStore", "type": "LocallyRedundant"}],
        "securitySettings": {
            "softDeleteSettings": {"state": "On", "retentionDurationInDays": 14.0},
            "immutabilitySettings": {"state": "Unlocked"},
        },
        "featureSettings": {
            "crossRegionRestoreSettings": {"state": "Enabled"},
            "crossSubscriptionRestoreSettings": {"state": "Enabled"},
        },
    },
}
OPERATIONAL = {"objectType": "DataStoreInfoBase", "dataStoreType": "OperationalStore"}
VAULT_STORE = {"objectType": "DataStoreInfoBase", "dataStoreType": "VaultStore"}
POLICY: dict[str, Any] = {
    "properties": {
        "objectType": "BackupPolicy",
        "datasourceTypes": ["Microsoft.ContainerService/managedClusters"],
        "policyRules": [
            {
                "objectType": "AzureBackupRule",
                "name": "BackupHourly",
                "backupParameters": {"objectType": "AzureBackupParams", "backupType": "Incremental"},
                "dataStore": OPERATIONAL,
                "trigger": {
                    "objectType": "ScheduleBasedTriggerContext",
                    "schedule": {"repeatingTimeIntervals": ["R/2023-01-04T09:00:00+00:00/PT4H"], "timeZone": "UTC"},
                    "taggingCriteria": [
                        {
                            "tagInfo": {"id": "Daily_", "tagName": "Daily"},
                            "taggingPriority": 25,
                            "isDefault": False,
                            "criteria": [
                                {"objectType": "ScheduleBasedBackupCriteria", "absoluteCriteria": ["FirstOfDay"]}
                            ],
                        },
                        {"tagInfo": {"id": "Default_", "tagName": "Default"}, "taggingPriority": 99, "isDefault": True},
                    ],
                },
            },
            {
                "objectType": "AzureRetentionRule",
                "name": "Default",
                "isDefault": True,
                "lifecycles": [
                    {
                        "deleteAfter": {"objectType": "AbsoluteDeleteOption", "duration": "P7D"},
                        "sourceDataStore": OPERATIONAL,
                        "targetDataStoreCopySettings": [
                            {"copyAfter": {"objectType": "ImmediateCopyOption"}, "dataStore": VAULT_STORE}
                        ],
                    }
                ],
            },
        ],
    }
}
DATASOURCE = {
    "objectType": "Datasource",
    "datasourceType": "Microsoft.ContainerService/managedClusters",
    "resourceType": "Microsoft.ContainerService/managedclusters",
    "resourceID": CLUSTER,
    "resourceUri": CLUSTER,
    "resourceName": "clusterA",
    "resourceLocation": "westus",
}
INSTANCE: dict[str, Any] = {
    "properties": {
        "objectType": "BackupInstance",
        "friendlyName": "clusterA/shop",
        "dataSourceInfo": DATASOURCE,
        "dataSourceSetInfo": DATASOURCE | {"objectType": "DatasourceSet"},
        "policyInfo": {
            "policyId": f"{VAULT_ID}/backupPolicies/akspolicy",
            "policyParameters": {
                "dataStoreParametersList": [
                    {
                        "objectType": "AzureOperationalStoreParameters",
                        "dataStoreType": "OperationalStore",
                        "resourceGroupId": "/subscriptions/S/resourceGroups/snapshotrg",
                    }
                ],
                "backupDatasourceParametersList": [
                    {
                        "objectType": "KubernetesClusterBackupDatasourceParameters",
                        "snapshotVolumes": True,
                        "includeClusterScopeResources": True,
                        "excludedResourceTypes": ["v1/Secret"],
                        "labelSelectors": ["env=prod"],
                        "backupHookReferences": [{"name": "bkphookname0", "namespace": "default"}],
                    }
                ],
            },
        },
    },
    "tags": {"k": "v"},
}
RESTORE: dict[str, Any] = {
    "objectType": "AzureBackupRecoveryPointBasedRestoreRequest",
    "recoveryPointId": "745c287056794409bf2441b17b02aeaa",
    "sourceDataStoreType": "OperationalStore",
    "restoreTargetInfo": {
        "objectType": "ItemLevelRestoreTargetInfo",
        "recoveryOption": "FailIfExists",
        "restoreLocation": "westus",
        "datasourceInfo": DATASOURCE,
        "datasourceSetInfo": DATASOURCE | {"objectType": "DatasourceSet"},
        "restoreCriteria": [
            {
                "objectType": "KubernetesClusterRestoreCriteria",
                "includeClusterScopeResources": True,
                "includedNamespaces": ["shop"],
                "persistentVolumeRestoreMode": "RestoreWithVolumeData",
                "conflictPolicy": "Skip",
                "namespaceMappings": {"shop": "shop2", "ClusterA": "b"},
                "restoreHookReferences": [{"name": "restorehookname0", "namespace": "default"}],
                "resourceModifierReference": {"name": "cm", "namespace": "default"},
            }
        ],
    },
}
ADHOC = {"backupRuleOptions": {"ruleName": "BackupHourly", "triggerOption": {"retentionTagOverride": "Default"}}}
BODIES: list[tuple[type, dict[str, Any]]] = [
    (models.BackupVaultResource, VAULT),
    (models.BaseBackupPolicyResource, POLICY),
    (models.BackupInstanceResource, INSTANCE),
    (models.ValidateForBackupRequest, {"backupInstance": INSTANCE["properties"]}),
    (models.ValidateForModifyBackupRequest, {"backupInstance": INSTANCE["properties"]}),
    (models.AzureBackupRestoreRequest, RESTORE),
    (models.ValidateRestoreRequestObject, {"restoreRequestObject": RESTORE}),
    (models.TriggerBackupRequest, ADHOC),
    (models.PatchResourceRequestInput, {"tags": {"a": "b"}, "properties": {"securitySettings": {}}}),
    (models.CheckNameAvailabilityRequest, {"name": "v", "type": "Microsoft.DataProtection/BackupVaults"}),
    (models.FeatureValidationRequestBase, {"objectType": "FeatureValidationRequest", "featureName": "x"}),
    (models.SyncBackupInstanceRequest, {"syncType": "ForceResync"}),
    (models.StopProtectionRequest, {"resourceGuardOperationRequests": ["/x"]}),
]


def kinds(bodies: list[tuple[type, dict[str, Any]]]) -> list[Any]:
    return [pytest.param(kind, body, id=kind.__name__) for kind, body in bodies]


def recased(value: Any, case: Any, *, free: bool = False) -> Any:
    """Return *value* with every property name in another case, free maps left alone."""
    if isinstance(value, dict):
        return {
            key if free else case(key): recased(item, case, free=key in ("tags", "namespaceMappings"))
            for key, item in value.items()
        }
    return [recased(item, case) for item in value] if isinstance(value, list) else value


def with_noise(value: Any) -> Any:
    """Return *value* with explicit nulls and unknown properties in every object that is not a free map."""
    if isinstance(value, dict):
        noisy = {key: item if key in ("tags", "namespaceMappings") else with_noise(item) for key, item in value.items()}
        return {"unknownThing": {"deep": [1, None]}, **noisy, "unknownNull": None}
    return [with_noise(item) for item in value] if isinstance(value, list) else value


def refused(read: Shape, document: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        read.read(document)
    return caught.value


@pytest.mark.parametrize(("kind", "body"), kinds(BODIES))
def test_what_clients_send_is_read_unchanged(kind: type, body: dict[str, Any]) -> None:
    assert shape(kind).read(json.dumps(body).encode()) == body


@pytest.mark.parametrize("case", [str.lower, str.upper, str.swapcase])
@pytest.mark.parametrize(("kind", "body"), kinds(BODIES))
def test_property_names_get_the_schemas_casing(kind: type, body: dict[str, Any], case: Any) -> None:
    assert shape(kind).read(recased(body, case)) == body


@pytest.mark.parametrize(("kind", "body"), kinds(BODIES))
def test_nulls_and_unknown_properties_are_left_out_at_every_level(kind: type, body: dict[str, Any]) -> None:
    assert shape(kind).read(with_noise(body)) == body


@pytest.mark.parametrize(("kind", "body"), kinds(BODIES))
def test_what_is_read_goes_through_the_sdks_model_unchanged(kind: Any, body: dict[str, Any]) -> None:
    read = shape(kind).read(body)
    assert kind._deserialize(read, []).as_dict() == read


def test_azs_spelling_of_a_cluster_id_in_a_validation_is_the_instances() -> None:
    instance = json.loads(json.dumps(INSTANCE["properties"]).replace('"resourceID"', '"resourceId"'))
    body = {"backupInstance": instance | {"datasourceAuthCredentials": None}}
    assert shape(models.ValidateForBackupRequest).read(body) == {"backupInstance": INSTANCE["properties"]}


def test_azs_extras_in_policy_and_restore_are_dropped() -> None:
    policy = {"properties": POLICY["properties"] | {"name": "AKSPolicy1"}}
    assert shape(models.BaseBackupPolicyResource).read(policy) == POLICY
    body = {"objectType": "ValidateRestoreRequestObject", "restoreRequestObject": RESTORE}
    assert shape(models.ValidateRestoreRequestObject).read(body) == {"restoreRequestObject": RESTORE}


def test_a_whole_answer_sent_back_loses_what_only_the_service_writes() -> None:
    answer = {
        **INSTANCE,
        "id": f"{VAULT_ID}/backupInstances/i",
        "name": "i",
        "type": "Microsoft.DataProtection/backupVaults/backupInstances",
        "systemData": {"createdBy": 7},
        "properties": INSTANCE["properties"]
        | {
            "protectionStatus": {"status": "AStateOfAnotherVersion"},
            "currentProtectionState": "ProtectionConfigured",
            "provisioningState": "Succeeded",
        },
    }
    assert shape(models.BackupInstanceResource).read(answer) == INSTANCE


def test_discriminators_and_enumerations_get_the_canonical_casing() -> None:
    body = json.loads(
        json.dumps(RESTORE).replace("KubernetesClusterRestoreCriteria", "kubernetesclusterrestorecriteria")
    )
    body["restoreTargetInfo"]["restoreCriteria"][0]["conflictPolicy"] = "SKIP"
    body["objectType"] = body["objectType"].upper()
    assert shape(models.AzureBackupRestoreRequest).read(body) == RESTORE


def test_rules_and_properties_keep_the_callers_order() -> None:
    body = {"properties": dict(reversed(POLICY["properties"].items()))}
    body["properties"]["policyRules"] = list(reversed(POLICY["properties"]["policyRules"]))
    assert json.dumps(shape(models.BaseBackupPolicyResource).read(body)) == json.dumps(body)


def test_free_keys_that_differ_in_case_are_two() -> None:
    body = {"tags": {"Env": "a", "env": "b"}}
    assert shape(models.PatchResourceRequestInput).read(body) == body


def test_a_name_in_two_cases_is_refused_unless_one_is_null() -> None:
    read = shape(models.CheckNameAvailabilityRequest)
    assert refused(read, {"name": "a", "Name": "b"}).error.target == "name"
    assert read.read({"name": None, "Name": "b"}) == {"name": "b"}


def test_every_problem_is_told_with_place_finding_and_what_is_accepted() -> None:
    body = json.loads(json.dumps(POLICY))
    rule = body["properties"]["policyRules"][0]
    rule["trigger"]["objectType"] = "Sometimes"
    rule["dataStore"]["dataStoreType"] = 5
    del rule["name"]
    error = refused(shape(models.BaseBackupPolicyResource), body).error
    assert error.code == "BMSUserErrorInvalidInput"
    assert {problem.target: problem.message for problem in error.details} == {
        "properties.policyRules[0].trigger.objectType": (
            "found 'Sometimes', accepted: AdhocBasedTriggerContext, ScheduleBasedTriggerContext"
        ),
        "properties.policyRules[0].dataStore.dataStoreType": (
            "found a number, accepted: one of OperationalStore, VaultStore, ArchiveStore"
        ),
        "properties.policyRules[0].name": "is missing",
    }
    assert "properties.policyRules[0].name: is missing" in error.message


def test_a_missing_discriminator_names_the_kinds() -> None:
    error = refused(shape(models.AzureBackupRestoreRequest), {"recoveryPointId": "x"}).error
    assert error.target == "objectType"
    assert "AzureBackupRecoveryPointBasedRestoreRequest" in error.message


@pytest.mark.parametrize(
    ("kind", "body", "target"),
    [
        (models.BackupVaultResource, {"location": "w"}, "properties"),
        (models.BackupVaultResource, {"location": None, "properties": {}}, "location"),
        (models.BackupInstanceResource, {"tags": {}}, "properties"),
        (models.BackupVaultResource, {"location": "w", "properties": []}, "properties"),
        (models.PatchResourceRequestInput, {"tags": {"a b": 5}}, "tags['a b']"),
        (models.PatchResourceRequestInput, {"tags": ["a"]}, "tags"),
        (models.PatchResourceRequestInput, {"tags": {"a": "\ud800"}}, "tags.a"),
        (models.PatchResourceRequestInput, {"tags": {"a\0": "b"}}, "tags"),
        (models.CheckNameAvailabilityRequest, {"name": "a\0b"}, "name"),
        (models.SyncBackupInstanceRequest, {"syncType": "Later"}, "syncType"),
        (models.StopProtectionRequest, {"resourceGuardOperationRequests": [None]}, "resourceGuardOperationRequests[0]"),
    ],
)
def test_a_wrong_value_is_refused_at_its_place(kind: type, body: dict[str, Any], target: str) -> None:
    error = refused(shape(kind), body).error
    assert (error.target, error.code) == (target, "BMSUserErrorInvalidInput")


@pytest.mark.parametrize("value", [True, "14", [], float("inf"), 10**400])
def test_only_a_finite_number_is_a_number(value: object) -> None:
    body = {"properties": {"securitySettings": {"softDeleteSettings": {"retentionDurationInDays": value}}}}
    target = "properties.securitySettings.softDeleteSettings.retentionDurationInDays"
    assert refused(shape(models.PatchResourceRequestInput), body).error.target == target


@pytest.mark.parametrize(("value", "read"), [(5, 5), (5.0, 5)])
def test_an_integer_written_as_a_float_is_an_integer(value: object, read: int) -> None:
    body = json.loads(json.dumps(POLICY))
    body["properties"]["policyRules"][0]["trigger"]["taggingCriteria"][0]["taggingPriority"] = value
    found = shape(models.BaseBackupPolicyResource).read(body)
    priority = found["properties"]["policyRules"][0]["trigger"]["taggingCriteria"][0]["taggingPriority"]
    assert (priority, type(priority)) == (read, int)


@pytest.mark.parametrize("value", [5.5, 2**63, "5", True, float("nan")])
def test_other_numbers_are_no_integers(value: object) -> None:
    body = json.loads(json.dumps(POLICY))
    body["properties"]["policyRules"][0]["trigger"]["taggingCriteria"][0]["taggingPriority"] = value
    refused(shape(models.BaseBackupPolicyResource), body)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"  ",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b'{"a": 1,}',
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
        b'{"unknown": {"a": 1, "a": 1}}',
        b"\xff\xfe{\x00}\x00",
        b'{"a": "\xff"}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "tab\tinside"}',
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b"[" * 3_000_000,
        b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"a": [' + b",".join([b"{}"] * 100_001) + b"]}",
        b'{"tags": {' + b",".join(b'"%d": ""' % number for number in range(100_000)) + b', "0": ""}}',
    ],
)
def test_bytes_that_are_no_acceptable_object_are_refused_as_arm_does(raw: bytes) -> None:
    error = refused(shape(models.PatchResourceRequestInput), raw)
    assert (error.error.code, error.status) == ("InvalidRequestContent", 400)
    assert len(error.error.message) < 300


def test_a_body_over_the_limit_is_refused_unread() -> None:
    error = refused(shape(models.PatchResourceRequestInput), b'{"a": "' + b"x" * MAX_BODY_BYTES + b'"}')
    assert (error.error.code, error.status) == ("RequestEntityTooLarge", 413)


def test_a_byte_order_mark_is_no_fault() -> None:
    assert shape(models.PatchResourceRequestInput).read(b'\xef\xbb\xbf{"tags": {}}') == {"tags": {}}


def test_an_empty_body_is_an_empty_object_where_the_operation_allows_it() -> None:
    assert shape(models.StopProtectionRequest).read(b"", may_be_empty=True) == {}


def test_an_error_stays_short_and_repeats_no_value() -> None:
    body = {"properties": {"securitySettings": "hunter2"}, "tags": {str(number): 5 for number in range(10_000)}}
    error = refused(shape(models.PatchResourceRequestInput), body).error
    assert len(error.details) == 20
    assert "has 1000 or more problems" in error.message
    assert len(error.message) < 2000
    assert "hunter2" not in error.message


def test_the_typed_dict_beside_a_model_stands_for_it() -> None:
    assert shape(azure_types.BackupVaultResource).read(VAULT) == VAULT


def test_a_union_beside_the_models_is_read_with_the_kinds_that_it_lacks() -> None:
    assert shape(azure_types.AzureBackupRestoreRequest).read(RESTORE) == RESTORE
    assert shape(azure_types.RestoreTargetInfoBase).read(RESTORE["restoreTargetInfo"]) == RESTORE["restoreTargetInfo"]


@pytest.mark.parametrize("kind", [int, str | int, enum.Enum, models.SyncType])
def test_what_is_no_document_has_no_shape(kind: object) -> None:
    with pytest.raises(TypeError):
        shape(kind)


def test_every_model_of_the_sdk_has_a_shape_and_a_schema() -> None:
    for name in models.__all__:
        kind = getattr(models, name)
        if not issubclass(kind, enum.Enum):
            reference, components = shape(kind).schema()
            assert reference["$ref"].rpartition("/")[2] in components, name


def test_a_schema_tells_kinds_apart_and_marks_what_the_service_writes() -> None:
    _, components = shape(models.BackupInstanceResource).schema("#/x/")
    assert components["BackupInstance"]["properties"]["currentProtectionState"]["readOnly"] is True
    assert "properties" in components["BackupInstanceResource"]["required"]
    kinds_of = components["BackupDatasourceParameters"]["discriminator"]
    assert kinds_of["propertyName"] == "objectType"
    assert kinds_of["mapping"]["KubernetesClusterBackupDatasourceParameters"] == (
        "#/x/KubernetesClusterBackupDatasourceParameters"
    )
    assert components["UserFacingError"]["properties"]["details"]["items"] == {"$ref": "#/x/UserFacingError"}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """Return *value* with a few of its parts replaced, lost or doubled under another name."""
    if draw(st.integers(0, 11)) == 0:
        return draw(JSON_VALUES)
    if isinstance(value, dict):
        changed = {}
        for key, item in value.items():
            fate = draw(st.integers(0, 15))
            if fate != 0:
                changed[key.upper() if fate == 1 else key] = draw(mutated(item))
            if fate == 2:
                changed[key.swapcase()] = item
        return changed
    if isinstance(value, list):
        return [draw(mutated(item)) for item in value]
    return value


def read_or_refusal(read: Shape, document: Any) -> dict[str, Any] | Refused:
    try:
        return read.read(document)
    except Refused as refusal:
        return refusal


@pytest.mark.parametrize(("kind", "body"), kinds(BODIES))
@settings(max_examples=30)
@given(data=st.data())
def test_a_mutated_body_is_read_or_refused(kind: type, body: dict[str, Any], data: st.DataObject) -> None:
    document = data.draw(mutated(body))
    for form in (document if isinstance(document, dict) else {}, json.dumps(document).encode()):
        found = read_or_refusal(shape(kind), form)
        if isinstance(found, Refused):
            assert found.status == 400
            assert found.error.message.isascii()
        else:
            json.dumps(found, allow_nan=False, ensure_ascii=False).encode()  # a database can store it
            assert shape(kind).read(found) == found


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    found = read_or_refusal(shape(models.PatchResourceRequestInput), raw)
    assert isinstance(found, dict) or found.error.code in ("InvalidRequestContent", "BMSUserErrorInvalidInput")
