"""The contract of an object store, run against every driver: subclass it and give it a `store` fixture."""

import asyncio
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from strongroom.dataplane.objectstore import (
    Key,
    ObjectExists,
    ObjectNotFound,
    ObjectStore,
    StoreMisused,
    create_once,
    parse_key,
    probe_conditional_create,
)

MIB = 1024 * 1024
# More than one page of any store's listing: Azure Blob pages by 5,000, S3 and GCS by 1,000. Azurite is slow to fill.
MANY = 1_100
DELETED = 600  # more than two of a driver's chunks of `DELETE_CHUNK`
# What a store's clock may be away from ours before a test calls it wrong.
CLOCK_SKEW = timedelta(minutes=5)


async def keys_of(store: ObjectStore, prefix: str) -> list[Key]:
    """Return the keys that start with *prefix*, sorted, each as often as the store says it."""
    return sorted([info.key async for info in store.list(prefix)])


async def in_parallel(store: ObjectStore, keys: Sequence[Key], data: bytes, width: int = 32) -> None:
    """Create *keys*, *width* at a time, all with *data*."""
    waiting = list(keys)

    async def work() -> None:
        while waiting:
            await store.put(waiting.pop(), data)

    await asyncio.gather(*(work() for _ in range(width)))


class ObjectStoreContract:
    """Every store does what `ObjectStore` promises.

    Subclasses define a fixture `store` that yields an open, empty store and closes it afterwards.
    """

    many = MANY
    """How many objects the listing test makes: more than the store's pages hold."""

    async def test_what_was_put_is_read_back(self, store: ObjectStore) -> None:
        data = secrets.token_bytes(3000)
        await store.put(parse_key("packs/one.parquet"), data)
        got = await store.get(parse_key("packs/one.parquet"))
        assert got == data
        assert type(got) is bytes

    async def test_a_memoryview_is_stored_as_its_bytes(self, store: ObjectStore) -> None:
        data = b"0123456789"
        await store.put(parse_key("view"), memoryview(data)[2:7])
        assert await store.get(parse_key("view")) == b"23456"

    async def test_an_empty_object_is_an_object(self, store: ObjectStore) -> None:
        key = parse_key("empty")
        await store.put(key, b"")
        assert await store.get(key) == b""
        assert (await store.head(key)).size == 0
        assert await store.get_range(key, 0, 10) == b""
        assert await store.get_tail(key, 10) == (0, b"")
        assert await keys_of(store, "empty") == [key]

    async def test_a_large_object_keeps_every_byte(self, store: ObjectStore) -> None:
        data = os.urandom(20 * MIB)
        key = parse_key("packs/large")
        await store.put(key, data)
        assert await store.get(key) == data
        assert await store.get_range(key, 13 * MIB + 1, 70_000) == data[13 * MIB + 1 :][:70_000]
        assert await store.get_tail(key, 9) == (len(data), data[-9:])

    async def test_every_kind_of_character_that_a_key_allows_survives(self, store: ObjectStore) -> None:
        keys = [
            parse_key(text) for text in ("A-Z.a_z/0-9/x", "a/b/c/d/e/f/g/h", "s" * 200, "-/_", "a..b/c...", "x/y.z-_.")
        ]
        for key in keys:
            await store.put(key, key.encode())
        assert await keys_of(store, "") == sorted(keys)
        for key in keys:
            assert await store.get(key) == key.encode()

    # --- conditional create

    async def test_creating_a_taken_key_fails_and_changes_nothing(self, store: ObjectStore) -> None:
        key = parse_key("points/a/manifest.json")
        await store.put(key, b"first")
        with pytest.raises(ObjectExists) as raised:
            await store.put(key, b"other")
        assert raised.value.key == key
        assert await store.get(key) == b"first"

    async def test_of_concurrent_creates_of_one_key_exactly_one_wins(self, store: ObjectStore) -> None:
        for race in range(5):
            key = parse_key(f"race/{race}")
            bodies = [f"writer {n} ".encode() * 500 for n in range(12)]
            ends = await asyncio.gather(*(store.put(key, body) for body in bodies), return_exceptions=True)
            winners = [body for body, end in zip(bodies, ends, strict=True) if end is None]
            assert len(winners) == 1
            assert all(isinstance(end, ObjectExists) for end in ends if end is not None)
            assert await store.get(key) == winners[0]

    async def test_without_the_condition_an_object_is_replaced(self, store: ObjectStore) -> None:
        key = parse_key("state")
        await store.put(key, b"a longer first value", if_absent=False)
        await store.put(key, b"second", if_absent=False)
        assert await store.get(key) == b"second"
        assert await keys_of(store, "") == [key]

    async def test_a_deleted_key_may_be_created_again(self, store: ObjectStore) -> None:
        key = parse_key("again")
        await store.put(key, b"1")
        await store.delete([key])
        await store.put(key, b"2")
        assert await store.get(key) == b"2"

    async def test_creating_once_may_be_repeated_with_the_same_bytes_only(self, store: ObjectStore) -> None:
        key = parse_key("runs/1.json")
        await create_once(store, key, b"mine")
        await create_once(store, key, b"mine")
        for foreign in (b"yours", b"theirs, longer"):
            with pytest.raises(ObjectExists):
                await create_once(store, key, foreign)
        assert await store.get(key) == b"mine"

    async def test_the_probe_finds_creates_conditional_and_leaves_nothing(self, store: ObjectStore) -> None:
        await probe_conditional_create(store)
        assert await keys_of(store, "") == []

    # --- reading

    @pytest.mark.parametrize(
        ("start", "length", "expected"),
        [
            (0, 4, b"0123"),
            (3, 4, b"3456"),
            (0, 10, b"0123456789"),
            (9, 1, b"9"),
            (7, 50, b"789"),
            (0, 50, b"0123456789"),
            (10, 1, b""),
            (10, 0, b""),
            (4000, 5, b""),
            (3, 0, b""),
        ],
    )
    async def test_a_range_is_cut_at_the_end_of_the_object(
        self, store: ObjectStore, start: int, length: int, expected: bytes
    ) -> None:
        key = parse_key("digits")
        await store.put(key, b"0123456789")
        assert await store.get_range(key, start, length) == expected

    @pytest.mark.parametrize(
        ("length", "expected"), [(0, b""), (1, b"9"), (4, b"6789"), (10, b"0123456789"), (11, b"0123456789")]
    )
    async def test_a_tail_is_at_most_the_object_and_comes_with_its_size(
        self, store: ObjectStore, length: int, expected: bytes
    ) -> None:
        key = parse_key("digits")
        await store.put(key, b"0123456789")
        assert await store.get_tail(key, length) == (10, expected)

    async def test_negative_ranges_are_refused(self, store: ObjectStore) -> None:
        key = parse_key("digits")
        await store.put(key, b"0123456789")
        with pytest.raises(StoreMisused):
            await store.get_range(key, -1, 4)
        with pytest.raises(StoreMisused):
            await store.get_range(key, 0, -1)
        with pytest.raises(StoreMisused):
            await store.get_tail(key, -1)

    async def test_reading_an_absent_object_says_so(self, store: ObjectStore) -> None:
        await store.put(parse_key("folder/there"), b"x")
        for key in (parse_key("absent"), parse_key("folder/absent"), parse_key("folder")):
            for reading in (
                store.get(key),
                store.get_range(key, 0, 1),
                store.get_range(key, 5, 0),
                store.get_tail(key, 1),
                store.get_tail(key, 0),
                store.head(key),
            ):
                with pytest.raises(ObjectNotFound) as raised:
                    await reading
                assert raised.value.key == key
                assert raised.value.store == store.url

    async def test_head_tells_size_and_time_by_an_aware_clock(self, store: ObjectStore) -> None:
        key = parse_key("timed")
        await store.put(key, b"x" * 123)
        info = await store.head(key)
        assert (info.key, info.size) == (key, 123)
        assert abs(datetime.now(UTC) - info.modified) < CLOCK_SKEW

    # --- listing

    async def test_a_prefix_is_text_and_not_a_folder(self, store: ObjectStore) -> None:
        keys = [parse_key(text) for text in ("packs/ab1", "packs/ab2/x", "packs/b", "packs2/ab", "pac", "a/packs/ab3")]
        await in_parallel(store, keys, b"x")
        assert await keys_of(store, "") == sorted(keys)
        assert await keys_of(store, "packs/ab") == ["packs/ab1", "packs/ab2/x"]
        assert await keys_of(store, "packs/") == ["packs/ab1", "packs/ab2/x", "packs/b"]
        assert await keys_of(store, "pac") == ["pac", "packs/ab1", "packs/ab2/x", "packs/b", "packs2/ab"]
        assert await keys_of(store, "pac/") == []
        assert await keys_of(store, "absent/") == []
        assert await keys_of(store, "packs/zz") == []

    async def test_listing_an_empty_store_yields_nothing(self, store: ObjectStore) -> None:
        assert await keys_of(store, "") == []

    async def test_a_listing_tells_what_head_tells(self, store: ObjectStore) -> None:
        key = parse_key("runs/x.json")
        await store.put(key, b"12345")
        head = await store.head(key)
        [info] = [info async for info in store.list("runs/")]
        assert (info.key, info.size) == (head.key, head.size)
        assert abs(info.modified - head.modified) < timedelta(seconds=1)  # one of them may drop fractions

    async def test_a_malformed_prefix_is_refused(self, store: ObjectStore) -> None:
        for prefix in ("/", "a//", "../", "a b", ".tmp"):
            with pytest.raises(StoreMisused):
                await keys_of(store, prefix)

    async def test_many_objects_are_each_listed_once_and_many_deleted_in_one_call(self, store: ObjectStore) -> None:
        keys = [parse_key(f"packs/{n:05}") for n in range(self.many)]
        kept = parse_key("points/kept")
        await in_parallel(store, [*keys, kept], b"x")
        assert await keys_of(store, "packs/") == keys
        gone = keys[:DELETED]
        await store.delete(gone)
        assert await keys_of(store, "") == [*keys[DELETED:], kept]

    # --- the rest

    async def test_deleting_absent_objects_is_fine(self, store: ObjectStore) -> None:
        there = parse_key("folder/there")
        await store.put(there, b"x")
        await store.delete([])
        await store.delete([parse_key("absent"), there, parse_key("folder/absent"), parse_key("folder")])
        assert await keys_of(store, "") == []

    async def test_a_key_below_an_object_is_absent_when_read_or_deleted(self, store: ObjectStore) -> None:
        await store.put(parse_key("file"), b"x")
        below = parse_key("file/below")
        with pytest.raises(ObjectNotFound):
            await store.get(below)
        await store.delete([below])
        assert await keys_of(store, "") == ["file"]

    async def test_counters_count_objects_bytes_and_calls(self, store: ObjectStore) -> None:
        before = (store.bytes_written, store.bytes_read, store.requests)
        key = parse_key("counted")
        await store.put(key, b"x" * 1000)
        await store.get(key)
        await store.get_range(key, 990, 100)
        await store.get_tail(key, 5)
        after = (store.bytes_written, store.bytes_read, store.requests)
        assert (after[0] - before[0], after[1] - before[1]) == (1000, 1015)
        assert after[2] - before[2] >= 4

    async def test_closing_twice_is_fine(self, store: ObjectStore) -> None:
        await store.close()
        await store.close()
