"""The durable engine does what every engine does, in SQLite and in PostgreSQL."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from strongroom.controlplane.workflows.dbos_engine import DbosEngine
from strongroom.testbed.contracts.engine import EngineContract, Engines, launched
from strongroom.testbed.postgres import Postgres


class TestDbosEngineOnSqlite(EngineContract):
    @pytest.fixture
    def engines(self, tmp_path: Path) -> Engines:
        return lambda: DbosEngine(f"sqlite:///{tmp_path}/workflows.sqlite", poll_seconds=0.05)


@pytest.fixture(scope="module")
def migrated(postgres: Postgres) -> Iterator[str]:
    """The name of a database with dbos' tables: a new one takes two seconds."""
    with postgres.database() as url:
        asyncio.run(_launch_and_close(url))
        yield make_url(url).database or ""


async def _launch_and_close(url: str) -> None:
    async with launched(DbosEngine(url, poll_seconds=0.05)):
        pass


class TestDbosEngineOnPostgres(EngineContract):
    @pytest.fixture
    def engines(self, postgres: Postgres, migrated: str) -> Iterator[Engines]:
        with postgres.database(like=migrated) as url:
            yield lambda: DbosEngine(url, poll_seconds=0.05)
