"""Work waits for its database: a step under which it failed is done again, and remembered as if nothing had been."""

import asyncio

import pytest

from strongroom.controlplane.state.errors import StateUnavailable
from strongroom.controlplane.workflows import patience
from strongroom.controlplane.workflows.engine import JSON, Body, EngineUnavailable, StepFailed, Steps, WorkflowState
from strongroom.controlplane.workflows.memory_engine import MemoryEngine
from strongroom.controlplane.workflows.patience import patient, patiently


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_SECONDS", 0.001)


async def run(body: Body) -> WorkflowState:
    engine = MemoryEngine()
    engine.register("work", patient(body))
    await engine.launch()
    await engine.start("work", "one", key="one")
    while not (state := await engine.state("one")).finished:  # noqa: ASYNC110 - an engine tells it no other way
        await asyncio.sleep(0.001)
    await engine.close()
    return state


@pytest.mark.parametrize("error", [StateUnavailable("away"), EngineUnavailable("away")])
async def test_a_step_is_done_again_until_its_database_answers(error: Exception) -> None:
    attempts = 0
    results: list[JSON] = []

    async def step() -> JSON:
        nonlocal attempts
        attempts += 1
        if attempts < 4:
            raise error
        return attempts

    async def body(steps: Steps, _: str) -> None:
        results.append(await steps.run("write", step))

    assert await run(body) is WorkflowState.SUCCEEDED
    assert results == [4]


async def test_another_error_is_the_step_s_own() -> None:
    kinds: list[str] = []

    async def step() -> JSON:
        raise ValueError("no")

    async def body(steps: Steps, _: str) -> None:
        try:
            await steps.run("write", step)
        except StepFailed as failure:
            kinds.append(failure.kind)

    assert await run(body) is WorkflowState.SUCCEEDED
    assert kinds == ["ValueError"]


async def test_who_waits_for_a_database_can_be_stopped() -> None:
    async def never() -> None:
        raise StateUnavailable("away")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await patiently(never)
