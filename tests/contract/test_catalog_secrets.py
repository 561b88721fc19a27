"""What the catalog's keeping of secrets promises, on both databases: above all that of many who keep, one has kept."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from strongroom.controlplane.catalog.sealed import Secrets, StateSecrets
from strongroom.controlplane.state.database import Database
from strongroom.testbed.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgres"])
def secrets(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Secrets]:
    if request.param == "sqlite":
        opened = Database.open(f"sqlite:///{tmp_path}/state.sqlite", bytes(32))
        yield StateSecrets(opened)
        opened.close()
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as url:
        opened = Database.open(url, bytes(32))
        yield StateSecrets(opened)
        opened.close()


def test_a_secret_is_stored_replaced_listed_and_forgotten(secrets: Secrets) -> None:
    assert secrets.get("repository/a") is None
    secrets.put("repository/a", b"one")
    secrets.put("repository/a", b"two")
    secrets.put("container/a_", b"other")
    assert secrets.get("repository/a") == b"two"
    assert secrets.names("repository/") == ["repository/a"]
    assert secrets.names("container/a%") == []
    secrets.delete("repository/a")
    secrets.delete("repository/a")
    assert secrets.get("repository/a") is None


def test_what_is_kept_is_not_replaced(secrets: Secrets) -> None:
    assert secrets.keep("n", b"first") == b"first"
    assert secrets.keep("n", b"second") == b"first"
    assert secrets.get("n") == b"first"


def test_of_all_who_keep_at_once_one_has_kept_and_all_are_told_what(secrets: Secrets) -> None:
    threads = 8
    for attempt in range(10):
        together = Barrier(threads)

        def keep(number: int, name: str = f"n{attempt}", together: Barrier = together) -> bytes:
            together.wait()
            return secrets.keep(name, str(number).encode())

        with ThreadPoolExecutor(threads) as pool:
            told = set(pool.map(keep, range(threads)))
        assert told == {secrets.get(f"n{attempt}")}
