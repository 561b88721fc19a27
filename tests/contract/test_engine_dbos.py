"""The durable engine does what every engine does, in SQLite."""

from pathlib import Path

import pytest

from strongroom.controlplane.workflows.dbos_engine import DbosEngine
from strongroom.testbed.contracts.engine import EngineContract, Engines


class TestDbosEngineOnSqlite(EngineContract):
    @pytest.fixture
    def engines(self, tmp_path: Path) -> Engines:
        return lambda: DbosEngine(f"sqlite:///{tmp_path}/workflows.sqlite", poll_seconds=0.05)
