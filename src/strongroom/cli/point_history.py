"""`strongroom point history` and `point search`: one object over all recovery points, one text over all objects."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from cyclopts import Parameter

from strongroom.cli.documents import kind_name
from strongroom.cli.kinds import find_entry, object_name, select
from strongroom.cli.options import EVERYTHING, RepositoryOptions, SelectionOptions, split_kind_name
from strongroom.cli.output import DEFAULT_OUTPUT, ListWriter, Output, note
from strongroom.cli.point_diff import change_fields, shown
from strongroom.cli.session import open_repository
from strongroom.dataplane.kube.errors import UnknownKind
from strongroom.dataplane.repository.diff import BATCH_OBJECTS, body_changes
from strongroom.dataplane.repository.errors import NoSuchObject
from strongroom.dataplane.repository.model import ObjectRow
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.repository import Repository
from strongroom.errors import ExitCode, UsageError

# Characters around a hit that search shows: enough to tell what it is, on one line of a terminal.
CONTEXT_CHARACTERS = 30


async def history(
    kind: Annotated[str, Parameter(metavar="KIND[.GROUP]")],
    name: Annotated[str, Parameter(metavar="[NAMESPACE/]NAME")],
    /,
    *,
    repository: RepositoryOptions,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Show how one object changed over all recovery points, oldest first.

    Exits with 4 when a recovery point is damaged and so left out.

    Parameters
    ----------
    kind
        As in kubectl (`deploy`, `certificates.cert-manager.io`), or `v1/Secret`.
    name
        The object's name, with its namespace unless it is cluster-scoped.
    """
    namespace, bare = split_kind_name(name)
    columns = ("recovery point", "finished", "change", "resource version", "field", "before", "after")
    seen = False
    previous: tuple[ObjectRow, bytes] | None = None
    async with open_repository(repository) as opened:
        points, damaged = await _points(opened, output)
        unknown: UnknownKind | None = None
        with ListWriter(output, columns) as found:
            for point in points:
                try:
                    entry = find_entry(point.manifest, kind)
                except UnknownKind as error:
                    unknown, row = error, None
                else:
                    row = await point.find(entry.group, entry.kind, namespace, bare)
                seen = seen or row is not None
                current: tuple[ObjectRow, bytes] | None = None
                if row is not None and previous is not None and previous[0].body.digest == row.body.digest:
                    current = (row, previous[1])
                elif row is not None:
                    current = (row, (await point.blobs([row.body]))[row.body.digest])
                if seen:
                    _add_version(found, point, previous, current)
                previous = current
            if not seen:
                if unknown is not None and not any(_knows(point, kind) for point in points):
                    raise unknown
                raise NoSuchObject(
                    f"no recovery point has {kind} {name}", hint="See what one has: strongroom point objects latest"
                )
    return ExitCode.DAMAGED if damaged else ExitCode.WHOLE


async def search(
    text: str,
    /,
    *,
    repository: RepositoryOptions,
    point: Annotated[str | None, Parameter(metavar="ID")] = None,
    regex: Annotated[bool, Parameter(negative="")] = False,
    selection: SelectionOptions = EVERYTHING,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Find objects whose name or body contains a text: in all recovery points, each content once.

    The values of Secrets are stored as base64 and are searched as such. Exits with 4 when a recovery point is damaged
    and so left out.

    Parameters
    ----------
    text
        Letters of either case match. It is looked for in the JSON of the body.
    point
        Only in this recovery point: its id, a unique beginning of it, or `latest`.
    regex
        The text is a regular expression of Python's.
    """
    try:
        pattern = re.compile(text if regex else re.escape(text), re.IGNORECASE)
    except re.error as error:
        raise UsageError(f"{text!r} is not a regular expression: {error}") from error
    columns = ("recovery point", "kind", "namespace", "name", "where")
    known: set[tuple[str, str, str, str, bytes]] = set()
    async with open_repository(repository) as opened:
        if point is None:
            points, damaged = await _points(opened, output)
        else:
            points, damaged = [await opened.point(point)], False
        with ListWriter(output, columns, empty="nothing contains it") as found:
            for each in points:
                entries, keeps = select(each.manifest, selection.selection())
                for entry in entries:
                    async for rows in each.rows(entry):
                        new = [row for row in rows if keeps(row) and _key(row) not in known]
                        known.update(map(_key, new))
                        async for row, where in _hits(each, new, pattern):
                            _add_hit(found, each, row, where)
    return ExitCode.DAMAGED if damaged else ExitCode.WHOLE


async def _points(repository: Repository, output: Output) -> tuple[list[RecoveryPoint], bool]:
    """Return the usable points, oldest first, and whether there are damaged ones; these are named on stderr."""
    usable, damaged = [], False
    for info in await repository.points():
        if info.manifest and not info.void:
            usable.append(await repository.load(info.id))
        elif not info.void:
            damaged = True
            note(output, f"warning: the recovery point {info.id} is left out: {info.problem}")
    return usable, damaged


def _knows(point: RecoveryPoint, spelling: str) -> bool:
    try:
        find_entry(point.manifest, spelling)
    except UnknownKind:
        return False
    return True


def _add_version(
    found: ListWriter,
    point: RecoveryPoint,
    previous: tuple[ObjectRow, bytes] | None,
    current: tuple[ObjectRow, bytes] | None,
) -> None:
    """Add what *point* says of the object, compared with the point before; nothing where nothing changed."""
    head = {"recoveryPointId": point.id, "finished": point.manifest.finished}
    fields = []
    if current is None:
        if previous is None:
            return
        change, version = "removed", ""
    elif previous is None:
        change, version = "added", current[0].resource_version
    else:
        fields = body_changes(previous[0], previous[1], current[0].uid, current[1])
        change, version = "changed" if fields else "same", current[0].resource_version
    digest = current[0].body.digest.hex() if current else None
    document = head | {"change": change, "resourceVersion": version or None, "digest": digest}
    cells = (point.id, point.manifest.finished, change, version)
    rows = [(*cells, f.path, shown(f, f.before), shown(f, f.after)) for f in fields] or [(*cells, "", "", "")]
    found.add(document | {"fields": change_fields(fields)}, rows[0], point.id)
    for row in rows[1:]:
        found.add_row(("", "", "", "", *row[4:]))


def _key(row: ObjectRow) -> tuple[str, str, str, str, bytes]:
    return (row.group, row.kind, row.namespace, row.name, row.body.digest)


async def _hits(
    point: RecoveryPoint, rows: Sequence[ObjectRow], pattern: re.Pattern[str]
) -> AsyncIterator[tuple[ObjectRow, str]]:
    for start in range(0, len(rows), BATCH_OBJECTS):
        batch = rows[start : start + BATCH_OBJECTS]
        bodies = await point.blobs([row.body for row in batch])
        for row in batch:
            text = bodies[row.body.digest].decode(errors="replace")
            if match := pattern.search(text):
                yield row, text[max(0, match.start() - CONTEXT_CHARACTERS) : match.end() + CONTEXT_CHARACTERS]


def _add_hit(found: ListWriter, point: RecoveryPoint, row: ObjectRow, where: str) -> None:
    document = {
        "recoveryPointId": point.id,
        "group": row.group,
        "version": row.version,
        "kind": row.kind,
        "namespace": row.namespace,
        "name": row.name,
        "digest": row.body.digest.hex(),
        "where": where,
    }
    cells = (point.id, kind_name(row.group, row.kind), row.namespace, row.name, where)
    found.add(document, cells, f"{point.id} {object_name(row)}")
