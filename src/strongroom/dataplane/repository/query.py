"""Answers SQL over a repository: the views points, objects, volumes, coverage (docs/format/query-views.md).

duckdb runs the SQL and sees Arrow data only. What it needs of `objects` it asks for itself, as it does with every
dataset: columns and filters after its own optimizer. So lists of points and kinds that a query leaves out are not read,
and bodies are read for the rows that are left, when a column of theirs is used. The connection is locked: no file, no
network, no extension, and nothing decrypted is ever spilled to disk.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import duckdb
import msgspec
import pyarrow as pa

from strongroom.dataplane.repository.model import Manifest
from strongroom.dataplane.repository.queryscan import Loader, ObjectsDataset
from strongroom.dataplane.repository.repository import PointInfo, Repository
from strongroom.errors import ExitCode, UsageError

ROWS_AT_ONCE = 1_000  # rows fetched between two looks at the event loop

_T = TypeVar("_T")

# Every door that duckdb has to files, network and code; `lock_configuration` comes last, after the views are there.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "temp_directory": "",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",
}
_LOCK = (
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)

_POINTS = pa.schema(
    [
        ("recovery_point_id", pa.string()),
        ("state", pa.string()),
        ("started", pa.string()),
        ("finished", pa.string()),
        ("revision", pa.string()),
        ("taken", pa.string()),
        ("cluster_id", pa.string()),
        ("server", pa.string()),
        ("server_version", pa.string()),
        ("selection", pa.string()),
        ("base", pa.string()),
        ("taken_over", pa.int64()),
        ("objects", pa.int64()),
        ("object_bytes", pa.int64()),
        ("bytes_read", pa.int64()),
        ("bytes_written", pa.int64()),
        ("warnings", pa.list_(pa.string())),
        ("writer", pa.string()),
        ("sequence", pa.int64()),
        ("caller", pa.string()),
    ]
)
_VOLUMES = pa.schema(
    [
        ("recovery_point_id", pa.string()),
        ("namespace", pa.string()),
        ("claim", pa.string()),
        ("claim_uid", pa.string()),
        ("volume", pa.string()),
        ("driver", pa.string()),
        ("storage_class", pa.string()),
        ("volume_mode", pa.string()),
        ("capacity", pa.string()),
        ("state", pa.string()),
        ("reason", pa.string()),
        ("handle", pa.string()),
        ("group_handle", pa.string()),
        ("snapshot_class", pa.string()),
        ("restore_size_bytes", pa.int64()),
        ("created", pa.string()),
        ("skew_ms", pa.int64()),
        ("crash_consistent", pa.bool_()),
        ("location", pa.string()),
    ]
)
_COVERAGE = pa.schema(
    [
        ("recovery_point_id", pa.string()),
        ("group", pa.string()),
        ("version", pa.string()),
        ("kind", pa.string()),
        ("plural", pa.string()),
        ("namespaced", pa.bool_()),
        ("read_as", pa.string()),
        ("revision", pa.string()),
        ("objects", pa.int64()),
        ("rule", pa.string()),
        ("reason", pa.string()),
        ("needed_by_only", pa.bool_()),
        ("failed_namespaces", pa.string()),
        ("skipped", pa.string()),
    ]
)

_VIEWS = (
    """CREATE VIEW points AS SELECT * REPLACE (
        try_cast(started AS TIMESTAMPTZ)::TIMESTAMP AS started,
        try_cast(finished AS TIMESTAMPTZ)::TIMESTAMP AS finished,
        try_cast(taken AS TIMESTAMPTZ)::TIMESTAMP AS taken, selection::JSON AS selection, caller::JSON AS caller)
    FROM strongroom_points""",
    """CREATE VIEW objects AS SELECT recovery_point_id, "group", version, kind, namespace, name, uid, resource_version,
        generation, labels::JSON AS labels, lower(hex(body_digest)) AS digest, bytes,
        lower(hex(status_digest)) AS status_digest, status_bytes, body::JSON AS body, status::JSON AS status
    FROM strongroom_objects""",
    """CREATE VIEW volumes AS SELECT * REPLACE (try_cast(created AS TIMESTAMPTZ)::TIMESTAMP AS created)
    FROM strongroom_volumes""",
    """CREATE VIEW coverage AS SELECT * REPLACE (failed_namespaces::JSON AS failed_namespaces, skipped::JSON AS skipped)
    FROM strongroom_coverage""",
)


class QueryRefused(UsageError):
    """The SQL is wrong, or asks for what a locked connection does not give."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class Column:
    """A column of a result: its name, and its type as duckdb spells it."""

    name: str
    type: str


@dataclass(frozen=True)
class QueryResult:
    """The answer to one statement: its columns, and its rows while they are computed."""

    columns: tuple[Column, ...]
    batches: AsyncIterator[list[tuple[Any, ...]]]
    """At most `ROWS_AT_ONCE` rows each, of JSON-able values: JSON columns parsed, times as ISO 8601 texts in UTC."""


class RepositoryQuery:
    """A locked duckdb connection over the usable recovery points of one repository; made by `open_query`.

    `problems` names the points that are left out because they are damaged or not trusted, with the reason.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, dataset: ObjectsDataset, problems: Sequence[str]) -> None:
        self._connection = connection
        self._dataset = dataset
        self.problems = tuple(problems)

    @property
    def blobs_read(self) -> int:
        """Bodies and statuses that queries needed so far."""
        return self._dataset.blobs_read

    @property
    def lists_read(self) -> int:
        """List segments that queries needed so far."""
        return self._dataset.lists_read

    async def run(self, sql: str) -> QueryResult:
        """Begin one statement. Raises `QueryRefused`; also while rows are fetched, and then `Damaged` too."""
        try:
            statements = self._connection.extract_statements(sql)
        except duckdb.Error as error:
            raise _refused(error) from error
        if len(statements) != 1:
            raise QueryRefused(f"query takes one statement, not {len(statements)}")
        relation: duckdb.DuckDBPyRelation | None = await self._call(lambda: self._connection.sql(statements[0].query))
        if relation is None:  # a statement without an answer
            return QueryResult((), self._rows(None, ()))
        columns = tuple(Column(str(n), str(t)) for n, t in zip(relation.columns, relation.types, strict=True))
        reader = await self._call(lambda: relation.to_arrow_reader(ROWS_AT_ONCE))
        return QueryResult(columns, self._rows(reader, columns))

    async def _rows(
        self, reader: pa.RecordBatchReader | None, columns: Sequence[Column]
    ) -> AsyncIterator[list[tuple[Any, ...]]]:
        while reader is not None:
            batch = await self._call(lambda: next(reader, None))
            if batch is None:
                return
            values = [_values(column, data) for column, data in zip(columns, batch.columns, strict=True)]
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                yield list(zip(*(each[start : start + ROWS_AT_ONCE] for each in values), strict=True))

    async def _call(self, work: Callable[[], _T]) -> _T:
        """Run duckdb's *work* in a thread; the event loop stays free to read what it asks for."""
        task = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._connection.interrupt()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # the interruption that we caused
            raise
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if self._dataset.failure is not None:
                raise self._dataset.failure from error
            raise _refused(error) from error


@asynccontextmanager
async def open_query(repository: Repository) -> AsyncIterator[RepositoryQuery]:
    """Open the views over all usable points of *repository*. Raises as `Repository.points`."""
    infos = await repository.points()
    manifests = [info.manifest for info in infos if info.manifest and not info.void]
    loop = asyncio.get_running_loop()

    def wait(work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    dataset = ObjectsDataset(Loader(repository, wait), manifests)
    connection = duckdb.connect(":memory:", config=_CONFIG)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("strongroom_points", _table(_POINTS, map(_point, manifests)))
        connection.register("strongroom_volumes", _table(_VOLUMES, _volumes(manifests)))
        connection.register("strongroom_coverage", _table(_COVERAGE, _coverage(manifests)))
        connection.register("strongroom_objects", dataset)
        for statement in (*_VIEWS, *_LOCK):
            connection.execute(statement)
        yield RepositoryQuery(connection, dataset, [_problem(info) for info in infos if info.problem])
    finally:
        connection.close()


def plain(value: Any) -> Any:
    """Return a value of duckdb's as JSON-able data: times as ISO 8601 in UTC, bytes as hex, odd numbers as texts."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat() + "Z"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    return str(value)


def _values(column: Column, data: pa.Array) -> list[Any]:
    try:
        values = data.to_pylist()
    except (ValueError, OverflowError):  # nanoseconds, infinity: what Python's times cannot hold
        values = data.cast(pa.string()).to_pylist()
    if column.type == "JSON":
        return [_parse(value) for value in values]
    if column.type == "JSON[]":
        return [None if value is None else [_parse(item) for item in value] for value in values]
    if column.type.startswith("MAP("):
        return [None if value is None else plain(dict(value)) for value in values]
    return [plain(value) for value in values]


def _parse(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def _refused(error: Exception) -> QueryRefused:
    # duckdb's message is "Binder Error: what\n\nLINE 1: …": the kind of error tells a user nothing.
    kind, _, what = str(error).partition(": ")
    hint = "The views are points, objects, volumes, coverage; `DESCRIBE objects` lists the columns of one"
    if isinstance(error, duckdb.PermissionException) or "configuration has been locked" in str(error):
        hint = "A query sees the repository and nothing else: no files, no network, no extensions, no settings"
    return QueryRefused((what or kind).strip(), hint=hint)


def _problem(info: PointInfo) -> str:
    return f"the recovery point {info.id} is left out: {info.problem}"


def _table(schema: pa.Schema, rows: Iterator[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=schema)


def _point(manifest: Manifest) -> dict[str, Any]:
    return {
        "recovery_point_id": manifest.id,
        "state": manifest.state,
        "started": manifest.started,
        "finished": manifest.finished,
        "revision": manifest.instant.revision,
        "taken": manifest.instant.taken,
        "cluster_id": manifest.cluster.id,
        "server": manifest.cluster.server,
        "server_version": manifest.cluster.version,
        "selection": msgspec.json.encode(manifest.selection).decode(),
        "base": manifest.incremental.base,
        "taken_over": manifest.incremental.taken_over,
        "objects": manifest.objects,
        "object_bytes": manifest.object_bytes,
        "bytes_read": manifest.bytes_read,
        "bytes_written": manifest.bytes_written,
        "warnings": list(manifest.warnings),
        "writer": manifest.writer,
        "sequence": manifest.sequence,
        "caller": msgspec.json.encode(manifest.caller).decode(),
    }


def _volumes(manifests: Sequence[Manifest]) -> Iterator[dict[str, Any]]:
    for manifest in manifests:
        for volume in manifest.volumes:
            values = {name: getattr(volume, name, None) for name in _VOLUMES.names}
            yield values | {"recovery_point_id": manifest.id, "state": volume.state.value}


def _coverage(manifests: Sequence[Manifest]) -> Iterator[dict[str, Any]]:
    for manifest in manifests:
        for kind in manifest.kinds:
            values = {name: getattr(kind, name, None) for name in _COVERAGE.names}
            yield values | {
                "recovery_point_id": manifest.id,
                "read_as": kind.read_as.value,
                "failed_namespaces": msgspec.json.encode(kind.failed_namespaces).decode(),
                "skipped": msgspec.json.encode(kind.skipped).decode(),
            }
        for failure in manifest.failed_groups:
            group, _, version = failure.group.partition("/")
            yield {
                "recovery_point_id": manifest.id,
                "group": group,
                "version": version or None,
                "read_as": "failed",
                "objects": 0,
                "reason": failure.reason,
                "failed_namespaces": "{}",
                "skipped": "{}",
            }
