"""Makes and removes the control groups under which one node keeps its pods (cgroup v1)."""

import contextlib
import errno
import os
import time
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")

# What the kubelet and runc ask of a node. `systemd` is the named hierarchy that holds the process tree.
_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")
_INHERITED = ("cpuset.cpus", "cpuset.mems")  # empty in a new group, which then takes no process
_EMPTY_SECONDS = 5.0  # a group is busy until the kernel has buried its last process


def missing() -> list[str]:
    """Return the controllers that this machine does not offer as a hierarchy that we may write to."""
    return [name for name in _CONTROLLERS if not os.access(_ROOT / name, os.W_OK)]


def make(name: str) -> None:
    """Make the group *name* in every hierarchy; the kubelet wants to find it."""
    for controller in _CONTROLLERS:
        (_ROOT / controller / name).mkdir(exist_ok=True)
    for setting in _INHERITED:
        (_ROOT / "cpuset" / name / setting).write_text((_ROOT / "cpuset" / setting).read_text())


def remove(name: str) -> None:
    """Remove the group *name* and those in it, whose processes must have ended. None there is no error."""
    deadline = time.monotonic() + _EMPTY_SECONDS
    for group in _groups(name):
        while not _removed(group):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{group} still holds processes")
            time.sleep(0.01)


def left(name: str) -> list[Path]:
    """Return the folders of the group *name* that are there, deepest first."""
    return _groups(name)


def _groups(name: str) -> list[Path]:
    # In all hierarchies: runc makes its groups in those too that we do not (cgroup v2 beside v1, where mounted).
    found: list[Path] = []
    for hierarchy in _ROOT.iterdir() if _ROOT.is_dir() else ():
        if hierarchy.is_dir() and not hierarchy.is_symlink():
            found += [Path(folder) for folder, _, _ in os.walk(hierarchy / name, topdown=False)]
    return found


def _removed(group: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        try:
            group.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
    return True
