"""What the end-to-end fault tests stand on: a few objects in a namespace, a repository, and the command line.

The command under test is always a process of its own. What only looks at the outcome (`ask`) runs the same command line
inside the test's process, which saves the start of an interpreter.
"""

import base64
import contextlib
import io
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strongroom.cli.main import run
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.faults import FaultProxy
from strongroom.testbed.stores import Azurite

DOCUMENTED = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
# Volumes have tests of their own; the two kinds below are the smallest backup that has more than one list.
NARROW = ("--include-kind", "configmaps", "--include-kind", "secrets", "--no-snapshot-volumes")
PATIENCE_SECONDS = 120.0  # one command takes 2 s; longer than this it hangs


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The document that it printed."""
        assert self.out, self.err
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error that it printed with `--output json`: type, message, hint, exitCode."""
        found: dict[str, Any] = json.loads(self.err.splitlines()[-1])["error"]
        return found


@dataclass(frozen=True)
class Stage:
    """A namespace of the shared cluster and a repository: *url* as the tested command reaches it, *direct* as we do."""

    testbed: Testbed
    namespace: str
    url: str
    direct: str
    environment: Mapping[str, str] = field(default_factory=dict)

    # --- the command line

    def begin(self, *arguments: str, url: str | None = None, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start `strongroom …` as a process of its own, behind the command *prefix* if there is one."""
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "strongroom.cli.main", *arguments, "--output", "json"],
            env={**os.environ, **self.environment, "STRONGROOM_REPOSITORY": url or self.url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, url: str | None = None) -> Ended:
        """Run `strongroom …` as a process of its own."""
        return wait(self.begin(*arguments, url=url))

    def ask(self, *arguments: str, url: str | None = None) -> Ended:
        """Run the command line in this process, past every proxy."""
        out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
        before = dict(os.environ)
        os.environ.update({**self.environment, "STRONGROOM_REPOSITORY": url or self.direct})
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run([*arguments, "--output", "json"])
        finally:
            os.environ.clear()
            os.environ.update(before)
        out.seek(0)
        return Ended(code, out.read(), err.getvalue())

    # --- the cluster

    def apply(self, *documents: Mapping[str, object]) -> None:
        """Create or change objects in the stage's namespace."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.testbed.kubectl("apply", "--server-side", "-n", self.namespace, "-f", "-", stdin=json.dumps(items))

    def set_up(self) -> None:
        """Put the few objects into the namespace; returns when the cluster has added its own."""
        self.apply(*few_objects())
        self.testbed.kubectl("wait", "-n", self.namespace, "--for=create", "configmap/kube-root-ca.crt")

    def change(self, number: int) -> None:
        """Give one object of the namespace a content that it never had."""
        self.apply(config_map("changing", {"generation": str(number)}))

    def live(self) -> dict[str, Any]:
        """Return the selected objects as the cluster serves them now, by `Kind/name`."""
        arguments = ("get", "configmaps,secrets", "-n", self.namespace, "-o", "json", "--show-managed-fields")
        items = json.loads(self.testbed.kubectl(*arguments))["items"]
        return {f"{item['kind']}/{item['metadata']['name']}": item for item in items}

    # --- recovery points

    @property
    def selection(self) -> tuple[str, ...]:
        return (*NARROW, "--include-namespace", self.namespace, "--kubeconfig", str(self.testbed.kubeconfig))

    def back_up(self) -> str:
        """Take a recovery point by a process of its own and return its id."""
        ended = self.run("point", "create", *self.selection)
        assert ended.code == 0, ended.err
        return str(ended.json["recoveryPointId"])

    def saved(self, point: str) -> dict[str, Any]:
        """Return every ConfigMap and Secret of a recovery point as it was served, by `Kind/name`."""
        listed = self.ask("point", "objects", point, "--include-namespace", self.namespace)
        assert listed.code == 0, listed.err
        found = {}
        for row in listed.json:
            if row["kind"] not in ("ConfigMap", "Secret"):
                continue
            printed = self.ask("point", "cat", point, row["kind"], f"{row['namespace']}/{row['name']}")
            assert printed.code == 0, printed.err
            found[f"{row['kind']}/{row['name']}"] = printed.json
        return found

    def points(self) -> dict[str, str]:
        """Return the state of every recovery point by its id."""
        listed = self.ask("point", "list")
        return {point["recoveryPointId"]: point["state"] for point in listed.json}

    def expect_sound(self) -> None:
        """Read every byte of the repository and find no damage."""
        checked = self.ask("repository", "check", "--read-data")
        assert (checked.code, checked.json["damage"]) == (0, []), checked


def wait(process: subprocess.Popen[str]) -> Ended:
    """Return how a process ended; one that hangs is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"{process.args} did not end within {PATIENCE_SECONDS:.0f} s: {err}") from None
    return Ended(process.returncode, out, err)


def folder_stage(testbed: Testbed, namespace: str, folder: Path) -> Stage:
    """Return a stage whose repository is to be made in a new folder below *folder*."""
    url = f"file://{folder}/repository"
    return Stage(testbed, namespace, url, url, homes(folder))


def azure_stage(testbed: Testbed, namespace: str, folder: Path, server: Azurite, proxy: FaultProxy) -> Stage:
    """Return a stage whose repository is to be made in a new container, reached by the command through *proxy*."""
    direct = server.make_container(f"faults-{secrets.token_hex(6)}")
    return Stage(
        testbed,
        namespace,
        direct.replace(server.endpoint, proxy.url),
        direct,
        homes(folder) | dict(server.environment),
    )


def homes(folder: Path) -> dict[str, str]:
    """Return the variables that keep the key files and the memory of `check` below *folder*."""
    return {"XDG_CONFIG_HOME": str(folder / "config"), "XDG_STATE_HOME": str(folder / "state")}


def config_map(name: str, data: Mapping[str, str]) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(data)}


def secret(name: str, data: Mapping[str, bytes]) -> dict[str, object]:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


def few_objects() -> list[dict[str, object]]:
    """Return the objects of a small namespace; one Secret is too large for its neighbours' row group."""
    return [
        config_map("settings", {"colour": "blue", "big": "0123456789abcdef" * 2_000}),
        config_map("changing", {"generation": "first"}),
        secret("token", {"password": b"correct horse"}),
        secret("bulky", {"blob": bytes(range(256)) * 1_000}),
    ]


def expect_refused(ended: Ended, type_: str, *words: str) -> None:
    """Hold a refusal against docs/reference/errors.md: type, exit code, a remedy, *words*, and no traceback."""
    assert ended.code != 0, ended.out
    assert "Traceback" not in ended.err, ended.err
    error = ended.error
    assert error["type"] == type_, ended.err
    assert ended.code == error["exitCode"] == documented()[type_], ended.err
    # What is wrong with an argument or a kubeconfig is also what to correct: the message names it.
    assert error["hint"] or type_ in ("KubeconfigInvalid", "UsageError"), ended.err
    for word in words:
        assert word in error["message"] + " " + error["hint"], ended.err


def documented() -> dict[str, int]:
    """Return the exit code of every error type that the reference lists."""
    rows = re.findall(r"^\| `(\w+)` \| (\d) \|", DOCUMENTED.read_text(), re.MULTILINE)
    return {name: int(code) for name, code in rows}
