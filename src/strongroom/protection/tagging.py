"""Which retention tag a backup gets: the first tag by priority whose criteria match.

Days, weeks, months and years are those of the policy's zone; a week begins on Sunday (reference section 1.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from strongroom.protection.times import Date, Instant, Time, ZonedDateTime


class AbsoluteMarker(StrEnum):
    """A criterion by what came before: every backup, or the first successful one of a day, week, month, year."""

    ALL_BACKUP = "AllBackup"
    FIRST_OF_DAY = "FirstOfDay"
    FIRST_OF_WEEK = "FirstOfWeek"
    FIRST_OF_MONTH = "FirstOfMonth"
    FIRST_OF_YEAR = "FirstOfYear"


class DayOfWeek(StrEnum):
    """In the order of a week that begins on Sunday."""

    SUNDAY = "Sunday"
    MONDAY = "Monday"
    TUESDAY = "Tuesday"
    WEDNESDAY = "Wednesday"
    THURSDAY = "Thursday"
    FRIDAY = "Friday"
    SATURDAY = "Saturday"


class WeekNumber(StrEnum):
    """Which occurrence of a weekday in its month."""

    FIRST = "First"
    SECOND = "Second"
    THIRD = "Third"
    FOURTH = "Fourth"
    LAST = "Last"


class Month(StrEnum):
    """In calendar order."""

    JANUARY = "January"
    FEBRUARY = "February"
    MARCH = "March"
    APRIL = "April"
    MAY = "May"
    JUNE = "June"
    JULY = "July"
    AUGUST = "August"
    SEPTEMBER = "September"
    OCTOBER = "October"
    NOVEMBER = "November"
    DECEMBER = "December"


_DAYS = tuple(DayOfWeek)
_WEEKS = (WeekNumber.FIRST, WeekNumber.SECOND, WeekNumber.THIRD, WeekNumber.FOURTH)
_MONTHS = tuple(Month)


@dataclass(frozen=True, slots=True)
class BackupCriteria:
    """A ScheduleBasedBackupCriteria: every kind of condition that is given must hold, by any of its values.

    *days_of_month* holds day numbers, and 0 for the last day; *schedule_times* are wall-clock times of the zone.
    """

    absolute: frozenset[AbsoluteMarker] = frozenset()
    days_of_week: frozenset[DayOfWeek] = frozenset()
    weeks_of_month: frozenset[WeekNumber] = frozenset()
    months: frozenset[Month] = frozenset()
    days_of_month: frozenset[int] = frozenset()
    schedule_times: frozenset[Time] = frozenset()

    def matches(self, slot: ZonedDateTime, previous: ZonedDateTime | None) -> bool:
        """Say whether the backup of *slot* matches, if *previous* is the last successful scheduled one before it."""
        date = slot.date()
        return (
            (not self.absolute or any(_first(marker, date, previous) for marker in self.absolute))
            and (not self.days_of_week or _day_of_week(date) in self.days_of_week)
            and (not self.weeks_of_month or bool(_weeks(date) & self.weeks_of_month))
            and (not self.months or _MONTHS[date.month - 1] in self.months)
            and (not self.days_of_month or bool(_days(date) & self.days_of_month))
            and (not self.schedule_times or any(_is_time(slot, time) for time in self.schedule_times))
        )


@dataclass(frozen=True, slots=True)
class TagCriterion:
    """When a backup gets *tag*: any of *criteria* matches, or *is_default*. A lower *priority* number comes first."""

    tag: str
    priority: int
    is_default: bool
    criteria: tuple[BackupCriteria, ...] = ()


def choose_tag(tagging: Sequence[TagCriterion], zone: str, slot: Instant, latest_success: Instant | None) -> str:
    """Return the tag of the scheduled backup of *slot*.

    *latest_success* is the slot of the latest successful scheduled backup of the instance before this one, or None. A
    backup that failed is not the first of its day, so the next one is. On-demand backups don't count: they get their
    tag by request, and one at midnight must not cost the day its daily point.
    *zone* is an IANA name. *tagging* has exactly one default criterion, which `policy` sees to.
    """
    local = slot.to_tz(zone)
    previous = latest_success.to_tz(zone) if latest_success is not None else None
    for criterion in sorted(tagging, key=lambda each: each.priority):
        if criterion.is_default or any(each.matches(local, previous) for each in criterion.criteria):
            return criterion.tag
    raise AssertionError("a policy has a default tag")


def _first(marker: AbsoluteMarker, date: Date, previous: ZonedDateTime | None) -> bool:
    if marker is AbsoluteMarker.ALL_BACKUP or previous is None:
        return True
    return _period(marker, date) != _period(marker, previous.date())


def _is_time(slot: ZonedDateTime, time: Time) -> bool:
    """Say whether *slot* is where the wall-clock *time* lies on that day: just after the gap if it is skipped."""
    assert slot.tz_id is not None, "slots are reckoned in a named zone"
    return slot.date().at(time).assume_tz(slot.tz_id, disambiguation="compatible") == slot


def _period(marker: AbsoluteMarker, date: Date) -> tuple[int, ...]:
    """Return what names the day, week, month or year that *date* lies in."""
    match marker:
        case AbsoluteMarker.FIRST_OF_WEEK:
            # Day 1 of the calendar was a Monday, so Sundays are the multiples of 7.
            return (date.to_stdlib().toordinal() // 7,)
        case AbsoluteMarker.FIRST_OF_MONTH:
            return (date.year, date.month)
        case AbsoluteMarker.FIRST_OF_YEAR:
            return (date.year,)
        case _:
            return (date.year, date.month, date.day)


def _day_of_week(date: Date) -> DayOfWeek:
    return _DAYS[date.to_stdlib().isoweekday() % 7]


def _weeks(date: Date) -> frozenset[WeekNumber]:
    """Return which occurrence of its weekday *date* is; the fourth may be the last as well."""
    number = (date.day - 1) // 7
    last = date.day + 7 > date.days_in_month()
    return frozenset((*_WEEKS[number : number + 1], *((WeekNumber.LAST,) if last else ())))


def _days(date: Date) -> frozenset[int]:
    return frozenset((date.day, 0)) if date.day == date.days_in_month() else frozenset((date.day,))
