"""Times as Azure writes them, and the limits on how many jobs and objects there may be."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import UsageError
from strongroom.protection.errors import LISTED_PROBLEMS, Refused, UserError, invalid, refuse_if_any
from strongroom.protection.job import JobStatus, Limits, check_count, check_daily, job_duration
from strongroom.protection.times import (
    Instant,
    TimeDelta,
    TimeTextInvalid,
    format_duration,
    format_timestamp,
    parse_calendar_period,
    parse_instant,
)


@pytest.mark.parametrize(
    ("elapsed", "text"),
    [
        (TimeDelta(minutes=3, nanoseconds=36_532_997_700), "PT3M36.5329977S"),
        (TimeDelta(), "PT0S"),
        (TimeDelta(nanoseconds=99), "PT0S"),
        (TimeDelta(nanoseconds=100), "PT0.0000001S"),
        (TimeDelta(seconds=90, milliseconds=500), "PT1M30.5S"),
        (TimeDelta(hours=2), "PT2H"),
        (TimeDelta(hours=26, seconds=1), "P1DT2H1S"),
        (TimeDelta(hours=24), "P1D"),
        (TimeDelta(seconds=-5), "PT0S"),  # a clock that was set back
    ],
)
def test_a_duration_is_written_as_dotnet_writes_it(elapsed: TimeDelta, text: str) -> None:
    assert format_duration(elapsed) == text


def test_a_recorded_job_has_its_recorded_duration() -> None:
    start, end = parse_instant("2025-03-11T08:31:51.0410116Z"), parse_instant("2025-03-11T08:35:27.5740093Z")
    assert job_duration(start, end) == "PT3M36.5329977S"
    assert job_duration(start, None) == "PT0S"


@given(ticks=st.integers(0, 10**15))
def test_no_tick_of_a_duration_is_lost(ticks: int) -> None:
    text = format_duration(TimeDelta(nanoseconds=100 * ticks))
    parts = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d{1,7}))?S)?)?", text)
    assert parts is not None
    days, hours, minutes, seconds, fraction = parts.groups()
    whole = ((int(days or 0) * 24 + int(hours or 0)) * 60 + int(minutes or 0)) * 60 + int(seconds or 0)
    assert whole * 10**7 + int((fraction or "").ljust(7, "0")) == ticks


@pytest.mark.parametrize(
    ("given_text", "text"),
    [
        ("2025-03-11T08:31:51.0410116Z", "2025-03-11T08:31:51.0410116Z"),
        ("2025-03-11T09:31:51+01:00", "2025-03-11T08:31:51.0000000Z"),
        ("2025-03-11T08:31:51.999999999Z", "2025-03-11T08:31:51.9999999Z"),
        ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.9999999Z"),
    ],
)
def test_a_timestamp_has_seven_digits_and_is_never_rounded_up(given_text: str, text: str) -> None:
    assert format_timestamp(parse_instant(given_text)) == text


@given(first=st.datetimes(), second=st.datetimes())
def test_timestamps_sort_as_instants_do(first: datetime, second: datetime) -> None:
    a, b = Instant(first.replace(tzinfo=UTC)), Instant(second.replace(tzinfo=UTC))
    assert (format_timestamp(a) < format_timestamp(b)) == (a < b)


@pytest.mark.parametrize("text", ["2025-03-11T08:31:51", "yesterday", "", "2025-03-11"])
def test_a_timestamp_without_offset_is_none(text: str) -> None:
    with pytest.raises(TimeTextInvalid):
        parse_instant(text)


@pytest.mark.parametrize(
    ("text", "longest"), [("P7D", 7), ("P12W", 84), ("P1M", 31), ("P3M", 92), ("P11M", 337), ("P1Y", 366)]
)
def test_a_period_knows_how_many_days_it_lasts_at_most(text: str, longest: int) -> None:
    assert parse_calendar_period(text).longest_days == longest


@pytest.mark.parametrize("text", ["", "P", "P0D", "PT4H", "P1DT1H", "-P7D", "P-7D", "7D", "P1.5D", "P101Y", "P99999D"])
def test_a_period_of_hours_of_nothing_or_of_ages_is_none(text: str) -> None:
    with pytest.raises(TimeTextInvalid):
        parse_calendar_period(text)


def test_a_job_with_warnings_succeeded() -> None:
    assert JobStatus.COMPLETED_WITH_WARNINGS.succeeded
    assert not JobStatus.CANCELLED.succeeded
    assert [status for status in JobStatus if not status.ended] == [JobStatus.IN_PROGRESS]


def test_limits_are_azures_unless_they_are_configured() -> None:
    assert Limits() == Limits(5_000, 5_000, 10, 10, 800)
    with pytest.raises(UsageError, match="restores_per_day"):
        Limits(restores_per_day=0)


def test_the_eleventh_backup_of_a_day_is_refused_and_told_when_to_come_back() -> None:
    now = datetime(2026, 11, 23, 15, tzinfo=UTC)
    earlier = [Instant(now - timedelta(minutes=number)) for number in range(9)]
    earlier.append(Instant(datetime(2026, 11, 22, 23, 59, tzinfo=UTC)))
    check_daily(earlier, Instant(now), 10, "on-demand backups", "shop")
    earlier.append(Instant(datetime(2026, 11, 23, tzinfo=UTC)))
    with pytest.raises(Refused) as caught:
        check_daily(earlier, Instant(now), 10, "on-demand backups", "shop")
    assert caught.value.error.code == "CloudDosTimeboudLimitReached"
    assert caught.value.error.recommended_action == ("Try again after 2026-11-24T00:00:00Z.",)
    assert caught.value.status == 400  # azure-core would repeat a 429 by itself
    check_daily(earlier, Instant(datetime(2026, 11, 24, tzinfo=UTC)), 10, "on-demand backups", "shop")


def test_one_more_than_allowed_is_refused() -> None:
    check_count(4_999, 5_000, "backup policies in the vault", "vault")
    with pytest.raises(Refused):
        check_count(5_000, 5_000, "backup policies in the vault", "vault")


def test_a_single_problem_is_the_error_itself_and_several_are_its_details() -> None:
    refuse_if_any([], "It")
    one = invalid("a.b", "is missing")
    with pytest.raises(Refused) as caught:
        refuse_if_any([one], "It")
    assert caught.value.error is one
    many = [invalid(f"a[{number}]", "is wrong", "Mend it.") for number in range(50)]
    with pytest.raises(Refused) as caught:
        refuse_if_any(many, "It")
    assert caught.value.error.details == tuple(many)
    assert caught.value.error.recommended_action == ("Mend it.",)
    assert caught.value.error.message.count("is wrong") == LISTED_PROBLEMS


def test_a_refusal_reads_with_its_remedy_on_the_command_line() -> None:
    refused = Refused(UserError("C", "it is so", recommended_action=("Do this.", "Do that.")))
    assert str(refused) == "it is so. Do this. Do that."
