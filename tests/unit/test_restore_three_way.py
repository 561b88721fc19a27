"""Comparing an object of the recovery point with the target's: what is a difference, and the patch that removes it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.dataplane.restore.model import FieldChange
from strongroom.dataplane.restore.three_way import after_dry_run, changes, compare, hide_values, merge_patch


def apply_merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = apply_merge_patch(result.get(name), value)
    return result


def config(data: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", **metadata}, "data": data}


def test_row_08_an_equal_object_has_no_difference_whatever_the_server_added() -> None:
    source = config({"a": "1"}, uid="old", creationTimestamp="x", labels={})
    live = {**config({"a": "1"}, uid="new", resourceVersion="9", managedFields=[]), "status": {"x": 1}}
    assert compare(source, source, live) == ((), {})


def test_row_08_changed_missing_and_added_fields_are_told_by_path_and_put_right() -> None:
    source = config({"a": "1", "b": "2"})
    live = config({"a": "other", "c": "3"})
    found, patch = compare(source, source, live)
    assert {(change.path, change.before, change.after) for change in found} == {
        ("data.a", "other", "1"),
        ("data.b", None, "2"),
        ("data.c", "3", None),
    }
    assert apply_merge_patch(live, patch)["data"] == source["data"]


def test_row_08_without_taking_away_only_what_is_missing_or_differs_is_patched() -> None:
    source = {"kind": "ServiceAccount", "metadata": {"name": "default"}, "imagePullSecrets": [{"name": "mine"}]}
    live = {**source, "imagePullSecrets": [{"name": "theirs"}], "metadata": {"annotations": {"x": "y"}}}
    _, patch = compare(source, source, live, take_away=False)
    assert sorted(item["name"] for item in patch["imagePullSecrets"]) == ["mine", "theirs"]
    assert "metadata" not in patch


def test_row_08_what_the_rules_dropped_stays_as_the_target_has_it() -> None:
    source = {"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30080}, {"port": 81}]}}
    wanted = {"spec": {"ports": [{"port": 80}, {"port": 81}]}}
    live = {"spec": {"clusterIP": "10.0.0.9", "ports": [{"port": 80, "nodePort": 31111}, {"port": 82}]}}
    found, patch = compare(source, wanted, live)
    assert patch == {"spec": {"ports": [{"port": 80, "nodePort": 31111}, {"port": 81}]}}
    assert all("clusterIP" not in change.path for change in found)


def test_row_08_list_items_are_matched_by_name_not_by_place() -> None:
    source = {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}}
    live = {"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "1"}]}}
    found, _ = compare(source, source, live)
    # The order of containers is part of the object, their content did not change.
    assert {change.path for change in found} <= {
        f"spec.containers[{place}].{name}" for place in (0, 1) for name in ("name", "image")
    }


def test_row_08_a_default_that_comes_back_in_the_dry_run_is_no_difference() -> None:
    source = {"spec": {"replicas": 3}}
    live = {"spec": {"replicas": 2, "paused": False, "strategy": {"type": "RollingUpdate"}}}
    found, _ = compare(source, source, live)
    assert len(found) == 3
    answer = {"spec": {"replicas": 3, "paused": False, "strategy": {"type": "RollingUpdate"}}}
    assert [change.path for change in after_dry_run(found, live, answer)] == ["spec.replicas"]


def test_row_08_owners_finalizers_and_the_books_of_controllers_are_not_compared() -> None:
    source = config({"a": "1"}, annotations={"mine": "x"}, finalizers=["a"])
    live = config(
        {"a": "1"},
        annotations={"mine": "x", "deployment.kubernetes.io/revision": "3", "pv.kubernetes.io/bind-completed": "yes"},
        ownerReferences=[{"uid": "u"}],
        finalizers=["b"],
    )
    assert compare(source, source, live) == ((), {})


@pytest.mark.parametrize(
    "path", ["data.password", "stringData.x", "metadata.annotations['kubectl.kubernetes.io/last']"]
)
def test_values_of_secrets_never_stand_in_a_plan(path: str) -> None:
    (hidden,) = hide_values((FieldChange(path=path, before="hunter2", after="hunter3"),))
    assert hidden.path == path
    assert b"hunter" not in msgspec.json.encode(hidden)
    (kept,) = hide_values((FieldChange(path="type", before="a", after="b"),))
    assert kept.after == "b"


scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return value


@given(objects, objects)
def test_a_merge_patch_makes_one_object_of_the_other(live: dict[str, Any], target: dict[str, Any]) -> None:
    live, target = without_nulls(live), without_nulls(target)
    assert apply_merge_patch(live, merge_patch(live, target)) == target


@given(objects, objects)
def test_patching_twice_finds_nothing_left_to_do(live: dict[str, Any], source: dict[str, Any]) -> None:
    live, source = without_nulls(live), without_nulls(source)
    _, patch = compare({"spec": source}, {"spec": source}, {"spec": live})
    after = apply_merge_patch({"spec": live}, patch)
    assert compare({"spec": source}, {"spec": source}, after) == ((), {})


@given(objects)
def test_an_object_does_not_differ_from_itself(obj: dict[str, Any]) -> None:
    assert list(changes(obj, obj)) == []
    assert merge_patch(obj, obj) == {}
