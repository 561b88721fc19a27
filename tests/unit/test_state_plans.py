"""What is read of a table that may have a million rows is found by an index that fits, on SQLite without statistics."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event

from strongroom.controlplane.state.database import Database, Tx
from strongroom.controlplane.state.points import StoredPoint
from strongroom.controlplane.state.spans import point_spans

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAIR = ("2026-01-01", "b")


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path_factory.mktemp('plans')}/state.sqlite", b"k" * 32)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("ask", "found"),
    [
        (lambda tx: tx.jobs.page(vault="v", limit=9), "jobs_by_vault (vault=?)"),
        (lambda tx: tx.jobs.page(vault="v", before=PAIR, limit=9), "jobs_by_vault (vault=? AND (started,id)<(?,?))"),
        (
            lambda tx: tx.jobs.page(subscription="s", before=PAIR, limit=9),
            "jobs_by_subscription (subscription=? AND (started,id)<(?,?))",
        ),
        (lambda tx: tx.jobs.all_running(), "jobs_one_at_a_time"),
        (lambda tx: tx.jobs.busy("Backup"), "jobs_one_at_a_time"),
        (lambda tx: tx.jobs.running("i", "Backup"), "jobs_one_at_a_time (instance=? AND category=?)"),
        (
            lambda tx: tx.jobs.starts_since("i", "Backup", NOW),
            "jobs_by_instance (instance=? AND category=? AND started>?)",
        ),
        (lambda tx: tx.jobs.latest_of_slots("i", "Backup", "s", ["Completed"]), "jobs_by_instance"),
        (lambda tx: tx.jobs.has_slot("s"), "(slot=?)"),
        (lambda tx: tx.jobs.get("j"), "(id=?)"),
        (lambda tx: tx.points.of_instance("i", limit=9), "points_by_time (instance=?)"),
        (lambda tx: tx.points.of_instance("i", before=PAIR, limit=9), "points_by_time (instance=? AND time<?)"),
        (lambda tx: tx.points.expiries("i"), "(instance=?)"),
        (lambda tx: tx.points.count("i"), "(instance=?)"),
        (lambda tx: tx.points.get("i", "p"), "(instance=? AND id=?)"),
        (lambda tx: tx.points.in_state("Deleting"), "points_by_expiry (state=?)"),
        (lambda tx: tx.points.instances_with_expired(NOW), "points_by_expiry (state=? AND expiry>? AND expiry<?)"),
        (lambda tx: point_spans(tx, ["a", "b"]), "points_by_time (instance=?)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_question_reads_a_million_rows_for_a_few(db: Database, ask: Callable[[Tx], Any], found: str) -> None:
    asked: list[tuple[str, Any]] = []
    with db.read() as tx:

        def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _x: Any, _many: bool) -> None:
            asked.append((statement, parameters))

        event.listen(tx.connection, "before_cursor_execute", note)
        ask(tx)
        event.remove(tx.connection, "before_cursor_execute", note)
        plans = [
            [row[3] for row in tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            for statement, parameters in asked
        ]
    (plan,) = plans
    assert found in plan[0], plan
    assert not any(step in ("SCAN jobs", "SCAN points") for step in plan)


def test_points_of_one_instant_are_all_listed_page_by_page(db: Database) -> None:
    with db.write() as tx:
        for number in range(7):
            tx.points.put(StoredPoint("ties", f"p{number}", PAIR[0], "", "Default", {"n": number}))
    listed: list[str] = []
    before: tuple[str, str] | None = None
    with db.read() as tx:
        while page := tx.points.of_instance("ties", before=before, limit=2):
            listed += [point.id for point in page]
            before = (page[-1].time, page[-1].id)
    assert listed == [f"p{number}" for number in reversed(range(7))]
