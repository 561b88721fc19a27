"""The port between a run and whoever wants to know of it: a run tells its status, a feed passes it on now and then."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from strongroom.extension.api.documents import Kind, Work
from strongroom.extension.api.status import STATUS_TYPES, Condition, Phase, Progress, Status

Publish = Callable[[Work, Status], None]
"""Takes the newest status of a document; never blocks. One that comes before the last was sent replaces it."""

PROGRESS_SECONDS: Final = 0.5  # between two statuses that differ in progress alone: people see no more


class Feed:
    """The status of one document as its run changes it."""

    def __init__(self, work: Work, publish: Publish) -> None:
        self._work = work
        self._publish = publish
        self._timer: asyncio.TimerHandle | None = None
        self._told_at = float("-inf")
        self.status: Status = STATUS_TYPES[work.kind](phase=Phase.NEW, start_time=now_text())
        self._tell()

    def progress(self, phase: str, done: int = 0, total: int = 0, objects: int = 0, detail: str = "") -> None:
        """Say how far the run is; told at most every `PROGRESS_SECONDS`."""
        if self.status.phase.final:
            return
        told = Progress(phase=phase, done=done, total=total, objects=objects, detail=detail)
        self.status = msgspec.structs.replace(self.status, progress=told)
        loop = asyncio.get_running_loop()
        wait = self._told_at + PROGRESS_SECONDS - loop.time()
        if wait <= 0:
            self._tell()
        elif self._timer is None:
            self._timer = loop.call_later(wait, self._tell)

    def begin(self) -> None:
        """Say that the run is under way."""
        self.status = msgspec.structs.replace(self.status, phase=Phase.IN_PROGRESS, progress=None)
        self._tell()

    def end(self, status: Status) -> Status:
        """Say how the run ended, with the times of this feed and the condition `Ready`; return what was said."""
        at = now_text()
        ready = Condition(
            type="Ready",
            status="True" if status.phase in (Phase.COMPLETED, Phase.PARTIALLY_FAILED) else "False",
            reason=str(status.phase),
            message=status.error.message if status.error else "",
            last_transition_time=at,
        )
        self.status = msgspec.structs.replace(
            status,
            start_time=status.start_time or self.status.start_time,
            completion_time=status.completion_time or at,
            conditions=(ready,),
        )
        self._tell()
        return self.status

    def repeat(self) -> None:
        """Tell the status again, for one who asked again."""
        self._tell()

    def silence(self) -> None:
        """Tell nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._publish = _nobody

    def _tell(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._told_at = asyncio.get_running_loop().time()
        self._publish(self._work, self.status)


def _nobody(work: Work, status: Status) -> None:
    """Take a status that nobody is to see any more."""


def now_text() -> str:
    """Return the time as statuses have it: RFC 3339, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Key = tuple[Kind, str]
"""Kind and identity: what a document is known by."""
