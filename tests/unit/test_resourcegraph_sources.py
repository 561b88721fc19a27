"""What a search reads of the database: no more than its conditions leave over, a page at a time."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event

from strongroom.controlplane.arm.kql import parse
from strongroom.controlplane.arm.resourcegraph.sources import PAGE, Reader
from strongroom.controlplane.identity.rbac import Access, RoleAssignment
from strongroom.controlplane.identity.roles import BUILT_IN, OWNER
from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.jobs import Job
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import stamp

S = "11111111-1111-1111-1111-111111111111"
START = datetime(2026, 1, 1, tzinfo=UTC)
JOBS = "RecoveryServicesResources | where type =~ 'microsoft.dataprotection/backupvaults/backupjobs'"
PER_VAULT = PAGE + 20


def vault(group: str, name: str) -> str:
    return f"/subscriptions/{S}/resourceGroups/{group}/providers/Microsoft.DataProtection/backupVaults/{name}"


VAULTS = (vault("rg", "v1"), vault("rg", "v2"), vault("other", "v3"))


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    folder: Path = tmp_path_factory.mktemp("graph")
    database = Database.open(f"sqlite:///{folder}/state.sqlite", bytes(32))
    with database.write() as tx:
        for id in VAULTS:
            document = {"id": id, "name": id.rpartition("/")[2], "location": "local", "properties": {}}
            group = id.split("/providers/")[0]
            tx.resources.put(Resource(id, "Microsoft.DataProtection/backupVaults", document, group))
            for number in range(PER_VAULT):
                name = f"{document['name']}-{number:04d}"
                time = stamp(START + timedelta(minutes=number))
                properties = {"vaultName": document["name"], "startTime": time}
                job = {"id": f"{id}/backupJobs/{name}", "name": name, "properties": properties}
                tx.jobs.add(Job(name, id, f"{id}/backupInstances/i", "Backup", "Completed", time, job, ended=time))
    yield database
    database.close()


def search(db: Database, query: str, *scopes: str) -> tuple[list[str], int]:
    """Return the names that *query* finds for the owner of *scopes* (none: the root), and how many pages it read."""
    parsed = parse(query)
    assignments = [RoleAssignment(str(n), scope, OWNER.id, "me") for n, scope in enumerate(scopes or ("/",))]
    statements: list[str] = []
    with db.read() as tx:
        reader = Reader(tx, Access(assignments, BUILT_IN), "me", "t", (S,), parsed.conditions(), parsed.since())
        listen = (tx.connection, "before_cursor_execute", lambda *a: statements.append(a[2]))
        event.listen(*listen)
        found = parsed.run(reader.rows(parsed.table), now=START)
        event.remove(*listen)
    pages = sum("FROM jobs" in statement for statement in statements)
    return [str(row.get("name", row.get("count_", row))) for row in found], pages


def test_a_search_for_a_few_jobs_reads_one_page(db: Database) -> None:
    names, pages = search(db, JOBS + " | take 3")
    assert (len(names), pages) == (3, 1)


def test_a_job_that_is_named_is_read_alone(db: Database) -> None:
    assert search(db, JOBS + " | where name == 'V2-0007'") == ([], 1)  # == regards case, the look-up does not
    assert search(db, JOBS + " | where name =~ 'V2-0007'") == (["v2-0007"], 1)


@pytest.mark.parametrize(
    ("condition", "vaults"),
    [
        ("", 3),
        ("| where resourceGroup =~ 'RG'", 2),
        ("| extend vaultName = properties.vaultName | where vaultName in~ ('V2')", 1),
        ("| where properties.vaultName == 'v1' and resourceGroup =~ 'other'", 0),
        ("| where subscriptionId == 'another'", 0),
    ],
)
def test_only_the_jobs_of_vaults_that_count_are_read(db: Database, condition: str, vaults: int) -> None:
    names, pages = search(db, f"{JOBS} {condition} | project name")
    assert len(names) == vaults * PER_VAULT
    assert pages == vaults * 2


@pytest.mark.parametrize(
    "condition",
    [
        "where properties.startTime >= datetime(2026-01-01T08:35:00Z)",
        "extend t = properties.startTime | where datetime(2026-01-01T08:34:30Z) < t",
        "where properties.startTime > datetime(2026-01-01T08:34:00Z) and properties.startTime > datetime(2025-01-01)",
    ],
)
def test_jobs_from_before_the_time_asked_for_are_not_read(db: Database, condition: str) -> None:
    names, pages = search(db, f"{JOBS} | where properties.vaultName =~ 'v1' | {condition} | project name")
    assert names == ["v1-0519", "v1-0518", "v1-0517", "v1-0516", "v1-0515"]
    assert pages == 1


@pytest.mark.parametrize(
    "condition",
    [
        "where properties.startTime > datetime(2026-01-01T08:34:00Z) or properties.vaultName =~ 'v1'",
        "where not(properties.startTime > datetime(2027-01-01))",
        "where properties.startTime < datetime(2027-01-01)",
        "take 1000 | where properties.startTime > datetime(2020-01-01)",
    ],
)
def test_a_time_that_does_not_bound_a_search_leaves_out_no_job(db: Database, condition: str) -> None:
    names, _ = search(db, f"{JOBS} | where properties.vaultName =~ 'v1' | {condition} | project name")
    assert len(names) == PER_VAULT


def test_jobs_that_the_caller_may_not_read_are_not_read(db: Database) -> None:
    names, pages = search(db, JOBS + " | project name", VAULTS[2])
    assert {name.split("-")[0] for name in names} == {"v3"}
    assert pages == 2


def test_a_search_for_another_type_reads_no_jobs(db: Database) -> None:
    assert search(db, "RecoveryServicesResources | where type =~ 'x'") == ([], 0)
    assert search(db, "Resources | project name | order by name asc") == (["v1", "v2", "v3"], 0)
