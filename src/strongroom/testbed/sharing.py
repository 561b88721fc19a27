"""Lets several processes use one test cluster: the first starts it, the last one that lets go ends it.

Users are counted by files that name their process, so one that was killed counts no longer. A cluster with a real node
does not wait for the next user to be removed: a process of its own watches over it.
"""

import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from strongroom.testbed import processes
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.options import Level, TestbedOptions

_WATCH_SECONDS = 0.5  # a look costs one lock and a glance at /proc for each user


@contextlib.contextmanager
def shared_testbed(folder: Path, options: TestbedOptions | None = None) -> Iterator[Testbed]:
    """Use the cluster of *folder* together with whoever else does, starting it if nobody does yet.

    The options are those of the first. When the last user leaves, the cluster is brought down and *folder* removed.
    """
    own = processes.current()
    user = folder / f"user-{own.pid}-{own.start_ticks}"
    with _locked(folder):
        first = not _users(folder)
        user.touch()
        try:
            if first:
                Testbed.remove(folder / "cluster")  # of users that were killed
                testbed = Testbed.up(folder / "cluster", options)
                if testbed.options.level is Level.NODE:
                    _start_watching(folder)
            else:
                testbed = Testbed.open(folder / "cluster")
        except BaseException:
            user.unlink()
            raise
    try:
        yield testbed
    finally:
        with _locked(folder):
            user.unlink()
            _remove_unused(folder)


def sweep(folder: Path) -> None:
    """End the cluster of *folder* and remove it, unless somebody uses it: for what killed test runs left behind."""
    try:
        with (folder / "lock").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_unused(folder)
    except (FileNotFoundError, BlockingIOError):
        return  # it is gone, or somebody comes or goes this moment


def watch(folder: Path) -> None:
    """Return when the cluster of *folder* is gone, removing it once all of its users are."""
    while folder.exists():
        sweep(folder)
        time.sleep(_WATCH_SECONDS)


def _start_watching(folder: Path) -> None:
    line = [sys.executable, "-m", "strongroom.testbed.sharing", str(folder)]
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    # In a session of its own: it outlives a killed test run, and that is what it is for.
    os.posix_spawn(line[0], line, dict(os.environ), setsid=True, file_actions=quiet)


def _remove_unused(folder: Path) -> None:
    if not _users(folder):
        Testbed.remove(folder / "cluster")
        shutil.rmtree(folder)


def _users(folder: Path) -> list[Path]:
    found = []
    for path in folder.glob("user-*"):
        _, pid, ticks = path.name.split("-")
        if processes.running(processes.Process(int(pid), int(ticks))):
            found.append(path)
    return found


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    while True:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The last user removes the folder with its lock: then this is the lock of nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), (folder / "lock").stat()):
                    yield
                    return


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
