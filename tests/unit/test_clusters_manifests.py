"""The roles and names that Strongroom puts into a cluster: the bounds that must not move unnoticed."""

import json
import re

import pytest

from strongroom.controlplane.clusters import manifests
from strongroom.controlplane.clusters.answers import Found, read
from strongroom.controlplane.clusters.kinds import BY_KIND
from strongroom.dataplane.collector.rules import OWN_NAMESPACE

VAULT = "/subscriptions/s/resourceGroups/g/providers/Microsoft.DataProtection/backupVaults/v"
EVERYTHING = [
    manifests.namespace(),
    *manifests.cluster_roles(),
    *manifests.connector(),
    manifests.connector_role(["a"]),
    *manifests.installer(),
    *manifests.extension(["one"], listed=True),
    *manifests.extension_cluster_bindings(),
    manifests.restore_binding(),
    manifests.hooks_binding("default"),
    manifests.settings_map("{}"),
    *manifests.resource_definitions(),
    *manifests.vault("binding", VAULT),
]


def rules_of(name: str) -> list[dict[str, list[str]]]:
    return next(one["rules"] for one in manifests.cluster_roles() if one["metadata"]["name"] == name)


def test_reading_is_listing_and_nothing_else() -> None:
    assert {verb for rule in rules_of(manifests.READ) for verb in rule["verbs"]} == {"list"}


def test_hooks_are_exec_and_nothing_else() -> None:
    assert rules_of(manifests.HOOKS) == [manifests.rule("", ["pods/exec"], ["get", "create"])]


def test_snapshots_touch_the_snapshot_api_alone() -> None:
    changing = [rule for rule in rules_of(manifests.SNAPSHOTS) if set(rule["verbs"]) - {"get", "list"}]
    assert {group for rule in changing for group in rule["apiGroups"]} == {"snapshot.storage.k8s.io"}


def test_only_restore_may_escalate_and_only_restore_changes_everything() -> None:
    for document in EVERYTHING:
        text = json.dumps(document.get("rules", []))
        if document["metadata"]["name"] == manifests.RESTORE:
            continue
        assert '"escalate"' not in text
        assert '"impersonate"' not in text
        for rule in document.get("rules", []):
            assert "*" not in rule["verbs"]
            assert "*" not in rule["resources"] or rule["verbs"] == ["list"]
            if "bind" in rule["verbs"]:
                assert tuple(rule["resourceNames"]) == manifests.FOUR_ROLES


def test_a_connector_that_lists_nobody_has_no_rule_since_one_without_names_would_list_everybody() -> None:
    assert manifests.connector_role([])["rules"] == []
    [rule] = manifests.connector_role(["b", "a", "b"])["rules"]
    assert rule["resourceNames"] == ["a", "b"]


def test_everything_carries_our_mark_has_a_kind_that_we_know_and_lies_in_the_data_plane_s_own_namespace() -> None:
    assert manifests.NAMESPACE == OWN_NAMESPACE
    for document in EVERYTHING:
        assert read(json.dumps(document).encode(), Found).metadata.is_ours
        assert BY_KIND[document["kind"]].api_version == document["apiVersion"]
        place = document["metadata"].get("namespace", manifests.NAMESPACE)
        assert place in (manifests.NAMESPACE, "default")
        for subject in document.get("subjects", []):
            assert subject["namespace"] == manifests.NAMESPACE
    assert not read(b'{"metadata": {"name": "x", "labels": null}}', Found).metadata.is_ours


def test_no_account_is_mounted_into_pods_by_itself() -> None:
    accounts = [one for one in EVERYTHING if one["kind"] == "ServiceAccount"]
    assert len(accounts) == 4
    assert all(one["automountServiceAccountToken"] is False for one in accounts)


@pytest.mark.parametrize("binding", ["a", "Tarb-0123456789abcdef", "__", "日本", "x" * 200, "-a-", "a.b/c"])
def test_a_binding_of_any_name_has_an_account_with_a_name_that_kubernetes_takes(binding: str) -> None:
    name = manifests.vault_account(binding, VAULT)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 63
    assert len(manifests.binding_key(binding)) <= 63
    assert manifests.vault_account(binding.upper(), VAULT.upper()) == name
    assert manifests.vault_account(binding, f"{VAULT}2") != name
    assert manifests.vault_account(f"{binding}2", VAULT) != name
