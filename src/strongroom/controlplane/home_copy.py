"""Copies a home into one file, beside a running server or without one, and puts it back.

The file is a tar: `strongroom-home.json` (what it holds) first, then the home's files under their names. Both databases
are copied as they are at one instant: an interruption of the power at that instant would leave the same, and the
server goes on from that. The file is worth as much as the home: it holds the key of its secrets.
"""

import contextlib
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from strongroom.controlplane.home import CONFIG, HomeError
from strongroom.controlplane.state.private_file import sync_folder
from strongroom.errors import UsageError

HEADER: Final = "strongroom-home.json"
FORMAT: Final = "strongroom-home"
VERSION: Final = 1
STATE: Final = "state.sqlite"
WORKFLOWS: Final = "workflows.sqlite"
STORAGE: Final = "storage"
INCOMING: Final = ".strongroom-restoring"  # what a restore has unpacked and not put in its place yet

LOCK_SECONDS: Final = 60.0  # a writer of the server holds its lock for milliseconds; jobs write in between

# Not copied as they are: databases by SQLite, locks and temporary files not at all.
_DATABASE_FILES: Final = frozenset(
    f"{name}{end}" for name in (STATE, WORKFLOWS) for end in ("", "-wal", "-shm", "-journal")
)
_NOT_COPIED: Final = _DATABASE_FILES | {"lock", STORAGE, INCOMING}


class CopyRefused(HomeError, UsageError):
    """A home cannot be copied to, or put back from, what was named."""


class Header(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What a copy holds. *databases*: SQLite's are in it; not so a home whose database is PostgreSQL."""

    format: str = FORMAT
    version: int = VERSION
    made: str
    strongroom: str
    databases: tuple[str, ...]
    storage: bool


@dataclass(frozen=True)
class Copied:
    """What was copied or put back."""

    header: Header
    path: Path
    files: int
    bytes: int


def copy_home(home: Path, path: Path, *, with_storage: bool, now: datetime, version: str) -> Copied:
    """Write the home in *home* to the new file *path* (0600), whole or not at all, durable when this returns.

    The containers of local accounts come with it only *with_storage*. Raises `CopyRefused` for a folder that is no home
    or a file that exists, `HomeError` for what cannot be read or written.
    """
    if not (home / CONFIG).is_file():
        raise CopyRefused(f"{home} is not a home of strongroom serve", hint="Name the folder that serve was given")
    if path.exists():
        raise CopyRefused(f"{path} exists", hint="Name a new file")
    with _explained(path), tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as work:
        folder = Path(work)
        databases = _copy_databases(home, folder)
        header = Header(
            made=now.isoformat(timespec="seconds"), strongroom=version, databases=tuple(databases), storage=with_storage
        )
        temporary = folder / "copy"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as output:
            with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
                _add_bytes(tar, HEADER, msgspec.json.encode(header))
                files = sum(_add(tar, folder / name, name) for name in databases)
                files += sum(_add(tar, file, str(file.relative_to(home))) for file in _files(home))
                if with_storage:
                    files += sum(_add(tar, file, str(file.relative_to(home))) for file in _stored(home / STORAGE))
            output.flush()
            os.fsync(output.fileno())
            size = output.tell()
        try:
            os.link(temporary, path)
        except FileExistsError as error:
            raise CopyRefused(f"{path} exists", hint="Name a new file") from error
        except OSError:
            temporary.rename(path)  # a file system without hard links
        sync_folder(path.parent)
    return Copied(header, path, files, size)


def put_home_back(home: Path, path: Path) -> Copied:
    """Unpack the copy *path* into *home*, which is absent or empty.

    `config.json` comes last, and without it `serve` refuses the folder: stopped anywhere, this can be repeated. Raises
    `CopyRefused`, which names what is wrong with the file or the folder.
    """
    incoming = home / INCOMING
    with _explained(home):
        if home.exists() and not incoming.exists() and any(home.iterdir()):
            raise CopyRefused(f"{home} is not empty", hint="Name an absent or empty folder")
        if (home / CONFIG).exists():
            raise CopyRefused(f"{home} is a home already", hint="Name an absent or empty folder")
        with _opened(path) as tar:
            header = _read_header(tar, path)
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            home.chmod(0o700)
            for left in [each for each in home.iterdir() if each != incoming]:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            shutil.rmtree(incoming, ignore_errors=True)
            incoming.mkdir(mode=0o700)
            files, size = _unpack(tar, incoming, path)
        if not (incoming / CONFIG).is_file() or not all((incoming / name).is_file() for name in header.databases):
            shutil.rmtree(incoming)
            raise CopyRefused(f"{path} is not whole", hint="Name another copy of the home")
        for each in sorted(incoming.iterdir(), key=lambda e: e.name == CONFIG):
            if each.name == CONFIG:
                sync_folder(home)
            each.rename(home / each.name)
        incoming.rmdir()
        sync_folder(home)
        return Copied(header, path, files, size)


def _copy_databases(home: Path, folder: Path) -> list[str]:
    """Copy the databases as they are at one instant; return the names of those that there are.

    Holding the right to write to both, a reading transaction is opened on both: that fixes what each copy reads.
    Writers wait for no longer than that.
    """
    names = [name for name in (STATE, WORKFLOWS) if (home / name).is_file()]
    with contextlib.ExitStack() as stack:
        readers = {name: stack.enter_context(_connected(home / name)) for name in names}
        with contextlib.ExitStack() as writers:
            for name in names:
                writer = writers.enter_context(_connected(home / name))
                writer.execute("BEGIN IMMEDIATE")
                writers.callback(writer.rollback)
            for reader in readers.values():
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        for name, reader in readers.items():
            _empty_file(folder / name)
            with _connected(folder / name) as target:
                reader.backup(target)
                # One file: the copy has no -wal beside it.
                target.execute("PRAGMA journal_mode=DELETE")
            with (folder / name).open("rb") as copied:
                os.fsync(copied.fileno())
    return names


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS)
    connection.isolation_level = None
    try:
        yield connection
    finally:
        connection.close()


def _empty_file(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _files(home: Path) -> list[Path]:
    """Return the home's files but databases and storage. Temporary ones begin with a dot."""
    found = []
    for top in sorted(home.iterdir()):
        if top.name in _NOT_COPIED or top.name.startswith("."):
            continue
        found += [top] if top.is_file() else sorted(f for f in top.rglob("*") if f.is_file() and f.name[0] != ".")
    return found


def _stored(storage: Path) -> list[Path]:
    """Return the files of all local containers: manifests first, so that whatever one names is copied after it."""
    found = [
        file
        for file in storage.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(storage).parts)
    ]
    return sorted(found, key=lambda f: ("points" not in f.relative_to(storage).parts[2:3], str(f)))


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    tar.addfile(member, io.BytesIO(content))


def _add(tar: tarfile.TarFile, file: Path, name: str) -> int:
    """Add a file; return 0 for one that was deleted since it was listed (a token that was renewed, a swept pack)."""
    try:
        content = file.open("rb")
    except FileNotFoundError:
        return 0
    with content:
        member = tarfile.TarInfo(name)
        found = os.fstat(content.fileno())
        # The store's own time counts for prune: it stays.
        member.size, member.mode, member.mtime = found.st_size, 0o600, found.st_mtime
        tar.addfile(member, content)
    return 1


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, mode="r:") as tar:
            yield tar
    except FileNotFoundError as error:
        raise CopyRefused(f"{error.filename} is not there") from error
    except tarfile.TarError as error:
        raise CopyRefused(
            f"{path} is not a copy of a home, or is damaged", hint="Name the file of serve backup"
        ) from error


def _read_header(tar: tarfile.TarFile, path: Path) -> Header:
    member = tar.next()
    content = tar.extractfile(member) if member is not None and member.name == HEADER else None
    if content is None:
        raise CopyRefused(f"{path} is not a copy of a home", hint="Name the file that serve backup wrote")
    try:
        header = msgspec.json.decode(content.read(), type=Header)
    except msgspec.DecodeError as error:
        raise CopyRefused(f"{path} is not a copy of a home", hint="Name the file that serve backup wrote") from error
    if (header.format, header.version) != (FORMAT, VERSION):
        raise CopyRefused(f"{path} has version {header.version}; this Strongroom knows {VERSION}")
    return header


def _unpack(tar: tarfile.TarFile, folder: Path, path: Path) -> tuple[int, int]:
    files = size = 0
    for member in tar:
        if member.name == HEADER:
            continue
        parts = Path(member.name).parts
        if not member.isreg() or member.name.startswith("/") or ".." in parts or parts[0] == INCOMING:
            raise CopyRefused(f"{path} holds {member.name!r}, which no home has")
        target = folder / member.name
        for above in reversed(Path(member.name).parents[:-1]):
            (folder / above).mkdir(exist_ok=True, mode=0o700)
        content = tar.extractfile(member)
        assert content is not None, "a regular file has content"
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as output:
            shutil.copyfileobj(content, output)
            output.flush()
            os.fsync(output.fileno())
        os.utime(target, (member.mtime, member.mtime))
        files, size = files + 1, size + member.size
    return files, size


@contextlib.contextmanager
def _explained(subject: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise HomeError(f"the databases cannot be copied: {error}") from error
    except OSError as error:
        raise HomeError(f"{error.filename or subject}: {error.strerror}") from error
