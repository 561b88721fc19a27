"""Joins repository and cluster where CSI snapshots have to go: deletion of recovery points, and prune."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from strongroom.cli.connection import connect
from strongroom.cli.options import ClusterOptions
from strongroom.cli.output import Output, Table
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery, discover
from strongroom.dataplane.repository.model import VolumeEntry
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.restore.imports import sweep_imports
from strongroom.dataplane.snapshots.delete import delete_snapshots
from strongroom.dataplane.snapshots.leftovers import sweep_dead_runs


@dataclass
class SnapshotDeleter:
    """Deletes CSI snapshots through one cluster; `reasons` holds, by handle, why one is still there."""

    api: KubeApi
    discovery: Discovery
    reasons: dict[str, str] = field(default_factory=dict)

    async def __call__(self, volumes: Sequence[VolumeEntry]) -> Sequence[VolumeEntry]:
        """Delete the snapshots of *volumes*; return the entries whose snapshot is not confirmed gone."""
        outcomes = await delete_snapshots(self.api, self.discovery, volumes)
        self.reasons.update((each.entry.handle, each.reason) for each in outcomes if not each.deleted)
        return [each.entry for each in outcomes if not each.deleted]


@asynccontextmanager
async def snapshot_deleter(cluster: ClusterOptions, output: Output) -> AsyncIterator[SnapshotDeleter | None]:
    """Connect to the cluster that was named; None if none was: a repository needs no cluster."""
    if cluster.kubeconfig is None and cluster.context is None:
        yield None
        return
    async with connect(cluster, output) as api:
        yield SnapshotDeleter(api, await discover(api))


def waiting_document(volume: VolumeEntry, reason: str) -> dict[str, object]:
    """Return a snapshot that is still there as documents list it."""
    return {
        "namespace": volume.namespace,
        "claim": volume.claim,
        "driver": volume.driver,
        "handle": volume.handle,
        "reason": reason,
    }


def waiting_table(volumes: Sequence[VolumeEntry], reasons: dict[str, str]) -> Table:
    """Return the snapshots that are still there, for people."""
    rows = [(f"{v.namespace}/{v.claim}", v.driver, v.handle, reasons.get(v.handle, NO_CLUSTER)) for v in volumes]
    return Table(("snapshot still there", "driver", "handle", "reason"), rows)


NO_CLUSTER = "no cluster was named: repeat with --kubeconfig"


async def sweep_leftovers(repository: Repository, deleter: SnapshotDeleter) -> tuple[list[str], str]:
    """Remove what backups and restores left in the cluster; return what was done, and what was not and why, or "".

    From restores these are the imports of claims that are bound by now. From dead backups of this repository they are
    CSI snapshots; one that any manifest names is never deleted, so while a manifest cannot be read, none is.
    """
    done = [f"{name}: removed, its claim is bound" for name in await sweep_imports(deleter.api)]
    swept, why = await sweep_dead_runs(deleter.api, deleter.discovery, repository)
    return [*done, *swept], why
