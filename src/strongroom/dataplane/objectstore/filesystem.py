"""A store in a folder of a mounted filesystem: a file for each object, durable when `put` returns.

An object is written to a file of its own in `.tmp`, synced, and then linked under its key: `link` fails where
the name is taken, so a create is conditional, and what a crash leaves is in `.tmp`, where `list` does not look.
Folders have mode 0700 and files 0600, whatever the umask. Folders that became empty stay.
"""

import asyncio
import ctypes
import errno
import os
import secrets
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from strongroom.dataplane.objectstore.errors import (
    ObjectExists,
    ObjectNotFound,
    ObjectStoreError,
    StoreDenied,
    StoreFull,
    StoreMissing,
    StoreMisused,
    StoreUnavailable,
    StoreUnsafe,
)
from strongroom.dataplane.objectstore.location import FileLocation
from strongroom.dataplane.objectstore.port import (
    DELETE_CHUNK,
    Key,
    ObjectInfo,
    check_range,
    is_segment,
    parse_key,
    parse_prefix,
)

FOLDER_MODE = 0o700
FILE_MODE = 0o600
TEMPORARY = ".tmp"  # no key segment starts with a dot
# No single write takes a day, so an older temporary file belongs to a writer that is gone.
LEFTOVER_SECONDS = 86_400
# Entries handed from the listing thread to the event loop at once: a thread switch costs as much as about 20 stats.
LIST_CHUNK = 256

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
# link(2) on filesystems without hard links (FAT, some FUSE and SMB mounts).
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_RENAME_NOREPLACE = 1  # linux/fs.h
_AT_FDCWD = -100  # linux/fcntl.h

_T = TypeVar("_T")


class FilesystemStore:
    """An `ObjectStore` in the folder *root* (absolute), made with *create* if it is not there.

    Raises `StoreMissing` without it, `StoreMisused` if *root* is not a folder, `StoreDenied` if it cannot be made.
    A filesystem that does not tell "a" from "A" must not hold two keys that differ in case only.
    """

    def __init__(self, root: Path, *, create: bool = False) -> None:
        self.url = FileLocation(root).url
        self.bytes_read = 0
        self.bytes_written = 0
        self.requests = 0
        self._root = root
        self._temporary = root / TEMPORARY
        self._swept = False
        # Folders whose own entries are known to be durable, so that only their content needs a sync.
        self._durable: set[Path] = {root}
        with self._translated(""):
            if create:
                _make_root(root)
            self._identity = self._identify()

    async def put(self, key: Key, data: bytes | memoryview, *, if_absent: bool = True) -> None:
        await self._call(key, lambda: self._put(key, data, if_absent))
        self.bytes_written += len(data)

    async def get(self, key: Key) -> bytes:
        return self._count(await self._call(key, lambda: self._path(key).read_bytes()))

    async def get_range(self, key: Key, start: int, length: int) -> bytes:
        check_range(key, start, length)
        return self._count(await self._call(key, lambda: _read(self._path(key), start, length)))

    async def get_tail(self, key: Key, length: int) -> tuple[int, bytes]:
        check_range(key, 0, length)
        size, tail = await self._call(key, lambda: _read_tail(self._path(key), length))
        return size, self._count(tail)

    async def head(self, key: Key) -> ObjectInfo:
        return await self._call(key, lambda: self._head(key))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        parse_prefix(prefix)
        walk = self._walk(prefix)
        while chunk := await self._call("", lambda: [*islice(walk, LIST_CHUNK)]):
            for info in chunk:
                yield info

    async def delete(self, keys: Iterable[Key]) -> None:
        remaining = iter(keys)
        while chunk := [*islice(remaining, DELETE_CHUNK)]:
            await self._call(chunk[0], partial(self._delete, chunk))

    async def close(self) -> None:
        """Nothing is held open between calls."""

    # --- what runs in threads

    def _put(self, key: Key, data: bytes | memoryview, if_absent: bool) -> None:
        path = self._path(key)
        temporary = self._temporary / secrets.token_hex(16)
        try:
            self._require_same_folder()
            self._prepare()
            self._make_folder(path.parent)
            try:
                _write_synced(temporary, data)
                if if_absent:
                    _link(temporary, path)
                else:
                    temporary.replace(path)
                # The object is visible now. If this sync fails the caller hears of it and may repeat the call.
                _sync_folder(path.parent)
            finally:
                with suppress(FileNotFoundError):
                    temporary.unlink()
        except (NotADirectoryError, IsADirectoryError) as error:
            raise StoreMisused(
                f"{key} in {self.url}: a key is a folder of another key", store=self.url, key=key
            ) from error
        except FileNotFoundError as error:
            self._swept = False
            self._durable = {self._root}
            raise StoreUnavailable(
                f"{key} in {self.url}: a folder vanished during the write",
                hint="Let no other program clean up in the repository's folder, then try again",
                store=self.url,
                key=key,
            ) from error

    def _head(self, key: Key) -> ObjectInfo:
        status = self._path(key).stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a file", key)
        return _info(key, status)

    def _delete(self, keys: Iterable[Key]) -> None:
        self._require_same_folder()
        folders = set()
        for key in keys:
            path = self._path(key)
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):  # absent as an object
                path.unlink()
                folders.add(path.parent)
        for folder in folders:
            _sync_folder(folder)

    def _walk(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield what starts with *prefix*; only folders that can hold such keys are read, one at a time."""
        self._require_same_folder()
        folder, _, _ = prefix.rpartition("/")
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(self._root / folder) as scan:
                    entries = [*scan]
            except (FileNotFoundError, NotADirectoryError):
                continue  # nothing was ever stored there
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                # Foreign entries, lost+found among them, are no objects; nor is `.tmp`.
                if not is_segment(entry.name) or not path.startswith(prefix):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # deleted since the folder was read
                        yield _info(Key(path), entry.stat(follow_symlinks=False))

    def _prepare(self) -> None:
        """Before the first write: make `.tmp`, and sweep what writers that are gone left in it."""
        if self._swept:
            return
        self._make_folder(self._temporary)
        horizon = time.time() - LEFTOVER_SECONDS
        with os.scandir(self._temporary) as scan:
            for entry in scan:
                with suppress(FileNotFoundError):  # another writer sweeps too
                    if entry.stat(follow_symlinks=False).st_mtime < horizon:
                        os.unlink(entry)
        self._swept = True

    def _make_folder(self, folder: Path) -> None:
        """Make *folder*, inside the root, and its parents, and make their entries durable.

        A folder that is there already is synced once too: its maker may have stopped before it could.
        """
        if folder in self._durable:
            return
        self._make_folder(folder.parent)
        # Another writer may make it at the same moment; a file in the way shows at the next step.
        with suppress(FileExistsError):
            folder.mkdir(FOLDER_MODE)
        _sync_folder(folder.parent)
        self._durable.add(folder)

    def _require_same_folder(self) -> None:
        """Raise `StoreUnavailable` if another filesystem lies here now: never write below a lost mount."""
        if self._identify() != self._identity:
            raise StoreUnavailable(
                f"{self.url} is another folder than when it was opened",
                hint="Mount the repository's filesystem again, then try again",
                store=self.url,
            )

    def _identify(self) -> tuple[int, int]:
        try:
            status = self._root.stat()
        except FileNotFoundError as error:
            raise StoreMissing(
                f"the folder {self.url} does not exist",
                hint="Correct the URL, mount the filesystem, or make a repository with `strongroom repository init`",
                store=self.url,
            ) from error
        if not stat.S_ISDIR(status.st_mode):
            raise StoreMisused(f"{self.url} is not a folder", store=self.url)
        return status.st_dev, status.st_ino

    # --- at the edge

    def _path(self, key: Key) -> Path:
        # Checked again because here a bad key would name a file outside the store.
        return self._root / parse_key(key)

    def _count(self, data: bytes) -> bytes:
        self.bytes_read += len(data)
        return data

    async def _call(self, key: str, work: Callable[[], _T]) -> _T:
        self.requests += 1
        with self._translated(key):
            return await asyncio.to_thread(work)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _translate(error, self.url, key) from error


def _translate(error: OSError, url: str, key: str) -> ObjectStoreError:
    number = error.errno
    what = f"{key} in {url}" if key else url
    if isinstance(error, FileExistsError):
        return ObjectExists(f"{key} exists already in {url}", store=url, key=key)
    if key and isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return ObjectNotFound(f"{key} is not in {url}", store=url, key=key)
    if isinstance(error, NotADirectoryError):
        return StoreMisused(f"{url}: a file lies where a folder is needed", store=url)
    if number in _FULL:
        return StoreFull(
            f"{url} is full: {os.strerror(number or 0)}", hint="Free space or raise the quota", store=url, key=key
        )
    if number in _DENIED:
        return StoreDenied(
            f"{what}: {os.strerror(number or 0)}",
            hint="Give this user read and write access to the folder, or run as its owner",
            store=url,
            key=key,
        )
    return StoreUnavailable(
        f"{what}: {os.strerror(number or 0)}", hint="Check the disk or the mount, then try again", store=url, key=key
    )


def _write_synced(path: Path, data: bytes | memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(temporary: Path, path: Path) -> None:
    """Give *temporary* the name *path* unless that is taken (FileExistsError)."""
    try:
        os.link(temporary, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_no_replace(temporary, path)


def _rename_no_replace(temporary: Path, path: Path) -> None:
    """The same by renameat2(2), for filesystems without hard links. Raises `StoreUnsafe` where that lacks too."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(temporary), _AT_FDCWD, os.fsencode(path), _RENAME_NOREPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        raise StoreUnsafe(
            "this filesystem has neither hard links nor RENAME_NOREPLACE, so two writers could overwrite each other",
            hint="Use a local Linux filesystem or NFS",
        )
    raise OSError(number, os.strerror(number), str(path))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, start: int, length: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        # No more than is there: a caller may ask for a long range of a short object.
        rest = min(length, os.fstat(file.fileno()).st_size - start)
        return _pread(file.fileno(), start, rest)


def _read_tail(path: Path, length: int) -> tuple[int, bytes]:
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        start = max(0, size - length)
        return size, _pread(file.fileno(), start, size - start)


def _pread(descriptor: int, start: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length > 0 and (part := os.pread(descriptor, length, start)):  # Linux reads at most 2 GiB at once
        parts.append(part)
        start += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _make_root(root: Path) -> None:
    """Make *root* and its missing parents, durable; what exists keeps its mode."""
    for folder in (*reversed(root.parents), root):
        with suppress(FileExistsError):
            folder.mkdir(FOLDER_MODE)
            _sync_folder(folder.parent)


def _info(key: Key, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
