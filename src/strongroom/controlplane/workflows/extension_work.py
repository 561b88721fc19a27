"""Has the extension of a cluster carry one document out, however often its process or this one ends meanwhile."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from strongroom.controlplane.clusters.errors import ClusterUnreachable
from strongroom.controlplane.clusters.hosted import ExtensionGone, HostedExtension
from strongroom.controlplane.workflows.containers import Place
from strongroom.controlplane.workflows.services import Services
from strongroom.errors import StrongroomError
from strongroom.extension.api.documents import Backup, DeleteBackup, Kind, Restore
from strongroom.extension.api.status import Status

log = logging.getLogger(__name__)

RENEW_SECONDS: Final = 15 * 60  # credentials of a location last an hour: design.md, section 8
RESTARTS: Final = 5  # an extension that ends at the same document this often ends at it every time
WITHDRAW_SECONDS: Final = 60.0  # what a run clears away are requests to the API server: seconds
PAUSE_SECONDS: Final = 2.0  # before the process is started again; doubles

Work = Backup | Restore | DeleteBackup
OnStatus = Callable[[Status], Awaitable[None]]


async def carry_out(services: Services, cluster: str, place: Place, document: Work, on_status: OnStatus) -> Status:
    """Return the final status of *document* in the extension of *cluster*.

    The extension knows documents by name, so this may run again at any time: what was done is not done twice. Raises
    `ExtensionGone` when its process ended `RESTARTS` times, `ExtensionRefused`, errors of the cluster and the store.
    """
    kind, name = Kind(type(document).__name__), document.metadata.name
    pause = PAUSE_SECONDS
    for attempt in range(RESTARTS + 1):
        try:
            async with services.pool.extension(cluster) as (extension, keys):
                location, credentials = await services.containers.prepare(place, keys)
                await extension.location(location, credentials)
                async with _renewed(services, cluster, place, extension):
                    await extension.apply(document)
                    return await extension.wait(kind, name, on_status)
        except (ExtensionGone, ClusterUnreachable) as error:
            if attempt == RESTARTS:
                raise
            log.warning("the extension is gone and starts again", extra={"document": name, "reason": str(error)})
            await asyncio.sleep(pause)
            pause *= 2
    raise AssertionError("the loop returns or raises")


async def withdraw(services: Services, cluster: str, kind: Kind, name: str) -> None:
    """Cancel a document and return when it has stopped. It must never be applied again: a new process would begin it.

    An extension that does not run has stopped already.
    """
    extension = services.pool.running(cluster)
    if extension is None:
        return
    try:
        async with asyncio.timeout(WITHDRAW_SECONDS):
            await extension.cancel(kind, name)
            await extension.wait(kind, name, unwatched)
    except TimeoutError:
        log.warning("a withdrawn document does not stop", extra={"document": name})
    except ExtensionGone as error:
        # Its process ended, or never had the document, or has told the end of it.
        log.info("a document was not under way", extra={"document": name, "reason": str(error)})


@contextlib.asynccontextmanager
async def _renewed(services: Services, cluster: str, place: Place, extension: HostedExtension) -> AsyncIterator[None]:
    """Keep the credentials of the storage location good while the block runs."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                async with services.pool.extension(cluster) as (_, keys):
                    location, credentials = await services.containers.prepare(place, keys)
                await extension.location(location, credentials)
            except StrongroomError as error:
                # The old ones last half an hour more, and so many further attempts.
                log.warning("credentials were not renewed", extra={"reason": str(error)})

    task = asyncio.create_task(renew(), name=f"credentials of {place.location_name}")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def unwatched(_: Status) -> None:
    """Take the statuses of a check, whose progress nobody is shown."""
