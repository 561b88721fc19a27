"""The state component on PostgreSQL: the contract of tests/unit/test_state_sqlite.py, and writers that meet."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from strongroom.controlplane.state.database import Database
from strongroom.testbed.postgres import Postgres

from ..unit.test_state_sqlite import (  # noqa: F401 - its tests run here, too
    GROUP,
    KEY,
    test_a_failed_transaction_keeps_nothing,
    test_a_resource_is_found_in_any_case_and_keeps_its_own,
    test_a_slot_makes_one_job_only,
    test_a_write_with_an_old_etag_is_refused_and_changes_nothing,
    test_an_instance_has_expired_points_only_when_there_is_a_newer_one,
    test_an_operation_ends_once,
    test_children_are_found_by_what_their_documents_mention_in_any_case,
    test_deleting_a_tree_leaves_a_neighbour_whose_name_begins_alike,
    test_jobs_are_paged_newest_first_without_gap_or_repetition,
    test_only_one_backup_of_an_instance_runs_at_a_time,
    test_resources_are_listed_in_pages_by_parent_type_and_subscription,
    vault,
)

WRITERS = 8
TURNS = 25


@pytest.fixture
def db(postgres: Postgres) -> Iterator[Database]:
    with postgres.database() as url:
        database = Database.open(url, KEY)
        yield database
        database.close()


def test_no_writer_overwrites_what_it_has_not_read(db: Database) -> None:
    with db.write() as tx:
        tx.resources.put(vault().with_doc({"count": 0}))

    def count(_: int) -> None:
        for _ in range(TURNS):
            with db.write() as tx:
                found = tx.resources.get(vault().id)
                assert found is not None
                tx.resources.put(found.with_doc({"count": found.doc["count"] + 1}))

    with ThreadPoolExecutor(WRITERS) as threads:
        list(threads.map(count, range(WRITERS)))
    with db.read() as tx:
        found = tx.resources.get(vault().id)
    assert found is not None
    assert found.doc == {"count": WRITERS * TURNS}


def test_of_several_writers_that_find_a_name_free_one_takes_it(db: Database) -> None:
    def take(number: int) -> bool:
        with db.write() as tx:
            if tx.resources.children(GROUP, vault().type):
                return False
            tx.resources.put(vault(f"V{number}"))
            return True

    with ThreadPoolExecutor(WRITERS) as threads:
        assert sum(threads.map(take, range(WRITERS))) == 1
