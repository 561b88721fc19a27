"""Jobs as users see them: status, category, times as Azure writes them, and the limits on how many there may be."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum

from strongroom.errors import UsageError
from strongroom.protection.errors import ErrorCode, Refused, UserError
from strongroom.protection.times import Instant, format_duration


class JobStatus(StrEnum):
    """Reference section 1.7. `Cancelled` is ours: Azure lets no job of Kubernetes clusters be cancelled."""

    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    COMPLETED_WITH_WARNINGS = "CompletedWithWarnings"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def ended(self) -> bool:
        """Whether the status never changes again."""
        return self is not JobStatus.IN_PROGRESS

    @property
    def succeeded(self) -> bool:
        """Whether the job left what it was asked for: a backup with warnings is the first of its day too."""
        return self in (JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_WARNINGS)


class JobCategory(StrEnum):
    """`operationCategory`, and `operation` with the same text."""

    BACKUP = "Backup"
    RESTORE = "Restore"


def job_duration(start: Instant, end: Instant | None) -> str:
    """Return `duration`: PT3M36.5329977S, and PT0S while the job runs (reference section 3.5)."""
    return "PT0S" if end is None else format_duration(end - start)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many there may be; the defaults are Azure's (reference section 1.3). None may be below 1."""

    policies_per_vault: int = 5_000
    instances_per_vault: int = 5_000
    on_demand_backups_per_day: int = 10
    """Of one backup instance."""
    restores_per_day: int = 10
    """Of one backup instance."""
    namespaces_per_instance: int = 800

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 1:
                raise UsageError(f"the limit {field.name} is {value}; the least is 1")


def check_daily(earlier: Iterable[Instant], now: Instant, limit: int, what: str, target: str) -> None:
    """Raise `Refused` if *limit* of *what* ("on-demand backups") were started on the UTC day of *now* already.

    *earlier* are the starts of the instance's jobs of that kind, failed ones included. The answer is a 400, not a 429:
    Azure's client library repeats a 429 by itself, for minutes.
    """
    today = now.to_tz("UTC").date()
    count = sum(start.to_tz("UTC").date() == today for start in earlier)
    if count >= limit:
        tomorrow = today.add(days=1)
        raise Refused(
            UserError(
                str(ErrorCode.LIMIT_REACHED),
                f"{count} {what} were started today; {limit} a day are allowed",
                recommended_action=(f"Try again after {tomorrow.format_iso()}T00:00:00Z.",),
                target=target,
                retryable=True,
            )
        )


def check_count(existing: int, limit: int, what: str, target: str) -> None:
    """Raise `Refused` if another one of *what* ("backup policies in the vault") would exceed *limit*."""
    if existing >= limit:
        raise Refused(
            UserError(
                str(ErrorCode.LIMIT_REACHED),
                f"there are {existing} {what}; {limit} are allowed",
                recommended_action=("Delete one that is not needed any more.",),
                target=target,
            )
        )
