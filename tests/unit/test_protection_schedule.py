"""Slots of `R/start/period` in a zone: computed from their number, right over changes of clocks."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.protection.errors import Refused
from strongroom.protection.schedule import ACCEPTED_PERIODS, Schedule, parse_schedule
from strongroom.protection.times import Instant, parse_instant, slot_key

ZONES = ("UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia")


def at(text: str) -> Instant:
    return parse_instant(text)


def local(schedule: Schedule, after: str, until: str) -> list[str]:
    """The slots between two instants as wall-clock times of the schedule's zone."""
    found = schedule.slots_between(at(after), at(until))
    return [slot.to_tz(schedule.zone).to_plain().format_iso() for slot in found]


def test_a_four_hourly_schedule_counts_from_its_start_and_includes_it() -> None:
    schedule = parse_schedule(["R/2026-01-04T09:00:00+00:00/PT4H"], "UTC")
    assert schedule.next_after(at("2020-01-01T00:00:00Z")) == at("2026-01-04T09:00:00Z")
    assert schedule.next_after(at("2026-01-04T09:00:00Z")) == at("2026-01-04T13:00:00Z")
    assert schedule.latest_at_or_before(at("2026-01-04T08:59:59Z")) is None
    assert schedule.latest_at_or_before(at("2026-01-04T13:00:00Z")) == at("2026-01-04T13:00:00Z")


def test_a_slot_is_told_from_the_instant_one_nanosecond_before_it_after_decades() -> None:
    schedule = parse_schedule(["R/1970-01-01T00:00:00Z/PT4H"], "UTC")
    slot = at("2060-01-01T08:00:00Z")
    just_before = at("2060-01-01T07:59:59.999999999Z")
    assert schedule.latest_at_or_before(just_before) == at("2060-01-01T04:00:00Z")
    assert schedule.next_after(just_before) == slot


def test_a_daily_slot_in_the_gap_of_spring_lies_just_after_it() -> None:
    schedule = parse_schedule(["R/2026-01-01T02:30:00/P1D"], "Europe/Paris")
    assert local(schedule, "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z") == [
        "2026-03-28T02:30:00",
        "2026-03-29T03:30:00",
        "2026-03-30T02:30:00",
    ]


def test_a_daily_slot_that_comes_twice_in_autumn_is_the_first_one() -> None:
    schedule = parse_schedule(["R/2026-01-01T02:30:00/P1D"], "Europe/Paris")
    found = list(schedule.slots_between(at("2026-10-25T00:00:00Z"), at("2026-10-26T00:00:00Z")))
    assert found == [at("2026-10-25T00:30:00Z")]


def test_hours_stay_absolute_when_clocks_change() -> None:
    schedule = parse_schedule(["R/2026-03-28T20:00:00+01:00/PT4H"], "Europe/Paris")
    assert local(schedule, "2026-03-28T18:00:00Z", "2026-03-29T10:00:00Z") == [
        "2026-03-28T20:00:00",
        "2026-03-29T00:00:00",
        "2026-03-29T05:00:00",
        "2026-03-29T09:00:00",
    ]


def test_half_an_hour_of_daylight_saving_is_kept_apart_too() -> None:
    schedule = parse_schedule(["R/2026-01-01T02:15:00/P1D"], "Australia/Lord_Howe")
    # On 4 October 2026 clocks go from 02:00 to 02:30 there.
    assert local(schedule, "2026-10-02T12:00:00Z", "2026-10-04T20:00:00Z") == [
        "2026-10-03T02:15:00",
        "2026-10-04T02:45:00",
        "2026-10-05T02:15:00",
    ]


def test_a_day_that_a_zone_leaves_out_makes_no_second_slot_of_the_next_day() -> None:
    schedule = parse_schedule(["R/2011-12-28T09:00:00/P1D"], "Pacific/Apia")
    assert local(schedule, "2011-12-28T00:00:00Z", "2011-12-31T12:00:00Z") == [
        "2011-12-28T09:00:00",
        "2011-12-29T09:00:00",
        "2011-12-31T09:00:00",
    ]


def test_a_weekly_schedule_of_several_days_is_the_union_of_its_intervals() -> None:
    schedule = parse_schedule(["R/2026-01-05T22:00:00/P1W", "R/2026-01-08T22:00:00/P1W"], "Asia/Kolkata")
    assert local(schedule, "2026-01-01T00:00:00Z", "2026-01-16T00:00:00Z") == [
        "2026-01-05T22:00:00",
        "2026-01-08T22:00:00",
        "2026-01-12T22:00:00",
        "2026-01-15T22:00:00",
    ]


def test_intervals_that_share_a_slot_make_one_of_it() -> None:
    schedule = parse_schedule(["R/2026-01-01T00:00:00Z/PT4H", "R/2026-01-01T00:00:00Z/PT6H"], "UTC")
    found = local(schedule, "2026-01-01T00:00:00Z", "2026-01-01T12:00:00Z")
    assert [text[11:16] for text in found] == ["04:00", "06:00", "08:00", "12:00"]


def test_the_count_of_repetitions_is_ignored_as_azure_does() -> None:
    schedule = parse_schedule(["R2/2026-01-01T00:00:00Z/P1D"], None)
    assert schedule.next_after(at("2026-06-01T00:00:00Z")) == at("2026-06-02T00:00:00Z")


def test_a_start_with_an_offset_is_an_instant_that_the_zone_turns_into_wall_time() -> None:
    schedule = parse_schedule(["R/2026-01-01T09:00:00+00:00/P1D"], "Europe/Paris")
    assert local(schedule, "2026-07-01T00:00:00Z", "2026-07-02T00:00:00Z") == ["2026-07-01T10:00:00"]


@pytest.mark.parametrize(
    ("given_name", "zone"),
    [
        ("UTC", "Etc/UTC"),
        ("Coordinated Universal Time", "Etc/UTC"),
        ("India Standard Time", "Asia/Calcutta"),
        ("w. europe standard time", "Europe/Berlin"),
        ("Europe/Paris", "Europe/Paris"),
    ],
)
def test_zones_go_by_iana_and_by_windows_names(given_name: str, zone: str) -> None:
    assert parse_schedule(["R/2026-01-01T00:00:00Z/P1D"], given_name).zone == zone


@pytest.mark.parametrize(
    ("interval", "found"),
    [
        ("R/PT4H", "'R/PT4H'"),
        ("R/2026-01-01T00:00:00Z/PT3H", "'PT3H'"),
        ("R/2026-01-01T00:00:00Z/PT24H", "'PT24H'"),
        ("R/2026-13-01T00:00:00Z/PT4H", "'2026-13-01T00:00:00Z'"),
        ("R/9999-01-01T00:00:00Z/PT4H", "'9999-01-01T00:00:00Z'"),
        ("every day", "'every day'"),
    ],
)
def test_an_interval_that_is_not_accepted_is_refused_with_its_field_and_what_was_found(
    interval: str, found: str
) -> None:
    with pytest.raises(Refused) as caught:
        parse_schedule(["R/2026-01-01T00:00:00Z/P1D", interval], "UTC", "trigger.schedule")
    error = caught.value.error
    assert error.code == "BMSUserErrorInvalidInput"
    assert error.target == "trigger.schedule.repeatingTimeIntervals[1]"
    assert found in error.message
    assert error.recommended_action


def test_a_period_that_is_not_accepted_is_answered_with_those_that_are() -> None:
    with pytest.raises(Refused) as caught:
        parse_schedule(["R/2026-01-01T00:00:00Z/PT5H"], "UTC")
    assert all(period in caught.value.error.message for period in ACCEPTED_PERIODS)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "UTC\0"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_schedule(["R/2026-01-01T00:00:00Z/P1D"], zone)
    assert caught.value.error.target == "schedule.timeZone"


def test_all_problems_of_a_schedule_are_told_at_once() -> None:
    with pytest.raises(Refused) as caught:
        parse_schedule(["R/PT4H", "R/2026-01-01T00:00:00Z/PT3H"], "Nowhere")
    assert [problem.target for problem in caught.value.error.details] == [
        "schedule.timeZone",
        "schedule.repeatingTimeIntervals[0]",
        "schedule.repeatingTimeIntervals[1]",
    ]


def test_a_slot_has_the_same_key_whenever_it_is_computed() -> None:
    assert slot_key(at("2026-11-23T10:00:00+01:00")) == "20261123T090000Z"


def stepped(start: datetime, period: str, zone: str, until: datetime) -> list[datetime]:
    """The slots by the rule as written, one after the other, with the standard library."""
    info = ZoneInfo(zone)
    found = []
    if period.startswith("PT"):
        step = timedelta(hours=int(period[2:-1]))
        slot = start.replace(tzinfo=info).astimezone(UTC)
        while slot <= until:
            found.append(slot)
            slot += step
        return found
    step = timedelta(days=7 if period == "P1W" else 1)
    while True:
        aware = start.replace(tzinfo=info, fold=0)
        # A time in a gap: fold=0 uses the offset from before the gap, which lands just after it.
        slot = aware.astimezone(UTC)
        if slot > until:
            return found
        if not found or slot > found[-1]:
            found.append(slot)
        start += step


starts = st.datetimes(min_value=datetime(2009, 1, 1), max_value=datetime(2027, 12, 31)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0)
)


@given(start=starts, period=st.sampled_from(ACCEPTED_PERIODS), zone=st.sampled_from(ZONES), days=st.integers(1, 500))
def test_slots_are_those_that_stepping_by_the_standard_library_finds(
    start: datetime, period: str, zone: str, days: int
) -> None:
    schedule = parse_schedule([f"R/{start.isoformat()}/{period}"], zone)
    begin = start.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    until = begin + timedelta(days=min(days, 60))
    expected = stepped(start, period, zone, until)
    first = Instant(begin)
    found = [first, *schedule.slots_between(first, Instant(until))]
    assert found == [Instant(slot) for slot in expected]


@given(start=starts, period=st.sampled_from(ACCEPTED_PERIODS), zone=st.sampled_from(ZONES), probe=starts)
def test_no_slot_lies_between_the_latest_and_the_next(start: datetime, period: str, zone: str, probe: datetime) -> None:
    schedule = parse_schedule([f"R/{start.isoformat()}/{period}"], zone)
    now = Instant(probe.replace(tzinfo=UTC))
    upcoming = schedule.next_after(now)
    latest = schedule.latest_at_or_before(now)
    assert upcoming > now
    if latest is not None:
        assert latest <= now
        assert schedule.next_after(latest) == upcoming
    assert schedule.latest_at_or_before(upcoming) == upcoming
