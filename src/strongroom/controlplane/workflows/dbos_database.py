"""The database of dbos: opens it as dbos shall use it, and answers what is kept there of a workflow."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import sqlalchemy
from dbos import DBOSClient, Serializer, WorkflowStatus
from dbos import error as dbos_error
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from strongroom.controlplane.workflows.engine import EngineError, EngineMisused, EngineUnavailable, bounded_text
from strongroom.controlplane.workflows.running import Outcome

T = TypeVar("T")

SCHEMA: Final = "strongroom_workflows"  # on PostgreSQL: beside the state's tables, in the same database
APPLICATION: Final = "strongroom"

BUSY_MILLISECONDS: Final = 30_000  # dbos' own number for SQLite: other writers take milliseconds
POOL: Final = 20  # connections; dbos' own number
CONNECT_SECONDS: Final = 10  # a server that is alive answers at once
UNANSWERED_MILLISECONDS: Final = 30_000  # after this the kernel gives up a connection to a host that vanished
CALLS: Final = 8  # of the port at once in the database; each takes milliseconds
PROBE_SECONDS: Final = 0.1  # between two looks for a database that went away, doubled up to
PROBE_SECONDS_MOST: Final = 5.0
PURGE_ROWS: Final = 500  # deleted in one transaction: others write in between

FINISHED: Final = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
UNFINISHED: Final = ["DELAYED", "ENQUEUED", "PENDING"]
CANCEL: Final = "cancel"  # attribute of a workflow that was asked to end
BEGIN: Final = "begin"  # the first step of every workflow


class JsonSerializer(Serializer):
    """JSON instead of dbos' pickle: what a database holds must not run code when it is read."""

    def serialize(self, data: Any) -> str:
        # An error is one of dbos (a body's is in its outcome): its text is all that anybody reads.
        return json.dumps(data, allow_nan=False, ensure_ascii=False, default=_error_text)

    def deserialize(self, serialized_data: str) -> Any:
        data = json.loads(serialized_data)
        return EngineError(data[_ERROR]) if isinstance(data, dict) and _ERROR in data else data

    def name(self) -> str:
        return "strongroom_json"


_ERROR: Final = "dbosError"


def _error_text(value: object) -> dict[str, str]:
    if isinstance(value, BaseException):
        return {_ERROR: f"{type(value).__qualname__}: {bounded_text(value)}"}
    raise TypeError(f"{type(value).__qualname__} is not JSON")


class DbosDatabase:
    """What dbos keeps, asked beside dbos: no call waits for a database to come back. Usable from any event loop."""

    def __init__(self, url: str) -> None:
        """Take `sqlite:///PATH` or `postgresql://…`; raises `EngineMisused` for anything else. Does not connect."""
        self.url = _parse(url)
        self.engine = _sqlite(self.url) if self.url.get_backend_name() == "sqlite" else _postgres(self.url)
        self._client = DBOSClient(
            system_database_engine=self.engine,
            dbos_system_schema=SCHEMA,
            serializer=JsonSerializer(),
            application_name=APPLICATION,
            lazy=True,
            retry_connection_errors=False,
        )
        self._probing = asyncio.Lock()  # one asks, however many wait
        self._threads = ThreadPoolExecutor(CALLS, thread_name_prefix="workflows-")

    def check(self) -> None:
        """Raise `EngineUnavailable` unless the database answers. Blocks."""
        with translated(), self.engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))

    async def answering(self) -> None:
        """Return as soon as the database answers. On dbos' loop only."""
        async with self._probing:
            seconds = PROBE_SECONDS
            while True:
                try:
                    await asyncio.get_running_loop().run_in_executor(self._threads, self.check)
                    return
                except EngineUnavailable:
                    await asyncio.sleep(seconds)
                    seconds = min(2 * seconds, PROBE_SECONDS_MOST)

    def close(self) -> None:
        """Let go of threads and connections. Blocks until calls under way have ended."""
        self._threads.shutdown()
        self._client.destroy()
        self.engine.dispose()

    async def call(self, ask: Callable[[DBOSClient], T]) -> T:
        """Return what *ask* returns, run in a thread. Raises `EngineUnavailable`."""

        def answer() -> T:
            with translated():
                return ask(self._client)

        return await asyncio.get_running_loop().run_in_executor(self._threads, answer)

    async def status(self, workflow_id: str) -> WorkflowStatus | None:
        """Return what dbos knows of *workflow_id*."""
        found = await self.call(lambda client: client.list_workflows(workflow_ids=[workflow_id], load_input=False))
        return found[0] if found else None

    async def begun(self, workflow_id: str) -> bool:
        """Tell whether the body of *workflow_id* has begun, in this or an earlier process."""
        steps = await self.call(lambda client: client.list_workflow_steps(workflow_id))
        return any(step["function_name"] == BEGIN and step["output"] == {"cancelled": False} for step in steps)

    async def mark_cancelled(self, workflow_id: str) -> None:
        """Keep that *workflow_id* was asked to end."""
        await self.call(lambda client: client.update_workflow_attributes(workflow_id, {CANCEL: True}, merge=True))

    async def claimed(self, executor_id: str) -> dict[str, str | None]:
        """Return the queue of each workflow that *executor_id* is said to run, by workflow id."""
        found = await self.call(
            lambda client: client.list_workflows(
                status="PENDING", executor_id=executor_id, load_input=False, load_output=False
            )
        )
        return {status.workflow_id: status.queue_name for status in found}

    async def places(self) -> dict[str, int]:
        """Return the last place taken in the line of each partition that has unfinished workflows."""
        found = await self.call(
            lambda client: client.list_workflows(status=UNFINISHED, load_input=False, load_output=False)
        )
        last: dict[str, int] = {}
        for status in found:
            partition = status.queue_partition_key or ""
            last[partition] = max(last.get(partition, 0), status.priority or 0)
        return last

    async def resume(self, workflow_id: str, queue: str | None) -> None:
        """Put *workflow_id* back into *queue*, at the place of its start."""
        await self.call(lambda client: client.resume_workflow(workflow_id, queue_name=queue))

    async def purge(self, before: datetime) -> int:
        """Delete the workflows that finished before *before*; returns how many."""
        count = 0
        while True:
            found = await self.call(
                lambda client: client.list_workflows(
                    status=FINISHED,
                    completed_before=before.isoformat(),
                    limit=PURGE_ROWS,
                    load_input=False,
                    load_output=False,
                )
            )
            if not found:
                return count
            names = [status.workflow_id for status in found]
            await self.call(lambda client, names=names: client.delete_workflows(names))  # type: ignore[misc]
            count += len(names)


def outcome_of(status: WorkflowStatus) -> Outcome:
    """Return what the workflow of *status* came to; dbos calls it a success whatever the body's end was."""
    return cast("Outcome", status.output)


def asked_to_end(status: WorkflowStatus) -> bool:
    """Tell whether `mark_cancelled` was called for the workflow of *status*."""
    return bool((status.attributes or {}).get(CANCEL))


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the database's errors into ours; statements and parameters stay out of the text."""
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        raise EngineUnavailable("the workflows' database does not answer", hint="The call can be repeated.") from error
    except dbos_error.DBOSConflictingWorkflowError as error:
        raise EngineMisused("the workflow id is in use by another kind") from error


def _parse(url: str) -> URL:
    # The text is not repeated in errors: it may hold a password.
    refusal = EngineMisused("the database URL is not of the form sqlite:///PATH or postgresql://USER@HOST/NAME")
    try:
        parsed = sqlalchemy.make_url(url)
    except ArgumentError as error:
        raise refusal from error
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "sqlite" and parsed.database:
        return parsed
    raise refusal


def _sqlite(url: URL) -> Engine:
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = sqlalchemy.create_engine(url, pool_size=POOL, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.isolation_level = "IMMEDIATE"  # as in dbos' own engine: writers take turns from the first statement
        connection.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a start that was answered survives a power cut
        connection.execute("PRAGMA foreign_keys=ON")  # dbos deletes a workflow's rows by cascade

    return engine


def _postgres(url: URL) -> Engine:
    return sqlalchemy.create_engine(
        url,
        pool_size=POOL,
        pool_pre_ping=True,  # after a restart the first use of each pooled connection would fail otherwise
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": UNANSWERED_MILLISECONDS,
            "application_name": "strongroom-workflows",
        },
    )
