"""What the kill tests stand on: a control plane that dies as planned, an ARM client that outlives it, an application.

The client is small on purpose: it repeats a request whose answer it did not get, with the same id, as azure-core does.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from strongroom.controlplane.catalog.points import PointFacts, list_points
from strongroom.controlplane.catalog.sealed import StateSecrets
from strongroom.controlplane.home import Home
from strongroom.controlplane.state.database import Database, Tx
from strongroom.controlplane.workflows.containers import Containers, place_named
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.objects import STORAGE_CLASS_IMMEDIATE

VICTIM = Path(__file__).with_name("kills_victim.py")
START_SECONDS = 90  # a first start makes keys and tables; the machine may be busy with other tests
STOP_SECONDS = 30
WORK_SECONDS = 120  # a job takes seconds; its server is killed several times meanwhile
LOCATION = "westus"
DATASOURCE = "Microsoft.ContainerService/managedClusters"
PROVIDERS = (
    "Microsoft.KubernetesConfiguration",
    "Microsoft.DataProtection",
    "Microsoft.ContainerService",
    "Microsoft.Storage",
)
IDENTITY = {"type": "SystemAssigned"}
GOOD = {"Completed", "CompletedWithWarnings"}

Point = tuple[str, str, str, str]
"""Kind of work, step, place and how, as `kills_victim` reads them."""


def eventually(what: str, condition: Callable[[], Any], seconds: float = WORK_SECONDS) -> Any:
    """Return the first true value of *condition*, asked again and again."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Lives:
    """The process that forks the lives of a server, and the life that is lived now."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, str(VICTIM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = 0
        self.ended: int | None = 0
        """How the last life ended, None while it is lived."""

    def begin(self, folder: Path, database: str, port: int) -> None:
        assert self.wait(0) is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(folder), database, port]).encode() + b"\n")
        self._process.stdin.flush()
        self.pid, self.ended = self._line(), None

    def wait(self, seconds: float) -> int | None:
        """Return how the life ended, None if it has not within *seconds*."""
        assert self._process.stdout is not None
        if self.ended is None and select.select([self._process.stdout], [], [], seconds)[0]:
            self.ended = self._line()
        return self.ended

    def close(self) -> None:
        """End the life with SIGTERM, and then all."""
        try:
            if self.wait(0) is None:
                os.kill(self.pid, signal.SIGTERM)
                assert self.wait(STOP_SECONDS) == 0, "the server did not stop cleanly"
        finally:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()

    def _line(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that forks servers ended"
        return int(line)


@dataclass
class Stage:
    """A control plane's home in *folder*, its *database* ("" for SQLite), and a cluster that it protects.

    Several stages may share a control plane (*port* and *lives*); each then has a *cluster_name* of its own.
    """

    folder: Path
    database: str
    testbed: Testbed
    namespace: str
    port: int = field(default_factory=free_port)
    lives: Lives = field(default_factory=Lives)
    answers: list[int] = field(default_factory=list)
    """The status of every answer."""
    cluster_name: str = "cluster"

    # The server

    def start(self) -> None:
        """Start the server, unless it runs; it goes on with what it was at, and may meet its fate at once."""
        if self.lives.wait(0) is not None:
            (self.folder / "ready.json").unlink(missing_ok=True)
            self.lives.begin(self.folder, self.database, self.port)

    def started(self) -> None:
        """Start the server and wait until it serves."""
        self.start()
        eventually("the server serves", lambda: self._alive() and (self.folder / "ready.json").exists(), START_SECONDS)

    def outlive(self, points: Sequence[Point], *holds: Point) -> Callable[[], None]:
        """Plan kills; return what restarts the server after each, until all have struck and it serves.

        *holds* are places where work is held until it is cancelled.
        """
        (self.folder / "plan").write_text(json.dumps([*points, *holds]))

        def through() -> None:
            deaths = 0
            while deaths < len(points):
                code = self.lives.wait(WORK_SECONDS)
                assert code is not None, f"these kills were never met: {self.planned()}\n{self.log()}"
                assert code == -signal.SIGKILL, f"the server ended with {code}\n{self.log()}"
                deaths += 1
                self.start()
            assert not self.planned()
            self.started()

        return through

    def planned(self) -> list[Point]:
        try:
            found: list[Point] = json.loads((self.folder / "plan").read_text() or "[]")
        except FileNotFoundError:
            return []
        return found

    def _alive(self) -> bool:
        assert self.lives.wait(0) is None, f"the server ended with {self.lives.ended}\n{self.log()}"
        return True

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-6000:]

    def children(self) -> list[int]:
        """Return the processes of the hosted extension."""
        found = []
        for task in Path(f"/proc/{self.lives.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(word) for word in task.read_text().split()]
        return [pid for pid in found if b"strongroom.extension.main" in _command_line(pid)]

    # ARM

    @property
    def ready(self) -> dict[str, str]:
        def read() -> dict[str, str]:
            with contextlib.suppress(FileNotFoundError):
                found: dict[str, str] = json.loads((self.folder / "ready.json").read_text())
                return found
            return {}

        # A server that comes up takes its predecessor's file away before it writes its own.
        found: dict[str, str] = eventually("the server says how to reach it", read)
        return found

    @property
    def group(self) -> str:
        return f"/subscriptions/{self.ready['subscriptionId']}/resourceGroups/rg"

    @property
    def vault(self) -> str:
        return f"{self.group}/providers/Microsoft.DataProtection/backupVaults/vault"

    @property
    def instance(self) -> str:
        return f"{self.vault}/backupInstances/{self.cluster_name}-shop"

    @property
    def cluster(self) -> str:
        return f"{self.group}/providers/Microsoft.ContainerService/managedClusters/{self.cluster_name}"

    @property
    def account(self) -> str:
        return f"{self.group}/providers/Microsoft.Storage/storageAccounts/backups"

    @property
    def container_name(self) -> str:
        return f"{self.cluster_name}-points"

    @property
    def container(self) -> str:
        return f"{self.account}/blobServices/default/containers/{self.container_name}"

    def token(self) -> str:
        if not hasattr(self, "_token"):
            self._token = str(self.sign_in().json()["access_token"])
        return self._token

    def sign_in(self) -> requests.Response:
        """Ask for a token."""
        ready = self.ready
        form = {
            "grant_type": "client_credentials",
            "client_id": ready["clientId"],
            "client_secret": ready["clientSecret"],
            "scope": f"{ready['endpoint']}/.default",
        }
        url = f"{ready['endpoint']}/{ready['tenantId']}/oauth2/v2.0/token"
        return requests.post(url, data=form, verify=str(self.folder / "home/tls/ca.crt"), timeout=30)

    def send(self, method: str, path: str, body: Any = None, **query: str) -> requests.Response:
        """Send one request once. Raises `requests.ConnectionError` without an answer."""
        return self._send(method, path, body, str(uuid.uuid4()), query)

    def _send(self, method: str, path: str, body: Any, identity: str, query: dict[str, str]) -> requests.Response:
        url = path if path.startswith("https://") else f"https://127.0.0.1:{self.port}{path}"
        answer = requests.request(
            method,
            url,
            params=None if "api-version=" in path else {"api-version": "2025-07-01", **query},
            json=body,
            headers={"Authorization": f"Bearer {self.token()}", "x-ms-client-request-id": identity},
            verify=str(self.folder / "home/tls/ca.crt"),
            timeout=60,
        )
        self.answers.append(answer.status_code)
        return answer

    def arm(self, method: str, path: str, body: Any = None, **query: str) -> requests.Response:
        """Send a request until it is answered, through deaths of the server, and through 503 with Retry-After."""
        identity = str(uuid.uuid4())
        deadline = time.monotonic() + WORK_SECONDS
        while True:
            try:
                answer = self._send(method, path, body, identity, query)
                if answer.status_code != 503:
                    return answer
                assert int(answer.headers["Retry-After"]) > 0
            except (requests.ConnectionError, requests.Timeout):
                self.start()
            assert time.monotonic() < deadline, f"no answer to {method} {path}\n{self.log()}"
            time.sleep(0.1)

    def get(self, path: str) -> Any:
        answer = self.arm("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def done(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """Send a request and wait for the end of its operation; return the last answer's document."""
        answer = self.arm(method, path, body, **query)
        assert answer.status_code in {200, 201, 202, 204}, answer.text
        if poll := answer.headers.get("Azure-AsyncOperation"):
            ended = eventually(f"{method} {path} ends", lambda: _ended(self.get(poll)))
            assert ended["status"] == "Succeeded", ended
            return ended
        return answer.json() if answer.content else None

    def begin(self, action: str, body: Any) -> str:
        """Begin a backup or a restore; return the job's id."""
        answer = self.arm("POST", f"{self.instance}/{action}", body)
        assert answer.status_code == 202, answer.text
        info = self.get(answer.headers["Azure-AsyncOperation"])["properties"]
        return str(info["jobId"]).rpartition("/")[2]

    def job(self, job_id: str) -> Any:
        return self.get(f"{self.vault}/backupJobs/{job_id}")["properties"]

    def job_ended(self, job_id: str) -> Any:
        """Wait until a job has ended and return its properties."""

        def ended() -> Any:
            job = self.job(job_id)
            return job if job["status"] != "InProgress" else None

        return eventually(f"job {job_id} ends", ended)

    # The work

    def begin_backup(self) -> str:
        options = {"ruleName": "Default", "triggerOption": {"retentionTagOverride": "Default"}}
        return self.begin("backup", {"backupRuleOptions": options})

    def begin_restore(self, point: str, copy: str) -> str:
        return self.begin("restore", self._restore_request(point, copy))

    def back_up(self) -> Any:
        job = self.job_ended(self.begin_backup())
        assert job["status"] in GOOD, job
        return job

    def _restore_request(self, point: str, copy: str) -> dict[str, Any]:
        source = self._source()
        return {
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
                        "includedNamespaces": [self.namespace],
                        "persistentVolumeRestoreMode": "RestoreWithVolumeData",
                        "conflictPolicy": "Skip",
                        "namespaceMappings": {self.namespace: copy},
                    }
                ],
            },
        }

    # What must be true

    def points(self) -> list[PointFacts]:
        """Return the recovery points that the container itself holds."""

        async def read() -> list[PointFacts]:
            home = Home.open(self.folder / "home")
            database = Database.open(self.database or home.database_url, home.secret_key)
            try:
                containers = Containers(home.folder, StateSecrets(database), lambda _: "")
                with database.read() as tx:
                    place = place_named(tx, self.container)
                async with containers.repository(place) as repository:
                    return list((await list_points(repository)).points)
            finally:
                database.close()

        return asyncio.run(read())

    def known_points(self) -> set[str]:
        return {p["name"] for p in self.get(f"{self.instance}/recoveryPoints")["value"]}

    def newest_point(self) -> str:
        """Return the recovery point that was taken last; one is taken if there is none."""
        if not self.known_points():
            self.back_up()
        return max(self.points(), key=lambda point: point.time).id

    def jobs(self) -> set[str]:
        return {job["name"] for job in self.get(f"{self.vault}/backupJobs")["value"]}

    def ask(self) -> int:
        """Send a request once; return the status of its answer."""
        return self.send("GET", f"{self.vault}/backupJobs").status_code

    def ask_all(self) -> list[int]:
        """Send a request of each sort once, a sign-in among them; return the statuses of the answers."""
        sent = [
            self.send("GET", self.cluster),
            self.send("PATCH", self.vault, {"tags": {"asked": "again"}}),
            self.send("PUT", self.container, {}),
            self.send("POST", f"{self.instance}/sync"),
        ]
        # They may be remembered.
        keys = self.send("GET", f"https://127.0.0.1:{self.port}/{self.ready['tenantId']}/discovery/v2.0/keys")
        assert keys.status_code in {200, 503}
        answers = [*sent, self.sign_in()]
        assert all(int(a.headers["Retry-After"]) > 0 for a in answers if a.status_code == 503)
        return [answer.status_code for answer in answers]

    def read(self, work: Callable[[Tx], Any]) -> Any:
        """Look into the state database."""
        home = Home.open(self.folder / "home")
        database = Database.open(self.database or home.database_url, home.secret_key)
        try:
            with database.read() as tx:
                return work(tx)
        finally:
            database.close()

    def check_all_is_settled(self) -> None:
        """Nothing runs, waits or is left: each backup that succeeded has its one point, and the others have none."""

        def settled() -> bool:
            return bool(
                self.read(lambda tx: not (tx.jobs.all_running() or tx.operations.open() or tx.outbox.waiting()))
            )

        eventually("every job and operation ends", settled)
        jobs = self.get(f"{self.vault}/backupJobs")["value"]
        for job in jobs:
            properties = job["properties"]
            assert properties["status"] in {*GOOD, "Failed", "Cancelled"}
            assert properties["errorDetails"] if properties["status"] == "Failed" else True, "a failure has a reason"
        for category in ("Backup", "Restore"):
            _check_turns([j["properties"] for j in jobs if j["properties"]["operationCategory"] == category])
        points = self.points()
        makers = [point.caller["job"] for point in points]
        assert len(makers) == len(set(makers)), "one job, one recovery point"
        made = {job["name"] for job in jobs if _point_of(job["properties"]) is not None}
        assert set(makers) <= made
        assert self.known_points() == {point.id for point in points}
        assert 500 not in self.answers

    def check_snapshots(self) -> None:
        """Each recovery point has its CSI snapshot. What killed backups left is swept a day later, not here."""
        for point in self.points():
            (volume,) = point.volumes
            assert (self.testbed.snapshot_path(volume.handle) / "ledger.txt").read_text() == "42\n"

    def check_copy(self, copy: str) -> None:
        """What was restored is there once, as it was."""
        assert self.kubectl("get", "configmap", "settings", "-n", copy)["data"] == {"greeting": "hello"}
        secret = self.kubectl("get", "secret", "password", "-n", copy)["data"]["value"]
        assert base64.b64decode(secret) == b"swordfish"
        maps = {m["metadata"]["name"] for m in self.kubectl("get", "configmaps", "-n", copy)["items"]}
        assert maps == {"settings", "kube-root-ca.crt"}
        self.testbed.kubectl("wait", "pvc/data", "-n", copy, "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
        assert len(self.kubectl("get", "pvc", "-n", copy)["items"]) == 1
        volumes = [
            v for v in self.kubectl("get", "pv")["items"] if v["spec"].get("claimRef", {}).get("namespace") == copy
        ]
        assert len(volumes) == 1, "one volume was made"
        path = self.testbed.volume_path(volumes[0]["spec"]["csi"]["volumeHandle"])
        assert (path / "ledger.txt").read_text() == "42\n"

    def kubectl(self, *words: str) -> Any:
        return json.loads(self.testbed.kubectl(*words, "-o", "json"))

    # Setting the stage

    def set_up(self) -> None:
        """Protect an application of the cluster through ARM, as the how-to does."""
        self.started()
        for provider in PROVIDERS:
            subscription = f"/subscriptions/{self.ready['subscriptionId']}"
            self.done("POST", f"{subscription}/providers/{provider}/register", **{"api-version": "2021-04-01"})
        self.done("PUT", self.group, {"location": LOCATION})
        storage = [{"datastoreType": "OperationalStore", "type": "LocallyRedundant"}]
        vault = {"location": LOCATION, "identity": IDENTITY, "properties": {"storageSettings": storage}}
        self.done("PUT", self.vault, vault)
        self.done("PUT", f"{self.vault}/backupPolicies/policy", {"properties": _policy()})
        account = {"location": LOCATION, "kind": "StorageV2", "sku": {"name": "Standard_LRS"}}
        self.done("PUT", self.account, account)
        self.protect()

    def protect(self) -> None:
        """Put an application into the cluster, connect it and make the instance; vault and account are there."""
        volumes = self.testbed.options.volumes
        self.testbed.kubectl("apply", "-f", "-", stdin=_application(self.namespace, volumes=volumes))
        self.done("PUT", self.container, {})
        kubeconfig = base64.b64encode(self.testbed.kubeconfig.read_bytes()).decode()
        connection = {"strongroomConnection": {"kubeconfig": kubeconfig}}
        self.done("PUT", self.cluster, {"location": LOCATION, "identity": IDENTITY, "properties": connection})
        prefix = "configuration.backupStorageLocation."
        settings = {
            f"{prefix}bucket": self.container_name,
            f"{prefix}config.storageAccount": "backups",
            f"{prefix}config.resourceGroup": "rg",
            f"{prefix}config.subscriptionId": self.ready["subscriptionId"],
        }
        extension = {
            "extensionType": "microsoft.dataprotection.kubernetes",
            "autoUpgradeMinorVersion": True,
            "releaseTrain": "stable",
            "scope": {"cluster": {}},
            "configurationSettings": settings,
        }
        name = f"{self.cluster}/providers/Microsoft.KubernetesConfiguration/extensions/azure-aks-backup"
        self.done("PUT", name, {"properties": extension})
        binding = {"sourceResourceId": self.vault, "roles": ["Microsoft.DataProtection/backupVaults/backup-operator"]}
        self.done("PUT", f"{self.cluster}/trustedAccessRoleBindings/tarb", {"properties": binding})
        self._assign_roles(name)
        if volumes:
            eventually("the volume is bound", self._bound)
            claim = self.kubectl("get", "pvc", "data", "-n", self.namespace)
            volume = self.kubectl("get", "pv", claim["spec"]["volumeName"])
            (self.testbed.volume_path(volume["spec"]["csi"]["volumeHandle"]) / "ledger.txt").write_text("42\n")
        self.done("PUT", self.instance, {"properties": self._instance_request()})

    def _bound(self) -> bool:
        phase: str = self.kubectl("get", "pvc", "data", "-n", self.namespace)["status"]["phase"]
        return phase == "Bound"

    def _assign_roles(self, extension: str) -> None:
        vault = self.get(self.vault)["identity"]["principalId"]
        cluster = self.get(self.cluster)["identity"]["principalId"]
        worker = self.get(extension)["properties"]["aksAssignedIdentity"]["principalId"]
        for principal, role, scope in (
            (vault, "Reader", self.cluster),
            (vault, "Reader", self.group),
            (cluster, "Contributor", self.group),
            (worker, "Storage Account Contributor", self.account),
        ):
            where = f"{scope}/providers/Microsoft.Authorization"
            (found,) = self.arm("GET", f"{where}/roleDefinitions", **{"$filter": f"roleName eq '{role}'"}).json()[
                "value"
            ]
            properties = {"roleDefinitionId": found["id"], "principalId": principal}
            made = self.arm("PUT", f"{where}/roleAssignments/{uuid.uuid4()}", {"properties": properties})
            assert made.status_code in {201, 409}, made.text  # the vault's own on the group may be there

    def _source(self) -> dict[str, Any]:
        return {
            "objectType": "Datasource",
            "datasourceType": DATASOURCE,
            "resourceType": DATASOURCE,
            "resourceID": self.cluster,
            "resourceUri": self.cluster,
            "resourceName": self.cluster_name,
            "resourceLocation": LOCATION,
        }

    def _instance_request(self) -> dict[str, Any]:
        source = self._source()
        store = {
            "objectType": "AzureOperationalStoreParameters",
            "dataStoreType": "OperationalStore",
            "resourceGroupId": self.group,
        }
        selection = {
            "objectType": "KubernetesClusterBackupDatasourceParameters",
            "snapshotVolumes": True,
            "includeClusterScopeResources": False,
            "includedNamespaces": [self.namespace],
        }
        return {
            "objectType": "BackupInstance",
            "friendlyName": f"{self.cluster_name}/shop",
            "dataSourceInfo": source,
            "dataSourceSetInfo": {**source, "objectType": "DatasourceSet"},
            "policyInfo": {
                "policyId": f"{self.vault}/backupPolicies/policy",
                "policyParameters": {
                    "dataStoreParametersList": [store],
                    "backupDatasourceParametersList": [selection],
                },
            },
        }


def _ended(status: Any) -> Any:
    return status if status["status"] not in {"Inprogress", "InProgress", "Accepted"} else None


def _point_of(job: Any) -> Any:
    return (job["extendedInfo"]["targetRecoverPoint"] or {}).get("recoveryPointID")


def _check_turns(jobs: list[Any]) -> None:
    """Check that no job began before the one before it had ended."""
    turns = sorted((job["startTime"], job["endTime"]) for job in jobs)
    for (_, ended), (began, _) in itertools.pairwise(turns):
        assert ended <= began, "two jobs of one instance ran at once"


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _policy() -> dict[str, Any]:
    """Weekly, so that no schedule disturbs the test; kept for 7 days."""
    tag = {"tagInfo": {"id": "Default_", "tagName": "Default"}, "taggingPriority": 99, "isDefault": True}
    store = {"objectType": "DataStoreInfoBase", "dataStoreType": "OperationalStore"}
    yesterday = time.strftime("%Y-%m-%dT%H:00:00+00:00", time.gmtime(time.time() - 86_400))
    schedule = {"repeatingTimeIntervals": [f"R/{yesterday}/P1W"], "timeZone": "UTC"}
    return {
        "objectType": "BackupPolicy",
        "datasourceTypes": [DATASOURCE],
        "policyRules": [
            {
                "objectType": "AzureBackupRule",
                "name": "Weekly",
                "backupParameters": {"objectType": "AzureBackupParams", "backupType": "Incremental"},
                "dataStore": store,
                "trigger": {
                    "objectType": "ScheduleBasedTriggerContext",
                    "schedule": schedule,
                    "taggingCriteria": [tag],
                },
            },
            {
                "objectType": "AzureRetentionRule",
                "name": "Default",
                "isDefault": True,
                "lifecycles": [
                    {
                        "deleteAfter": {"objectType": "AbsoluteDeleteOption", "duration": "P7D"},
                        "sourceDataStore": store,
                    }
                ],
            },
        ],
    }


def _application(namespace: str, *, volumes: bool) -> str:
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": namespace},
            "data": {"greeting": "hello"},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "password", "namespace": namespace},
            "stringData": {"value": "swordfish"},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": namespace},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": STORAGE_CLASS_IMMEDIATE,
                "resources": {"requests": {"storage": "1Mi"}},
            },
        },
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects if volumes else objects[:-1]})


@contextlib.contextmanager
def staged(folder: Path, database: str, testbed: Testbed) -> Iterator[Stage]:
    """Set the stage, and clear it afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    stage = Stage(folder, database, testbed, f"shop-{uuid.uuid4().hex[:6]}")
    try:
        stage.set_up()
        yield stage
    finally:
        stage.lives.close()
