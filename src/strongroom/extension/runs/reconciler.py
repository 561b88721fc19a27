"""Brings documents to their end: each once, one backup and one restore at a time of an instance, others beside them.

It knows of no custom resources: whoever brings documents calls `apply` and `cancel` and is told statuses through
`Publish`.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Final, assert_never
from weakref import WeakValueDictionary

from strongroom.errors import StrongroomError
from strongroom.extension.api.documents import Backup, DeleteBackup, DocumentInvalid, Kind, Restore, Work
from strongroom.extension.api.status import STATUS_TYPES, Failure, Phase, Status
from strongroom.extension.runs.backup import run_backup
from strongroom.extension.runs.context import RunContext
from strongroom.extension.runs.deletion import run_deletion
from strongroom.extension.runs.failures import INTERNAL, failure_of
from strongroom.extension.runs.feed import Feed, Key, Publish
from strongroom.extension.runs.hooks import Thawer
from strongroom.extension.runs.restore import run_restore
from strongroom.extension.runs.sweeping import Sweeper

log = logging.getLogger(__name__)

# A run holds at most 64 MiB of pages and some packs: 4 stay within the 1,280 MiB that Azure's extension is given
# (reference/azure-backup-for-aks.md, section 1.1), with room for plans of large restores.
RUNS_AT_ONCE: Final = 4
LIGHT_AT_ONCE: Final = 4  # dry runs and deletions: somebody waits for them, so they do not queue behind backups
ENDED_REMEMBERED: Final = 1000  # documents whose end can be asked for again; older ones are found in the repository
CLOSE_SECONDS: Final = 10.0  # to let cancelled runs clear away; what is left is found by sweeps and journals


class DocumentChanged(DocumentInvalid):
    """A document of this name was there before and said something else."""


class Reconciler:
    """Carries out documents in one cluster."""

    def __init__(self, context: RunContext, publish: Publish) -> None:
        self._context = context
        self._publish = publish
        self._works: dict[Key, Work] = {}
        self._feeds: dict[Key, Feed] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._ended: OrderedDict[Key, None] = OrderedDict()
        self._turns: WeakValueDictionary[tuple[Kind, str, str], asyncio.Lock] = WeakValueDictionary()
        self._slots = asyncio.Semaphore(RUNS_AT_ONCE)
        self._light = asyncio.Semaphore(LIGHT_AT_ONCE)
        self._sweeper = Sweeper(context)
        self._closing = False
        self._thawer = Thawer(context)
        self._thawer.wake()  # the first act: what a killed backup froze stands still until then

    def apply(self, work: Work) -> None:
        """Begin with *work*, or tell the status again of one that is under way or ended: it is never done twice.

        Raises `DocumentChanged` where the same name said something else before.
        """
        key = (work.kind, work.identity)
        known = self._works.get(key)
        if known is not None:
            if known.spec != work.spec:
                raise DocumentChanged(
                    f"{work.kind} {work.name} was there before with another spec: it does not change",
                    field="spec",
                    hint="Give it another name",
                )
            self._feeds[key].repeat()
            return
        if self._closing:
            return
        feed = Feed(work, self._publish)
        self._works[key], self._feeds[key] = work, feed
        self._tasks[key] = asyncio.create_task(self._bring_to_end(key, work, feed), name=f"{work.kind} {work.name}")

    def cancel(self, kind: Kind, identity: str) -> None:
        """Stop a document that is under way; one that ended stays as it is, one that is not known is no error."""
        task = self._tasks.get((kind, identity))
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop everything and tell nobody: the same documents, sent to the next process, go on there."""
        self._closing = True
        self._sweeper.close()
        self._thawer.close()
        tasks = list(self._tasks.values())
        for feed in self._feeds.values():
            feed.silence()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)

    async def _bring_to_end(self, key: Key, work: Work, feed: Feed) -> None:
        failed = STATUS_TYPES[work.kind]
        status: Status
        try:
            async with self._turn(work, feed):
                feed.begin()
                log.info("run begins", extra={"kind": str(work.kind), "document": work.name})
                status = await self._carry_out(work, feed)
        except asyncio.CancelledError:
            status = failed(phase=Phase.CANCELLED)
        except StrongroomError as error:
            log.warning("run failed", extra={"kind": str(work.kind), "document": work.name, "reason": error.message})
            status = failed(phase=Phase.FAILED, error=failure_of(error))
        except Exception as error:
            log.exception("run failed by a fault of ours", extra={"kind": str(work.kind), "document": work.name})
            message = f"a fault of the extension: {type(error).__name__}; its log has the trace"
            status = failed(phase=Phase.FAILED, error=Failure(code=INTERNAL, message=message))
        feed.end(status)
        if isinstance(work, Backup) and not (work.spec.dry_run or work.spec.withdrawn or self._closing):
            self._sweeper.backed_up(work.spec.storage_location)
            if work.spec.selection.backup_hook_references:
                self._thawer.wake()
        log.info("run ends", extra={"kind": str(work.kind), "document": work.name, "phase": str(status.phase)})
        del self._tasks[key]
        self._ended[key] = None
        while len(self._ended) > ENDED_REMEMBERED:
            oldest, _ = self._ended.popitem(last=False)
            del self._works[oldest], self._feeds[oldest]

    def _carry_out(self, work: Work, feed: Feed) -> Awaitable[Status]:
        if _is_withdrawn(work):
            return self._stopped(work)
        match work:
            case Backup():
                return run_backup(self._context, work, feed)
            case Restore():
                return run_restore(self._context, work, feed)
            case DeleteBackup():
                return run_deletion(self._context, work, feed)
            case _:
                assert_never(work)

    async def _stopped(self, work: Work) -> Status:
        """Return when nothing runs under the name of *work* but itself."""
        while others := [
            task
            for (kind, identity), task in self._tasks.items()
            if kind is work.kind and identity != work.identity and identity.partition("/")[0] == work.name
        ]:
            await asyncio.wait(others)
        return STATUS_TYPES[work.kind](phase=Phase.CANCELLED)

    @asynccontextmanager
    async def _turn(self, work: Work, feed: Feed) -> AsyncIterator[None]:
        """Wait until *work* may run: of one instance at most one backup and one restore, of all at most a few."""
        if _is_withdrawn(work):
            yield
            return
        if isinstance(work, DeleteBackup) or work.spec.dry_run:
            async with self._light:
                yield
            return
        place = (work.kind, work.spec.storage_location, work.spec.caller.get("instance", ""))
        turn = self._turns.setdefault(place, asyncio.Lock())
        if turn.locked():
            feed.progress("waiting", detail=f"another {work.kind} of the same instance is under way")
        async with turn, self._slots:
            yield


def _is_withdrawn(work: Work) -> bool:
    return not isinstance(work, DeleteBackup) and work.spec.withdrawn
