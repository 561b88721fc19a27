"""Runs one body: tells it of cancellation, keeps what its steps came to, and stops it when the engine closes.

The same for every engine; an engine adds where outcomes are kept (`Record`) and which body runs when.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypedDict

from strongroom.controlplane.workflows.engine import (
    JSON,
    Body,
    EngineMisused,
    StepFailed,
    WorkflowCancelled,
    WorkflowState,
    as_stored,
    bounded_text,
    error_kind,
)

log = logging.getLogger(__name__)


class Result(TypedDict, total=False):
    """What a step came to, as it is stored: exactly one of the three."""

    value: JSON
    error: dict[str, str]
    """`kind` and `text` of a `StepFailed`."""
    cancelled: bool


class Outcome(TypedDict, total=False):
    """What a workflow came to, as it is stored: a finished `WorkflowState`'s value, and why it failed."""

    state: str
    error: str


Execute = Callable[[], Coroutine[Any, Any, Result]]
Record = Callable[[str, Execute], Awaitable[Result]]
"""Return the stored result of the body's next step, called thus; else execute it and store its result first.

When the execution raises `CancelledError`, nothing is stored and the error is passed on.
"""

CANCELLED = Outcome(state=WorkflowState.CANCELLED.value)


class Run:
    """One life of a body, from its start or restart to its end or the engine's; the `Steps` that the body gets."""

    def __init__(self, body: Body, workflow_id: str, record: Record) -> None:
        self._body = body
        self._id = workflow_id
        self._record = record
        self._cancel_asked = False
        self._cancel_told = False
        self._stopped = False
        self._life: asyncio.Task[Outcome] | None = None
        self._recording: asyncio.Task[Result] | None = None
        self._step: asyncio.Task[JSON] | None = None
        self._cause: BaseException | None = None

    async def live(self) -> Outcome:
        """Run the body to its end. Raises `CancelledError` when it was stopped: then it is to live again."""
        if self._stopped:
            raise asyncio.CancelledError
        self._life = asyncio.current_task()
        try:
            await self._body(self, self._id)
        except asyncio.CancelledError as error:
            if self._stopped:
                raise
            if not self._cancel_told:
                return self._failed(error)
        except Exception as error:
            if self._stopped:
                raise asyncio.CancelledError from error
            return self._failed(error)
        if self._stopped:
            # It swallowed the error that stops it: what it did since is not its end.
            raise asyncio.CancelledError
        return CANCELLED if self._cancel_told else Outcome(state=WorkflowState.SUCCEEDED.value)

    def _failed(self, error: BaseException) -> Outcome:
        log.warning("workflow failed", extra={"workflow": self._id, "kind": error_kind(error)}, exc_info=error)
        text = bounded_text(error)
        return Outcome(
            state=WorkflowState.FAILED.value, error=f"{error_kind(error)}: {text}" if text else str(error_kind(error))
        )

    def cancel(self) -> None:
        """Tell the body, once, at its running or next step."""
        if not self._cancel_asked:
            self._cancel_asked = True
            if self._step is not None:
                self._step.cancel()

    def stop(self) -> None:
        """End this life at the step that it is in, without an outcome."""
        self._stopped = True
        for task in (self._step, self._recording, self._life):
            if task is not None:
                task.cancel()

    async def ended(self) -> None:
        """Return when nothing of this life runs any more."""
        tasks = {task for task in (self._step, self._recording, self._life) if task is not None}
        if tasks:
            await asyncio.wait(tasks)

    async def run(self, name: str, step: Callable[[], Awaitable[JSON]]) -> JSON:
        """See `Steps.run`."""
        if self._stopped:
            raise asyncio.CancelledError
        if self._recording is not None:
            raise EngineMisused(
                f"step {name} was asked for while another runs", hint="Do several things at once inside one step."
            )
        self._recording = asyncio.ensure_future(self._record(name, lambda: self._execute(step)))
        try:
            # Shielded: what a step came to is stored even when the body does not wait for it.
            result = await asyncio.shield(self._recording)
        except asyncio.CancelledError:
            if not self._stopped and self._step is not None:
                self._step.cancel()
            await asyncio.wait({self._recording})
            raise
        finally:
            self._recording = None
        if "cancelled" in result:
            self._cancel_told = True
            raise WorkflowCancelled
        if "error" in result:
            cause, self._cause = self._cause, None
            raise StepFailed(name, result["error"]["kind"], result["error"]["text"]) from cause
        return result["value"]

    async def sleep(self, seconds: float) -> None:
        """See `Steps.sleep`."""

        async def wake() -> JSON:
            return time.time() + seconds

        until = await self.run("sleep", wake)
        if not isinstance(until, int | float):
            raise EngineMisused("the body slept where another step stands in its history")

        async def rest() -> JSON:
            await asyncio.sleep(until - time.time())
            return None

        await self.run("slept", rest)

    async def _execute(self, step: Callable[[], Awaitable[JSON]]) -> Result:
        if self._stopped:
            raise asyncio.CancelledError
        if self._cancel_asked and not self._cancel_told:
            return Result(cancelled=True)

        async def start() -> JSON:
            return await step()

        self._step = task = asyncio.create_task(start())
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        finally:
            self._step = None
        if task.cancelled():
            if self._stopped:
                raise asyncio.CancelledError
            if self._cancel_asked and not self._cancel_told:
                return Result(cancelled=True)
            return Result(error={"kind": "CancelledError", "text": "the step was cancelled by its own body"})
        error = task.exception()
        if error is None:
            try:
                return Result(value=as_stored(task.result()))
            except EngineMisused as refusal:
                error = refusal
        if not isinstance(error, Exception):
            raise error
        if self._stopped:
            # Closing may have caused it: the step runs anew.
            raise asyncio.CancelledError
        self._cause = error
        return Result(error={"kind": error_kind(error), "text": bounded_text(error)})
