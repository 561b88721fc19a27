"""The stores that need nothing but this machine keep the object store contract."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from strongroom.dataplane.objectstore import ObjectStore, open_store
from strongroom.testbed.contracts import ObjectStoreContract


class TestFilesystemStore(ObjectStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[ObjectStore]:
        store = await open_store(f"file://{tmp_path}/repository", create=True)
        yield store
        await store.close()


class TestMemoryStore(ObjectStoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[ObjectStore]:
        store = await open_store(f"memory://{secrets.token_hex(8)}", create=True)
        yield store
        await store.close()
