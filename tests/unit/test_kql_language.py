"""What a query means: operators, functions, conversions and nulls, as Kusto documents them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from strongroom.controlplane.arm.kql import parse

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ROW = {
    "id": "/subscriptions/S/resourceGroups/RG/providers/A.B/vaults/v",
    "name": "Alpha-Beta",
    "type": "a.b/vaults",
    "resourceGroup": "rg",
    "tags": {"env": "prod", "owner/team": "blue"},
    "zones": ["1", "2", "3"],
    "properties": {
        "yes": True,
        "no": False,
        "count": 5,
        "ratio": 2.5,
        "text": "5",
        "empty": "",
        "nothing": None,
        "start": "2026-02-28T10:30:00.1234567Z",
        "span": "1.02:00:00",
        "nested": {"Deep": {"value": "x"}},
        "list": [{"name": "first"}, {"name": "last"}],
    },
}


def value(expression: str, row: dict[str, Any] = ROW) -> Any:
    """Return what *expression* is for *row*."""
    (found,) = parse(f"Resources | project answer = {expression}").run([row], now=NOW)
    return found["answer"]


def rows(query: str, *given: dict[str, Any]) -> list[dict[str, Any]]:
    return parse(f"Resources | {query}").run(given, now=NOW)


@pytest.mark.parametrize(
    "predicate",
    [
        # texts
        "name == 'Alpha-Beta'", "name != 'alpha-beta'", "name =~ 'alpha-beta'", "name !~ 'alpha'",
        "name contains 'HA-B'", "name !contains 'x'", "name startswith 'alpha'", "name endswith 'BETA'",
        "name !startswith 'beta'", "name !endswith 'alpha'", "name startswith_cs 'Alpha'",
        "not(name contains_cs 'ha-b')",
        "name has 'beta'", "name !has 'bet'", "name has 'alpha-beta'", "not(name has 'lpha')", "name has_cs 'Beta'",
        "name in ('x', 'Alpha-Beta')", "name !in ('alpha-beta')", "name in~ ('ALPHA-BETA', 'x')", "name !in~ ('x')",
        "name in~ (strcat('alpha', '-', 'beta'))", "'abc' < 'abd'",
        # JSON whose type the other side decides
        "properties.yes == 'true'", "properties.no == 'false'", "properties.yes == true", "properties.yes != 'True'",
        "properties.text == 5", "properties.count == '5'", "properties.count == 5", "properties.count in (4, 5)",
        "properties.count in ('5')", "properties.ratio > 2", "properties.count >= 5 and properties.count <= 5.0",
        "properties.yes", "not(properties.no)", "properties.count > properties.ratio",
        # times
        "properties.start > datetime(2026-02-28)", "properties.start < datetime('2026-02-28T11:30:00+00:00')",
        "properties.start <= datetime(2026-02-28 12:30:00.1234567+02:00)", "properties.start > ago(2d)",
        "properties.start < ago(24h)", "datetime(2026-03-01T12:00:00Z) == now()", "now(-1d) == ago(1d)",
        "now() - properties.start > 1d", "properties.span == 26h", "timespan(1.02:00:00) == 26h", "time(90m) == 1.5h",
        "1000ms == 1s", "-1h < 0s", "now() - datetime(2026-02-28T12:00:00Z) == 1d",
        # nulls: text has none, everything else compares to null
        "properties.missing == ''", "properties.missing != 'x'", "properties.missing !in ('x')",
        "properties.missing !~ 'x'",
        "isnull(properties.missing)", "isnull(properties.nothing)", "isnotnull(properties.empty)",
        "isempty(properties.empty)", "isempty(properties.missing)", "isnotempty(name)", "properties.missing != 5",
        "properties.missing > 1 or true", "not(properties.missing > 1 and false)", "properties.missing.deeper == ''",
        "isempty(managedBy)", "isnull(properties.start - properties.yes)", "isnull(datetime(null))",
        # logic
        "true or false and false", "(true or false) and true", "1 + 2 - 4 == -1", "2 - -1 == 3",
        "case(false, 1, true, 2, 3) == 2", "iff(properties.missing > 1, 'a', 'b') == 'b'", "iif(true, 1, 2) == 1",
    ],
)  # fmt: skip
def test_a_row_passes_a_predicate_that_is_true(predicate: str) -> None:
    assert len(rows(f"where {predicate}", ROW)) == 1, predicate
    assert rows(f"where not({predicate})", ROW) == []


@pytest.mark.parametrize(
    "predicate",
    [
        "properties.missing > 1",
        "properties.missing < 1",
        "properties.missing == properties.nothing",
        "properties.name > 1",
    ],
)
def test_a_null_predicate_drops_the_row_and_so_does_its_opposite(predicate: str) -> None:
    assert rows(f"where {predicate}", ROW) == []
    assert rows(f"where not({predicate})", ROW) == []


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("properties.nested.Deep.value", "x"),
        ("properties['nested']['Deep'].value", "x"),
        ("properties.Nested.deep.VALUE", "x"),
        ("properties.list[0].name", "first"),
        ("properties.list[-1].name", "last"),
        ("properties.list[2].name", None),
        ("properties.count.x", None),
        ("tags['owner/team']", "blue"),
        ("tags.['env']", "prod"),
        ("['name']", "Alpha-Beta"),
        ("zones[1]", "2"),
        ("NAME", "Alpha-Beta"),
        ("split(id, '/')[2]", "S"),
        ("split(id, '/resourcegroups/')[1]", None),
        ("split(split(id, '/resourcegroups/')[1], '/')[0]", ""),
        ("split('a__b', '_')", ["a", "", "b"]),
        ("split('a_b', '_', 1)", ["b"]),
        ("split('a_b', '_', 2)", None),
        ("split('ab', '')", ["ab"]),
        ("strcat('a', 1, true, properties.missing, 1.5)", "a1true1.5"),
        ("tolower('ÄB')", "äb"),
        ("toupper(properties.missing)", ""),
        ("tostring(properties.nested)", '{"Deep":{"value":"x"}}'),
        ("tostring(now())", "2026-03-01T12:00:00.0000000Z"),
        ("tostring(26h)", "1.02:00:00"),
        ("toint('12')", 12),
        ("toint(5.7)", 5),
        ("toint('x')", None),
        ("toint(3000000000)", None),
        ("tolong('3000000000')", 3_000_000_000),
        ("tobool('TRUE')", True),
        ("tobool(0)", False),
        ("tobool('x')", None),
        ("todatetime('2026-01-02')", "2026-01-02T00:00:00Z"),
        ("todatetime('2026-02-30')", None),
        ("todatetime(properties.start)", "2026-02-28T10:30:00.1234560Z"),
        ("bin(7, 2)", 6),
        ("bin(-7, 2)", -8),
        ("bin(7.9, 0.5)", 7.5),
        ("bin(7, 0)", None),
        ("bin(todatetime(properties.start), 1h)", "2026-02-28T10:00:00Z"),
        ("bin(properties.start, 1d)", "2026-02-28T00:00:00Z"),
        ("bin(26h, 1d)", "1.00:00:00"),
        ("now() + 30m", "2026-03-01T12:30:00Z"),
        ("ago(9999999d)", None),
        ("9223372036854775807 + 1", None),
        ("'it\\'s \\u00e4 \\\\ \\n'", "it's ä \\ \n"),
        ('"it\'s"', "it's"),
        ("@'C:\\x ''y'''", "C:\\x 'y'"),
        ("1.5e2", 150.0),
        ("-properties.count", -5),
    ],
)
def test_an_expression_gives_the_value_that_kusto_gives(expression: str, expected: Any) -> None:
    assert value(expression) == expected


def numbered(*numbers: Any) -> list[dict[str, Any]]:
    return [{"name": f"r{index}", "properties": {"n": number}} for index, number in enumerate(numbers)]


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("order by properties.n", ["r2", "r0", "r1"]),
        ("sort by properties.n asc", ["r1", "r0", "r2"]),
        ("sort by properties.n desc nulls first", ["r1", "r2", "r0"]),
        ("sort by properties.n asc nulls last", ["r0", "r2", "r1"]),
        ("top 2 by properties.n", ["r2", "r0"]),
        ("top 1 by properties.n asc", ["r1"]),
        ("top 5 by name asc", ["r0", "r1", "r2"]),
        ("take 2", ["r0", "r1"]),
        ("limit 0", []),
    ],
)
def test_rows_are_sorted_and_limited(operator: str, expected: list[str]) -> None:
    assert [row["name"] for row in rows(operator, *numbered(1, None, 3))] == expected


def test_rows_are_sorted_by_the_first_key_and_stay_in_order_within_it() -> None:
    given = [{"name": name, "type": kind} for name, kind in [("b", "x"), ("a", "y"), ("a", "x"), ("c", "y")]]
    found = rows("sort by type asc, name desc | project type, name", *given)
    assert [(row["type"], row["name"]) for row in found] == [("x", "b"), ("x", "a"), ("y", "c"), ("y", "a")]
    kept = rows("sort by type desc", *given)
    assert [row["name"] for row in kept] == ["a", "c", "b", "a"]


def test_values_of_different_types_have_an_order_too() -> None:
    given = numbered("text", 5, True, [1], {"a": 1}, None, 1.5)
    assert len(rows("sort by properties.n asc", *given)) == len(given)


def test_summarize_counts_rows_by_each_combination_and_names_the_columns() -> None:
    given = [
        {"type": "x", "properties": {"s": {"a": 1}, "t": "2026-01-01T05:00:00Z"}},
        {"type": "x", "properties": {"s": {"a": 1}, "t": "2026-01-01T06:00:00Z"}},
        {"type": "y", "properties": {"s": {"a": 2}, "t": "2026-01-02T05:00:00Z"}},
    ]
    assert rows("summarize count() by type", *given) == [{"type": "x", "count_": 2}, {"type": "y", "count_": 1}]
    assert rows("summarize n = count() by s = tostring(properties.s.a), bin(todatetime(properties.t), 1d)", *given) == [
        {"s": "1", "properties_t": "2026-01-01T00:00:00Z", "n": 2},
        {"s": "2", "properties_t": "2026-01-02T00:00:00Z", "n": 1},
    ]
    assert rows("summarize by properties.s", *given) == [{"properties_s": {"a": 1}}, {"properties_s": {"a": 2}}]
    assert rows("summarize n=count() by type | where n > 1 | project n", *given) == [{"n": 2}]


def test_counting_no_rows_gives_a_row_with_zero_unless_grouped() -> None:
    assert rows("summarize count()") == [{"count_": 0}]
    assert rows("summarize count() by type") == []
    assert rows("count") == [{"Count": 0}]


def test_true_one_and_the_text_one_are_three_groups() -> None:
    found = rows("summarize count() by v = properties.n", *numbered(1, True, "1", None, 1))
    assert [row["count_"] for row in found] == [2, 1, 1, 1]


def test_distinct_keeps_each_combination_once() -> None:
    given = [{"name": "a", "type": "x"}, {"name": "b", "type": "x"}, {"name": "a", "type": "x"}]
    assert rows("distinct type", *given) == [{"type": "x"}]
    assert rows("distinct name, type", *given) == given[:2]
    assert [row["name"] for row in rows("distinct *", *given)] == ["a", "b"]


def test_extend_reads_the_columns_before_it_and_replaces_its_own() -> None:
    assert rows("extend name = 'new', old = name | project name, old", {"name": "a"}) == [{"name": "new", "old": "a"}]


def test_columns_without_a_name_get_the_one_kusto_gives_them() -> None:
    (found,) = rows(
        "project name, properties.a.b, tostring(tags.x), 1 + 1, strcat(name, 'x'), zones[0], name", {"name": "n"}
    )
    assert list(found) == ["name", "properties_a_b", "tags_x", "Column1", "Column2", "zones_0", "name1"]


def test_project_away_drops_columns_for_the_operators_after_it_as_well() -> None:
    assert rows("project-away properties, TAGS", {"name": "n", "tags": {}, "properties": {}}) == [{"name": "n"}]


def test_a_query_without_a_table_reads_resources() -> None:
    assert parse("where name == 'a'").table == "Resources"
    assert parse("recoveryservicesresources").table == "RecoveryServicesResources"


def test_comments_line_breaks_and_a_closing_semicolon_mean_nothing() -> None:
    query = "Resources // all of them | where\r\n// | where name == 'x'\n| where name == '//a' // end\n;\n"
    assert parse(query).run([{"name": "//a"}], now=NOW) == [{"name": "//a"}]


def test_rows_are_not_changed_and_no_more_are_read_than_needed() -> None:
    given = {"name": "a", "properties": {"x": 1}}

    def endless() -> Any:
        while True:
            yield given

    assert len(parse("Resources | extend name = 'b' | take 3").run(endless(), now=NOW)) == 3
    assert given == {"name": "a", "properties": {"x": 1}}
