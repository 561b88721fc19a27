"""Has the extension of a cluster carry one document out, however often its process or this one ends meanwhile.

Documents are custom resources, written and followed with the vault's trusted access. The extension is reached in no
other way, wherever it runs; what only a hosted one can have is told by `locating.py`.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from strongroom.controlplane.clusters import documents
from strongroom.controlplane.clusters.access import ClusterAccess
from strongroom.controlplane.clusters.documents import OnStatus
from strongroom.controlplane.clusters.errors import ClusterError, ClusterUnreachable, ExtensionUnhealthy
from strongroom.controlplane.clusters.hosted import ExtensionGone
from strongroom.controlplane.clusters.installer import HEARTBEAT, heartbeat
from strongroom.controlplane.clusters.manifests import vault_account
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.times import now
from strongroom.controlplane.workflows.containers import Place
from strongroom.controlplane.workflows.locating import locate
from strongroom.controlplane.workflows.readiness import binding_of, no_access
from strongroom.controlplane.workflows.services import Services
from strongroom.dataplane.kube.api import KubeApi
from strongroom.errors import StrongroomError
from strongroom.extension.api.documents import DeleteBackup, Kind, Work
from strongroom.extension.api.status import Status
from strongroom.protection.errors import Refused

log = logging.getLogger(__name__)

RENEW_SECONDS: Final = 15 * 60  # credentials of a location last an hour: design.md, section 8
ATTEMPTS: Final = 5  # to begin; a cluster that restarts is back within a minute
PAUSE_SECONDS: Final = 2.0  # before the second attempt; doubles
WITHDRAW_SECONDS: Final = 60.0  # what a run clears away are requests to the API server: seconds
DISCARD_SECONDS: Final = 5.0  # what is not deleted in that time the extension deletes a week later
LOOK_SECONDS: Final = 30.0  # between looks whether the extension lives: one request each
RESTARTS: Final = 5  # an extension that is killed at the same document this often is killed by it every time

T = TypeVar("T")


async def carry_out(
    services: Services, vault: str, cluster: str, place: Place, document: Work, on_status: OnStatus
) -> Status:
    """Return the final status of *document* in the extension of *cluster*; *vault* (ARM id) is whose work it is.

    The extension knows documents by name, so this may run again at any time: what was done is not done twice. Raises
    `Refused` and `TrustedAccessRefused` without trusted access, `ExtensionUnhealthy`, `DocumentGone` where somebody
    else deleted it, errors of the cluster and the store.
    """
    access, account = await _trusted(services, vault, cluster)
    await _patiently(lambda: documents.admit(access, account))
    async with documents.as_vault(access, account) as api:
        uid = await _begun(services, cluster, place, api, document)
        following = documents.follow(api, document.kind, document.name, uid, on_status)
        status = await _beside(following, _renew(services, cluster, place), _look_after(access, document))
        if isinstance(document, DeleteBackup) or document.spec.dry_run:
            await _discard(api, document.kind, document.name)
        return status


async def withdraw(
    services: Services, vault: str, cluster: str, kind: Kind, name: str, *, seconds: float = WITHDRAW_SECONDS
) -> None:
    """Cancel a Backup or Restore and return when it has stopped, or after *seconds*. It cannot begin again.

    An extension that does not run has stopped already.
    """
    try:
        async with asyncio.timeout(seconds):
            access, account = await _trusted(services, vault, cluster)
            await _patiently(lambda: documents.admit(access, account))
            async with documents.as_vault(access, account) as api:
                uid = await _patiently(lambda: documents.withdraw(api, kind, name))
                if (await heartbeat(access)).lives(now()):
                    await documents.follow(api, kind, name, uid, unwatched)
    except TimeoutError:
        log.warning("a withdrawn document does not stop", extra={"document": name})
    except (Refused, ClusterError) as error:
        log.warning("a document could not be withdrawn", extra={"document": name, "reason": error.message})


async def _trusted(services: Services, vault: str, cluster: str) -> tuple[ClusterAccess, str]:
    """Return the access to *cluster* and the account of *vault* in it. Raises `Refused` without trusted access."""

    def find(tx: Tx) -> str:
        binding = binding_of(tx, vault, cluster)
        if binding is None:
            raise Refused(no_access(vault, cluster))
        return vault_account(binding.name, str(binding.properties["sourceResourceId"]))

    return await services.pool.access(cluster), await services.read(find)


async def _begun(services: Services, cluster: str, place: Place, api: KubeApi, document: Work) -> str:
    """Give the extension the document's location, then the document; return its uid."""

    async def begin() -> str:
        await locate(services, cluster, place)
        await documents.withdraw_others(api, document)
        return await documents.submit(api, document)

    return await _patiently(begin)


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Return what *call* returns, called again for a minute while the cluster or its hosted extension is away."""
    pause = PAUSE_SECONDS
    for _ in range(ATTEMPTS - 1):
        try:
            return await call()
        except (ExtensionGone, ClusterUnreachable) as error:
            log.warning("the cluster is asked again", extra={"reason": error.message})
        await asyncio.sleep(pause)
        pause *= 2
    return await call()


async def _beside(following: Coroutine[Any, Any, Status], *others: Coroutine[Any, Any, None]) -> Status:
    """Return what *following* returns, or raise what it or one of *others*, which never end, raises first."""
    main = asyncio.create_task(following)
    tasks: list[asyncio.Task[Any]] = [main, *(asyncio.create_task(other) for other in others)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if main not in done:
            done.pop().result()
        return main.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _renew(services: Services, cluster: str, place: Place) -> None:
    """Keep the credentials of the storage location good, for ever."""
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            await locate(services, cluster, place)
        except StrongroomError as error:
            # The old ones last half an hour more, and so many further attempts.
            log.warning("credentials were not renewed", extra={"reason": str(error)})


async def _look_after(access: ClusterAccess, document: Work) -> None:
    """Raise `ExtensionUnhealthy` when the extension gives no sign of life, or dies again and again.

    Clocks of two machines are not compared: a heartbeat that stands still for `HEARTBEAT` has ended.
    """
    seen, since, first = None, time.monotonic(), -1
    while True:
        with contextlib.suppress(ClusterUnreachable):  # whoever follows the document says so, in time
            beat = await heartbeat(access)
            first = beat.transitions if first < 0 else first
            if beat.holder and beat.at != seen:
                seen, since = beat.at, time.monotonic()
            if time.monotonic() - since > HEARTBEAT.total_seconds():
                raise ExtensionUnhealthy(
                    f"the backup extension gave no sign of life for {HEARTBEAT.total_seconds() / 60:.0f} minutes",
                    hint="Look at its statuses (az k8s-extension show), then repeat",
                )
            if beat.transitions - first > 2 * RESTARTS:  # a process that ends by itself is counted twice
                raise ExtensionUnhealthy(
                    f"the backup extension ended more than {RESTARTS} times while it was at {document.name}",
                    hint="Look at its log: was its memory not enough?",
                )
        await asyncio.sleep(LOOK_SECONDS)


async def _discard(api: KubeApi, kind: Kind, name: str) -> None:
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            await documents.discard(api, kind, name)
    except (TimeoutError, ClusterError) as error:
        log.info("a document stays for a week", extra={"document": name, "reason": str(error)})


async def unwatched(_: Status) -> None:
    """Take the statuses of a check, whose progress nobody is shown."""
