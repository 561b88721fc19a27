"""An extension that carries out custom resources by itself, in a process that may be killed. Not a test."""

import asyncio
import base64
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.repository.keyentries import add_recipient, add_writer
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.repository import Repository
from strongroom.testbed.cluster import Testbed

from .extension_stage import OWN_NAMESPACE, VICTIM, eventually, get

DEFINITIONS = Path(__file__).parents[2] / "deploy" / "crds"
FINAL = ("Completed", "PartiallyFailed", "Failed", "Cancelled")


@dataclass
class WatchStage:
    """One cluster with our definitions, a repository, and processes of the extension."""

    testbed: Testbed
    folder: Path
    keys: KeyFile
    url: str
    kubeconfig: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    async def build(cls, testbed: Testbed, folder: Path, url: str = "", kubeconfig: Path | None = None) -> "WatchStage":
        """Have definitions and namespace in the cluster, and nothing of an earlier stage, and make a repository."""
        define(testbed)
        everything = "backups,restores,deletebackups,backupstoragelocations,events,leases"
        testbed.kubectl("delete", everything, "--all", "-n", OWN_NAMESPACE)
        url = url or f"file://{folder}/store"
        store = await open_store(url, create=True)
        _, key = await Repository.init(store, key_file=folder / "key.json")
        return cls(testbed, folder, KeyFile.load(key), url, kubeconfig or testbed.kubeconfig)

    def start(self) -> subprocess.Popen[bytes]:
        """Start an extension."""
        command = (sys.executable, str(VICTIM), str(self.folder / "fate"), "--watch", "--kubeconfig", self.kubeconfig)
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def log(self) -> str:
        """Return what all processes logged."""
        return (self.folder / "log").read_text()

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run an extension; end it, and all others."""
        try:
            yield self.start()
        finally:
            self.stop()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End all processes of the extension."""
        for process in self.processes:
            process.send_signal(number)
        for process in self.processes:
            process.wait(30)
        self.processes.clear()

    def doom(self, at: str, when: str, nth: int = 1) -> None:
        """As `Stage.doom`."""
        (self.folder / "fate").write_text(json.dumps({"at": at, "when": when, "nth": nth}))

    async def killed(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until a process has died of its fate."""

        async def dead() -> bool:
            return process.poll() is not None

        await eventually(dead)
        assert process.returncode == -signal.SIGKILL
        self.processes.remove(process)

    def doomed(self) -> bool:
        """Say whether the process has met its fate."""
        return not (self.folder / "fate").exists()

    async def locate(self, name: str = "main", url: str = "") -> None:
        """Make the storage location, let the extension into the repository, wait until it can be used."""
        root = base64.b64encode(self.keys.root_public).decode()
        self.apply("BackupStorageLocation", name, {"url": url or self.url, "root": root})
        await self.allow(name)

        async def available() -> bool:
            return bool(self.get("backupstoragelocation", name)["status"]["phase"] == "Available")

        await eventually(available)

    async def allow(self, name: str = "main") -> None:
        """Let the extension that checked the storage location into the repository."""

        async def checked() -> bool:
            return "recipient" in self.get("backupstoragelocation", name).get("status", {})

        await eventually(checked)
        status = self.get("backupstoragelocation", name)["status"]
        store = await open_store(self.url)
        await add_writer(store, self.keys.root, base64.b64decode(status["writer"]), backup_only=True)
        await add_recipient(store, self.keys, status["recipient"])

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        self.testbed.kubectl("apply", "-f", "-", stdin=json.dumps(resource(kind, name, spec)))

    def get(self, *words: str) -> dict[str, Any]:
        return get(self.testbed, "-n", OWN_NAMESPACE, *words)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return self.testbed.kubectl("-n", OWN_NAMESPACE, *words, stdin=stdin)

    async def ended(self, kind: str, name: str, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for the end of a resource; return its status."""

        async def final() -> bool:
            return self.get(kind, name).get("status", {}).get("phase") in FINAL

        try:
            await eventually(final, seconds)
        except AssertionError as error:
            error.add_note(self.log()[-3000:])
            raise
        status: dict[str, Any] = self.get(kind, name)["status"]
        return status

    async def back_up(self, name: str, namespace: str) -> dict[str, Any]:
        self.apply("Backup", name, backup_spec(namespace))
        return await self.ended("backup", name)

    async def callers(self) -> list[dict[str, str]]:
        """Return the caller data of each recovery point."""
        repository = await Repository.open(await open_store(self.url), self.keys)
        return [dict(point.manifest.caller) for point in await repository.points() if point.manifest is not None]


def define(testbed: Testbed) -> None:
    """Put our definitions and our namespace into a cluster."""
    testbed.kubectl("apply", "-f", str(DEFINITIONS))
    namespace = testbed.kubectl("create", "namespace", OWN_NAMESPACE, "--dry-run=client", "-o", "json")
    testbed.kubectl("apply", "-f", "-", stdin=namespace)


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "backup.strongroom.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": OWN_NAMESPACE},
        "spec": spec,
    }


def backup_spec(namespace: str, **more: Any) -> dict[str, Any]:
    selection = {"snapshotVolumes": True, "includeClusterScopeResources": False, "includedNamespaces": [namespace]}
    return {"storageLocation": "main", "selection": selection, **more}


def restore_spec(point: str, source: str, target: str) -> dict[str, Any]:
    criteria = {
        "includeClusterScopeResources": False,
        "includedNamespaces": [source],
        "namespaceMappings": {source: target},
        "conflictPolicy": "Skip",
    }
    return {"storageLocation": "main", "recoveryPointId": point, "criteria": criteria}


async def until_logged(stage: WatchStage, text: str, times: int = 1) -> None:
    async def logged() -> bool:
        await asyncio.sleep(0)
        return stage.log().count(text) >= times

    await eventually(logged)
