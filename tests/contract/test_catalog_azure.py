"""The control plane's repository on Azure Blob Storage (Azurite), and what an extension can do there with its SAS."""

import asyncio
import secrets as randomness
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.controlplane.catalog.keys import allow_extension, ensure_repository
from strongroom.controlplane.catalog.sealed import StateSecrets
from strongroom.controlplane.catalog.stores import StorageAccount, extension_access, open_container
from strongroom.controlplane.state.database import Database
from strongroom.dataplane.objectstore import ObjectExists, ObjectStore, StoreDenied, open_store, parse_key
from strongroom.dataplane.objectstore.create import create_once
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.check import check
from strongroom.dataplane.repository.keyfile import HolderKeys
from strongroom.dataplane.repository.prune import delete_point
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.repository.signing import public_bytes
from strongroom.protection.addresses import refused_address
from strongroom.testbed.builders import back_up, config_map
from strongroom.testbed.stores import Azurite, azurite

lenient = partial(refused_address, allow_loopback=True)


@pytest.fixture(scope="module")
def blob_service() -> Iterator[Azurite]:
    with azurite() as server:
        yield server


@pytest.fixture
def container(blob_service: Azurite) -> str:
    name = f"c{randomness.token_hex(8)}"
    blob_service.make_container(name)
    return name


@pytest.fixture
def account(blob_service: Azurite) -> StorageAccount:
    url = f"az://{blob_service.account}?endpoint={blob_service.endpoint}"
    return StorageAccount("", url, {"accountKey": blob_service.environment["AZURE_STORAGE_ACCOUNT_KEY"]})


async def as_extension(account: StorageAccount, container: str, *, at: datetime | None = None) -> ObjectStore:
    access = extension_access(account, container, storage=Path("/nowhere"), now=at or datetime.now(UTC))
    return await open_store(access.url, credentials=access.credentials)


async def test_a_sas_lets_create_read_and_list_and_neither_replace_nor_delete(
    account: StorageAccount, container: str
) -> None:
    store = await as_extension(account, container)
    key = parse_key("packs/one")
    await create_once(store, key, b"first")
    await create_once(store, key, b"first")  # as after a lost reply
    with pytest.raises(ObjectExists):
        await store.put(key, b"second")
    with pytest.raises(StoreDenied):
        await store.put(key, b"second", if_absent=False)
    with pytest.raises(StoreDenied):
        await store.delete([key])
    assert await store.get(key) == b"first"
    assert [info.key async for info in store.list("")] == [key]


async def test_a_sas_is_for_one_container_and_for_an_hour(
    account: StorageAccount, container: str, blob_service: Azurite
) -> None:
    other = f"c{randomness.token_hex(8)}"
    blob_service.make_container(other)
    access = extension_access(account, container, storage=Path("/nowhere"), now=datetime.now(UTC))
    with pytest.raises(StoreDenied):
        await open_store(access.url.replace(container, other), credentials=access.credentials)
    with pytest.raises(StoreDenied):
        await as_extension(account, container, at=datetime.now(UTC) - timedelta(minutes=61))


async def test_an_extension_backs_up_with_its_sas_and_the_control_plane_prunes(
    tmp_path: Path, account: StorageAccount, container: str
) -> None:
    sealed = StateSecrets(Database.open(f"sqlite:///{tmp_path}/state.sqlite", b"k" * 32))
    recovery = str(pyrage.x25519.Identity.generate().to_public())
    store = await open_container(account, container, storage=tmp_path, refuse_address=lenient)
    keys = await ensure_repository(store, sealed, "/containers/one", recovery)
    assert not [i.key async for i in store.list(paths.PROBE)]
    identity, writer = pyrage.x25519.Identity.generate(), Ed25519PrivateKey.generate()
    await allow_extension(store, keys, str(identity.to_public()), public_bytes(writer))
    holder = HolderKeys(keys.root_public, str(identity), writer)
    extension = await Repository.open(await as_extension(account, container), holder)
    # Both want the first number: the loser is refused it by the SAS, not by the condition, and takes the next.
    (_, first), (_, second) = await asyncio.gather(
        *(back_up(extension, [config_map("a", text)]) for text in ("1", "2"))
    )
    assert {first.sequence, second.sequence} == {1, 2}
    owner = await Repository.open(store, keys)
    await delete_point(owner, first.id)
    assert [p.id for p in await extension.points()] == [second.id]
    assert (await check(owner, read_data=True)).sound
