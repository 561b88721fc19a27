"""Finds what a repository knows of CSI snapshots, and has the sweep remove what dead runs left in a cluster."""

from datetime import UTC, datetime, timedelta

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import NoSuchPoint, RepositoryError
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.snapshots.sweep import sweep_orphans


async def sweep_dead_runs(api: KubeApi, discovery: Discovery, repository: Repository) -> tuple[list[str], str]:
    """Remove CSI snapshots that dead backups of *repository* left; return what was done, and why not more, or "".

    One that any manifest names is never deleted, so while a manifest cannot be read, none is.
    """
    window = timedelta(seconds=repository.info.max_run_seconds)
    now = datetime.now(UTC)
    handles: set[str] = set()
    for point_id in await repository.point_ids():
        try:
            manifest = (await repository.load(point_id)).manifest
        except NoSuchPoint:
            continue  # swept since it was listed
        except RepositoryError as error:
            why = f"the manifest of {point_id} cannot be read, so its snapshots are not known: {error.message}"
            return [], f"snapshots of dead backups: {why}"
        handles.update(volume.handle for volume in manifest.volumes)
    records = await repository.records()
    handles.update(volume.handle for record, _ in records.condemned for volume in record.volumes)
    # Twice the longest run: the store's clock and ours need not agree.
    live = {paths.file_id(i.key) async for i in repository.store.list(paths.RUNS) if now - i.modified < 2 * window}
    done = await sweep_orphans(api, discovery, live, now - window, handles, repository_id=repository.info.id)
    return done, ""
