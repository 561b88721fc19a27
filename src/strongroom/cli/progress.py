"""Shows how far a command is: a bar on a terminal, plain lines elsewhere, nothing with `--quiet`. Always on stderr."""

import sys
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Self

from strongroom.cli.output import Output, visible

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

# Plain lines end up in logs of CI jobs: often enough to see that it lives, seldom enough to read.
LINE_SECONDS = 5.0


class Progress(ABC):
    """A context manager that is told how far a command is. Phases follow one another."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def report(self, phase: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        """*phase* has done *done* of *total* (0: not known) things, which *unit* names in the plural."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Silent(Progress):
    """Says nothing."""

    def report(self, phase: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        return None


class Lines(Progress):
    """A line when a phase begins, and every few seconds while it lasts."""

    def __init__(self) -> None:
        self._phase = ""
        self._last = 0.0

    def report(self, phase: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        now = time.monotonic()
        if phase == self._phase and now - self._last < LINE_SECONDS:
            return
        self._phase, self._last = phase, now
        count = _count(done, total, unit)
        sys.stderr.write(visible(f"{phase}: {count}" if count else phase) + "\n")
        sys.stderr.flush()


class Bar(Progress):
    """A bar for the phase that runs; finished phases stay above it."""

    def __init__(self) -> None:
        self._bars: RichProgress | None = None
        self._task: TaskID | None = None
        self._phase = ""

    def __enter__(self) -> Self:
        # Rich costs 60 ms at start: only where a bar is seen.
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}", markup=False),
            TimeElapsedColumn(),
        )
        self._bars = Bars(*columns, console=Console(stderr=True))
        self._bars.start()
        return self

    def report(self, phase: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        assert self._bars is not None, "a bar reports only while its context is open"
        known = total or None
        count = _count(done, total, unit)
        if phase != self._phase:
            self._finish_phase()
            self._phase = phase
            self._task = self._bars.add_task(visible(phase), total=known, completed=done, count=count)
        elif self._task is not None:
            self._bars.update(self._task, total=known, completed=done, count=count)

    def _finish_phase(self) -> None:
        if self._bars is not None and self._task is not None:
            completed = max(1, self._bars.tasks[self._task].completed)
            self._bars.update(self._task, total=completed, completed=completed)
            self._bars.stop_task(self._task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            if error is None:
                self._finish_phase()
            self._bars.stop()


def _count(done: int, total: int, unit: str) -> str:
    if not (done or total):
        return ""
    return " ".join(part for part in (f"{done} of {total}" if total else str(done), unit) if part)


def progress(options: Output) -> Progress:
    """Return the progress display that fits the options and the terminal."""
    if options.quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines()
