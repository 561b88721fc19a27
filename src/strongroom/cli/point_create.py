"""`strongroom point create`: backs up a cluster into a new recovery point."""

from typing import Annotated

from cyclopts import Parameter

from strongroom.cli.connection import connect
from strongroom.cli.documents import (
    coverage_document,
    coverage_remark,
    document,
    kind_name,
    point_summary,
    read_as_text,
)
from strongroom.cli.options import (
    EVERYTHING,
    NO_CLUSTER_NAMED,
    ClusterOptions,
    Repeatable,
    RepositoryOptions,
    SelectionOptions,
    pairs,
)
from strongroom.cli.output import DEFAULT_OUTPUT, Facts, Output, Table, emit, size_text, warn
from strongroom.cli.point import volume_table
from strongroom.cli.progress import Progress, progress
from strongroom.cli.session import open_repository
from strongroom.dataplane.collector.collect import BackupRequest, BackupResult, collect
from strongroom.dataplane.collector.collect import Progress as Step
from strongroom.dataplane.repository.model import Manifest, ReadAs
from strongroom.dataplane.repository.repository import PointInfo
from strongroom.errors import ExitCode


async def create(
    *,
    cluster: ClusterOptions = NO_CLUSTER_NAMED,
    repository: RepositoryOptions,
    selection: SelectionOptions = EVERYTHING,
    snapshot_volumes: bool = True,
    snapshot_parameter: Repeatable = (),
    marker: Annotated[bool, Parameter(negative="--no-marker")] = True,
    whole: Annotated[bool, Parameter(negative="")] = False,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Back up a cluster: take a recovery point. Exits with 3 when the point is Partial.

    Parameters
    ----------
    snapshot_volumes
        Take CSI snapshots of the selected volumes.
    snapshot_parameter
        NAME=VALUE laid over the parameters of the snapshot classes (`resourceGroup=…`, `incremental=true`). Repeatable.
    marker
        Leave a ConfigMap in the cluster that names the new point, so that the next backup reads only what changed.
    whole
        Read everything, whatever an earlier point has.
    """
    request = BackupRequest(
        selection=selection.selection(),
        snapshot_volumes=snapshot_volumes,
        snapshot_parameters=pairs("--snapshot-parameter", snapshot_parameter),
        marker=marker,
        whole=whole,
    )
    async with open_repository(repository) as opened, connect(cluster, output) as api:
        with progress(output) as bar:
            result = await collect(api, opened, request, progress=lambda step: _show(bar, step))
    emit(output, result_document(result), _facts(result))
    warn(output, result.warnings)
    return ExitCode.WHOLE if result.manifest.state == "Completed" else ExitCode.INCOMPLETE


def result_document(result: BackupResult) -> dict[str, object]:
    """Return what `point create` prints: the point as `point list` shows it, and all that scripts may ask about it."""
    manifest = result.manifest
    summary = point_summary(PointInfo(manifest.id, manifest))
    del summary["problem"]
    return summary | {
        "incremental": document(manifest.incremental),
        "bytesRead": result.bytes_read,
        "bytesWritten": result.bytes_written,
        "requests": result.requests,
        "volumes": document(manifest.volumes),
        "warnings": list(result.warnings),
        "coverage": coverage_document(manifest),
        "seconds": round(result.seconds, 3),
    }


def _show(bar: Progress, step: Step) -> None:
    bar.report(step.phase, step.done, step.total, "kinds" if step.total else "")


def _facts(result: BackupResult) -> Facts:
    manifest = result.manifest
    incremental = manifest.incremental
    values: dict[str, object] = {
        "recovery point": manifest.id,
        "state": manifest.state,
        "revision": manifest.instant.revision,
        "objects": f"{manifest.objects} ({size_text(manifest.object_bytes)})",
        "taken over": f"{incremental.taken_over} from {incremental.base}" if incremental.base else incremental.reason,
        "read from the cluster": f"{size_text(result.bytes_read)} in {result.requests} requests",
        "written": size_text(result.bytes_written),
        "seconds": f"{result.seconds:.2f}",
    }
    tables = [volume_table(manifest)] if manifest.volumes else []
    if missing := missing_table(manifest):
        tables.append(missing)
    return Facts({name: value for name, value in values.items() if value}, ids=[manifest.id], tables=tables)


def missing_table(manifest: Manifest) -> Table | None:
    """Return the kinds and groups that were selected and could not be read, None if there are none."""
    rows: list[tuple[object, ...]] = [
        (kind_name(kind.group, kind.kind), read_as_text(kind), coverage_remark(kind))
        for kind in manifest.kinds
        if kind.read_as is ReadAs.FAILED or kind.failed_namespaces
    ]
    rows += [(failure.group, "failed", failure.reason) for failure in manifest.failed_groups]
    return Table(("missing", "read", "reason"), rows) if rows else None
