"""`$filter` as clients send it is understood; what is not understood is refused at its place."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.controlplane.arm.odata import Comparison, Function, Name, Value, matches, parse_filter, time_range
from strongroom.protection.errors import Refused

GUID = "0b9bbfba-0000-11ee-0000-000000000000"


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("", ()),
        ("  ", ()),
        ("roleName eq 'Reader'", (Comparison("roleName", "eq", "Reader"),)),
        ("roleName%20eq%20%27Reader%27", (Comparison("roleName", "eq", "Reader"),)),
        ("principalId eq 'a''b'", (Comparison("principalId", "eq", "a'b"),)),
        (f"principalId eq {GUID}", (Comparison("principalId", "eq", GUID),)),
        ("atScope()", (Function("atScope"),)),
        (f"atScope() and assignedTo('{GUID}')", (Function("atScope"), Function("assignedTo", (GUID,)))),
        ("startswith(name, 'x')", (Function("startswith", (Name("name"), "x")),)),
        (
            "resourceType eq 'Microsoft.DataProtection/backupVaults' and resourceGroup eq 'rg'",
            (
                Comparison("resourceType", "eq", "Microsoft.DataProtection/backupVaults"),
                Comparison("resourceGroup", "eq", "rg"),
            ),
        ),
        (
            "(properties/status EQ 'Failed') AND (startTime ge 2026-01-01T00:00:00Z)",
            (Comparison("properties/status", "eq", "Failed"), Comparison("startTime", "ge", "2026-01-01T00:00:00Z")),
        ),
        ("t lt datetime'2026-01-01'", (Comparison("t", "lt", "2026-01-01"),)),
        (
            "a eq -1.5 and b ne true and c eq null",
            tuple(map(Comparison, "abc", ("eq", "ne", "eq"), (-1.5, True, None))),
        ),
    ],
)
def test_filters_of_clients_are_read(text: str, conditions: tuple[object, ...]) -> None:
    assert parse_filter(text, functions=("atScope", "assignedTo", "startswith")) == conditions


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("roleName eq", "ends where a value is due"),
        ("roleName", "ends where one of eq, ne"),
        ("roleName is 'x'", "'is' at character 10"),
        ("roleName eq 'x", "''x' at character 13"),
        ("roleName eq Reader", "'Reader' at character 13"),
        ("roleName eq 'a' or roleName eq 'b'", "'or' at character 17"),
        ("not (roleName eq 'a')", "'not' at character 1"),
        ("roleName eq 'a' roleName", "'roleName' at character 17"),
        ("(roleName eq 'a'", "ends where ')' is due"),
        ("roleName eq 'a')", "')' at character 16"),
        ("f('a'", "ends where ',' or ')' is due"),
        ("f(5)", "'5' at character 3"),
        ("f('a' 'b')", "''b'' at character 7"),
        ("roleName eq ~", "'~' at character 13"),
        ("(" * 17 + "a eq 1" + ")" * 17, "no more than 16"),
        ("a eq '" + "x" * 5000 + "'", "more than 4096"),
        ("a eq '\0'", "such as no text has"),
    ],
)
def test_what_is_not_understood_is_refused_at_its_place(text: str, told: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_filter(text, functions=("f",))
    assert told in caught.value.error.message
    assert (caught.value.error.code, caught.value.error.target) == ("InvalidFilterInQueryString", "$filter")


def test_a_condition_that_a_list_cannot_check_is_refused() -> None:
    with pytest.raises(Refused, match="'colour' is unknown; accepted are roleName"):
        parse_filter("colour eq 'red'", fields=("roleName",))
    with pytest.raises(Refused, match="the function 'atScope' is unknown; accepted are none"):
        parse_filter("atScope()")
    assert parse_filter("ROLENAME eq 'x' and ATSCOPE()", fields=("roleName",), functions=("atScope",))


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("name eq 'ALPHA'", True),
        ("name ne 'alpha'", False),
        ("size gt 4 and size le 5", True),
        ("size lt 'x'", False),
        ("missing eq null", True),
        ("missing gt 1", False),
        ("missing eq 'x'", False),
        ("missing ne 'x'", True),
        ("time eq 2026-02-01T02:00:00+02:00", True),
        ("time ge 2026-01-01T00:00:00Z", True),
        ("time lt '2026-01-01T00:00:00Z'", False),
    ],
)
def test_an_entry_meets_a_filter(text: str, met: bool) -> None:
    entry: dict[str, Value] = {"name": "Alpha", "missing": None, "size": 5, "time": "2026-02-01T00:00:00.0000000Z"}
    assert matches(parse_filter(text), entry.__getitem__) is met


def test_the_time_range_of_recovery_points() -> None:
    start, end = datetime(2023, 6, 16, 1, tzinfo=UTC), datetime(2023, 6, 17, tzinfo=UTC)
    text = "startDate eq '2023-06-16T01:00:00.0000000Z' and endDate eq '2023-06-17T02:00:00+02:00'"
    assert time_range(text) == (start, end)
    assert time_range("ENDDATE le '2023-06-17'") == (None, end)
    assert time_range("") == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        "startDate eq 'yesterday'",
        "startDate eq '0001-01-01T00:00:00+14:00'",
        "startDate eq 5",
        "startDate le '2023-06-17'",
        "startDate eq '2023-06-17' and startdate eq '2023-06-18'",
        "recoveryPointType eq 'Full'",
        "atScope()",
    ],
)
def test_another_condition_on_recovery_points_is_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        time_range(text)
    assert caught.value.error.message.isascii()


WORDS = st.sampled_from(
    ["a", "eq", "and", "or", "(", ")", ",", "'x'", "'", "5", "2026-01-01", "null", "%27", "f(", "ü"]
)


@given(st.lists(WORDS, max_size=8).map(" ".join) | st.text(max_size=30))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    for read in (parse_filter, time_range):
        try:
            read(text)
        except Refused as refusal:
            found: str = refusal.error.code
        else:
            found = ""
        assert found in ("", "InvalidFilterInQueryString")
