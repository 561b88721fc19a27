"""Builds packs, the Parquet files that hold blobs, and reads single row groups of them. Pure.

Row groups hold at most 256 KiB of raw blobs, and a blob over 128 KiB has one of its own: pyarrow reads no page index,
so the row group is the smallest thing that can be read (tried: one row cost the whole file; design.md, section 4).
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from strongroom.dataplane.repository.errors import Damaged
from strongroom.dataplane.repository.model import Digest

ROW_GROUP_BYTES = 256 * 1024
OWN_GROUP_BYTES = 128 * 1024
COMPRESSION_LEVEL = 1  # of packs of 4 MB, level 3 took 1.6 times as long and made them 1.6 % smaller

SCHEMA = pa.schema(
    [
        pa.field("digest", pa.binary(32), nullable=False),
        pa.field("what", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("namespace", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("blob", pa.string(), nullable=False),
    ]
)
_COMPRESSED = ("name", "blob")
"""The others are random (digests) or a dictionary of a few values: compressing them took a tenth of a pack's time and
made it no smaller (57 MB of objects, 17.5 MiB either way)."""
_SAME_VALUES = ["what", "group", "version", "kind", "namespace"]


class PackRow(NamedTuple):
    """One blob with the object it was first seen in."""

    digest: Digest
    what: str
    group: str
    version: str
    kind: str
    namespace: str
    name: str
    blob: bytes


class PackBuilder:
    """Writes one pack, row group after row group, by one thread; `finish` once.

    `size`, the bytes written so far, may be read from any thread and waits for nothing.
    """

    def __init__(self) -> None:
        self.size = 0
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(
            self._sink,
            SCHEMA,
            compression={field.name: "ZSTD" if field.name in _COMPRESSED else "NONE" for field in SCHEMA},
            compression_level=dict.fromkeys(_COMPRESSED, COMPRESSION_LEVEL),
            use_dictionary=_SAME_VALUES,
            write_statistics=False,
            store_schema=False,
        )

    def add_row_group(self, rows: Sequence[PackRow]) -> None:
        """Append one row group. Raises `Damaged` when a blob is not UTF-8 (no API server serves such a thing)."""
        columns = list(zip(*rows, strict=True))
        # Views, not casts: a cast imports pyarrow.compute, 0.2 s of CPU in the middle of a backup.
        blobs = pa.array(columns[-1], pa.binary()).view(pa.string())
        try:
            blobs.validate(full=True)
        except pa.ArrowInvalid as error:
            raise Damaged(f"the API server served a {rows[0].kind} that is not UTF-8: {error}") from error
        arrays = [pa.array(columns[0], pa.binary(32)), *(pa.array(c, pa.string()) for c in columns[1:-1]), blobs]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), row_group_size=len(rows))
        self.size = self._sink.tell()

    def finish(self) -> memoryview:
        """Close the pack and return its bytes."""
        self._writer.close()
        return memoryview(self._sink.getvalue()).cast("B")  # pyarrow's views are of signed bytes


class SparseFile(io.RawIOBase):
    """A read-only file of which only some ranges are at hand; reading outside them is an error.

    So Parquet's reader works on ranges that were fetched (and authenticated) before.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._position = 0
        self._ranges: list[tuple[int, bytes]] = []

    def put(self, offset: int, data: bytes) -> None:
        """Make the bytes from *offset* on known."""
        self._ranges.append((offset, data))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = self._length - self._position
        size = min(size, self._length - self._position)
        for offset, data in self._ranges:
            at = self._position - offset
            if at >= 0 and at + size <= len(data):
                self._position += size
                return data[at : at + size]
        raise ValueError(f"bytes {self._position}+{size} of a pack were asked for and had not been fetched")


def row_group_range(metadata: pq.FileMetaData, number: int) -> tuple[int, int]:
    """Return the range (start, end) of a pack's bytes that row group *number* takes. Raises `Damaged`."""
    if not 0 <= number < metadata.num_row_groups:
        raise Damaged(f"a pack has no row group {number}")
    group = metadata.row_group(number)
    starts = []
    ends = []
    for index in range(group.num_columns):
        column = group.column(index)
        start = column.data_page_offset
        if column.dictionary_page_offset:
            start = min(start, column.dictionary_page_offset)
        starts.append(start)
        ends.append(start + column.total_compressed_size)
    return min(starts), max(ends)


def footer_length(tail: bytes) -> int:
    """Return how many bytes at the end of a Parquet file its footer takes, from the file's last 8 bytes."""
    if len(tail) < 8 or tail[-4:] != b"PAR1":
        raise Damaged("a file that should be Parquet does not end like one")
    return int.from_bytes(tail[-8:-4], "little") + 8


def read_row_group(file: SparseFile, metadata: pq.FileMetaData, number: int) -> dict[Digest, bytes]:
    """Return the blobs of one row group by digest. Raises `Damaged` when Parquet cannot read it."""
    try:
        table = pq.ParquetFile(file, metadata=metadata).read_row_group(number, columns=["digest", "blob"])
        blobs = [blob for chunk in table["blob"].chunks for blob in chunk.view(pa.binary()).to_pylist()]
        return dict(zip(table["digest"].to_pylist(), blobs, strict=True))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Damaged(f"row group {number} of a pack cannot be read: {error}") from error


def read_metadata(file: SparseFile) -> pq.FileMetaData:
    """Return a pack's footer. Raises `Damaged`."""
    try:
        return pq.read_metadata(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Damaged(f"the footer of a pack cannot be read: {error}") from error


def read_pack(path: str, data: bytes) -> list[dict[Digest, bytes]]:
    """Return all blobs of a whole pack by digest, a dict for each row group. Raises `Damaged`."""
    file = SparseFile(len(data))
    file.put(0, data)
    try:
        metadata = read_metadata(file)
        return [read_row_group(file, metadata, number) for number in range(metadata.num_row_groups)]
    except Damaged as error:
        raise Damaged(f"{path}: {error.message}") from error
