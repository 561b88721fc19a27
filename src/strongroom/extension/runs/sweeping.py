"""Clears away what killed backups and restores left in the cluster."""

import asyncio
import logging
from typing import Final

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import discover
from strongroom.dataplane.kube.errors import KubeError
from strongroom.dataplane.restore.imports import sweep_imports
from strongroom.dataplane.snapshots.leftovers import sweep_dead_runs
from strongroom.errors import StrongroomError
from strongroom.extension.runs.context import RunContext

log = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 86_400.0  # what is left is a day old before it may be swept; sooner finds nothing new


async def sweep_restores(api: KubeApi) -> None:
    """Remove the volume imports of earlier restores whose claims are bound by now. A server that refuses is logged."""
    try:
        for name in await sweep_imports(api):
            log.info("import of a restored volume removed", extra={"content": name})
    except KubeError as error:
        log.warning("imports of earlier restores were not swept", extra={"reason": error.message})


class Sweeper:
    """Sweeps in the background; what fails is tried again with the next backup a day later."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._swept_at: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def backed_up(self, location: str) -> None:
        """Sweep what belongs to the repository of *location*, unless that was done within a day."""
        now = asyncio.get_running_loop().time()
        if now - self._swept_at.get(location, float("-inf")) < SWEEP_SECONDS:
            return
        self._swept_at[location] = now
        task = asyncio.create_task(self._sweep(location), name=f"sweep {location}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Stop sweeping; every step may be repeated."""
        for task in self._tasks:
            task.cancel()

    async def _sweep(self, location: str) -> None:
        try:
            async with self._context.repository(location) as repository, self._context.connect() as api:
                done, why = await sweep_dead_runs(api, await discover(api), repository)
        except StrongroomError as error:
            log.warning("leftovers were not swept", extra={"location": location, "reason": error.message})
            return
        for text in done:
            log.info("leftover swept", extra={"location": location, "what": text})
        if why:
            log.warning("leftovers were not swept", extra={"location": location, "reason": why})
