"""Takes, locks and empties the folder of a test cluster: what must work whatever happened to whoever began it."""

import contextlib
import fcntl
import shutil
import time
from collections.abc import Iterator

from strongroom.testbed import processes
from strongroom.testbed.capsule import Capsule
from strongroom.testbed.errors import TestbedExists
from strongroom.testbed.layout import Layout

FOLDER_VARIABLE = "STRONGROOM_TESTBED_FOLDER"
"""In the environment of every program of a cluster, with the folder's path."""


def claim(layout: Layout) -> None:
    """Make the folder and its lock file. Raises `TestbedExists` if there is anything in it."""
    layout.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(layout.root.iterdir()):
        what = "a test cluster" if layout.lock.exists() else "files"
        hint = (
            f"End it with `strongroom testbed down --dir {layout.root}`." if layout.lock.exists() else "Name another."
        )
        raise TestbedExists(f"{layout.root} holds {what} already", hint=hint)
    layout.root.chmod(0o700)
    try:
        layout.lock.touch(mode=0o600, exist_ok=False)
    except FileExistsError as error:
        raise TestbedExists(f"{layout.root} is being brought up by another process") from error


@contextlib.contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Hold the cluster's lock, which the system lets go when its holder dies."""
    with layout.lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def end_all(layout: Layout) -> None:
    """End whatever was started in the folder, with no other knowledge than its records.

    The folder of the records is put aside first. A process that has not written its record yet then cannot, and ends
    by itself (see `processes`); every other one is found. Should the records be lost, as where somebody removed the
    folder by hand, the programs still carry the folder's name in their environment.
    """
    with contextlib.suppress(FileNotFoundError):
        layout.records.rename(f"{layout.records}-{time.time_ns()}")
    records = layout.root.glob(f"{layout.records.name}-*/*")
    found = {processes.recorded(path) for path in records if path.suffix != ".new"}
    found |= set(processes.with_environment(FOLDER_VARIABLE, str(layout.root)))
    processes.end([process for process in found if process is not None], kill=True)
    Capsule(layout).clear()


def clear(layout: Layout) -> None:
    """Remove the folders in the cluster's, for another attempt. Nothing may run in it."""
    for path in layout.root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
