"""Has the custom resources of one namespace carried out, as long as this process holds the lease."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from strongroom.dataplane.kube.api import KubeApi, WatchEvent
from strongroom.dataplane.kube.errors import KubeConflict, KubeError, KubeNotFound
from strongroom.dataplane.kube.transport import RetryPolicy
from strongroom.extension.api.documents import BackupStorageLocation, DocumentInvalid, Kind, Work
from strongroom.extension.api.status import STATUS_TYPES, Phase, Status
from strongroom.extension.runs.context import RunContext
from strongroom.extension.runs.failures import failure_of
from strongroom.extension.runs.feed import now_text
from strongroom.extension.runs.reconciler import Reconciler
from strongroom.extension.runs.sweeping import sweep_restores
from strongroom.extension.watching.follow import Changed, Listed, follow
from strongroom.extension.watching.lease import Lease
from strongroom.extension.watching.locations import LocationKeeper
from strongroom.extension.watching.monitor import Monitor
from strongroom.extension.watching.resources import KINDS, WORK_KINDS, Head, document_of, head_of
from strongroom.extension.watching.statuses import StatusWriter, Told

log = logging.getLogger(__name__)

KEPT: Final = timedelta(days=7)  # of finished ones: issue 5; long enough to look at a weekend's backups
CLEARING_SECONDS: Final = 3600.0  # between two looks for finished ones that are too old
# What is tried again here anyway must not hang for two minutes first: the newest status replaces the one that does.
RETRY: Final = RetryPolicy(attempts=3, total_s=10.0)

Clock = Callable[[], datetime]


def now_utc() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class Watcher:
    """The custom resources of *context*'s namespace. *hosted* as for `LocationKeeper`; *clock* says what is old."""

    def __init__(
        self,
        context: RunContext,
        *,
        hosted: bool,
        clock: Clock = now_utc,
        clearing_seconds: float = CLEARING_SECONDS,
        monitor: Monitor | None = None,
    ) -> None:
        self._context = context
        self._monitor = monitor or Monitor()
        self._hosted = hosted
        self._clock = clock
        self._clearing_seconds = clearing_seconds
        self.active = asyncio.Event()

    async def run(self) -> None:
        """Carry resources out whenever this process holds the lease, for ever.

        Cancelled, it stops what runs and releases the lease: the next process goes on.
        """
        async with self._context.connect(RETRY) as api:
            lease = Lease(api, self._context.namespace)
            while True:
                await lease.acquire()
                try:
                    await self._lead(api, lease)
                finally:
                    self.active.clear()
                    self._monitor.not_leading()
                    self._context.refresh = self._context.still_ours = None
                    await asyncio.shield(lease.release())

    async def _lead(self, api: KubeApi, lease: Lease) -> None:
        """Work until the lease is lost."""
        namespace = self._context.namespace
        monitor = self._monitor
        locations = LocationKeeper(api, self._context, monitor, hosted=self._hosted)
        self._context.refresh = locations.refresh
        self._context.still_ours = lease.confirm
        writer = StatusWriter(api, namespace)

        def publish(work: Work, status: Status) -> None:
            monitor.told(work, status)
            writer.tell(_told(work, status))

        reconciler = Reconciler(self._context, publish)
        admission = Admission(reconciler, writer, monitor)

        def followed(kind: Kind, listed: Listed, changed: Changed) -> Coroutine[Any, Any, None]:
            resource = KINDS[kind].plural
            return follow(
                api, KINDS[kind], namespace, listed, changed, lambda well: monitor.watched(resource, well=well)
            )

        jobs: list[Coroutine[Any, Any, None]] = [
            lease.keep(),
            writer.run(),
            locations.run(),
            followed(Kind.BACKUP_STORAGE_LOCATION, locations.listed, locations.changed),
            self._clear(api),
            *(followed(kind, *admission.of(kind)) for kind in WORK_KINDS),
        ]
        monitor.leading([KINDS[kind].plural for kind in Kind])
        tasks = [asyncio.create_task(job) for job in jobs]
        self.active.set()
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # the lease's ends when it is lost; any other one's end is a fault of ours
        finally:
            for task in tasks:
                task.cancel()
            await reconciler.close()
            locations.close()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _clear(self, api: KubeApi) -> None:
        """Delete what finished more than `KEPT` ago, and the imports of claims that are bound by now; for ever."""
        while True:
            for kind in WORK_KINDS:
                try:
                    await clear(api, kind, self._context.namespace, self._clock())
                except KubeError as error:
                    log.warning("finished ones not removed", extra={"kind": str(kind), "reason": error.message})
            await sweep_restores(api)
            await asyncio.sleep(self._clearing_seconds)


class Admission:
    """Hands resources to the reconciler when they come, and cancels them when they go."""

    def __init__(self, reconciler: Reconciler, writer: StatusWriter, monitor: Monitor) -> None:
        self._reconciler = reconciler
        self._writer = writer
        self._monitor = monitor
        self._running: dict[Kind, dict[str, str]] = {kind: {} for kind in WORK_KINDS}
        """The uid by the name of each that was handed over and is not seen finished."""

    def of(self, kind: Kind) -> tuple[Listed, Changed]:
        """Return what `follow` needs for *kind*."""
        return lambda objects: self.listed(kind, objects), lambda event: self.changed(kind, event)

    def listed(self, kind: Kind, objects: Sequence[msgspec.Raw]) -> None:
        """Take all resources of *kind* that there are; the oldest begin first."""
        heads = [(head_of(raw), raw) for raw in objects]
        there = {head.metadata.name: head.metadata.uid for head, _ in heads}
        for name, uid in list(self._running[kind].items()):
            if there.get(name) != uid:
                self._gone(kind, name, uid)
        for head, raw in sorted(heads, key=lambda pair: pair[0].metadata.creation_timestamp):
            self._see(kind, head, raw)

    def changed(self, kind: Kind, event: WatchEvent) -> None:
        """Take one change."""
        head = head_of(event.raw)
        if event.type == "DELETED":
            self._gone(kind, head.metadata.name, head.metadata.uid)
        else:
            self._see(kind, head, event.raw)

    def _see(self, kind: Kind, head: Head, raw: msgspec.Raw) -> None:
        meta = head.metadata
        running = self._running[kind]
        known = running.get(meta.name)
        if known is not None and known != meta.uid:
            self._gone(kind, meta.name, known)
        if meta.deletion_timestamp is not None:  # somebody else's finalizer holds it
            self._gone(kind, meta.name, meta.uid)
        elif head.finished:
            running.pop(meta.name, None)
            self._monitor.seen(kind, head)
        elif known != meta.uid:
            running[meta.name] = meta.uid
            self._begin(kind, head, raw)

    def _begin(self, kind: Kind, head: Head, raw: msgspec.Raw) -> None:
        try:
            work = document_of(kind, raw)
            assert not isinstance(work, BackupStorageLocation)
            self._reconciler.apply(work)
        except DocumentInvalid as error:
            at = now_text()
            status = STATUS_TYPES[kind](
                phase=Phase.FAILED, start_time=at, completion_time=at, error=failure_of(error, target=error.field)
            )
            self._monitor.refused(kind, status)
            self._writer.tell(Told(kind, head.metadata.name, head.metadata.uid, status))

    def _gone(self, kind: Kind, name: str, uid: str) -> None:
        if self._running[kind].get(name) == uid:
            del self._running[kind][name]
        self._reconciler.cancel(kind, f"{name}/{uid}")
        self._writer.forget(kind, uid)


async def clear(api: KubeApi, kind: Kind, namespace: str, now: datetime) -> None:
    """Delete the resources of *kind* that finished more than `KEPT` before *now*. Raises `KubeError`."""
    async for page in api.list_pages(KINDS[kind], namespace=namespace):
        for raw in page.items:
            head = head_of(raw)
            if expired(head, now):
                with contextlib.suppress(KubeNotFound, KubeConflict):  # gone meanwhile, or another one by now
                    await api.delete(KINDS[kind], head.metadata.name, namespace, uid=head.metadata.uid)
                    log.info("finished one removed", extra={"kind": str(kind), "document": head.metadata.name})


def expired(head: Head, now: datetime) -> bool:
    """Say whether a resource finished more than `KEPT` before *now*."""
    if not head.finished:
        return False
    try:
        ended = datetime.fromisoformat(head.status.completion_time or head.metadata.creation_timestamp)
    except ValueError:
        return False
    return (ended if ended.tzinfo else ended.replace(tzinfo=UTC)) + KEPT < now


def _told(work: Work, status: Status) -> Told:
    return Told(work.kind, work.name, work.metadata.uid, status)
