"""The durable engine while its database is away: nothing is lost, nothing runs twice at once, all goes on by itself."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from strongroom.controlplane.workflows.dbos_engine import DbosEngine
from strongroom.controlplane.workflows.engine import JSON, EngineUnavailable, Steps, WorkflowState
from strongroom.testbed.contracts.engine import launched, until, until_state
from strongroom.testbed.postgres import Postgres

STEPS = 5
KEYS = ("a", "b", "c")


@pytest.fixture
def server(postgres: Postgres) -> Iterator[Postgres]:
    """The server, running again afterwards."""
    if not postgres.killable:
        pytest.skip("the server was named by its URL: it is not ours to kill")
    yield postgres
    postgres.start()


class Work:
    """Bodies of `STEPS` short steps that note what they did."""

    def __init__(self) -> None:
        self.done: Counter[tuple[str, int]] = Counter()
        self.running: set[str] = set()

    async def body(self, steps: Steps, workflow_id: str) -> None:
        for number in range(STEPS):

            async def step(number: int = number) -> JSON:
                key = workflow_id[0]
                assert key not in self.running, "two of one key at once"
                self.running.add(key)
                try:
                    await asyncio.sleep(0.1)
                finally:
                    self.running.discard(key)
                self.done[workflow_id, number] += 1
                return number

            assert await steps.run(f"step {number}", step) == number


@pytest.mark.parametrize("kills", [1, 2])
async def test_workflows_go_on_after_postgres_was_killed_and_started_again(server: Postgres, kills: int) -> None:
    work = Work()
    names = [f"{key}{number}" for key in KEYS for number in range(2)]
    with server.database() as url:
        async with launched(DbosEngine(url, poll_seconds=0.05, watch_seconds=0.5), job=work.body) as engine:
            for name in names:
                await engine.start("job", name, key=name[0])
            for kill in range(kills):
                # In the middle of the first of each key, and of the second.
                reached = [(f"{key}{kill}", 2) for key in KEYS]

                async def working(reached: list[tuple[str, int]] = reached) -> bool:
                    return any(work.done[place] for place in reached)

                await until(working)
                server.kill()
                for call in (engine.start("job", "x", key="x"), engine.cancel("a1"), engine.state("a1")):
                    with pytest.raises(EngineUnavailable):
                        await call
                server.start()
            for name in names:
                await until_state(engine, name, WorkflowState.SUCCEEDED)
    assert set(work.done) == {(name, number) for name in names for number in range(STEPS)}
    # A step whose record was lost runs again: at most one for each kill and each workflow that ran then.
    assert sum(work.done.values()) <= STEPS * len(names) + kills * len(KEYS)


async def test_a_start_that_was_answered_survives_the_server(server: Postgres) -> None:
    work = Work()
    with server.database() as url:
        async with launched(DbosEngine(url, poll_seconds=0.05), job=work.body) as engine:
            await engine.start("job", "a0", key="a", delay_seconds=0.5)
            server.kill()
            server.start()
            await until_state(engine, "a0", WorkflowState.SUCCEEDED)


async def test_a_launch_without_a_database_says_so_and_the_next_one_works(server: Postgres) -> None:
    with server.database() as url:
        server.kill()
        engine = DbosEngine(url, poll_seconds=0.05)
        with pytest.raises(EngineUnavailable):
            await engine.launch()
        server.start()
        async with launched(engine):
            assert await engine.state("w") is WorkflowState.ABSENT


async def test_an_engine_closes_while_its_database_is_away_and_the_next_one_goes_on(server: Postgres) -> None:
    work = Work()
    with server.database() as url:
        async with launched(DbosEngine(url, poll_seconds=0.05), job=work.body) as engine:
            await engine.start("job", "a0", key="a")

            async def working() -> bool:
                return bool(work.done["a0", 1])

            await until(working)
            server.kill()
        server.start()
        async with launched(DbosEngine(url, poll_seconds=0.05), job=work.body) as engine:
            await until_state(engine, "a0", WorkflowState.SUCCEEDED)
    assert set(work.done) == {("a0", number) for number in range(STEPS)}
