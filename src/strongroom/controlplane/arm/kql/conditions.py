"""Reads from a query what its rows must look like, so that a caller asks its database for no others."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from strongroom.controlplane.arm.kql import syntax
from strongroom.controlplane.arm.kql.values import Type

CONDITION_COLUMNS = frozenset({"type", "subscriptionId", "resourceGroup", "id", "name"})
# Of jobs: by these their clients filter, and by these they are stored in order.
_VAULT_NAME = "properties.vaultName"
_START_TIME = "properties.startTime"

Conditions = dict[str, frozenset[str]]

_PROPERTIES = "properties"
_Names = Mapping[str, str]
"""What each column holds that is still a column of the table, or a part of its `properties`, under whatever name."""


def conditions(operators: Iterable[syntax.Operator]) -> Conditions:
    """Return, by column, the lower-case values outside which no row can reach the answer of *operators*.

    A part of `properties` is called `properties.vaultName`. Only what precedes the first operator that counts, limits
    or renames rows is read: `take 5 | where …` filters five rows of the whole table, not five rows that pass.
    """
    known: Conditions = {}
    for predicate, names in _predicates(operators):
        known = _both(known, _facts(predicate, names))
    return known


def since(operators: Iterable[syntax.Operator]) -> datetime | None:
    """Return an instant before which no row's `properties.startTime` may be if it is to reach the answer, if any."""
    bounds = [bound for predicate, names in _predicates(operators) for bound in _lower_bounds(predicate, names)]
    return max(bounds, default=None)


def _predicates(operators: Iterable[syntax.Operator]) -> Iterator[tuple[syntax.Expression, "_Names"]]:
    """Yield the predicates that every row must meet, each with what the columns hold where it stands."""
    names: dict[str, str] = {name: name for name in (*CONDITION_COLUMNS, _PROPERTIES)}
    for operator in operators:
        match operator:
            case syntax.Where():
                yield operator.predicate, names
            case syntax.Extend():
                held = {column.name: _held(column.expression, names) for column in operator.columns}
                names = {name: key for name, key in {**names, **held}.items() if key}
            case syntax.Sort(limit=None):
                pass
            case _:
                return


def _lower_bounds(expression: syntax.Expression, names: "_Names") -> Iterator[datetime]:
    match expression:
        case syntax.Logic(all_of=True):
            for term in expression.terms:
                yield from _lower_bounds(term, names)
        case (
            syntax.Comparison(operator=">" | ">=", left=tested, right=syntax.Literal(value=datetime() as bound))
            | syntax.Comparison(operator="<" | "<=", left=syntax.Literal(value=datetime() as bound), right=tested)
        ) if _held(tested, names) == _START_TIME:
            yield bound


def _held(expression: syntax.Expression, names: _Names) -> str:
    """Return what *expression* is of the table, unchanged: a column, a part of `properties`, or "" for all else."""
    match expression:
        case syntax.Column():
            return names.get(expression.name, "")
        case syntax.Path(base=syntax.Column() as base, steps=(str() as member,)) if names.get(
            base.name
        ) == _PROPERTIES and f"{_PROPERTIES}.{member}" in (_VAULT_NAME, _START_TIME):
            return f"{_PROPERTIES}.{member}"
        case _:
            return ""


def _facts(expression: syntax.Expression, names: _Names) -> Conditions:
    """Return what is known of a row for which *expression* is true."""
    match expression:
        case syntax.Logic(all_of=True):
            known: Conditions = {}
            for term in expression.terms:
                known = _both(known, _facts(term, names))
            return known
        case syntax.Logic():
            first, *others = (_facts(term, names) for term in expression.terms)
            shared = set(first).intersection(*others)
            return {column: first[column].union(*(other[column] for other in others)) for column in shared}
        case (
            syntax.Comparison(operator="==", left=left, right=right)
            | syntax.TextMatch(operator="=~", negated=False, left=left, right=right)
        ):
            return _fact(left, (right,), names) or _fact(right, (left,), names)
        case syntax.Membership(negated=False):
            return _fact(expression.left, expression.members, names)
        case _:
            return {}


def _fact(tested: syntax.Expression, values: tuple[syntax.Expression, ...], names: _Names) -> Conditions:
    key = _held(tested, names)
    if key not in CONDITION_COLUMNS and key != _VAULT_NAME:
        return {}
    texts = [str(v.value) for v in values if isinstance(v, syntax.Literal) and v.type is Type.STRING]
    # A database folds the case of ASCII alone; nor does it tell a missing value from an empty one as Kusto does.
    if len(texts) < len(values) or not all(text and text.isascii() for text in texts):
        return {}
    return {key: frozenset(text.lower() for text in texts)}


def _both(first: Conditions, second: Conditions) -> Conditions:
    known = dict(first)
    for column, values in second.items():
        known[column] = known[column] & values if column in known else values
    return known
