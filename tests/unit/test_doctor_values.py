"""What the doctor makes of a backup's age, and of all findings together."""

from datetime import UTC, datetime, timedelta

import pytest

from strongroom.cli.doctor_service import overdue
from strongroom.cli.findings import Finding, Status, age_text, fail, ok, show, warn
from strongroom.cli.output import Format, Output

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
EVERY_4_HOURS = ["R/2026-01-01T00:00:00+00:00/PT4H"]


@pytest.mark.parametrize(
    ("hours", "intervals", "status"),
    [
        (4.9, EVERY_4_HOURS, Status.OK),
        (5.1, EVERY_4_HOURS, Status.WARN),
        (8.9, EVERY_4_HOURS, Status.WARN),
        (9.1, EVERY_4_HOURS, Status.FAIL),
        (24, ["R/2026-01-01T00:00:00+00:00/P1D"], Status.OK),
        (24, ["R/2026-01-01T00:00:00+00:00/P1W", *EVERY_4_HOURS], Status.FAIL),
        (24, ["R/2026-01-01T00:00:00+00:00/P9Y"], Status.OK),
    ],
)
def test_a_backup_is_late_after_a_period_and_missing_after_two(
    hours: float, intervals: list[str], status: Status
) -> None:
    found, told = overdue(NOW - timedelta(hours=hours), intervals, NOW)
    assert found is status, told


def test_no_backup_yet_is_a_warning() -> None:
    assert overdue(None, EVERY_4_HOURS, NOW) == (Status.WARN, "there is no backup yet")


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(seconds=20), "less than a minute"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(minutes=59), "59 minutes"),
        (timedelta(hours=1), "1 hour"),
        (timedelta(hours=4), "4 hours"),
        (timedelta(hours=26), "26 hours"),
        (timedelta(days=2), "2 days"),
        (timedelta(weeks=1), "7 days"),
    ],
)
def test_ages_are_told_as_people_say_them(span: timedelta, text: str) -> None:
    assert age_text(span) == text


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([ok("a", "b", "c")], 0),
        ([ok("a", "b", "c"), warn("a", "b", "c")], 3),
        ([fail("a", "b", "c"), warn("a", "b", "c")], 1),
    ],
)
def test_the_exit_code_is_that_of_the_worst_finding(findings: list[Finding], code: int) -> None:
    assert show(Output(output=Format.JSON), findings) == code
