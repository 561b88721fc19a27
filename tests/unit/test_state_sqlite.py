"""The state component on SQLite; tests/integration runs the same contract on PostgreSQL."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.errors import Conflict, SecretDamaged, StateError
from strongroom.controlplane.state.jobs import Job
from strongroom.controlplane.state.operations import LongOperation, OperationStatus
from strongroom.controlplane.state.points import StoredPoint
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import moment, stamp

KEY = bytes(32)
GROUP = "/subscriptions/S/resourceGroups/rg"
VAULT = f"{GROUP}/providers/Microsoft.DataProtection/backupVaults/V1"
INSTANCE = f"{VAULT}/backupInstances/i1"
START = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return Database.open(f"sqlite:///{tmp_path}/state.sqlite", KEY)


def vault(name: str = "V1") -> Resource:
    id_ = f"{GROUP}/providers/Microsoft.DataProtection/backupVaults/{name}"
    return Resource(id_, "Microsoft.DataProtection/backupVaults", {"id": id_, "name": name}, parent=GROUP)


def job(number: int, *, slot: str | None = None, ended: str | None = None) -> Job:
    started = stamp(START + timedelta(minutes=number))
    return Job(f"job{number}", VAULT, INSTANCE, "Backup", "InProgress", started, {"properties": {}}, ended, slot)


def test_a_resource_is_found_in_any_case_and_keeps_its_own(db: Database) -> None:
    with db.write() as tx:
        tx.resources.put(vault())
    with db.read() as tx:
        found = tx.resources.get(VAULT.upper())
    assert found is not None
    assert found.doc == {"id": VAULT, "name": "V1"}
    assert found.type == "Microsoft.DataProtection/backupVaults"


def test_a_write_with_an_old_etag_is_refused_and_changes_nothing(db: Database) -> None:
    with db.write() as tx:
        old = tx.resources.put(vault())
        tx.resources.put(vault().with_doc({"v": 2}), if_match=old.etag)
    with pytest.raises(Conflict), db.write() as tx:
        tx.resources.put(vault().with_doc({"v": 3}), if_match=old.etag)
    with db.read() as tx:
        found = tx.resources.get(VAULT)
    assert found is not None
    assert found.doc == {"v": 2}


def test_resources_are_listed_in_pages_by_parent_type_and_subscription(db: Database) -> None:
    with db.write() as tx:
        for n in range(5):
            tx.resources.put(vault(f"v{n}"))
    with db.read() as tx:
        first = tx.resources.children(GROUP, "microsoft.dataprotection/BACKUPVAULTS", limit=3)
        rest = tx.resources.children(GROUP, "Microsoft.DataProtection/backupVaults", after=first[-1].id, limit=3)
        assert [r.name for r in first + rest] == [f"v{n}" for n in range(5)]
        assert len(tx.resources.of_type("Microsoft.DataProtection/backupVaults", subscription="s")) == 5
        assert len(tx.resources.within("S", resource_group="RG")) == 5
        assert tx.resources.within("other") == []


def test_deleting_a_tree_leaves_a_neighbour_whose_name_begins_alike(db: Database) -> None:
    with db.write() as tx:
        tx.resources.put(vault("v1"))
        tx.resources.put(vault("v10"))
        assert tx.resources.delete_tree(vault("v1").id) == 1
        assert tx.resources.get(vault("v10").id)


def test_only_one_backup_of_an_instance_runs_at_a_time(db: Database) -> None:
    with db.write() as tx:
        tx.jobs.add(job(1))
    with pytest.raises(Conflict), db.write() as tx:
        tx.jobs.add(job(2))
    with db.write() as tx:
        running = tx.jobs.get("JOB1")
        assert running is not None
        ended = running.changed(status="Completed")
        assert tx.jobs.save(Job(**{**ended.__dict__, "ended": stamp(START)}))
        assert not tx.jobs.save(ended), "a job that ended is not written again"
        tx.jobs.add(job(2))


def test_a_slot_makes_one_job_only(db: Database) -> None:
    with db.write() as tx:
        tx.jobs.add(job(1, slot="i1/noon", ended=stamp(START)))
    with pytest.raises(Conflict), db.write() as tx:
        tx.jobs.add(job(2, slot="i1/noon", ended=stamp(START)))


def test_jobs_are_paged_newest_first_without_gap_or_repetition(db: Database) -> None:
    with db.write() as tx:
        for n in range(7):
            tx.jobs.add(job(n, ended=stamp(START)))
    names: list[str] = []
    before = None
    with db.read() as tx:
        while page := tx.jobs.page(vault=VAULT, before=before, limit=3):
            names += [j.id for j in page]
            before = (page[-1].started, page[-1].id)
    assert names == [f"job{n}" for n in reversed(range(7))]


def test_an_operation_ends_once(db: Database) -> None:
    operation = LongOperation("o1", "validate", VAULT, OperationStatus.RUNNING, stamp(START))
    with db.write() as tx:
        tx.operations.add(operation)
        assert tx.operations.running(VAULT.lower(), "validate") == operation
        assert tx.operations.end(operation.ending(OperationStatus.FAILED, START, error={"code": "X"}))
        assert not tx.operations.end(operation.ending(OperationStatus.SUCCEEDED, START))
        found = tx.operations.get("o1")
    assert found is not None
    assert (found.status, found.error, found.resource) == (OperationStatus.FAILED, {"code": "X"}, VAULT)


def test_an_instance_has_expired_points_only_when_there_is_a_newer_one(db: Database) -> None:
    with db.write() as tx:
        for n in range(3):
            time = stamp(START + timedelta(hours=n))
            tx.points.put(StoredPoint(INSTANCE, f"p{n}", time, time, "Default", {}))
            if n == 0:
                assert tx.points.instances_with_expired(START + timedelta(days=9)) == []
        assert tx.points.instances_with_expired(START - timedelta(seconds=1)) == []
        assert tx.points.instances_with_expired(START) == [INSTANCE.lower()]
        assert [p.id for p in tx.points.of_instance(INSTANCE, start=START + timedelta(hours=1))] == ["p2", "p1"]


def test_a_secret_is_sealed_and_bound_to_its_name(db: Database, tmp_path: Path) -> None:
    with db.write() as tx:
        tx.secrets.put("a", b"hidden-text")
        tx.secrets.put("a", b"hidden-text-2")
    with db.read() as tx:
        assert tx.secrets.get("a") == b"hidden-text-2"
        assert tx.secrets.get("b") is None
    db.close()
    for file in tmp_path.iterdir():
        assert b"hidden" not in file.read_bytes()
    other = Database.open(f"sqlite:///{tmp_path}/state.sqlite", b"1" * 32)
    with pytest.raises(SecretDamaged), other.read() as tx:
        tx.secrets.get("a")


def test_a_failed_transaction_keeps_nothing(db: Database) -> None:
    def stopped_half_way() -> None:
        with db.write() as tx:
            tx.resources.put(vault())
            tx.outbox.add("backup", "w1")
            raise KeyError

    with pytest.raises(KeyError):
        stopped_half_way()
    with db.read() as tx:
        assert tx.resources.get(VAULT) is None
        assert tx.outbox.waiting() == []


def test_a_url_of_another_database_is_refused_without_repeating_it(tmp_path: Path) -> None:
    with pytest.raises(StateError) as caught:
        Database.open("mysql://user:hidden@host/db", KEY)
    assert "hidden" not in str(caught.value)


def test_stamps_read_back() -> None:
    assert moment(stamp(START)) == START


def test_children_are_found_by_what_their_documents_mention_in_any_case(db: Database) -> None:
    with db.write() as tx:
        tx.resources.put(vault("a").with_doc({"of": "/Clusters/One_1"}))
        tx.resources.put(vault("b").with_doc({"of": "/clusters/One11"}))
        found = tx.resources.children(GROUP, vault().type, mentioning='/CLUSTERS/one_1"')
    assert [r.name for r in found] == ["a"]
