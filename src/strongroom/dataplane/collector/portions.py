"""Cuts streams and lists into the portions that are in memory at once."""

from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from strongroom.dataplane.collector.filtering import ObjectFilter
from strongroom.dataplane.collector.metadata import Meta, MetaPage, name_of
from strongroom.dataplane.kube.pages import Page
from strongroom.dataplane.repository.model import ObjectRow
from strongroom.dataplane.repository.writer import OutOfOrder

CHUNK_OBJECTS: Final = 128  # split without a pause: about 4 ms, so that other kinds' answers are read meanwhile
CHUNK_BYTES: Final = 1024 * 1024  # of large objects fewer: the parts are copies beside their page

T = TypeVar("T")


class MetaSource:
    """The kept metadata of a stream of pages, handed out up to a name; checks the order."""

    def __init__(self, pages: AsyncIterator[MetaPage], keep: ObjectFilter) -> None:
        self._pages = pages
        self._keeps = keep.keeps
        self._held: list[Meta] = []
        self._keys: list[bytes] = []
        self._last = b""
        self._ended = False
        self.total = 0

    async def until(self, key: bytes) -> list[Meta]:
        """Return the kept objects up to and including *key* that were not handed out yet."""
        while not self._ended and self._last <= key:
            await self._next_page()
        return self._hand_out(bisect_right(self._keys, key))

    async def more(self) -> list[Meta]:
        """Return what follows, a page at a time; empty at the end."""
        while not self._held and not self._ended:
            await self._next_page()
        return self._hand_out(len(self._held))

    def _hand_out(self, count: int) -> list[Meta]:
        batch, self._held = self._held[:count], self._held[count:]
        self._keys = self._keys[count:]
        return batch

    async def _next_page(self) -> None:
        page = await anext(self._pages, None)
        if page is None:
            self._ended = True
            return
        listed = page.metas
        self.total = max(self.total, len(listed) + (page.remaining or 0))
        keeps = self._keeps
        last = self._last
        for meta in listed:
            key = meta.key
            if key <= last:
                raise OutOfOrder(f"{meta.name!r} is listed out of order")
            last = key
            if keeps(meta.namespace, meta.name, bytes(meta.labels)):
                self._held.append(meta)
                self._keys.append(key)
        self._last = last


async def named_items(pages: AsyncIterator[Page]) -> AsyncGenerator[tuple[str, msgspec.Raw | None], None]:
    """Yield each object of a list with its name."""
    async for page in pages:
        for item in page.items:
            yield name_of(item), item


def windows_of_changed(
    batch: Sequence[Meta], unchanged: Callable[[Meta], ObjectRow | None], size: int
) -> Iterator[list[tuple[Meta, ObjectRow | None]]]:
    """Cut a batch so that no window holds more than *size* changed objects: these are in memory together."""
    window: list[tuple[Meta, ObjectRow | None]] = []
    changed = 0
    for meta in batch:
        row = unchanged(meta)
        window.append((meta, row))
        changed += row is None
        if changed == size:
            yield window
            window, changed = [], 0
    if window:
        yield window


def windows(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut *items* into pieces of at most *size*."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def chunks(page: Page) -> Iterator[list[msgspec.Raw]]:
    """Cut a page's items into chunks of at most `CHUNK_OBJECTS` and, by the page's mean, `CHUNK_BYTES`."""
    if not page.items:
        return
    mean = max(1, page.size // len(page.items))
    size = max(1, min(CHUNK_OBJECTS, CHUNK_BYTES // mean))
    for start in range(0, len(page.items), size):
        yield page.items[start : start + size]
