"""Names every file and port of one test cluster."""

import json
import os
import random
import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom.testbed.certificates import write_private
from strongroom.testbed.options import TestbedOptions

# Below what Linux gives to outgoing connections (32768 and up): a free port stays free until it is listened on.
_PORTS = range(20_000, 32_000)

PORT_NAMES = (
    "apiserver",
    "controller-manager",
    "scheduler",
    "etcd",
    "etcd-peer",
    "overrides",
    "overrides-peer",
    "kubelet-health",
    "proxy-health",
)

# The programs run in the cluster's folder. A socket's path may have 107 bytes, a folder's path any number.
CSI_SOCKET = "/proc/self/cwd/run/csi.sock"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of the cluster in *root*. Everything in it is private to its owner."""

    root: Path

    @property
    def state(self) -> Path:
        """What `State` holds; its presence makes the folder a test cluster."""
        return self.root / "testbed.json"

    @property
    def lock(self) -> Path:
        """Held while the cluster is brought up or down."""
        return self.root / "lock"

    @property
    def kubeconfig(self) -> Path:
        """Of a member of system:masters."""
        return self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Certificates, keys, the components' kubeconfigs."""
        return self.root / "pki"

    @property
    def users(self) -> Path:
        """Kubeconfigs made for tests."""
        return self.root / "users"

    @property
    def logs(self) -> Path:
        """A log for each component."""
        return self.root / "logs"

    @property
    def records(self) -> Path:
        """A file for each component that was started (see `processes`)."""
        return self.root / "processes"

    @property
    def run(self) -> Path:
        """Sockets."""
        return self.root / "run"

    @property
    def home(self) -> Path:
        """The home folder of the programs: what the user has in theirs must not change a test."""
        return self.root / "home"

    @property
    def etcd(self) -> Path:
        """A folder for each etcd."""
        return self.root / "etcd"

    @property
    def volumes(self) -> Path:
        """The folder of the CSI driver: volumes/ and snapshots/."""
        return self.root / "storage"

    @property
    def audit_log(self) -> Path:
        """One JSON object a line."""
        return self.logs / "audit.log"

    @property
    def node(self) -> Path:
        """What a real node has: programs for its path, network configuration, and the next two."""
        return self.root / "node"

    @property
    def node_state(self) -> Path:
        """/var/lib of the capsule."""
        return self.node / "lib"

    @property
    def node_logs(self) -> Path:
        """/var/log of the capsule."""
        return self.node / "log"

    @property
    def node_programs(self) -> Path:
        """What the node's programs find on their path."""
        return self.node / "bin"

    @property
    def node_network(self) -> Path:
        """The CNI configuration."""
        return self.node / "net.d"

    def log(self, component: str) -> Path:
        """Return the log of *component*."""
        return self.logs / f"{component}.log"

    def record(self, component: str) -> Path:
        """Return the process record of *component*."""
        return self.records / component

    def make(self) -> None:
        """Make the folders."""
        for folder in (self.pki, self.users, self.logs, self.records, self.run, self.home, self.etcd, self.volumes):
            folder.mkdir(mode=0o700, exist_ok=True)

    def make_node(self) -> None:
        """Make the folders of a real node. Containers' files keep the modes that they have on any node."""
        for folder in (self.node, self.node_state, self.node_logs, self.node_programs, self.node_network):
            folder.mkdir(mode=0o755, exist_ok=True)


@dataclass(frozen=True, slots=True)
class State:
    """What must be known of a cluster to go on with it from another process."""

    options: TestbedOptions
    ports: Mapping[str, int]
    binaries: Mapping[str, str]
    version: str = ""
    """Of the API server; empty until the cluster was ready once."""

    def write(self, layout: Layout) -> None:
        """Write the state, whole or not at all."""
        document: dict[str, Any] = {
            "options": self.options.to_json(),
            "ports": dict(self.ports),
            "binaries": dict(self.binaries),
            "version": self.version,
        }
        unfinished = layout.state.with_suffix(".new")
        write_private(unfinished, json.dumps(document, indent=2).encode())
        os.replace(unfinished, layout.state)

    @classmethod
    def read(cls, layout: Layout) -> "State":
        """Return what `write` wrote. Raises FileNotFoundError."""
        document = json.loads(layout.state.read_bytes())
        return cls(
            TestbedOptions.from_json(document["options"]),
            document["ports"],
            document["binaries"],
            document["version"],
        )


def free_ports() -> dict[str, int]:
    """Return a port that nobody listens on for each of `PORT_NAMES`."""
    chosen: dict[str, int] = {}
    with ExitStack() as held:
        while len(chosen) < len(PORT_NAMES):
            port = random.choice(_PORTS)
            listener = held.enter_context(socket.socket())
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            chosen[PORT_NAMES[len(chosen)]] = port
    return chosen


def taken(ports: Iterable[int]) -> list[int]:
    """Return those of *ports* that somebody listens on."""
    found = []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the programs do: closed ones do not count
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                found.append(port)
    return found
