"""Has Velero do the same work in the same cluster: a backup, an unchanged backup, a restore. Reported, no goal binds.

It runs out of the cluster as a plain process, with its S3 plugin and an S3 server over a folder, all three built from
the modules pinned in `velero/`. It may send 1,000 requests a second (its default is 100): less would measure its limit.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import content
import plain_client
import restores
from cluster import Cluster
from measure import Bench
from work import cpu_seconds

from strongroom.testbed.binaries import Binaries, GoModule, Program, locate

HERE = Path(__file__).parent / "velero"
MODULES = (
    GoModule(str(HERE / "gateway"), (Program("versitygw", "github.com/versity/versitygw/cmd/versitygw"),)),
    GoModule(
        str(HERE / "plugin"),
        (Program("velero-plugin-for-aws", "github.com/vmware-tanzu/velero-plugin-for-aws/velero-plugin-for-aws"),),
    ),
    GoModule(str(HERE / "velero"), (Program("velero", "github.com/vmware-tanzu/velero/cmd/velero"),)),
)
NAMESPACE = "velero"
API = f"/apis/velero.io/v1/namespaces/{NAMESPACE}"
READY_SECONDS = 120  # for its server; a minute on a busy machine
WORK_SECONDS = 600  # for one backup or restore
POLL_SECONDS = 0.05
_KEYS = {"ROOT_ACCESS_KEY": "benchmark", "ROOT_SECRET_KEY": "benchmark-secret"}  # of a server that ends with us


def measure_peer(bench: Bench, cluster: Cluster) -> None:
    """Run Velero beside the cluster and add its rows."""
    binaries = locate(bench.say, MODULES)
    folder = bench.folder / "velero"
    (folder / "s3" / "backups").mkdir(parents=True)
    with _gateway(binaries, folder) as url:
        _install(binaries, cluster, url)
        with _server(binaries, cluster, folder) as pid:
            asyncio.run(_measure(bench, cluster, folder, pid))


async def _measure(bench: Bench, cluster: Cluster, folder: Path, pid: int) -> None:
    async with plain_client.connect(cluster.testbed.kubeconfig, 4) as session:
        await _available(session)
        for name, title in (("first", "first backup"), ("again", "unchanged backup")):
            before = _size(folder / "s3"), cpu_seconds(pid)
            seconds, status = await _do(
                session, "Backup", name, {"snapshotVolumes": False, "storageLocation": "default"}
            )
            items = status["progress"]["itemsBackedUp"]
            written = (_size(folder / "s3") - before[0]) / 1024 / 1024
            each = (cpu_seconds(pid) - before[1]) / items * 1e6
            measured = f"{seconds:.1f} s for {items:,} objects, {each:.0f} µs CPU each, {written:.1f} MiB"
            bench.row(f"Velero, {title}", measured)
        mapping = {content.namespace_name(n): f"velero-{n}" for n in restores.NUMBERS}
        spec = {"backupName": "first", "includedNamespaces": [*mapping], "namespaceMapping": mapping}
        seconds, status = await _do(session, "Restore", "restored", spec)
        items = status["progress"]["itemsRestored"]
        bench.row("Velero, restore", f"{items / seconds:.0f} objects a second ({items:,} in {seconds:.1f} s)")


async def _do(session: aiohttp.ClientSession, kind: str, name: str, spec: Mapping[str, Any]) -> tuple[float, Any]:
    """Create a Backup or Restore; return the seconds until it is over, and its status."""
    path = f"{API}/{kind.lower()}s"
    metadata = {"name": name, "namespace": NAMESPACE}
    body = {"apiVersion": "velero.io/v1", "kind": kind, "metadata": metadata, "spec": spec}
    began = time.monotonic()
    async with session.post(path, json=body) as answer:
        if answer.status != 201:
            raise plain_client.Refused(f"POST {path}: {(await answer.text())[:500]}")
    while time.monotonic() - began < WORK_SECONDS:
        async with session.get(f"{path}/{name}") as answer:
            status = (await answer.json()).get("status", {})
        if (phase := status.get("phase", "New")) not in ("New", "Queued", "ReadyToStart", "InProgress", "Finalizing"):
            if phase != "Completed":
                raise RuntimeError(f"Velero's {kind} ended as {phase}: {json.dumps(status)[:1000]}")
            return time.monotonic() - began, status
        await asyncio.sleep(POLL_SECONDS)
    raise RuntimeError(f"Velero's {kind} took more than {WORK_SECONDS} s")


async def _available(session: aiohttp.ClientSession) -> None:
    """Wait until Velero has seen its storage location."""
    began = time.monotonic()
    while True:
        async with session.get(f"{API}/backupstoragelocations/default") as answer:
            status = (await answer.json()).get("status", {})
        if status.get("phase") == "Available":
            return
        if time.monotonic() - began > READY_SECONDS:
            raise RuntimeError(f"Velero's storage location is not available: {status}")
        await asyncio.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _gateway(binaries: Binaries, folder: Path) -> Iterator[str]:
    port = _free_port()
    command = [binaries["versitygw"], "--port", f"127.0.0.1:{port}", "posix", str(folder / "s3")]
    with _process(command, folder / "gateway.log", _KEYS):
        yield f"http://127.0.0.1:{port}"


def _install(binaries: Binaries, cluster: Cluster, url: str) -> None:
    """Create Velero's definitions, its namespace, its storage location, and the Deployment that a restore looks up."""
    command = [binaries["velero"], "install", "--crds-only", "--dry-run", "-o", "yaml"]
    definitions = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cluster.testbed.kubectl("apply", "--server-side", "-f", "-", stdin=definitions)
    cluster.testbed.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    labels = {"app": "velero"}
    container = {"name": "velero", "image": "velero/velero:v1.18.3"}
    deployment = {
        "replicas": 0,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }
    location = {
        "provider": "aws",
        "default": True,
        "objectStorage": {"bucket": "backups"},
        "config": {"region": "us-east-1", "s3ForcePathStyle": "true", "s3Url": url},
    }
    metadata = {"namespace": NAMESPACE}
    items = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {**metadata, "name": "velero"}, "spec": deployment},
        {
            "apiVersion": "velero.io/v1",
            "kind": "BackupStorageLocation",
            "metadata": {**metadata, "name": "default"},
            "spec": location,
        },
    ]
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    cluster.testbed.kubectl("apply", "-f", "-", stdin=document)


@contextlib.contextmanager
def _server(binaries: Binaries, cluster: Cluster, folder: Path) -> Iterator[int]:
    plugins = folder / "plugins"
    plugins.mkdir()
    (plugins / "velero-plugin-for-aws").symlink_to(binaries["velero-plugin-for-aws"])
    credentials = folder / "credentials"
    credentials.touch(mode=0o600)
    access, secret = _KEYS.values()
    credentials.write_text(f"[default]\naws_access_key_id={access}\naws_secret_access_key={secret}\n")
    command = [binaries["velero"], "server", f"--kubeconfig={cluster.testbed.kubeconfig}", f"--namespace={NAMESPACE}"]
    command += [f"--plugin-dir={plugins}", "--client-qps=1000", "--client-burst=1000", "--log-level=warning"]
    command += [f"--metrics-address=127.0.0.1:{_free_port()}", f"--profiler-address=127.0.0.1:{_free_port()}"]
    environment = {"AWS_SHARED_CREDENTIALS_FILE": str(credentials), "VELERO_NAMESPACE": NAMESPACE}
    with _process(command, folder / "server.log", environment) as pid:
        yield pid


@contextlib.contextmanager
def _process(command: list[str], log: Path, environment: Mapping[str, str]) -> Iterator[int]:
    """Run a program until the caller is done; the tail of its log is shown when it fails."""
    with (
        log.open("w") as output,
        subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment}, cwd=log.parent
        ) as process,
    ):
        try:
            yield process.pid
        except BaseException:
            print(f"the end of {log.name}:\n{log.read_text()[-3000:]}")
            raise
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
