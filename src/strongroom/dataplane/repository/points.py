"""Reads a recovery point: its rows, its blobs by ranged reads, an object as it was served."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from strongroom.dataplane.objectstore.port import Key
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import Damaged
from strongroom.dataplane.repository.files import Files
from strongroom.dataplane.repository.model import (
    BlobRef,
    Digest,
    FileRef,
    KindEntry,
    Manifest,
    ObjectRow,
    PointId,
    SegmentRef,
    sort_name,
)
from strongroom.dataplane.repository.objects import join
from strongroom.dataplane.repository.packs import (
    SparseFile,
    footer_length,
    read_metadata,
    read_row_group,
    row_group_range,
)
from strongroom.dataplane.repository.tables import decode_list, named_packs

if TYPE_CHECKING:
    import pyarrow.parquet as pq

TAIL_BYTES = 64 * 1024  # one segment of a sealed file; footers of packs of 4 MiB take about 20 KiB
READS_AT_ONCE = 8
PREFETCH_SEGMENTS = 4  # about 4,096 rows, 4 MiB: hides the latency of a store without holding a kind in memory


class RecoveryPoint:
    """A recovery point whose manifest was verified; `sha256` is that of the manifest's stored bytes, in hex."""

    def __init__(self, files: Files, manifest: Manifest, sha256: str) -> None:
        self.manifest = manifest
        self.id: PointId = manifest.id
        self.sha256 = sha256
        self._files = files
        self._packs: dict[str, FileRef] | None = None
        self._footers: dict[str, Any] = {}
        self._gate = asyncio.Semaphore(READS_AT_ONCE)

    def entry(self, group: str, kind: str) -> KindEntry | None:
        """Return the coverage entry of a kind, or None if the cluster did not serve it."""
        return next((e for e in self.manifest.kinds if e.group == group and e.kind == kind), None)

    async def rows(self, entry: KindEntry, *, first: str = "", last: str = "") -> AsyncIterator[list[ObjectRow]]:
        """Yield the rows of a kind, a list for each segment, in the one order.

        Segments wholly outside [*first*, *last*] (texts `namespace/name`, "" for no bound) are not read; rows are not
        filtered. Raises `Damaged`.
        """
        wanted = [
            s
            for s in entry.segments
            if (not first or s.last.encode() >= first.encode()) and (not last or s.first.encode() <= last.encode())
        ]
        ahead: list[asyncio.Task[list[ObjectRow]]] = []
        try:
            for segment in wanted:
                ahead.append(asyncio.create_task(self.segment(segment)))
                if len(ahead) > PREFETCH_SEGMENTS:
                    yield await ahead.pop(0)
            while ahead:
                yield await ahead.pop(0)
        finally:
            for task in ahead:
                task.cancel()

    async def segment(self, segment: SegmentRef) -> list[ObjectRow]:
        """Return the rows of one segment. Raises `Damaged`."""
        key = paths.list_path(segment.file.id)
        rows = decode_list(key, await self._files.read_named(key, segment.file))
        if len(rows) != segment.rows:
            raise Damaged(f"{key} holds {len(rows)} objects and should hold {segment.rows}")
        return rows

    async def find(self, group: str, kind: str, namespace: str, name: str) -> ObjectRow | None:
        """Return one object's row, or None. Reads one segment."""
        entry = self.entry(group, kind)
        if entry is None:
            return None
        wanted = sort_name(namespace, name)
        async for rows in self.rows(entry, first=wanted.decode(), last=wanted.decode()):
            for row in rows:
                if row.namespace == namespace and row.name == name:
                    return row
        return None

    async def served(self, row: ObjectRow) -> bytes:
        """Return the object as it was served (JSON). Raises `Damaged`."""
        blobs = await self.blobs([ref for ref in (row.body, row.status, row.managed_fields) if ref])
        return join(
            row,
            blobs[row.body.digest],
            blobs[row.status.digest] if row.status else None,
            blobs[row.managed_fields.digest] if row.managed_fields else None,
        )

    async def blobs(self, refs: Sequence[BlobRef]) -> dict[Digest, bytes]:
        """Return blobs by digest, each checked against it. Raises `Damaged`.

        Reads the row groups that hold them, adjacent ones at once; all of the answer is in memory, so ask in batches.
        """
        groups: dict[str, set[int]] = defaultdict(set)
        for ref in refs:
            groups[ref.pack].add(ref.row_group)
        wanted = {ref.digest for ref in refs}
        found: dict[Digest, bytes] = {}

        async def load(pack: str, numbers: list[int]) -> None:
            async with self._gate:
                for digest, blob in (await self._row_groups(pack, numbers)).items():
                    if digest in wanted:
                        found[digest] = blob

        await asyncio.gather(*(load(p, run) for p, numbers in groups.items() for run in _runs(numbers)))
        for ref in refs:
            blob = found.get(ref.digest)
            if blob is None:
                raise Damaged(f"{paths.pack_path(ref.pack)} does not hold a blob that a list says it holds")
            if len(blob) != ref.bytes or self._files.sealer.digest(blob) != ref.digest:
                raise Damaged(f"a blob in {paths.pack_path(ref.pack)} is not the one that was stored")
        return found

    async def packs(self) -> dict[str, FileRef]:
        """Return the packs that this point's indexes name, by id. Reads the footers of the indexes only."""
        if self._packs is None:
            packs: dict[str, FileRef] = {}
            for index in self.manifest.indexes:
                key = paths.index_path(index.id)
                _, metadata = await self._footer(key, index)
                packs.update((ref.id, ref) for ref in named_packs(key, metadata))
            self._packs = packs
        return self._packs

    async def pack(self, pack: str) -> FileRef:
        """Return one pack's reference. Raises `Damaged` when no index names it."""
        ref = (await self.packs()).get(pack)
        if ref is None:
            raise Damaged(f"no index of the recovery point {self.id} names {paths.pack_path(pack)}")
        return ref

    async def _row_groups(self, pack: str, numbers: list[int]) -> dict[Digest, bytes]:
        ref = await self.pack(pack)
        key = paths.pack_path(pack)
        if pack not in self._footers:
            self._footers[pack] = await self._footer(key, ref)
        length, metadata = self._footers[pack]
        start = row_group_range(metadata, numbers[0])[0]
        end = row_group_range(metadata, numbers[-1])[1]
        file = SparseFile(length)
        file.put(*await self._files.read_range(key, ref, start, end))
        blobs: dict[Digest, bytes] = {}
        with _naming(key):
            for number in numbers:
                blobs.update(read_row_group(file, metadata, number))
        return blobs

    async def _footer(self, key: str, ref: FileRef) -> "tuple[int, pq.FileMetaData]":
        length = self._files.sealer.plain_length(ref.length)
        file = SparseFile(length)
        at, tail = await self._files.read_range(Key(key), ref, max(0, length - TAIL_BYTES), length)
        with _naming(key):
            need = footer_length(tail)
        if need > len(tail):
            at, tail = await self._files.read_range(Key(key), ref, max(0, length - need), length)
        file.put(at, tail)
        with _naming(key):
            return length, read_metadata(file)


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Say of which file a complaint about Parquet is."""
    try:
        yield
    except Damaged as error:
        raise Damaged(f"{key}: {error.message}") from error


def _runs(numbers: Iterable[int]) -> list[list[int]]:
    """Return the numbers as lists of neighbours."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs
