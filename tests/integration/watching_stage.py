"""An extension that carries out custom resources by itself, in a process that may be killed. Not a test."""

import asyncio
import base64
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.repository.keyentries import add_recipient, add_writer
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.model import Manifest
from strongroom.dataplane.repository.repository import Repository
from strongroom.testbed.cluster import Testbed

from .extension_stage import OWN_NAMESPACE, VICTIM, define, eventually, get

FINAL = ("Completed", "PartiallyFailed", "Failed", "Cancelled")


@dataclass
class Life:
    """A process of the extension, as `subprocess.Popen` shows its own."""

    pid: int
    fate: Path

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        """Return how the process ended, None while it runs."""
        ended = self.fate.with_name(f"{self.fate.name}.{self.pid}")
        return int(ended.read_text()) if ended.exists() else None

    def wait(self, seconds: float = 30.0) -> int:
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, f"the extension {self.pid} did not end in time"
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def mother() -> subprocess.Popen[bytes]:
    """Return the process that forks extensions; it ends with this one, because its input does."""
    command = (sys.executable, str(VICTIM), "--fork")
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def bear(arguments: list[str], fate: Path, log: Path, days: int = 0) -> Life:
    """Start an extension; its environment is ours as it is now."""
    process = mother()
    assert process.stdin is not None
    assert process.stdout is not None
    birth = {"arguments": arguments, "environment": dict(os.environ), "fate": str(fate), "log": str(log), "days": days}
    process.stdin.write(json.dumps(birth).encode() + b"\n")
    process.stdin.flush()
    return Life(int(process.stdout.readline()), fate)


@dataclass
class WatchStage:
    """One cluster with our definitions, a repository, and processes of the extension."""

    testbed: Testbed
    folder: Path
    keys: KeyFile
    url: str
    kubeconfig: Path
    processes: list[Life] = field(default_factory=list)

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

    def start(self, *, days: int = 0) -> Life:
        """Start an extension; its sweep for leftovers believes that it is *days* later."""
        arguments = ["--watch", "--kubeconfig", str(self.kubeconfig)]
        process = bear(arguments, self.fate, self.folder / "log", days)
        self.processes.append(process)
        return process

    def log(self) -> str:
        """Return what all processes logged."""
        return (self.folder / "log").read_text()

    @contextlib.contextmanager
    def running(self, *, days: int = 0) -> Iterator[Life]:
        """Run an extension, as `start`; end it, and all others."""
        try:
            yield self.start(days=days)
        finally:
            self.stop()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End all processes of the extension."""
        for process in self.processes:
            process.send_signal(number)
        for process in self.processes:
            process.wait(30)
        self.processes.clear()

    @property
    def fate(self) -> Path:
        """The file that says at which write a process dies or stops."""
        return self.folder / "fate"

    def doom(self, at: str, when: str, nth: int = 1) -> None:
        """As `Stage.doom`; `extension_victim` has all that may happen."""
        self.fate.write_text(json.dumps({"at": at, "when": when, "nth": nth}))

    async def killed(self, process: Life) -> None:
        """Wait until a process has died of its fate."""

        async def dead() -> bool:
            return process.poll() is not None

        await eventually(dead)
        assert process.returncode == -signal.SIGKILL
        self.processes.remove(process)

    async def paused(self) -> None:
        """Wait until a process is paused by its fate."""

        async def met() -> bool:
            return self.fate.with_name("fate.paused").exists()

        await eventually(met)

    def go_on(self) -> None:
        """Let paused processes go on."""
        self.fate.with_name("fate.paused").unlink()

    def doomed(self) -> bool:
        """Say whether the process has met its fate."""
        return not self.fate.exists()

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

    async def manifests(self) -> list[Manifest]:
        """Return the manifest of each recovery point."""
        repository = await Repository.open(await open_store(self.url), self.keys)
        return [point.manifest for point in await repository.points() if point.manifest is not None]

    async def callers(self) -> list[dict[str, str]]:
        """Return the caller data of each recovery point."""
        return [dict(manifest.caller) for manifest in await self.manifests()]


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
