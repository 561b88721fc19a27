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
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import Engine, Table, create_engine, insert

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.serving import RunningServer, running_server

from strongroom.controlplane.arm.paging import skip_token
from strongroom.controlplane.state.schema import jobs, points, resources
from strongroom.testbed.postgres import postgres

RESULTS = Path(__file__).parent / "results-api.md"
CONNECTIONS = 8  # as many clients as one platform team has scripts running at once
SECONDS = 8.0  # of asking one question; medians do not move after three
BATCH = 5000  # rows of one insert
JOBS_A_DAY = 1_000
POINTS = 1_000  # of one instance: four a day for eight months
GRAPH = "/providers/Microsoft.ResourceGraph/resources"
JOBS_TABLE = "RecoveryServicesResources | where type == 'microsoft.dataprotection/backupvaults/backupjobs'"
STARTED = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--instances", type=int, default=5_000)
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--write", type=Path, default=RESULTS, help="where the table goes (benchmarks/results-api.md)")
    chosen = parser.parse_args()
    names = ["sqlite", "postgresql"] if chosen.database == "both" else [chosen.database]
    rows: list[str] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="strongroom-bench-") as folder, database(name) as url:
            print(f"{name}: filling {chosen.instances} instances, {chosen.jobs} jobs", flush=True)
            rows += measure(name, Path(folder), url, chosen)
    command = shlex.join(["python", "benchmarks/api.py", *sys.argv[1:]])
    text = render(command, chosen, rows)
    chosen.write.write_text(text)
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
    began = time.perf_counter()
    fill(folder, url, vault, server.subscription, chosen)
    print(f"{name}: filled in {time.perf_counter() - began:.0f} s", flush=True)
    with running_server(folder, database=url) as server:
        middle = chosen.jobs // 2
        token = skip_token({"started": started(middle), "id": f"job-{middle:08d}"})
        day = started(max(0, chosen.jobs - JOBS_A_DAY))
        questions: dict[str, tuple[str, str]] = {
            "GET one instance": (f"{vault}/backupInstances/instance-{chosen.instances // 2}", ""),
            "LIST instances, a page of 200": (f"{vault}/backupInstances", ""),
            "LIST instances, a page of 1,000": (f"{vault}/backupInstances?$top=1000", ""),
            "LIST points of an instance that has 1,000, a page of 200": (
                f"{vault}/backupInstances/instance-0/recoveryPoints",
                "",
            ),
            "GET one job": (f"{vault}/backupJobs/job-{middle:08d}", ""),
            "LIST jobs, the newest 200": (f"{vault}/backupJobs", ""),
            "LIST jobs, 200 from the middle": (f"{vault}/backupJobs?$skipToken={token}", ""),
            f"Resource Graph: failed ones of the last {JOBS_A_DAY:,} jobs": (
                GRAPH,
                f"{JOBS_TABLE} | where properties.startTime >= datetime({day}) | where properties.status == 'Failed'"
                " | project name, properties.startTime",
            ),
            "Resource Graph: one job by its name": (GRAPH, f"{JOBS_TABLE} | where name == 'job-{middle:08d}'"),
            "Resource Graph: the first ten jobs": (GRAPH, f"{JOBS_TABLE} | take 10"),
        }
        return [
            f"| {name} | {question} | {asyncio.run(ask(server, path, query, chosen.seconds))} |"
            for question, (path, query) in questions.items()
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
        connection.execute(insert(points), [point(vault, number) for number in range(POINTS)])
    seed(engine, jobs, job_rows(vault, subscription, chosen))
    engine.dispose()


def seed(engine: Engine, table: Table, rows: Iterator[tuple[Any, ...]]) -> None:
    """Write *rows*, whose values are in the order of the table's columns: a million take about a minute."""
    names = ", ".join(column.name for column in table.columns)
    raw = engine.raw_connection()
    try:
        cursor: Any = raw.cursor()
        if engine.dialect.name == "postgresql":
            with cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            cursor.execute(f"ANALYZE {table.name}")  # as its autovacuum does within a minute
        else:
            cursor.execute("PRAGMA synchronous=OFF")
            marks = ", ".join("?" * len(table.columns))
            cursor.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", rows)
        raw.commit()
    finally:
        raw.close()


def started(number: int) -> str:
    return (STARTED + datetime.timedelta(seconds=10 * number)).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


def point(vault: str, number: int) -> dict[str, Any]:
    instance, identifier, time = f"{vault}/backupInstances/instance-0", f"point-{number:05d}", started(360 * number)
    properties = {
        "objectType": "AzureBackupDiscreteRecoveryPoint",
        "recoveryPointId": identifier,
        "recoveryPointTime": time,
        "filler": "x" * 600,
    }
    document = {"id": f"{instance}/recoveryPoints/{identifier}", "name": identifier, "properties": properties}
    return {
        "instance": instance.lower(),
        "id": identifier,
        "time": time,
        "expiry": "",
        "tag": "Default",
        "state": "Kept",
        "doc": json.dumps(document),
        "private": json.dumps({"instance": instance, "id": identifier}),
    }


def job_rows(vault: str, subscription: str, chosen: argparse.Namespace) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the jobs. Their JSON is made once and filled in by text: making it a million times is slow."""
    names = [column.name for column in jobs.columns]
    model = job(vault, subscription)
    marks = ("@job@", "@instance@", "@started@", "@status@")
    changing = [any(mark in str(model[name]) for mark in marks) for name in names]
    for number in range(chosen.jobs):
        status = "Failed" if number % 50 == 49 else "Completed"
        texts = (f"job-{number:08d}", f"instance-{number % chosen.instances}", started(number), status)
        row = []
        for name, changes in zip(names, changing, strict=True):
            value = model[name]
            if changes:
                for mark, text in zip(marks, texts, strict=True):
                    value = value.replace(mark, text)
            row.append(value)
        yield tuple(row)


def job(vault: str, subscription: str) -> dict[str, Any]:
    """Return a job's row, with marks for what differs from job to job."""
    instance = f"{vault}/backupInstances/@instance@"
    identifier, began = "@job@", "@started@"
    properties = {
        "backupInstanceId": instance,
        "dataSourceType": "Microsoft.ContainerService/managedClusters",
        "operationCategory": "Backup",
        "operation": "Backup",
        "status": "@status@",
        "startTime": began,
        "endTime": began,
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
        "status": "@status@",
        "started": began,
        "ended": began,
        "slot": None,
        "doc": json.dumps({"id": f"{vault}/backupJobs/{identifier}", "name": identifier, "properties": properties}),
        "private": json.dumps({"vault": vault, "instance": instance}),
    }


async def ask(server: RunningServer, path: str, query: str, seconds: float) -> str:
    """Ask one question over and over, a *query* by POST; return rate, p50, p95, p99, the server's CPU for a request."""
    context = ssl.create_default_context(cafile=server.ready["caFile"])
    headers = {"Authorization": f"Bearer {server.token()}"}
    url = f"{server.url}{path}{'&' if '?' in path else '?'}api-version=2026-06-01"
    taken: list[float] = []
    connector = aiohttp.TCPConnector(ssl=context, limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def client(until: float) -> None:
            while time.perf_counter() < until:
                began = time.perf_counter()
                asked = session.post(url, json={"query": query}) if query else session.get(url)
                async with asked as answer:
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
    p50, p95, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.95, 0.99))
    return f"{len(taken) / wall:,.0f} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {used / len(taken) * 1000:.2f}"


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
            "| database | question | requests/s | p50, ms | p95, ms | p99, ms | server's CPU, ms a request |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
