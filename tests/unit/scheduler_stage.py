"""A control plane's database with policies and protected instances, a clock to be set, and backups taken at once.

The scheduler, the jobs, the points and retention are the real ones; only what a cluster's extension would do (take a
backup, delete CSI snapshots) happens in no time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from strongroom.controlplane.catalog.sealed import StateSecrets
from strongroom.controlplane.catalog.stores import StorageAccount
from strongroom.controlplane.clusters.pool import ClusterPool
from strongroom.controlplane.identity.rbac import Access
from strongroom.controlplane.scheduler.ticker import Ticker
from strongroom.controlplane.state.database import Database, Tx
from strongroom.controlplane.state.jobs import Job
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import moment, stamp
from strongroom.controlplane.workflows.containers import Containers, Place
from strongroom.controlplane.workflows.following import end_job
from strongroom.controlplane.workflows.planning import plan_next
from strongroom.controlplane.workflows.pointdocs import store_points
from strongroom.controlplane.workflows.services import Services
from strongroom.dataplane.repository.model import (
    ClusterIdentity,
    Incremental,
    Instant,
    Manifest,
    PointId,
    RunId,
    Selection,
)
from strongroom.protection.errors import UserError
from strongroom.protection.instance import ProtectionState
from strongroom.protection.job import JobStatus, Limits

SUBSCRIPTION = "/subscriptions/11111111-1111-1111-1111-111111111111"
GROUP = f"{SUBSCRIPTION}/resourceGroups/rg"
VAULT = f"{GROUP}/providers/Microsoft.DataProtection/backupVaults/vault1"
CLUSTER = f"{GROUP}/providers/Microsoft.ContainerService/managedClusters/aks1"
ACCOUNT = f"{GROUP}/providers/Microsoft.Storage/storageAccounts/account1"
PLACE = Place(StorageAccount("account1"), ACCOUNT, "backups")
START = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)

Tags = Sequence[tuple[str, str, str]]
"""(name, absolute marker or "" for the default, ISO 8601 duration), the first of them with the greatest priority."""
DEFAULT: Tags = (("Default", "", "P7D"),)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **time: float) -> None:
        self.now += timedelta(**time)


def policy_document(intervals: Sequence[str], zone: str = "UTC", tags: Tags = DEFAULT) -> dict[str, Any]:
    """Return the properties of a backup policy."""
    store = {"objectType": "DataStoreInfoBase", "dataStoreType": "OperationalStore"}
    criteria: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = []
    for number, (name, marker, duration) in enumerate(tags):
        condition = {"objectType": "ScheduleBasedBackupCriteria", "absoluteCriteria": [marker]}
        tag = {"tagInfo": {"tagName": name}, "taggingPriority": 10 * number + 1, "isDefault": not marker}
        criteria.append({**tag, "criteria": [condition] if marker else []})
        delete = {"objectType": "AbsoluteDeleteOption", "duration": duration}
        rules.append(
            {
                "objectType": "AzureRetentionRule",
                "name": name,
                "isDefault": not marker,
                "lifecycles": [{"deleteAfter": delete, "sourceDataStore": store}],
            }
        )
    backup = {
        "objectType": "AzureBackupRule",
        "name": "Backup",
        "dataStore": store,
        "trigger": {
            "objectType": "ScheduleBasedTriggerContext",
            "schedule": {"repeatingTimeIntervals": list(intervals), "timeZone": zone},
            "taggingCriteria": criteria,
        },
    }
    return {
        "objectType": "BackupPolicy",
        "datasourceTypes": ["Microsoft.ContainerService/managedClusters"],
        "policyRules": [backup, *rules],
    }


EVERY_4_HOURS = policy_document(["R/2026-01-01T01:00:00+00:00/PT4H"])


@dataclass
class Stage:
    """One control plane. *poked* counts how often the scheduler woke the dispatcher."""

    db: Database
    folder: Path
    clock: Clock = field(default_factory=Clock)
    poked: int = 0

    def __post_init__(self) -> None:
        secrets = StateSecrets(self.db)
        self.services = Services(
            db=self.db,
            pool=ClusterPool(self.db, self.folder / "clusters"),
            containers=Containers(self.folder, secrets, lambda _: ""),
            limits=Limits(),
            access=lambda _: Access((), {}),
            clock=self.clock,
        )
        self.ticker = self.new_ticker()
        vault = {"id": VAULT, "name": "vault1", "location": "local", "properties": {}}
        with self.db.write() as tx:
            tx.resources.put(Resource(VAULT, "Microsoft.DataProtection/backupVaults", vault, parent=GROUP))

    def new_ticker(self) -> Ticker:
        """Return the scheduler as another process, or the next one, would have it."""

        def poke() -> None:
            self.poked += 1

        return Ticker(self.services, poke)

    def policy(self, document: Mapping[str, Any] = EVERY_4_HOURS, name: str = "policy1") -> Resource:
        """Write a policy as its PUT does."""
        identifier = f"{VAULT}/backupPolicies/{name}"
        doc = {"id": identifier, "name": name, "properties": dict(document)}
        kind = "Microsoft.DataProtection/backupVaults/backupPolicies"
        with self.db.write() as tx:
            return tx.resources.put(Resource(identifier, kind, doc, VAULT, {"version": "1"}))

    def instance(self, policy: Resource, name: str = "i1", *, incarnation: str = "one") -> Resource:
        """Write an instance that has just been configured."""
        identifier = f"{VAULT}/backupInstances/{name}"
        source = {"resourceID": CLUSTER, "datasourceType": "Microsoft.ContainerService/managedClusters"}
        properties = {
            "friendlyName": name,
            "dataSourceInfo": source,
            "dataSourceSetInfo": source,
            "policyInfo": {"policyId": policy.id},
            "currentProtectionState": "ProtectionConfigured",
            "objectType": "BackupInstance",
        }
        kind = "Microsoft.DataProtection/backupVaults/backupInstances"
        doc = {"id": identifier, "name": name, "type": kind, "properties": properties}
        with self.db.write() as tx:
            stored = tx.resources.put(Resource(identifier, kind, doc, VAULT, {"incarnation": incarnation}))
            plan_next(tx, stored, policy, self.clock())
            return stored

    def into(self, instance: Resource, state: ProtectionState) -> None:
        """Change the protection state as the API does."""
        with self.db.write() as tx:
            current = tx.resources.get(instance.id)
            assert current is not None
            policy = tx.resources.get(current.properties["policyInfo"]["policyId"])
            assert policy is not None
            stored = tx.resources.put(current.with_properties({"currentProtectionState": str(state)}))
            plan_next(tx, stored, policy, self.clock())

    def running(self) -> list[Job]:
        with self.db.read() as tx:
            return tx.jobs.all_running()

    def planned(self, instance: Resource) -> datetime | None:
        with self.db.read() as tx:
            due = tx.schedules.get(instance.id)
        return moment(due) if due else None

    def slots(self, instance: Resource) -> list[str]:
        """Return the slots (20261123T090000Z) of the jobs of an instance, in the order in which they began."""
        with self.db.read() as tx:
            jobs = tx.jobs.page(vault=VAULT, limit=100_000)
        names = [j.slot for j in reversed(jobs) if j.slot and j.instance.lower() == instance.id.lower()]
        return [name.rpartition("/")[2] for name in names]

    def asked(self) -> list[str]:
        """Return the ids of the backups that wait in the outbox."""
        with self.db.read() as tx:
            return [work.id for work in tx.outbox.waiting(limit=100_000) if work.kind == "backup"]

    def finish(self, *, fails: Callable[[Job], bool] = lambda _: False) -> None:
        """Take every backup that runs, in no time: its recovery point is made known, or it fails."""
        with self.db.write() as tx:
            for job in tx.jobs.all_running():
                tx.outbox.done(job.id)
                if fails(job):
                    end_job(tx, job.id, JobStatus.FAILED, self.clock(), UserError("Failed", "It failed."))
                else:
                    store_points(tx, job.instance, PLACE, [manifest(job, self.clock())])
                    end_job(tx, job.id, JobStatus.COMPLETED, self.clock())

    def next_due(self) -> datetime | None:
        """Return when the first instance is due."""
        with self.db.read() as tx:
            due = tx.schedules.due("9", limit=1)
        return moment(due[0].due) if due else None


def manifest(job: Job, taken: datetime) -> Manifest:
    """Return what the extension would commit for *job*."""
    caller = {
        "job": job.id,
        "instance": job.instance,
        "dataSource": CLUSTER,
        "trigger": "scheduled" if job.slot else "adhoc",
        **{key: str(job.private.get(key, "")) for key in ("rule", "tag", "retention", "slot", "policyVersion")},
    }
    at = stamp(taken)
    return Manifest(
        format=1,
        id=PointId(f"p-{job.id}"),
        run=RunId("run"),
        writer="writer",
        sequence=1,
        previous="",
        repository="",
        started=at,
        finished=at,
        cluster=ClusterIdentity(id="uid", server="https://127.0.0.1", version="v1.37.2"),
        selection=Selection(),
        instant=Instant(revision="1", taken=at),
        incremental=Incremental(),
        state="Completed",
        kinds=(),
        caller=caller,
    )


def kept(tx: Tx, instance: Resource) -> int:
    return tx.points.count(instance.id)
