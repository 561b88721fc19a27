"""Measures the ARM API: `python benchmarks/api.py [--jobs 1000000] [--instances 5000] [--database both]`.

A server of its own is filled directly in its database; then a process of its own asks over TLS, a few connections at
once, each waiting for its answer. Writes `results-api.md`, with the command and the machine.
"""

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import platform
import shlex
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import create_engine, insert

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.serving import RunningServer, running_server

from strongroom.controlplane.state.schema import jobs, resources
from strongroom.testbed.postgres import postgres

RESULTS = Path(__file__).parent / "results-api.md"
CONNECTIONS = 8  # as many clients as one platform team has scripts running at once
SECONDS = 8.0  # of asking one question; medians do not move after three
BATCH = 5000  # rows of one insert
STARTED = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--instances", type=int, default=5_000)
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    chosen = parser.parse_args()
    names = ["sqlite", "postgresql"] if chosen.database == "both" else [chosen.database]
    rows: list[str] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="strongroom-bench-") as folder, database(name) as url:
            print(f"{name}: filling {chosen.instances} instances, {chosen.jobs} jobs", flush=True)
            rows += measure(name, Path(folder), url, chosen)
    command = shlex.join(["python", "benchmarks/api.py", *sys.argv[1:]])
    text = render(command, chosen, rows)
    RESULTS.write_text(text)
    print(text)
    return 0


@contextlib.contextmanager
def database(name: str) -> Iterator[str]:
    if name == "sqlite":
        yield ""
        return
    with postgres() as server, server.database() as url:
        yield url


def measure(name: str, folder: Path, url: str, chosen: argparse.Namespace) -> list[str]:
    with running_server(folder, database=url) as server:
        vault = (
            f"/subscriptions/{server.subscription}/resourceGroups/bench/providers/Microsoft.DataProtection"
            "/backupVaults/bench"
        )
    fill(folder, url, vault, server.subscription, chosen)
    with running_server(folder, database=url) as server:
        questions = {
            "GET one instance": f"{vault}/backupInstances/instance-{chosen.instances // 2}",
            "LIST instances, a page of 200": f"{vault}/backupInstances",
            "LIST instances, a page of 1,000": f"{vault}/backupInstances?$top=1000",
            "GET one job": f"{vault}/backupJobs/job-{chosen.jobs // 2:08d}",
            "LIST jobs, the newest 200": f"{vault}/backupJobs",
        }
        return [
            f"| {name} | {question} | {asyncio.run(ask(server, path, chosen.seconds))} |"
            for question, path in questions.items()
        ]


def fill(folder: Path, url: str, vault: str, subscription: str, chosen: argparse.Namespace) -> None:
    """Write a vault, its instances and its jobs as the server would have written them."""
    engine = create_engine(
        url.replace("postgresql://", "postgresql+psycopg://") or f"sqlite:///{folder / 'home' / 'state.sqlite'}"
    )
    group = vault.rpartition("/providers/")[0]
    stamp = STARTED.strftime("%Y-%m-%dT%H:%M:%S.%f0Z")

    def resource(identifier: str, kind: str, parent: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
        document = {"id": identifier, "name": identifier.rpartition("/")[2], "type": kind, **more}
        return {
            "key": identifier.lower(),
            "id": identifier,
            "type": kind.lower(),
            "subscription": subscription.lower(),
            "resource_group": "bench",
            "parent": parent.lower(),
            "doc": json.dumps({**document, "properties": properties}),
            "private": json.dumps({"type": kind}),
            "etag": "0",
            "created": stamp,
            "modified": stamp,
        }

    space = "Microsoft.DataProtection/backupVaults"
    cluster = f"{group}/providers/Microsoft.ContainerService/managedClusters/c"
    source = {
        "objectType": "Datasource",
        "resourceID": cluster,
        "datasourceType": "Microsoft.ContainerService/managedClusters",
    }
    instance = {
        "objectType": "BackupInstance",
        "friendlyName": "cluster/everything",
        "dataSourceInfo": source,
        "dataSourceSetInfo": {**source, "objectType": "DatasourceSet"},
        "policyInfo": {"policyId": f"{vault}/backupPolicies/p", "policyParameters": {}},
        # Stopped: nothing is due, so the server does nothing but answer.
        "currentProtectionState": "ProtectionStopped",
        "protectionStatus": {"status": "ProtectionStopped"},
        "provisioningState": "Succeeded",
    }
    with engine.begin() as connection:
        connection.execute(
            insert(resources),
            [
                resource(
                    group, "Microsoft.Resources/resourceGroups", f"/subscriptions/{subscription}", {}, location="x"
                ),
                resource(vault, space, group, {"storageSettings": []}, location="westus"),
            ],
        )
        kind = f"{space}/backupInstances"
        every = [
            resource(f"{vault}/backupInstances/instance-{n}", kind, vault, instance) for n in range(chosen.instances)
        ]
        for n in range(0, len(every), BATCH):
            connection.execute(insert(resources), every[n : n + BATCH])
        for n in range(0, chosen.jobs, BATCH):
            batch = [job(vault, subscription, number, chosen) for number in range(n, min(n + BATCH, chosen.jobs))]
            connection.execute(insert(jobs), batch)
    engine.dispose()


def job(vault: str, subscription: str, number: int, chosen: argparse.Namespace) -> dict[str, Any]:
    started = (STARTED + datetime.timedelta(seconds=10 * number)).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
    instance = f"{vault}/backupInstances/instance-{number % chosen.instances}"
    identifier = f"job-{number:08d}"
    properties = {
        "backupInstanceId": instance,
        "dataSourceType": "Microsoft.ContainerService/managedClusters",
        "operationCategory": "Backup",
        "operation": "Backup",
        "status": "Completed",
        "startTime": started,
        "endTime": started,
        "isUserTriggered": False,
        "vaultName": "bench",
        "extendedInfo": {"subTasks": [{"taskId": 1, "taskName": "Trigger Backup", "taskStatus": "Completed"}]},
        "filler": "x" * 400,
    }
    return {
        "id": identifier,
        "vault": vault.lower(),
        "instance": instance.lower(),
        "subscription": subscription.lower(),
        "category": "Backup",
        "status": "Completed",
        "started": started,
        "ended": started,
        "slot": None,
        "doc": json.dumps({"id": f"{vault}/backupJobs/{identifier}", "name": identifier, "properties": properties}),
        "private": json.dumps({"vault": vault, "instance": instance}),
    }


async def ask(server: RunningServer, path: str, seconds: float) -> str:
    """Ask one question over and over; return rate, median, p99, and the server's CPU for a request."""
    context = ssl.create_default_context(cafile=server.ready["caFile"])
    headers = {"Authorization": f"Bearer {server.token()}"}
    url = f"{server.url}{path}{'&' if '?' in path else '?'}api-version=2026-06-01"
    taken: list[float] = []
    connector = aiohttp.TCPConnector(ssl=context, limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def client(until: float) -> None:
            while time.perf_counter() < until:
                began = time.perf_counter()
                async with session.get(url) as answer:
                    await answer.read()
                    if answer.status != 200:
                        raise RuntimeError(f"{answer.status}: {await answer.text()}")
                taken.append(time.perf_counter() - began)

        await client(time.perf_counter() + 1)  # connections, caches
        taken.clear()
        cpu, began = cpu_seconds(server.process.pid), time.perf_counter()
        await asyncio.gather(*(client(began + seconds) for _ in range(CONNECTIONS)))
        wall, used = time.perf_counter() - began, cpu_seconds(server.process.pid) - cpu
    ordered = sorted(taken)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return (
        f"{len(taken) / wall:,.0f} | {statistics.median(taken) * 1000:.1f} | {p99 * 1000:.1f} | "
        f"{used / len(taken) * 1000:.2f}"
    )


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def render(command: str, chosen: argparse.Namespace, rows: list[str]) -> str:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return "\n".join(
        [
            "# The ARM API",
            "",
            f"`{command}`, {today}, {platform.machine()}, {os.cpu_count()} cores shared by all, Python "
            f"{platform.python_version()}; {chosen.instances:,} instances, {chosen.jobs:,} jobs in one vault; "
            f"{CONNECTIONS} connections over TLS, {chosen.seconds:g} s each.",
            "",
            "| database | question | requests/s | median, ms | p99, ms | server's CPU, ms a request |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
