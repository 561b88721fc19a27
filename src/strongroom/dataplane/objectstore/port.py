"""The object store as everything above it sees it: a flat map from key to immutable bytes.

A driver is done when it passes `strongroom.testbed.contracts.ObjectStoreContract`.
"""

import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NewType, Protocol

from strongroom.dataplane.objectstore.errors import StoreMisused

Key = NewType("Key", str)
"""'/'-separated segments of `[A-Za-z0-9._-]`, none of which starts with a dot; made by `parse_key`."""

# S3 and Azure Blob take keys of 1,024 bytes, prefix of the repository included: this leaves 256 for it.
KEY_MAX_BYTES = 768
# The longest file name of ext4, XFS, Btrfs and ZFS.
SEGMENT_MAX_BYTES = 255
# S3 and Azure Blob batch deletes stop at 1,000 and 256; the smaller binds (design.md, section 4).
DELETE_CHUNK = 256

# A leading dot would allow "." and "..", and collide with the filesystem driver's own `.tmp`.
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", re.ASCII)


def is_segment(text: str) -> bool:
    """Tell whether *text* may stand between two slashes of a key."""
    return len(text) <= SEGMENT_MAX_BYTES and _SEGMENT.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """Tell whether `parse_key` would take *text*."""
    return len(text) <= KEY_MAX_BYTES and all(is_segment(segment) for segment in text.split("/"))


def parse_key(text: str) -> Key:
    """Return *text* as a key, or raise `StoreMisused` saying what is wrong with it."""
    for segment in text.split("/"):
        if not _SEGMENT.fullmatch(segment):
            problem = f"segment {segment!r} is not made of A-Z a-z 0-9 . _ - (no leading dot)"
            raise StoreMisused(f"{text!r} is not an object key: {problem}", key=text)
        if len(segment) > SEGMENT_MAX_BYTES:
            problem = f"a segment of {len(segment)} bytes exceeds {SEGMENT_MAX_BYTES}"
            raise StoreMisused(f"{text!r} is not an object key: {problem}", key=text)
    if len(text) > KEY_MAX_BYTES:
        raise StoreMisused(f"{text[:80]!r}… is not an object key: {len(text)} bytes exceed {KEY_MAX_BYTES}", key=text)
    return Key(text)


def parse_prefix(text: str) -> str:
    """Return *text* if some key may start with it, else raise `StoreMisused`. The empty prefix means every key."""
    folder, _, start = text.rpartition("/")
    if folder:
        parse_key(folder)
    if start:
        parse_key(start)
    if text.startswith("/"):
        raise StoreMisused(f"{text!r} is not a key prefix: keys do not start with '/'", key=text)
    return text


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of an object without its bytes.

    *size* in bytes; *modified* is aware, by the store's own clock, at worst truncated to whole seconds.
    """

    key: Key
    size: int
    modified: datetime


class ObjectStore(Protocol):
    """A flat map from key to immutable bytes.

    Every method may raise `StoreUnavailable` or `StoreDenied`; what else it raises is said there. Calls may run
    concurrently on one event loop. One key must not be a folder of another ("a" beside "a/b"): not every store
    can hold both. Keys of objects that were deleted may be used again.
    """

    url: str
    """Where the store is, for messages: no credentials, no signature."""
    bytes_read: int
    """Bytes of objects handed out since the store was opened."""
    bytes_written: int
    """Bytes of objects stored since the store was opened."""
    requests: int
    """Calls made to the store since it was opened; a driver's own repetitions are not counted."""

    async def put(self, key: Key, data: bytes | memoryview, *, if_absent: bool = True) -> None:
        """Store *data* under *key*, whole or not at all, durable and visible to every reader when this returns.

        With *if_absent*, of any number of concurrent calls one succeeds and the others raise `ObjectExists`; a call
        whose first reply was lost may raise it although it succeeded (`create_once` tells). Without, an earlier
        object is replaced in one step; only for state outside a repository. After `StoreUnavailable` the object
        may be there or not, but never in part. Raises `StoreFull`.
        """

    async def get(self, key: Key) -> bytes:
        """Return the object. Raises `ObjectNotFound`."""

    async def get_range(self, key: Key, start: int, length: int) -> bytes:
        """Return *length* bytes from *start*, fewer at the object's end, none beyond it.

        Raises `ObjectNotFound`, and `StoreMisused` for a negative *start* or *length*.
        """

    async def get_tail(self, key: Key, length: int) -> tuple[int, bytes]:
        """Return the object's size and its last *length* bytes, or all of it if shorter.

        Raises `ObjectNotFound`, and `StoreMisused` for a negative *length*.
        """

    async def head(self, key: Key) -> ObjectInfo:
        """Return what the store knows of the object. Raises `ObjectNotFound`."""

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield every object whose key starts with *prefix* (text, not folders), in any order; perhaps none.

        What is created or deleted meanwhile may be yielded or not; everything else is yielded once.
        """

    async def delete(self, keys: Iterable[Key]) -> None:
        """Delete the objects; absent ones are fine. After an error, some may be gone and others not."""

    async def close(self) -> None:
        """Let go of connections and threads. Closing twice is fine."""


def check_range(key: Key, start: int, length: int) -> None:
    """Raise `StoreMisused` unless *start* and *length*, in bytes, are a range that may be asked for."""
    if start < 0 or length < 0:
        raise StoreMisused(f"range {start}+{length} of {key} is negative", key=key)
