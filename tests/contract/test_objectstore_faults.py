"""Stores behind HTTP stay right when messages are lost, cut or refused, for all that a driver repeats by itself."""

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from strongroom.dataplane.objectstore import (
    Key,
    ObjectExists,
    ObjectStore,
    Patience,
    StoreUnavailable,
    create_once,
    open_store,
    parse_key,
)
from strongroom.testbed.faults import (
    Action,
    CutBody,
    DropReply,
    DropRequest,
    FaultProxy,
    Hang,
    Rule,
    Status,
    TooMany,
)
from strongroom.testbed.stores import Azurite, Moto, azurite, moto

KEY = parse_key("packs/one")
DATA = secrets.token_bytes(300_000)
QUICK = Patience(request=2, stall=1, retries=3, first_wait=0.01, longest_wait=0.05, total=5)
PASSING: tuple[Action, ...] = (Status(500), Status(503), TooMany(0), DropRequest(), DropReply())
LIST = {"az": "comp=list", "s3": "list-type"}


@dataclass(frozen=True)
class Faulty:
    """A store reached through a proxy, and the same store reached directly."""

    store: ObjectStore
    direct: ObjectStore
    proxy: FaultProxy
    listing: str


@pytest.fixture(scope="module", params=["az", "s3"])
def server(request: pytest.FixtureRequest) -> Iterator[Azurite | Moto]:
    if request.param == "az":
        with azurite() as blob_service:
            yield blob_service
    else:
        with moto() as s3_service:
            yield s3_service


@pytest.fixture
async def faulty(server: Azurite | Moto, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Faulty]:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    make = server.make_container if isinstance(server, Azurite) else server.make_bucket
    url = make(f"c{secrets.token_hex(8)}")
    with FaultProxy.for_store(server.endpoint) as proxy:
        store = await open_store(url.replace(server.endpoint, proxy.url), patience=QUICK)
        direct = await open_store(url)
        yield Faulty(store, direct, proxy, LIST[url[:2]])
        await store.close()
        await direct.close()


@pytest.mark.parametrize("action", PASSING, ids=str)
async def test_creating_once_survives_a_passing_fault(faulty: Faulty, action: Action) -> None:
    rule = Rule(action, method="PUT", times=1)
    faulty.proxy.add(rule)
    await create_once(faulty.store, KEY, DATA)
    assert rule.fired == 1
    assert await faulty.direct.get(KEY) == DATA


@pytest.mark.parametrize("action", PASSING, ids=str)
async def test_a_foreign_object_is_never_taken_for_ours_whatever_was_lost(faulty: Faulty, action: Action) -> None:
    await faulty.direct.put(KEY, b"theirs")
    rule = Rule(action, method="PUT", times=1)
    faulty.proxy.add(rule)
    with pytest.raises(ObjectExists):
        await create_once(faulty.store, KEY, DATA)
    assert rule.fired == 1
    assert await faulty.direct.get(KEY) == b"theirs"


async def test_a_plain_create_whose_reply_was_lost_is_reported_and_whole(faulty: Faulty) -> None:
    faulty.proxy.add(Rule(DropReply(), method="PUT", times=1))
    with pytest.raises((StoreUnavailable, ObjectExists)):
        await faulty.store.put(KEY, DATA)
    assert await faulty.direct.get(KEY) == DATA


@pytest.mark.parametrize("action", [*PASSING, CutBody(100_000)], ids=str)
async def test_reading_survives_a_passing_fault_and_is_never_short(faulty: Faulty, action: Action) -> None:
    await faulty.direct.put(KEY, DATA)
    whole, part = Rule(action, method="GET", times=1), Rule(action, method="GET", times=1)
    faulty.proxy.add(whole)
    assert await faulty.store.get(KEY) == DATA
    faulty.proxy.add(part)
    assert await faulty.store.get_range(KEY, 50_000, 200_000) == DATA[50_000:250_000]
    assert (whole.fired, part.fired) == (1, 1)


@pytest.mark.parametrize("action", [Status(503), DropRequest(), CutBody(1000)], ids=str)
async def test_reading_from_a_store_that_keeps_failing_is_unavailable_and_never_short(
    faulty: Faulty, action: Action
) -> None:
    await faulty.direct.put(KEY, DATA)
    faulty.proxy.add(Rule(action, method="GET"))
    for reading in (faulty.store.get(KEY), faulty.store.get_range(KEY, 10, 200_000)):
        with pytest.raises(StoreUnavailable):
            await reading


@pytest.mark.parametrize("action", [*PASSING, CutBody(200)], ids=str)
async def test_a_listing_is_whole_or_unavailable(faulty: Faulty, action: Action) -> None:
    keys = [parse_key(f"packs/{n}") for n in range(20)]
    for key in keys:
        await faulty.direct.put(key, b"x")
    rule = Rule(action, method="GET", path=faulty.listing, times=1)
    faulty.proxy.add(rule)
    try:
        listed: list[Key] | None = [info.key async for info in faulty.store.list("packs/")]
    except StoreUnavailable:
        listed = None
    assert rule.fired == 1
    assert listed is None or sorted(listed) == sorted(keys)


@pytest.mark.parametrize("action", [Status(503), DropReply()], ids=str)
async def test_deleting_may_be_repeated_after_a_lost_message(faulty: Faulty, action: Action) -> None:
    keys = [parse_key(f"packs/{n}") for n in range(5)]
    for key in keys:
        await faulty.direct.put(key, b"x")
    faulty.proxy.add(Rule(action, times=1))
    try:
        await faulty.store.delete(keys)
    except StoreUnavailable:
        await faulty.store.delete(keys)
    assert [info async for info in faulty.direct.list("")] == []


async def test_a_store_that_never_answers_is_unavailable_when_patience_ends(faulty: Faulty) -> None:
    faulty.proxy.add(Rule(Hang(), method="PUT"))
    with pytest.raises(StoreUnavailable):
        await faulty.store.put(KEY, DATA)
