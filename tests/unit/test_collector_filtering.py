"""Which objects of a kept kind are in a backup, and how those that are not are counted."""

import json

import pytest

from strongroom.dataplane.collector import rules
from strongroom.dataplane.collector.filtering import ObjectFilter, needed_in
from strongroom.dataplane.collector.selection import NamespaceFilter
from strongroom.dataplane.kube.selectors import parse_selectors

MARK = {"velero.io/exclude-from-backup": "true"}
OURS = {"app.kubernetes.io/managed-by": "strongroom"}
ALL = NamespaceFilter()


def labels(**given: str) -> bytes:
    return json.dumps(given).encode()


@pytest.mark.parametrize(
    ("namespace", "name", "text", "rule"),
    [
        ("shop", "a", b"{}", ""),
        ("shop", "a", b"null", ""),
        ("kube-system", "a", b"{}", rules.RULE_SYSTEM_NAMESPACE),
        ("shop", "a", labels(**MARK), rules.RULE_OBJECT_LABEL),
        ("shop", "a", labels(**{"velero.io/exclude-from-backup": "false"}), ""),
        ("shop", "a", labels(note="velero.io/exclude-from-backup"), ""),
    ],
)
def test_an_object_is_kept_unless_a_rule_leaves_it_out(namespace: str, name: str, text: bytes, rule: str) -> None:
    keep = ObjectFilter(ALL, None)
    assert keep.rule(namespace, name, text) == rule
    assert keep.keeps(namespace, name, text) == (not rule)
    assert keep.skipped == ({rule: 1} if rule else {})


def test_labels_select_unless_a_kept_object_needs_it() -> None:
    keep = ObjectFilter(ALL, parse_selectors(["app=shop"]), needed=needed_in({"shop/used"}))
    assert keep.keeps("shop", "a", labels(app="shop"))
    assert keep.keeps("shop", "used", b"{}")
    assert not keep.keeps("shop", "b", labels(app="other"))
    assert keep.skipped == {rules.RULE_SELECTOR: 1}


def test_of_a_kind_that_is_only_needed_nothing_else_is_kept() -> None:
    keep = ObjectFilter(ALL, None, needed=needed_in({"volume-1"}), needed_only=True)
    assert keep.keeps("", "volume-1", b"{}")
    assert not keep.keeps("", "volume-2", b"{}")


def test_the_mark_wins_over_being_needed() -> None:
    keep = ObjectFilter(ALL, None, needed=needed_in({"shop/a"}))
    assert keep.rule("shop", "a", labels(**MARK)) == rules.RULE_OBJECT_LABEL


def test_a_namespace_object_goes_with_its_namespace() -> None:
    keep = ObjectFilter(NamespaceFilter((), ("test-*",)), None, names_are_namespaces=True)
    assert keep.rule("", "test-1", b"{}") == rules.RULE_NAMESPACE_EXCLUDED
    assert keep.rule("", "shop", b"{}") == ""


def test_what_backups_make_is_left_out_of_the_snapshot_api_only() -> None:
    assert (
        ObjectFilter(ALL, None, group="snapshot.storage.k8s.io").rule("shop", "a", labels(**OURS)) == "made by a backup"
    )
    assert ObjectFilter(ALL, None, group="apps").rule("shop", "a", labels(**OURS)) == ""
