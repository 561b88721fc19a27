"""Conditional create stays right when replies get lost, and stores that only pretend it are found out."""

import secrets

import pytest

from strongroom.dataplane.objectstore import (
    Key,
    ObjectExists,
    StoreMissing,
    StoreUnavailable,
    StoreUnsafe,
    create_once,
    open_store,
    parse_key,
    probe_conditional_create,
)
from strongroom.dataplane.objectstore import create as create_module
from strongroom.dataplane.objectstore.memory import MemoryStore

KEY = parse_key("runs/1.json")


class LossyStore(MemoryStore):
    """Loses the first *lost* requests or replies of `put`."""

    def __init__(self, lost: int, *, reply: bool) -> None:
        super().__init__(secrets.token_hex(8), create=True)
        self.lost = lost
        self.reply = reply
        self.attempts = 0

    async def put(self, key: Key, data: bytes | memoryview, *, if_absent: bool = True) -> None:
        self.attempts += 1
        if self.attempts > self.lost:
            return await super().put(key, data, if_absent=if_absent)
        if self.reply:
            await super().put(key, data, if_absent=if_absent)
        raise StoreUnavailable("the connection broke")


class CarelessStore(MemoryStore):
    """Takes every create for a replacement, as some stores that speak S3 do."""

    def __init__(self) -> None:
        super().__init__(secrets.token_hex(8), create=True)

    async def put(self, key: Key, data: bytes | memoryview, *, if_absent: bool = True) -> None:
        await super().put(key, data, if_absent=False)


class LyingStore(CarelessStore):
    """Says that the object exists, after it replaced it."""

    async def put(self, key: Key, data: bytes | memoryview, *, if_absent: bool = True) -> None:
        existed = key in self._objects
        await super().put(key, data)
        if existed:
            raise ObjectExists("exists")


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create_module, "_WAITS", (0.0, 0.0))


@pytest.mark.parametrize("reply", [False, True], ids=["request", "reply"])
@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_creating_once_succeeds_after_lost_messages(lost: int, reply: bool) -> None:
    store = LossyStore(lost, reply=reply)
    await create_once(store, KEY, b"mine")
    assert await store.get(KEY) == b"mine"


async def test_creating_once_gives_up_when_nothing_gets_through() -> None:
    store = LossyStore(99, reply=False)
    with pytest.raises(StoreUnavailable):
        await create_once(store, KEY, b"mine")
    assert store.attempts == 3


async def test_of_two_writers_with_lost_replies_the_second_learns_that_it_lost() -> None:
    store = LossyStore(1, reply=True)
    await create_once(store, KEY, b"first")
    with pytest.raises(ObjectExists):
        await create_once(store, KEY, b"later")
    assert await store.get(KEY) == b"first"


@pytest.mark.parametrize("kind", [CarelessStore, LyingStore])
async def test_a_store_that_replaces_on_create_is_refused_and_left_empty(kind: type[CarelessStore]) -> None:
    store = kind()
    with pytest.raises(StoreUnsafe) as raised:
        await probe_conditional_create(store)
    assert raised.value.hint
    assert [info async for info in store.list("")] == []


async def test_memory_stores_of_one_name_are_one_store_and_unknown_names_none() -> None:
    name = secrets.token_hex(8)
    with pytest.raises(StoreMissing):
        await open_store(f"memory://{name}")
    first = await open_store(f"memory://{name}", create=True)
    await first.put(KEY, b"x")
    await first.close()
    second = await open_store(f"memory://{name}")
    assert await second.get(KEY) == b"x"
