"""The way from a committed request to the engine: nothing that stands in it may hold up the rest."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from strongroom.controlplane.arm.formats import MAX_NAME_CHARACTERS
from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.times import now
from strongroom.controlplane.workflows.dispatcher import Dispatcher
from strongroom.controlplane.workflows.engine import Steps
from strongroom.controlplane.workflows.memory_engine import MemoryEngine
from strongroom.controlplane.workflows.work_ids import EXPIRE, work_id

from .scheduler_stage import Stage

KEY = bytes(32)
SECONDS = 10.0
LONGEST_INSTANCE = (
    f"/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/{'g' * 90}"
    f"/providers/Microsoft.DataProtection/backupVaults/{'v' * 50}/backupInstances/{'i' * MAX_NAME_CHARACTERS}"
)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database.open(f"sqlite:///{tmp_path}/state.sqlite", KEY)
    yield database
    database.close()


@pytest.fixture
def ran() -> asyncio.Queue[str]:
    return asyncio.Queue()


@pytest.fixture
async def dispatcher(db: Database, tmp_path: Path, ran: asyncio.Queue[str]) -> AsyncIterator[Dispatcher]:
    async def body(_: Steps, workflow_id: str) -> None:
        ran.put_nowait(workflow_id)

    engine = MemoryEngine()
    engine.register("known", body)
    engine.register(EXPIRE, body)
    await engine.launch()
    found = Dispatcher(Stage(db, tmp_path).services, engine)
    await found.start()
    yield found
    await found.stop()
    await engine.close()


def ask(db: Database, dispatcher: Dispatcher, *works: tuple[str, str, str]) -> None:
    for kind, id, key in works:
        with db.write() as tx:
            tx.outbox.add(kind, id, key)
    dispatcher.poke()


async def test_work_on_what_has_the_longest_names_is_started(
    db: Database, dispatcher: Dispatcher, ran: asyncio.Queue[str]
) -> None:
    expire = work_id(EXPIRE, LONGEST_INSTANCE, now())
    ask(db, dispatcher, ("known", "job", f"{LONGEST_INSTANCE}/backup"), (EXPIRE, expire, f"{LONGEST_INSTANCE}/expire"))
    async with asyncio.timeout(SECONDS):
        assert {await ran.get(), await ran.get()} == {"job", expire}


async def test_work_that_the_engine_never_takes_does_not_hold_up_what_waits_behind_it(
    db: Database, dispatcher: Dispatcher, ran: asyncio.Queue[str]
) -> None:
    ask(db, dispatcher, ("of another version", "first", "a"), ("known", "second", "b"))
    async with asyncio.timeout(SECONDS):
        assert await ran.get() == "second"
    with db.read() as tx:
        assert "first" not in [work.id for work in tx.outbox.waiting()]


async def test_an_error_of_our_own_does_not_end_the_dispatcher(
    db: Database, dispatcher: Dispatcher, ran: asyncio.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    met = asyncio.Event()
    move = dispatcher._move

    async def fails_once() -> int:
        monkeypatch.setattr(dispatcher, "_move", move)
        met.set()
        raise KeyError("a mistake")

    monkeypatch.setattr("strongroom.controlplane.workflows.dispatcher.TROUBLE_SECONDS", 0.01)
    monkeypatch.setattr(dispatcher, "_move", fails_once)
    ask(db, dispatcher, ("known", "job", "a"))
    async with asyncio.timeout(SECONDS):
        await met.wait()
        assert await ran.get() == "job"
