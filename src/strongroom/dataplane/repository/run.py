"""One run of a writer: takes objects in, and commits them as at most one recovery point.

Write order: runs/ → packs → lists → indexes → manifest. A crash before the manifest leaves files that no manifest
names, which prune removes; it never leaves a recovery point that is not whole (docs/format/repository.md, "Crashes").
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from strongroom.dataplane.objectstore.create import create_once
from strongroom.dataplane.objectstore.errors import ObjectExists
from strongroom.dataplane.objectstore.port import Key
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import CommittedTooLate, RepositoryError, RunTooLong
from strongroom.dataplane.repository.model import (
    ClusterIdentity,
    Digest,
    FileRef,
    GroupFailure,
    HookSummary,
    Incremental,
    Instant,
    KindEntry,
    Manifest,
    PointId,
    Reference,
    RunId,
    SegmentRef,
    Selection,
    VolumeEntry,
)
from strongroom.dataplane.repository.objects import RULES
from strongroom.dataplane.repository.packstream import PACK_BYTES, PackStream
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.repository.sealing import FORMAT_VERSION
from strongroom.dataplane.repository.tables import Place, decode_index, encode_index
from strongroom.dataplane.repository.writer import KindWriter

MAX_INDEXES = 8  # more would make a cold reader wait for more footers than a restore has time for
COMMIT_TRIES = 32  # writers that share one key and end in the same second; each loser takes the next number


class ManifestDraft(msgspec.Struct, kw_only=True):
    """What the collector knows of a recovery point; `Run.commit` adds what only the repository knows."""

    started: str
    finished: str
    cluster: ClusterIdentity
    selection: Selection
    instant: Instant
    incremental: Incremental
    state: str
    kinds: Sequence[KindEntry]
    failed_groups: Sequence[GroupFailure] = ()
    excluded_namespaces: Mapping[str, str] = {}
    references: Sequence[Reference] = ()
    volumes: Sequence[VolumeEntry] = ()
    warnings: Sequence[str] = ()
    bytes_read: int = 0
    hooks: HookSummary | None = None
    caller: Mapping[str, str] = {}


class _RunRecord(msgspec.Struct, rename="camel", kw_only=True):
    id: str
    writer: str


class Run:
    """A run that has begun: `runs/<id>.json` is written, what is condemned counts as absent."""

    def __init__(self, repository: Repository, run_id: RunId, began: float, started: datetime, pack_bytes: int) -> None:
        self.id = run_id
        self.started = started
        self.repository = repository
        self.packs = PackStream(repository.files, run_id, pack_bytes)
        self.known: dict[Digest, Place] = {}
        self.known_segments: dict[str, SegmentRef] = {}
        self.manifest_sha256 = ""
        self.object_bytes = 0
        self._began = began
        self._writer = repository.require_writer()
        self._written_before = repository.store.bytes_written
        self._sources: list[RecoveryPoint] = []
        self._lists = 0
        self._condemned_points: frozenset[str] = frozenset()
        self._condemned_files: frozenset[str] = frozenset()

    @classmethod
    async def begin(cls, repository: Repository, *, pack_bytes: int = PACK_BYTES) -> "Run":
        """Begin a run. Left behind if it stops here: a record under runs/, which prune removes."""
        writer = repository.require_writer()
        run_id = RunId(secrets.token_hex(8))
        written_before = repository.store.bytes_written
        began = time.clock_gettime(time.CLOCK_BOOTTIME)  # before the record: never younger than the store's time says
        record = msgspec.json.encode(_RunRecord(id=run_id, writer=writer))
        key = paths.run_path(run_id)
        await repository.files.create(key, run_id, record)
        started = (await repository.store.head(key)).modified
        run = cls(repository, run_id, began, started, pack_bytes)
        run._written_before = written_before
        # After the record: what is condemned later cannot be swept while this run may still commit.
        records = await repository.records()
        run._condemned_points = records.condemned_points
        run._condemned_files = records.condemned_files
        return run

    async def base(self, point_id: str, manifest_sha256: str) -> RecoveryPoint | str:
        """Return the earlier point to take objects over from, or the reason why there is none."""
        if point_id in self._condemned_points:
            return f"the earlier point {point_id} is condemned"
        try:
            point = await self.repository.point(point_id)
        except RepositoryError as error:
            return f"the earlier point {point_id} is not usable: {error.message}"
        if point.id != point_id or point.sha256 != manifest_sha256:
            return f"the earlier point {point_id} is not the one that the marker names"
        self._sources.append(point)
        return point

    async def know(self) -> None:
        """Load what this writer's newest usable point holds, so that a whole reading stores only what is new."""
        ids = [
            i
            for i in await self.repository.point_ids()
            if i.startswith(f"{self._writer}-") and i not in self._condemned_points
        ]
        for point_id in reversed(ids):
            try:
                point = await self.repository.point(point_id)
                await self._know(point)
            except RepositoryError:
                continue  # a damaged point is check's to report; to a new backup it is absent
            self._sources.append(point)
            return

    async def _know(self, point: RecoveryPoint) -> None:
        files = self.repository.files
        present = {paths.file_id(i.key) async for i in files.store.list(paths.PACKS)}
        present -= {paths.file_id(f) for f in self._condemned_files if f.startswith(paths.PACKS)}
        for index in point.manifest.indexes:
            key = paths.index_path(index.id)
            places, _ = decode_index(key, await files.read_named(key, index))
            # A row that points to a removed pack is void.
            self.known.update((digest, place) for digest, place in places.items() if place[0] in present)
        for kind in point.manifest.kinds:
            for segment in kind.segments:
                if paths.list_path(segment.file.id) not in self._condemned_files:
                    self.known_segments[segment.content] = segment

    def kind(self, group: str, version: str, kind: str) -> KindWriter:
        """Return a writer for the objects of one kind."""
        return KindWriter(self, group, version, kind)

    def next_list_id(self) -> str:
        """Return a new id for a list file of this run."""
        self._lists += 1
        return f"{self.id}-{self._lists}"

    @property
    def bytes_written(self) -> int:
        """Bytes that this run has stored so far, the manifest included after `commit`."""
        return self.repository.store.bytes_written - self._written_before

    async def abandon(self) -> None:
        """Stop the work in the background after a failure; what was stored is left to prune."""
        await self.packs.abandon()

    async def commit(self, draft: ManifestDraft) -> Manifest:
        """Store what is left, then the manifest: the recovery point exists when this returns.

        Raises `RunTooLong` (nothing was committed) and `CommittedTooLate` (the manifest is void). If it stops before
        the manifest is stored there is no recovery point; if only the reply is lost there is one, which the next
        listing shows.
        """
        try:
            await self.packs.close()
            indexes = await self._write_indexes(draft)
            manifest = await self._write_manifest(draft, indexes)
        finally:
            await self.abandon()
        if missing := (await self.repository.records()).void(manifest):
            raise CommittedTooLate(
                f"{missing} was swept before the recovery point {manifest.id} was committed; the point is void",
                hint="Run the backup again. The run was stopped for longer than the repository's maxRun",
            )
        return manifest

    async def _write_indexes(self, draft: ManifestDraft) -> tuple[FileRef, ...]:
        files = self.repository.files
        used = {pack for kind in draft.kinds for segment in kind.segments for pack in segment.packs}
        old = {i.id: i for source in self._sources for i in source.manifest.indexes}
        if not used - self.packs.names:
            old = {}  # nothing was taken over: the run's own index resolves all
        places = {digest: place for digest, place in self.known.items() if place[0] in self.packs.names}
        packs = list(self.packs.stored)
        if len(old) + bool(places) > MAX_INDEXES:
            # Merge the smaller ones only: the large first index of a repository is not written again each time.
            ordered = sorted(old.values(), key=lambda ref: ref.length)
            for index in ordered[: len(ordered) - MAX_INDEXES // 2]:
                key = paths.index_path(index.id)
                more, named = decode_index(key, await files.read_named(key, index))
                keep = {ref.id for ref in named} & used
                places = {d: place for d, place in more.items() if place[0] in keep} | places
                packs += [ref for ref in named if ref.id in keep]
                del old[index.id]
        if places:
            index_id = f"{self.id}-1"
            data = await asyncio.to_thread(encode_index, places, packs)
            old[index_id] = await files.create(paths.index_path(index_id), index_id, data)
        return tuple(old.values())

    async def _write_manifest(self, draft: ManifestDraft, indexes: tuple[FileRef, ...]) -> Manifest:
        repository = self.repository
        for _ in range(COMMIT_TRIES):
            sequence, previous = await self._next_number()
            manifest = Manifest(
                format=FORMAT_VERSION,
                id=PointId(f"{self._writer}-{sequence:016d}"),
                run=self.id,
                writer=self._writer,
                sequence=sequence,
                previous=previous,
                repository=repository.config_sha256,
                started=draft.started,
                finished=draft.finished,
                cluster=draft.cluster,
                selection=draft.selection,
                instant=draft.instant,
                incremental=draft.incremental,
                state=draft.state,
                kinds=tuple(draft.kinds),
                failed_groups=tuple(draft.failed_groups),
                excluded_namespaces=draft.excluded_namespaces,
                references=tuple(draft.references),
                volumes=tuple(draft.volumes),
                warnings=tuple(draft.warnings),
                indexes=indexes,
                objects=sum(kind.objects for kind in draft.kinds),
                object_bytes=self.object_bytes,
                bytes_read=draft.bytes_read,
                rules=RULES,
                hooks=draft.hooks,
                caller=draft.caller,
            )
            key = paths.manifest_path(manifest.id)
            manifest = self._count_itself(key, manifest)
            stored = repository.files.sealer.seal(key, repository.sign(key, msgspec.json.encode(manifest)))
            # The last look at the time stands directly before the commit.
            if time.clock_gettime(time.CLOCK_BOOTTIME) - self._began > repository.info.max_run_seconds:
                raise RunTooLong(repository.info.max_run_seconds)
            try:
                await create_once(repository.store, key, stored.data)
            except ObjectExists:
                continue  # another run of this writer took the number: chain to it and sign anew
            self.manifest_sha256 = stored.sha256
            return manifest
        raise RepositoryError(f"{COMMIT_TRIES} numbers in a row were taken by other runs of the writer {self._writer}")

    def _count_itself(self, key: Key, manifest: Manifest) -> Manifest:
        """Return the manifest with the bytes of the whole run, its own included: its length depends on that number."""
        sealer = self.repository.files.sealer
        while True:
            stored = sealer.seal(key, self.repository.sign(key, msgspec.json.encode(manifest))).data
            written = self.bytes_written + len(stored)
            if manifest.bytes_written == written:
                return manifest
            manifest = msgspec.structs.replace(manifest, bytes_written=written)

    async def _next_number(self) -> tuple[int, str]:
        """Return the next sequence number and the SHA-256 of this writer's newest stored manifest ("" if none)."""
        prefix = f"{self._writer}-"
        stored = [int(i[len(prefix) :]) for i in await self.repository.point_ids() if i.startswith(prefix)]
        records = await self.repository.records()
        gone = [int(i[len(prefix) :]) for i in records.swept_points if i.startswith(prefix)]
        if not stored:
            return max(gone, default=0) + 1, ""
        newest = await self.repository.store.get(paths.manifest_path(f"{prefix}{max(stored):016d}"))
        return max(stored + gone) + 1, hashlib.sha256(newest).hexdigest()
