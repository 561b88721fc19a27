"""`strongroom point`: lists, shows and deletes recovery points, and looks into them. Taking one: `point_create.py`."""

import sys
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from strongroom.cli.documents import (
    coverage_document,
    coverage_remark,
    object_document,
    point_document,
    point_summary,
    read_as_text,
)
from strongroom.cli.kinds import find_entry, kind_name, object_name, select
from strongroom.cli.options import EVERYTHING, RepositoryOptions, SelectionOptions, split_kind_name
from strongroom.cli.output import (
    DEFAULT_OUTPUT,
    Facts,
    Format,
    ListWriter,
    Output,
    Table,
    emit,
    size_text,
    warn,
    yaml_text,
)
from strongroom.cli.session import open_repository
from strongroom.dataplane.repository.errors import NoSuchObject
from strongroom.dataplane.repository.model import Manifest, ReadAs
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.errors import ExitCode

app = App(name="point", help="Take recovery points, and look into them.")
app.command("strongroom.cli.point_create:create", name="create", help="Back up a cluster: take a recovery point.")
app.command("strongroom.cli.point_delete:delete", name="delete", help="Delete recovery points and their snapshots.")
app.command(
    "strongroom.cli.point_diff:diff",
    name="diff",
    help="Show what changed between two recovery points, or between one and the live cluster.",
)
app.command("strongroom.cli.point_history:history", name="history", help="Show how one object changed over time.")
app.command("strongroom.cli.point_history:search", name="search", help="Find objects that contain a text.")


@app.command(name="list")
async def list_(*, repository: RepositoryOptions, output: Output = DEFAULT_OUTPUT) -> ExitCode:
    """List the recovery points, oldest first. Exits with 4 when one of them is damaged or not trusted."""
    async with open_repository(repository) as opened:
        points = await opened.points()
    columns = ("recovery point", "state", "finished", "revision", "objects", "read", "written", "volumes", "problem")
    with ListWriter(output, columns, empty="no recovery points yet; take one: strongroom point create") as found:
        for point in points:
            entry = point_summary(point)
            row = (
                point.id,
                entry["state"],
                entry.get("finished"),
                entry.get("revision"),
                entry.get("objects"),
                size_text(entry.get("bytesRead")),
                size_text(entry.get("bytesWritten")),
                entry.get("volumes"),
                point.problem,
            )
            found.add(entry, row, point.id)
    damaged = any(point.problem and not point.void for point in points)
    return ExitCode.DAMAGED if damaged else ExitCode.WHOLE


@app.command
async def show(point_id: str, /, *, repository: RepositoryOptions, output: Output = DEFAULT_OUTPUT) -> ExitCode:
    """Show one recovery point: when and how it was made, its volumes and warnings.

    Parameters
    ----------
    point_id
        The id, a unique beginning of it, or `latest`.
    """
    async with open_repository(repository) as opened:
        manifest = (await opened.point(point_id)).manifest
    emit(output, point_document(manifest), _point_facts(manifest))
    warn(output, manifest.warnings)
    return ExitCode.WHOLE


@app.command
async def coverage(point_id: str, /, *, repository: RepositoryOptions, output: Output = DEFAULT_OUTPUT) -> ExitCode:
    """Show what became of every kind that the cluster served: saved, excluded by which rule, or failed and why.

    Parameters
    ----------
    point_id
        The id, a unique beginning of it, or `latest`.
    """
    async with open_repository(repository) as opened:
        manifest = (await opened.point(point_id)).manifest
    kinds = Table(
        ("kind", "version", "objects", "read", "remark"),
        [
            (kind_name(kind.group, kind.kind), kind.version, kind.objects, read_as_text(kind), coverage_remark(kind))
            for kind in manifest.kinds
        ],
    )
    tables = [kinds]
    if manifest.failed_groups:
        rows = [(failure.group, failure.reason) for failure in manifest.failed_groups]
        tables.append(Table(("failed group", "reason"), rows))
    if manifest.excluded_namespaces:
        tables.append(Table(("namespace left out", "rule"), sorted(manifest.excluded_namespaces.items())))
    if manifest.references:
        references = [(r.kind, f"{r.namespace}/{r.name}", r.referred_by) for r in manifest.references]
        tables.append(Table(("referred to, not saved", "name", "referred to by"), references))
    ids = [kind_name(kind.group, kind.kind) for kind in manifest.kinds if kind.read_as is not ReadAs.EXCLUDED]
    head = {"recovery point": manifest.id, "state": manifest.state, "revision": manifest.instant.revision}
    emit(output, coverage_document(manifest), Facts(head, ids=ids, tables=tables))
    return ExitCode.WHOLE


@app.command
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


@app.command
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
    elif not output.quiet or output.output is Format.YAML:
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


def _point_facts(manifest: Manifest) -> Facts:
    incremental = manifest.incremental
    values: dict[str, object] = {
        "recovery point": manifest.id,
        "state": manifest.state,
        "started": manifest.started,
        "finished": manifest.finished,
        "revision": manifest.instant.revision,
        "cluster": f"{manifest.cluster.server} ({manifest.cluster.version}, {manifest.cluster.id})",
        "objects": f"{manifest.objects} ({size_text(manifest.object_bytes)})",
        "read from the cluster": size_text(manifest.bytes_read),
        "written": size_text(manifest.bytes_written),
        "taken over": f"{incremental.taken_over} from {incremental.base}" if incremental.base else incremental.reason,
    }
    tables = []
    if manifest.volumes:
        tables.append(volume_table(manifest))
    return Facts({name: value for name, value in values.items() if value}, ids=[manifest.id], tables=tables)


def volume_table(manifest: Manifest) -> Table:
    """Return the volumes of a recovery point as people read them."""
    rows = [
        (
            f"{volume.namespace}/{volume.claim}",
            volume.state.value,
            volume.driver,
            volume.capacity,
            f"{volume.skew_ms} ms" if volume.skew_ms is not None else "",
            volume.handle or volume.reason,
        )
        for volume in manifest.volumes
    ]
    return Table(("claim", "snapshot", "driver", "capacity", "skew to X", "handle or reason"), rows)
