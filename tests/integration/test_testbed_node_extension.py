"""docs/how-to/install-extension.md runs as it stands on a real node, and what is killed there goes on by itself."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from strongroom.controlplane.clusters.manifests import EXTENSION, NAMESPACE, RESTORE
from strongroom.testbed.binaries import HELM, MODULES, locate, locate_test_program
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.faults import FaultProxy
from strongroom.testbed.faults_rules import Hang, Recorded, Rule, Status
from strongroom.testbed.python_images import EXTENSION as IMAGE
from strongroom.testbed.python_images import extension_image
from strongroom.testbed.stores import moto

from .clusters_stage import clean
from .node_stage import eventually
from .watching_stage import backup_spec, resource

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "install-extension.md"
MINUTES = 240.0  # a pod that is made anew on a busy machine, perhaps after waiting for a lease of two minutes


@dataclass(frozen=True)
class Installed:
    """A node with the extension as the page installs it, and a store behind a proxy."""

    cluster: Testbed
    folder: Path
    store: FaultProxy
    environment: dict[str, str]

    def run(self, first: str, last: str) -> str:
        """Run the page's boxes from the section *first* to *last*, both included; return what they printed."""
        sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
        titles = [section.partition("\n")[0] for section in sections]
        chosen = "".join(sections[titles.index(first) : titles.index(last) + 1])
        script = "\n".join(re.findall(r"```sh\n(.*?)```", chosen, re.DOTALL))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.told()
        return done.stdout

    def told(self) -> str:
        """Return what the cluster can say of a failure."""
        said = ""
        for words in (
            ("get", "pods,backups,restores,backupstoragelocations", "-o", "yaml"),
            ("logs", f"deployment/{EXTENSION}", "--tail=60"),
        ):
            done = subprocess.run(
                ["kubectl", "-n", NAMESPACE, *words],
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            said += done.stdout[-6000:] + done.stderr[-2000:]
        return said

    def get(self, *words: str) -> dict[str, Any]:
        found = json.loads(self.cluster.kubectl("get", "-n", NAMESPACE, *words, "-o", "json"))
        assert isinstance(found, dict)
        return found

    def pods(self) -> list[dict[str, Any]]:
        return list(self.get("pods", "-l", f"app.kubernetes.io/name={EXTENSION}")["items"])

    def holder(self) -> str:
        """Return the uid of the pod that works."""
        holder: str = self.get("lease", EXTENSION)["spec"].get("holderIdentity", "")
        return holder.partition("/")[0].removeprefix("pod:")

    def points(self) -> list[str]:
        """Return the recovery points in the repository, oldest first."""
        done = subprocess.run(
            ["strongroom", "point", "list", "--quiet"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()


@pytest.fixture
def installed(node_testbed: Testbed, tmp_path: Path) -> Iterator[Installed]:
    """A real node, a store that its pods reach through a proxy, and what the page asks of its reader."""
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    clear(node_testbed)
    node_testbed.load_image(extension_image())
    helm = locate_test_program(HELM, print)
    kubectl = locate(print, MODULES)["kubectl"]
    with moto() as s3, FaultProxy.for_store(s3.endpoint) as proxy:
        programs = [str(Path(each).parent) for each in (sys.executable, helm, kubectl)]
        address = node_testbed.expose(int(proxy.url.rpartition(":")[2]))
        environment = {
            **s3.environment,
            "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
            "HOME": str(tmp_path),
            "KUBECONFIG": str(node_testbed.kubeconfig),
            "IMAGE": IMAGE,
            "STRONGROOM_REPOSITORY": s3.make_bucket("backups"),
            "CLUSTER_ENDPOINT": f"http://{address}",
        }
        yield Installed(node_testbed, tmp_path, proxy, environment)
    clear(node_testbed)


def clear(cluster: Testbed) -> None:
    """Take away whatever a run of the page left that was cut off."""
    clean(cluster)
    for kind in ("clusterrolebindings", "clusterroles"):
        cluster.kubectl("delete", kind, "-l", "app.kubernetes.io/part-of=strongroom", "--ignore-not-found")
    cluster.kubectl("delete", "clusterrolebinding", RESTORE, "--ignore-not-found")
    cluster.kubectl("delete", "namespace", "shop", "shop-monday", "--ignore-not-found")


def test_the_page_runs_as_it_stands_and_what_is_killed_meanwhile_goes_on(installed: Installed) -> None:
    said = installed.run("Install", "Upgrade")
    assert re.search(r"^monday +Completed +[0-9a-f-]+ ", said, re.MULTILINE)
    assert "includedNamespaces" in said
    assert "hello" in said
    assert 'strongroom_runs_finished_total{dry_run="false",kind="Backup",phase="Completed"} 1.0' in said
    runs_with_nothing_but_its_account(installed)
    a_backup_goes_on_after_its_container_is_killed_and_after_its_pod_is_deleted_by_force(installed)
    said = installed.run("Take it away", "Without Helm")
    assert "successfully rolled out" in said
    ours = ("-l", "app.kubernetes.io/part-of=strongroom")
    assert installed.cluster.kubectl("get", "crd,clusterrole,clusterrolebinding", *ours, "-o", "name") == ""
    assert NAMESPACE not in installed.cluster.kubectl("get", "namespaces", "-o", "name")


def runs_with_nothing_but_its_account(installed: Installed) -> None:
    """Look at the process as the kernel has it, not at what the template asked for."""
    (pod,) = installed.pods()
    assert installed.holder() == pod["metadata"]["uid"]
    process = Path("/proc", str(process_of(pod)))
    fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    assert fields["Uid"].split() == ["65534"] * 4
    assert int(fields["CapBnd"], 16) == 0
    assert int(fields["NoNewPrivs"]) == 1
    assert int(fields["Seccomp"]) == 2  # filtered
    root = next(line.split() for line in (process / "mountinfo").read_text().splitlines() if line.split()[4] == "/")
    assert "ro" in root[5].split(",")


def process_of(pod: dict[str, Any]) -> int:
    """Return the number, on this machine, of the process that a pod of the extension is."""
    mark = f"POD_UID={pod['metadata']['uid']}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    return int(folder.name)
            except OSError:  # ended meanwhile
                continue
    raise AssertionError("the pod has no process")


def a_backup_goes_on_after_its_container_is_killed_and_after_its_pod_is_deleted_by_force(installed: Installed) -> None:
    """Hold a Backup at its last step, kill what carries it out, twice, and see it end with one recovery point."""
    held = threading.Event()
    before = installed.points()

    def hold(_: Recorded) -> None:
        held.set()

    # The manifest is the last of a recovery point: whatever dies before it leaves none. The first hangs;
    # the second process is told to try again, so that it stops as soon as it is asked to and hands on its lease.
    refused = Rule(Status(503), "PUT", "/points/", on_match=hold)
    installed.store.add(Rule(Hang(), "PUT", "/points/", times=1, on_match=hold), refused)
    (first,) = installed.pods()
    installed.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(resource("Backup", "killed", backup_spec("shop"))))
    assert held.wait(MINUTES), installed.told()
    assert installed.get("backup", "killed")["status"]["phase"] == "InProgress"
    held.clear()
    os.kill(process_of(first), signal.SIGKILL)
    # Its own lease does not stop a container that is started again in the same pod.
    assert held.wait(MINUTES), installed.told()
    (same,) = installed.pods()
    assert same["metadata"]["uid"] == first["metadata"]["uid"]
    again = process_of(same)
    installed.cluster.kubectl(
        "delete", "pod", first["metadata"]["name"], "-n", NAMESPACE, "--force", "--grace-period=0"
    )
    eventually(lambda: not Path("/proc", str(again)).exists(), "the process ends", MINUTES)
    installed.store.remove(refused)
    eventually(
        lambda: installed.get("backup", "killed")["status"]["phase"] not in ("New", "InProgress"),
        "the backup ends",
        MINUTES,
    )
    status = installed.get("backup", "killed")["status"]
    assert status["phase"] == "Completed", status
    assert installed.points() == [*before, status["recoveryPointId"]]
    (second,) = installed.pods()
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert installed.holder() == second["metadata"]["uid"]
