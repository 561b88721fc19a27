"""The engine in memory does what every engine does."""

import pytest

from strongroom.controlplane.workflows.memory_engine import MemoryEngine, MemoryStore
from strongroom.testbed.contracts.engine import EngineContract, Engines


class TestMemoryEngine(EngineContract):
    @pytest.fixture
    def engines(self) -> Engines:
        store = MemoryStore()
        return lambda: MemoryEngine(store)
