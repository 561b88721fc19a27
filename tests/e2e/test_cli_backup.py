"""The commands as a user runs them: a backup, a look into it, a restore, on a real control plane."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from strongroom.testbed.cluster import Testbed

PROGRAM = Path(sys.executable).parent / "strongroom"


@dataclass(frozen=True)
class Shell:
    """A shell with an environment of its own: its keys and its memory are nobody else's."""

    environment: dict[str, str]

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | more
        return subprocess.run([PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=False)

    def ask(self, *arguments: str, expect: int = 0) -> Any:
        """Run a command with JSON and return its document."""
        done = self.run(*arguments, "--output", "json")
        assert done.returncode == expect, done.stderr
        return json.loads(done.stdout)

    def error(self, *arguments: str, **more: str) -> dict[str, Any]:
        """Run a command that fails with JSON; return its error, whose exit code is the process's."""
        done = self.run(*arguments, "--output", "json", **more)
        assert "Traceback" not in done.stderr
        error: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])["error"]
        assert done.returncode == error["exitCode"]
        return error


@pytest.fixture
def shell(testbed: Testbed, tmp_path: Path) -> Shell:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("STRONGROOM_")}
    environment |= {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "KUBECONFIG": str(testbed.kubeconfig),
        "STRONGROOM_REPOSITORY": f"file://{tmp_path}/repository",
    }
    return Shell(environment)


@pytest.fixture
def settings(testbed: Testbed, namespace: str) -> Callable[[str], None]:
    """Write the ConfigMap `settings` with the given text, beside a Secret and a Deployment that are made once."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, "stringData": {"token": "hush"}}
    testbed.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(secret))
    testbed.kubectl("create", "deployment", "web", "-n", namespace, "--image=registry.example.com/web:1")

    def write(text: str) -> None:
        data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"text": text}}
        testbed.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(data))

    return write


def test_backup_look_change_and_restore_by_commands(
    shell: Shell, testbed: Testbed, namespace: str, settings: Callable[[str], None], tmp_path: Path
) -> None:
    settings("first")
    made = shell.ask("repository", "init")
    key = Path(made["keyFile"])
    assert key == tmp_path / "config" / "strongroom" / "keys" / f"{made['repositoryId']}.json"
    assert key.stat().st_mode & 0o777 == 0o600

    only = ("--include-namespace", namespace)
    created = shell.ask("point", "create", *only)
    assert created["state"] == "Completed"
    assert isinstance(created["revision"], str)
    for name in (
        "recoveryPointId",
        "objects",
        "bytesRead",
        "bytesWritten",
        "volumes",
        "warnings",
        "coverage",
        "seconds",
    ):
        assert name in created
    first = created["recoveryPointId"]

    objects = shell.ask("point", "objects", "latest", "--include-kind", "cm")
    by_name = {each["name"]: each for each in objects}
    assert {"group", "version", "kind", "namespace", "name", "uid", "digest", "bytes"} <= by_name["settings"].keys()

    live = json.loads(
        testbed.kubectl("get", "configmap", "settings", "-n", namespace, "-o", "json", "--show-managed-fields")
    )
    assert shell.ask("point", "cat", first, "v1/ConfigMap", f"{namespace}/settings") == live
    deployment = shell.ask("point", "cat", first, "deploy", f"{namespace}/web")
    assert deployment["status"]
    assert deployment["metadata"]["managedFields"]

    settings("second")
    testbed.kubectl("delete", "secret", "token", "-n", namespace)
    second = shell.ask("point", "create", *only)
    assert second["incremental"]["base"] == first
    assert second["bytesWritten"] < created["bytesWritten"]
    listed = shell.ask("point", "list")
    assert [each["recoveryPointId"] for each in listed] == [first, second["recoveryPointId"]]

    diff = shell.ask("point", "diff", first, "latest", "--include-kind", "cm", "--include-kind", "secrets")
    changes = {each["name"]: each for each in diff["objects"]}
    assert changes["token"]["change"] == "removed"
    assert {"path": "data.text", "before": "first", "after": "second", "hidden": False} in changes["settings"]["fields"]

    settings("third")
    live_diff = shell.ask("point", "diff", "latest", "--include-kind", "cm")
    (changed,) = [each for each in live_diff["objects"] if each["name"] == "settings"]
    assert {"path": "data.text", "before": "second", "after": "third", "hidden": False} in changed["fields"]

    history = shell.ask("point", "history", "configmap", f"{namespace}/settings")
    assert [each["change"] for each in history] == ["added", "changed"]
    hits = shell.ask("point", "search", '"text":"SECOND"')
    assert [(hit["name"], hit["recoveryPointId"]) for hit in hits] == [("settings", second["recoveryPointId"])]

    sql = "SELECT body->>'$.data.text' AS text FROM objects WHERE kind = 'ConfigMap' AND name = 'settings' ORDER BY 1"
    assert shell.ask("query", sql) == [{"text": "first"}, {"text": "second"}]

    plan = shell.ask("restore", "plan", "--point", first, "--conflict", "patch", *only)
    actions = {each["name"]: each["action"] for wave in plan["waves"] for each in wave["objects"]}
    assert actions["settings"] == "patch"
    assert actions["token"] == "create"
    restored = shell.ask("restore", "apply", "--point", first, "--conflict", "patch", *only)
    assert restored["state"] == "Completed"
    assert {"restoreId", "created", "patched", "skipped", "failed"} <= restored.keys()
    result = {each["name"]: each for each in restored["objects"] if each["kind"] in ("ConfigMap", "Secret")}
    assert set(result["settings"]) == {"group", "kind", "namespace", "name", "action", "reason"}
    assert (result["settings"]["action"], result["token"]["action"]) == ("patched", "created")
    text = testbed.kubectl("get", "configmap", "settings", "-n", namespace, "-o", "jsonpath={.data.text}")
    assert text == "first"

    checked = shell.ask("repository", "check", "--read-data")
    assert checked["sound"]
    deleted = shell.ask("point", "delete", first)
    assert deleted == {"recoveryPointId": first, "deleted": True, "snapshotsLeft": []}
    assert [each["recoveryPointId"] for each in shell.ask("point", "list")] == [second["recoveryPointId"]]
    assert shell.ask("repository", "prune")["condemnedPoints"] == []
    assert shell.ask("repository", "check")["memory"]


def test_a_saved_plan_is_carried_out_as_read_and_prints_its_id_first(
    shell: Shell, testbed: Testbed, namespace: str, settings: Callable[[str], None], tmp_path: Path
) -> None:
    settings("first")
    shell.ask("repository", "init")
    shell.ask("point", "create", "--include-namespace", namespace)
    target = f"{namespace}-copy"
    plan = tmp_path / "plan.json"
    done = shell.run(
        *("restore", "plan", "--point", "latest", "--plan", str(plan), "--map-namespace", f"{namespace}={target}")
    )
    assert done.returncode == 0, done.stderr
    assert plan.stat().st_mode & 0o777 == 0o600
    try:
        done = shell.run("restore", "apply", "--plan", str(plan))
        assert done.returncode == 0, done.stderr
        first_line, *_ = done.stdout.splitlines()
        assert first_line.startswith("restore ")
        text = testbed.kubectl("get", "configmap", "settings", "-n", target, "-o", "jsonpath={.data.text}")
        assert text == "first"
        again = shell.run("restore", "apply", "--resume", first_line.split()[1], "--output", "json")
        assert json.loads(again.stdout)["restoreId"] == first_line.split()[1]
        assert again.stderr.startswith(f"restore {first_line.split()[1]}\n")
    finally:
        testbed.kubectl("delete", "namespace", target, "--wait=false", "--ignore-not-found")


def test_options_that_would_change_a_saved_plan_are_refused(shell: Shell, tmp_path: Path) -> None:
    shell.ask("repository", "init")
    for options in (("--plan", "p.json", "--conflict", "patch"), ("--resume", "x", "--point", "latest"), ()):
        assert shell.error("restore", "apply", *options)["exitCode"] == 2


def test_a_denied_kind_is_named_and_the_rest_is_saved(
    shell: Shell, testbed: Testbed, namespace: str, settings: Callable[[str], None]
) -> None:
    """RBAC allows lists of ConfigMaps and namespaces in all of the cluster, and nothing else."""
    settings("first")
    user = f"only-configmaps-{namespace}"
    rule = ("--verb=list", "--resource=configmaps,namespaces")
    testbed.kubectl("create", "clusterrole", user, *rule)
    testbed.kubectl("create", "clusterrolebinding", user, f"--clusterrole={user}", f"--user={user}")
    try:
        shell.ask("repository", "init")
        kubeconfig = str(testbed.make_client_cert(user))
        options = ("--include-namespace", namespace, "--no-snapshot-volumes", "--no-marker", "--kubeconfig", kubeconfig)
        point = shell.ask("point", "create", *options, expect=3)
        assert point["state"] == "Partial"
        kinds = {kind["kind"]: kind for kind in point["coverage"]["kinds"]}
        assert kinds["Secret"]["readAs"] == "failed"
        assert "list" in kinds["Secret"]["reason"]
        assert "secrets" in kinds["Secret"]["reason"]
        assert kinds["ConfigMap"]["readAs"] == "exact"
        shell.ask("point", "cat", "latest", "cm", f"{namespace}/settings")
    finally:
        testbed.kubectl("delete", "clusterrole,clusterrolebinding", user)


def test_what_the_selection_names_must_exist(shell: Shell) -> None:
    shell.ask("repository", "init")
    unknown_kind = shell.error("point", "create", "--include-kind", "deploymens")
    assert unknown_kind["exitCode"] == 2
    assert "deployments" in unknown_kind["hint"]
    unknown_namespace = shell.error("point", "create", "--include-namespace", "defaul")
    assert unknown_namespace["exitCode"] == 2
    assert "default" in unknown_namespace["hint"]
    wrong_selector = shell.error("point", "create", "--selector", "app in (")
    assert wrong_selector["exitCode"] == 2
    assert shell.ask("point", "list") == []
