"""The CustomResourceDefinitions: made from the documents' own Structs, and the files of deploy/crds are theirs."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.controlplane.clusters import manifests
from strongroom.extension.api import documents, status
from strongroom.extension.api.definitions import HOOK_GROUP, LABELS, definitions, files
from strongroom.extension.api.documents import GROUP, Kind
from strongroom.extension.api.schemas import schema_of

FOLDER = Path(__file__).parents[2] / "deploy" / "crds"
DEFINITIONS = {found["spec"]["names"]["kind"]: found for found in definitions()}


def schema(kind: str) -> dict[str, Any]:
    [version] = DEFINITIONS[kind]["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]
    return found


def nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [*node.get("properties", {}).values()]
    inner += [node[key] for key in ("items", "additionalProperties") if key in node]
    return [node, *(found for each in inner for found in nodes(each))]


def test_the_files_are_those_that_the_code_makes() -> None:
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == files(), (
        "make them anew: python -m strongroom.extension.api.definitions deploy/crds"
    )


def test_there_are_the_names_that_roles_and_ownership_count_on() -> None:
    names = {found["metadata"]["name"] for found in definitions()}
    assert names == {*manifests.OWN_DEFINITIONS, *manifests.HOOK_DEFINITIONS}
    assert manifests.OWN_GROUP == GROUP
    assert manifests.HOOK_GROUP == HOOK_GROUP
    assert LABELS[manifests.MANAGED_BY] == manifests.OWNER


@pytest.mark.parametrize("kind", Kind)
def test_a_schema_has_every_field_of_the_struct_and_no_other(kind: Kind) -> None:
    spec = {
        Kind.BACKUP_STORAGE_LOCATION: documents.StorageLocationSpec,
        Kind.BACKUP: documents.BackupSpec,
        Kind.RESTORE: documents.RestoreSpec,
        Kind.DELETE_BACKUP: documents.DeleteBackupSpec,
    }[kind]
    said = status.STATUS_TYPES.get(kind, status.LocationStatus)
    for part, struct in (("spec", spec), ("status", said)):
        fields = {each.encode_name for each in msgspec.structs.fields(struct)}  # type: ignore[arg-type]  # Structs
        assert set(schema(kind)[part]["properties"]) == fields


def test_a_selection_has_the_nine_names_of_arm() -> None:
    assert set(schema("Backup")["spec"]["properties"]["selection"]["properties"]) == {
        "snapshotVolumes",
        "includeClusterScopeResources",
        "includedNamespaces",
        "excludedNamespaces",
        "includedResourceTypes",
        "excludedResourceTypes",
        "labelSelectors",
        "includedVolumeTypes",
        "backupHookReferences",
    }


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_a_schema_is_structural_and_what_users_write_in_ours_is_bounded_and_explained(kind: str) -> None:
    for part, top in schema(kind).items():
        for node in nodes(top):
            assert "type" in node
            assert not {"$ref", "anyOf", "definitions"} & set(node)
            assert not ("properties" in node and "additionalProperties" in node)
            if part == "spec" and kind in list(Kind):
                assert node["type"] != "array" or node["maxItems"]
                assert node["type"] != "string" or node["maxLength"] or node["enum"]
        if part == "spec":
            for name, field in top["properties"].items():
                assert kind not in list(Kind) or field["description"], name


def test_a_failure_inside_a_failure_is_written_out_once() -> None:
    error = schema("Backup")["status"]["properties"]["error"]["properties"]
    assert "details" in error
    assert "details" not in error["details"]["items"]["properties"]


def test_hooks_have_the_fields_of_azure_s() -> None:
    hook = schema("BackupHook")["spec"]["properties"]["backupHook"]["items"]
    assert hook["required"] == ["name"]
    selectors = {"name", "includedNamespaces", "excludedNamespaces", "labelSelector"}
    assert set(hook["properties"]) == {*selectors, "preHooks", "postHooks"}
    command = hook["properties"]["preHooks"]["items"]["properties"]["exec"]["properties"]
    assert set(command) == {"container", "command", "onError", "timeout"}
    restore = schema("RestoreHook")["spec"]["properties"]["restoreHook"]["items"]
    assert set(restore["properties"]) == {*selectors, "postHooks"}
    command = restore["properties"]["postHooks"]["items"]["properties"]["exec"]["properties"]
    assert set(command) == {"container", "command", "onError", "execTimeout", "waitTimeout"}
    assert command["onError"]["default"] == "Continue"


def test_a_type_without_a_schema_is_refused() -> None:
    class Odd(msgspec.Struct):
        """Has a field of a type that documents have not."""

        field: float

    with pytest.raises(TypeError, match="no schema"):
        schema_of(Odd, {}, bounded=True)
