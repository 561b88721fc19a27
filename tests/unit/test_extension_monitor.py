"""What a watching extension shows of itself: metrics that count each document once, and whether it works right now."""

import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from strongroom.errors import UsageError
from strongroom.extension.api.documents import (
    Backup,
    BackupSpec,
    DeleteBackup,
    DeleteBackupSpec,
    Kind,
    ObjectMeta,
    Restore,
    RestoreCriteria,
    RestoreSpec,
    Selection,
)
from strongroom.extension.api.status import (
    BackupStatus,
    DeleteBackupStatus,
    Failure,
    Phase,
    RestoreCounts,
    RestoreStatus,
)
from strongroom.extension.watching.monitor import Monitor
from strongroom.extension.watching.resources import head_of
from strongroom.extension.watching.serving import Listen, parse_listen, serving

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "extension.md"
SELECTION = Selection(snapshot_volumes=False, include_cluster_scope_resources=False)


def backup(name: str = "b", *, dry_run: bool = False) -> Backup:
    spec = BackupSpec(storage_location="main", selection=SELECTION, dry_run=dry_run)
    return Backup(metadata=ObjectMeta(name=name), spec=spec)


def value(monitor: Monitor, name: str, **labels: str) -> float | None:
    return monitor.registry.get_sample_value(name, labels)


@pytest.fixture
def monitor() -> Monitor:
    """A monitor whose clock goes on by a second at each look."""
    seconds: Iterator[int] = iter(range(1000))
    return Monitor(clock=lambda: float(next(seconds)))


def test_a_document_is_counted_once_however_often_its_end_is_told(monitor: Monitor) -> None:
    monitor.told(backup(), BackupStatus(phase=Phase.NEW))
    assert value(monitor, "strongroom_runs", kind="Backup", phase="New") == 1
    monitor.told(backup(), BackupStatus(phase=Phase.IN_PROGRESS))
    monitor.told(backup(), BackupStatus(phase=Phase.IN_PROGRESS, objects=1))
    assert value(monitor, "strongroom_runs", kind="Backup", phase="New") == 0
    assert value(monitor, "strongroom_runs", kind="Backup", phase="InProgress") == 1
    ended = BackupStatus(phase=Phase.COMPLETED, objects=7, bytes_read=100, bytes_written=10)
    monitor.told(backup(), ended)
    monitor.told(backup(), ended)
    assert value(monitor, "strongroom_runs", kind="Backup", phase="InProgress") == 0
    assert value(monitor, "strongroom_runs_finished_total", kind="Backup", phase="Completed", dry_run="false") == 1
    assert value(monitor, "strongroom_backup_objects_total") == 7
    assert value(monitor, "strongroom_backup_read_bytes_total") == 100
    assert value(monitor, "strongroom_backup_written_bytes_total") == 10
    assert value(monitor, "strongroom_run_duration_seconds_count", kind="Backup") == 1
    assert (
        value(monitor, "strongroom_run_duration_seconds_sum", kind="Backup") == 1
    )  # from its turn, not from its last status


def test_dry_runs_move_no_amounts_and_no_last_success(monitor: Monitor) -> None:
    monitor.told(backup(dry_run=True), BackupStatus(phase=Phase.NEW))
    monitor.told(backup(dry_run=True), BackupStatus(phase=Phase.COMPLETED, objects=7))
    assert value(monitor, "strongroom_runs_finished_total", kind="Backup", phase="Completed", dry_run="true") == 1
    assert value(monitor, "strongroom_runs_finished_total", kind="Backup", phase="Completed", dry_run="false") == 0
    assert value(monitor, "strongroom_backup_objects_total") == 0


def test_restores_deletions_and_failures_are_counted_by_what_became_of_them(monitor: Monitor) -> None:
    criteria = RestoreCriteria(include_cluster_scope_resources=False)
    restore = Restore(
        metadata=ObjectMeta(name="r"),
        spec=RestoreSpec(storage_location="main", recovery_point_id="p", criteria=criteria),
    )
    deletion = DeleteBackup(
        metadata=ObjectMeta(name="d"), spec=DeleteBackupSpec(storage_location="main", recovery_point_id="p")
    )
    monitor.told(restore, RestoreStatus(phase=Phase.NEW))
    monitor.told(restore, RestoreStatus(phase=Phase.PARTIALLY_FAILED, counts=RestoreCounts(created=2, failed=1)))
    monitor.told(deletion, DeleteBackupStatus(phase=Phase.NEW))
    monitor.told(deletion, DeleteBackupStatus(phase=Phase.COMPLETED, deleted=3))
    monitor.refused(Kind.BACKUP, BackupStatus(phase=Phase.FAILED, error=Failure(code="Odd", message="")))
    assert value(monitor, "strongroom_restore_objects_total", outcome="created") == 2
    assert value(monitor, "strongroom_restore_objects_total", outcome="failed") == 1
    assert value(monitor, "strongroom_snapshots_deleted_total") == 3
    assert value(monitor, "strongroom_run_errors_total", kind="Backup", code="Odd") == 1


def test_the_last_success_is_known_of_documents_that_an_earlier_process_finished(monitor: Monitor) -> None:
    def finished(phase: str, at: str, *, dry_run: bool = False) -> None:
        raw = {
            "metadata": {"name": "b", "uid": "u"},
            "spec": {"storageLocation": "main", "dryRun": dry_run},
            "status": {"phase": phase, "completionTime": at},
        }
        monitor.seen(Kind.BACKUP, head_of(msgspec.json.encode(raw)))

    finished("Completed", "2026-11-23T10:00:00.000Z")
    finished("Completed", "2026-11-22T10:00:00.000Z")
    finished("Failed", "2026-11-23T11:00:00.000Z")
    finished("Completed", "2026-11-23T12:00:00.000Z", dry_run=True)
    finished("Completed", "")
    seen = value(monitor, "strongroom_last_success_timestamp_seconds", kind="Backup", location="main")
    assert seen == 1795428000  # date -d 2026-11-23T10:00:00Z +%s


def test_a_storage_location_that_is_gone_is_not_shown_as_unavailable(monitor: Monitor) -> None:
    monitor.location("main", "StoreUnavailable")
    assert value(monitor, "strongroom_storage_location_available", location="main") == 0
    assert value(monitor, "strongroom_storage_location_failures_total", location="main", reason="StoreUnavailable") == 1
    monitor.location("main", "Opened")
    assert value(monitor, "strongroom_storage_location_available", location="main") == 1
    monitor.location_gone("main")
    monitor.location_gone("never there")
    assert value(monitor, "strongroom_storage_location_available", location="main") is None


async def test_it_is_ready_while_it_holds_the_lease_and_every_watch_works(monitor: Monitor) -> None:
    async with serving(monitor, Listen("127.0.0.1", 0)) as port, aiohttp.ClientSession() as session:

        async def readiness() -> tuple[int, str]:
            async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                return answer.status, await answer.text()

        assert (await readiness())[0] == 503
        monitor.leading(["backups", "restores"])
        assert await readiness() == (503, "watch of backups: broken off\nwatch of restores: broken off\n")
        for resource in ("backups", "restores"):
            monitor.watched(resource, well=True)
        assert await readiness() == (200, "ok\n")
        monitor.watched("backups", well=False)
        assert await readiness() == (503, "watch of backups: broken off\n")
        assert value(monitor, "strongroom_watch_outages_total", resource="backups") == 1
        monitor.told(backup(), BackupStatus(phase=Phase.IN_PROGRESS))
        monitor.not_leading()
        assert (await readiness())[1].startswith("lease: ")
        assert value(monitor, "strongroom_runs", kind="Backup", phase="InProgress") == 0
        async with session.get(f"http://127.0.0.1:{port}/healthz") as answer:
            assert answer.status == 200


async def test_what_is_served_is_what_the_reference_lists(monitor: Monitor) -> None:
    async with (
        serving(monitor, Listen("127.0.0.1", 0)) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        assert answer.content_type == "text/plain"
        families = list(text_string_to_metric_families(await answer.text()))
    assert all(family.documentation for family in families)
    own = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    own = {name for name in own if name.startswith("strongroom_")}
    assert set(re.findall(r"^\| `(strongroom_[a-z_]+)`", REFERENCE.read_text(), re.MULTILINE)) == own


async def test_an_address_that_is_taken_is_refused_in_words(monitor: Monitor) -> None:
    async with serving(monitor, Listen("127.0.0.1", 0)) as port:
        with pytest.raises(UsageError, match="cannot listen on"):
            async with serving(monitor, Listen("127.0.0.1", port)):
                raise AssertionError("two servers on one port")


@pytest.mark.parametrize(
    ("text", "meant"), [(":8080", (None, 8080)), ("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:9", ("::1", 9))]
)
def test_where_to_listen_is_read_as_people_write_it(text: str, meant: tuple[str | None, int]) -> None:
    assert parse_listen(text) == meant


@pytest.mark.parametrize("text", ["", "8080", "host:", ":x", ":70000", ":²"])
def test_what_is_no_address_to_listen_on_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_listen(text)
