"""A hosted extension on the test cluster, with an account, a repository and namespaces to work on. Not a test."""

import asyncio
import base64
import contextlib
import json
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strongroom.controlplane.clusters import documents
from strongroom.controlplane.clusters.hosted import ExtensionGone, HostedExtension
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.repository.keyentries import add_recipient, add_writer
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.repository import Repository
from strongroom.extension.api.documents import API_VERSION, BackupStorageLocation, parse_document, parse_work
from strongroom.extension.api.status import BackupStatus, RestoreStatus, Status
from strongroom.testbed.cluster import Testbed

VICTIM = Path(__file__).with_name("extension_victim.py")
DEFINITIONS = Path(__file__).parents[2] / "deploy" / "crds"
OWN_NAMESPACE = "dataprotection-microsoft"
OURS = "backups,restores,deletebackups,backupstoragelocations,leases"
LOCATION = "container"
TOKEN_SECONDS = 3600


def define(testbed: Testbed) -> None:
    """Put our definitions and our namespace into a cluster."""
    testbed.kubectl("apply", "-f", str(DEFINITIONS))
    namespace = testbed.kubectl("create", "namespace", OWN_NAMESPACE, "--dry-run=client", "-o", "json")
    testbed.kubectl("apply", "-f", "-", stdin=namespace)


def make_account(testbed: Testbed, account: str) -> str:
    """Make the extension's namespace and a cluster-admin account in it; return a token of the account."""
    binding = f"{OWN_NAMESPACE}-{account}"
    for words in (
        ("namespace", OWN_NAMESPACE),
        ("serviceaccount", account, "-n", OWN_NAMESPACE),
        ("clusterrolebinding", binding, "--clusterrole=cluster-admin", f"--serviceaccount={OWN_NAMESPACE}:{account}"),
    ):
        document = testbed.kubectl("create", *words, "--dry-run=client", "-o", "json")
        testbed.kubectl("apply", "-f", "-", stdin=document)
    return testbed.kubectl("create", "token", account, "-n", OWN_NAMESPACE, f"--duration={TOKEN_SECONDS}s").strip()


@dataclass
class Stage:
    """One hosted extension and the repository that it may use.

    Of one cluster only one works at a time: tests that share a cluster with others cannot have it.
    """

    testbed: Testbed
    folder: Path
    extension: HostedExtension
    url: str = ""
    keys: KeyFile | None = None
    statuses: list[Status] = field(default_factory=list)

    @classmethod
    async def build(cls, testbed: Testbed, folder: Path, token: str = "") -> "Stage":
        """Start an extension with *token*, by default one of an account that may do everything."""
        define(testbed)
        testbed.kubectl("delete", OURS, "--all", "-n", OWN_NAMESPACE)
        token_file = folder / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(token or make_account(testbed, "stage"))
        extension = HostedExtension(
            server=testbed.server,
            ca=testbed.ca_file.read_text(),
            token_file=token_file,
            namespace=OWN_NAMESPACE,
            allow_loopback=True,
            command=(sys.executable, str(VICTIM), str(folder / "fate"), "--pipe"),
        )
        stage = cls(testbed, folder, extension)
        await stage.make_repository()
        await stage.start()
        return stage

    async def make_repository(self) -> None:
        """Make a repository; the extension is not allowed there yet."""
        self.url = f"file://{self.folder}/store-{uuid.uuid4().hex[:8]}"
        store = await open_store(self.url, create=True)
        _, key = await Repository.init(store, key_file=self.folder / f"{uuid.uuid4().hex}.json")
        self.keys = KeyFile.load(key)

    async def start(self) -> None:
        """Start the extension, allow it on the repository and tell it where that is."""
        assert self.keys is not None
        made = await self.extension.start()
        store = await open_store(self.url)
        await add_recipient(store, self.keys, made.recipient)
        await add_writer(store, self.keys.root, made.writer, backup_only=True)
        await self.extension.location(self.location())

    def location(self, **spec: Any) -> BackupStorageLocation:
        assert self.keys is not None
        root = base64.b64encode(self.keys.root_public).decode()
        made = parse_document(
            {
                "apiVersion": API_VERSION,
                "kind": "BackupStorageLocation",
                "metadata": {"name": LOCATION},
                "spec": {"url": self.url, "root": root, "repositoryId": self.keys.repository_id, **spec},
            }
        )
        assert isinstance(made, BackupStorageLocation)
        return made

    def doom(self, at: str, when: str, nth: int = 1) -> None:
        """Have the child die `before` or `after` its *nth* write that *at* matches, or `hold` there for ever."""
        (self.folder / "fate").write_text(json.dumps({"at": at, "when": when, "nth": nth}))

    async def doomed(self) -> None:
        """Wait until the child has met its fate."""

        async def met() -> bool:
            return not (self.folder / "fate").exists()

        await eventually(met)

    async def jobs(self) -> list[str]:
        """Return the job of each recovery point."""
        points = await (await self.repository()).points()
        return [point.manifest.caller["job"] for point in points if point.manifest is not None]

    async def repository(self) -> Repository:
        return await Repository.open(await open_store(self.url), self.keys)

    async def make(self, document: dict[str, Any]) -> str:
        """Make a document, or find it made; return its uid."""
        async with KubeApi.from_kubeconfig(self.testbed.kubeconfig) as api:
            return await documents.submit(api, parse_work(document))

    async def run(self, document: dict[str, Any]) -> Status:
        """Make a document and wait for its end, through as many restarts of the child as it takes."""

        async def keep(status: Status) -> None:
            self.statuses.append(status)

        work, uid = parse_work(document), await self.make(document)
        async with KubeApi.from_kubeconfig(self.testbed.kubeconfig) as api:
            following = asyncio.create_task(documents.follow(api, work.kind, work.name, uid, keep))
            while not following.done():
                if not self.extension.alive:
                    with contextlib.suppress(ExtensionGone):  # it dies in its start, too
                        await self.start()
                await asyncio.wait([following], timeout=0.1)
            return await following

    async def back_up(self, namespace: str, name: str = "", **spec: Any) -> BackupStatus:
        status = await self.run(backup(name or new_name(), namespace, **spec))
        assert isinstance(status, BackupStatus)
        return status

    async def restore(self, point: str, mapping: dict[str, str], name: str = "", **criteria: Any) -> RestoreStatus:
        status = await self.run(restore(name or new_name(), point, mapping, **criteria))
        assert isinstance(status, RestoreStatus)
        return status


def new_name() -> str:
    return str(uuid.uuid4())


def backup(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    selection = {
        "snapshotVolumes": True,
        "includeClusterScopeResources": False,
        "includedNamespaces": [namespace],
        **spec.pop("selection", {}),
    }
    caller = {"instance": f"instance-of-{namespace}", "tag": "Default"}
    return {
        "apiVersion": API_VERSION,
        "kind": "Backup",
        "metadata": {"name": name},
        "spec": {"storageLocation": LOCATION, "selection": selection, "caller": caller, **spec},
    }


def restore(name: str, point: str, mapping: dict[str, str], **criteria: Any) -> dict[str, Any]:
    dry_run = criteria.pop("dryRun", False)
    wanted = {
        "includeClusterScopeResources": False,
        "includedNamespaces": list(mapping),
        "namespaceMappings": mapping,
        "conflictPolicy": "Skip",
        "persistentVolumeRestoreMode": "RestoreWithVolumeData",
        **criteria,
    }
    spec = {"storageLocation": LOCATION, "recoveryPointId": point, "criteria": wanted, "dryRun": dry_run}
    return {"apiVersion": API_VERSION, "kind": "Restore", "metadata": {"name": name}, "spec": spec}


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not become so in time"
        await asyncio.sleep(0.05)


def get(testbed: Testbed, *words: str) -> dict[str, Any]:
    found = json.loads(testbed.kubectl("get", *words, "-o", "json", "--ignore-not-found") or "{}")
    assert isinstance(found, dict)
    return found


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"env": "prod"}},
        "data": data,
    }


def claim(name: str, storage_class: str = "folder-immediate") -> dict[str, Any]:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": "1Mi"}},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def put(testbed: Testbed, namespace: str, *objects: dict[str, Any]) -> None:
    items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    testbed.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(items))


async def volume_folder(testbed: Testbed, namespace: str, name: str) -> Path:
    """Wait until a claim is bound; return the folder that is its volume."""

    async def is_bound() -> bool:
        return bool(get(testbed, "pvc", name, "-n", namespace).get("status", {}).get("phase") == "Bound")

    await eventually(is_bound)
    volume = get(testbed, "pv", get(testbed, "pvc", name, "-n", namespace)["spec"]["volumeName"])
    return testbed.volume_path(volume["spec"]["csi"]["volumeHandle"])
