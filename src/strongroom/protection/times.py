"""Points in time, zones and ISO 8601 texts as Azure writes them; the only module here that touches `whenever`.

`whenever` is not at 1.0 and its names still move, so the rest of the domain imports `Instant` from here. Nothing reads
the clock: whoever calls passes `now`.
"""

import re
from dataclasses import dataclass

from tzlocal.windows_tz import win_tz
from whenever import Date, Instant, PlainDateTime, Time, TimeDelta, TimeZoneNotFoundError, ZonedDateTime

from strongroom.protection.errors import shown

__all__ = [
    "UNSET_TIMESTAMP",
    "CalendarPeriod",
    "Date",
    "Instant",
    "PlainDateTime",
    "Time",
    "TimeDelta",
    "TimeTextInvalid",
    "UnknownZone",
    "ZonedDateTime",
    "format_duration",
    "format_timestamp",
    "parse_calendar_period",
    "parse_instant",
    "parse_zone",
    "slot_key",
]

TICKS_PER_SECOND = 10_000_000  # Azure's timestamps and durations count 100 ns, .NET's tick
NANOSECONDS_PER_TICK = 100

UNSET_TIMESTAMP = "0001-01-01T00:00:00Z"  # what Azure writes for "no time yet" (reference section 3.2, item 5)

# Windows names Azure accepts and tzlocal's table lacks (reference: dependencies.md G).
_MORE_WINDOWS_ZONES = {"Coordinated Universal Time": "Etc/UTC"}
_WINDOWS_ZONES = {name.casefold(): zone for name, zone in (win_tz | _MORE_WINDOWS_ZONES).items()}

LONGEST_PERIOD_MONTHS = 1200  # a hundred years; keeps every expiry time inside the calendar
LONGEST_PERIOD_DAYS = 36_600

_CALENDAR_PERIOD = re.compile(r"P(?:(\d{1,4})Y)?(?:(\d{1,5})M)?(?:(\d{1,5})W)?(?:(\d{1,6})D)?")


class UnknownZone(ValueError):
    """A time zone is neither an IANA name nor one of Windows."""


class TimeTextInvalid(ValueError):
    """A text is not the timestamp or the period that it should be; the message says what is accepted."""


def parse_zone(name: str) -> str:
    """Return the IANA name of a zone given by its IANA or Windows name, in any casing.

    Raises `UnknownZone`.
    """
    text = name.strip()
    zone = _WINDOWS_ZONES.get(text.casefold(), text)
    try:
        # Through `whenever`, which reads its data from the zone database and normalises the casing.
        tz_id = Instant.from_utc(2000, 1, 1).to_tz(zone).tz_id
    except TimeZoneNotFoundError as error:
        raise UnknownZone(name) from error
    assert tz_id is not None, "a zone that was found by its name has one"
    return tz_id


def parse_instant(text: str) -> Instant:
    """Return the instant of an ISO 8601 timestamp with `Z` or an offset. Raises `TimeTextInvalid`."""
    try:
        return Instant.parse_iso(text)
    except ValueError as error:
        raise TimeTextInvalid(
            f"{shown(text)} is not an ISO 8601 timestamp with an offset, such as 2026-11-23T09:00:00Z"
        ) from error


def format_timestamp(instant: Instant) -> str:
    """Return *instant* as Azure writes it: UTC, seven digits of a second, `Z` (2025-03-11T08:31:51.0410116Z).

    What is finer than 100 ns is cut off, never rounded up, so that texts sort as the instants do.
    """
    seconds, nanoseconds = divmod(int(instant.timestamp(unit="nanosecond")), 1_000_000_000)
    whole = Instant.from_timestamp(seconds).format_iso()
    return f"{whole.removesuffix('Z')}.{nanoseconds // NANOSECONDS_PER_TICK:07d}Z"


def format_duration(elapsed: TimeDelta) -> str:
    """Return *elapsed* as .NET writes a TimeSpan: PT3M36.5329977S, PT0S, P1DT2H. Negative ones count as zero.

    A job's duration is measured by a wall clock that may be set back; Azure's clients parse no sign.
    """
    ticks = max(0, elapsed.total("nanoseconds") // NANOSECONDS_PER_TICK)
    seconds, fraction = divmod(int(ticks), TICKS_PER_SECOND)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    tail = f"{second}.{fraction:07d}".rstrip("0") if fraction else str(second)
    time = f"{hour}H" * bool(hour) + f"{minute}M" * bool(minute) + f"{tail}S" * bool(second or fraction)
    if days:
        return f"P{days}DT{time}" if time else f"P{days}D"
    return f"PT{time or '0S'}"


def slot_key(instant: Instant) -> str:
    """Return the name of a slot, the same on every run: 20261123T090000Z. Slots lie on whole seconds."""
    return Instant.from_timestamp(instant.timestamp()).format_iso(basic=True)


@dataclass(frozen=True, slots=True)
class CalendarPeriod:
    """A retention time: whole *months* (a year is twelve) and whole *days* (a week is seven); *text* as given."""

    months: int
    days: int
    text: str

    def after(self, instant: Instant) -> Instant:
        """Return the instant this period after *instant*, reckoned in UTC.

        Months first: the same day of the later month, or its last day where it is shorter. Then days of 24 hours.
        """
        return instant.to_tz("UTC").add(months=self.months, days=self.days, disambiguation="compatible").to_instant()

    @property
    def longest_days(self) -> int:
        """How many days it lasts at most: P1M is 31 days from 1 January, 28 from 1 February."""
        starts = [Date(year, month, 1) for year in (2023, 2024) for month in range(1, 13)]
        return max(_days_between(start, start.add(months=self.months)) for start in starts) + self.days


def _days_between(earlier: Date, later: Date) -> int:
    return later.to_stdlib().toordinal() - earlier.to_stdlib().toordinal()


def parse_calendar_period(text: str) -> CalendarPeriod:
    """Return the period of an ISO 8601 duration of days, weeks, months and years: P7D, P12W, P3M, P1Y.

    Raises `TimeTextInvalid` for anything else, for hours, and for a period of nothing.
    """
    match = _CALENDAR_PERIOD.fullmatch(text)
    years, months, weeks, days = (int(group or 0) for group in match.groups()) if match else (0, 0, 0, 0)
    period = CalendarPeriod(months=12 * years + months, days=7 * weeks + days, text=text)
    if not period.months and not period.days:
        raise TimeTextInvalid(
            f"{shown(text)} is not a time of whole days, weeks, months or years, such as P7D, P12W or P3M"
        )
    if period.months > LONGEST_PERIOD_MONTHS or period.days > LONGEST_PERIOD_DAYS:
        raise TimeTextInvalid(f"{shown(text)} is longer than a hundred years")
    return period
