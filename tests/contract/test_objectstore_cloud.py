"""The drivers for stores behind HTTP keep the object store contract, against real servers on loopback."""

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from strongroom.dataplane.objectstore import ObjectStore, open_store
from strongroom.testbed.contracts import ObjectStoreContract
from strongroom.testbed.stores import Azurite, Moto, azurite, moto


@pytest.fixture(scope="module")
def blob_service() -> Iterator[Azurite]:
    with azurite() as server:
        yield server


@pytest.fixture(scope="module")
def s3_service() -> Iterator[Moto]:
    with moto() as server:
        yield server


@pytest.mark.xdist_group("azurite")
class TestAzureStore(ObjectStoreContract):
    many = 5_100  # Azure Blob pages by 5,000

    @pytest.fixture
    async def store(self, blob_service: Azurite, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ObjectStore]:
        for name, value in blob_service.environment.items():
            monkeypatch.setenv(name, value)
        store = await open_store(blob_service.make_container(f"c{secrets.token_hex(8)}"))
        yield store
        await store.close()


@pytest.mark.xdist_group("moto")
class TestS3Store(ObjectStoreContract):
    @pytest.fixture
    async def store(self, s3_service: Moto, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ObjectStore]:
        for name, value in s3_service.environment.items():
            monkeypatch.setenv(name, value)
        url = s3_service.make_bucket(f"b{secrets.token_hex(8)}")
        store = await open_store(url.replace("?", "/backups/of-one?"))
        yield store
        await store.close()
