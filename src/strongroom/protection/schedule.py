"""When backups are due: ISO 8601 repeating intervals (`R/start/period`) in a time zone.

A slot is computed from its number, never by stepping from the one before, so nothing drifts. Hours are absolute time:
every four hours stays every four hours over a change of clocks. Days and weeks keep the wall-clock time of the zone;
where that time is skipped the slot lies just after the gap, where it comes twice the first one counts.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from strongroom.protection.errors import UserError, invalid, refuse_if_any, shown
from strongroom.protection.times import (
    Date,
    Instant,
    PlainDateTime,
    TimeDelta,
    TimeTextInvalid,
    UnknownZone,
    ZonedDateTime,
    parse_instant,
    parse_zone,
)

# Reference section 1.2: every 4, 6, 8, 12 hours or daily; weekly is ours by issue 4.
HOURLY_PERIODS = {"PT4H": 4, "PT6H": 6, "PT8H": 8, "PT12H": 12}
DAILY_PERIODS = {"P1D": 1, "P1W": 7}
ACCEPTED_PERIODS = (*HOURLY_PERIODS, *DAILY_PERIODS)

EARLIEST_START_YEAR = 1970
LATEST_START_YEAR = 2999  # a later one is a typing error, and near year 9999 the calendar ends
DEFAULT_ZONE = "UTC"  # `timeZone` is optional in the API

NANOSECONDS_PER_HOUR = 3600 * 10**9

_INTERVAL = re.compile(r"R(\d*)/([^/]+)/([^/]+)")  # the count is ignored, as Azure does (reference section 1.2)


@dataclass(frozen=True, slots=True)
class HourlySeries:
    """Slots every *hours* hours of absolute time from *start* on."""

    start: Instant
    hours: int

    def slot(self, number: int) -> Instant:
        """Return the slot of that *number*; the first is 0."""
        return self.start + TimeDelta(hours=self.hours * number)

    def near(self, instant: Instant) -> range:
        """Return numbers of slots among which are the last one at or before *instant* and the first one after it."""
        # In whole nanoseconds: as a float, an instant just before a slot would count as the slot.
        number = int((instant - self.start).total("nanoseconds")) // (self.hours * NANOSECONDS_PER_HOUR)
        return range(max(0, number), max(0, number + 1) + 1)


@dataclass(frozen=True, slots=True)
class DailySeries:
    """Slots every *days* days at the wall-clock time of *start* in *zone* (an IANA name)."""

    start: PlainDateTime
    days: int
    zone: str

    def slot(self, number: int) -> Instant:
        """Return the slot of that *number*; the first is 0."""
        local = self.start.date().add(days=self.days * number).at(self.start.time())
        return local.assume_tz(self.zone, disambiguation="compatible").to_instant()

    def near(self, instant: Instant) -> range:
        """Return numbers of slots among which are the last one at or before *instant* and the first one after it.

        A gap moves a slot by a day at most (Samoa left out 30 December 2011), hence the neighbours on both sides.
        """
        number = (_ordinal(instant.to_tz(self.zone).date()) - _ordinal(self.start.date())) // self.days
        return range(max(0, number - 2), max(0, number + 2) + 1)


Series = HourlySeries | DailySeries


@dataclass(frozen=True, slots=True)
class Schedule:
    """The slots of one or several series, all in *zone* (IANA); *intervals* are the texts they were read from."""

    series: tuple[Series, ...]
    zone: str
    intervals: tuple[str, ...]

    def next_after(self, instant: Instant) -> Instant:
        """Return the first slot later than *instant*. There always is one."""
        return min(_first_after(series, instant) for series in self.series)

    def latest_at_or_before(self, instant: Instant) -> Instant | None:
        """Return the last slot not later than *instant*, or None before the first."""
        slots = [slot for series in self.series if (slot := _last_at_or_before(series, instant)) is not None]
        return max(slots, default=None)

    def slots_between(self, after: Instant, until: Instant) -> Iterator[Instant]:
        """Yield the slots later than *after* and not later than *until*, in order, each once.

        So that consecutive calls (a, b), (b, c) meet every slot exactly once.
        """
        slot = self.next_after(after)
        while slot <= until:
            yield slot
            slot = self.next_after(slot)


def _first_after(series: Series, instant: Instant) -> Instant:
    return next(slot for number in series.near(instant) if (slot := series.slot(number)) > instant)


def _last_at_or_before(series: Series, instant: Instant) -> Instant | None:
    numbers = reversed(series.near(instant))
    return next((slot for number in numbers if (slot := series.slot(number)) <= instant), None)


def _ordinal(date: Date) -> int:
    return date.to_stdlib().toordinal()


def parse_schedule(intervals: Sequence[str], zone: str | None, path: str = "schedule") -> Schedule:
    """Return the schedule of an ARM BackupSchedule: its `repeatingTimeIntervals` and its `timeZone`.

    A start with an offset is an instant, which the zone turns into wall-clock time; one without is wall-clock time.
    *path* is the JSON path of the BackupSchedule. Raises `Refused` with every problem found.
    """
    problems: list[UserError] = []
    schedule = read_schedule(intervals, zone, path, problems)
    refuse_if_any(problems, path)
    assert schedule is not None, "without a problem there is a schedule"
    return schedule


def read_schedule(intervals: Sequence[str], zone: str | None, path: str, problems: list[UserError]) -> Schedule | None:
    """Do as `parse_schedule`, but add what is wrong to *problems* and return None then."""
    before = len(problems)
    tz_id = DEFAULT_ZONE
    try:
        tz_id = parse_zone(zone or DEFAULT_ZONE)
    except UnknownZone:
        problems.append(
            invalid(
                f"{path}.timeZone",
                f"{shown(zone or DEFAULT_ZONE)} is no known time zone",
                "Give an IANA name such as Europe/Paris, or a Windows name such as W. Europe Standard Time or UTC.",
            )
        )
    if not intervals:
        problems.append(
            invalid(
                f"{path}.repeatingTimeIntervals",
                "no interval was given; at least one is needed",
                "Give an interval such as R/2026-01-01T09:00:00+00:00/PT4H.",
            )
        )
    series = [
        _series(text, tz_id, f"{path}.repeatingTimeIntervals[{number}]", problems)
        for number, text in enumerate(intervals)
    ]
    if len(problems) > before:
        return None
    return Schedule(tuple(each for each in series if each is not None), tz_id, tuple(intervals))


def _series(text: str, zone: str, path: str, problems: list[UserError]) -> Series | None:
    remedy = "Write R/START/PERIOD, such as R/2026-01-01T09:00:00+00:00/PT4H."
    match = _INTERVAL.fullmatch(text.strip())
    if match is None:
        problems.append(invalid(path, f"{shown(text)} is not of the form R/START/PERIOD", remedy))
        return None
    _, start_text, period = match.groups()
    start = _start(start_text, zone)
    if start is None or not EARLIEST_START_YEAR <= start.year <= LATEST_START_YEAR:
        problems.append(
            invalid(
                path,
                f"the start {shown(start_text)} is not an ISO 8601 date and time "
                f"of the years {EARLIEST_START_YEAR} to {LATEST_START_YEAR}",
                remedy,
            )
        )
        return None
    if period in HOURLY_PERIODS:
        return HourlySeries(start.to_instant(), HOURLY_PERIODS[period])
    if period in DAILY_PERIODS:
        return DailySeries(start.to_plain(), DAILY_PERIODS[period], zone)
    problems.append(
        invalid(
            path,
            f"the period {shown(period)} is not accepted; accepted are {', '.join(ACCEPTED_PERIODS)}",
            "Write P1D for once a day." if period == "PT24H" else "Use one of the accepted periods.",
        )
    )
    return None


def _start(text: str, zone: str) -> ZonedDateTime | None:
    try:
        return parse_instant(text).to_tz(zone)
    except TimeTextInvalid:
        pass  # it has no offset, or is no timestamp at all
    try:
        return PlainDateTime.parse_iso(text).assume_tz(zone, disambiguation="compatible")
    except ValueError:
        return None
