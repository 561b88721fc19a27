"""Programs of the test cluster are recorded before they run, and ended without hitting others."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from strongroom.testbed import processes
from strongroom.testbed.processes import Process


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Process]]:
    """Processes that are ended with the test."""
    found: list[Process] = []
    yield found
    processes.end(found, kill=True)


def start(folder: Path, script: str, started: list[Process]) -> Process:
    environment = {"PATH": os.defpath}
    log = folder / "log"
    processes.start(folder / "record", ["sh", "-c", script], folder=folder, log=log, environment=environment)
    eventually(lambda: processes.recorded(folder / "record") is not None)
    process = processes.recorded(folder / "record")
    assert process is not None
    started.append(process)
    return process


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_program_runs_in_its_folder_with_its_record_written_and_its_output_logged(
    tmp_path: Path, started: list[Process]
) -> None:
    process = start(tmp_path, "test -s record && pwd && echo trouble >&2 && exec sleep 60", started)
    eventually(lambda: "trouble" in (tmp_path / "log").read_text())
    assert (tmp_path / "log").read_text().splitlines() == [str(tmp_path), "trouble"]
    assert processes.running(process)
    assert os.getsid(process.pid) == process.pid


def test_a_process_with_the_same_number_and_another_start_time_is_another(
    tmp_path: Path, started: list[Process]
) -> None:
    process = start(tmp_path, "exec sleep 60", started)
    earlier = Process(process.pid, process.start_ticks - 1)
    assert not processes.running(earlier)
    processes.end([earlier], kill=True)
    assert processes.running(process)


def test_ending_lets_a_program_clean_up(tmp_path: Path, started: list[Process]) -> None:
    script = "trap 'echo clean; exit' TERM; echo ready; while :; do sleep 0.01; done"
    process = start(tmp_path, script, started)
    eventually(lambda: "ready" in (tmp_path / "log").read_text())
    processes.end([process])
    assert not processes.running(process)
    assert "clean" in (tmp_path / "log").read_text()


def test_killing_takes_the_children_of_a_program_along(tmp_path: Path, started: list[Process]) -> None:
    process = start(tmp_path, "sleep 60 & echo $!; wait", started)
    eventually(lambda: (tmp_path / "log").read_text() != "")
    child = int((tmp_path / "log").read_text())
    processes.end([process], kill=True)

    def gone() -> bool:
        try:
            return Path(f"/proc/{child}/stat").read_text().split()[2] == "Z"
        except FileNotFoundError:
            return True

    eventually(gone)


def test_a_program_in_a_folder_that_was_taken_down_meanwhile_never_runs(tmp_path: Path) -> None:
    environment = {"PATH": os.defpath}
    record = tmp_path / "gone" / "record"
    command = ["sh", "-c", "touch ran"]
    pid = processes.start(record, command, folder=tmp_path, log=tmp_path / "log", environment=environment)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
    assert not (tmp_path / "ran").exists()


def test_a_paused_process_stands_until_it_is_resumed(tmp_path: Path, started: list[Process]) -> None:
    process = start(tmp_path, "while :; do echo x; done", started)
    eventually(lambda: (tmp_path / "log").read_text() != "")
    processes.pause(process)
    size = (tmp_path / "log").stat().st_size
    assert Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T"
    assert (tmp_path / "log").stat().st_size == size
    processes.resume(process)
    eventually(lambda: (tmp_path / "log").stat().st_size > size)
    os.kill(process.pid, signal.SIGKILL)
