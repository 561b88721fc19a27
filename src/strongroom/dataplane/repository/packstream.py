"""Turns a stream of new blobs into stored packs, with bounded memory.

The event loop only collects rows and assigns places. One thread builds row groups in order (zstd runs without the
interpreter's lock), and finished packs are sealed and stored in the background.
"""

import asyncio
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.files import Files
from strongroom.dataplane.repository.model import FileRef
from strongroom.dataplane.repository.packs import OWN_GROUP_BYTES, ROW_GROUP_BYTES, PackBuilder, PackRow
from strongroom.dataplane.repository.tables import Place

MIB = 1024 * 1024
PACK_BYTES = 4 * MIB  # stored size at which a pack is closed; from 512 KB to 4 MB raw, compression gained 5 % only
PACK_RAW_BYTES = 32 * MIB  # closed at this much raw data too: what a crash loses and a build holds stays bounded
QUEUED_BYTES = 16 * MIB  # raw bytes that wait for the building thread before the reader of the cluster has to wait
PUTS_AT_ONCE = 3


class PackStream:
    """The packs of one run. `stored` names the finished ones; `names` all ids that were given out."""

    def __init__(self, files: Files, run_id: str, pack_bytes: int) -> None:
        self.stored: list[FileRef] = []
        self.names: set[str] = set()
        self._files = files
        self._run_id = run_id
        self._pack_bytes = pack_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pack")
        self._queued: deque[tuple[int, Future[None]]] = deque()
        self._queued_bytes = 0
        self._puts: set[asyncio.Task[FileRef]] = set()
        self._put_gate = asyncio.Semaphore(PUTS_AT_ONCE)
        self._rows: list[PackRow] = []
        self._rows_bytes = 0
        self._open()

    def _open(self) -> None:
        self._builder = PackBuilder()
        self._pack = f"{self._run_id}-{len(self.names) + 1}"
        self._pack_raw = 0
        self._place: Place = (self._pack, 0)

    def append(self, row: PackRow) -> Place:
        """Take one new blob; return where it will lie."""
        size = len(row.blob)
        if self._rows and (size > OWN_GROUP_BYTES or self._rows_bytes + size > ROW_GROUP_BYTES):
            self._flush()
        place = self._place
        self.names.add(place[0])
        self._rows.append(row)
        self._rows_bytes += size
        if size > OWN_GROUP_BYTES:
            self._flush()
        return place

    async def drain(self) -> None:
        """Wait until little enough waits for the building thread. Raises what building or storing raised."""
        while self._queued and (self._queued_bytes > QUEUED_BYTES or self._queued[0][1].done()):
            size, built = self._queued.popleft()
            await asyncio.wrap_future(built)
            self._queued_bytes -= size
        for task in [t for t in self._puts if t.done()]:
            self._puts.discard(task)
            self.stored.append(task.result())
        while len(self._puts) > PUTS_AT_ONCE:
            await asyncio.wait(self._puts, return_when=asyncio.FIRST_COMPLETED)
            for task in [t for t in self._puts if t.done()]:
                self._puts.discard(task)
                self.stored.append(task.result())

    async def close(self) -> None:
        """Build and store everything that was taken."""
        if self._rows:
            self._flush()
        if self._pack_raw:
            self._rotate()
        while self._queued:
            _, built = self._queued.popleft()
            await asyncio.wrap_future(built)
        self.stored += await asyncio.gather(*self._puts)
        self._puts.clear()
        self.stored.sort(key=lambda ref: ref.id)

    async def abandon(self) -> None:
        """Let go of threads and tasks; harmless after `close`."""
        for task in self._puts:
            task.cancel()
        await asyncio.gather(*self._puts, return_exceptions=True)
        self._puts.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _flush(self) -> None:
        built = self._thread.submit(self._builder.add_row_group, self._rows)
        self._queued.append((self._rows_bytes, built))
        self._queued_bytes += self._rows_bytes
        self._pack_raw += self._rows_bytes
        self._rows = []
        self._rows_bytes = 0
        self._place = (self._pack, self._place[1] + 1)
        # The size lags behind by what is queued: packs come out a little larger than asked, never unbounded.
        if self._builder.size >= self._pack_bytes or self._pack_raw >= PACK_RAW_BYTES:
            self._rotate()

    def _rotate(self) -> None:
        builder, pack = self._builder, self._pack
        finished = self._thread.submit(builder.finish)
        self._puts.add(asyncio.get_running_loop().create_task(self._store(pack, finished)))
        self._open()

    async def _store(self, pack: str, finished: "Future[memoryview]") -> FileRef:
        data = await asyncio.wrap_future(finished)
        async with self._put_gate:
            return await self._files.create(paths.pack_path(pack), pack, data)
