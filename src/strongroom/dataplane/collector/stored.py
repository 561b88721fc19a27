"""Reads what is stored already of a kind: the segments of an earlier list, to compare what is served now with them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import pyarrow as pa

from strongroom.dataplane.collector.metadata import Meta
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.files import Files
from strongroom.dataplane.repository.model import ObjectRow, SegmentRef, sort_name
from strongroom.dataplane.repository.tables import LIST_SCHEMA, decode_list, read_table

SEGMENTS_AHEAD: Final = 4  # segments that are fetched before they are compared: hides the latency of a store


class StoredSegment:
    """The bytes of a segment of an earlier list. Its rows are made only when something in it changed."""

    def __init__(self, path: str, data: bytes) -> None:
        self._path = path
        self._data = data
        table = read_table(path, data, _IDENTITY)
        self._uids: list[str] = table["uid"].to_pylist()
        self._versions: list[str] = table["resource_version"].to_pylist()

    def is_of(self, batch: Sequence[Meta]) -> bool:
        """Say whether it lists exactly the objects of *batch*, each unchanged."""
        return [meta.uid for meta in batch] == self._uids and [
            meta.resource_version for meta in batch
        ] == self._versions

    def rows(self) -> list[ObjectRow]:
        """Return its rows. Raises `Damaged`."""
        return decode_list(self._path, self._data)


_IDENTITY = pa.schema([LIST_SCHEMA.field("uid"), LIST_SCHEMA.field("resource_version")])


async def stored_segments(
    files: Files, segments: Sequence[SegmentRef]
) -> AsyncGenerator[tuple[SegmentRef, StoredSegment], None]:
    """Yield each segment with what is stored of it, a few read ahead. Close it (`aclosing`). Raises `Damaged`."""
    ahead: list[tuple[SegmentRef, asyncio.Task[StoredSegment]]] = []
    waiting = list(reversed(segments))
    try:
        while ahead or waiting:
            while waiting and len(ahead) < SEGMENTS_AHEAD:
                segment = waiting.pop()
                ahead.append((segment, asyncio.create_task(_segment(files, segment))))
            segment, task = ahead.pop(0)
            yield segment, await task
    finally:
        for _, task in ahead:
            task.cancel()


async def _segment(files: Files, segment: SegmentRef) -> StoredSegment:
    key = paths.list_path(segment.file.id)
    return StoredSegment(key, await files.read_named(key, segment.file))


class RowCursor:
    """Finds rows of stored segments by name, asked for in the one order; holds one segment at a time."""

    def __init__(self, files: Files, segments: Sequence[SegmentRef]) -> None:
        self._files = files
        self._segments = list(reversed(segments))
        self._last = b""
        self._rows: dict[tuple[str, str], ObjectRow] = {}

    async def find(self, namespace: str, name: str) -> ObjectRow | None:
        key = sort_name(namespace, name)
        while self._segments and self._last < key:
            segment = self._segments.pop()
            self._last = segment.last.encode()
            if self._last < key:
                continue
            self._rows = {(row.namespace, row.name): row for row in (await _segment(self._files, segment)).rows()}
        return self._rows.get((namespace, name))
