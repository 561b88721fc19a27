"""Whatever happens while a test cluster is brought up, nothing of it is left when it is down."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from strongroom.testbed.cluster import Testbed
from strongroom.testbed.errors import ComponentFailed, NoTestbed
from strongroom.testbed.options import TestbedOptions

STEPS = ("etcd is ready", "the API server is ready", "controllers, scheduler and node are ready")


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that work in *folder*, of the test cluster or of a shell becoming one."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if Path(os.readlink(entry / "cwd")) == folder or (str(folder) in command and "-m pytest" not in command):
                found.append(command)
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # it ended, or it is the system's
            continue
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a cluster may be brought up; a test that fails leaves none behind."""
    yield tmp_path / "cluster"
    Testbed.remove(tmp_path / "cluster")


@pytest.mark.parametrize("step", STEPS)
def test_down_after_a_killed_up_leaves_neither_process_nor_folder(step: str, folder: Path) -> None:
    command = [sys.executable, "-m", "strongroom.cli.main", "testbed", "up", "--dir", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as up:
        assert up.stderr is not None
        heard = []
        for line in up.stderr:
            heard.append(line)
            if step in line:
                up.send_signal(signal.SIGKILL)
                break
        else:
            pytest.fail(f"`up` ended before {step!r}: {''.join(heard)}")
    assert len(processes_of(folder)) > 0
    assert Testbed.remove(folder)
    assert not folder.exists()
    assert processes_of(folder) == []
    assert Testbed.remove(folder) is False


def test_an_interrupted_up_cleans_up_behind_itself(folder: Path) -> None:
    command = [sys.executable, "-m", "strongroom.cli.main", "testbed", "up", "--dir", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as up:
        assert up.stderr is not None
        next(line for line in up.stderr if STEPS[0] in line)
        up.send_signal(signal.SIGTERM)
    assert up.returncode == 128 + signal.SIGTERM
    assert not folder.exists()
    assert processes_of(folder) == []


def test_a_component_that_fails_is_named_with_the_end_of_its_log_and_nothing_is_left(folder: Path) -> None:
    with pytest.raises(ComponentFailed, match=r"(?s)kube-apiserver ended.*unknown flag: --no-such-flag"):
        Testbed.up(folder, TestbedOptions(volumes=False, apiserver_flags=("--no-such-flag",)))
    assert not folder.exists()
    assert processes_of(folder) == []


def test_a_port_that_another_program_takes_meanwhile_is_given_up_for_another(folder: Path) -> None:
    with ExitStack() as listeners:
        stolen = []

        def steal(step: str) -> None:
            if step == STEPS[0] and not stolen:
                stolen.append(json.loads((folder / "testbed.json").read_bytes())["ports"]["apiserver"])
                listeners.enter_context(socket.create_server(("127.0.0.1", stolen[0])))

        cluster = Testbed.up(folder, TestbedOptions(volumes=False), steal)
        try:
            assert stolen
            assert cluster.server != f"https://127.0.0.1:{stolen[0]}"
            assert cluster.status().ready
        finally:
            cluster.down()
    assert processes_of(folder) == []


def test_programs_whose_folder_was_removed_by_hand_are_found_and_ended(folder: Path) -> None:
    Testbed.up(folder, TestbedOptions(volumes=False))
    while folder.exists():  # the programs write into it meanwhile
        shutil.rmtree(folder, ignore_errors=True)
    assert processes_of(folder) != []
    assert Testbed.remove(folder)
    assert processes_of(folder) == []


def test_a_process_that_got_the_number_of_a_dead_one_is_spared(folder: Path) -> None:
    (folder / "processes").mkdir(parents=True)
    (folder / "lock").touch()
    with subprocess.Popen(["sleep", "60"]) as bystander:
        stat = Path(f"/proc/{bystander.pid}/stat").read_text()
        fields = stat.split()
        fields[21] = str(int(fields[21]) - 1)  # proc_pid_stat(5): started a tick earlier, so it was another process
        (folder / "processes" / "etcd").write_text(" ".join(fields))
        assert Testbed.remove(folder)
        assert bystander.poll() is None
        bystander.kill()
    assert not folder.exists()


def test_a_folder_that_is_no_test_cluster_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("mine")
    with pytest.raises(NoTestbed, match="holds no test cluster"):
        Testbed.remove(tmp_path)
    assert (tmp_path / "letter").read_text() == "mine"
    with pytest.raises(NoTestbed, match="holds no test cluster"):
        Testbed.open(tmp_path)
