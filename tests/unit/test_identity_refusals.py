"""The audit trail of refusals: complete for one, bounded for a million."""

from datetime import UTC, datetime, timedelta

from strongroom.controlplane.identity.audit import AuditEvent, AuditKind
from strongroom.controlplane.identity.refusals import Refusals

NOW = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)


def denied(scope: str = "/subscriptions/s") -> AuditEvent:
    return AuditEvent(AuditKind.ACCESS_DENIED, "principal", "action", scope, "AuthorizationFailed")


def test_every_first_refusal_is_written_as_it_is() -> None:
    refusals = Refusals()
    assert refusals.note(denied("/a"), NOW) == denied("/a")
    assert refusals.note(denied("/b"), NOW) == denied("/b")


def test_refusals_that_are_alike_are_written_at_each_power_of_ten_with_their_number() -> None:
    refusals = Refusals()
    written = [row for _ in range(10_000) if (row := refusals.note(denied(), NOW))]
    assert [row.detail for row in written] == ["AuthorizationFailed"] + [
        f"AuthorizationFailed; {n} like it within 60 seconds" for n in (10, 100, 1000, 10_000)
    ]


def test_the_next_window_begins_anew_also_when_the_clock_jumps_back() -> None:
    refusals = Refusals()
    refusals.note(denied(), NOW)
    assert refusals.note(denied(), NOW + timedelta(seconds=59)) is None
    assert refusals.note(denied(), NOW + timedelta(seconds=60)) == denied()
    assert refusals.note(denied(), NOW - timedelta(days=1)) == denied()


def test_however_many_kinds_there_are_rows_and_memory_stay_few() -> None:
    refusals = Refusals()
    rows = [row for n in range(20_000) if (row := refusals.note(denied(f"/{n}"), NOW))]
    assert len(rows) <= 100 + 5
    assert len(refusals) <= 101
    assert any("further refusals" in row.detail and "10000 like it" in row.detail for row in rows)


def test_many_denials_do_not_hide_a_refused_token() -> None:
    refusals = Refusals()
    for n in range(1000):
        refusals.note(denied(f"/{n}"), NOW)
    tried = AuditEvent(AuditKind.TOKEN_REFUSED, "", "", "", "InvalidAuthenticationToken from 127.0.0.1")
    assert refusals.note(tried, NOW) == tried
