"""Which tag a backup gets, and which points expire."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.protection.retention import KeptPoint, RetentionMode, RetentionRule, expired, expiry_of
from strongroom.protection.tagging import (
    AbsoluteMarker,
    BackupCriteria,
    DayOfWeek,
    Month,
    TagCriterion,
    WeekNumber,
    choose_tag,
)
from strongroom.protection.times import Instant, Time, parse_calendar_period, parse_instant


def at(text: str) -> Instant:
    return parse_instant(text)


def first(marker: AbsoluteMarker) -> tuple[BackupCriteria, ...]:
    return (BackupCriteria(absolute=frozenset({marker})),)


# Deliberately not in the order of priority: the number decides, not the place.
CALENDAR_TAGS = (
    TagCriterion("Default", 99, is_default=True),
    TagCriterion("Daily", 25, is_default=False, criteria=first(AbsoluteMarker.FIRST_OF_DAY)),
    TagCriterion("Yearly", 10, is_default=False, criteria=first(AbsoluteMarker.FIRST_OF_YEAR)),
    TagCriterion("Weekly", 20, is_default=False, criteria=first(AbsoluteMarker.FIRST_OF_WEEK)),
    TagCriterion("Monthly", 15, is_default=False, criteria=first(AbsoluteMarker.FIRST_OF_MONTH)),
)


@pytest.mark.parametrize(
    ("slot", "latest", "tag"),
    [
        ("2026-11-23T08:00:00Z", None, "Yearly"),  # the very first backup is the first of everything
        ("2026-11-23T08:00:00Z", "2026-11-23T04:00:00Z", "Default"),
        ("2026-11-24T00:00:00Z", "2026-11-23T20:00:00Z", "Daily"),
        ("2026-11-22T00:00:00Z", "2026-11-21T20:00:00Z", "Weekly"),  # a Sunday
        ("2026-11-23T00:00:00Z", "2026-11-22T20:00:00Z", "Daily"),  # a Monday begins no week
        ("2026-12-01T00:00:00Z", "2026-11-30T20:00:00Z", "Monthly"),
        ("2027-01-01T00:00:00Z", "2026-12-31T20:00:00Z", "Yearly"),
        ("2026-11-23T20:00:00Z", "2026-11-22T20:00:00Z", "Daily"),  # the earlier ones of the day failed
        ("2026-11-26T20:00:00Z", "2026-11-20T20:00:00Z", "Weekly"),  # so did those of Sunday to Thursday
    ],
)
def test_a_backup_gets_the_first_tag_by_priority_that_matches(slot: str, latest: str | None, tag: str) -> None:
    assert choose_tag(CALENDAR_TAGS, "Etc/UTC", at(slot), at(latest) if latest else None) == tag


def test_days_are_those_of_the_policys_zone() -> None:
    # In Kolkata the day begins at 18:30 UTC.
    assert choose_tag(CALENDAR_TAGS, "Asia/Kolkata", at("2026-11-23T19:00:00Z"), at("2026-11-23T15:00:00Z")) == "Daily"
    assert (
        choose_tag(CALENDAR_TAGS, "Asia/Kolkata", at("2026-11-24T03:00:00Z"), at("2026-11-23T19:00:00Z")) == "Default"
    )


def test_the_first_successful_backup_of_a_day_that_changes_its_clocks_twice_over_is_one_backup() -> None:
    # 02:30 comes twice in Paris that day; both belong to the same date.
    latest, slot = at("2026-10-25T00:30:00Z"), at("2026-10-25T01:30:00Z")
    assert choose_tag(CALENDAR_TAGS, "Europe/Paris", slot, latest) == "Default"


def tagged(criteria: BackupCriteria, slot: str, zone: str = "Etc/UTC") -> bool:
    tagging = (TagCriterion("Wanted", 1, is_default=False, criteria=(criteria,)), TagCriterion("Default", 99, True))
    return choose_tag(tagging, zone, at(slot), at("2026-01-01T00:00:00Z")) == "Wanted"


def test_all_kinds_of_conditions_of_one_criterion_must_hold() -> None:
    criteria = BackupCriteria(
        days_of_week=frozenset({DayOfWeek.SUNDAY}),
        weeks_of_month=frozenset({WeekNumber.FIRST}),
        months=frozenset({Month.MARCH, Month.SEPTEMBER}),
    )
    assert tagged(criteria, "2026-03-01T12:00:00Z")
    assert tagged(criteria, "2026-09-06T12:00:00Z")
    assert not tagged(criteria, "2026-03-08T12:00:00Z")
    assert not tagged(criteria, "2026-03-02T12:00:00Z")
    assert not tagged(criteria, "2026-02-01T12:00:00Z")


def test_several_criteria_of_a_tag_are_alternatives() -> None:
    either = (
        BackupCriteria(days_of_month=frozenset({15})),
        BackupCriteria(days_of_week=frozenset({DayOfWeek.FRIDAY})),
    )
    tagging = (TagCriterion("Wanted", 1, is_default=False, criteria=either), TagCriterion("Default", 99, True))
    tags = {day: choose_tag(tagging, "Etc/UTC", at(f"2026-04-{day:02}T00:00:00Z"), None) for day in (14, 15, 16, 17)}
    assert tags == {14: "Default", 15: "Wanted", 16: "Default", 17: "Wanted"}


def test_the_fourth_sunday_may_be_the_last_one_too() -> None:
    last = BackupCriteria(days_of_week=frozenset({DayOfWeek.SUNDAY}), weeks_of_month=frozenset({WeekNumber.LAST}))
    fourth = BackupCriteria(days_of_week=frozenset({DayOfWeek.SUNDAY}), weeks_of_month=frozenset({WeekNumber.FOURTH}))
    assert tagged(last, "2026-02-22T00:00:00Z")
    assert tagged(fourth, "2026-02-22T00:00:00Z")
    assert tagged(last, "2026-03-29T00:00:00Z")  # the fifth
    assert not tagged(fourth, "2026-03-29T00:00:00Z")


def test_the_last_day_of_a_month_is_found_in_every_month() -> None:
    last = BackupCriteria(days_of_month=frozenset({0}))
    days = [date(2026, 1, 1) + timedelta(days=number) for number in range(365)]
    found = [day for day in days if tagged(last, f"{day.isoformat()}T12:00:00Z")]
    assert [day.day for day in found] == [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


def test_schedule_times_are_wall_clock_times_also_where_clocks_leave_them_out() -> None:
    criteria = BackupCriteria(schedule_times=frozenset({Time(2, 30)}))
    assert tagged(criteria, "2026-01-10T01:30:00Z", "Europe/Paris")
    assert tagged(criteria, "2026-07-10T00:30:00Z", "Europe/Paris")
    assert not tagged(criteria, "2026-07-10T01:30:00Z", "Europe/Paris")
    assert tagged(criteria, "2026-03-29T01:30:00Z", "Europe/Paris")  # 02:30 is skipped; the slot lies at 03:30


@given(
    days=st.lists(st.integers(0, 800), min_size=2, max_size=40, unique=True).map(sorted),
    zone=st.sampled_from(["Europe/Paris", "Asia/Kolkata", "America/New_York"]),
)
def test_among_successful_backups_exactly_one_of_each_week_is_weekly_or_above(days: list[int], zone: str) -> None:
    slots = [datetime(2025, 11, 1, 3, tzinfo=UTC) + timedelta(hours=7 * day) for day in days]
    latest: Instant | None = None
    per_week: dict[date, int] = {}
    for slot in slots:
        tag = choose_tag(CALENDAR_TAGS, zone, Instant(slot), latest)
        latest = Instant(slot)
        day = slot.astimezone(ZoneInfo(zone)).date()
        sunday = day - timedelta(days=(day.weekday() + 1) % 7)
        per_week.setdefault(sunday, 0)
        # A month or a year that begins inside a week takes one backup more out of the daily ones.
        per_week[sunday] += tag == "Weekly" or (tag in ("Monthly", "Yearly") and per_week[sunday] == 0)
    assert set(per_week.values()) == {1}


WEEK = RetentionRule("Default", is_default=True, operational=parse_calendar_period("P7D"))


def point(name: str, time: str, expires: str | None) -> KeptPoint[str]:
    return KeptPoint(name, at(time), at(expires) if expires else None)


@pytest.mark.parametrize(
    ("duration", "time", "expiry"),
    [
        ("P7D", "2026-03-25T10:00:00Z", "2026-04-01T10:00:00Z"),  # 168 hours, whatever clocks do
        ("P12W", "2026-01-01T00:00:00Z", "2026-03-26T00:00:00Z"),
        ("P3M", "2026-11-30T10:00:00Z", "2027-02-28T10:00:00Z"),
        ("P1M", "2028-01-31T10:00:00Z", "2028-02-29T10:00:00Z"),
        ("P1M1D", "2026-01-31T10:00:00Z", "2026-03-01T10:00:00Z"),
    ],
)
def test_a_point_expires_its_retention_after_it_was_taken(duration: str, time: str, expiry: str) -> None:
    rule = RetentionRule("Default", is_default=True, operational=parse_calendar_period(duration))
    assert expiry_of(at(time), rule) == at(expiry)


def test_points_go_oldest_first_at_the_instant_they_expire() -> None:
    points = [
        point("new", "2026-01-03T00:00:00Z", "2026-01-10T00:00:00Z"),
        point("middle", "2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z"),
        point("old", "2026-01-01T00:00:00Z", "2026-01-08T00:00:00Z"),
    ]
    assert expired(points, at("2026-01-07T23:59:59Z")) == []
    assert [each.id for each in expired(points, at("2026-01-08T00:00:00Z"))] == ["old"]
    assert [each.id for each in expired(points, at("2026-01-09T00:00:00Z"))] == ["old", "middle"]


def test_the_newest_point_never_goes_even_after_years() -> None:
    points = [point("only", "2026-01-01T00:00:00Z", "2026-01-08T00:00:00Z")]
    assert expired(points, at("2036-01-01T00:00:00Z")) == []


def test_the_newest_point_is_kept_even_if_an_older_one_lasts_longer() -> None:
    points = [
        point("yearly", "2026-01-01T00:00:00Z", "2026-12-27T00:00:00Z"),
        point("newest", "2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z"),
    ]
    assert expired(points, at("2026-06-01T00:00:00Z")) == []
    assert [each.id for each in expired(points, at("2027-01-01T00:00:00Z"))] == ["yearly"]


def test_nothing_goes_from_an_instance_that_retains_forever() -> None:
    points = [point(str(day), f"2026-01-0{day}T00:00:00Z", f"2026-01-1{day}T00:00:00Z") for day in range(1, 9)]
    assert expired(points, at("2027-01-01T00:00:00Z"), RetentionMode.FOREVER) == []


def test_a_point_without_expiry_is_kept() -> None:
    points = [point("kept", "2026-01-01T00:00:00Z", None), point("newer", "2026-01-02T00:00:00Z", None)]
    assert expired(points, at("2027-01-01T00:00:00Z")) == []


def test_a_point_keeps_the_retention_it_was_made_with_when_the_policy_changes() -> None:
    shorter = RetentionRule("Default", is_default=True, operational=parse_calendar_period("P1D"))
    before, after = at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z")
    points = [
        KeptPoint("made under P7D", before, expiry_of(before, WEEK)),
        KeptPoint("made under P1D", after, expiry_of(after, shorter)),
        KeptPoint("newest", at("2026-01-03T00:00:00Z"), at("2026-01-04T00:00:00Z")),
    ]
    assert [each.id for each in expired(points, at("2026-01-05T00:00:00Z"))] == ["made under P1D"]


@given(
    moments=st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 500)), min_size=1, max_size=30),
    now=st.integers(0, 3000),
)
def test_what_is_kept_is_what_has_not_expired_and_the_newest(moments: list[tuple[int, int]], now: int) -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    points = [
        KeptPoint(number, Instant(begin + timedelta(hours=taken)), Instant(begin + timedelta(hours=taken + lasts)))
        for number, (taken, lasts) in enumerate(moments)
    ]
    gone = {each.id for each in expired(points, Instant(begin + timedelta(hours=now)))}
    newest = max(taken for taken, _ in moments)
    for number, (taken, lasts) in enumerate(moments):
        if taken + lasts > now:
            assert number not in gone
        elif taken < newest:
            assert number in gone
    assert len(gone) < len(points)
