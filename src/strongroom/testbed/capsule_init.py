"""The first process of a capsule: furnishes its mounts and its network, then buries whoever ends in it.

It is started in new namespaces and knows the machine's files as long as it has mounted nothing over them.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from strongroom.testbed.capsule import INIT, KUBELET_SETTINGS, Capsule
from strongroom.testbed.layout import Layout

_RUN_SIZE = "64m"  # sockets and container states; a pod's files lie elsewhere


def main() -> None:
    """Furnish the capsule of the folder, with the node's address and the Services' range that the arguments name."""
    root, address, service_range = sys.argv[1:]
    layout = Layout(Path(root))
    _record(layout.record(INIT))
    _mount_own_folders(layout)
    _hold_settings()
    _make_network(address, service_range)
    Capsule(layout).ready.touch()
    _bury()


def _record(record: Path) -> None:
    # /proc is the machine's still: this is the number by which the machine knows this process.
    unfinished = record.with_name(f"{record.name}.new")
    unfinished.write_text(Path("/proc/self/stat").read_text())
    unfinished.rename(record)


def _mount_own_folders(layout: Layout) -> None:
    """Give the capsule its own /proc, and at the paths that node programs take for granted folders of the cluster."""
    _run("mount", "--make-rshared", "/")  # what a pod with bidirectional propagation relies on
    _run("mount", "-t", "proc", "proc", "/proc")
    _run("mount", "-t", "tmpfs", "-o", f"mode=755,size={_RUN_SIZE}", "run", "/run")
    _run("mount", "--bind", str(layout.node_state), "/var/lib")
    _run("mount", "--bind", str(layout.node_logs), "/var/log")


def _hold_settings() -> None:
    folder = Path("/run/settings")
    folder.mkdir()
    for setting, value in KUBELET_SETTINGS.items():
        file = folder / setting.replace("/", ".")
        file.write_text(f"{value}\n")
        _run("mount", "--bind", str(file), f"/proc/sys/{setting}")


def _make_network(address: str, service_range: str) -> None:
    """Make the node's interface. A bridge without ports: not every kernel has dummy interfaces."""
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "node0", "type", "bridge")
    _run("ip", "address", "add", address, "dev", "node0")
    _run("ip", "link", "set", "node0", "up")
    # There is no default route; without this one the node itself (the API server calling a webhook) reaches no Service.
    _run("ip", "route", "add", service_range, "dev", "node0")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _bury() -> None:
    """Wait for all orphans of the capsule, forever."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:  # none is left
            continue


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
