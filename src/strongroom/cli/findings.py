"""What `strongroom doctor` finds: one value a check, and how all of them are printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from strongroom.cli.output import Output, Table, emit
from strongroom.client.problems import Problem
from strongroom.errors import ExitCode, StrongroomError

HOUR: Final = 60  # minutes
DAY: Final = 1440  # minutes


class Status(StrEnum):
    """How a check came out: `WARN` does not keep backups from being made, `FAIL` does, or may."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what of what was looked at, how it came out, what was found, and what mends it.

    *code* is Azure's, where the service gave one.
    """

    check: str
    subject: str
    status: Status
    found: str
    mend: tuple[str, ...] = ()
    code: str = ""

    @property
    def document(self) -> dict[str, object]:
        """The finding as `--output json` prints it."""
        return {
            "check": self.check,
            "subject": self.subject,
            "status": self.status.value,
            "found": self.found,
            "mend": list(self.mend),
            "code": self.code,
        }


def ok(check: str, subject: str, found: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(check, subject, Status.OK, found)


def warn(check: str, subject: str, found: str, *mend: str) -> Finding:
    """Return the finding of something that should be looked at."""
    return Finding(check, subject, Status.WARN, found, mend)


def fail(check: str, subject: str, found: str, *mend: str) -> Finding:
    """Return the finding of something that is broken."""
    return Finding(check, subject, Status.FAIL, found, mend)


def of_problem(check: str, subject: str, problem: Problem) -> Finding:
    """Return the finding for what the service says is wrong."""
    return Finding(check, subject, Status.FAIL, problem.message, problem.actions, problem.code)


def of_error(check: str, subject: str, error: StrongroomError) -> Finding:
    """Return the finding for a check that could not be made, or whose failure is what it found."""
    return Finding(check, subject, Status.FAIL, error.message, (error.hint,) if error.hint else ())


def show(output: Output, findings: Sequence[Finding]) -> ExitCode:
    """Print the findings, and return 0 if all is well, 1 if something failed, else 3."""
    statuses = {finding.status for finding in findings}
    worst = Status.FAIL if Status.FAIL in statuses else Status.WARN if Status.WARN in statuses else Status.OK
    document = {"status": worst.value, "findings": [finding.document for finding in findings]}
    rows = [(f.status.value, f.check, f.subject, f.found, "; ".join(f.mend)) for f in findings]
    broken = [f"{f.check} {f.subject}".rstrip() for f in findings if f.status is not Status.OK]
    counts = ", ".join(f"{sum(f.status is each for f in findings)} {each.value}" for each in Status)
    emit(output, document, Table(("", "check", "of", "found", "what mends it"), rows, broken, notes=(counts,)))
    return {Status.OK: ExitCode.WHOLE, Status.WARN: ExitCode.INCOMPLETE, Status.FAIL: ExitCode.FAILED}[worst]


def age_text(span: timedelta) -> str:
    """Return a span as people say it: `45 minutes`, `5 hours`, `3 days`."""
    minutes = int(span.total_seconds() // 60)
    if minutes >= 2 * DAY or minutes == DAY:
        return _counted(minutes // DAY, "day")
    if minutes >= HOUR:
        return _counted(minutes // HOUR, "hour")
    return _counted(minutes, "minute") if minutes else "less than a minute"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
