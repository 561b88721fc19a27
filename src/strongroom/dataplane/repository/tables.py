"""Builds and reads the two tables beside the packs: list segments and indexes. Pure.

Columns are described in docs/format/repository.md, "Lists" and "Indexes".
"""

import zlib
from collections.abc import Mapping, Sequence

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from strongroom.dataplane.repository.errors import Damaged
from strongroom.dataplane.repository.model import BlobRef, Digest, FileRef, ObjectRow

CUT_MASK = 0x3FF  # a segment is cut after about 1,024 rows; chosen, not measured (docs/format/repository.md)
SEGMENT_MIN_ROWS = 256
SEGMENT_MAX_ROWS = 4_096

_BLOBS = ("body", "status", "managed_fields")

LIST_SCHEMA = pa.schema(
    [
        pa.field("group", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("namespace", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("uid", pa.string(), nullable=False),
        pa.field("resource_version", pa.string(), nullable=False),
        pa.field("generation", pa.int64()),
        pa.field("labels", pa.string(), nullable=False),
        *(
            field
            for blob in _BLOBS
            for field in (
                pa.field(blob, pa.binary(32)),
                pa.field(f"{blob}_bytes", pa.int32()),
                pa.field(f"{blob}_pack", pa.string()),
                pa.field(f"{blob}_row_group", pa.int32()),
            )
        ),
    ]
)
_LIST_DICTIONARY = ["group", "version", "kind", "namespace", "labels", *(f"{blob}_pack" for blob in _BLOBS)]

INDEX_SCHEMA = pa.schema(
    [
        pa.field("digest", pa.binary(32), nullable=False),
        pa.field("pack", pa.string(), nullable=False),
        pa.field("row_group", pa.int32(), nullable=False),
    ]
)
INDEX_PACKS = b"strongroom.packs"


def cuts_after(key: bytes) -> bool:
    """Tell whether a segment is cut after the object with this sort name: by content, so an insertion moves one cut."""
    return zlib.crc32(key) & CUT_MASK == 0


def content_bytes(rows: Sequence[ObjectRow]) -> bytes:
    """Return what a segment's content digest is taken of: its rows without the hints where blobs lie."""
    return msgspec.json.encode(
        [
            (
                r.group,
                r.version,
                r.kind,
                r.namespace,
                r.name,
                r.uid,
                r.resource_version,
                r.generation,
                r.labels,
                r.body.digest,
                r.status.digest if r.status else None,
                r.managed_fields.digest if r.managed_fields else None,
            )
            for r in rows
        ]
    )


def encode_list(rows: Sequence[ObjectRow]) -> memoryview:
    """Return a list segment as Parquet bytes."""
    columns: dict[str, list[object]] = {
        "group": [r.group for r in rows],
        "version": [r.version for r in rows],
        "kind": [r.kind for r in rows],
        "namespace": [r.namespace for r in rows],
        "name": [r.name for r in rows],
        "uid": [r.uid for r in rows],
        "resource_version": [r.resource_version for r in rows],
        "generation": [r.generation for r in rows],
        "labels": [r.labels for r in rows],
    }
    for name in _BLOBS:
        refs: list[BlobRef | None] = [getattr(r, name) for r in rows]
        columns[name] = [b.digest if b else None for b in refs]
        columns[f"{name}_bytes"] = [b.bytes if b else None for b in refs]
        columns[f"{name}_pack"] = [b.pack if b else None for b in refs]
        columns[f"{name}_row_group"] = [b.row_group if b else None for b in refs]
    return _write(pa.table(columns, schema=LIST_SCHEMA), _LIST_DICTIONARY)


def decode_list(path: str, data: bytes) -> list[ObjectRow]:
    """Return the rows of a list segment. Raises `Damaged`."""
    table = read_table(path, data, LIST_SCHEMA)
    c = {name: table[name].to_pylist() for name in table.column_names}
    refs = {name: _refs(c, name) for name in _BLOBS}
    rows = []
    for index, body in enumerate(refs["body"]):
        if body is None:
            raise Damaged(f"{path} holds an object without a body")
        rows.append(
            ObjectRow(
                c["group"][index],
                c["version"][index],
                c["kind"][index],
                c["namespace"][index],
                c["name"][index],
                c["uid"][index],
                c["resource_version"][index],
                c["generation"][index],
                c["labels"][index],
                body,
                refs["status"][index],
                refs["managed_fields"][index],
            )
        )
    return rows


def _refs(columns: dict[str, list[object]], name: str) -> list[BlobRef | None]:
    fields = zip(
        columns[name], columns[f"{name}_bytes"], columns[f"{name}_pack"], columns[f"{name}_row_group"], strict=True
    )
    return [
        BlobRef(digest, size, pack, group) if digest is not None else None  # type: ignore[arg-type]
        for digest, size, pack, group in fields
    ]


Place = tuple[str, int]
"""Where a blob lies: pack id and row group number."""


def encode_index(places: Mapping[Digest, Place], packs: Sequence[FileRef]) -> memoryview:
    """Return an index as Parquet bytes: rows sorted by digest, *packs* named in the file's metadata."""
    ordered = sorted(places)
    table = pa.table(
        {
            "digest": ordered,
            "pack": [places[d][0] for d in ordered],
            "row_group": [places[d][1] for d in ordered],
        },
        schema=INDEX_SCHEMA,
    )
    return _write(table, ["pack"], {INDEX_PACKS: msgspec.json.encode(packs)})


def decode_index(path: str, data: bytes) -> tuple[dict[Digest, Place], list[FileRef]]:
    """Return where an index says each blob lies, and the packs it names. Raises `Damaged`."""
    table = read_table(path, data, INDEX_SCHEMA)
    packs = named_packs(path, pq.read_metadata(pa.BufferReader(data)))
    columns = [table[name].to_pylist() for name in ("digest", "pack", "row_group")]
    shared: dict[Place, Place] = {}  # one tuple for each row group, not for each blob
    places = {}
    for digest, pack, row_group in zip(*columns, strict=True):
        place = (pack, row_group)
        places[digest] = shared.setdefault(place, place)
    return places, packs


def named_packs(path: str, metadata: pq.FileMetaData) -> list[FileRef]:
    """Return the packs that an index's footer names. Raises `Damaged`."""
    try:
        return msgspec.json.decode((metadata.metadata or {})[INDEX_PACKS], type=list[FileRef])
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"{path} does not name its packs") from error


def _write(table: pa.Table, dictionary: list[str], metadata: dict[bytes, bytes] | None = None) -> memoryview:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        compression_level=1,  # lists of 600 objects are no smaller with 3
        use_dictionary=dictionary,
        write_statistics=False,
        store_schema=False,
    ) as writer:
        writer.write_table(table)
        if metadata:
            writer.add_key_value_metadata(metadata)
    return memoryview(sink.getvalue()).cast("B")  # pyarrow's views are of signed bytes


def read_table(path: str, data: bytes, schema: pa.Schema) -> pa.Table:
    """Read Parquet bytes as *schema*; columns that a later minor version added are dropped. Raises `Damaged`."""
    try:
        # Not pq.read_table, nor a cast where none is needed: they import pyarrow.dataset and .compute (0.3 s of CPU).
        table = pq.ParquetFile(pa.BufferReader(data)).read(columns=schema.names).select(schema.names)
        return table if table.schema.equals(schema) else table.cast(schema)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise Damaged(f"{path} is not the Parquet table it should be: {error}") from error
