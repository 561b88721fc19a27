"""A control plane with a connected cluster, extension, trusted access and storage, for tests of the command line."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom.client.readyfile import ReadyFile
from strongroom.client.session import Session
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.objects import STORAGE_CLASS_IMMEDIATE

PROGRAM = Path(sys.executable).with_name("strongroom")
LOCATION = "westus"
GROUP = "rg"
SNAPSHOTS = "snapshots"
CLUSTER = "aks1"
VAULT = "vault1"
INSTANCE = "shop"
PROVIDERS = ("DataProtection", "ContainerService", "KubernetesConfiguration", "Storage")
EXTENSION = "Microsoft.KubernetesConfiguration/extensions/azure-aks-backup"
OPERATOR = "Microsoft.DataProtection/backupVaults/backup-operator"
SECONDS = 180  # a job takes seconds; the machine may be busy with other tests


@dataclass
class Stage:
    """A server known by its ready file, and the cluster that is connected to it."""

    ready_file: Path
    testbed: Testbed

    def run(self, *words: str, ready: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `strongroom`, told where the server is unless not *ready*."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("STRONGROOM", "KUBECONFIG"))}
        if ready:
            environment["STRONGROOM_READY_FILE"] = str(self.ready_file)
        command = [str(PROGRAM), *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS, check=False)

    def document(self, *words: str, code: int = 0) -> Any:
        """Run a command with `--output json`; return what it prints when it exits with *code*."""
        done = self.run(*words, "--output", "json")
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def session(self) -> Session:
        return Session(ReadyFile.read(self.ready_file))

    def findings(self, *words: str) -> tuple[int, dict[tuple[str, str], Any]]:
        """Run `doctor`; return its exit code and its findings by check and subject."""
        done = self.run("doctor", *words, "--output", "json")
        assert done.stdout, done.stderr
        return done.returncode, {(f["check"], f["subject"]): f for f in json.loads(done.stdout)["findings"]}

    def prepare(self, attached: dict[str, Any] | None = None) -> None:
        """Do what az does in the how-to: register providers, make groups, a storage account and a container.

        The account is a local one, or lies where *attached* says (`strongroomLocation`).
        """
        with self.session() as session:
            for provider in PROVIDERS:
                session.post(f"{session.root}/providers/Microsoft.{provider}/register")
            for group in (GROUP, SNAPSHOTS):
                session.put(session.group(group), {"location": LOCATION})
            account = f"{session.group(GROUP)}/providers/Microsoft.Storage/storageAccounts/backups1"
            properties = {"properties": {"strongroomLocation": attached}} if attached else {}
            kind = {"kind": "StorageV2", "sku": {"name": "Standard_LRS"}}
            session.put(account, {"location": LOCATION, **kind, **properties})
            session.put(f"{account}/blobServices/default/containers/backups", {})

    def connect(self, **more: str) -> None:
        """Connect the cluster, and install the extension in it, with *more* settings of `configuration.`."""
        kubeconfig = str(self.testbed.kubeconfig)
        self.document("cluster", "connect", CLUSTER, "-g", GROUP, "--kubeconfig", kubeconfig)
        self.install(**more)

    def install(self, **more: str) -> None:
        """Install the extension, or install it anew."""
        with self.session() as session:
            cluster = self.cluster_id(session)
            prefix = "configuration.backupStorageLocation."
            settings = {
                f"{prefix}bucket": "backups",
                f"{prefix}config.storageAccount": "backups1",
                f"{prefix}config.resourceGroup": GROUP,
                f"{prefix}config.subscriptionId": session.subscription,
                **{f"configuration.{name}": value for name, value in more.items()},
            }
            session.put(
                f"{cluster}/providers/{EXTENSION}",
                {
                    "properties": {
                        "extensionType": "microsoft.dataprotection.kubernetes",
                        "scope": {"cluster": {}},
                        "configurationSettings": settings,
                    }
                },
            )

    def trust(self) -> None:
        """Let the vault into the cluster."""
        with self.session() as session:
            vault = f"{session.group(GROUP)}/providers/Microsoft.DataProtection/backupVaults/{VAULT}"
            properties = {"sourceResourceId": vault, "roles": [OPERATOR]}
            session.put(f"{self.cluster_id(session)}/trustedAccessRoleBindings/tab", {"properties": properties})

    @staticmethod
    def cluster_id(session: Session) -> str:
        return f"{session.group(GROUP)}/providers/Microsoft.ContainerService/managedClusters/{CLUSTER}"


def application(namespace: str) -> str:
    """Return a namespace with a ConfigMap and a volume."""
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": namespace},
            "data": {"greeting": "hello"},
        },
        claim(namespace, "data"),
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def claim(namespace: str, name: str) -> dict[str, Any]:
    """Return a claim of a small volume."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": STORAGE_CLASS_IMMEDIATE,
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
