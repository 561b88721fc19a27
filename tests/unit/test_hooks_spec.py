"""Hook documents mean what they say, and what they get wrong is named; each command goes to the right container."""

from typing import Any

import msgspec
import pytest

from strongroom.dataplane.hooks.errors import HookInvalid
from strongroom.dataplane.hooks.select import Pod, consistent_claims, pod_from_object, tasks_for
from strongroom.dataplane.hooks.spec import (
    EXEC_SECONDS,
    WAIT_SECONDS,
    Hook,
    OnError,
    duration,
    read_backup_hook,
    read_restore_hook,
)


def backup(**more: Any) -> tuple[Hook, ...]:
    entry = {"name": "one", "preHooks": [{"exec": {"command": ["true"]}}], **more}
    return read_backup_hook({"spec": {"backupHook": [entry]}}, "shop/hooks")


def pod(name: str, namespace: str = "shop", **more: Any) -> Pod:
    return Pod(namespace, name, f"uid-{name}", more.pop("labels", {}), ("main", "sidecar"), **more)


def test_a_backup_hook_is_read_with_the_defaults_of_velero() -> None:
    document = {
        "apiVersion": "clusterbackup.dataprotection.microsoft.com/v1alpha1",
        "kind": "BackupHook",
        "metadata": {"name": "hooks", "namespace": "shop"},
        "spec": {
            "backupHook": [
                {
                    "name": "database",
                    "includedNamespaces": ["shop"],
                    "excludedNamespaces": None,
                    "labelSelector": {
                        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["db", "cache"]}]
                    },
                    "preHooks": [
                        {"exec": {"container": "main", "command": ["lock"], "onError": "Continue", "timeout": "1m30s"}},
                        {"exec": {"command": ["sync", "-f"]}},
                    ],
                    "postHooks": [{"exec": {"command": ["unlock"]}}],
                }
            ]
        },
    }
    (hook,) = read_backup_hook(msgspec.json.encode(document), "shop/hooks")
    first, second = hook.pre
    assert (first.container, first.command, first.on_error, first.timeout_s) == ("main", ("lock",), "Continue", 90.0)
    assert (second.container, second.on_error, second.timeout_s) == ("", OnError.FAIL, EXEC_SECONDS)
    assert [each.command for each in hook.post] == [("unlock",)]
    assert hook.picks("shop", {"tier": "cache"})
    assert not hook.picks("shop", {"tier": "web"})
    assert not hook.picks("other", {"tier": "db"})
    assert str(hook) == "database of shop/hooks"


def test_a_restore_hook_has_times_of_its_own_and_goes_on_after_errors() -> None:
    entry = {"name": "warm", "postHooks": [{"exec": {"command": ["warm"], "execTimeout": "5s", "waitTimeout": "2m"}}]}
    (hook,) = read_restore_hook({"spec": {"restoreHook": [entry]}}, "shop/hooks")
    (command,) = hook.post
    assert (command.timeout_s, command.wait_s, command.on_error) == (5.0, 120.0, OnError.CONTINUE)
    entry["postHooks"] = [{"exec": {"command": ["warm"]}}]
    (hook,) = read_restore_hook({"spec": {"restoreHook": [entry]}}, "shop/hooks")
    assert (hook.post[0].timeout_s, hook.post[0].wait_s) == (EXEC_SECONDS, WAIT_SECONDS)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"preHook": []}, "spec.backupHook[0]"),
        ({"name": ""}, "spec.backupHook[0].name"),
        ({"preHooks": []}, "spec.backupHook[0]"),
        ({"preHooks": [{"exec": {"command": []}}]}, "spec.backupHook[0].preHooks[0].exec.command"),
        ({"preHooks": [{"exec": {"command": "sync"}}]}, "spec.backupHook[0].preHooks[0].exec.command"),
        (
            {"preHooks": [{"exec": {"command": ["true"], "onError": "Ignore"}}]},
            "spec.backupHook[0].preHooks[0].exec.onError",
        ),
        (
            {"preHooks": [{"exec": {"command": ["true"], "timeout": "soon"}}]},
            "spec.backupHook[0].preHooks[0].exec.timeout",
        ),
        (
            {"labelSelector": {"matchExpressions": [{"key": "a", "operator": "Like", "values": ["x"]}]}},
            "spec.backupHook[0].labelSelector.matchExpressions[0]",
        ),
        (
            {"labelSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "spec.backupHook[0].labelSelector.matchExpressions[0]",
        ),
    ],
)
def test_what_is_wrong_in_a_document_is_named_by_its_path(more: dict[str, Any], field: str) -> None:
    with pytest.raises(HookInvalid, match="BackupHook shop/hooks") as wrong:
        backup(**more)
    assert wrong.value.field == field
    assert field in wrong.value.message


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("1.5m", 90), ("1h", 3600)])
def test_durations_are_those_of_go(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "30 s", "-1s", "0s", "2h", "1d", "1s2", "٣s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        duration(text)


def test_a_pod_is_read_with_its_claims_and_the_containers_that_a_command_can_run_in() -> None:
    spec = {
        "containers": [{"name": "main"}, {"name": "other"}],
        "initContainers": [{"name": "once"}, {"name": "proxy", "restartPolicy": "Always"}],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "ledger"}},
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    status = {
        "phase": "Running",
        "containerStatuses": [
            {"name": "main", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}},
            {"name": "other", "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
        ],
    }
    metadata = {"name": "db-0", "namespace": "shop", "uid": "u", "labels": None}
    found = pod_from_object(msgspec.json.encode({"metadata": metadata, "spec": spec, "status": status}))
    assert found.containers == ("main", "other", "proxy")
    assert found.claims == {"ledger", "db-0-scratch"}
    assert found.running == {"main"}
    assert (found.phase, dict(found.labels)) == ("Running", {})


def test_commands_go_to_the_first_container_or_the_named_one_of_running_pods_that_are_selected() -> None:
    (hook,) = backup(
        labelSelector={"matchLabels": {"app": "db"}},
        postHooks=[
            {"exec": {"command": ["a"], "container": "sidecar"}},
            {"exec": {"command": ["b"], "container": "x"}},
        ],
    )
    labels = {"app": "db"}
    pods = [
        pod("in", labels=labels),
        pod("pending", labels=labels, phase="Pending"),
        pod("unselected", labels=labels),
        pod("mounts", labels=labels, claims=frozenset(("ledger",))),
        pod("other"),
    ]
    found = tasks_for([hook], pods, lambda each: each.name == "in", {("shop", "ledger")})
    assert [each.pod.name for each in found] == ["in", "mounts"]
    assert [each.container for each in found[0].pre] == ["main"]
    # A container that the pod does not have is told when its turn comes, by the hook's own onError.
    assert [each.container for each in found[0].post] == ["sidecar", ""]


def test_namespaces_of_a_hook_may_be_patterns_and_excluded_ones_count_more() -> None:
    (hook,) = backup(includedNamespaces=["shop-*"], excludedNamespaces=["shop-test"])
    assert [each for each in ("shop", "shop-a", "shop-test") if hook.picks(each, {})] == ["shop-a"]


def test_a_volume_is_consistent_only_if_all_running_pods_that_mount_it_stood_still() -> None:
    claims = frozenset(("shared",))
    pods = [
        pod("a", claims=frozenset(("alone", "shared"))),
        pod("b", claims=claims),
        pod("c", claims=frozenset(("busy",))),
        pod("ended", claims=frozenset(("alone",)), phase="Succeeded"),
    ]
    cut = [("shop", name, f"uid-{name}") for name in ("alone", "shared", "busy", "unused")]
    assert consistent_claims(pods, {"uid-a"}, cut) == {"uid-alone"}
    assert consistent_claims(pods, {"uid-a", "uid-b"}, cut) == {"uid-alone", "uid-shared"}
    assert consistent_claims(pods, {"uid-a", "uid-b"}, cut[1:2]) == {"uid-shared"}
