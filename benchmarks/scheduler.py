"""How late slots are and what they cost: 5,000 backup instances every 4 hours on a virtual clock, on one database.

    python benchmarks/scheduler.py [--instances 5000] [--rounds 6] [--database URL]

Each round sets the clock to the next slot, at which all instances are due together: the worst case. A slot is late by
the real time from then until its job and its place in the outbox are committed. Between rounds the backups are ended
by one statement, outside the figures.
"""

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from strongroom.controlplane.catalog.sealed import StateSecrets
from strongroom.controlplane.clusters.pool import ClusterPool
from strongroom.controlplane.identity.rbac import Access
from strongroom.controlplane.scheduler.ticker import TOGETHER, Ticker
from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import stamp
from strongroom.controlplane.workflows.containers import Containers
from strongroom.controlplane.workflows.planning import plan_next
from strongroom.controlplane.workflows.services import Services
from strongroom.protection.job import Limits

START = datetime(2026, 11, 23, 8, 59, 59, tzinfo=UTC)
GROUP = "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg"
VAULT = f"{GROUP}/providers/Microsoft.DataProtection/backupVaults/vault"
TYPE = "Microsoft.DataProtection/backupVaults"
STORE = {"objectType": "DataStoreInfoBase", "dataStoreType": "OperationalStore"}
TAGS = (("Yearly", "FirstOfYear"), ("Monthly", "FirstOfMonth"), ("Weekly", "FirstOfWeek"), ("Daily", "FirstOfDay"))


def policy() -> dict[str, Any]:
    """Return the properties of a policy with all tags, every 4 hours."""
    criteria: list[dict[str, Any]] = [
        {
            "tagInfo": {"tagName": name},
            "taggingPriority": number + 1,
            "isDefault": False,
            "criteria": [{"objectType": "ScheduleBasedBackupCriteria", "absoluteCriteria": [marker]}],
        }
        for number, (name, marker) in enumerate(TAGS)
    ]
    criteria.append({"tagInfo": {"tagName": "Default"}, "taggingPriority": 99, "isDefault": True})
    retention = [
        {
            "objectType": "AzureRetentionRule",
            "name": name,
            "isDefault": name == "Default",
            "lifecycles": [
                {
                    "deleteAfter": {"objectType": "AbsoluteDeleteOption", "duration": "P7D"},
                    "sourceDataStore": STORE,
                }
            ],
        }
        for name in (*(name for name, _ in TAGS), "Default")
    ]
    schedule = {"repeatingTimeIntervals": ["R/2026-01-01T09:00:00+00:00/PT4H"], "timeZone": "UTC"}
    trigger = {"objectType": "ScheduleBasedTriggerContext", "schedule": schedule, "taggingCriteria": criteria}
    backup = {"objectType": "AzureBackupRule", "name": "Backup", "dataStore": STORE, "trigger": trigger}
    types = ["Microsoft.ContainerService/managedClusters"]
    return {"objectType": "BackupPolicy", "datasourceTypes": types, "policyRules": [backup, *retention]}


def populate(db: Database, instances: int) -> None:
    """Write a vault, ten policies, and *instances* that follow them, each protecting a cluster of its own."""
    with db.write() as tx:
        tx.resources.put(Resource(VAULT, TYPE, {"id": VAULT, "name": "vault", "location": "local"}, parent=GROUP))
        policies = []
        for number in range(10):
            id_ = f"{VAULT}/backupPolicies/policy{number}"
            document = {"id": id_, "name": f"policy{number}", "properties": policy()}
            policies.append(tx.resources.put(Resource(id_, f"{TYPE}/backupPolicies", document, VAULT)))
        for number in range(instances):
            id_ = f"{VAULT}/backupInstances/instance{number}"
            cluster = f"{GROUP}/providers/Microsoft.ContainerService/managedClusters/cluster{number}"
            source = {"resourceID": cluster, "datasourceType": "Microsoft.ContainerService/managedClusters"}
            properties = {
                "friendlyName": f"instance{number}",
                "dataSourceInfo": source,
                "dataSourceSetInfo": source,
                "policyInfo": {"policyId": policies[number % 10].id},
                "currentProtectionState": "ProtectionConfigured",
            }
            document = {"id": id_, "name": f"instance{number}", "properties": properties}
            stored = tx.resources.put(Resource(id_, f"{TYPE}/backupInstances", document, VAULT))
            plan_next(tx, stored, policies[number % 10], START)


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def measure(db: Database, folder: Path, instances: int, rounds: int) -> None:
    """Print the figures of each round and of all."""
    clock = START
    late: list[float] = []
    begun = 0.0
    services = Services(
        db=db,
        pool=ClusterPool(db, folder / "clusters"),
        containers=Containers(folder, StateSecrets(db), lambda _: ""),
        limits=Limits(),
        access=lambda _: Access((), {}),
        clock=lambda: clock,
    )
    # The scheduler wakes the dispatcher after each of its transactions.
    ticker = Ticker(services, lambda: late.extend([time.perf_counter() - begun] * min(TOGETHER, instances - len(late))))
    populate(db, instances)
    started = time.perf_counter()
    await ticker.tick()
    print(f"start: plans of {instances} instances looked through in {time.perf_counter() - started:.2f} s")
    idle = time.process_time()
    for _ in range(100):
        await ticker.tick()
    print(f"idle: {(time.process_time() - idle) * 10:.2f} ms CPU for each tick")
    every: list[float] = []
    cpu_all = 0.0
    clock = clock + timedelta(seconds=1)
    for number in range(rounds):
        late.clear()
        begun, cpu = time.perf_counter(), time.process_time()
        made = await ticker.tick()
        cpu = time.process_time() - cpu
        assert made == instances == len(late), f"{made} jobs for {instances} slots"
        cpu_all += cpu
        every += late
        print(
            f"round {number + 1}: {made} jobs in {late[-1]:.2f} s; late p50 {percentile(late, 0.5):.2f} s, "
            f"p99 {percentile(late, 0.99):.2f} s; CPU {1000 * cpu / made:.2f} ms for each slot"
        )
        with db.write() as tx:
            tx.connection.execute(
                text("UPDATE jobs SET ended = :at, status = 'Completed' WHERE ended IS NULL"), {"at": stamp(clock)}
            )
            tx.connection.execute(text("DELETE FROM outbox"))
        clock = clock + timedelta(hours=4)
    slots = instances * rounds
    print(
        f"all: {slots} slots, none missed; late p50 {percentile(every, 0.5):.2f} s, "
        f"p99 {percentile(every, 0.99):.2f} s, most {max(every):.2f} s; "
        f"CPU {1000 * cpu_all / slots:.2f} ms for each slot, "
        f"{100 * cpu_all / (rounds * 4 * 3600):.3f} % of one core over {rounds * 4} hours; "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--database", default="", help="postgresql://… of an empty database; otherwise SQLite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        db = Database.open(options.database or f"sqlite:///{folder}/state.sqlite", bytes(32))
        asyncio.run(measure(db, folder, options.instances, options.rounds))
        db.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
