"""The contract of a workflow engine, run against every driver: subclass it and give it an `engines` fixture."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from strongroom.controlplane.workflows.engine import (
    ERROR_TEXT_CHARACTERS,
    ID_CHARACTERS,
    JSON,
    STEP_RESULT_BYTES,
    Body,
    Engine,
    EngineMisused,
    StepFailed,
    Steps,
    WorkflowCancelled,
    WorkflowState,
)

Engines = Callable[[], Engine]
"""Makes an engine on the same storage as the one before, which was closed."""

PATIENCE_SECONDS = 30.0  # a loaded machine; the tests wait for a condition and go on at once


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when *condition* holds; fails the test when it does not within `PATIENCE_SECONDS`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await condition():
        assert time.monotonic() < deadline, "the condition does not come true"
        await asyncio.sleep(0.02)


async def until_state(engine: Engine, workflow_id: str, state: WorkflowState) -> None:
    """Return when *workflow_id* is in *state*."""

    async def reached() -> bool:
        return await engine.state(workflow_id) is state

    await until(reached)


async def until_event(event: asyncio.Event) -> None:
    """Return when *event* is set."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await event.wait()


@contextlib.asynccontextmanager
async def launched(engine: Engine, **bodies: Body) -> AsyncIterator[Engine]:
    """Launch *engine* with *bodies* by kind, and close it."""
    for kind, body in bodies.items():
        engine.register(kind, body)
    await engine.launch()
    try:
        yield engine
    finally:
        await engine.close()


def returning(value: JSON) -> Callable[[], Awaitable[JSON]]:
    """Return a step that returns *value*."""

    async def step() -> JSON:
        return value

    return step


async def nothing(steps: Steps, workflow_id: str) -> None:
    """A body without steps."""


class EngineContract:
    """Every engine does what `Engine` promises.

    Subclasses define a fixture `engines` that yields an `Engines`.
    """

    async def test_a_body_runs_its_steps_in_order_on_the_loop_of_launch(self, engines: Engines) -> None:
        seen: list[object] = []
        loop = asyncio.get_running_loop()

        async def body(steps: Steps, workflow_id: str) -> None:
            seen.append(workflow_id)
            for number in range(3):

                async def step(number: int = number) -> JSON:
                    assert asyncio.get_running_loop() is loop
                    return {"number": number, "pair": (1, None)}

                seen.append(await steps.run(f"step {number}", step))
            assert asyncio.get_running_loop() is loop

        async with launched(engines(), job=body) as engine:
            await engine.start("job", "w", key="k")
            await until_state(engine, "w", WorkflowState.SUCCEEDED)
        assert seen == ["w", *({"number": number, "pair": [1, None]} for number in range(3))]

    async def test_starting_the_same_id_again_runs_it_once(self, engines: Engines) -> None:
        runs: list[str] = []

        async def body(steps: Steps, workflow_id: str) -> None:
            runs.append(workflow_id)

        async with launched(engines(), job=body) as engine:
            await asyncio.gather(*(engine.start("job", "w", key="k") for _ in range(10)))
            await until_state(engine, "w", WorkflowState.SUCCEEDED)
            await engine.start("job", "w", key="k")
            await engine.start("job", "last", key="k")
            await until_state(engine, "last", WorkflowState.SUCCEEDED)
        assert runs == ["w", "last"]

    async def test_of_one_key_one_runs_at_a_time_in_the_order_of_their_starts(self, engines: Engines) -> None:
        running: dict[str, int] = {"a": 0, "b": 0}
        order: dict[str, list[str]] = {"a": [], "b": []}
        both = asyncio.Event()

        async def body(steps: Steps, workflow_id: str) -> None:
            key = workflow_id[0]
            running[key] += 1
            assert running[key] == 1
            order[key].append(workflow_id)
            if all(running.values()):
                both.set()
            await steps.run("work", lambda: asyncio.sleep(0.02))
            running[key] -= 1

        # Ids that sort otherwise than they are started.
        names = [f"{key}{9 - number}" for number in range(6) for key in ("a", "b")]
        async with launched(engines(), job=body) as engine:
            for name in names:
                await engine.start("job", name, key=name[0])
            for name in names:
                await until_state(engine, name, WorkflowState.SUCCEEDED)
        assert order == {key: [name for name in names if name[0] == key] for key in ("a", "b")}
        assert both.is_set(), "different keys never ran at once"

    async def test_no_more_of_a_kind_run_at_once_than_its_limit(self, engines: Engines) -> None:
        running: set[str] = set()
        most = 0

        async def body(steps: Steps, workflow_id: str) -> None:
            nonlocal most
            running.add(workflow_id)
            most = max(most, len(running))
            await steps.run("work", lambda: asyncio.sleep(0.05))
            running.discard(workflow_id)

        engine = engines()
        engine.register("job", body, queue_concurrency=2)
        async with launched(engine):
            for number in range(6):
                await engine.start("job", f"w{number}", key=f"k{number}")
            for number in range(6):
                await until_state(engine, f"w{number}", WorkflowState.SUCCEEDED)
        assert most == 2

    async def test_a_delayed_workflow_waits_and_holds_nobody_up(self, engines: Engines) -> None:
        ends: dict[str, float] = {}

        async def body(steps: Steps, workflow_id: str) -> None:
            ends[workflow_id] = time.monotonic()

        async with launched(engines(), job=body) as engine:
            started = time.monotonic()
            await engine.start("job", "late", key="k", delay_seconds=1.5)
            await engine.start("job", "soon", key="k")
            assert await engine.state("late") is WorkflowState.WAITING
            await until_state(engine, "late", WorkflowState.SUCCEEDED)
        assert ends["late"] - started >= 1.4  # the database counts in whole milliseconds
        assert ends["soon"] < ends["late"]

    async def test_states_tell_absent_waiting_running_and_the_end(self, engines: Engines) -> None:
        go = asyncio.Event()

        async def body(steps: Steps, workflow_id: str) -> None:
            async def wait() -> JSON:
                await go.wait()
                return None

            await steps.run("wait", wait)

        async with launched(engines(), job=body) as engine:
            assert await engine.state("w1") is WorkflowState.ABSENT
            await engine.start("job", "w1", key="k")
            await engine.start("job", "w2", key="k")
            await until_state(engine, "w1", WorkflowState.RUNNING)
            assert await engine.state("w2") is WorkflowState.WAITING
            assert await engine.error("w1") is None
            go.set()
            await until_state(engine, "w2", WorkflowState.SUCCEEDED)
            assert await engine.state("w1") is WorkflowState.SUCCEEDED
            assert await engine.error("w1") is None

    async def test_a_body_that_raises_fails_with_a_bounded_reason_and_the_next_runs(self, engines: Engines) -> None:
        async def body(steps: Steps, workflow_id: str) -> None:
            if workflow_id == "bad":
                raise ValueError("x" * 3 * ERROR_TEXT_CHARACTERS)

        async with launched(engines(), job=body) as engine:
            await engine.start("job", "bad", key="k")
            await engine.start("job", "good", key="k")
            await until_state(engine, "good", WorkflowState.SUCCEEDED)
            assert await engine.state("bad") is WorkflowState.FAILED
            error = await engine.error("bad")
        assert error is not None
        assert error.startswith("ValueError: xxx")
        assert len(error) <= ERROR_TEXT_CHARACTERS + len("ValueError: ")

    async def test_a_failed_step_is_an_error_that_the_body_can_catch(self, engines: Engines) -> None:
        caught: list[StepFailed] = []

        async def body(steps: Steps, workflow_id: str) -> None:
            async def step() -> JSON:
                raise KeyError("gone")

            try:
                await steps.run("read", step)
            except StepFailed as error:
                caught.append(error)
            await steps.run("after", returning(1))

        async with launched(engines(), job=body) as engine:
            await engine.start("job", "w", key="k")
            await until_state(engine, "w", WorkflowState.SUCCEEDED)
        assert [(error.step, error.kind, error.text) for error in caught] == [("read", "KeyError", "'gone'")]
        assert isinstance(caught[0].__cause__, KeyError)

    @pytest.mark.parametrize("result", [Path("x"), "x" * (STEP_RESULT_BYTES + 1), float("nan")])
    async def test_a_result_that_cannot_be_kept_fails_the_step(self, engines: Engines, result: object) -> None:
        async def body(steps: Steps, workflow_id: str) -> None:
            await steps.run("return", returning(result))  # type: ignore[arg-type]

        async with launched(engines(), job=body) as engine:
            await engine.start("job", "w", key="k")
            await until_state(engine, "w", WorkflowState.FAILED)
            assert "step return failed" in (await engine.error("w") or "")

    async def test_cancelling_reaches_the_running_step_and_then_the_body_once(self, engines: Engines) -> None:
        entered = asyncio.Event()
        seen: list[str] = []

        async def body(steps: Steps, workflow_id: str) -> None:
            async def step() -> JSON:
                entered.set()
                try:
                    await asyncio.sleep(PATIENCE_SECONDS * 2)
                except asyncio.CancelledError:
                    seen.append("step")
                    raise
                return None

            try:
                await steps.run("long", step)
            except WorkflowCancelled:
                seen.append("body")
                seen.append(str(await steps.run("clean up", returning("cleaned"))))
                raise

        async with launched(engines(), job=body) as engine:
            await engine.start("job", "w", key="k")
            await until_event(entered)
            await engine.cancel("w")
            await engine.cancel("w")
            await until_state(engine, "w", WorkflowState.CANCELLED)
            assert await engine.error("w") is None
        assert seen == ["step", "body", "cleaned"]

    async def test_a_cancelled_workflow_keeps_its_key_until_its_body_has_ended(self, engines: Engines) -> None:
        entered, clean = asyncio.Event(), asyncio.Event()
        running: list[str] = []

        async def body(steps: Steps, workflow_id: str) -> None:
            assert not running
            running.append(workflow_id)

            async def step() -> JSON:
                if workflow_id == "w":
                    entered.set()
                    await asyncio.sleep(PATIENCE_SECONDS * 2)
                return None

            try:
                await steps.run("long", step)
            except WorkflowCancelled:
                await steps.run("clean up", lambda: until_event(clean))
            running.remove(workflow_id)

        async with launched(engines(), job=body) as engine:
            await engine.start("job", "w", key="k")
            await engine.start("job", "next", key="k")
            await until_event(entered)
            await engine.cancel("w")
            assert await engine.state("w") is WorkflowState.RUNNING
            assert await engine.state("next") is WorkflowState.WAITING
            clean.set()
            await until_state(engine, "next", WorkflowState.SUCCEEDED)
            assert await engine.state("w") is WorkflowState.CANCELLED

    async def test_a_workflow_cancelled_while_it_waits_never_runs(self, engines: Engines) -> None:
        go = asyncio.Event()
        ran: list[str] = []

        async def body(steps: Steps, workflow_id: str) -> None:
            ran.append(workflow_id)
            await steps.run("wait", lambda: until_event(go))

        async with launched(engines(), job=body) as engine:
            await engine.start("job", "first", key="k")
            await until_state(engine, "first", WorkflowState.RUNNING)
            await engine.start("job", "second", key="k")
            await engine.start("job", "delayed", key="k", delay_seconds=0.2)
            await engine.start("job", "last", key="k", delay_seconds=0.3)
            for name in ("second", "delayed"):
                await engine.cancel(name)
                assert await engine.state(name) is WorkflowState.CANCELLED
            go.set()
            await until_state(engine, "last", WorkflowState.SUCCEEDED)
            for name in ("second", "delayed"):
                await until_state(engine, name, WorkflowState.CANCELLED)
        assert ran == ["first", "last"]

    async def test_cancelling_what_has_finished_or_never_was_changes_nothing(self, engines: Engines) -> None:
        async with launched(engines(), job=nothing) as engine:
            await engine.start("job", "w", key="k")
            await until_state(engine, "w", WorkflowState.SUCCEEDED)
            await engine.cancel("w")
            await engine.cancel("never")
            assert await engine.state("w") is WorkflowState.SUCCEEDED
            assert await engine.state("never") is WorkflowState.ABSENT

    async def test_a_sleep_lasts_and_can_be_cancelled(self, engines: Engines) -> None:
        rested: list[float] = []

        async def body(steps: Steps, workflow_id: str) -> None:
            begun = time.monotonic()
            await steps.sleep(0.3 if workflow_id == "short" else PATIENCE_SECONDS * 2)
            rested.append(time.monotonic() - begun)

        async with launched(engines(), job=body) as engine:
            await engine.start("job", "short", key="a")
            await engine.start("job", "long", key="b")
            await until_state(engine, "short", WorkflowState.SUCCEEDED)
            await engine.cancel("long")
            await until_state(engine, "long", WorkflowState.CANCELLED)
        assert len(rested) == 1
        assert rested[0] >= 0.3

    async def test_closing_stops_bodies_and_the_next_launch_goes_on_at_the_interrupted_step(
        self, engines: Engines
    ) -> None:
        done: list[str] = []
        cancelled: list[type[BaseException]] = []
        entered = asyncio.Event()
        lives = 0

        async def body(steps: Steps, workflow_id: str) -> None:
            nonlocal lives
            lives += 1

            async def first() -> JSON:
                done.append("first")
                return "kept"

            async def second() -> JSON:
                done.append("second")
                if not entered.is_set():
                    entered.set()
                    await asyncio.sleep(PATIENCE_SECONDS * 2)
                return None

            assert await steps.run("first", first) == "kept"
            try:
                await steps.run("second", second)
            except asyncio.CancelledError as error:
                cancelled.append(type(error))
                raise

        async with launched(engines(), job=body) as engine:
            await engine.start("job", "w", key="k")
            await engine.start("job", "behind", key="k")
            await until_event(entered)
        assert cancelled == [asyncio.CancelledError]
        async with launched(engines(), job=body) as engine:
            await until_state(engine, "behind", WorkflowState.SUCCEEDED)
            assert await engine.state("w") is WorkflowState.SUCCEEDED
        assert done == ["first", "second", "second", "first", "second"]
        assert lives == 3

    async def test_a_failed_step_and_a_sleep_are_remembered_over_a_restart(self, engines: Engines) -> None:
        attempts: list[str] = []
        failures: list[str] = []
        entered = asyncio.Event()

        async def body(steps: Steps, workflow_id: str) -> None:
            async def read() -> JSON:
                attempts.append("read")
                raise OSError("once")

            try:
                await steps.run("read", read)
            except StepFailed as error:
                failures.append(error.text)
            await steps.sleep(0.01)

            async def wait() -> JSON:
                if not entered.is_set():
                    entered.set()
                    await asyncio.sleep(PATIENCE_SECONDS * 2)
                return None

            await steps.run("wait", wait)

        async with launched(engines(), job=body) as engine:
            await engine.start("job", "w", key="k")
            await until_event(entered)
        async with launched(engines(), job=body) as engine:
            await until_state(engine, "w", WorkflowState.SUCCEEDED)
        assert attempts == ["read"]
        assert failures == ["once", "once"]

    async def test_a_cancellation_is_remembered_over_a_restart_with_the_clean_up_that_followed(
        self, engines: Engines
    ) -> None:
        done: list[str] = []
        working, cleaning = asyncio.Event(), asyncio.Event()

        async def body(steps: Steps, workflow_id: str) -> None:
            async def work() -> JSON:
                working.set()
                await asyncio.sleep(PATIENCE_SECONDS * 2)
                return None

            async def one() -> JSON:
                done.append("one")
                return None

            async def two() -> JSON:
                done.append("two")
                if not cleaning.is_set():
                    cleaning.set()
                    await asyncio.sleep(PATIENCE_SECONDS * 2)
                return None

            try:
                await steps.run("work", work)
            except WorkflowCancelled:
                await steps.run("one", one)
                await steps.run("two", two)

        async with launched(engines(), job=body) as engine:
            await engine.start("job", "w", key="k")
            await until_event(working)
            await engine.cancel("w")
            await until_event(cleaning)
        async with launched(engines(), job=body) as engine:
            await until_state(engine, "w", WorkflowState.CANCELLED)
        assert done == ["one", "two", "two"]

    async def test_a_body_that_asks_for_other_steps_than_before_fails(self, engines: Engines) -> None:
        entered = asyncio.Event()

        async def old(steps: Steps, workflow_id: str) -> None:
            async def wait() -> JSON:
                entered.set()
                await asyncio.sleep(PATIENCE_SECONDS * 2)
                return None

            await steps.run("one", returning(1))
            await steps.run("wait", wait)

        async def new(steps: Steps, workflow_id: str) -> None:
            await steps.run("another", returning(1))

        async with launched(engines(), job=old) as engine:
            await engine.start("job", "w", key="k")
            await until_event(entered)
        async with launched(engines(), job=new) as engine:
            await until_state(engine, "w", WorkflowState.FAILED)
            assert "another" in (await engine.error("w") or "")

    async def test_two_steps_at_once_are_refused(self, engines: Engines) -> None:
        async def body(steps: Steps, workflow_id: str) -> None:
            async def slow() -> JSON:
                await asyncio.sleep(0.05)
                return None

            await asyncio.gather(steps.run("one", slow), steps.run("two", slow))

        async with launched(engines(), job=body) as engine:
            await engine.start("job", "w", key="k")
            await until_state(engine, "w", WorkflowState.FAILED)
            assert "EngineMisused" in (await engine.error("w") or "")

    async def test_misuse_is_refused(self, engines: Engines) -> None:
        engine = engines()
        with pytest.raises(EngineMisused):
            await engine.start("job", "w", key="k")
        async with launched(engine, job=nothing, other=nothing):
            with pytest.raises(EngineMisused):
                engine.register("late", nothing)
            with pytest.raises(EngineMisused):
                await engine.launch()
            with pytest.raises(EngineMisused):
                await engine.start("unknown", "w", key="k")
            for bad in ("", " ", "a\0b", "x" * (ID_CHARACTERS + 1)):
                with pytest.raises(EngineMisused):
                    await engine.start("job", bad, key="k")
                with pytest.raises(EngineMisused):
                    await engine.start("job", "w", key=bad)
            await engine.start("job", "w", key="k")
            with pytest.raises(EngineMisused):
                await engine.start("other", "w", key="k")
