"""What volume snapshots are decided by, without a cluster: claims, classes, names, verdicts."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.model import SecretRef, VolumeState
from strongroom.dataplane.snapshots.claims import (
    Claim,
    PersistentVolume,
    SnapshotClass,
    choose_class,
    claim_from_object,
    class_from_object,
    volume_from_object,
)
from strongroom.dataplane.snapshots.classes import copy_of, copy_prefix, list_secret
from strongroom.dataplane.snapshots.kinds import SnapshotApiMissing, find_kinds, run_of, snapshot_name
from strongroom.dataplane.snapshots.session import SnapshotSession

DRIVER = "disk.example.org"
CLAIM = Claim("shop", "data", "uid-1", volume="pv-1", bound=True)
DEFAULT = {"snapshot.storage.kubernetes.io/is-default-class": "true"}
OURS = {"strongroom.dev/snapshot-class": "true"}
VELEROS = {"velero.io/csi-volumesnapshot-class": "true"}
COPY = {"app.kubernetes.io/managed-by": "strongroom"}


def snapshot_class(name: str, **fields: Any) -> SnapshotClass:
    return replace(SnapshotClass(name, DRIVER, "Delete"), **fields)


def document(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_a_claim_is_read_as_served() -> None:
    claim = claim_from_object(
        document(
            apiVersion="v1",
            kind="PersistentVolumeClaim",
            metadata={"name": "data", "namespace": "shop", "uid": "u", "labels": {"a": "b"}, "annotations": {"c": "d"}},
            spec={
                "volumeName": "pv-1",
                "storageClassName": "fast",
                "volumeMode": "Block",
                "resources": {"requests": {"storage": "1Gi"}},
            },
            status={"phase": "Bound", "capacity": {"storage": "2Gi"}},
        )
    )
    assert claim == Claim("shop", "data", "u", "pv-1", "fast", "Block", "2Gi", {"c": "d"}, {"a": "b"}, bound=True)


@pytest.mark.parametrize(
    ("spec", "status", "bound"),
    [
        ({}, {"phase": "Pending"}, False),
        ({"volumeName": "pv-1"}, {"phase": "Pending"}, False),  # asked for by name, not bound yet
        ({"volumeName": "pv-1"}, {"phase": "Lost"}, False),
        ({"volumeName": "pv-1"}, {"phase": "Bound"}, True),
        ({"volumeName": "pv-1"}, None, True),  # a body from a repository, which keeps the status apart
    ],
)
def test_a_claim_is_bound_when_it_has_a_volume_and_the_status_says_so(
    spec: dict[str, str], status: dict[str, str] | None, bound: bool
) -> None:
    fields = {"metadata": {"name": "data"}, "spec": spec} | ({"status": status} if status else {})
    assert claim_from_object(document(**fields)).bound is bound


def test_a_volume_tells_its_source_and_its_driver() -> None:
    csi = {"csi": {"driver": DRIVER, "volumeHandle": "vol-1"}, "capacity": {"storage": "1Gi"}, "volumeMode": "Block"}
    assert volume_from_object(document(metadata={"name": "a"}, spec=csi)) == PersistentVolume(
        "a", "csi", DRIVER, "vol-1", "Block", "1Gi"
    )
    other = {"accessModes": ["ReadWriteOnce"], "nfs": {"server": "s", "path": "/"}, "mountOptions": ["ro"]}
    assert volume_from_object(document(metadata={"name": "b"}, spec=other)) == PersistentVolume("b", "nfs")


def test_a_class_is_read_as_served() -> None:
    found = class_from_object(
        document(metadata={"name": "a", "labels": COPY}, driver=DRIVER, deletionPolicy="Retain", parameters={"x": "y"})
    )
    assert found == SnapshotClass("a", DRIVER, "Retain", {"x": "y"}, {}, COPY)
    assert found.ours


OTHER = SnapshotClass("other", "nas.example.org", "Delete", annotations=DEFAULT, labels=OURS)


@pytest.mark.parametrize(
    ("classes", "chosen"),
    [
        ([snapshot_class("only")], "only"),
        ([snapshot_class("a"), snapshot_class("b", annotations=DEFAULT)], "b"),
        ([snapshot_class("a", labels=VELEROS), snapshot_class("b", annotations=DEFAULT)], "a"),
        ([snapshot_class("a", labels=VELEROS), snapshot_class("b", labels=OURS)], "b"),
        ([snapshot_class("copy", labels=COPY, annotations=DEFAULT), snapshot_class("a")], "a"),
        ([snapshot_class("a", labels={"strongroom.dev/snapshot-class": "false"})], "a"),
    ],
)
def test_the_class_is_chosen_by_label_then_default_then_as_the_only_one(
    classes: list[SnapshotClass], chosen: str
) -> None:
    found = choose_class([OTHER, *classes], DRIVER, CLAIM)
    assert isinstance(found, SnapshotClass)
    assert found.name == chosen


@pytest.mark.parametrize("annotation", ["strongroom.dev/snapshot-class", "velero.io/csi-volumesnapshot-class"])
def test_an_annotation_of_the_claim_decides_before_all_else(annotation: str) -> None:
    classes = [snapshot_class("a", labels=OURS), snapshot_class("b")]
    found = choose_class(classes, DRIVER, replace(CLAIM, annotations={annotation: "b"}))
    assert isinstance(found, SnapshotClass)
    assert found.name == "b"


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ([], "no VolumeSnapshotClass names the driver disk.example.org"),
        ([snapshot_class("copy", labels=COPY)], "no VolumeSnapshotClass names the driver"),
        ([snapshot_class("a"), snapshot_class("b")], "VolumeSnapshotClasses a, b .* none is the default: label one"),
        ([snapshot_class(n, annotations=DEFAULT) for n in "ba"], "VolumeSnapshotClasses a, b are defaults"),
        ([snapshot_class(n, labels=OURS) for n in "ba"], "a, b are labelled strongroom.dev/snapshot-class=true"),
    ],
)
def test_where_no_class_is_the_one_the_reason_says_what_to_do(classes: list[SnapshotClass], reason: str) -> None:
    found = choose_class([OTHER, *classes], DRIVER, CLAIM)
    assert isinstance(found, str)
    assert re.search(reason, found)


@pytest.mark.parametrize(("name", "reason"), [("missing", "does not exist"), ("other", "of the driver nas.example")])
def test_a_claim_that_names_an_unfit_class_gets_a_reason_and_no_other_class(name: str, reason: str) -> None:
    claim = replace(CLAIM, annotations={"strongroom.dev/snapshot-class": name})
    found = choose_class([OTHER, snapshot_class("only")], DRIVER, claim)
    assert isinstance(found, str)
    assert reason in found


def test_a_copy_retains_and_lays_the_extra_parameters_over_its_sources() -> None:
    source = snapshot_class("gold", parameters={"tier": "hot", "csi.storage.k8s.io/snapshotter-secret-name": "s"})
    extra = {
        "tier": "cold",
        f"{DRIVER}/resourceGroup": "backups",
        "nas.example.org/share": "x",
        "csi.storage.k8s.io/snapshotter-secret-namespace": "n",
    }
    body = cast("dict[str, Any]", copy_of(source, "repo", extra).body())
    assert body["deletionPolicy"] == "Retain"
    assert body["driver"] == DRIVER
    assert body["parameters"] == {
        "tier": "cold",
        "resourceGroup": "backups",
        "csi.storage.k8s.io/snapshotter-secret-name": "s",
        "csi.storage.k8s.io/snapshotter-secret-namespace": "n",
    }
    assert body["metadata"]["labels"]["strongroom.dev/repository"] == "repo"
    assert "is-default-class" not in str(body)


def test_a_copys_name_says_repository_class_and_parameters_and_is_a_valid_name() -> None:
    gold = snapshot_class("gold")
    name = copy_of(gold, "repo", {}).name
    assert name.startswith(f"{copy_prefix('repo')}gold-")
    assert copy_of(gold, "repo", {}).name == name
    assert copy_of(replace(gold, annotations=DEFAULT), "repo", {}).name == name
    others = [
        copy_of(gold, "repo", {"a": "b"}),
        copy_of(gold, "repo2", {}),
        copy_of(replace(gold, driver="x"), "repo", {}),
        copy_of(replace(gold, parameters={"a": "c"}), "repo", {}),
    ]
    assert len({name, *(one.name for one in others)}) == 5
    long = copy_of(snapshot_class("g" * 200 + "." + "h" * 52), "0" * 32, {}).name
    assert len(long) <= 253
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", long)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({}, ""),
        ({"annotations": {"a": "b"}}, ""),
        ({"deletion_policy": "Delete"}, "its deletionPolicy is Delete"),
        ({"driver": "x"}, "its driver is x"),
        ({"parameters": {}}, "its parameters were changed"),
        ({"labels": {}}, "it is not labelled as a copy of this repository"),
    ],
)
def test_a_copy_that_was_changed_is_told_from_one_that_stands(change: Mapping[str, Any], difference: str) -> None:
    copy = copy_of(snapshot_class("gold", parameters={"a": "b"}), "repo", {})
    stands = class_from_object(json.dumps(copy.body()).encode())
    assert copy.difference(replace(stands, **change)) == difference


def test_the_list_secret_is_resolved_for_the_content() -> None:
    parameters = {
        "csi.storage.k8s.io/snapshotter-list-secret-name": "list-${volumesnapshotcontent.name}",
        "csi.storage.k8s.io/snapshotter-list-secret-namespace": "storage",
    }
    assert list_secret(parameters, "snapcontent-1") == SecretRef(namespace="storage", name="list-snapcontent-1")
    assert list_secret({}, "snapcontent-1") is None


def test_a_snapshots_name_says_its_run() -> None:
    assert run_of(snapshot_name("run-7-x", 12)) == "run-7-x"
    assert [run_of(name) for name in ("data", "strongroom-7", "strongroom-a-b", "my-strongroom-a-1")] == [""] * 4
    for run in ("Run", "a_b", "a" * 260):
        with pytest.raises(ValueError, match="run id"):
            snapshot_name(run, 1)


def kind(name: str, version: str = "v1") -> Kind:
    verbs = frozenset({"create"})
    return Kind("snapshot.storage.k8s.io", version, name, f"{name.lower()}s".replace("sss", "sses"), True, verbs)


SNAPSHOT_KINDS = ("VolumeSnapshot", "VolumeSnapshotContent", "VolumeSnapshotClass")
WITHOUT = Discovery((), {}, "v1.37.2")
DEAD = Discovery((), {"snapshot.storage.k8s.io/v1": "no endpoints"}, "v1.37.2")
OLD = Discovery(tuple(kind(name, "v1beta1") for name in SNAPSHOT_KINDS), {}, "v1.19.0")


def test_the_snapshot_api_is_used_in_version_1_also_where_another_is_preferred() -> None:
    kinds = tuple(kind(name, "v2") for name in SNAPSHOT_KINDS)
    versions = {("snapshot.storage.k8s.io", name): ("v2", "v1") for name in SNAPSHOT_KINDS}
    found = find_kinds(Discovery(kinds, {}, "v1.50.0", versions))
    assert {found.snapshot.version, found.content.version, found.snapshot_class.version} == {"v1"}
    assert found.snapshot_class.plural == "volumesnapshotclasses"


@pytest.mark.parametrize(("discovery", "failed"), [(WITHOUT, False), (OLD, False), (DEAD, True)])
def test_a_cluster_without_the_snapshot_api_is_told_from_one_whose_api_does_not_answer(
    discovery: Discovery, failed: bool
) -> None:
    with pytest.raises(SnapshotApiMissing) as missing:
        find_kinds(discovery)
    assert missing.value.failed is failed


@pytest.mark.parametrize(
    ("discovery", "state"), [(WITHOUT, VolumeState.NOT_SNAPSHOTTABLE), (DEAD, VolumeState.SNAPSHOT_FAILED)]
)
async def test_without_the_snapshot_api_volumes_are_told_and_no_request_is_made(
    discovery: Discovery, state: VolumeState
) -> None:
    no_api = cast("KubeApi", None)  # any request would end the test
    unbound = replace(CLAIM, name="later", uid="uid-2", volume="", bound=False)
    volumes = {"pv-1": PersistentVolume("pv-1", "csi", DRIVER, "vol-1")}
    session = await SnapshotSession.start(no_api, discovery, "run", [CLAIM, unbound], volumes, {}, repository_id="repo")
    await session.cut()
    await session.ready()
    entries, warnings = session.entries({one.uid: one for one in (CLAIM, unbound)}, datetime.now(UTC))
    assert await session.release() == ()
    assert await session.abandon() == ()
    assert [entry.state for entry in entries] == [state, VolumeState.NOT_SNAPSHOTTABLE]
    assert "snapshot.storage.k8s.io" in entries[0].reason
    assert entries[1].reason == "the claim is not bound to a volume"
    assert len(warnings) == 2
