"""Writes the objects of one kind: blobs that are new go to packs, rows go to list segments cut by content."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import RepositoryError
from strongroom.dataplane.repository.model import BlobRef, ObjectRow, SegmentRef, sort_name
from strongroom.dataplane.repository.objects import Parts
from strongroom.dataplane.repository.packs import PackRow
from strongroom.dataplane.repository.tables import (
    SEGMENT_MAX_ROWS,
    SEGMENT_MIN_ROWS,
    content_bytes,
    cuts_after,
    encode_list,
)

if TYPE_CHECKING:
    from strongroom.dataplane.repository.run import Run


class OutOfOrder(RepositoryError):
    """Objects of a kind were not given in the one order (bytes of `namespace/name`); sort them first."""


class KindWriter:
    """Takes the objects of one kind in the one order. `objects` and `object_bytes` (of bodies) count what it took."""

    def __init__(self, run: "Run", group: str, version: str, kind: str) -> None:
        self.objects = 0
        self.object_bytes = 0
        self._run = run
        self._group = group
        self._version = version
        self._kind = kind
        self._digest = run.repository.files.sealer.digest
        self._rows: list[ObjectRow] = []
        self._last = b""
        self._segments: list[SegmentRef | asyncio.Task[SegmentRef]] = []

    async def add(self, parts: Sequence[Parts], earlier: Sequence[ObjectRow | None] | None = None) -> None:
        """Take objects; *earlier* holds each one's row in the base point, whose equal parts are not stored again.

        Waits for the store when too much is in flight. Raises `OutOfOrder`, and what storing raises.
        """
        for index, part in enumerate(parts):
            before = earlier[index] if earlier else None
            self._append(
                ObjectRow(
                    self._group,
                    self._version,
                    self._kind,
                    part.namespace,
                    part.name,
                    part.uid,
                    part.resource_version,
                    part.generation,
                    part.labels,
                    self._blob("body", part.body, part, before.body if before else None),
                    self._blob("status", part.status, part, before.status if before else None)
                    if part.status is not None
                    else None,
                    self._blob("managedFields", part.managed_fields, part, before.managed_fields if before else None)
                    if part.managed_fields is not None
                    else None,
                )
            )
        await self._run.packs.drain()

    async def take_over_row(self, row: ObjectRow) -> None:
        """Take an unchanged object of the base point, digests and places with it."""
        self._append(row)

    def take_over_segment(self, segment: SegmentRef) -> None:
        """Take a whole unchanged segment of the base point over, its file with it."""
        self._check_order(segment.first.encode(), segment.last.encode())
        self._close_segment()
        self._segments.append(segment)
        self.objects += segment.rows
        self._count_bytes(segment.bytes)

    async def finish(self) -> tuple[SegmentRef, ...]:
        """Store what is left of the list; return its segments in order."""
        self._close_segment()
        return tuple([s if isinstance(s, SegmentRef) else await s for s in self._segments])

    def _blob(self, what: str, blob: bytes, part: Parts, before: BlobRef | None) -> BlobRef:
        digest = self._digest(blob)
        if before is not None and before.digest == digest:
            return before
        run = self._run
        place = run.known.get(digest)
        if place is None:
            row = PackRow(digest, what, self._group, self._version, self._kind, part.namespace, part.name, blob)
            place = run.known[digest] = run.packs.append(row)
        return BlobRef(digest, len(blob), place[0], place[1])

    def _append(self, row: ObjectRow) -> None:
        key = sort_name(row.namespace, row.name)
        self._check_order(key, key)
        self._rows.append(row)
        self.objects += 1
        self._count_bytes(row.body.bytes)
        count = len(self._rows)
        if (count >= SEGMENT_MIN_ROWS and cuts_after(key)) or count >= SEGMENT_MAX_ROWS:
            self._close_segment()

    def _count_bytes(self, size: int) -> None:
        self.object_bytes += size
        self._run.object_bytes += size

    def _check_order(self, first: bytes, last: bytes) -> None:
        if self._last and first <= self._last:
            raise OutOfOrder(f"{self._kind} {first.decode()!r} came after {self._last.decode()!r}")
        self._last = last

    def _close_segment(self) -> None:
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        self._segments.append(asyncio.get_running_loop().create_task(self._store(rows)))

    async def _store(self, rows: list[ObjectRow]) -> SegmentRef:
        run = self._run
        content = self._digest(content_bytes(rows)).hex()
        if known := run.known_segments.get(content):
            return known
        data = await asyncio.to_thread(encode_list, rows)
        list_id = run.next_list_id()
        packs = {ref.pack for r in rows for ref in (r.body, r.status, r.managed_fields) if ref is not None}
        return SegmentRef(
            file=await run.repository.files.create(paths.list_path(list_id), list_id, data),
            content=content,
            rows=len(rows),
            first=sort_name(rows[0].namespace, rows[0].name).decode(),
            last=sort_name(rows[-1].namespace, rows[-1].name).decode(),
            bytes=sum(row.body.bytes for row in rows),
            packs=tuple(sorted(packs)),
        )
