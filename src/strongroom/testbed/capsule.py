"""Encloses a node: network, mounts and processes of its own, so that it changes nothing of the machine that it runs on.

The capsule is one process, its number 1. Whatever runs in it was put there by `nsenter`; when its first process ends,
the kernel ends all others, and with the last of them go its mounts, interfaces and rules. What the kernel keeps
nevertheless are empty control groups: whoever ends a capsule removes them.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strongroom.testbed import cgroups, processes
from strongroom.testbed.binaries import cache_folder
from strongroom.testbed.components import NODE_ADDRESS, SERVICE_RANGE
from strongroom.testbed.errors import ComponentFailed, NodeUnsupported
from strongroom.testbed.layout import Layout

_NODE_NETWORK = f"{NODE_ADDRESS}/24"

_TOOLS = ("unshare", "nsenter", "setsid", "mount", "ip", "apt-get", "dpkg-deb", "gcc", "pkg-config")
# In a capsule these are its own. What the cluster needs of the machine cannot lie there.
HIDDEN_FOLDERS = (Path("/run"), Path("/var/lib"), Path("/var/log"))

# The kubelet sets these if it finds others, and they are the machine's, not a namespace's. In a capsule files with the
# values that it wants lie over them: it reads, is content, and writes nothing.
KUBELET_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

_RUN_AND_WAIT = '"$@"; exit $?'

INIT = "capsule-init"
"""The record of a capsule's first process."""


def unsupported() -> str | None:
    """Return why no node can run on this machine, None if one can."""
    if sys.platform != "linux":
        return "a node needs Linux"
    if os.geteuid() != 0:
        return "a node needs root"
    if absent := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"a node needs {', '.join(absent)}"
    if absent := cgroups.missing():
        return f"a node needs writable cgroup v1 hierarchies; these are not there: {', '.join(absent)}"
    trial = subprocess.run(["unshare", *_NAMESPACES, "true"], capture_output=True, text=True, check=False)
    if trial.returncode:
        return f"a node needs namespaces of its own: {trial.stderr.strip()}"
    return None


_NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")


@dataclass(frozen=True, slots=True)
class Capsule:
    """The capsule of the cluster in *layout*, running or not."""

    layout: Layout

    @property
    def group(self) -> str:
        """Name of its control group, the same for every process that knows the folder."""
        return f"strongroom-{hashlib.sha256(str(self.layout.root).encode()).hexdigest()[:16]}"

    @property
    def ready(self) -> Path:
        """A file that appears when the capsule is furnished."""
        return self.layout.run / "capsule-ready"

    @property
    def forwarded(self) -> Path:
        """A file that appears when the machine's ports lead into it."""
        return self.layout.run / "capsule-forwarded"

    def prepare(self) -> None:
        """Make what must be there before it starts. Raises `NodeUnsupported` if it would hide what it needs."""
        needed = (self.layout.root, cache_folder(), Path(sys.prefix), Path(sys.base_prefix), Path(__file__))
        for path in (path.resolve() for path in needed):
            if any(path.is_relative_to(hidden) for hidden in HIDDEN_FOLDERS):
                folders = ", ".join(map(str, HIDDEN_FOLDERS))
                message = f"a node cannot use {path}: it has {folders} of its own"
                raise NodeUnsupported(message, hint="Put it elsewhere.")
        for stale in (self.ready, self.forwarded, self.layout.record(INIT)):
            stale.unlink(missing_ok=True)
        cgroups.make(self.group)

    def command(self) -> list[str]:
        """Return the command line that starts it."""
        inside = [sys.executable, "-m", "strongroom.testbed.capsule_init"]
        return ["unshare", *_NAMESPACES, *inside, str(self.layout.root), _NODE_NETWORK, SERVICE_RANGE]

    def init(self) -> processes.Process | None:
        """Return its first process as the machine sees it, None while it does not run."""
        process = processes.recorded(self.layout.record(INIT))
        return process if process is not None and processes.running(process) else None

    def entrance(self) -> tuple[list[str], list[str]]:
        """Return what a command line begins with to become a process of the capsule, and then to see its files.

        Between the two a process has its number in the capsule, but sees the machine's files: there it writes its
        record. Raises `ComponentFailed` while there is no capsule.
        """
        init = self.init()
        if init is None:
            raise ComponentFailed("the capsule does not run")
        namespaces = f"/proc/{init.pid}/ns"
        # Whoever enters a process namespace has its children there. The shell stays outside and waits for the one:
        # the kernel lets no capsule end before each of its dead is waited for, and nsenter itself would stop for good
        # when the program is paused. The child leads no group, so `setsid` becomes the program without another fork.
        belong = [
            "nsenter",
            "--no-fork",
            f"--pid={namespaces}/pid",
            "--",
            "/bin/sh",
            "-c",
            _RUN_AND_WAIT,
            "sh",
            "setsid",
        ]
        see = ["nsenter", f"--mount={namespaces}/mnt", f"--net={namespaces}/net", f"--wdns={self.layout.root}", "--"]
        return belong, see

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> str:
        """Run a program in the capsule and return what it printed. Raises `ComponentFailed` if it fails."""
        belong, see = self.entrance()
        done = subprocess.run(
            [*belong, *see, *command], env=dict(environment), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ComponentFailed(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def outside(self, path: str) -> str:
        """Return the path at which the machine finds the capsule's file *path*."""
        init = self.init()
        return f"/proc/{init.pid}/root{path}" if init else os.devnull

    def clear(self) -> None:
        """Remove what outlives it; its processes must have ended."""
        if cgroups.left(self.group):
            cgroups.remove(self.group)
