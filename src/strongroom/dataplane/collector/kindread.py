"""Reads one kind into a run: whole, metadata first against rows of an earlier point, or a few objects by name."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, TypeVar

import msgspec

from strongroom.dataplane.collector.budget import ByteBudget
from strongroom.dataplane.collector.filtering import ObjectFilter
from strongroom.dataplane.collector.metadata import Meta, MetaPage, list_metadata
from strongroom.dataplane.collector.portions import (
    CHUNK_OBJECTS,
    MetaSource,
    chunks,
    named_items,
    windows,
    windows_of_changed,
)
from strongroom.dataplane.collector.reading import AnyPage, Pages
from strongroom.dataplane.collector.stored import RowCursor, stored_segments
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeProtocolError
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.kube.pages import PAGE_START_ITEMS, AdaptiveLimit, Page
from strongroom.dataplane.repository.files import Files
from strongroom.dataplane.repository.model import ObjectRow, SegmentRef, sort_name
from strongroom.dataplane.repository.objects import Parts, split
from strongroom.dataplane.repository.run import Run
from strongroom.dataplane.repository.writer import KindWriter, OutOfOrder

SINGLE_READS_AT_ONCE: Final = 8  # over all kinds; with more the handshakes cost more than they bring
SINGLE_READ_SHARE: Final = 0.05
"""Of a kind's objects, how many changed ones are read one by one. A single read costs the API server about as much as
20 objects of a long list (measured: 1,700 single reads/s against 30,000 objects/s of 2 KB)."""
NAMESPACE_LIST_FROM: Final = 8  # changed objects in one namespace that are worth a list of it, if they are dense
CHANGED_AT_ONCE: Final = 32  # changed objects in memory at once, of each kind: keeps the single reads busy
SEGMENTS_WAITING: Final = 6  # of about 1,000 rows and 1 KB each: hides the round trips of 1 % changes spread over all
SINGLE_READS_FREE: Final = 32  # as many are read one by one in any case: less than two pages' cost

ONE_PAGE_OBJECTS: Final = 10_000  # their metadata is about 4.5 MB, and a page is counted as 8 MiB (budget.py)
CAREFUL_START_ITEMS: Final = 32
"""First page of a kind with more objects than a blind first page: of 1 MB each they are 32 MB, half of the budget; one
request more tells what they are like. From 8 on, a namespace of 500 objects took 9 requests more."""
NEWEST_MISSES: Final = 2  # so often X is asked for in vain of the newest list, before a run asks for X at once

P = TypeVar("P", bound=AnyPage)


@dataclass(frozen=True)
class Base:
    """Where unchanged objects can be taken over from: the segments of one kind, already stored.

    Without *take_over* its rows only save storing equal bytes again; every object is read.
    """

    segments: tuple[SegmentRef, ...]
    take_over: bool


@dataclass
class KindRead:
    """What came of reading one kind: its stored segments and counts. `revision` is the one it was read at."""

    kind: Kind
    segments: tuple[SegmentRef, ...] = ()
    revision: str = ""
    exact: bool = False
    objects: int = 0
    taken_over: int = 0
    denied: dict[str, str] = field(default_factory=dict)
    complete: bool = False


@dataclass
class Reader:
    """What the reading of every kind shares.

    `own_contents` are the VolumeSnapshotContents of the run itself. `moved` counts newest lists that were already
    behind X when they came.
    """

    api: KubeApi
    run: Run
    files: Files
    budget: ByteBudget
    single_reads: asyncio.Semaphore
    own_contents: frozenset[str] = frozenset()
    moved: int = 0


class KindReading:
    """One kind at one revision (None: the newest).

    *namespaces* None lists the cluster. *count* is about how many objects the kind has, None if unknown; *known* the
    metadata of all of them at the revision, where it was seen already. *observe* is told every kept object that is read
    whole, *seen* every kept object's namespace and name. After a failure `result` holds what was stored until then.
    """

    def __init__(
        self,
        reader: Reader,
        kind: Kind,
        keep: ObjectFilter,
        *,
        revision: str | None,
        namespaces: Sequence[str] | None = None,
        server_labels: str | None = None,
        base: Base | None = None,
        count: int | None = None,
        known: Sequence[Meta] | None = None,
        skip_denied: bool = False,
        observe: Callable[[Kind, Parts], None] | None = None,
        seen: Callable[[str, str], None] | None = None,
    ) -> None:
        self._reader = reader
        self._kind = kind
        self._keep = keep
        self._revision = revision
        self._namespaces = namespaces
        self._server_labels = server_labels
        self._base = base
        self._known = known
        self._one_page = count is not None and count <= ONE_PAGE_OBJECTS
        self._few = count is not None and count <= PAGE_START_ITEMS
        self._skip_denied = skip_denied
        self._observe = observe
        self._seen = seen
        self._last = b""
        self._writer: KindWriter | None = None
        self._ahead: dict[str, asyncio.Task[msgspec.Raw | None]] = {}  # changed objects being read, by uid
        self._cost = 0.0  # of reading what changed, in single reads
        self._total = 0
        self.result = KindRead(kind, revision=revision or "", exact=revision is not None)

    async def read(self) -> KindRead:
        """Read and store the whole kind. Raises a `KubeError`; `keep_stored` then says what can be built upon."""
        self._writer = self._new_writer()
        try:
            if self._base is None or not self._base.take_over:
                await self._whole(after=b"")
            elif not await self._metadata_first(self._base):
                # Outside of the metadata's stream: who holds pages of one list must not wait for those of another.
                await self._whole(after=self._last)
        except OutOfOrder:
            await self._drop_ahead()
            # Seen only with API servers that keep their objects elsewhere than in etcd: sort what they list.
            self._writer = self._new_writer()
            self.result.taken_over = 0
            self._keep.skipped.clear()
            await self._whole_sorted()
        finally:
            await self._drop_ahead()
        return await self._finish(complete=True)

    async def read_named(self, names: Collection[tuple[str, str]]) -> KindRead:
        """Read and store only the objects of these (namespace, name), as far as they exist and are kept."""
        self._writer = self._new_writer()
        cursor = self._earlier_rows()
        wanted = sorted((Meta(name, namespace) for namespace, name in names), key=lambda meta: meta.key)
        for window in windows(wanted, SINGLE_READS_AT_ONCE):
            raws = await asyncio.gather(*(self._read_one(meta) for meta in window))
            await self._store([raw for raw in raws if raw is not None], cursor=cursor)
        return await self._finish(complete=True)

    async def keep_stored(self) -> KindRead:
        """After `read` failed: close what was stored, as a base for the next try."""
        return await self._finish(complete=False)

    def _new_writer(self) -> KindWriter:
        return self._reader.run.kind(self._kind.group, self._kind.version, self._kind.kind)

    async def _finish(self, *, complete: bool) -> KindRead:
        if self._writer is not None:
            self.result.segments = await self._writer.finish()
            self.result.objects = self._writer.objects
        self.result.complete = complete
        return self.result

    def _pages(self) -> Pages[Page]:
        api, kind = self._reader.api, self._kind
        start = PAGE_START_ITEMS if self._few else CAREFUL_START_ITEMS
        return self._streamed(
            lambda namespace: api.list_pages(
                kind,
                namespace=namespace,
                revision=self._revision,
                limit=AdaptiveLimit(start=start),
                labels=self._server_labels,
            )
        )

    def _meta_pages(self) -> Pages[MetaPage]:
        return self._streamed(self._list_metadata)

    async def _list_metadata(self, namespace: str | None) -> AsyncGenerator[MetaPage, None]:
        """Yield one list's metadata at the revision.

        An API server answers an exact list from its memory only where the kind was written since etcd was compacted
        last, else from etcd, at several times the cost; the newest list, in one piece, always from memory
        (k8s.io/apiserver 1.37, cacher). So of kinds that fit into one page the newest is tried first: where it says X,
        it is the list at X, for the kind passed the same-etcd test. One object is asked for before that, to see
        whether the cluster still stands at X; one that is written to all the time is not asked again.
        """
        if self._known is not None and self._revision is not None:
            of_list = [meta for meta in self._known if namespace is None or meta.namespace == namespace]
            yield MetaPage(self._revision, of_list, None, 0, "")
            return
        listing = dict[str, Any](namespace=namespace, labels=self._server_labels, with_labels=self._keep.reads_labels)
        api, kind, revision = self._reader.api, self._kind, self._revision
        if revision is not None and self._one_page and self._reader.moved < NEWEST_MISSES:
            page: MetaPage | None = None
            for limit in (1, 0):
                async with aclosing(list_metadata(api, kind, first=limit, **listing)) as newest:
                    page = await anext(newest)
                if page.revision != revision:
                    self._reader.moved += 1
                    break
            else:
                assert page is not None
                yield page
                return
            del page
        async with aclosing(list_metadata(api, kind, revision=revision, **listing)) as pages:
            async for page in pages:
                yield page

    def _streamed(self, lister: Callable[[str | None], AsyncGenerator[P, None]]) -> Pages[P]:
        return Pages(
            lister,
            self._reader.budget,
            self._kind,
            namespaces=self._namespaces,
            skip_denied=self._skip_denied,
        )

    def _earlier_rows(self) -> "RowCursor | None":
        """Return the base's rows for what is read whole all the same: equal bytes and lists are not stored again."""
        if self._base is None:
            return None
        self._reader.run.known_segments.update((segment.content, segment) for segment in self._base.segments)
        return RowCursor(self._reader.files, self._base.segments)

    # Whole

    async def _whole(self, after: bytes) -> None:
        """Store every kept object behind *after*; rows of the base, if any, save storing equal bytes again."""
        self._keep.skipped.clear()  # counted anew: the metadata that was read ahead has been counted already
        cursor = self._earlier_rows()
        pages = self._pages()
        async with aclosing(pages.stream()) as stream:
            async for page in stream:
                for items in chunks(page):
                    await self._store(items, after=after, cursor=cursor)
                    await asyncio.sleep(0)
        self._note(pages)

    async def _store(
        self, items: Sequence[msgspec.Raw], *, after: bytes = b"", cursor: "RowCursor | None" = None
    ) -> None:
        kind, keeps, writer = self._kind, self._keep.keeps, self._writer
        assert writer is not None
        parts = [split(item, kind.group, kind.version, kind.kind) for item in items]
        kept = [part for part in parts if keeps(part.namespace, part.name, part.labels.encode())]
        if after:
            kept = [part for part in kept if sort_name(part.namespace, part.name) > after]
        if self._observe is not None:
            for part in kept:
                self._observe(kind, part)
        if self._seen is not None:
            for part in kept:
                self._seen(part.namespace, part.name)
        if not kept:
            return
        earlier = [await cursor.find(part.namespace, part.name) for part in kept] if cursor is not None else None
        await writer.add(kept, earlier)

    async def _whole_sorted(self) -> None:
        parts: list[Parts] = []
        pages = self._pages()
        async with aclosing(pages.stream()) as stream:
            async for page in stream:
                # Copies: the parts outlive their page here.
                parts += [
                    split(item.copy(), self._kind.group, self._kind.version, self._kind.kind) for item in page.items
                ]
        self._note(pages)
        writer = self._writer
        assert writer is not None
        parts.sort(key=lambda part: sort_name(part.namespace, part.name))
        previous = b""
        for window in windows(parts, CHUNK_OBJECTS):
            kept = []
            for part in window:
                key = sort_name(part.namespace, part.name)
                if key != previous and self._keep.keeps(part.namespace, part.name, part.labels.encode()):
                    kept.append(part)
                    if self._observe is not None:
                        self._observe(self._kind, part)
                    if self._seen is not None:
                        self._seen(part.namespace, part.name)
                previous = key
            await writer.add(kept)

    def _note(self, pages: Pages[Any]) -> None:
        self.result.revision = self._revision or pages.revision
        self.result.denied.update(pages.denied)

    # Metadata first

    async def _metadata_first(self, base: Base) -> bool:
        """Merge the kind's metadata with the base's segments: unchanged ones are taken over whole, or row by row.

        False: too much changed; what is behind `_last` is not stored yet.
        """
        pages = self._meta_pages()
        segments = stored_segments(self._reader.files, base.segments)
        async with aclosing(pages.stream()) as stream, aclosing(segments):
            source = MetaSource(stream, self._keep)
            # A few segments wait their turn while what changed in them is read: changes spread over all segments
            # would else cost each of them a round trip of its own.
            waiting: deque[tuple[SegmentRef, list[Meta], list[ObjectRow] | None]] = deque()
            async for segment, stored in segments:
                batch = await source.until(segment.last.encode())
                self._total = max(source.total, sum(each.rows for each in base.segments))
                rows = None if stored.is_of(batch) else stored.rows()
                if rows is not None:
                    self._read_ahead(batch, rows)
                waiting.append((segment, batch, rows))
                if len(waiting) > SEGMENTS_WAITING and not await self._settle(*waiting.popleft()):
                    return False
            while waiting:
                if not await self._settle(*waiting.popleft()):
                    return False
            while batch := await source.more():
                self._total = max(self._total, source.total)
                if not await self._merge(batch, ()):
                    return False
        self._note(pages)
        return True

    def _read_ahead(self, batch: Sequence[Meta], rows: Sequence[ObjectRow]) -> None:
        """Begin to read the changed objects of a batch, if they are few: many may be better listed."""
        before = {row.uid: row.resource_version for row in rows}
        changed = [meta for meta in batch if before.get(meta.uid) != meta.resource_version]
        if len(changed) < NAMESPACE_LIST_FROM * 2 and len(self._ahead) + len(changed) <= CHANGED_AT_ONCE:
            self._ahead.update((meta.uid, asyncio.create_task(self._read_one(meta))) for meta in changed)

    async def _drop_ahead(self) -> None:
        tasks = list(self._ahead.values())
        self._ahead.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle(self, segment: SegmentRef, batch: Sequence[Meta], rows: Sequence[ObjectRow] | None) -> bool:
        """Store what a segment of the base has become; *rows* None: it is unchanged. False as `_merge` says."""
        if rows is not None:
            return await self._merge(batch, rows)
        await self._take_segment(segment, batch)
        return True

    async def _take_segment(self, segment: SegmentRef, batch: Sequence[Meta]) -> None:
        assert self._writer is not None
        self._writer.take_over_segment(segment)
        self.result.taken_over += segment.rows
        self._last = segment.last.encode()
        if self._seen is not None:
            for meta in batch:
                self._seen(meta.namespace, meta.name)

    async def _merge(self, batch: Sequence[Meta], rows: Sequence[ObjectRow]) -> bool:
        """Store a batch beside the base's rows of the same range. False: too much changed, nothing of it is stored."""
        by_uid = {row.uid: row for row in rows}
        by_name = {(row.namespace, row.name): row for row in rows}

        def unchanged(meta: Meta) -> ObjectRow | None:
            row = by_uid.get(meta.uid)
            return row if row is not None and row.resource_version == meta.resource_version else None

        steps: list[tuple[str | None, list[Meta]]] = []  # the namespace to list, or None for single reads
        cost = 0.0
        for namespace, run in groupby(batch, key=lambda meta: meta.namespace):
            metas = list(run)
            changed = sum(unchanged(meta) is None for meta in metas)
            by_list = 1 + SINGLE_READ_SHARE * len(metas)
            # Only where the list would begin with these objects; of a namespace in many segments each would list all.
            begins = bool(namespace) and not self._last.startswith(f"{namespace}/".encode())
            if begins and changed >= NAMESPACE_LIST_FROM and by_list < changed:
                steps.append((namespace, metas))
                cost += by_list
            else:
                cost += changed
                if not steps or steps[-1][0] is not None:
                    steps.append((None, []))
                steps[-1][1].extend(metas)
        self._cost += cost
        if self._cost > max(SINGLE_READS_FREE, SINGLE_READ_SHARE * self._total):
            return False
        for listed, metas in steps:
            if listed is not None:
                await self._emit_listed(listed, metas, unchanged, by_name)
                continue
            for window in windows_of_changed(metas, unchanged, CHANGED_AT_ONCE):
                await self._emit(window, by_name)
        return True

    async def _emit(
        self, window: Sequence[tuple[Meta, ObjectRow | None]], earlier: Mapping[tuple[str, str], ObjectRow]
    ) -> None:
        """Store objects in their order; the changed ones are read one by one, several at once."""
        raws = iter(await asyncio.gather(*(self._changed_one(meta) for meta, row in window if row is None)))
        for meta, row in window:
            await self._put(meta, row if row is not None else next(raws), earlier)

    async def _emit_listed(
        self,
        namespace: str,
        metas: Sequence[Meta],
        unchanged: Callable[[Meta], ObjectRow | None],
        earlier: Mapping[tuple[str, str], ObjectRow],
    ) -> None:
        """Store a namespace's objects in their order; the changed ones are taken from one list of the namespace."""
        pages = self._reader.api.list_pages(
            self._kind,
            namespace=namespace,
            revision=self._revision,
            limit=AdaptiveLimit(start=CAREFUL_START_ITEMS),
            labels=self._server_labels,
        )
        async with aclosing(pages), aclosing(named_items(pages)) as items:
            for meta in metas:
                found: ObjectRow | msgspec.Raw | None = unchanged(meta)
                while found is None:
                    name, item = await anext(items, ("", None))
                    if item is None:
                        raise self._not_there(meta)
                    found = item if name == meta.name else None
                await self._put(meta, found, earlier)

    async def _put(
        self, meta: Meta, found: ObjectRow | msgspec.Raw, earlier: Mapping[tuple[str, str], ObjectRow]
    ) -> None:
        writer, kind = self._writer, self._kind
        assert writer is not None
        if isinstance(found, ObjectRow):
            await writer.take_over_row(found)
            self.result.taken_over += 1
        else:
            part = split(found, kind.group, kind.version, kind.kind)
            if self._observe is not None:
                self._observe(kind, part)
            await writer.add([part], [earlier.get((part.namespace, part.name))])
        self._last = meta.key
        if self._seen is not None:
            self._seen(meta.namespace, meta.name)

    def _not_there(self, meta: Meta) -> KubeProtocolError:
        return KubeProtocolError(
            f"{self._kind.resource} {meta.namespace}/{meta.name} was listed at {self._revision} and is not there then",
            verb="list",
            resource=self._kind.resource,
        )

    async def _changed_one(self, meta: Meta) -> msgspec.Raw:
        task = self._ahead.pop(meta.uid, None)
        raw = await (task if task is not None else self._read_one(meta))
        if raw is None:
            raise self._not_there(meta)
        return raw

    async def _read_one(self, meta: Meta) -> msgspec.Raw | None:
        async with self._reader.single_reads:
            return await self._reader.api.get_at(
                self._kind, meta.name, meta.namespace if self._kind.namespaced else None, self._revision
            )
