"""What a watching extension tells of itself: its metrics, and whether it carries out custom resources right now.

Pure bookkeeping: `serving.py` shows it. docs/reference/extension.md lists the metrics.
"""

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from strongroom import __version__
from strongroom.extension.api.documents import DeleteBackup, Kind, Work
from strongroom.extension.api.status import BackupStatus, DeleteBackupStatus, Phase, RestoreStatus, Status
from strongroom.extension.watching.resources import WORK_KINDS, Head

OPENED: Final = "Opened"
"""The reason of a storage location that can be used."""

# They are a second series beside each counter, which Prometheus does not need.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations

# From a small namespace to the longest restore that anybody watches; four times as long each.
_DURATION_BUCKETS_SECONDS: Final = (1.0, 4.0, 15.0, 60.0, 240.0, 900.0, 3600.0, 14400.0)


class Monitor:
    """The metrics of one process. *clock* counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._under_way: dict[tuple[Kind, str], tuple[Phase, float]] = {}
        """Phase of each document that has not ended, and since when it has it."""
        self._connected: dict[str, bool] = {}
        self._successes: dict[tuple[Kind, str], float] = {}
        self._held = False
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("strongroom_extension", "The extension that answers.", registry=registry).info({"version": __version__})
        lease = Gauge(
            "strongroom_lease_held", "1 while this process is the one that carries out documents.", registry=registry
        )
        lease.set_function(lambda: self._held)
        self._outages = Counter(
            "strongroom_watch_outages",
            "How often the API server broke off a watch, or did not answer one.",
            ["resource"],
            registry=registry,
        )
        runs = Gauge(
            "strongroom_runs", "Documents that wait (New) or run (InProgress).", ["kind", "phase"], registry=registry
        )
        self._finished = Counter(
            "strongroom_runs_finished",
            "Documents that ended, by how; dry runs apart.",
            ["kind", "phase", "dry_run"],
            registry=registry,
        )
        self._errors = Counter(
            "strongroom_run_errors", "Documents that failed, by Azure's code.", ["kind", "code"], registry=registry
        )
        self._duration = Histogram(
            "strongroom_run_duration_seconds",
            "From its turn to the end of a document; dry runs are left out.",
            ["kind"],
            buckets=_DURATION_BUCKETS_SECONDS,
            registry=registry,
        )
        self._success = Gauge(
            "strongroom_last_success_timestamp_seconds",
            "When the last document was Completed, also before this process began; dry runs are left out.",
            ["kind", "location"],
            registry=registry,
        )
        self._objects = Counter("strongroom_backup_objects", "Objects in recovery points taken.", registry=registry)
        self._read = Counter(
            "strongroom_backup_read_bytes", "Bytes read from the API server by backups.", registry=registry
        )
        self._written = Counter(
            "strongroom_backup_written_bytes", "Bytes written to storage locations by backups.", registry=registry
        )
        self._restored = Counter(
            "strongroom_restore_objects", "Objects of restores, by what became of them.", ["outcome"], registry=registry
        )
        self._deleted = Counter("strongroom_snapshots_deleted", "CSI snapshots deleted.", registry=registry)
        self._available = Gauge(
            "strongroom_storage_location_available",
            "1 where the storage location could be used when it was last tried.",
            ["location"],
            registry=registry,
        )
        self._unavailable = Counter(
            "strongroom_storage_location_failures",
            "How often a storage location could not be used when it was tried, by reason.",
            ["location", "reason"],
            registry=registry,
        )
        # A series that begins with its first event has no increase that an alert could see.
        for kind in WORK_KINDS:
            for phase in Phase:
                if phase.final:
                    self._finished.labels(kind, phase, "false")
                else:
                    runs.labels(kind, phase).set_function(partial(self._count, kind, phase))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def missing(self) -> list[str]:
        """Return what keeps this process from carrying out documents; nothing where it does."""
        if not self._held:
            return ["lease: another process holds it, or the API server does not answer"]
        return [f"watch of {resource}: broken off" for resource, well in self._connected.items() if not well]

    def leading(self, resources: list[str]) -> None:
        """Take that this process holds the lease and begins to watch *resources*."""
        self._held = True
        self._connected = dict.fromkeys(resources, False)

    def not_leading(self) -> None:
        """Take that the lease is gone: nothing runs here any more."""
        self._held = False
        self._connected.clear()
        self._under_way.clear()

    def watched(self, resource: str, *, well: bool) -> None:
        """Take that a watch works, or has just stopped to."""
        if not well:
            self._outages.labels(resource).inc()
        self._connected[resource] = well

    def told(self, work: Work, status: Status) -> None:
        """Take a status of a document. One that is told again after its end counts once."""
        key = (work.kind, work.identity)
        dry = not isinstance(work, DeleteBackup) and work.spec.dry_run
        if not status.phase.final:
            before, since = self._under_way.get(key, (None, 0.0))
            self._under_way[key] = (status.phase, since if before is status.phase else self._clock())
        elif (begun := self._under_way.pop(key, None)) is not None:
            self._ended(work.kind, status, dry=dry)
            if not dry:
                if begun[0] is Phase.IN_PROGRESS:
                    self._duration.labels(work.kind).observe(self._clock() - begun[1])
                self._amounts(status)

    def refused(self, kind: Kind, status: Status) -> None:
        """Take the end of a document that could not be read."""
        self._ended(kind, status, dry=False)

    def seen(self, kind: Kind, head: Head) -> None:
        """Take a finished document as the API server has it, whichever process finished it."""
        if head.status.phase != Phase.COMPLETED or head.spec.dry_run:
            return
        try:
            at = datetime.fromisoformat(head.status.completion_time).timestamp()
        except ValueError:
            return
        key = (kind, head.spec.storage_location)
        self._successes[key] = max(at, self._successes.get(key, 0.0))
        self._success.labels(*key).set(self._successes[key])

    def location(self, name: str, reason: str) -> None:
        """Take what came of trying a storage location."""
        self._available.labels(name).set(reason == OPENED)
        if reason != OPENED:
            self._unavailable.labels(name, reason).inc()

    def location_gone(self, name: str) -> None:
        """Take that a storage location is gone."""
        self._available.remove_by_labels({"location": name})

    def _ended(self, kind: Kind, status: Status, *, dry: bool) -> None:
        self._finished.labels(kind, status.phase, str(dry).lower()).inc()
        if status.error is not None:
            self._errors.labels(kind, status.error.code).inc()

    def _amounts(self, status: Status) -> None:
        match status:
            case BackupStatus():
                self._objects.inc(status.objects)
                self._read.inc(status.bytes_read)
                self._written.inc(status.bytes_written)
            case RestoreStatus(counts=counts) if counts is not None:
                for outcome in ("created", "patched", "skipped", "failed"):
                    self._restored.labels(outcome).inc(getattr(counts, outcome))
            case DeleteBackupStatus():
                self._deleted.inc(status.deleted)

    def _count(self, kind: Kind, phase: Phase) -> int:
        return sum((of, now) == (kind, phase) for (of, _), (now, _) in self._under_way.items())
