"""Pods, claims and looks at the machine for tests of a real node."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom.testbed.binaries import Binaries
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.images import BUSYBOX

TIMEOUT = "--timeout=60s"

# Of /proc/sys: what changes by itself, or by other programs of the machine. ns_last_pid is the namespace's own.
_RESTLESS = (
    "fs/dentry-state", "fs/file-nr", "fs/inode-nr", "fs/inode-state", "fs/aio-nr", "fs/quota", "kernel/ns_last_pid",
    "kernel/hung_task_detect_count", "kernel/perf_event_max_sample_rate", "kernel/pty/nr", "kernel/random/",
    "kernel/tainted", "net/ipv4/tcp_fastopen_key", "net/netfilter/nf_conntrack_count",
)  # fmt: skip


def eventually(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Return when *condition* holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def create(cluster: Testbed, namespace: str, *documents: dict[str, Any]) -> None:
    """Create objects."""
    items = {"apiVersion": "v1", "kind": "List", "items": documents}
    cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(items))


def pod(name: str, *command: str, image: str = BUSYBOX, claim: str | None = None, **container: Any) -> dict[str, Any]:
    """Return a pod of one container that runs as nobody; *claim* is mounted at /data."""
    mounts = [{"name": "data", "mountPath": "/data"}] if claim else []
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}] if claim else []
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    main = {
        "name": "main",
        "image": image,
        "command": list(command),
        "volumeMounts": mounts,
        "securityContext": security,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65534},
            "containers": [{**main, **container}],
            "volumes": volumes,
        },
    }


def claim(name: str, snapshot: str | None = None) -> dict[str, Any]:
    """Return a claim of the test driver, empty or from a snapshot."""
    source = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "folder-wait",
            "resources": {"requests": {"storage": "1Mi"}},
            **({"dataSource": source} if snapshot else {}),
        },
    }


def snapshot(name: str, of: str) -> dict[str, Any]:
    """Return a snapshot of a claim."""
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name},
        "spec": {"source": {"persistentVolumeClaimName": of}},
    }


def run(cluster: Testbed, namespace: str, document: dict[str, Any]) -> None:
    """Create a pod and return when it is ready."""
    create(cluster, namespace, document)
    cluster.kubectl("wait", f"pod/{document['metadata']['name']}", "-n", namespace, "--for=condition=Ready", TIMEOUT)


@dataclass(frozen=True)
class Machine:
    """What of the machine a node could change."""

    mounts: str
    links: str
    addresses: str
    routes: str
    rules: str
    settings: dict[str, str]

    @classmethod
    def now(cls, binaries: Binaries) -> "Machine":
        """Look at the machine; the packet filter's rules are read with the *binaries*' nft."""
        root = binaries.paths["nftables"]
        libraries = {"LD_LIBRARY_PATH": ":".join(map(str, (root / "usr/lib").glob("*-linux-*")))}
        return cls(
            Path("/proc/self/mountinfo").read_text(),
            _said("ip", "-oneline", "link"),
            _said("ip", "-oneline", "address"),
            _said("ip", "route", "show", "table", "all"),
            _said(str(root / "usr/sbin/nft"), "list", "ruleset", environment=libraries),
            _settings(),
        )


def _said(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(environment or {})}, check=True
    )
    return done.stdout


def _settings() -> dict[str, str]:
    found = {}
    for file in sorted(Path("/proc/sys").rglob("*")):
        name = str(file.relative_to("/proc/sys"))
        if file.is_file() and not name.startswith(_RESTLESS):
            try:
                found[name] = file.read_text(errors="replace")
            except OSError:  # some can only be written
                continue
    return found


def groups(name: str) -> list[Path]:
    """Return the control groups of a capsule."""
    return list(Path("/sys/fs/cgroup").glob(f"*/{name}"))
