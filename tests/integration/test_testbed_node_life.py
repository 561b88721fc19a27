"""A real node changes nothing of its machine, and nothing of it is left, however it ends."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.testbed.binaries import locate_node
from strongroom.testbed.capsule import INIT, KUBELET_SETTINGS, Capsule, unsupported
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.errors import ComponentFailed, NodeUnsupported
from strongroom.testbed.layout import Layout
from strongroom.testbed.options import Level, TestbedOptions
from strongroom.testbed.processes import Process, recorded, running, with_environment

from .node_stage import Machine, claim, create, eventually, groups, pod, run

NODE = TestbedOptions(level=Level.NODE)
SLEEP = ("sleep", "100000")


@pytest.fixture(scope="module", autouse=True)
def can_run() -> None:
    if reason := unsupported():
        pytest.skip(reason)
    locate_node(print)  # not within a test's time


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "cluster"
    Testbed.remove(tmp_path / "cluster")


def left_of(folder: Path) -> list[str]:
    """The processes and control groups of a cluster that still are."""
    found = [f"process {process.pid}" for process in with_environment("STRONGROOM_TESTBED_FOLDER", str(folder))]
    return found + [str(group) for group in groups(Capsule(Layout(folder)).group)]


def init_of(folder: Path) -> Process:
    process = recorded(Layout(folder).record(INIT))
    assert process is not None
    return process


def test_a_second_node_beside_the_first_changes_nothing_of_the_machine(node_testbed: Testbed, folder: Path) -> None:
    programs = locate_node(print)
    before = Machine.now(programs)
    cluster = Testbed.up(folder, NODE)
    create(cluster, "default", claim("data"))
    run(cluster, "default", pod("busy", *SLEEP, claim="data"))
    during = Machine.now(programs)
    assert during == before
    # And these looks would have noticed: in the capsule there is what the machine was spared.
    assert cluster.inside("cat", "/proc/sys/kernel/panic").strip() == "10"
    assert set(KUBELET_SETTINGS) <= set(before.settings)
    assert "kube-proxy" in cluster.inside("nft", "list", "ruleset")
    assert "node0" in cluster.inside("ip", "-oneline", "link")
    assert "/var/lib/kubelet" in cluster.inside("cat", "/proc/self/mountinfo")
    assert node_testbed.status().ready
    assert cluster.kubectl("get", "pods", "-o", "name").split() == ["pod/busy"]
    assert "pod/busy" not in node_testbed.kubectl("get", "pods", "-n", "default", "-o", "name")
    cluster.down()
    assert Machine.now(programs) == before
    assert left_of(folder) == []
    assert not folder.exists()


def test_the_end_of_its_first_process_is_the_end_of_all_and_its_groups_go_too(folder: Path) -> None:
    cluster = Testbed.up(folder, NODE)
    run(cluster, "default", pod("busy", *SLEEP))
    cluster.expose(39_999)
    assert left_of(folder) != []
    os.kill(init_of(folder).pid, signal.SIGKILL)
    eventually(lambda: left_of(folder) == [], "everything is gone", seconds=15)
    assert not cluster.status().ready
    with pytest.raises(ComponentFailed, match="the capsule does not run"):
        cluster.inside("true")
    cluster.down()
    assert not folder.exists()


def test_a_node_that_lost_its_power_comes_back_with_its_pods_and_their_volumes(folder: Path) -> None:
    cluster = Testbed.up(folder, NODE)
    create(cluster, "default", claim("data"))
    script = "[ -e /data/f ] || echo first >/data/f; sleep 100000"
    run(cluster, "default", pod("keeper", "sh", "-c", script, claim="data"))
    cluster.save_etcd(folder.with_name("saved"))
    cluster.kubectl("create", "configmap", "late")
    cluster.restore_etcd(folder.with_name("saved"))
    assert "late" not in cluster.kubectl("get", "configmaps", "-o", "name")

    def kept() -> bool:
        try:
            return cluster.kubectl("exec", "keeper", "--", "cat", "/data/f").strip() == "first"
        except ComponentFailed:  # its container is not started anew yet
            return False

    eventually(kept, "the pod is back with its volume")


def test_a_node_whose_folder_was_removed_by_hand_is_found_and_ended(folder: Path) -> None:
    Testbed.up(folder, TestbedOptions(level=Level.NODE, volumes=False))
    while folder.exists():  # its programs write into it meanwhile
        shutil.rmtree(folder, ignore_errors=True)
    assert left_of(folder) != []
    assert Testbed.remove(folder)
    assert left_of(folder) == []


STEPS = ("the capsule is ready", "etcd is ready", "the API server is ready")


@pytest.mark.parametrize("step", STEPS)
def test_down_after_a_killed_up_leaves_nothing(step: str, folder: Path) -> None:
    command = [sys.executable, "-m", "strongroom.cli.main", "testbed", "up", "--level", "node", "--dir", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as up:
        assert up.stderr is not None
        for line in up.stderr:
            if step in line:
                up.send_signal(signal.SIGKILL)
                break
        else:
            pytest.fail(f"`up` ended before {step!r}")
    assert left_of(folder) != []
    assert Testbed.remove(folder)
    assert left_of(folder) == []
    assert not folder.exists()


USER = """
import sys
from pathlib import Path
from strongroom.testbed.options import Level, TestbedOptions
from strongroom.testbed.sharing import shared_testbed
with shared_testbed(Path(sys.argv[1]), TestbedOptions(level=Level.NODE, volumes=False)) as testbed:
    print(testbed.server, flush=True)
    sys.stdin.read()
"""


def test_the_node_of_a_killed_test_run_goes_without_waiting_for_the_next_run(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    command = [sys.executable, "-c", USER, str(shared)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline().startswith("https://")
        init = init_of(shared / "cluster")
        assert running(init)
        user.kill()
        user.communicate()
    eventually(lambda: not shared.exists(), "the watcher has removed it", seconds=30)
    assert not running(init)
    assert left_of(shared / "cluster") == []


def test_a_folder_that_the_capsule_would_hide_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("strongroom.testbed.capsule.HIDDEN_FOLDERS", (tmp_path,))
    with pytest.raises(NodeUnsupported, match="a node cannot use"):
        Testbed.up(tmp_path / "cluster", NODE)
    assert left_of(tmp_path / "cluster") == []
    assert not (tmp_path / "cluster").exists()
