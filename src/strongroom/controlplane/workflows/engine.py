"""The port of durable workflows: what a job may rely on across crashes, restarts and lost databases.

A *workflow* is one run of a registered *body* under an id that its starter chose. The body asks its `Steps` to run
named steps; the result of each is remembered, so that a body which starts anew after a crash passes quickly over
what is done and goes on at the step that was interrupted. Drivers: `dbos_engine` (durable), `memory_engine` (tests).
A driver is done when it passes `testbed.contracts.engine.EngineContract`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Protocol

from strongroom.errors import ExitCode, StrongroomError

JSON = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]
"""What a step may return: it is stored as JSON, and given to the body as read back from it (a tuple is a list)."""

ERROR_TEXT_CHARACTERS = 2000  # of a failure's message that is kept: a reason, not a dump
STEP_RESULT_BYTES = 64 * 1024  # ids, counts and names fit; a document belongs into the state database
# Of a workflow id, a kind, a key. The longest of ours, the work that lets points of an instance with the longest names
# go, has about 600; an index of PostgreSQL ends at 2,704 bytes.
ID_CHARACTERS = 1024


class EngineError(StrongroomError):
    """The root of the workflow engine's errors."""


class EngineUnavailable(EngineError):
    """The engine's database did not answer; nothing is known to have happened, and the same call may succeed later."""

    exit_code = ExitCode.UNREACHABLE


class EngineMisused(EngineError):
    """A call that the port does not allow: an unknown kind, an id in use by another kind, a register after launch."""


class StepFailed(EngineError):
    """A step raised. Remembered: the body gets the same error whenever it comes to this step again.

    `kind` is the qualified name of the error's class, `text` its bounded message. `__cause__` is the error itself
    on the run that met it only: a body decides on a value that its step returned, never on a cause.
    """

    def __init__(self, step: str, kind: str, text: str) -> None:
        super().__init__(f"step {step} failed: {kind}: {text}")
        self.step = step
        self.kind = kind
        self.text = text


class WorkflowCancelled(asyncio.CancelledError):
    """Raised by `Steps` in a body after `Engine.cancel`, once. A plain `CancelledError` means: the engine closes."""


class WorkflowState(Enum):
    """Where a workflow is."""

    ABSENT = "absent"
    """Never started, or finished so long ago that it was purged."""
    WAITING = "waiting"
    """Not begun: its delay is not over, or another of its key or kind runs."""
    RUNNING = "running"
    """Begun. Also while the engine is down: it goes on at the next launch."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether it never runs again."""
        return self in {WorkflowState.SUCCEEDED, WorkflowState.FAILED, WorkflowState.CANCELLED}


class Steps(Protocol):
    """What a body runs its steps with. Only the body itself uses it, one call after another, never two at once."""

    async def run(self, name: str, step: Callable[[], Awaitable[JSON]]) -> JSON:
        """Run *step* unless its result is remembered, and return its result.

        Order and names of a body's steps follow from earlier results alone; a body that asks for another step than
        it did before the crash fails. A step may run twice (a crash between its effect and the record of it): what
        it does must come out the same. It never runs twice at once. Results are JSON of at most `STEP_RESULT_BYTES`.

        Raises `StepFailed` when the step raised, and `WorkflowCancelled` when `cancel` was asked for: the step that
        was running got `asyncio.CancelledError` and has ended. That, too, is remembered: a body that cleans up after
        `WorkflowCancelled` may run steps for it, which survive a crash like any others.
        A limit of time belongs into the step, not around this call: a limit that struck is not remembered here.
        """
        ...

    async def sleep(self, seconds: float) -> None:
        """Return *seconds* after the body first came here, by the wall clock, however often it restarted since.

        Raises `WorkflowCancelled` as `run` does. It takes up two steps.
        """
        ...


Body = Callable[[Steps, str], Awaitable[None]]
"""(steps, workflow id) -> None. It takes an id only, and reads what the id stands for from the state database.

What it does outside of steps happens anew at each restart. An error that it raises makes the workflow FAILED. It waits
for nothing outside of steps: there `cancel` does not reach it.
"""


class Engine(Protocol):
    """Runs workflows, each to its end, across the death of this process and of the database below.

    Every call but `register` raises `EngineUnavailable` when the database does not answer. Workflows that run then
    are not lost: they go on by themselves when it is back.
    """

    def register(self, kind: str, body: Body, *, queue_concurrency: int | None = None) -> None:
        """Name the body of *kind*; at most *queue_concurrency* workflows of the kind run at once (None: no limit).

        Before `launch` only; a kind with unfinished workflows must be registered at every launch.
        """
        ...

    async def launch(self) -> None:
        """Begin to run workflows, first those that were running when the last process ended.

        Bodies and steps run on the event loop on which this was awaited. One process at a time uses a database.
        """
        ...

    async def start(self, kind: str, workflow_id: str, *, key: str, delay_seconds: float = 0) -> None:
        """Have workflow *workflow_id* run, not before *delay_seconds* from now. Durable when this returns.

        A second start of the same id changes nothing, as long as the first is remembered (until it is purged).
        Of one kind and *key* at most one runs at a time, in the order in which their starts were called; one with a
        delay takes the place of its start among those that wait when the delay is over.
        """
        ...

    async def cancel(self, workflow_id: str) -> None:
        """Ask *workflow_id* to end; returns when that is durable, without waiting for the end.

        One that has not begun never does, and its state is CANCELLED at once. The body of one that runs gets
        `WorkflowCancelled` at its running or next step, also when this process died in between; it is RUNNING until
        the body has ended, and then CANCELLED (FAILED if it raised another error; SUCCEEDED if it had no step left).
        Nothing happens to a workflow that has finished, was cancelled before, or is absent.
        """
        ...

    async def state(self, workflow_id: str) -> WorkflowState:
        """Return where *workflow_id* is."""
        ...

    async def error(self, workflow_id: str) -> str | None:
        """Return why *workflow_id* failed (class of error and message, bounded), None when it did not fail."""
        ...

    async def close(self) -> None:
        """Stop running workflows, each at the step it is in; they go on there at the next launch.

        The running steps and bodies get a plain `asyncio.CancelledError`, and are waited for.
        """
        ...


def bounded_text(error: BaseException) -> str:
    """Return the message of *error*, cut to `ERROR_TEXT_CHARACTERS`."""
    text = str(error)
    return text if len(text) <= ERROR_TEXT_CHARACTERS else text[: ERROR_TEXT_CHARACTERS - 1] + "…"


def error_kind(error: BaseException) -> str:
    """Return the qualified name of the class of *error*, without a module for Python's own."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def as_stored(value: object) -> JSON:
    """Return *value* as it comes back from storage. Raises `EngineMisused` when it is no JSON, or too large."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise EngineMisused(f"a step's result is not JSON: {error}", hint="Return ids, counts and names.") from error
    if (size := len(text.encode())) > STEP_RESULT_BYTES:
        raise EngineMisused(
            f"a step's result has {size} bytes, more than {STEP_RESULT_BYTES}", hint="Return the id of what it wrote."
        )
    stored: JSON = json.loads(text)
    return stored


def check_name(what: str, value: str) -> None:
    """Raise `EngineMisused` unless *value* can be stored as a kind, a key or a workflow id on every database."""
    if not value.strip() or len(value) > ID_CHARACTERS or "\0" in value:
        raise EngineMisused(f"{what} {value[:80]!r} is blank, has a NUL, or more than {ID_CHARACTERS} characters")
