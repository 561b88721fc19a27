"""The durable engine: our port on dbos (its MIT core), in SQLite or PostgreSQL.

dbos claims workflows from its queues and remembers their steps, on an event loop and threads of its own, so that a
database that does not answer holds up nothing but the workflows. Bodies and steps run on the loop of `launch`. What
dbos stores is JSON, and holds ids and outcomes only. docs/design/0005-durable-workflows.md tells where the port
promises more than dbos does, and how that is made up for.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict

from dbos import DBOS, DBOSConfig, EnqueueOptions
from sqlalchemy.exc import SQLAlchemyError

from strongroom.controlplane.workflows.dbos_database import (
    APPLICATION,
    BEGIN,
    FINISHED,
    SCHEMA,
    DbosDatabase,
    JsonSerializer,
    asked_to_end,
    outcome_of,
    translated,
)
from strongroom.controlplane.workflows.engine import (
    Body,
    EngineMisused,
    EngineUnavailable,
    WorkflowState,
    bounded_text,
    check_name,
)
from strongroom.controlplane.workflows.running import CANCELLED, Execute, Outcome, Record, Result, Run

log = logging.getLogger(__name__)

# Constant: dbos recovers only workflows of its own version, and ours go on after an upgrade.
APPLICATION_VERSION: Final = "1"
QUEUE: Final = "jobs"  # of every kind without a limit: each queue costs about 1% of a core when idle

POLL_SECONDS: Final = 1.0  # a start waits this long at most; 0.25 s cost twice the idle CPU
WATCH_SECONDS: Final = 5.0  # between two looks for workflows that dbos let go of
KEEP: Final = timedelta(days=30)  # no caller repeats a start after so long
PURGE_SECONDS: Final = 3600.0  # between two deletions of what is older
LOG_SECONDS: Final = 60.0  # between two lines of the same place in dbos
CLOSE_SECONDS: Final = 30.0  # a body that has not ended by then is left behind, as by a crash

_one_at_a_time = threading.Lock()


class _Begin(TypedDict):
    cancelled: bool
    """Whether it was asked to end before it began: then the body never runs."""


@dataclass(frozen=True, slots=True)
class _Request:
    """A step that a body asked for; `reply` belongs to the body's loop."""

    name: str
    execute: Execute
    reply: asyncio.Future[Result]

    def answer(self, result: Result) -> None:
        if not self.reply.done():
            self.reply.set_result(result)


class DbosEngine:
    """`Engine` on dbos; see there. One per process at a time: dbos keeps itself in a global.

    *url* is `sqlite:///PATH` or `postgresql://…`. Every process that goes on with the same workflows has the same
    *executor_id*. *poll_seconds*: how often the queues are looked at. *keep*: how long finished ones are remembered.
    """

    def __init__(
        self,
        url: str,
        *,
        executor_id: str = APPLICATION,
        poll_seconds: float = POLL_SECONDS,
        watch_seconds: float = WATCH_SECONDS,
        keep: timedelta = KEEP,
    ) -> None:
        self._url = url
        self._executor_id = executor_id
        self._poll_seconds = poll_seconds
        self._watch_seconds = watch_seconds
        self._keep = keep
        self._kinds: dict[str, tuple[Body, int | None]] = {}
        self._runs: dict[str, Run] = {}
        self._places: dict[str, int] = {}
        self._database: DbosDatabase | None = None
        self._closing = False
        self._watch: asyncio.Task[None] | None = None

    def register(self, kind: str, body: Body, *, queue_concurrency: int | None = None) -> None:
        check_name("kind", kind)
        if self._database is not None or kind in self._kinds:
            raise EngineMisused(f"kind {kind} is registered twice, or after launch")
        self._kinds[kind] = (body, queue_concurrency)

    async def launch(self) -> None:
        if self._database is not None or not _one_at_a_time.acquire(blocking=False):
            raise EngineMisused("an engine is launched already in this process")
        try:
            database = DbosDatabase(self._url)
            main = asyncio.get_running_loop()
            self._closing = False
            # In a thread without a loop: dbos would make ours its own.
            await asyncio.to_thread(self._open, database, main)
            try:
                self._places = await database.places()
            except BaseException:
                await asyncio.to_thread(_destroy, database)
                raise
        except BaseException:
            _one_at_a_time.release()
            raise
        self._database = database
        self._watch = asyncio.create_task(self._watching(database))

    async def start(self, kind: str, workflow_id: str, *, key: str, delay_seconds: float = 0) -> None:
        database = self._launched()
        check_name("workflow id", workflow_id)
        check_name("key", key)
        if kind not in self._kinds:
            raise EngineMisused(f"kind {kind} is not registered")
        partition = f"{kind}\t{key}"
        # dbos orders by priority, then by time: of a clock that jumps, and tells SQLite under Python 3.11 seconds only.
        self._places[partition] = self._places.get(partition, 0) + 1
        options: EnqueueOptions = {
            "workflow_name": kind,
            "queue_name": _queue(kind, self._kinds[kind][1]),
            "workflow_id": workflow_id,
            "app_version": APPLICATION_VERSION,
            "queue_partition_key": partition,
            "priority": self._places[partition],
        }
        if delay_seconds > 0:
            options["delay_seconds"] = delay_seconds
        await database.call(lambda client: client.enqueue(options, workflow_id))

    async def cancel(self, workflow_id: str) -> None:
        database = self._launched()
        status = await database.status(workflow_id)
        if status is None or status.status in FINISHED:
            return
        await database.mark_cancelled(workflow_id)
        # Looked for after the mark is kept: a run that came too early to read it is here by now.
        if (run := self._runs.get(workflow_id)) is not None:
            run.cancel()

    async def state(self, workflow_id: str) -> WorkflowState:
        database = self._launched()
        status = await database.status(workflow_id)
        if status is None:
            return WorkflowState.ABSENT
        if status.status == "SUCCESS":
            return WorkflowState(outcome_of(status)["state"])
        if status.status in FINISHED:
            return WorkflowState.CANCELLED if status.status == "CANCELLED" else WorkflowState.FAILED
        marked = asked_to_end(status)
        if (status.status == "PENDING" and not marked) or workflow_id in self._runs:
            return WorkflowState.RUNNING
        if await database.begun(workflow_id):
            return WorkflowState.RUNNING
        return WorkflowState.CANCELLED if marked else WorkflowState.WAITING

    async def error(self, workflow_id: str) -> str | None:
        status = await self._launched().status(workflow_id)
        if status is None:
            return None
        if status.status == "SUCCESS":
            return outcome_of(status).get("error")
        return None if status.error is None else bounded_text(status.error)

    async def close(self) -> None:
        database, self._database = self._database, None
        if database is None:
            return
        self._closing = True
        try:
            if self._watch is not None:
                self._watch.cancel()
                await asyncio.wait({self._watch})
            await self._stop_all()
        finally:
            await asyncio.to_thread(_destroy, database)
            _one_at_a_time.release()

    async def _stop_all(self) -> None:
        runs = list(self._runs.values())
        for run in runs:
            run.stop()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                for run in runs:
                    await run.ended()
        except TimeoutError:
            log.error("bodies do not end when cancelled", extra={"workflows": sorted(self._runs)})

    def _launched(self) -> DbosDatabase:
        if self._database is None:
            raise EngineMisused("the engine is not launched")
        return self._database

    def _open(self, database: DbosDatabase, main: asyncio.AbstractEventLoop) -> None:
        """Bring dbos' tables up to date and let it begin."""
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_engine": database.engine,
            "dbos_system_schema": SCHEMA,
            "application_version": APPLICATION_VERSION,
            "executor_id": self._executor_id,
            "serializer": JsonSerializer(),
            "log_level": "WARNING",  # below it prints an advert
            "enable_otlp": False,
            # Nobody waits for dbos' messages or schedules: no connection that listens, no fast polls.
            "use_listen_notify": False,
            "notification_listener_polling_interval_sec": 0.2,  # asks nothing while nobody waits; closing waits for it
            "scheduler_polling_interval_sec": 3600.0,
        }
        try:
            database.check()
            with translated():
                DBOS(config=config)
                _tame_log()
                for kind, (body, _) in self._kinds.items():
                    # No limit of restarts: a job that never ends is ended by its own limit of time.
                    workflow = self._workflow(kind, body, database, main)
                    DBOS.workflow(name=kind, max_recovery_attempts=None)(workflow)
                DBOS.launch()
                queues = {_queue(kind, limit): limit for kind, (_, limit) in self._kinds.items()} | {QUEUE: None}
                for name, limit in queues.items():
                    DBOS.register_queue(
                        name,
                        partition_concurrency=1,
                        worker_concurrency=limit,
                        polling_interval_sec=self._poll_seconds,
                        on_conflict="always_update",
                    )
        except BaseException:
            _destroy(database)
            raise

    def _workflow(
        self, kind: str, body: Body, database: DbosDatabase, main: asyncio.AbstractEventLoop
    ) -> Callable[[str], Coroutine[Any, Any, Outcome]]:
        async def workflow(workflow_id: str) -> Outcome:
            # Runs on dbos' loop. A CancelledError leaves the workflow to the next recovery, without an outcome.
            if self._closing or workflow_id in self._runs:
                raise asyncio.CancelledError
            requests: asyncio.Queue[_Request] = asyncio.Queue()
            run = Run(body, workflow_id, _recorder(main, requests))
            self._runs[workflow_id] = run
            try:
                async with _stopped_with(run, main):
                    return await _drive(run, workflow_id, requests, database, main)
            finally:
                del self._runs[workflow_id]

        workflow.__qualname__ = f"workflow_{kind}"
        return workflow

    async def _watching(self, database: DbosDatabase) -> None:
        """Resume what dbos let go of when its database failed, and delete what finished long ago."""
        suspects: set[str] = set()
        purge_at = time.monotonic()
        answered = True
        while True:
            await asyncio.sleep(self._watch_seconds)
            try:
                claimed = await database.claimed(self._executor_id)
                lost = claimed.keys() - self._runs.keys()
                # Twice in a row: dbos claims a workflow a moment before it runs here, and ends it a moment after.
                for workflow_id in lost & suspects:
                    log.warning("resuming a workflow that was let go of", extra={"workflow": workflow_id})
                    await database.resume(workflow_id, claimed[workflow_id])
                suspects = lost - suspects
                if time.monotonic() >= purge_at:
                    await database.purge(datetime.now(UTC) - self._keep)
                    purge_at = time.monotonic() + PURGE_SECONDS
                answered = True
            except EngineUnavailable as error:
                if answered:
                    log.warning("the workflows' database does not answer", extra={"error": str(error.__cause__)})
                answered = False


def _queue(kind: str, limit: int | None) -> str:
    return QUEUE if limit is None else f"{QUEUE}/{kind}"


async def _drive(
    run: Run,
    workflow_id: str,
    requests: asyncio.Queue[_Request],
    database: DbosDatabase,
    main: asyncio.AbstractEventLoop,
) -> Outcome:
    """Let *run* live on *main*, and carry out here, in dbos' context, the steps that it asks for."""
    # Where the database may be away we wait for it ourselves: of some errors dbos takes no second try and lets go of
    # the workflow (psycopg's words for "connection refused" are not among those that it knows). What is let go of in
    # spite of that, in the moments between asking and use, `_watching` finds.
    await database.answering()
    status = await database.status(workflow_id)
    marked = status is not None and asked_to_end(status)

    async def begin() -> _Begin:
        return {"cancelled": marked}

    if (await DBOS.run_step_async({"name": BEGIN}, begin))["cancelled"]:
        return CANCELLED
    if marked:
        main.call_soon_threadsafe(run.cancel)
    life = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run.live(), main))
    while True:
        asked = asyncio.create_task(requests.get())
        first: set[asyncio.Future[Any]] = {asked, life}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                await database.answering()
                return life.result()
            request = asked.result()
        finally:
            asked.cancel()

        async def execute(request: _Request = request) -> Result:
            result = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(request.execute(), main))
            await database.answering()
            return result

        await database.answering()
        result = await DBOS.run_step_async({"name": request.name}, execute)
        main.call_soon_threadsafe(request.answer, result)


def _recorder(main: asyncio.AbstractEventLoop, requests: asyncio.Queue[_Request]) -> Record:
    """Return how the body on *main* gets its steps carried out on the loop that runs now."""
    own = asyncio.get_running_loop()

    async def record(name: str, execute: Execute) -> Result:
        request = _Request(name, execute, main.create_future())
        own.call_soon_threadsafe(requests.put_nowait, request)
        return await request.reply

    return record


@contextlib.asynccontextmanager
async def _stopped_with(run: Run, main: asyncio.AbstractEventLoop) -> AsyncIterator[None]:
    """When the block fails, stop *run* and wait for its end. A failure of the database leaves it to be resumed."""

    async def stop() -> None:
        run.stop()
        await run.ended()

    try:
        yield
    except BaseException as error:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(stop(), main))
        if isinstance(error, SQLAlchemyError | EngineUnavailable):
            raise asyncio.CancelledError from error
        raise


class _Seldom(logging.Filter):
    """Lets a place in dbos speak once in a while: without its database each of its threads complains every second."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place, now = (record.pathname, record.lineno), time.monotonic()
        if now - self._last.get(place, -LOG_SECONDS) < LOG_SECONDS:
            return False
        self._last[place] = now
        return True


def _tame_log() -> None:
    """Let dbos speak through our log, instead of a handler of its own."""
    dbos_log = logging.getLogger("dbos")
    for handler in list(dbos_log.handlers):
        dbos_log.removeHandler(handler)
    dbos_log.propagate = True
    if not any(isinstance(seldom, _Seldom) for seldom in dbos_log.filters):
        dbos_log.addFilter(_Seldom())


def _destroy(database: DbosDatabase) -> None:
    """End dbos' threads and let go of the database. Blocks."""
    dbos_log = logging.getLogger("dbos")
    # It warns of every workflow that it leaves; that is what closing is for.
    dbos_log.setLevel(logging.ERROR)
    DBOS.destroy(destroy_registry=True)
    database.close()
