"""Reading the documents of instances and restores: what Azure's clients send passes, what is wrong has its path."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.protection.errors import Refused
from strongroom.protection.job import Limits
from strongroom.protection.restore import RestoreRequest, parse_restore_request
from strongroom.protection.selection import (
    ConflictPolicy,
    Reference,
    VolumeRestoreMode,
    VolumeType,
    parse_backup_configuration,
)
from strongroom.protection.settings import InstanceSettings, check_update, parse_instance

Document = dict[str, Any]

CLUSTER = "/subscriptions/S/resourceGroups/aksrg/providers/Microsoft.ContainerService/managedClusters/clusterA"
OTHER = CLUSTER.replace("clusterA", "clusterB")
POLICY = "/subscriptions/S/resourceGroups/vaultrg/providers/Microsoft.DataProtection/backupVaults/v/backupPolicies/p"


def datasource(kind: str = "Datasource", resource_id: str = CLUSTER) -> Document:
    return {
        "objectType": kind,
        "datasourceType": "Microsoft.ContainerService/managedClusters",
        "resourceType": "Microsoft.ContainerService/managedclusters",
        "resourceID": resource_id,
        "resourceUri": resource_id,
        "resourceName": "clusterA",
        "resourceLocation": "westus",
    }


def configuration() -> Document:
    return {
        "objectType": "KubernetesClusterBackupDatasourceParameters",
        "snapshotVolumes": True,
        "includeClusterScopeResources": True,
        "includedNamespaces": None,
        "excludedNamespaces": ["scratch"],
        "includedResourceTypes": ["apps/Deployment", "apps/v1/StatefulSet", "configmaps"],
        "excludedResourceTypes": ["v1/Secret"],
        "labelSelectors": ["env=prod"],
        "includedVolumeTypes": ["AzureDisk"],
        "backupHookReferences": [{"name": "bkphookname0", "namespace": "default"}],
    }


def instance() -> Document:
    """The PUT that the CLI sends (recorded)."""
    return {
        "objectType": "BackupInstance",
        "friendlyName": "clusterA/shop",
        "dataSourceInfo": datasource(),
        "dataSourceSetInfo": datasource("DatasourceSet"),
        "policyInfo": {
            "policyId": POLICY,
            "policyParameters": {
                "dataStoreParametersList": [
                    {
                        "objectType": "AzureOperationalStoreParameters",
                        "dataStoreType": "OperationalStore",
                        "resourceGroupId": "/subscriptions/S/resourceGroups/snapshotrg",
                    }
                ],
                "backupDatasourceParametersList": [configuration()],
            },
        },
    }


def restore() -> Document:
    return {
        "objectType": "AzureBackupRecoveryPointBasedRestoreRequest",
        "recoveryPointId": "745c287056794409bf2441b17b02aeaa",
        "sourceDataStoreType": "OperationalStore",
        "sourceResourceId": None,
        "restoreTargetInfo": {
            "objectType": "ItemLevelRestoreTargetInfo",
            "recoveryOption": "FailIfExists",
            "restoreLocation": "westus",
            "datasourceInfo": datasource(resource_id=OTHER),
            "datasourceSetInfo": datasource("DatasourceSet", OTHER),
            "restoreCriteria": [
                {
                    "objectType": "KubernetesClusterRestoreCriteria",
                    "includeClusterScopeResources": True,
                    "includedNamespaces": ["shop"],
                    "persistentVolumeRestoreMode": "RestoreWithVolumeData",
                    "conflictPolicy": "Patch",
                    "namespaceMappings": {"shop": "shop2"},
                    "restoreHookReferences": [{"name": "restorehookname0", "namespace": "default"}],
                    "resourceModifierReference": {"name": "cm", "namespace": "default"},
                }
            ],
        },
    }


def refusal(parse: Callable[[Document], object], document: Document) -> dict[str, str]:
    with pytest.raises(Refused) as caught:
        parse(document)
    error = caught.value.error
    return {each.target: each.code for each in (error.details or (error,))}


def test_the_instance_that_the_cli_sends_is_read_whole() -> None:
    settings = parse_instance(instance())
    assert settings.friendly_name == "clusterA/shop"
    assert settings.datasource.id == CLUSTER
    assert settings.datasource.name == "clusterA"
    assert settings.datasource.location == "westus"
    assert settings.policy_id == POLICY
    assert settings.snapshot_group_id == "/subscriptions/S/resourceGroups/snapshotrg"
    chosen = settings.configuration
    assert chosen.snapshot_volumes
    assert chosen.volume_types == (VolumeType.AZURE_DISK,)
    assert chosen.hooks == (Reference("bkphookname0", "default"),)
    assert chosen.filter.include_cluster_scope
    assert chosen.filter.included_namespaces == ()
    assert chosen.filter.excluded_namespaces == ("scratch",)
    assert chosen.filter.label_selectors == ("env=prod",)
    assert chosen.filter.excluded_types == ("v1/Secret",)


def test_resource_types_are_given_on_as_they_were_written() -> None:
    chosen = parse_backup_configuration(configuration(), "")
    assert chosen.filter.included_types == ("apps/Deployment", "apps/v1/StatefulSet", "configmaps")


def test_blanks_in_the_ids_of_the_how_to_do_no_harm() -> None:
    document = instance()
    document["policyInfo"]["policyId"] = " " + POLICY.replace("/p", " / p") + " "
    assert parse_instance(document).policy_id == POLICY.replace(" ", "")


def test_an_entry_for_the_vault_store_that_newer_clients_add_is_passed_over() -> None:
    document = instance()
    entries = document["policyInfo"]["policyParameters"]["dataStoreParametersList"]
    entries.append({**entries[0], "dataStoreType": "VaultStore"})
    assert parse_instance(document) == parse_instance(instance())


def test_an_instance_without_datasource_set_is_refused_at_once_with_azures_code() -> None:
    document = instance()
    del document["dataSourceSetInfo"]
    found = refusal(parse_instance, document)
    assert found == {"properties.dataSourceSetInfo": "ScenarioPluginInvalidWorkflowDataRequest"}


PARAMETERS = "properties.policyInfo.policyParameters"

BROKEN_INSTANCES: dict[str, tuple[Callable[[Document], Any], str]] = {
    "another datasource type": (
        lambda d: d["dataSourceInfo"].update(datasourceType="Microsoft.Compute/disks"),
        "properties.dataSourceInfo.datasourceType",
    ),
    "an id of something else": (
        lambda d: d["dataSourceInfo"].update(resourceID=POLICY),
        "properties.dataSourceInfo.resourceID",
    ),
    "a set of another cluster": (
        lambda d: d["dataSourceSetInfo"].update(resourceID=OTHER),
        "properties.dataSourceSetInfo.resourceID",
    ),
    "no policy": (lambda d: d["policyInfo"].pop("policyId"), "properties.policyInfo.policyId"),
    "no snapshot group": (
        lambda d: d["policyInfo"]["policyParameters"].pop("dataStoreParametersList"),
        f"{PARAMETERS}.dataStoreParametersList",
    ),
    "no configuration": (
        lambda d: d["policyInfo"]["policyParameters"].pop("backupDatasourceParametersList"),
        f"{PARAMETERS}.backupDatasourceParametersList",
    ),
    "no parameters": (lambda d: d["policyInfo"].pop("policyParameters"), PARAMETERS),
}


@pytest.mark.parametrize("what", BROKEN_INSTANCES)
def test_every_wrong_thing_of_an_instance_is_refused_at_its_path(what: str) -> None:
    change, target = BROKEN_INSTANCES[what]
    document = instance()
    change(document)
    assert target in refusal(parse_instance, document)


@pytest.mark.parametrize(
    ("field", "value", "target"),
    [
        ("snapshotVolumes", None, "snapshotVolumes"),
        ("includeClusterScopeResources", "yes", "includeClusterScopeResources"),
        ("includedNamespaces", ["Shop"], "includedNamespaces[0]"),
        ("includedNamespaces", ["shop", "a" * 64], "includedNamespaces[1]"),
        ("includedNamespaces", ["*"], "includedNamespaces[0]"),
        ("includedNamespaces", "shop", "includedNamespaces"),
        ("includedNamespaces", ["scratch"], "excludedNamespaces"),
        ("includedResourceTypes", ["v1/Se cret"], "includedResourceTypes[0]"),
        ("excludedResourceTypes", ["a/b/c/d"], "excludedResourceTypes[0]"),
        ("labelSelectors", ["env prod"], "labelSelectors[0]"),
        ("labelSelectors", ["env=prod;=x"], "labelSelectors[0]"),
        ("labelSelectors", ["env=prod=x"], "labelSelectors[0]"),
        ("labelSelectors", [";"], "labelSelectors[0]"),
        ("labelSelectors", [",".join(["a=b"] * 5_000)], "labelSelectors[0]"),
        ("includedVolumeTypes", ["Floppy"], "includedVolumeTypes[0]"),
        ("backupHookReferences", [{"name": "hook"}], "backupHookReferences[0].namespace"),
        ("objectType", "BlobBackupDatasourceParameters", "objectType"),
    ],
)
def test_every_wrong_thing_of_a_configuration_is_refused_at_its_path(field: str, value: object, target: str) -> None:
    document = configuration() | {field: value}
    assert target in refusal(lambda each: parse_backup_configuration(each, ""), document)


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("env=prod", "env=prod"),
        ("env=prod;tier!=db", "env=prod,tier!=db"),
        (" env == prod ; app ", "env == prod,app"),
        ("app in (a, b);!debug", "app in (a, b),!debug"),
        ("app.kubernetes.io/name=shop,x notin (a)", "app.kubernetes.io/name=shop,x notin (a)"),
        ("env=", "env="),
    ],
)
def test_a_label_selector_joins_by_semicolon_or_comma_what_must_all_hold(text: str, selector: str) -> None:
    chosen = parse_backup_configuration(configuration() | {"labelSelectors": [text]}, "")
    assert chosen.filter.label_selectors == (selector,)


def test_more_namespaces_than_allowed_are_refused() -> None:
    document = configuration() | {"includedNamespaces": ["a", "b", "c"]}
    assert "includedNamespaces" in refusal(
        lambda each: parse_backup_configuration(each, "", Limits(namespaces_per_instance=2)), document
    )


def test_a_system_namespace_that_is_named_is_noted_as_never_backed_up() -> None:
    chosen = parse_backup_configuration(configuration() | {"includedNamespaces": ["kube-system", "shop"]}, "")
    assert "kube-system" in chosen.notes[0].message
    assert parse_backup_configuration(configuration(), "").notes == ()


def test_an_update_may_change_the_selection_but_neither_cluster_nor_snapshot_group() -> None:
    stored = parse_instance(instance())
    document = instance()
    document["policyInfo"]["policyParameters"]["backupDatasourceParametersList"][0]["labelSelectors"] = ["env=test"]
    document["dataSourceInfo"]["resourceID"] = CLUSTER.upper().replace("/PROVIDERS", "/providers")
    check_update(stored, parse_instance(document))
    moved = instance()
    moved["dataSourceInfo"]["resourceID"] = moved["dataSourceSetInfo"]["resourceID"] = OTHER
    group = moved["policyInfo"]["policyParameters"]["dataStoreParametersList"][0]
    group["resourceGroupId"] = "/subscriptions/S/resourceGroups/other"
    with pytest.raises(Refused) as caught:
        check_update(stored, parse_instance(moved))
    assert len(caught.value.error.details) == 2


def test_a_policy_of_a_vault_whose_id_only_folds_to_the_same_is_none_of_this_vault() -> None:
    document = instance()
    document["policyInfo"]["policyId"] = POLICY.replace("vaultrg", "stra\u00dfe")
    vault = POLICY.replace("vaultrg", "strasse").rpartition("/backupPolicies/")[0]
    with pytest.raises(Refused, match="of the vault"):
        parse_instance(document, vault=vault)


def test_the_restore_that_the_cli_sends_is_read_whole() -> None:
    request = parse_restore_request(restore())
    assert request.recovery_point_id == "745c287056794409bf2441b17b02aeaa"
    assert request.target.name == "clusterB"
    criteria = request.criteria
    assert criteria.filter.included_namespaces == ("shop",)
    assert criteria.namespace_mappings == {"shop": "shop2"}
    assert criteria.conflict_policy is ConflictPolicy.PATCH
    assert criteria.volume_mode is VolumeRestoreMode.WITH_DATA
    assert criteria.hooks == (Reference("restorehookname0", "default"),)
    assert criteria.resource_modifier == Reference("cm", "default")


def test_a_restore_that_says_little_skips_what_exists_and_brings_data_back() -> None:
    document = restore()
    document["restoreTargetInfo"]["restoreCriteria"] = [
        {"objectType": "KubernetesClusterRestoreCriteria", "includeClusterScopeResources": False}
    ]
    del document["restoreTargetInfo"]["datasourceSetInfo"]
    criteria = parse_restore_request(document).criteria
    assert criteria.conflict_policy is ConflictPolicy.SKIP
    assert criteria.volume_mode is VolumeRestoreMode.WITH_DATA
    assert criteria.filter.included_namespaces == ()


CRITERIA = "restoreTargetInfo.restoreCriteria"


def criterion(document: Document) -> Document:
    found: Document = document["restoreTargetInfo"]["restoreCriteria"][0]
    return found


BROKEN_RESTORES: dict[str, tuple[Callable[[Document], Any], str]] = {
    "a restore to a time": (
        lambda d: d.update(objectType="AzureBackupRecoveryTimeBasedRestoreRequest"),
        "objectType",
    ),
    "a restore from the vault tier": (lambda d: d.update(sourceDataStoreType="VaultStore"), "sourceDataStoreType"),
    "no point": (lambda d: d.pop("recoveryPointId"), "recoveryPointId"),
    "no target": (lambda d: d.pop("restoreTargetInfo"), "restoreTargetInfo"),
    "a restore as files": (
        lambda d: d["restoreTargetInfo"].update(objectType="RestoreFilesTargetInfo"),
        "restoreTargetInfo.objectType",
    ),
    "two criteria": (lambda d: d["restoreTargetInfo"]["restoreCriteria"].append(criterion(d)), CRITERIA),
    "criteria of the vault tier": (
        lambda d: criterion(d).update(objectType="KubernetesClusterVaultTierRestoreCriteria"),
        f"{CRITERIA}[0].objectType",
    ),
    "another conflict policy": (
        lambda d: criterion(d).update(conflictPolicy="Delete"),
        f"{CRITERIA}[0].conflictPolicy",
    ),
    "a mapping of what is not selected": (
        lambda d: criterion(d).update(namespaceMappings={"other": "shop2"}),
        f"{CRITERIA}[0].namespaceMappings.other",
    ),
    "a mapping into the cluster's own": (
        lambda d: criterion(d).update(namespaceMappings={"shop": "kube-system"}),
        f"{CRITERIA}[0].namespaceMappings.shop",
    ),
    "a mapping to no name": (
        lambda d: criterion(d).update(namespaceMappings={"shop": "Shop!"}),
        f"{CRITERIA}[0].namespaceMappings.shop",
    ),
    "a set of another cluster": (
        lambda d: d["restoreTargetInfo"].update(datasourceSetInfo=datasource("DatasourceSet")),
        "restoreTargetInfo.datasourceSetInfo.resourceID",
    ),
    "another recovery option": (
        lambda d: d["restoreTargetInfo"].update(recoveryOption="Overwrite"),
        "restoreTargetInfo.recoveryOption",
    ),
}


@pytest.mark.parametrize("what", BROKEN_RESTORES)
def test_every_wrong_thing_of_a_restore_is_refused_at_its_path(what: str) -> None:
    change, target = BROKEN_RESTORES[what]
    document = restore()
    change(document)
    assert target in refusal(parse_restore_request, document)


def test_the_path_of_a_validated_restore_begins_with_its_wrapper() -> None:
    document = restore()
    del document["recoveryPointId"]
    found = refusal(lambda each: parse_restore_request(each, "restoreRequestObject"), document)
    assert list(found) == ["restoreRequestObject.recoveryPointId"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def paths_of(value: object, prefix: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [prefix] if prefix else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += paths_of(inner, (*prefix, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            found += paths_of(inner, (*prefix, number))
    return found


def put(document: Any, path: tuple[str | int, ...], value: object) -> None:
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value


def read_or_refusal(parse: Callable[[Document], object], document: Document) -> object:
    """The value read, or the refusal, every part of which names its field."""
    try:
        return parse(document)
    except Refused as refused:
        targets = [each.target for each in (refused.error.details or (refused.error,))]
        return refused if all(targets) else targets


@given(path=st.sampled_from(paths_of(instance())), value=json_values)
def test_whatever_stands_in_a_field_of_an_instance_is_read_or_refused(
    path: tuple[str | int, ...], value: object
) -> None:
    document = instance()
    put(document, path, value)
    assert isinstance(read_or_refusal(parse_instance, document), InstanceSettings | Refused)


@given(path=st.sampled_from(paths_of(restore())), value=json_values)
def test_whatever_stands_in_a_field_of_a_restore_is_read_or_refused(path: tuple[str | int, ...], value: object) -> None:
    document = restore()
    put(document, path, value)
    assert isinstance(read_or_refusal(parse_restore_request, document), RestoreRequest | Refused)
