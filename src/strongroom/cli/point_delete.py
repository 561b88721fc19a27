"""`strongroom point delete`: lets recovery points go, with the CSI snapshots that they own."""

from typing import Annotated

from cyclopts import Parameter

from strongroom.cli.options import NO_CLUSTER_NAMED, ClusterOptions, RepositoryOptions
from strongroom.cli.output import DEFAULT_OUTPUT, Facts, Output, emit
from strongroom.cli.session import open_repository
from strongroom.cli.volumes import NO_CLUSTER, snapshot_deleter, waiting_document, waiting_table
from strongroom.dataplane.repository.prune import delete_point
from strongroom.errors import ExitCode


async def delete(
    point_id: Annotated[str, Parameter(metavar="ID")],
    /,
    *,
    repository: RepositoryOptions,
    cluster: ClusterOptions = NO_CLUSTER_NAMED,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Delete a recovery point and its CSI snapshots.

    The point is gone at once; its files go with a later `repository prune`. Snapshots are deleted through the cluster
    that --kubeconfig or --context names. Those that are still there are listed, wait for `repository prune`, and make
    the exit code 3.

    Parameters
    ----------
    point_id
        The whole id. `latest` and beginnings of ids are not taken here.
    """
    async with open_repository(repository) as opened, snapshot_deleter(cluster, output) as deleter:
        left = await delete_point(opened, point_id, delete_volumes=deleter)
    reasons = deleter.reasons if deleter else {}
    found = {
        "recoveryPointId": point_id,
        "deleted": True,
        "snapshotsLeft": [waiting_document(volume, reasons.get(volume.handle, NO_CLUSTER)) for volume in left],
    }
    tables = [waiting_table(left, reasons)] if left else []
    emit(output, found, Facts({"deleted": point_id}, ids=[point_id], tables=tables))
    return ExitCode.INCOMPLETE if left else ExitCode.WHOLE
