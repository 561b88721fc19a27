"""`strongroom point objects` and `point cat`: looks at the objects in a recovery point."""

import sys
from typing import Annotated

import msgspec
from cyclopts import Parameter

from strongroom.cli.documents import coverage_remark, kind_name, object_document
from strongroom.cli.kinds import find_entry, object_name, select
from strongroom.cli.options import EVERYTHING, RepositoryOptions, SelectionOptions, split_kind_name
from strongroom.cli.output import DEFAULT_OUTPUT, Format, ListWriter, Output, yaml_text
from strongroom.cli.session import open_repository
from strongroom.dataplane.repository.errors import NoSuchObject
from strongroom.dataplane.repository.model import ReadAs
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.errors import ExitCode


async def objects(
    point_id: str,
    /,
    *,
    repository: RepositoryOptions,
    selection: SelectionOptions = EVERYTHING,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """List the objects of a recovery point.

    Parameters
    ----------
    point_id
        The id, a unique beginning of it, or `latest`.
    """
    async with open_repository(repository) as opened:
        point = await opened.point(point_id)
        entries, keeps = select(point.manifest, selection.selection())
        columns = ("kind", "version", "namespace", "name", "uid", "bytes", "digest")
        with ListWriter(output, columns, empty="no object matches") as found:
            for entry in entries:
                async for rows in point.rows(entry):
                    for row in filter(keeps, rows):
                        cells = (
                            kind_name(row.group, row.kind),
                            row.version,
                            row.namespace,
                            row.name,
                            row.uid,
                            row.body.bytes,
                            row.body.digest.hex()[:12],
                        )
                        found.add(object_document(row), cells, object_name(row))
    return ExitCode.WHOLE


async def cat(
    point_id: str,
    kind: Annotated[str, Parameter(metavar="KIND[.GROUP]")],
    name: Annotated[str, Parameter(metavar="[NAMESPACE/]NAME")],
    /,
    *,
    repository: RepositoryOptions,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Print one object as the cluster served it: YAML, or JSON with `--output json`.

    Parameters
    ----------
    point_id
        The id, a unique beginning of it, or `latest`.
    kind
        As in kubectl (`deploy`, `certificates.cert-manager.io`), or `v1/Secret`.
    name
        The object's name, with its namespace unless it is cluster-scoped.
    """
    async with open_repository(repository) as opened:
        point = await opened.point(point_id)
        served = await read_object(point, kind, name)
    if output.output is Format.JSON:
        # Reformatted as text: numbers keep the server's spelling.
        sys.stdout.buffer.write(msgspec.json.format(served, indent=2) + b"\n")
        sys.stdout.flush()
    else:
        sys.stdout.write(yaml_text(msgspec.json.decode(served)))
    return ExitCode.WHOLE


async def read_object(point: RecoveryPoint, spelling: str, name: str) -> bytes:
    """Return one object of *point* as it was served. Raises `UnknownKind`, `NoSuchObject`, `Damaged`."""
    entry = find_entry(point.manifest, spelling)
    namespace, bare = split_kind_name(name)
    said = f"{kind_name(entry.group, entry.kind)} {name}"
    if entry.namespaced and not namespace:
        raise NoSuchObject(f"{said} names no namespace", hint=f"Write {entry.kind} NAMESPACE/{bare}")
    if not entry.namespaced and namespace:
        raise NoSuchObject(f"{entry.kind} is cluster-scoped", hint=f"Write {entry.kind} {bare}")
    row = await point.find(entry.group, entry.kind, namespace, bare)
    if row is None:
        remark = coverage_remark(entry)
        why = f" (the kind was not saved: {remark})" if entry.read_as not in (ReadAs.EXACT, ReadAs.AT_REVISION) else ""
        raise NoSuchObject(
            f"the recovery point {point.id} has no {said}{why}",
            hint=f"See what it has: strongroom point objects {point.id} --include-kind {entry.plural}",
        )
    return await point.served(row)
