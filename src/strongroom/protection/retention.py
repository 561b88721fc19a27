"""How long recovery points are kept, and which ones are let go at a given instant.

A point keeps the retention it was made with (reference section 1.2: changing the policy of an instance does not alter
existing points), so its expiry time is computed once, when it is made, and stored with it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from strongroom.protection.times import CalendarPeriod, Instant

OPERATIONAL_LIMIT_DAYS = 360  # reference section 1.3: operational retention is at most 360 days


class DataStore(StrEnum):
    """Where a copy of a recovery point lies. Only the operational store exists here so far."""

    OPERATIONAL = "OperationalStore"
    VAULT = "VaultStore"
    ARCHIVE = "ArchiveStore"


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """How long points of one tag are kept in the operational store.

    *vault* is how long copies in the vault store would be kept, and *copies_to_vault* whether there is a rule that
    makes them: facts of the document that are not carried out (see `Policy.notes`).
    """

    name: str
    is_default: bool
    operational: CalendarPeriod
    vault: CalendarPeriod | None = None
    copies_to_vault: bool = False


class RetentionMode(StrEnum):
    """Whether the points of an instance expire; which one holds follows from its protection state."""

    AS_PER_POLICY = "as per policy"
    FOREVER = "forever"


Identity = TypeVar("Identity")


@dataclass(frozen=True, slots=True)
class KeptPoint(Generic[Identity]):
    """A recovery point as retention sees it: its *id*, when it was taken, and when it *expires* (None: never)."""

    id: Identity
    time: Instant
    expires: Instant | None


def expiry_of(time: Instant, rule: RetentionRule) -> Instant:
    """Return when a point taken at *time* expires from the operational store under *rule*.

    Reckoned in UTC, so P7D is exactly 168 hours and P1M ends on the same day of the next month, or on its last day.
    """
    return rule.operational.after(time)


def expired(
    points: Iterable[KeptPoint[Identity]], now: Instant, mode: RetentionMode = RetentionMode.AS_PER_POLICY
) -> list[KeptPoint[Identity]]:
    """Return which *points* of one instance are let go at *now*, oldest first.

    The newest point is never returned, whatever its age (reference section 1.2); of two taken at the same instant
    the one that expires last is the newest. With `RetentionMode.FOREVER` nothing is returned.
    """
    if mode is RetentionMode.FOREVER:
        return []
    ordered = sorted(points, key=lambda point: (point.time, point.expires is None, point.expires or point.time))
    return [point for point in ordered[:-1] if point.expires is not None and point.expires <= now]
