"""A database-like writer in a pod of the real node, and hooks that freeze and thaw it. Not a test."""

import json
from pathlib import Path
from typing import Any

from strongroom.dataplane.hooks.spec import Hook, read_backup_hook
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.python_images import PYTHON, python_image

from .node_stage import claim, create, eventually, pod, run

# Both files hold the same number, but for most of the time while it writes. It stands still while /run/db/freeze is
# there, and says so by /run/db/frozen: neither lies on the volume.
WRITER = """
import pathlib, time
data, state = pathlib.Path("/data"), pathlib.Path("/run/db")
number = 0
while True:
    if (state / "freeze").exists():
        (state / "frozen").touch()
        time.sleep(0.005)
        continue
    (state / "frozen").unlink(missing_ok=True)
    number += 1
    (data / "left").write_text(f"{number:09}")
    time.sleep(0.05)
    (data / "right").write_text(f"{number:09}")
"""
FREEZE = """
import pathlib, time
state = pathlib.Path("/run/db")
(state / "freeze").touch()
while not (state / "frozen").exists():
    time.sleep(0.005)
"""
THAW = """
import pathlib
pathlib.Path("/run/db/freeze").unlink(missing_ok=True)
with open("/run/db/thaws", "a") as thaws:
    thaws.write("x")
"""
_LOADED: set[Path] = set()  # the kubeconfigs of clusters that this process gave the image


def command(*words: str, **more: Any) -> dict[str, Any]:
    return {"exec": {"command": list(words), **more}}


def python(script: str, **more: Any) -> dict[str, Any]:
    return command("python3", "-c", script, **more)


def hook(name: str, app: str, pre: list[dict[str, Any]], post: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return one entry of a BackupHook for pods labelled `app=`*app*."""
    return {"name": name, "labelSelector": {"matchLabels": {"app": app}}, "preHooks": pre, "postHooks": post, **more}


DATABASE = hook("database", "db", [python(FREEZE)], [python(THAW)])


def hooks_of(*entries: dict[str, Any]) -> tuple[Hook, ...]:
    return read_backup_hook({"spec": {"backupHook": list(entries)}}, "shop/hooks")


def hook_document(name: str, *entries: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "clusterbackup.dataprotection.microsoft.com/v1alpha1",
        "kind": "BackupHook",
        "metadata": {"name": name},
        "spec": {"backupHook": list(entries)},
    }


def start_database(cluster: Testbed, namespace: str) -> None:
    """Start the writer, and return when it has written."""
    if cluster.kubeconfig not in _LOADED:
        cluster.load_image(python_image())
        _LOADED.add(cluster.kubeconfig)
    create(cluster, namespace, claim("ledger"))
    writer = pod("db", "python3", "-c", WRITER, image=PYTHON, claim="ledger")
    writer["spec"]["volumes"].append({"name": "state", "emptyDir": {}})
    writer["spec"]["containers"][0]["volumeMounts"].append({"name": "state", "mountPath": "/run/db"})
    run(cluster, namespace, writer)
    eventually(lambda: written(cluster, namespace) > 1, "the writer writes")


def in_database(cluster: Testbed, namespace: str, script: str) -> str:
    return cluster.kubectl("exec", "db", "-n", namespace, "--", "python3", "-c", script).strip()


def written(cluster: Testbed, namespace: str) -> int:
    script = "import pathlib; p = pathlib.Path('/data/left'); print(p.read_text() if p.exists() else 0)"
    return int(in_database(cluster, namespace, script) or 0)


def is_frozen(cluster: Testbed, namespace: str) -> bool:
    return in_database(cluster, namespace, "import os; print(os.path.exists('/run/db/frozen'))") == "True"


def thaws(cluster: Testbed, namespace: str) -> int:
    script = "import pathlib; p = pathlib.Path('/run/db/thaws'); print(len(p.read_text()) if p.exists() else 0)"
    return int(in_database(cluster, namespace, script))


def goes_on(cluster: Testbed, namespace: str) -> None:
    """Return when the writer has written something new."""
    before = written(cluster, namespace)
    eventually(lambda: written(cluster, namespace) > before, "the writer goes on")


def intents(cluster: Testbed, namespace: str) -> list[str]:
    found = cluster.kubectl("get", "configmaps", "-n", namespace, "-l", "strongroom.dev/intent", "-o", "json")
    return [each["metadata"]["name"] for each in json.loads(found)["items"]]


def snapshots(cluster: Testbed, namespace: str) -> list[str]:
    return cluster.kubectl("get", "volumesnapshots", "-n", namespace, "-o", "name").split()


def cut_numbers(cluster: Testbed, handle: str) -> tuple[str, str]:
    """Return what the two files held when the volume was cut."""
    folder = cluster.snapshot_path(handle)
    return (folder / "left").read_text(), (folder / "right").read_text()
