"""What a selection means on a cluster: kinds, namespaces, and the rule for each that stays out."""

import pytest

from strongroom.dataplane.collector import rules
from strongroom.dataplane.collector.selection import (
    NamespaceFilter,
    NothingSelected,
    Resolved,
    UnknownNamespace,
    check_namespaces,
    excluded_namespaces,
    in_order,
    resolve,
)
from strongroom.dataplane.kube.discovery import Discovery
from strongroom.dataplane.kube.errors import UnknownKind
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.model import Selection

LISTED = frozenset({"list", "get"})


def kind(group: str, name: str, plural: str, *, namespaced: bool = True, verbs: frozenset[str] = LISTED) -> Kind:
    return Kind(group, "v1", name, plural, namespaced, verbs, singular=name.lower())


KINDS = (
    kind("", "ConfigMap", "configmaps"),
    kind("", "Event", "events"),
    kind("", "Namespace", "namespaces", namespaced=False),
    kind("", "Node", "nodes", namespaced=False),
    kind("", "PersistentVolume", "persistentvolumes", namespaced=False),
    kind("", "PersistentVolumeClaim", "persistentvolumeclaims"),
    kind("", "Pod", "pods"),
    kind("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False),
    kind("authentication.k8s.io", "TokenReview", "tokenreviews", namespaced=False, verbs=frozenset({"create"})),
    kind("clusterbackup.dataprotection.microsoft.com", "BackupHook", "backuphooks"),
    kind("protection.strongroom.dev", "Backup", "backups"),
    kind("rbac.authorization.k8s.io", "ClusterRole", "clusterroles", namespaced=False),
    kind("storage.k8s.io", "StorageClass", "storageclasses", namespaced=False),
)
DISCOVERY = Discovery(KINDS, {"metrics.k8s.io/v1beta1": "dead"}, "v1.37.2")


def resolved(**selection: object) -> Resolved:
    return resolve(Selection(**selection), KINDS, DISCOVERY.find, DISCOVERY.failed)  # type: ignore[arg-type]


def outcome(result: Resolved) -> dict[str, str]:
    """Rule by kind; "needed" for kinds of which only what is needed comes along."""
    return {choice.kind.kind: "needed" if choice.needed_only else choice.rule for choice in result.kinds}


def test_without_a_selection_all_is_kept_but_what_a_named_rule_leaves_out() -> None:
    result = resolved()
    assert result.everything
    assert outcome(result) == {
        "ConfigMap": "",
        "Event": "short-lived record",
        "Namespace": "",
        "Node": "bound to a node",
        "PersistentVolume": "",
        "PersistentVolumeClaim": "",
        "Pod": "",
        "CustomResourceDefinition": "",
        "TokenReview": rules.RULE_NOT_LISTABLE,
        "BackupHook": "",
        "Backup": rules.RULE_OWN_KIND,
        "ClusterRole": "",
        "StorageClass": "",
    }


@pytest.mark.parametrize(
    "selection",
    [
        {"include_namespaces": ("shop",)},
        {"exclude_namespaces": ("shop",)},
        {"selectors": ("app=shop",)},
        {"cluster_scoped": False},
    ],
)
def test_cluster_scoped_kinds_are_then_only_what_the_selection_needs(selection: dict[str, object]) -> None:
    rules_by_kind = outcome(resolved(**selection))
    for name in ("Namespace", "PersistentVolume", "StorageClass", "CustomResourceDefinition"):
        assert rules_by_kind[name] == "needed"
    assert rules_by_kind["ClusterRole"] == rules.RULE_CLUSTER_SCOPED
    assert rules_by_kind["ConfigMap"] == rules_by_kind["PersistentVolumeClaim"] == ""


@pytest.mark.parametrize(
    "selection",
    [
        {"include_namespaces": ("shop",), "cluster_scoped": True},
        {"selectors": ("app=shop",), "cluster_scoped": True},
        {"include_namespaces": ("*",)},
        {"selectors": ("",)},
    ],
)
def test_cluster_scoped_kinds_are_all_kept_when_said_so_or_nothing_is_narrowed(selection: dict[str, object]) -> None:
    rules_by_kind = outcome(resolved(**selection))
    assert rules_by_kind["ClusterRole"] == rules_by_kind["Namespace"] == rules_by_kind["PersistentVolume"] == ""


def test_included_kinds_bring_only_what_they_need() -> None:
    rules_by_kind = outcome(resolved(include_kinds=("pods",)))
    assert rules_by_kind["Pod"] == ""
    assert rules_by_kind["ConfigMap"] == rules.RULE_KIND_NOT_INCLUDED
    assert rules_by_kind["ClusterRole"] == rules.RULE_KIND_NOT_INCLUDED
    assert rules_by_kind["PersistentVolumeClaim"] == rules_by_kind["Namespace"] == "needed"


def test_a_kind_excluded_by_name_stays_out_even_where_it_is_needed() -> None:
    assert (
        outcome(resolved(include_namespaces=("shop",), exclude_kinds=("pv", "PersistentVolume")[1:]))[
            "PersistentVolume"
        ]
        == rules.RULE_KIND_EXCLUDED
    )


def test_a_kind_that_is_left_out_by_default_is_kept_when_it_is_named() -> None:
    assert outcome(resolved(include_kinds=("events",)))["Event"] == ""


def test_our_own_kinds_are_never_kept_but_the_users_hooks_are() -> None:
    rules_by_kind = outcome(resolved(include_kinds=("backups.protection.strongroom.dev", "backuphooks")))
    assert rules_by_kind["Backup"] == rules.RULE_OWN_KIND
    assert rules_by_kind["BackupHook"] == ""


def test_a_named_cluster_scoped_kind_that_the_selection_leaves_out_is_a_warning() -> None:
    result = resolved(include_namespaces=("shop",), include_kinds=("clusterroles", "pods"))
    assert outcome(result)["ClusterRole"] == rules.RULE_CLUSTER_SCOPED
    assert any("--cluster-scoped" in line for line in result.warnings)


def test_a_misspelt_kind_is_refused_with_near_ones() -> None:
    with pytest.raises(UnknownKind) as caught:
        resolved(include_kinds=("configmapz",))
    assert "configmaps" in caught.value.near
    assert caught.value.exit_code == 2


def test_a_kind_of_a_group_that_failed_discovery_is_a_warning_not_an_error() -> None:
    result = resolved(exclude_kinds=("pods.metrics.k8s.io",))
    assert any("metrics.k8s.io" in line for line in result.warnings)
    assert not resolved(include_kinds=("pods", "nodes.metrics.k8s.io")).skipped_groups
    assert resolved(include_kinds=("pods",)).skipped_groups


def test_kinds_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(NothingSelected):
        resolved(include_kinds=("pods",), exclude_kinds=("Pod", "v1/Pod"))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("kube-system", rules.RULE_SYSTEM_NAMESPACE),
        ("kube-node-lease", rules.RULE_SYSTEM_NAMESPACE),
        ("kube-public", rules.RULE_SYSTEM_NAMESPACE),
        ("dataprotection-microsoft", rules.RULE_OWN_NAMESPACE),
        ("shop", ""),
        ("shop-eu", ""),
        ("shop-test", rules.RULE_NAMESPACE_EXCLUDED),
        ("other", rules.RULE_NAMESPACE_NOT_INCLUDED),
        ("shop-off", rules.RULE_NAMESPACE_LABEL),
    ],
)
def test_each_namespace_is_kept_or_out_by_one_rule(name: str, rule: str) -> None:
    namespaces = NamespaceFilter(("shop*",), ("*-test",), frozenset({"shop-off"}))
    assert namespaces.rule(name) == rule
    assert excluded_namespaces(namespaces, [name]) == ({name: rule} if rule else {})


def test_system_namespaces_stay_out_even_where_they_are_named() -> None:
    namespaces = NamespaceFilter(("kube-system", "shop"))
    assert namespaces.names == ("shop",)
    (warning,) = check_namespaces(namespaces, ["kube-system", "shop"])
    assert "kube-system" in warning
    with pytest.raises(NothingSelected):
        check_namespaces(NamespaceFilter(("kube-system",)), ["kube-system", "shop"])


def test_an_unknown_namespace_is_refused_and_an_unknown_exclusion_is_a_warning() -> None:
    with pytest.raises(UnknownNamespace) as caught:
        check_namespaces(NamespaceFilter(("shpo",)), ["shop", "other"])
    assert caught.value.near == ("shop",)
    assert caught.value.exit_code == 2
    assert check_namespaces(NamespaceFilter((), ("gone",)), ["shop"]) == ("there is no namespace 'gone' to exclude",)


def test_a_pattern_without_a_match_is_a_warning_while_another_matches() -> None:
    assert check_namespaces(NamespaceFilter(("a*", "shop")), ["shop"]) == ("no namespace matches 'a*'",)
    with pytest.raises(NothingSelected):
        check_namespaces(NamespaceFilter(("a*",)), ["shop"])


def test_namespaces_stand_in_the_order_of_the_servers_keys() -> None:
    assert in_order(["a", "a-b", "a.b", "a0"]) == ("a-b", "a.b", "a", "a0")
