"""What a query lets its caller select beforehand: never less than the rows that reach the answer."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.controlplane.arm.kql import parse


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ("where type =~ 'A.B/c'", {"type": {"a.b/c"}}),
        ("where 'x' == name", {"name": {"x"}}),
        ("where Type == 'X' and resourceGroup in~ ('A', 'b')", {"type": {"x"}, "resourceGroup": {"a", "b"}}),
        ("where type == 'x' | where type in ('X', 'y')", {"type": {"x"}}),
        ("where type == 'x' | where type == 'y'", {"type": set()}),
        ("where name == 'a' or name == 'b'", {"name": {"a", "b"}}),
        ("where (name == 'a' and type == 'x') or (type == 'y' and id == 'i')", {"type": {"x", "y"}}),
        ("where name == 'a' or location == 'b'", {}),
        ("extend v = properties.a | where v == 'x' | order by v | where id =~ 'I'", {"id": {"i"}}),
        ("where subscriptionId == 'S' | extend type = 'x' | where type == 'x'", {"subscriptionId": {"s"}}),
        ("extend n = name | where n == 'a'", {"name": {"a"}}),
        ("where properties.vaultName =~ 'V'", {"properties.vaultName": {"v"}}),
        ("extend v = properties.vaultName | where v in~ ('V', 'w')", {"properties.vaultName": {"v", "w"}}),
        ("extend v = properties['vaultName'] | extend w = v | where w == 'x'", {"properties.vaultName": {"x"}}),
        ("extend properties = tags | where properties.vaultName == 'x'", {}),
        ("extend v = properties.vaultName | extend v = name | where v == 'x'", {"name": {"x"}}),
        ("extend v = tolower(properties.vaultName) | where v == 'x'", {}),
        ("where properties.vaultName.a == 'x'", {}),
        ("where properties.status == 'x'", {}),
        ("where properties == 'x'", {}),
        ("where name != 'a'", {}),
        ("where name !in ('a')", {}),
        ("where not(name == 'a')", {}),
        ("where name contains 'a'", {}),
        ("where name == tolower('A')", {}),
        ("where name in ('a', tolower('B'))", {}),
        ("where managedBy == 'x'", {}),
        ("where name == ''", {}),
        ("where name == '\u212a'", {}),
        ("take 5 | where name == 'a'", {}),
        ("top 5 by id | where name == 'a'", {}),
        ("project name = type | where name == 'a'", {}),
        ("summarize count() by name | where name == 'a'", {}),
        ("where type == 'x' | count", {"type": {"x"}}),
        ("count", {}),
    ],
)
def test_the_leading_predicates_tell_which_values_count(operators: str, expected: dict[str, set[str]]) -> None:
    assert parse(f"Resources | {operators}").conditions() == expected


VALUES = st.sampled_from(["a", "A", "b", "B", ""])
TERMS = st.tuples(
    st.sampled_from(["name", "type", "resourceGroup"]),
    st.sampled_from(["{0} == '{1}'", "{0} =~ '{1}'", "{0} in~ ('{1}', '{2}')", "{0} != '{1}'", "{0} !in ('{1}')"]),
    VALUES,
    VALUES,
).map(lambda parts: parts[1].format(parts[0], parts[2], parts[3]))
PREDICATES = st.recursive(
    TERMS,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})")
        | inner.map(lambda predicate: f"not({predicate})")
    ),
    max_leaves=6,
)
OPERATORS = st.one_of(
    PREDICATES.map(lambda predicate: f"where {predicate}"),
    st.sampled_from(
        ["extend name = type", "extend z = name", "order by name asc", "take 3", "project type, name, resourceGroup"]
    ),
)


@given(
    st.lists(OPERATORS, max_size=4),
    st.lists(st.fixed_dictionaries({}, optional={"name": VALUES, "type": VALUES, "resourceGroup": VALUES}), max_size=8),
)
@settings(max_examples=300, deadline=None)
def test_selecting_rows_by_the_conditions_never_changes_the_answer(
    operators: list[str], rows: list[dict[str, str]]
) -> None:
    query = parse(" | ".join(["Resources", *operators]))
    known = query.conditions().items()
    selected = [row for row in rows if all(row.get(column, "").lower() in values for column, values in known)]
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert query.run(selected, now=now) == query.run(rows, now=now)
