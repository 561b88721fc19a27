"""Documents of the extension: what is read, what is refused and by which field, and what ARM's words mean."""

import base64
from typing import Any

import pytest

from strongroom.dataplane.repository.model import Selection as Chosen
from strongroom.dataplane.restore.model import Conflict, VolumeMode
from strongroom.extension.api.documents import (
    API_VERSION,
    Backup,
    BackupStorageLocation,
    DocumentInvalid,
    Kind,
    Restore,
    RestoreCriteria,
    Selection,
    parse_document,
    parse_work,
)
from strongroom.extension.api.status import (
    WARNINGS_AT_MOST,
    BackupStatus,
    Phase,
    StatusWarning,
    bounded,
    parse_status,
    status_json,
)
from strongroom.extension.runs.mapping import (
    backup_selection,
    one_selector,
    resource_type,
    restore_request,
    unsupported_of_backup,
)

ROOT = base64.b64encode(bytes(32)).decode()


def backup(**spec: Any) -> dict[str, Any]:
    selection = {"snapshotVolumes": True, "includeClusterScopeResources": True, "labelSelectors": ["env=prod"]}
    return {
        "apiVersion": API_VERSION,
        "kind": "Backup",
        "metadata": {"name": "b", "selfLink": "ignored"},
        "spec": {"storageLocation": "l", "selection": selection, **spec},
    }


def location(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "BackupStorageLocation",
        "metadata": {"name": "l"},
        "spec": {"url": "file:///store", "root": ROOT, **spec},
    }


def test_a_document_is_read_and_written_as_it_was() -> None:
    given = backup(caller={"instance": "i"}, snapshot={"parameters": {"resourceGroup": "rg"}})
    read = parse_document(given)
    assert isinstance(read, Backup)
    assert read.spec.caller == {"instance": "i"}
    del given["metadata"]["selfLink"]
    assert read.to_json() == given
    assert isinstance(parse_document(location()), BackupStorageLocation)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "Pod"}, "kind"),
        ({"kind": ["Backup"]}, "kind"),
        ({"apiVersion": "velero.io/v1"}, "apiVersion"),
        ({"metadata": {}}, "metadata"),
        ({"metadata": {"name": "../up"}}, "metadata.name"),
        ({"metadata": {"name": "x" * 254}}, "metadata.name"),
        ({"spec": {"storageLocation": 1}}, "spec.storageLocation"),
        ({"spec": backup(extra=1)["spec"]}, "spec"),
        ({"spec": backup(caller={"a": 1})["spec"]}, "spec.caller[...]"),
        ({"spec": backup(dryRun="yes")["spec"]}, "spec.dryRun"),
    ],
)
def test_what_is_wrong_in_a_document_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(DocumentInvalid) as refused:
        parse_document({**backup(), **change})
    assert refused.value.field == field


@pytest.mark.parametrize("value", [None, [], "Backup", 1])
def test_what_is_no_object_is_no_document(value: object) -> None:
    with pytest.raises(DocumentInvalid):
        parse_document(value)


@pytest.mark.parametrize("root", ["", "not base64!", base64.b64encode(bytes(31)).decode()])
def test_a_location_pins_a_root_key(root: str) -> None:
    with pytest.raises(DocumentInvalid) as refused:
        parse_document(location(root=root))
    assert refused.value.field == "spec.root"


def test_a_location_is_no_work() -> None:
    with pytest.raises(DocumentInvalid):
        parse_work(location())


def test_what_arm_sends_becomes_a_selection_without_its_nulls_and_foreign_properties() -> None:
    found = Selection.from_arm(
        {
            "objectType": "KubernetesClusterBackupDatasourceParameters",
            "snapshotVolumes": True,
            "includeClusterScopeResources": True,
            "includedNamespaces": None,
            "labelSelectors": ["env=prod"],
            "newerThanWeAre": 1,
        }
    )
    assert found == Selection(
        snapshot_volumes=True, include_cluster_scope_resources=True, label_selectors=("env=prod",)
    )
    with pytest.raises(DocumentInvalid) as refused:
        RestoreCriteria.from_arm({"objectType": "KubernetesClusterVaultTierRestoreCriteria"})
    assert refused.value.field == "objectType"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("v1/Secret", "v1/Secret"),
        ("core/Secret", "v1/Secret"),
        ("apps/Deployment", "Deployment.apps"),
        ("apps/v1/Deployment", "Deployment.apps"),
        ("/v1/Secret", None),
        ("snapshot.storage.k8s.io/VolumeSnapshot", "VolumeSnapshot.snapshot.storage.k8s.io"),
        ("deployments.apps", "deployments.apps"),
        ("secrets", "secrets"),
        ("", None),
        ("a/b/c/d", None),
    ],
)
def test_resource_types_become_kinds(given: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(ValueError, match="no resource type"):
            resource_type(given)
    else:
        assert resource_type(given) == expected


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ((), ()),
        (("env=prod",), ("env=prod",)),
        (("env=prod;tier!=test",), ("env=prod,tier!=test",)),
        (("env=prod", "tier in (web,api)"), ("env=prod,tier in (web,api)",)),
        ((" ; ",), ()),
    ],
)
def test_all_label_selectors_must_hold(entries: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert one_selector(entries) == expected


def test_a_selection_keeps_what_is_false() -> None:
    found = backup_selection(Selection(snapshot_volumes=False, include_cluster_scope_resources=False))
    assert found == Chosen(cluster_scoped=False)


def test_restore_criteria_become_a_request() -> None:
    criteria = RestoreCriteria(
        include_cluster_scope_resources=False,
        namespace_mappings={"shop": "shop2"},
        conflict_policy="Patch",
        persistent_volume_restore_mode="RestoreWithoutVolumeData",
    )
    request = restore_request(criteria)
    assert (request.conflict, request.volumes) == (Conflict.PATCH, VolumeMode.NONE)
    assert request.target_namespace("shop") == "shop2"
    usual = restore_request(RestoreCriteria(include_cluster_scope_resources=True))
    assert (usual.conflict, usual.volumes) == (Conflict.SKIP, VolumeMode.DATA)
    with pytest.raises(DocumentInvalid) as refused:
        restore_request(RestoreCriteria(include_cluster_scope_resources=True, conflict_policy="Overwrite"))
    assert refused.value.field == "spec.criteria.conflictPolicy"


def test_what_is_not_built_is_named() -> None:
    selection = Selection(
        snapshot_volumes=True, include_cluster_scope_resources=True, included_volume_types=("AzureDisk",)
    )
    assert [each.target for each in unsupported_of_backup(selection)] == ["spec.selection.includedVolumeTypes"]


def test_a_status_holds_a_bounded_number_of_bounded_warnings() -> None:
    kept, count = bounded(StatusWarning(code="c", message="x" * 5000) for _ in range(WARNINGS_AT_MOST + 5))
    assert (len(kept), count) == (WARNINGS_AT_MOST, WARNINGS_AT_MOST + 5)
    assert all(len(each.message) <= 1000 for each in kept)
    status = BackupStatus(phase=Phase.PARTIALLY_FAILED, warnings=kept, warning_count=count)
    assert parse_status(Kind.BACKUP, status_json(status)) == status
    assert status.phase.final


def test_a_restore_needs_its_criteria() -> None:
    document = {
        "apiVersion": API_VERSION,
        "kind": "Restore",
        "metadata": {"name": "r"},
        "spec": {
            "storageLocation": "l",
            "recoveryPointId": "p",
            "criteria": {"includeClusterScopeResources": True},
        },
    }
    assert isinstance(parse_document(document), Restore)
    del document["spec"]["criteria"]  # type: ignore[attr-defined]
    with pytest.raises(DocumentInvalid) as refused:
        parse_document(document)
    assert "criteria" in refused.value.message
