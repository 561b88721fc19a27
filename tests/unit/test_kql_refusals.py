"""What is refused: text outside the language, with its place, and queries that ask for too much."""

import json
import re
import string
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from strongroom.controlplane.arm.kql import KqlError, evaluation, parse
from strongroom.errors import StrongroomError

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("query", "line", "column", "token", "expected"),
    [
        ("", 1, 1, "", "Resources"),
        ("Tables | take 1", 1, 1, "Tables", "RecoveryServicesResources"),
        ("Resources | join Other on id", 1, 13, "join", "where"),
        ("Resources | project-keep id", 1, 13, "project-keep", "project-away"),
        ("Resources |\n  wher name == 'x'", 2, 3, "wher", "where"),
        ("Resources | where nam == 'x'", 1, 19, "nam", "name"),
        ("Resources | project id | where name == 'x'", 1, 32, "name", "id"),
        ("Resources | summarize count() by type | where name == 'x'", 1, 47, "name", "type"),
        ("Resources | where name = 'x'", 1, 24, "=", "=="),
        ("Resources | where name == ", 1, 27, "", "a literal"),
        ("Resources | where name == 'x", 1, 27, "'x", "a closing '"),
        (r"Resources | where name == 'a\qb'", 1, 27, r"'a\qb'", r"\n"),
        (r"Resources | where name == '\ud800'", 1, 27, r"'\ud800'", "whole Unicode characters"),
        ("Resources | where (name == 'x'", 1, 31, "", ")"),
        ("Resources | where name in ()", 1, 28, ")", "a literal"),
        ("Resources | where name == 'a' == true", 1, 31, "==", "and"),
        ("Resources | where strlen(name) > 1", 1, 19, "strlen", "tostring"),
        ("Resources | where tolower() == 'x'", 1, 19, "tolower", None),
        ("Resources | where tolower(name, name) == 'x'", 1, 33, "name", ")"),
        ("Resources | extend x = case(true, 1)", 1, 24, "case", None),
        ("Resources | extend x = case(true, 1, false, 2)", 1, 24, "case", "an odd number of arguments"),
        ("Resources | where name", 1, 19, "name", "a bool"),
        ("Resources | where name == 'a' and 5", 1, 35, "5", "a bool"),
        ("Resources | where name == 5", 1, 24, "==", None),
        ("Resources | where tostring(properties.t) > datetime(2026-01-01)", 1, 42, ">", None),
        ("Resources | where now() contains 'x'", 1, 19, "now", "a string"),
        ("Resources | where name in (1)", 1, 28, "1", None),
        ("Resources | extend x = now() + now()", 1, 30, "+", "two numbers"),
        ("Resources | extend x = name.first", 1, 28, ".", None),
        ("Resources | extend x = properties[name]", 1, 35, "name", "an index such as [0]"),
        ("Resources | extend x = 1, x = 2", 1, 27, "x", "another name"),
        ("Resources | where properties.t > datetime(yesterday)", 1, 34, "datetime(yesterday)", None),
        ("Resources | where properties.t > 3fortnights", 1, 34, "3fortnights", "d"),
        ("Resources | extend x = 99999999999999999999d", 1, 24, "99999999999999999999d", None),
        ("Resources | extend x = 9223372036854775808", 1, 24, "9223372036854775808", None),
        ("Resources | extend x = 1e999", 1, 24, "1e999", None),
        ("Resources | extend x = ago(name)", 1, 28, "name", "a timespan"),
        ("Resources | take 1.5", 1, 18, "1.5", "a whole number of rows"),
        ("Resources | top 5 by", 1, 21, "", "a column"),
        ("Resources | order name", 1, 19, "name", "by"),
        ("Resources | order by name nulls sideways", 1, 33, "sideways", "first"),
        ("Resources | summarize dcount(name)", 1, 23, "dcount", "count()"),
        ("Resources | where name == 'x' ; Resources", 1, 33, "Resources", "the end of the query"),
        ("Resources | where name matches regex 'x'", 1, 24, "matches", "contains"),
        ("Resources | where name == `x`", 1, 27, "`", None),
        ("Resources | where name == '\u00e9' # x", 1, 31, "#", None),
    ],
)  # fmt: skip
def test_a_query_outside_the_language_is_refused_at_the_token(
    query: str, line: int, column: int, token: str, expected: str | None
) -> None:
    with pytest.raises(KqlError) as refusal:
        parse(query)
    error = refusal.value
    assert (error.line, error.column, error.token) == (line, column, token)
    assert expected is None or expected in error.expected
    assert str(error).startswith(f"line {line}, column {column}: ")
    assert isinstance(error, StrongroomError)


@pytest.mark.parametrize(
    "query",
    [
        "Resources | where " + "(" * 60_000,
        "Resources | where " + "not(" * 10_000,
        "Resources | extend x = " + "-" * 60_000,
        "Resources | extend x = " + "tostring(" * 101 + "name" + ")" * 101,
        "Resources | where " + "iff(true," * 5_000,
        "Resources" + " | take 1" * 101,
        "Resources | extend " + ",".join(f"c{number}=1" for number in range(5_000)),
        "Resources"
        + "".join(f" | extend {','.join(f'c{number}x{part}=1' for part in range(50))}" for number in range(9)),
        "Resources | where name == '" + "x" * 70_000 + "'",
        "Resources | where name == '" + "\u00e9" * 40_000 + "'",
        "Resources | extend x = strcat(" + ",".join(["name"] * 65) + ")",
        "Resources | take " + "9" * 50_000,
        "'" * 60_000,
        "Resources | where properties.a > datetime(" + " " * 60_000 + "x",
        "Resources | where properties.a > datetime(" + " " * 60_000 + "x)",
        "Resources | where properties.a > datetime" + " " * 60_000 + "x",
        "datetime(" * 7_000,
    ],
)
def test_a_query_beyond_a_limit_is_refused(query: str) -> None:
    with pytest.raises(KqlError):
        parse(query)


@pytest.mark.parametrize(
    "query",
    [
        "Resources | where " + "(" * 98 + "name == 'x'" + ")" * 98,
        "Resources | where " + "not(" * 95 + "name == 'x'" + ")" * 95,
        "Resources | where " + " and ".join(["name == 'x'"] * 3_000),
        "Resources | where " + "name == 'x' or name == 'y' and " * 1_000 + "true",
        "Resources | extend x = properties" + ".a" * 20_000,
        "Resources | extend x = 1" + " + 1" * 10_000,
        "Resources | where name in~ (" + ",".join(["'x'"] * 15_000) + ")",
        "Resources" + "\n" * 60_000,
    ],
)
def test_a_long_query_within_the_limits_runs(query: str) -> None:
    parse(query).run([{"name": "x", "properties": {"a": {}}}], now=NOW)


def test_a_query_that_doubles_its_text_over_and_over_is_stopped() -> None:
    query = parse("Resources | extend a = '0123456789'" + " | extend a = strcat(a, a)" * 90)
    with pytest.raises(KqlError, match="a string of more than"):
        query.run([{"name": "x"}], now=NOW)


def test_a_query_that_computes_much_text_for_every_row_is_stopped() -> None:
    growing = "Resources | extend a = '0123456789abcdef'" + " | extend a = strcat(a, a)" * 15
    with pytest.raises(KqlError, match="too much text") as refusal:
        parse(growing).run([{"name": "x"}] * 1_000, now=NOW)
    assert refusal.value.token == "extend"


def test_a_query_that_takes_too_much_work_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "MAX_EVALUATIONS", 10_000)
    query = parse("Resources | where " + " and ".join(["name == 'x'"] * 100))
    query.run([{"name": "x"}] * 20, now=NOW)
    with pytest.raises(KqlError, match="narrower"):
        query.run([{"name": "x"}] * 100, now=NOW)


WORDS = re.findall(
    r"\S+",
    """ Resources | where extend project project-away summarize count() by order sort top take distinct count asc nulls
    last name id properties tags .a .b ['a'] [0] [-1] == =~ != !~ < <= > >= in in~ !in contains startswith has and or
    not( ( ) , = + - * 1 0 2.5 1d 9999999d -4h 'a' "b" '' true false now() ~ ' ; x datetime(2026-01-01) datetime(null)
    ago( bin( split( strcat( tostring( toint( tobool( case( iff( isempty( isnull( todatetime( tolower( //""",
)
OPERATORS = ["==", "!=", "<", ">=", "+", "-", "and", "or", "=~", "has", "contains"]
CONVERSIONS = ["tostring", "toint", "tolong", "tobool", "todatetime", "tolower"]
OPERANDS = st.sampled_from(
    [
        "name",
        "id",
        "zones",
        "properties",
        "properties.a",
        "properties.b",
        "tags['a'].b[0]",
        "5",
        "-1.5",
        "1d",
        "'a'",
        "''",
        "true",
        "now()",
        "datetime(2026-01-01)",
        "datetime(null)",
        "timespan(null)",
        "9223372036854775807",
        "9999999d",
    ]
)
EXPRESSIONS = st.recursive(
    OPERANDS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(OPERATORS), inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(st.sampled_from([*CONVERSIONS, "isempty", "isnull", "not", "ago", "now"]), inner).map(
            lambda parts: f"{parts[0]}({parts[1]})"
        ),
        st.tuples(st.sampled_from(["bin", "split", "strcat"]), inner, inner).map(lambda p: f"{p[0]}({p[1]}, {p[2]})"),
        st.tuples(st.sampled_from(["iff", "case", "split", "strcat"]), inner, inner, inner).map(
            lambda parts: f"{parts[0]}({parts[1]}, {parts[2]}, {parts[3]})"
        ),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} in ({parts[1]}, {parts[2]}))"),
        inner.map(lambda text: f"({text})[0]"),
        inner.map(lambda text: f"-{text}"),
    ),
    max_leaves=12,
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        [
            "2026-01-01T00:00:00Z",
            "0001-01-01T00:00:00+14:00",
            "9999-12-31",
            "1.00:00:00",
            "99999999.23:59:59",
            "true",
            "5",
            "1e400",
            "٣",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "A", "b", "0"]), inner, max_size=3)
    ),
    max_leaves=8,
)
ROWS = st.lists(
    st.fixed_dictionaries({}, optional={"name": JSON, "id": JSON, "properties": JSON, "tags": JSON, "zones": JSON}),
    max_size=4,
)


def run_or_refuse(query: str, rows: list[dict[str, Any]]) -> None:
    """Run *query*; anything but an answer in JSON or a `KqlError` fails the test."""
    try:
        parsed = parse(query)
        parsed.conditions()
        found = parsed.run(rows, now=NOW)
    except KqlError:
        return
    json.dumps(found)


@given(st.text(max_size=80), ROWS)
@example("\x00", [])
@example("Resources\ud800", [])
@example("Resources | where name == '\ud800'", [])
@example("٣", [])
@settings(max_examples=150, deadline=None)
def test_no_text_at_all_breaks_the_parser(text: str, rows: list[dict[str, Any]]) -> None:
    run_or_refuse(text, rows)
    run_or_refuse(f"Resources | {text}", rows)


@given(st.lists(st.sampled_from(WORDS), max_size=25), ROWS)
@settings(max_examples=300, deadline=None)
def test_no_sequence_of_the_languages_own_words_breaks_the_parser(words: list[str], rows: list[dict[str, Any]]) -> None:
    run_or_refuse(" ".join(words), rows)
    run_or_refuse(f"Resources | where {' '.join(words)}", rows)


@given(EXPRESSIONS, EXPRESSIONS, ROWS)
@settings(max_examples=400, deadline=None)
def test_no_expression_breaks_the_evaluator_whatever_the_rows_hold(
    first: str, second: str, rows: list[dict[str, Any]]
) -> None:
    run_or_refuse(f"Resources | extend x = {first}, y = {second} | where x == y or x < y", rows)
    run_or_refuse(f"Resources | where iff({first} == {second}, true, false)", rows)
    run_or_refuse(f"Resources | summarize count() by x = {first} | order by x, tostring(x) asc nulls last", rows)
    run_or_refuse(f"Resources | distinct a = {first}, b = {second} | top 2 by a", rows)


@given(st.data(), ROWS)
@settings(max_examples=150, deadline=None)
def test_no_change_of_a_character_of_a_clients_query_breaks_it(data: st.DataObject, rows: list[dict[str, Any]]) -> None:
    query = (
        "Resources | where type =~ 'a' | extend v = split(split(id, '/x/')[1],'/')[0]| extend o = case("
        "tolower(properties.a) startswith 'b' and properties.b == 'true', strcat('c',properties.a), 'd')"
        " | where o in~ ('d','e') | where properties.b > datetime(2026-01-01T00:00:00Z)"
    )
    place = data.draw(st.integers(0, len(query) - 1))
    change = data.draw(st.sampled_from(["", *string.printable, "\u2028"]))
    run_or_refuse(query[:place] + change + query[place + 1 :], rows)


@pytest.mark.parametrize(
    "query",
    [
        "Resources",
        "Resources | extend a = 1",
        "Resources | order by name asc",
        "Resources | distinct name",
        "Resources | summarize count() by name",
    ],
)
def test_a_query_that_would_hold_too_many_rows_is_stopped(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "MAX_ROWS_HELD", 50)
    rows = ({"name": f"n{number}"} for number in range(1_000_000_000))
    with pytest.raises(KqlError, match="more than 50 rows"):
        parse(query).run(rows, now=NOW)


@pytest.mark.parametrize("query", ["top 3 by name desc", "top 3 by name asc", "count", "take 3", "summarize count()"])
def test_a_short_answer_over_more_rows_than_may_be_held_is_given(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"name": f"n{number % 70}", "id": str(number)} for number in range(5_000)]
    whole = parse(f"Resources | {query}").run(rows, now=NOW)
    monkeypatch.setattr(evaluation, "MAX_ROWS_HELD", 1_050)
    assert parse(f"Resources | {query}").run(rows, now=NOW) == whole
