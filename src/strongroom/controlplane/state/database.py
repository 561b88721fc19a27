"""Opens the database of the control plane, SQLite or PostgreSQL, and runs transactions on it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from strongroom.controlplane.state.errors import Conflict, StateError, StateUnavailable
from strongroom.controlplane.state.jobs import Jobs
from strongroom.controlplane.state.journal import Audit, Outbox, Replays
from strongroom.controlplane.state.migrate import migrate
from strongroom.controlplane.state.operations import Operations
from strongroom.controlplane.state.points import Points
from strongroom.controlplane.state.principals import Principals
from strongroom.controlplane.state.resources import Resources
from strongroom.controlplane.state.schedules import Schedules
from strongroom.controlplane.state.sealing import SecretBox
from strongroom.controlplane.state.secrets import Secrets

BUSY_MILLISECONDS: Final = 20_000  # a writer waits this long for another one; transactions here take milliseconds
WRITERS_LOCK: Final = 7310046  # PostgreSQL's advisory lock of those who write; it holds in one database
POOL: Final = 40  # threads of the API (starlette's limiter: 40) may each hold a connection


class Tx:
    """One transaction: a gateway for each table. Good only inside its `with`."""

    def __init__(self, connection: Connection, box: SecretBox) -> None:
        self.connection = connection
        self.resources = Resources(connection)
        self.jobs = Jobs(connection)
        self.operations = Operations(connection)
        self.points = Points(connection)
        self.schedules = Schedules(connection)
        self.secrets = Secrets(connection, box)
        self.outbox = Outbox(connection)
        self.replays = Replays(connection)
        self.audit = Audit(connection)
        self.principals = Principals(connection)


class Database:
    """The database of one home. Thread-safe; every call is synchronous."""

    def __init__(self, engine: Engine, box: SecretBox) -> None:
        self._engine = engine
        self._box = box
        self.dialect = engine.dialect.name

    @classmethod
    def open(cls, url: str, secret_key: bytes) -> "Database":
        """Open the database at *url* (`sqlite:///PATH`, `postgresql://…`) and bring its tables up to date.

        Raises `StateError` for a URL of another kind or a newer schema, `StateUnavailable` when it does not answer.
        """
        parsed = _parse(url)
        engine = _sqlite(parsed) if parsed.get_backend_name() == "sqlite" else _postgres(parsed)
        database = cls(engine, SecretBox(secret_key))
        with _translated():
            migrate(engine)
        return database

    @contextlib.contextmanager
    def read(self) -> Iterator[Tx]:
        """Run a transaction that only reads. Raises `StateUnavailable`."""
        with _translated(), self._engine.connect() as connection, connection.begin():
            yield Tx(connection, self._box)

    @contextlib.contextmanager
    def write(self) -> Iterator[Tx]:
        """Run a transaction that writes: all of it is kept, or nothing.

        Writers take turns, on both databases: what one has read stands until it has written. So nothing slow belongs
        in here. Raises `StateUnavailable`, and `Conflict` when somebody else wrote first.
        """
        with (
            _translated(),
            self._engine.connect().execution_options(strongroom_write=True) as connection,
            connection.begin(),
        ):
            yield Tx(connection, self._box)

    def close(self) -> None:
        self._engine.dispose()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        # The text is not repeated: it may hold a password.
        raise StateError(_BAD_URL) from error
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "sqlite" and parsed.database:
        return parsed
    raise StateError(_BAD_URL)


_BAD_URL = "the database URL is not of the form sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME"


def _sqlite(url: URL) -> Engine:
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = create_engine(url, pool_size=POOL, max_overflow=POOL, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        # We send BEGIN ourselves: sqlite3 would delay it, and two readers that turn writers would deadlock.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a commit that was answered survives a power cut
        connection.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("strongroom_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _postgres(url: URL) -> Engine:
    # Pre-ping: after PostgreSQL was restarted the first use of each pooled connection would fail otherwise.
    engine = create_engine(
        url, pool_size=POOL // 2, max_overflow=POOL, pool_pre_ping=True, connect_args={"connect_timeout": 10}
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # Handlers and workers read, decide and write. Under PostgreSQL's own isolation two of them would decide on the
        # same state, and the later one overwrite the earlier.
        if connection.get_execution_options().get("strongroom_write"):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {BUSY_MILLISECONDS}")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})")

    return engine


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn the driver's errors into ours; the statements and their parameters stay out of the text."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict("somebody else wrote the same row first", hint="Read it again") from error
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise StateUnavailable("the database does not answer", hint="The request can be repeated") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StateUnavailable("the database ended the connection", hint="The request can be repeated") from error
        raise StateError(f"the database refused: {type(error.orig).__name__}") from error
