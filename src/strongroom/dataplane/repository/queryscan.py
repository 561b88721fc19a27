"""The objects of all recovery points as one Arrow dataset, read piece by piece as a query asks for it.

duckdb hands a dataset's `scanner` the columns that it needs and the filters that it could move down. A piece is one
list segment of one point; pieces that cannot match are left out by what their manifest says of them, and blobs are
loaded for the rows that pass the filter.
"""

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as fs

from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.model import BlobRef, Digest, Manifest, SegmentRef
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.repository.tables import LIST_SCHEMA, read_table

BATCH_BYTES = 16 * 1024 * 1024  # blobs in one batch: duckdb holds one for each of its threads
LISTS_KEPT = 256  # decoded segments (about 300 KiB each) kept for points that share them
POINTS_KEPT = 8  # points whose index and footers stay in memory while blobs are read

# Known of every row of a piece from its manifest alone.
_CONSTANT = ("recovery_point_id", "group", "version", "kind")
_BLOBS = ("body", "status")

OBJECTS_SCHEMA = pa.schema(
    [
        ("recovery_point_id", pa.string()),
        ("group", pa.string()),
        ("version", pa.string()),
        ("kind", pa.string()),
        ("namespace", pa.string()),
        ("name", pa.string()),
        ("uid", pa.string()),
        ("resource_version", pa.string()),
        ("generation", pa.int64()),
        ("labels", pa.string()),
        ("body_digest", pa.binary(32)),
        ("bytes", pa.int32()),
        ("status_digest", pa.binary(32)),
        ("status_bytes", pa.int32()),
        ("body", pa.string()),
        ("status", pa.string()),
    ]
)

# Names here to names in list segments, where they differ.
_LIST_NAMES = {"body_digest": "body", "bytes": "body_bytes", "status_digest": "status"}

Wait = Callable[[Coroutine[Any, Any, Any]], Any]


class Loader:
    """Reads lists and blobs of a repository for threads that are not the event loop's; *wait* bridges to it."""

    def __init__(self, repository: Repository, wait: Wait) -> None:
        self._repository = repository
        self._wait = wait
        self._lists: OrderedDict[str, pa.Table] = OrderedDict()
        self._points: OrderedDict[str, RecoveryPoint] = OrderedDict()
        self.lists_read = 0
        self.blobs_read = 0

    def segment(self, segment: SegmentRef) -> pa.Table:
        """Return the rows of a list segment. Raises `Damaged`."""
        table = self._lists.pop(segment.file.id, None)
        if table is None:
            key = paths.list_path(segment.file.id)
            table = read_table(key, self._wait(self._repository.files.read_named(key, segment.file)), LIST_SCHEMA)
            self.lists_read += 1
        self._lists[segment.file.id] = table
        while len(self._lists) > LISTS_KEPT:
            self._lists.popitem(last=False)
        return table

    def blobs(self, point_id: str, refs: Sequence[BlobRef]) -> dict[Digest, bytes]:
        """Return blobs of a recovery point by digest. Raises `Damaged`."""
        point = self._points.pop(point_id, None)
        if point is None:
            point = cast("RecoveryPoint", self._wait(self._repository.load(point_id)))
        self._points[point_id] = point
        while len(self._points) > POINTS_KEPT:
            self._points.popitem(last=False)
        self.blobs_read += len(refs)
        return cast("dict[Digest, bytes]", self._wait(point.blobs(refs)))


@dataclass(frozen=True)
class _Piece:
    point_id: str
    constants: tuple[str, str, str, str]
    segment: SegmentRef


class _Scan:
    """What duckdb takes from `Dataset.scanner`: something with a reader."""

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        self._schema = schema
        self._batches = batches

    def to_reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self._schema, self._batches)


class ObjectsDataset(ds.Dataset):  # type: ignore[misc]
    """All objects of the points of *manifests*, with the columns of `OBJECTS_SCHEMA`.

    An error while reading cannot pass through Arrow as it is: it is kept in `failure`.
    """

    def __init__(self, loader: Loader, manifests: Sequence[Manifest]) -> None:
        self._loader = loader
        self.failure: BaseException | None = None
        self._pieces = [
            _Piece(manifest.id, (manifest.id, kind.group, kind.version, kind.kind), segment)
            for manifest in manifests
            for kind in manifest.kinds
            for segment in kind.segments
        ]
        self._catalog = _catalog(self._pieces)

    @property
    def schema(self) -> pa.Schema:
        return OBJECTS_SCHEMA

    @property
    def blobs_read(self) -> int:
        return self._loader.blobs_read

    @property
    def lists_read(self) -> int:
        return self._loader.lists_read

    def scanner(
        self,
        columns: Sequence[str] | None = None,
        filter: ds.Expression | None = None,
        **_: object,
    ) -> _Scan:
        """Return what a query needs: *columns* of the rows that pass *filter*."""
        names = list(OBJECTS_SCHEMA.names if columns is None else columns)
        schema = pa.schema([OBJECTS_SCHEMA.field(name) for name in names])
        return _Scan(schema, self._batches(names, schema, filter))

    def _batches(
        self, names: list[str], schema: pa.Schema, condition: ds.Expression | None
    ) -> Iterator[pa.RecordBatch]:
        by_manifest = set(names) <= set(_CONSTANT) and _applies(condition, _CONSTANT)
        blobs = [name for name in _BLOBS if name in names or not _applies(condition, _without(name))]
        early = condition if _applies(condition, _without(*_BLOBS)) else None
        late = None if early is not None else condition
        try:
            for piece in self._matching(condition):
                if by_manifest:
                    table = _constant_table(piece, piece.segment.rows)
                else:
                    rows = self._loader.segment(piece.segment)
                    table = _constant_table(piece, rows.num_rows)
                    for name in OBJECTS_SCHEMA.names[len(_CONSTANT) : -len(_BLOBS)]:
                        table = table.append_column(OBJECTS_SCHEMA.field(name), rows[_LIST_NAMES.get(name, name)])
                    if blobs:
                        table = _with_hints(table, rows)
                if early is not None:
                    table = table.filter(early)
                for part in self._with_blobs(piece, table, blobs) if blobs else (table,):
                    chosen = part.filter(late) if late is not None else part
                    yield from chosen.select(names).cast(schema).to_batches()
        except BaseException as error:
            self.failure = error
            raise

    def _matching(self, condition: ds.Expression | None) -> Iterator[_Piece]:
        for fragment in self._catalog.get_fragments(condition):
            yield self._pieces[int(fragment.path)]

    def _with_blobs(self, piece: _Piece, table: pa.Table, blobs: Sequence[str]) -> Iterator[pa.Table]:
        refs = {name: _refs(table, name) for name in blobs}
        sizes = [sum(ref.bytes for ref in row if ref) for row in zip(*refs.values(), strict=True)]
        for start, end in _parts(sizes):
            wanted = [ref for each in refs.values() for ref in each[start:end] if ref is not None]
            found = self._loader.blobs(piece.point_id, wanted) if wanted else {}
            part = table.slice(start, end - start)
            for name in _BLOBS:
                texts = (
                    [found[ref.digest] if ref else None for ref in refs[name][start:end]]
                    if name in refs
                    else [None] * (end - start)
                )
                part = part.append_column(OBJECTS_SCHEMA.field(name), pa.array(texts, pa.binary()).cast(pa.string()))
            yield part


def _catalog(pieces: Sequence[_Piece]) -> ds.Dataset:
    """Return a dataset whose fragments are the numbers of *pieces*: Arrow decides by their guarantees which can match.

    Nothing lies behind its paths and nothing reads them.
    """
    form = ds.ParquetFileFormat()
    nowhere = fs.LocalFileSystem()
    fragments = []
    for number, piece in enumerate(pieces):
        known = pc.scalar(True)
        for name, value in zip(_CONSTANT, piece.constants, strict=True):
            known &= pc.field(name) == value
        # The one order is not that of namespaces ("a-b/x" stands before "a/x"): only equal ends say what lies between.
        first, last = (_namespace(name) for name in (piece.segment.first, piece.segment.last))
        if first == last:
            known &= pc.field("namespace") == first
        fragments.append(form.make_fragment(str(number), nowhere, known))
    return ds.FileSystemDataset(fragments, OBJECTS_SCHEMA, form, nowhere)


def _namespace(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""


def _constant_table(piece: _Piece, rows: int) -> pa.Table:
    columns = [pa.repeat(value, rows) for value in piece.constants]
    return pa.table(columns, schema=pa.schema([OBJECTS_SCHEMA.field(name) for name in _CONSTANT]))


def _with_hints(table: pa.Table, rows: pa.Table) -> pa.Table:
    for name in _BLOBS:
        for hint in (f"{name}_pack", f"{name}_row_group"):
            table = table.append_column(rows.schema.field(hint), rows[hint])
    return table


def _refs(table: pa.Table, name: str) -> list[BlobRef | None]:
    size = "bytes" if name == "body" else f"{name}_bytes"
    columns = (f"{name}_digest", size, f"{name}_pack", f"{name}_row_group")
    values = zip(*(table[column].to_pylist() for column in columns), strict=True)
    return [BlobRef(*row) if row[0] is not None else None for row in values]


def _parts(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows whose blobs have at most `BATCH_BYTES` together (one row may have more)."""
    start, total = 0, 0
    for row, size in enumerate(sizes):
        if row > start and total + size > BATCH_BYTES:
            yield start, row
            start, total = row, 0
        total += size
    if sizes:
        yield start, len(sizes)


def _without(*names: str) -> tuple[str, ...]:
    return tuple(name for name in OBJECTS_SCHEMA.names if name not in names)


def _applies(condition: ds.Expression | None, names: Sequence[str]) -> bool:
    """Say whether *condition* needs no other columns than *names*: Arrow itself is asked, on a table without rows."""
    if condition is None:
        return True
    schema = pa.schema([OBJECTS_SCHEMA.field(name) for name in names])
    try:
        schema.empty_table().filter(condition)
    except pa.ArrowInvalid:
        return False
    return True
