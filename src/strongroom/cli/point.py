"""`strongroom point`: lists recovery points and shows one; the other commands of the group have files of their own."""

from cyclopts import App

from strongroom.cli.documents import (
    coverage_document,
    coverage_remark,
    kind_name,
    point_document,
    point_summary,
    read_as_text,
)
from strongroom.cli.options import RepositoryOptions
from strongroom.cli.output import DEFAULT_OUTPUT, Facts, ListWriter, Output, Table, emit, size_text, warn
from strongroom.cli.session import open_repository
from strongroom.dataplane.repository.model import Manifest, ReadAs
from strongroom.errors import ExitCode

app = App(name="point", help="Take recovery points, and look into them.")
app.command("strongroom.cli.point_create:create", name="create", help="Back up a cluster: take a recovery point.")
app.command("strongroom.cli.point_objects:objects", name="objects", help="List the objects of a recovery point.")
app.command("strongroom.cli.point_objects:cat", name="cat", help="Print one object as the cluster served it.")
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
