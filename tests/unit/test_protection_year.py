"""A year on a virtual clock: for every day, how many points are kept against a calculation written from the rules.

The calculation below uses the standard library alone (datetime, zoneinfo, calendar), nothing of Strongroom.
"""

import calendar
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from strongroom.protection.policy import parse_policy
from strongroom.protection.retention import KeptPoint, expired, expiry_of
from strongroom.protection.times import Instant

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 380  # into the next year, so that a second yearly point is made
END = BEGIN + timedelta(days=DAYS)

# Tag: priority, marker, duration as ISO text, the same duration as months and days.
TAGS: dict[str, tuple[int, str, str, int, int]] = {
    "Yearly": (10, "FirstOfYear", "P360D", 0, 360),
    "Monthly": (15, "FirstOfMonth", "P6M", 6, 0),
    "Weekly": (20, "FirstOfWeek", "P8W", 0, 56),
    "Daily": (25, "FirstOfDay", "P1M", 1, 0),
    "Default": (99, "", "P2D", 0, 2),
}


def policy_document(start: str, period: str, zone: str, tags: list[str]) -> dict[str, Any]:
    store = {"objectType": "DataStoreInfoBase", "dataStoreType": "OperationalStore"}
    criteria: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = []
    for name in tags:
        priority, marker, duration, _, _ = TAGS[name]
        condition = {"objectType": "ScheduleBasedBackupCriteria", "absoluteCriteria": [marker]}
        criteria.append(
            {
                "tagInfo": {"tagName": name},
                "taggingPriority": priority,
                "isDefault": name == "Default",
                "criteria": [condition] if marker else [],
            }
        )
        rules.append(
            {
                "objectType": "AzureRetentionRule",
                "name": name,
                "isDefault": name == "Default",
                "lifecycles": [
                    {
                        "deleteAfter": {"objectType": "AbsoluteDeleteOption", "duration": duration},
                        "sourceDataStore": store,
                    }
                ],
            }
        )
    backup = {
        "objectType": "AzureBackupRule",
        "name": "Backup",
        "dataStore": store,
        "trigger": {
            "objectType": "ScheduleBasedTriggerContext",
            "schedule": {"repeatingTimeIntervals": [f"R/{start}/{period}"], "timeZone": zone},
            "taggingCriteria": criteria,
        },
    }
    return {
        "objectType": "BackupPolicy",
        "datasourceTypes": ["Microsoft.ContainerService/managedClusters"],
        "policyRules": [backup, *rules],
    }


def fails(slot: datetime) -> bool:
    """Some backups fail: now and then one, a whole Sunday and New Year's first hours, and three weeks on end."""
    since = slot - BEGIN
    return (
        int(since.total_seconds()) // 3600 % 41 == 3
        or date(2026, 5, 3) == slot.date()
        or (slot.year == 2027 and since < timedelta(days=365, hours=9))
        or datetime(2026, 8, 20, tzinfo=UTC) <= slot < datetime(2026, 9, 10, tzinfo=UTC)
    )


# ---- the calculation written from the rules -------------------------------------------------------------------------


def slots_by_the_rules(start: datetime, hours: int | None, zone: ZoneInfo) -> Iterator[datetime]:
    """Every slot in UTC: hours apart in absolute time, or (None) every day at the same wall-clock time."""
    number = 0
    while True:
        if hours is not None:
            slot = start.replace(tzinfo=zone).astimezone(UTC) + timedelta(hours=hours * number)
        else:
            # fold=0: of two equal wall-clock times the first; in a gap, as far after it as the time lies in it
            slot = (start + timedelta(days=number)).replace(tzinfo=zone, fold=0).astimezone(UTC)
        if slot > END:
            return
        yield slot
        number += 1


def months_later(moment: datetime, months: int) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)


def points_by_the_rules(successes: list[datetime], zone: ZoneInfo, tags: list[str]) -> list[tuple[datetime, datetime]]:
    """When each point was taken and expires: its tag is the greatest period that it is the first success of."""
    firsts: dict[str, set[datetime]] = {"Yearly": set(), "Monthly": set(), "Weekly": set(), "Daily": set()}
    seen: set[tuple[str, object]] = set()
    for success in successes:
        day = success.astimezone(zone).date()
        periods = {
            "Yearly": day.year,
            "Monthly": (day.year, day.month),
            "Weekly": day - timedelta(days=day.isoweekday() % 7),  # the Sunday it began on
            "Daily": day,
        }
        for name, period in periods.items():
            if (name, period) not in seen:
                seen.add((name, period))
                firsts[name].add(success)
    found = []
    for success in successes:
        tag = next((name for name in firsts if name in tags and success in firsts[name]), "Default")
        _, _, _, months, days = TAGS[tag]
        found.append((success, months_later(success, months) + timedelta(days=days)))
    return found


def kept_by_the_rules(points: list[tuple[datetime, datetime]], now: datetime) -> int:
    made = [(taken, expires) for taken, expires in points if taken <= now]
    unexpired = sum(expires > now for _, expires in made)
    newest_expired = bool(made) and made[-1][1] <= now
    return unexpired + newest_expired


# ---- Strongroom, its clock set forward day by day -------------------------------------------------------------------


def kept_by_strongroom(document: dict[str, Any], nights: list[datetime]) -> list[int]:
    policy = parse_policy(document)
    kept: list[KeptPoint[str]] = []
    counts = []
    latest_success: Instant | None = None
    for evening, night in pairwise([BEGIN - timedelta(days=1), *nights]):
        for slot in policy.schedule.slots_between(Instant(evening), Instant(night)):
            if fails(slot.to_stdlib()):
                continue
            rule = policy.rule_for_slot(slot, latest_success)
            latest_success = slot
            kept.append(KeptPoint(rule.name, slot, expiry_of(slot, rule)))
        gone = expired(kept, Instant(night))
        kept = [point for point in kept if point not in gone]
        counts.append(len(kept))
    return counts


ALL_TAGS = list(TAGS)
ZONES = ("Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("period", ["PT4H", "P1D"])
@pytest.mark.parametrize("tags", [ALL_TAGS, ["Default"], ["Weekly", "Default"]], ids="-".join)
def test_the_points_kept_on_each_day_of_a_year_are_those_of_the_rules(zone: str, period: str, tags: list[str]) -> None:
    start = datetime(2026, 1, 1, 2, 15)  # noqa: DTZ001  a wall-clock time that clocks skip and repeat in three zones
    info = ZoneInfo(zone)
    successes = [slot for slot in slots_by_the_rules(start, 4 if period == "PT4H" else None, info) if not fails(slot)]
    points = points_by_the_rules(successes, info, tags)
    nights = [BEGIN + timedelta(days=number + 1) for number in range(DAYS)]
    expected = [kept_by_the_rules(points, night) for night in nights]
    assert kept_by_strongroom(policy_document(start.isoformat(), period, zone, tags), nights) == expected
    # The year has what it is to show: growth, and failing weeks in which nothing but the newest would be left.
    assert max(expected) > (30 if len(tags) == len(ALL_TAGS) else 1)
    assert tags != ["Default"] or expected[(date(2026, 9, 5) - BEGIN.date()).days] == 1
