"""Starts the workflows that committed transactions asked for, and sees that no job stays without one."""

import asyncio
import contextlib
import logging
import time
from typing import Final

from strongroom.controlplane.state.errors import StateError
from strongroom.controlplane.state.journal import Work
from strongroom.controlplane.workflows.engine import Engine, EngineError, EngineMisused, WorkflowState
from strongroom.controlplane.workflows.following import end_job
from strongroom.controlplane.workflows.services import Services
from strongroom.protection.errors import ErrorCode, UserError
from strongroom.protection.job import JobStatus

log = logging.getLogger(__name__)

IDLE_SECONDS: Final = 2.0  # between looks at the outbox when nobody pokes: bounds the delay of a lost poke
RECONCILE_SECONDS: Final = 60.0  # between looks for jobs whose workflow ended without ending them
TROUBLE_SECONDS: Final = 2.0  # between attempts while a database does not answer


class Dispatcher:
    """Moves work from the outbox to the engine. A row leaves the outbox only after the engine has the workflow."""

    def __init__(self, services: Services, engine: Engine) -> None:
        self._services = services
        self._engine = engine
        self._poked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Adopt what an earlier process left, then run until `stop`."""
        self._loop = asyncio.get_running_loop()
        await self.reconcile()
        self._task = asyncio.create_task(self._run(), name="outbox")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def poke(self) -> None:
        """Have the outbox looked at now. Any thread may call this."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._poked.set)

    async def reconcile(self) -> None:
        """End every running job and operation that no workflow will ever end: none stays `InProgress` for ever.

        Jobs and operations first, the outbox after them: work that leaves it meanwhile is in the engine then.
        """
        jobs = await self._services.read(lambda tx: tx.jobs.all_running())
        operations = await self._services.read(lambda tx: tx.operations.open())
        waiting = {work.id for work in await self._services.read(lambda tx: tx.outbox.waiting(limit=1_000_000))}
        for identifier in [job.id for job in jobs]:
            if identifier not in waiting and await self._is_lost(identifier):
                await self._end_lost_job(identifier)
        for operation in operations:
            if operation.id not in waiting and await self._is_lost(operation.id):
                await self._services.end_operation(operation, error=_LOST)

    async def _end_lost_job(self, job_id: str) -> None:
        at = self._services.clock()
        await self._services.write(lambda tx: end_job(tx, job_id, JobStatus.FAILED, at, _LOST))

    async def _forget(self, work_id: str) -> None:
        await self._services.write(lambda tx: tx.outbox.done(work_id))

    async def _is_lost(self, workflow_id: str) -> bool:
        state = await self._engine.state(workflow_id)
        return state is WorkflowState.ABSENT or state.finished

    async def _run(self) -> None:
        reconciled = time.monotonic()
        while True:
            self._poked.clear()
            try:
                moved = await self._move()
                if time.monotonic() - reconciled >= RECONCILE_SECONDS:
                    await self.reconcile()
                    reconciled = time.monotonic()
            except (StateError, EngineError) as error:
                log.warning("work cannot be started now", extra={"reason": str(error)})
                await asyncio.sleep(TROUBLE_SECONDS)
                continue
            except Exception:
                # All work comes through here: a mistake of ours is said, and the next turn tries again.
                log.exception("a turn of the dispatcher failed")
                await asyncio.sleep(TROUBLE_SECONDS)
                continue
            if not moved:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._poked.wait(), IDLE_SECONDS)

    async def _move(self) -> int:
        waiting: list[Work] = await self._services.read(lambda tx: tx.outbox.waiting())
        for work in waiting:
            try:
                await self._engine.start(work.kind, work.id, key=work.key)
            except EngineMisused as error:
                # It would be refused for ever, and what waits behind it with it. `reconcile` ends its job.
                log.error(
                    "work that the engine does not take is dropped", extra={"work": work.id, "reason": str(error)}
                )
            await self._forget(work.id)
        return len(waiting)


_LOST: Final = UserError(
    str(ErrorCode.CUSTOM_RESOURCES_TIMEOUT),
    "The server ended while this was at work, and its record of it is gone.",
    ("Repeat the request.",),
    retryable=True,
)
