"""The second act: the service protects the application through Azure's REST API, and restores a copy of it."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from strongroom.cli.demo.terminal import DemoFailed, Terminal, wait_until
from strongroom.client.readyfile import ReadyFile
from strongroom.client.session import Session
from strongroom.errors import ExitCode
from strongroom.testbed.cluster import Testbed

GROUP: Final = "demo"
LOCATION: Final = "local"
COPY: Final = "shop-copy"
CLUSTER: Final = "demo-cluster"
INSTANCE: Final = "demo-cluster-everything"
STOP_SECONDS: Final = 30.0
PROVIDERS: Final = ("DataProtection", "ContainerService", "KubernetesConfiguration")


class ServiceDemo:
    """The service's part of the demonstration; `run` reads as its steps, `proved` collects what they showed.

    The terminal's environment names *ready_file* as STRONGROOM_READY_FILE.
    """

    def __init__(self, testbed: Testbed, terminal: Terminal, folder: Path, ready_file: Path) -> None:
        self._testbed = testbed
        self._terminal = terminal
        self._folder = folder
        self._ready_file = ready_file
        self.proved: list[str] = []

    def run(self) -> None:
        """Carry out every step. Raises `DemoFailed` at the first that does not do what it should."""
        self._terminal.step("Start the service, and set up what Azure's how-to sets up")
        with self._served():
            self._set_up()
            self._protect()
            self._back_up()
            self._restore()

    @contextlib.contextmanager
    def _served(self) -> Iterator[None]:
        program = str(Path(sys.executable).parent / "strongroom")
        home = str(self._folder / "home")
        command = [program, "serve", "--home", home, "--port", "0", "--ready-file", str(self._ready_file)]
        self._terminal.say("$ strongroom serve --home home --ready-file ready.json &")
        logged = self._folder / "serve.log"
        with logged.open("wb") as log:
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                wait_until(lambda: self._ready_file.exists() or server.poll() is not None, "the service is ready")
                if server.poll() is not None:
                    raise DemoFailed("the service ended")
                yield
            except BaseException:
                self._terminal.say(f"the service's log ends with\n{logged.read_text()[-3000:]}")
                raise
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(STOP_SECONDS)

    def _set_up(self) -> None:
        strongroom = self._terminal.strongroom
        with Session(ReadyFile.read(self._ready_file)) as session:
            group = session.group(GROUP)
            for provider in PROVIDERS:
                session.post(f"{session.root}/providers/Microsoft.{provider}/register")
            session.put(group, {"location": LOCATION})
            self._terminal.say(f"PUT resource group {GROUP}")
            strongroom("vault", "create", "demo-vault", "--resource-group", GROUP)
            strongroom("policy", "create", "every-4-hours", "--every", "4h", "--keep", "7d")
            strongroom(
                *("cluster", "connect", CLUSTER, "--resource-group", GROUP, "--location", LOCATION),
                *("--kubeconfig", str(self._testbed.kubeconfig)),
            )
            account = f"{group}/providers/Microsoft.Storage/storageAccounts/demobackups"
            session.put(account, {"location": LOCATION, "kind": "StorageV2", "sku": {"name": "Standard_LRS"}})
            session.put(f"{account}/blobServices/default/containers/backups", {})
            cluster = f"{group}/providers/Microsoft.ContainerService/managedClusters/{CLUSTER}"
            prefix = "configuration.backupStorageLocation."
            settings = {
                f"{prefix}bucket": "backups",
                f"{prefix}config.storageAccount": "demobackups",
                f"{prefix}config.resourceGroup": GROUP,
                f"{prefix}config.subscriptionId": session.subscription,
            }
            kind = "microsoft.dataprotection.kubernetes"
            session.put(
                f"{cluster}/providers/Microsoft.KubernetesConfiguration/extensions/azure-aks-backup",
                {"properties": {"extensionType": kind, "configurationSettings": settings}},
            )
            vault = f"{group}/providers/Microsoft.DataProtection/backupVaults/demo-vault"
            roles = ["Microsoft.DataProtection/backupVaults/backup-operator"]
            session.put(
                f"{cluster}/trustedAccessRoleBindings/demo", {"properties": {"sourceResourceId": vault, "roles": roles}}
            )
        self._terminal.say("PUT storage account, container, backup extension, trusted access")

    def _protect(self) -> None:
        self._terminal.step("Protect the cluster: every missing role is named, and granted in one request")
        request = ("--cluster", CLUSTER, "--policy", "every-4-hours")
        self._terminal.strongroom("instance", "create", INSTANCE, *request, expect=ExitCode.USAGE, lines=12)
        self._terminal.strongroom("instance", "grant", *request)
        self._terminal.strongroom("instance", "create", INSTANCE, *request)
        self.proved.append("the service refused to protect a cluster before every role was there, and named them all")

    def _back_up(self) -> None:
        self._terminal.step("Back up on demand, and follow the job")
        self._terminal.strongroom("instance", "backup", INSTANCE)
        self._terminal.strongroom("instance", "points", INSTANCE)

    def _restore(self) -> None:
        self._terminal.step("Restore a copy of the shop beside it")
        chosen = ("--point", "latest", "--include-namespace", "shop", "--map-namespace", f"shop={COPY}")
        self._terminal.strongroom("instance", "restore", INSTANCE, *chosen)
        what = ("get", "configmap", "settings", "-o", "jsonpath={.data}{.binaryData}")
        if self._testbed.kubectl(*what, "-n", COPY) != self._testbed.kubectl(*what, "-n", "shop"):
            raise DemoFailed("the copy of ConfigMap settings differs")
        copied = len(json.loads(self._testbed.kubectl("get", "configmaps,orders", "-n", COPY, "-o", "json"))["items"])
        self.proved.append(
            f"the service backed the cluster up and restored the shop into {COPY} through Azure's REST API, job by job "
            f"({copied} ConfigMaps and Orders are there)"
        )
