"""A store in this process's memory, shared by name: for tests and for trying things out. It ends with the process."""

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime

from strongroom.dataplane.objectstore.errors import ObjectExists, ObjectNotFound, StoreMissing
from strongroom.dataplane.objectstore.port import Key, ObjectInfo, check_range, parse_prefix

_Objects = dict[Key, tuple[bytes, datetime]]

_STORES: dict[str, _Objects] = {}


class MemoryStore:
    """An `ObjectStore`; all of one *name* in a process are the same store.

    Raises `StoreMissing` unless that name was opened with *create* before or is now.
    """

    def __init__(self, name: str, *, create: bool = False) -> None:
        self.url = f"memory://{name}"
        if create:
            _STORES.setdefault(name, {})
        if name not in _STORES:
            raise StoreMissing(
                f"no store {self.url} in this process",
                hint="A memory store ends with the process that made it; use file:///… for one that stays",
                store=self.url,
            )
        self._objects = _STORES[name]
        self.bytes_read = 0
        self.bytes_written = 0
        self.requests = 0

    async def put(self, key: Key, data: bytes | memoryview, *, if_absent: bool = True) -> None:
        self.requests += 1
        if if_absent and key in self._objects:
            raise ObjectExists(f"{key} exists already in {self.url}", store=self.url, key=key)
        self._objects[key] = (bytes(data), datetime.now(UTC))
        self.bytes_written += len(data)

    async def get(self, key: Key) -> bytes:
        data, _ = self._find(key)
        self.bytes_read += len(data)
        return data

    async def get_range(self, key: Key, start: int, length: int) -> bytes:
        check_range(key, start, length)
        data, _ = self._find(key)
        part = data[start : start + length]
        self.bytes_read += len(part)
        return part

    async def get_tail(self, key: Key, length: int) -> tuple[int, bytes]:
        check_range(key, 0, length)
        data, _ = self._find(key)
        part = data[max(0, len(data) - length) :]
        self.bytes_read += len(part)
        return len(data), part

    async def head(self, key: Key) -> ObjectInfo:
        data, modified = self._find(key)
        return ObjectInfo(key, len(data), modified)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        parse_prefix(prefix)
        self.requests += 1
        for key, (data, modified) in list(self._objects.items()):
            if key.startswith(prefix):
                yield ObjectInfo(key, len(data), modified)

    async def delete(self, keys: Iterable[Key]) -> None:
        self.requests += 1
        for key in keys:
            self._objects.pop(key, None)

    async def close(self) -> None:
        """Keep the objects: another store of the same name may be open, or be opened later."""

    def _find(self, key: Key) -> tuple[bytes, datetime]:
        self.requests += 1
        try:
            return self._objects[key]
        except KeyError as error:
            raise ObjectNotFound(f"{key} is not in {self.url}", store=self.url, key=key) from error
