"""Starts, recognises and ends the test cluster's programs, across the life and death of whoever started them.

A program is known by a file that it writes itself, before it becomes the program: its own line of /proc/self/stat.
So there is no moment in which it runs unrecorded. Who ends it compares the start time, so a process that was given
the same number later is never hit.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_START_TIME = 19  # proc_pid_stat(5): field 22; 20th after the command's closing parenthesis
_STATE = 0  # field 3

# $0 is the record. The shell's `read` runs in the shell itself: self is the process that becomes the program.
_RECORD_AND_BECOME = """
set -e
IFS= read -r line </proc/self/stat
printf '%s\\n' "$line" >"$0.new"
mv "$0.new" "$0"
cd "$1"
shift
exec "$@"
"""

TERMINATION_SECONDS = 15.0  # kube-apiserver lets open requests end; then it is killed
_KILL_SECONDS = 10.0  # the kernel needs a moment to free a large process


@dataclass(frozen=True, slots=True)
class Process:
    """A program that was started: its number and its start time in clock ticks since boot."""

    pid: int
    start_ticks: int


def start(
    record: Path,
    command: Iterable[str],
    *,
    folder: Path,
    log: Path,
    environment: Mapping[str, str],
    prefix: Sequence[str] = (),
) -> int:
    """Start *command* in *folder*, in a session of its own, its output appended to *log*.

    Returns its process number. *record* appears before the program runs; `recorded` reads it. A *prefix* is a command
    that runs the one that follows it; it may fork if it gives that one a session, and then the number is its own.
    """
    arguments = [*prefix, "/bin/sh", "-c", _RECORD_AND_BECOME, str(record), str(folder), *command]
    return os.posix_spawnp(
        arguments[0],
        arguments,
        dict(environment),
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )


def recorded(record: Path) -> Process | None:
    """Return the process that wrote *record*, None while there is none."""
    try:
        return _parse(record.read_text())
    except FileNotFoundError:
        return None


def current() -> Process:
    """Return the process that this runs in."""
    return _parse(Path("/proc/self/stat").read_text())


def _parse(stat: str) -> Process:
    fields = stat.rpartition(")")[2].split()
    return Process(int(stat.split(maxsplit=1)[0]), int(fields[_START_TIME]))


def with_environment(name: str, value: str) -> list[Process]:
    """Return the processes of this user that were started with the environment variable *name* set to *value*."""
    wanted = f"{name}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        # It ended meanwhile, or it is somebody else's.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            process = _parse((entry / "stat").read_text())
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


def running(process: Process) -> bool:
    """Tell whether *process* still runs. One that ended but was not waited for does not."""
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return _parse(stat) == process and stat.rpartition(")")[2].split()[_STATE] not in {"Z", "X"}


def end(processes: Iterable[Process], *, kill: bool = False) -> None:
    """End *processes* together and return when they are gone: by SIGTERM, after 15 s (with *kill* at once) SIGKILL."""
    handles: dict[int, Process] = {}
    try:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(process.pid)
                handles[handle] = process
        # Looked at after the handles are open: from here on the numbers cannot change hands.
        open_handles = {handle for handle, process in handles.items() if running(process)}
        if not kill:
            for handle in open_handles:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGTERM)
            open_handles = _await_end(open_handles, TERMINATION_SECONDS)
        for handle in open_handles:
            # With the group that it leads: a driver that is killed must not leave its `cp` behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(handles[handle].pid, signal.SIGKILL)
        if left := _await_end(open_handles, _KILL_SECONDS):
            numbers = ", ".join(str(handles[handle].pid) for handle in left)
            raise TimeoutError(f"processes {numbers} do not end though killed")
        for process in handles.values():
            reap(process)
    finally:
        for handle in handles:
            os.close(handle)


def reap(process: Process) -> None:
    """Let go of *process* if it was a child of ours and has ended."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)


def pause(process: Process) -> None:
    """Stop *process* from running until `resume`; returns when it stands."""
    os.kill(process.pid, signal.SIGSTOP)
    deadline = time.monotonic() + _KILL_SECONDS
    stat = Path(f"/proc/{process.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[_STATE] != "T":
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {process.pid} does not stop")
        time.sleep(0.001)


def resume(process: Process) -> None:
    """Let a paused process run on."""
    os.kill(process.pid, signal.SIGCONT)


def _await_end(handles: set[int], seconds: float) -> set[int]:
    """Return those of *handles* whose processes have not ended after *seconds*."""
    waiting, deadline = set(handles), time.monotonic() + seconds
    poll = select.poll()
    for handle in waiting:
        poll.register(handle, select.POLLIN)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for handle, _ in poll.poll(left * 1000):
            poll.unregister(handle)
            waiting.discard(handle)
    return waiting
