"""Reads from a query what its rows must look like, so that a caller asks its database for no others."""

from collections.abc import Iterable

from strongroom.controlplane.arm.kql import syntax
from strongroom.controlplane.arm.kql.values import Type

CONDITION_COLUMNS = frozenset({"type", "subscriptionId", "resourceGroup", "id", "name"})

Conditions = dict[str, frozenset[str]]


def conditions(operators: Iterable[syntax.Operator]) -> Conditions:
    """Return, by column, the lower-case values outside which no row can reach the answer of *operators*.

    Only what precedes the first operator that counts, limits or renames rows is read: `take 5 | where …` filters five
    rows of the whole table, not five rows that pass.
    """
    known: Conditions = {}
    replaced: set[str] = set()
    for operator in operators:
        match operator:
            case syntax.Where():
                facts = _facts(operator.predicate)
                known = _both(known, {column: values for column, values in facts.items() if column not in replaced})
            case syntax.Extend():
                replaced.update(column.name for column in operator.columns)
            case syntax.Sort(limit=None):
                pass
            case _:
                break
    return known


def _facts(expression: syntax.Expression) -> Conditions:
    """Return what is known of a row for which *expression* is true."""
    match expression:
        case syntax.Logic(all_of=True):
            known: Conditions = {}
            for term in expression.terms:
                known = _both(known, _facts(term))
            return known
        case syntax.Logic():
            first, *others = (_facts(term) for term in expression.terms)
            shared = set(first).intersection(*others)
            return {column: first[column].union(*(other[column] for other in others)) for column in shared}
        case (
            syntax.Comparison(operator="==", left=left, right=right)
            | syntax.TextMatch(operator="=~", negated=False, left=left, right=right)
        ):
            return _fact(left, (right,)) or _fact(right, (left,))
        case syntax.Membership(negated=False):
            return _fact(expression.left, expression.members)
        case _:
            return {}


def _fact(column: syntax.Expression, values: tuple[syntax.Expression, ...]) -> Conditions:
    if not isinstance(column, syntax.Column) or column.name not in CONDITION_COLUMNS:
        return {}
    texts = [str(v.value) for v in values if isinstance(v, syntax.Literal) and v.type is Type.STRING]
    # A database folds the case of ASCII alone; nor does it tell a missing value from an empty one as Kusto does.
    if len(texts) < len(values) or not all(text and text.isascii() for text in texts):
        return {}
    return {column.name: frozenset(text.lower() for text in texts)}


def _both(first: Conditions, second: Conditions) -> Conditions:
    known = dict(first)
    for column, values in second.items():
        known[column] = known[column] & values if column in known else values
    return known
