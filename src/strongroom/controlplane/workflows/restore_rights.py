"""Gives the extension of a cluster the right to write everywhere while restores into it run, and takes it back.

design.md, section 8: *restore* is as much as cluster-admin, and off until a restore is set up. So it is on from the
start of a restore job to the end of the last one into that cluster, however each ends.
"""

import asyncio
import logging
import weakref
from typing import Final

from strongroom.controlplane.clusters.installer import disable_restore, enable_restore
from strongroom.controlplane.clusters.pool import ClusterUnknown
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.errors import StateUnavailable
from strongroom.controlplane.workflows.jobdocs import RESTORE
from strongroom.controlplane.workflows.restoring import restore_of
from strongroom.controlplane.workflows.services import Services
from strongroom.errors import StrongroomError

log = logging.getLogger(__name__)

TAKE_BACK_SECONDS: Final = 60.0  # two requests; a cluster that does not answer keeps its binding, and GET tells so


class RestoreRights:
    """The right of the clusters' extensions to restore. Used in one event loop, by one process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        # Between the look for other restores and the removal none may begin.
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def give(self, cluster: str) -> None:
        """Let the extension of *cluster* (ARM id) restore. Raises as `enable_restore` does."""
        async with self._turn(cluster):
            await enable_restore(await self._services.pool.access(cluster))

    async def take_back(self, cluster: str, job: str) -> None:
        """Take the right back after *job*, unless another restore into *cluster* runs; failures are logged."""
        try:
            async with asyncio.timeout(TAKE_BACK_SECONDS), self._turn(cluster):
                if not await self._services.read(lambda tx: restores_into(tx, cluster) - {job.lower()}):
                    await disable_restore(await self._services.pool.access(cluster))
        except ClusterUnknown:
            pass  # disconnected: the binding went with all the rest
        except StateUnavailable:
            raise  # the step is done again
        except (TimeoutError, StrongroomError) as error:
            log.warning("the right to restore was not taken back", extra={"cluster": cluster, "reason": str(error)})

    def _turn(self, cluster: str) -> asyncio.Lock:
        return self._turns.setdefault(cluster.lower(), asyncio.Lock())


def restores_into(tx: Tx, cluster: str) -> set[str]:
    """Return the ids of the restore jobs that run with *cluster* (ARM id) as their target."""
    return {
        job.id.lower()
        for job in tx.jobs.all_running()
        if job.category == RESTORE and restore_of(job.private["request"]).target.lower() == cluster.lower()
    }
