"""The second act: the service protects the application through Azure's REST API, and restores a copy of it."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from strongroom.cli.demo.terminal import DemoFailed, Terminal, wait_until
from strongroom.client.errors import RequestRefused
from strongroom.client.readyfile import ReadyFile
from strongroom.client.session import Session
from strongroom.testbed.cluster import Testbed

Json = dict[str, Any]

GROUP: Final = "demo"
LOCATION: Final = "local"
COPY: Final = "shop-copy"
STOP_SECONDS: Final = 30.0
JOB_SECONDS: Final = 300.0
PROVIDERS: Final = ("DataProtection", "ContainerService", "KubernetesConfiguration", "Storage")
DATASOURCE: Final = "Microsoft.ContainerService/managedClusters"
STORE: Final = {"dataStoreType": "OperationalStore", "objectType": "DataStoreInfoBase"}

POLICY: Final[Json] = {
    "properties": {
        "objectType": "BackupPolicy",
        "datasourceTypes": [DATASOURCE],
        "policyRules": [
            {
                "objectType": "AzureBackupRule",
                "name": "BackupHourly",
                "backupParameters": {"objectType": "AzureBackupParams", "backupType": "Incremental"},
                "dataStore": STORE,
                "trigger": {
                    "objectType": "ScheduleBasedTriggerContext",
                    "schedule": {"repeatingTimeIntervals": ["R/2026-01-01T00:00:00+00:00/PT4H"], "timeZone": "UTC"},
                    "taggingCriteria": [
                        {"tagInfo": {"id": "Default_", "tagName": "Default"}, "taggingPriority": 99, "isDefault": True}
                    ],
                },
            },
            {
                "objectType": "AzureRetentionRule",
                "name": "Default",
                "isDefault": True,
                "lifecycles": [
                    {
                        "deleteAfter": {"objectType": "AbsoluteDeleteOption", "duration": "P7D"},
                        "sourceDataStore": STORE,
                    }
                ],
            },
        ],
    }
}


class ServiceDemo:
    """The service's part of the demonstration; `run` reads as its steps, `proved` collects what they showed."""

    def __init__(self, testbed: Testbed, terminal: Terminal, folder: Path) -> None:
        self._testbed = testbed
        self._terminal = terminal
        self._folder = folder
        self._ready_file = folder / "ready.json"
        self.proved: list[str] = []

    def run(self) -> None:
        """Carry out every step. Raises `DemoFailed` at the first that does not do what it should."""
        self._terminal.step("Start the service, and set up what Azure's how-to sets up")
        with self._served(), Session(ReadyFile.read(self._ready_file)) as session:
            self._session = session
            self._names()
            self._set_up()
            self._protect()
            point = self._back_up()
            self._restore(point)

    @contextlib.contextmanager
    def _served(self) -> Iterator[None]:
        program = str(Path(sys.executable).parent / "strongroom")
        home = str(self._folder / "home")
        command = [program, "serve", "--home", home, "--port", "0", "--ready-file", str(self._ready_file)]
        self._terminal.say("$ strongroom serve --home home --ready-file ready.json &")
        with (self._folder / "serve.log").open("wb") as log:
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                wait_until(lambda: self._ready_file.exists() or server.poll() is not None, "the service is ready")
                if server.poll() is not None:
                    raise DemoFailed("the service ended")
                yield
            except BaseException:
                self._terminal.say(f"the service's log ends with\n{(self._folder / 'serve.log').read_text()[-3000:]}")
                raise
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(STOP_SECONDS)

    def _names(self) -> None:
        group = self._session.group(GROUP)
        self._vault = f"{group}/providers/Microsoft.DataProtection/backupVaults/demo-vault"
        self._cluster = f"{group}/providers/{DATASOURCE}/demo-cluster"
        self._account = f"{group}/providers/Microsoft.Storage/storageAccounts/demobackups"
        self._instance = f"{self._vault}/backupInstances/demo-cluster-shop"

    def _set_up(self) -> None:
        session = self._session
        for provider in PROVIDERS:
            session.post(f"{session.root}/providers/Microsoft.{provider}/register")
        session.put(session.group(GROUP), {"location": LOCATION})
        storage = [{"datastoreType": "OperationalStore", "type": "LocallyRedundant"}]
        identity = {"type": "SystemAssigned"}
        session.put(
            self._vault, {"location": LOCATION, "identity": identity, "properties": {"storageSettings": storage}}
        )
        session.put(f"{self._vault}/backupPolicies/every-4-hours", POLICY)
        session.put(self._account, {"location": LOCATION, "kind": "StorageV2", "sku": {"name": "Standard_LRS"}})
        session.put(f"{self._account}/blobServices/default/containers/backups", {})
        self._terminal.say("PUT vault, policy (every 4 hours, kept 7 days), storage account, container")
        self._terminal.strongroom(
            *("cluster", "connect", "demo-cluster", "--resource-group", GROUP, "--location", LOCATION),
            *("--kubeconfig", str(self._testbed.kubeconfig), "--ready-file", str(self._ready_file)),
        )
        prefix = "configuration.backupStorageLocation."
        settings = {
            f"{prefix}bucket": "backups",
            f"{prefix}config.storageAccount": "demobackups",
            f"{prefix}config.resourceGroup": GROUP,
            f"{prefix}config.subscriptionId": session.subscription,
        }
        session.put(
            f"{self._cluster}/providers/Microsoft.KubernetesConfiguration/extensions/azure-aks-backup",
            {
                "properties": {
                    "extensionType": "microsoft.dataprotection.kubernetes",
                    "scope": {"cluster": {}},
                    "configurationSettings": settings,
                }
            },
        )
        roles = ["Microsoft.DataProtection/backupVaults/backup-operator"]
        session.put(
            f"{self._cluster}/trustedAccessRoleBindings/demo",
            {"properties": {"sourceResourceId": self._vault, "roles": roles}},
        )
        self._terminal.say("PUT backup extension, trusted access")

    def _protect(self) -> None:
        self._terminal.step("Protect the cluster: validate names every missing role, one request grants them")
        session, body = self._session, {"backupInstance": self._request()}
        try:
            session.post(f"{self._vault}/validateForBackup", body)
        except RequestRefused as refused:
            self._terminal.say(f"refused: {refused.message[:300]} …")
        else:
            raise DemoFailed("nothing was missing before roles were assigned")
        granted = session.post(f"{self._vault}/grantPermissions", {**body, "permissionsScope": "Resource"})
        self._terminal.say(f"POST grantPermissions made {len(granted['roleAssignments'])} role assignments")
        session.post(f"{self._vault}/validateForBackup", body)
        made = session.put(self._instance, {"properties": self._request()})
        state = made["properties"]["currentProtectionState"]
        self._terminal.say(f"PUT backup instance: {state}")
        if state != "ProtectionConfigured":
            raise DemoFailed(f"the backup instance is {state}")
        self.proved.append("the service refused to protect a cluster before every role was there, and named them all")

    def _back_up(self) -> str:
        self._terminal.step("Back up on demand, and follow the job")
        options = {"ruleName": "BackupHourly", "triggerOption": {"retentionTagOverride": "Default"}}
        job = self._job(self._session.post(f"{self._instance}/backup", {"backupRuleOptions": options}))
        point: str = job["extendedInfo"]["targetRecoverPoint"]["recoveryPointID"]
        details = job["extendedInfo"]["additionalDetails"]
        self._terminal.say(f"job {job['status']} after {job['duration']}: recovery point {point}")
        self._terminal.say(f"{details['Objects']} objects, {int(details['BytesWritten']):,} bytes written")
        return point

    def _restore(self, point: str) -> None:
        self._terminal.step("Restore a copy of the shop beside it")
        source = self._request()["dataSourceInfo"]
        request: Json = {
            "objectType": "AzureBackupRecoveryPointBasedRestoreRequest",
            "recoveryPointId": point,
            "sourceDataStoreType": "OperationalStore",
            "restoreTargetInfo": {
                "objectType": "ItemLevelRestoreTargetInfo",
                "recoveryOption": "FailIfExists",
                "restoreLocation": LOCATION,
                "datasourceInfo": source,
                "datasourceSetInfo": {**source, "objectType": "DatasourceSet"},
                "restoreCriteria": [
                    {
                        "objectType": "KubernetesClusterRestoreCriteria",
                        "includeClusterScopeResources": False,
                        "includedNamespaces": ["shop"],
                        "namespaceMappings": {"shop": COPY},
                        "persistentVolumeRestoreMode": "RestoreWithVolumeData",
                        "conflictPolicy": "Skip",
                    }
                ],
            },
        }
        job = self._job(self._session.post(f"{self._instance}/restore", request))
        details = job["extendedInfo"]["additionalDetails"]
        self._terminal.say(f"job {job['status']} after {job['duration']}: {details['Created']} objects created")
        what = ("get", "configmap", "settings", "-o", "jsonpath={.data}{.binaryData}")
        if self._testbed.kubectl(*what, "-n", COPY) != self._testbed.kubectl(*what, "-n", "shop"):
            raise DemoFailed("the copy of ConfigMap settings differs")
        self.proved.append(
            f"the service backed the cluster up and restored the shop into {COPY} through Azure's REST API, "
            f"job by job ({details['Created']} objects)"
        )

    def _job(self, begun: Json) -> Json:
        deadline = time.monotonic() + JOB_SECONDS
        while True:
            properties: Json = self._session.get(begun["jobId"])["properties"]
            if properties["status"] != "InProgress":
                break
            if time.monotonic() > deadline:
                raise DemoFailed("the job does not end")
            time.sleep(0.5)
        if properties["status"] not in ("Completed", "CompletedWithWarnings"):
            raise DemoFailed(f"the job is {properties['status']}: {properties['errorDetails']}")
        return properties

    def _request(self) -> Json:
        source = {
            "objectType": "Datasource",
            "datasourceType": DATASOURCE,
            "resourceID": self._cluster,
            "resourceName": "demo-cluster",
            "resourceLocation": LOCATION,
        }
        return {
            "objectType": "BackupInstance",
            "friendlyName": "demo-cluster/everything",
            "dataSourceInfo": source,
            "dataSourceSetInfo": {**source, "objectType": "DatasourceSet"},
            "policyInfo": {
                "policyId": f"{self._vault}/backupPolicies/every-4-hours",
                "policyParameters": {
                    "dataStoreParametersList": [
                        {
                            "objectType": "AzureOperationalStoreParameters",
                            "dataStoreType": "OperationalStore",
                            "resourceGroupId": self._session.group(GROUP),
                        }
                    ],
                    "backupDatasourceParametersList": [
                        {
                            "objectType": "KubernetesClusterBackupDatasourceParameters",
                            "snapshotVolumes": True,
                            "includeClusterScopeResources": True,
                        }
                    ],
                },
            },
        }
