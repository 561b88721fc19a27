"""Volumes through the commands: snapshots belong to their recovery point, and go with it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.testbed.cluster import Testbed

PROGRAM = Path(sys.executable).parent / "strongroom"


@pytest.fixture
def environment(testbed: Testbed, tmp_path: Path) -> dict[str, str]:
    """An environment without a kubeconfig: what needs a cluster has to be told which."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("STRONGROOM_", "KUBE"))}
    return kept | {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "STRONGROOM_REPOSITORY": f"file://{tmp_path}/repository",
    }


def ask(environment: dict[str, str], *arguments: str, expect: int = 0) -> Any:
    command = [PROGRAM, *arguments, "--output", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def volume(testbed: Testbed, namespace: str) -> Iterator[Path]:
    """The folder of a bound claim `data` of the namespace."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "folder-immediate",
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    testbed.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(claim))
    testbed.kubectl("wait", "pvc/data", "-n", namespace, "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
    name = testbed.kubectl("get", "pvc", "data", "-n", namespace, "-o", "jsonpath={.spec.volumeName}")
    yield testbed.volume_path(testbed.kubectl("get", "pv", name, "-o", "jsonpath={.spec.csi.volumeHandle}"))
    testbed.kubectl("delete", "pvc", "data", "-n", namespace, "--wait=false", "--ignore-not-found")


def test_a_snapshot_outlives_its_claim_and_goes_with_its_recovery_point(
    testbed: Testbed, namespace: str, volume: Path, environment: dict[str, str]
) -> None:
    (volume / "file").write_text("first")
    cluster = ("--kubeconfig", str(testbed.kubeconfig))
    ask(environment, "repository", "init")
    point = ask(environment, "point", "create", "--include-namespace", namespace, *cluster)
    (entry,) = point["volumes"]
    assert (entry["claim"], entry["state"]) == ("data", "ready")
    snapshot = testbed.snapshot_path(entry["handle"])
    assert (snapshot / "file").read_text() == "first"

    # No object in the cluster holds it: the manifest does.
    left = testbed.kubectl("get", "volumesnapshots", "-n", namespace, "-o", "name")
    assert left == ""
    rows = ask(environment, "query", "SELECT claim, state, handle FROM volumes")
    assert rows == [{"claim": "data", "state": "ready", "handle": entry["handle"]}]

    deleted = ask(environment, "point", "delete", point["recoveryPointId"], expect=3)
    (waiting,) = deleted["snapshotsLeft"]
    assert waiting["handle"] == entry["handle"]
    assert "--kubeconfig" in waiting["reason"]
    assert snapshot.exists()
    ask(environment, "repository", "prune", expect=3)
    assert snapshot.exists()
    pruned = ask(environment, "repository", "prune", *cluster)
    assert pruned["snapshotsLeft"] == []
    assert not snapshot.exists()


def test_a_flipped_byte_is_found_by_check_and_refused_by_restore(
    testbed: Testbed, namespace: str, environment: dict[str, str], tmp_path: Path
) -> None:
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "b"}}
    testbed.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(data))
    cluster = ("--kubeconfig", str(testbed.kubeconfig))
    ask(environment, "repository", "init")
    ask(environment, "point", "create", "--include-namespace", namespace, "--no-marker", *cluster)
    assert ask(environment, "repository", "check", "--read-data")["sound"]
    for pack in (tmp_path / "repository" / "packs").iterdir():
        content = bytearray(pack.read_bytes())
        pack.chmod(0o600)
        content[len(content) // 2] ^= 1
        pack.write_bytes(content)
    report = ask(environment, "repository", "check", "--read-data", expect=4)
    assert not report["sound"]
    assert any(finding["subject"].startswith("packs/") for finding in report["damage"])
    for command in (
        ("point", "cat", "latest", "cm", f"{namespace}/settings"),
        ("restore", "apply", "--point", "latest", "--map-namespace", f"{namespace}={namespace}-x", *cluster),
    ):
        failed = subprocess.run([PROGRAM, *command], env=environment, capture_output=True, text=True, check=False)
        assert failed.returncode == 4, failed.stderr
        assert "error: " in failed.stderr
    assert f"{namespace}-x" not in testbed.kubectl("get", "namespaces", "-o", "name")
