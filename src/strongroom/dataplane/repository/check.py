"""Checks a repository: structure, signatures, sequence, and with `read_data` every stored byte."""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from strongroom.dataplane.objectstore.errors import ObjectNotFound
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import NoSuchPoint, RepositoryError
from strongroom.dataplane.repository.files import check_stored
from strongroom.dataplane.repository.model import Digest, FileRef, KindEntry, SegmentRef, sort_name
from strongroom.dataplane.repository.packs import read_pack
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.records import PruneRecords, manifest_files
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.repository.seen import Newest, Seen
from strongroom.dataplane.repository.tables import decode_index


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: the file or point it is about, what it is, and which points it hurts."""

    subject: str
    problem: str
    points: tuple[str, ...] = ()


@dataclass
class CheckReport:
    """What was checked and what was found. `damage` is what a restore would meet; `notes` are harmless.

    `memory` says against which outside memory the newest points were held ("" for none).
    """

    points: int = 0
    files: int = 0
    bytes_read: int = 0
    read_data: bool = False
    memory: str = ""
    damage: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    newest: dict[str, Newest] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return not self.damage


async def check(repository: Repository, *, read_data: bool = False, seen: Seen | None = None) -> CheckReport:
    """Check everything that recovery points rely on. Damage is returned, not raised; store errors are raised.

    Without *read_data*, manifests, lists and indexes are read whole and packs are held against their lengths.
    """
    before = repository.store.bytes_read
    report = CheckReport(read_data=read_data, memory="the state file of this machine" if seen else "")
    sizes: dict[str, int] = {info.key: info.size async for info in repository.store.list("")}
    records = await repository.records()
    points = await _check_manifests(repository, records, report)
    _check_sequence(repository, {p.id: p.sha256 for p in points}, {p.id: p for p in points}, records, report)
    _check_memory(repository, points, records, seen, report)
    report.notes += [Finding(key, f"not used: {why}") for key, why in repository.strays.items()]
    usable = [p for p in points if p.id not in records.condemned_points]
    for point in list(usable):
        if missing := records.void(point.manifest):
            report.notes.append(Finding(point.id, f"void: committed too late ({missing} was swept before)"))
            usable.remove(point)
    report.points = len(usable)
    await _Contents(repository, sizes, report).check(usable, read_data=read_data)
    named = {f for p in points for f in manifest_files(p.manifest)} | {paths.manifest_path(p.id) for p in points}
    loose = [k for k in sizes if k.startswith((paths.PACKS, paths.INDEX, paths.LISTS, paths.RUNS)) and k not in named]
    if loose:
        total = sum(sizes[k] for k in loose)
        report.notes.append(
            Finding("files", f"{len(loose)} files ({total} bytes) belong to no recovery point; prune removes them")
        )
    report.files = len(sizes)
    report.bytes_read = repository.store.bytes_read - before
    return report


async def _check_manifests(repository: Repository, records: PruneRecords, report: CheckReport) -> list[RecoveryPoint]:
    points = []
    for point_id in await repository.point_ids():
        try:
            points.append(await repository.load(point_id))
        except NoSuchPoint:
            continue  # swept while we looked
        except RepositoryError as error:
            if point_id not in records.condemned_points:
                report.damage.append(Finding(paths.manifest_path(point_id), error.message, (point_id,)))
    return points


def _check_sequence(
    repository: Repository,
    hashes: dict[str, str],
    points: dict[str, RecoveryPoint],
    records: PruneRecords,
    report: CheckReport,
) -> None:
    broken = {finding.points[0] for finding in report.damage if finding.points}
    for writer in repository.writers:
        prefix = f"{writer}-"
        known = set(points) | records.swept_points | broken
        numbers = sorted(int(i[len(prefix) :]) for i in known if i.startswith(prefix))
        for number in range(1, numbers[-1] + 1 if numbers else 1):
            point_id = f"{prefix}{number:016d}"
            if point_id not in known:
                report.damage.append(
                    Finding(paths.manifest_path(point_id), "the manifest is lost: later ones exist", (point_id,))
                )
            before = f"{prefix}{number - 1:016d}"
            if point_id in points and before in hashes and points[point_id].manifest.previous != hashes[before]:
                report.damage.append(
                    Finding(
                        paths.manifest_path(before),
                        f"the manifest is not the one that {point_id} was chained to: it was replaced",
                        (before,),
                    )
                )


def _check_memory(
    repository: Repository, points: list[RecoveryPoint], records: PruneRecords, seen: Seen | None, report: CheckReport
) -> None:
    by_id = {p.id: p for p in points}
    for point in points:
        known = report.newest.get(point.manifest.writer)
        if known is None or point.manifest.sequence > known.sequence:
            report.newest[point.manifest.writer] = Newest(point.manifest.sequence, point.sha256)
    if seen is None:
        return
    if seen.config and seen.config != repository.config_sha256:
        report.damage.append(Finding(paths.CONFIG, "repository.json is not the one this machine has seen before"))
    for writer, newest in seen.newest.items():
        point_id = f"{writer}-{newest.sequence:016d}"
        if point_id in records.swept_points:
            continue
        stored = by_id.get(point_id)  # type: ignore[call-overload]
        if stored is None:
            problem = "this machine has seen this recovery point and it is gone: the repository was rolled back"
            report.damage.append(Finding(paths.manifest_path(point_id), problem, (point_id,)))
        elif stored.sha256 != newest.sha256:
            problem = "the manifest is not the one this machine has seen: it was replaced"
            report.damage.append(Finding(paths.manifest_path(point_id), problem, (point_id,)))


class _Contents:
    """The files below the manifests; each is looked at once, whichever points share it."""

    def __init__(self, repository: Repository, sizes: dict[str, int], report: CheckReport) -> None:
        self._files = repository.files
        self._sizes = sizes
        self._report = report
        self._packs: dict[str, tuple[FileRef, set[str]]] = {}
        self._segments: dict[str, tuple[KindEntry, SegmentRef, set[str]]] = {}
        self._indexes: dict[str, tuple[FileRef, set[str]]] = {}
        self._wanted: dict[str, dict[int, set[Digest]]] = defaultdict(lambda: defaultdict(set))

    async def check(self, points: list[RecoveryPoint], *, read_data: bool) -> None:
        for point in points:
            for index in point.manifest.indexes:
                self._indexes.setdefault(index.id, (index, set()))[1].add(point.id)
            for kind in point.manifest.kinds:
                for segment in kind.segments:
                    self._segments.setdefault(segment.file.id, (kind, segment, set()))[2].add(point.id)
            self._exists(paths.run_path(point.manifest.run), None, {point.id})
        for point in points:
            try:
                for pack in (await point.packs()).values():
                    self._packs.setdefault(pack.id, (pack, set()))
            except RepositoryError as error:
                self._damage(f"indexes of {point.id}", error.message, {point.id})
            for kind in point.manifest.kinds:
                for pack_id in {p for s in kind.segments for p in s.packs}:
                    if pack_id in self._packs:
                        self._packs[pack_id][1].add(point.id)
                    else:
                        self._damage(paths.pack_path(pack_id), "no index names this pack", {point.id})
        for index, hurt in self._indexes.values():
            await self._check_index(index, hurt)
        for kind, segment, hurt in self._segments.values():
            await self._check_segment(points, kind, segment, hurt)
        for pack, hurt in self._packs.values():
            if hurt:
                await self._check_pack(pack, hurt, read_data=read_data)

    async def _check_index(self, index: FileRef, hurt: set[str]) -> None:
        key = paths.index_path(index.id)
        try:
            decode_index(key, await self._files.read_named(key, index))
        except RepositoryError as error:
            self._damage(key, error.message, hurt)

    async def _check_segment(
        self, points: list[RecoveryPoint], kind: KindEntry, segment: SegmentRef, hurt: set[str]
    ) -> None:
        key = paths.list_path(segment.file.id)
        try:
            rows = await points[0].segment(segment)
        except RepositoryError as error:
            self._damage(key, error.message, hurt)
            return
        names = [sort_name(r.namespace, r.name) for r in rows]
        if any(a >= b for a, b in pairwise(names)):
            self._damage(key, "its objects are not in order", hurt)
        if any((r.group, r.kind) != (kind.group, kind.kind) for r in rows):
            self._damage(key, f"it holds other kinds than {kind.kind}", hurt)
        if names and (names[0].decode(), names[-1].decode()) != (segment.first, segment.last):
            self._damage(key, "its range of names is not the one that its manifest says", hurt)
        for row in rows:
            for ref in (row.body, row.status, row.managed_fields):
                if ref is not None:
                    self._wanted[ref.pack][ref.row_group].add(ref.digest)

    async def _check_pack(self, pack: FileRef, hurt: set[str], *, read_data: bool) -> None:
        key = paths.pack_path(pack.id)
        if not self._exists(key, pack.length, hurt) or not read_data:
            return
        try:
            stored = await self._files.store.get(key)
            groups = read_pack(key, check_stored(self._files.sealer, key, pack, stored))
        except ObjectNotFound:
            self._damage(key, "the file is missing", hurt)
            return
        except RepositoryError as error:
            self._damage(key, error.message, hurt)
            return
        digest = self._files.sealer.digest
        for number, blobs in enumerate(groups):
            if any(digest(blob) != name for name, blob in blobs.items()):
                self._damage(key, f"row group {number} holds a blob that is not the one it says", hurt)
        for number, wanted in self._wanted[pack.id].items():
            if number >= len(groups) or wanted - groups[number].keys():
                self._damage(key, f"row group {number} lacks blobs that lists say it holds", hurt)

    def _exists(self, key: str, length: int | None, hurt: set[str]) -> bool:
        size = self._sizes.get(key)
        if size is None:
            self._damage(key, "the file is missing", hurt)
            return False
        if length is not None and size != length:
            self._damage(key, f"the file has {size} bytes and should have {length}", hurt)
            return False
        return True

    def _damage(self, key: str, problem: str, hurt: set[str]) -> None:
        self._report.damage.append(Finding(key, problem, tuple(sorted(hurt))))
