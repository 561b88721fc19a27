"""An extension finds and checks its hooks, and one that was killed while applications stood still thaws them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.controlplane.clusters import manifests
from strongroom.extension.api.status import BackupStatus, Phase
from strongroom.testbed.cluster import Testbed

from .extension_stage import OWN_NAMESPACE, Stage, backup, define, eventually, new_name, put
from .hooks_stage import (
    DATABASE,
    THAW,
    cut_numbers,
    goes_on,
    hook,
    hook_document,
    intents,
    is_frozen,
    python,
    start_database,
    thaws,
)
from .node_stage import pod


@pytest.fixture
async def stage(node_testbed: Testbed, tmp_path: Path) -> AsyncIterator[Stage]:
    """An extension that may do everything, on a cluster that knows the hook kinds."""
    made = await Stage.build(node_testbed, tmp_path)
    yield made
    await made.extension.stop()


@pytest.fixture
def database(node_testbed: Testbed, node_namespace: str) -> str:
    """A namespace with the writer in it."""
    start_database(node_testbed, node_namespace)
    return node_namespace


def referring(namespace: str, *names: str) -> dict[str, Any]:
    return {"backupHookReferences": [{"name": name, "namespace": namespace} for name in names]}


async def test_a_backup_runs_the_hooks_that_it_refers_to(node_testbed: Testbed, database: str, stage: Stage) -> None:
    put(node_testbed, database, hook_document("hooks", DATABASE))
    status = await stage.back_up(database, selection=referring(database, "hooks"))
    assert (status.phase, status.warnings) == (Phase.COMPLETED, ())
    (point,) = await (await stage.repository()).points()
    assert point.manifest is not None
    (volume,) = point.manifest.volumes
    assert not volume.crash_consistent
    left, right = cut_numbers(node_testbed, volume.handle)
    assert left == right
    goes_on(node_testbed, database)


@pytest.mark.parametrize(
    ("at", "when", "frozen", "left"),
    [
        ("POST .*/configmaps$", "after", False, 1),
        ("POST .*/volumesnapshots$", "before", True, 1),
        ("POST .*/volumesnapshots$", "after", True, 1),
        ("DELETE .*/configmaps/freeze-", "before", False, 1),
        ("DELETE .*/configmaps/freeze-", "after", False, 0),
    ],
)
async def test_killed_anywhere_around_the_freeze_the_next_start_thaws_and_the_same_backup_completes(
    node_testbed: Testbed, database: str, stage: Stage, at: str, when: str, frozen: bool, left: int
) -> None:
    put(node_testbed, database, hook_document("hooks", DATABASE))
    document = backup(new_name(), database, selection=referring(database, "hooks"))
    stage.doom(at, when)
    await stage.make(document)
    await stage.doomed()
    await stage.extension.ended()
    assert is_frozen(node_testbed, database) is frozen
    assert len(intents(node_testbed, OWN_NAMESPACE)) == left
    before = thaws(node_testbed, database)
    # The next process thaws what was left frozen, and goes on with the Backup, which freezes and thaws once more.
    status = await stage.run(document)
    assert status.phase is Phase.COMPLETED

    async def thawed() -> bool:
        return intents(node_testbed, OWN_NAMESPACE) == []

    await eventually(thawed)
    assert thaws(node_testbed, database) == before + left + 1
    goes_on(node_testbed, database)


async def test_a_hook_that_fails_ends_the_backup_with_azures_code(
    node_testbed: Testbed, database: str, stage: Stage
) -> None:
    failing = hook("failing", "db", [python("raise SystemExit('no lock')")], [python(THAW)])
    put(node_testbed, database, hook_document("hooks", failing))
    status = await stage.back_up(database, selection=referring(database, "hooks"))
    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert status.error.code == "UserErrorHookExecutionFailed"
    assert "no lock" in status.error.message
    failing["preHooks"][0]["exec"]["onError"] = "Continue"
    put(node_testbed, database, hook_document("hooks", failing))
    status = await stage.back_up(database, selection=referring(database, "hooks"))
    assert status.phase is Phase.COMPLETED
    (warning,) = status.warnings
    assert (warning.code, warning.resource) == ("UserErrorHookExecutionFailed", f"{database}/db")
    assert "no lock" in warning.message


@pytest.mark.parametrize("dry_run", [False, True])
async def test_references_that_lead_nowhere_or_to_nonsense_are_named_all_together(
    node_testbed: Testbed, node_namespace: str, stage: Stage, dry_run: bool
) -> None:
    wrong = hook("slow", "db", [python("pass", timeout="5h")], [])
    put(node_testbed, node_namespace, hook_document("wrong", wrong))
    status = await stage.back_up(
        node_namespace, selection=referring(node_namespace, "missing", "wrong"), dryRun=dry_run
    )
    assert status.phase is Phase.FAILED
    assert status.error is not None
    first, second = status.error.details
    assert (first.code, first.target) == (
        "UserErrorGenericResourceNotFound",
        "spec.selection.backupHookReferences[0]",
    )
    assert f"there is no BackupHook 'missing' in the namespace {node_namespace}" in first.message
    assert (second.code, second.target) == ("BMSUserErrorInvalidInput", "spec.selection.backupHookReferences[1]")
    assert "spec.backupHook[0].preHooks[0].exec.timeout" in second.message


async def test_without_the_permission_the_validation_and_the_backup_name_the_namespace_to_add(
    node_testbed: Testbed, database: str, tmp_path: Path
) -> None:
    define(node_testbed)
    put(node_testbed, database, hook_document("hooks", DATABASE))
    reader = restricted_account(node_testbed)
    stage = await Stage.build(node_testbed, tmp_path, reader)
    try:
        remedy = f"Add {database} to the extension's configuration setting configuration.hookNamespaces"
        for dry_run in (True, False):
            status = await stage.back_up(
                database, selection={**referring(database, "hooks"), "snapshotVolumes": False}, dryRun=dry_run
            )
            assert isinstance(status, BackupStatus)
            assert status.phase is Phase.FAILED
            assert status.error is not None
            assert status.error.recommended_action == (remedy,)
        assert not is_frozen(node_testbed, database)
        assert intents(node_testbed, OWN_NAMESPACE) == []
        # The very role that the control plane binds in listed namespaces is enough.
        (role,) = [each for each in manifests.cluster_roles() if each["metadata"]["name"] == manifests.HOOKS]
        put(node_testbed, database, role)
        node_testbed.kubectl(
            "create", "rolebinding", "hooks", "-n", database, f"--clusterrole={manifests.HOOKS}",
            f"--serviceaccount={OWN_NAMESPACE}:reader",
        )  # fmt: skip
        status = await stage.back_up(database, selection={**referring(database, "hooks"), "snapshotVolumes": False})
        assert (status.phase, status.warnings) == (Phase.COMPLETED, ())
        assert thaws(node_testbed, database) == 1
    finally:
        await stage.extension.stop()


def restricted_account(cluster: Testbed) -> str:
    """Return a token of an account that may list everything and write in our namespace, and not run commands."""
    account = "reader"
    for words in (
        ("namespace", OWN_NAMESPACE),
        ("serviceaccount", account, "-n", OWN_NAMESPACE),
        ("clusterrole", "reader-of-all", "--verb=list", "--resource=*.*"),
        ("clusterrolebinding", account, "--clusterrole=reader-of-all", f"--serviceaccount={OWN_NAMESPACE}:{account}"),
        (
            "rolebinding", account, "--clusterrole=cluster-admin", f"--serviceaccount={OWN_NAMESPACE}:{account}",
            "-n", OWN_NAMESPACE,
        ),
    ):  # fmt: skip
        document = cluster.kubectl("create", *words, "--dry-run=client", "-o", "json")
        cluster.kubectl("apply", "-f", "-", stdin=document)
    return cluster.kubectl("create", "token", account, "-n", OWN_NAMESPACE, "--duration=3600s").strip()


WARM = "echo $0 >>/tmp/warm; cat /tmp/warm"


def web(name: str, replicas: int, **container: Any) -> dict[str, Any]:
    """Return a Deployment of pods with a place to write."""
    template = pod(name, "sleep", "100000", **container)
    template["metadata"]["labels"] = {"app": "web", "name": name}
    template["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {}}]
    template["spec"]["containers"][0]["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]
    del template["spec"]["terminationGracePeriodSeconds"]
    labels = {"app": "web", "name": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
        },
    }


def restore_hook_document(*commands: dict[str, Any]) -> dict[str, Any]:
    entry = {
        "name": "warm",
        "labelSelector": {"matchLabels": {"app": "web"}},
        "postHooks": [{"exec": each} for each in commands],
    }
    return {
        "apiVersion": "clusterbackup.dataprotection.microsoft.com/v1alpha1",
        "kind": "RestoreHook",
        "metadata": {"name": "warm"},
        "spec": {"restoreHook": [entry]},
    }


def warmed(cluster: Testbed, namespace: str, labels: str) -> list[str]:
    """Return what was written in each pod."""
    names = cluster.kubectl("get", "pods", "-n", namespace, "-l", labels, "-o", "name").split()
    script = "cat /tmp/warm 2>/dev/null || true"
    return [cluster.kubectl("exec", name, "-n", namespace, "--", "sh", "-c", script).strip() for name in names]


async def test_a_restore_runs_its_hooks_in_the_containers_that_it_brought_up_and_in_no_others(
    node_testbed: Testbed, node_namespace: str, stage: Stage
) -> None:
    target = f"{node_namespace}-2"
    references = {"restoreHookReferences": [{"name": "warm", "namespace": node_namespace}]}
    node_testbed.kubectl("create", "namespace", target)
    try:
        for namespace, name in ((node_namespace, "shop"), (target, "resident")):
            put(node_testbed, namespace, web(name, 2))
            node_testbed.kubectl("rollout", "status", f"deployment/{name}", "-n", namespace, "--timeout=60s")
        point = (await stage.back_up(node_namespace)).recovery_point_id
        put(
            node_testbed,
            node_namespace,
            restore_hook_document({"command": ["sh", "-c", WARM, "one"]}, {"command": ["sh", "-c", WARM, "two"]}),
        )
        status = await stage.restore(point, {node_namespace: target}, **references)
        assert (status.phase, status.warnings) == (Phase.COMPLETED, ())
        assert warmed(node_testbed, target, "name=shop") == ["one\ntwo", "one\ntwo"]
        assert warmed(node_testbed, target, "name=resident") == ["", ""]
        # Everything is there now: the same again brings up no container, and so runs nothing.
        status = await stage.restore(point, {node_namespace: target}, **references)
        assert status.phase is Phase.COMPLETED
        assert warmed(node_testbed, target, "name=shop") == ["one\ntwo", "one\ntwo"]
    finally:
        node_testbed.kubectl("delete", "namespace", target, "--wait=false")


async def test_a_restore_hook_that_fails_and_a_container_that_never_runs_are_told(
    node_testbed: Testbed, node_namespace: str, stage: Stage
) -> None:
    target = f"{node_namespace}-2"
    put(node_testbed, node_namespace, web("shop", 1), web("stuck", 1, image="localhost/no-such-image:1"))
    node_testbed.kubectl("rollout", "status", "deployment/shop", "-n", node_namespace, "--timeout=60s")
    point = (await stage.back_up(node_namespace)).recovery_point_id
    refuse = {"command": ["sh", "-c", "echo cannot warm >&2; exit 4"], "onError": "Fail", "waitTimeout": "8s"}
    put(node_testbed, node_namespace, restore_hook_document(refuse, {"command": ["sh", "-c", WARM, "after"]}))
    try:
        status = await stage.restore(
            point,
            {node_namespace: target},
            restoreHookReferences=[{"name": "warm", "namespace": node_namespace}],
        )
        assert status.phase is Phase.PARTIALLY_FAILED
        assert {each.code for each in status.warnings} == {"UserErrorHookExecutionFailed"}
        said = " ".join(each.message for each in status.warnings)
        assert "exit code 4: cannot warm" in said
        assert "its container did not run within 8 s" in said
        assert warmed(node_testbed, target, "name=shop") == [""]
    finally:
        node_testbed.kubectl("delete", "namespace", target, "--wait=false", "--ignore-not-found")
