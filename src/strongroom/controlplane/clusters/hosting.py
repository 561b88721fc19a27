"""Keeps the hosted extension of one cluster running: starts its process, and starts it again whenever it ends."""

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import Final

from strongroom.controlplane.clusters.access import ClusterAccess, TokenFile
from strongroom.controlplane.clusters.connect import ConnectedCluster
from strongroom.controlplane.clusters.hosted import ExtensionKeys, HostedExtension
from strongroom.controlplane.clusters.manifests import EXTENSION, NAMESPACE
from strongroom.errors import StrongroomError

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.5  # before the process is started again; doubles
LONGEST_PAUSE_SECONDS: Final = 60.0  # for as long as a cluster gives no answer; whoever needs it does not wait for it
LIVED_SECONDS: Final = 60.0  # a process that lived as long did not die of its start


class ExtensionKeeper:
    """The hosted extension of *cluster*; its files lie in *folder*. *starts* bounds how many begin at once."""

    def __init__(
        self, cluster: ConnectedCluster, access: ClusterAccess, folder: Path, starts: asyncio.Semaphore
    ) -> None:
        self._token_file = TokenFile(access, EXTENSION, folder / "token")
        self._starts = starts
        self._wake = asyncio.Event()
        self._keys: ExtensionKeys | None = None
        self._attempt: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        """What comes of the attempt that is under way, or of the next one."""
        self.extension = HostedExtension(
            server=cluster.server,
            ca=cluster.ca.decode(),
            token_file=self._token_file.path,
            namespace=NAMESPACE,
            allow_loopback=cluster.allow_loopback,
        )
        self._task = asyncio.create_task(self._keep(), name="hosted extension")

    async def ready(self) -> tuple[HostedExtension, ExtensionKeys]:
        """Return the extension once it runs; one that waits for its next start is started now.

        Raises what its start met: `ExtensionGone`, `ExtensionRefused`, errors of the access.
        """
        if self._keys is None or not self.extension.alive:
            self._wake.set()
            failure = await asyncio.shield(self._attempt)
            if failure is not None:
                raise failure
        assert self._keys is not None, "told by the start that went well"
        return self.extension, self._keys

    async def stop(self) -> None:
        """End the process. What it was at goes on with the next one."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self.extension.stop()
        await self._token_file.stop()

    async def _keep(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = time.monotonic()
            reason = await self._live()
            if time.monotonic() - began > LIVED_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            log.warning("a hosted extension starts again", extra={"reason": reason, "seconds": pause})
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _live(self) -> str:
        """Start the process and return when it has ended, or could not begin, with the reason."""
        try:
            # Before its turn: a cluster that gives no answer takes nobody's.
            await self._token_file.start()
            async with self._starts:
                self._keys = await self.extension.start()
        except (StrongroomError, OSError) as error:
            self._tell(error)
            return str(error)
        self._tell(None)
        await self.extension.ended()
        return "its process ended"

    def _tell(self, failure: Exception | None) -> None:
        """Tell all who wait what came of this attempt; who asks from now on waits for the next."""
        attempt, self._attempt = self._attempt, asyncio.get_running_loop().create_future()
        attempt.set_result(failure)
