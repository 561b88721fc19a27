"""The syntax tree of a Resource Graph query: what the parser builds and the evaluator carries out.

Every expression knows its type as far as the query tells it, its height (the evaluator recurses that deep) and its
cost (how many nodes one row evaluates at most). Names are resolved: a `Column` exists where it is read.
"""

from dataclasses import dataclass
from typing import TypeAlias

from strongroom.controlplane.arm.kql.lexer import Token
from strongroom.controlplane.arm.kql.values import Type, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """What a row gives one value for."""

    type: Type
    height: int = 1
    cost: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal(Expression):
    """A value written in the query."""

    value: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Expression):
    """A column of the row, under the name it has there."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Path(Expression):
    """What lies inside a dynamic value: a member for a text, an element for a number (negative from the end)."""

    base: Expression
    steps: tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Expression):
    """A function of the table in `functions`, or one that the evaluator knows itself."""

    name: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Expression):
    """One of `== != < <= > >=`, made in *as_type*."""

    operator: str
    left: Expression
    right: Expression
    as_type: Type


@dataclass(frozen=True, slots=True, kw_only=True)
class TextMatch(Expression):
    """One of `=~ contains startswith endswith has` or a `_cs` form; *negated* for `!~ !contains …`."""

    operator: str
    left: Expression
    right: Expression
    negated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership(Expression):
    """`in`, `in~`, `!in` or `!in~`."""

    left: Expression
    members: tuple[Expression, ...]
    ignore_case: bool
    negated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Logic(Expression):
    """Two or more terms joined by `and` (*all_of*) or by `or`."""

    terms: tuple[Expression, ...]
    all_of: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum(Expression):
    """Two or more terms, each added or, where *negative* is set, subtracted."""

    terms: tuple[Expression, ...]
    negative: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """An expression and the column that its values go to."""

    name: str
    expression: Expression


@dataclass(frozen=True, slots=True)
class SortKey:
    """What to sort by, and where nulls go."""

    expression: Expression
    descending: bool
    nulls_first: bool


@dataclass(frozen=True, slots=True)
class Where:
    """Keeps the rows for which *predicate* is true."""

    at: Token
    predicate: Expression


@dataclass(frozen=True, slots=True)
class Extend:
    """Adds columns, or replaces those of the same name."""

    at: Token
    columns: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Project:
    """Keeps only these columns, in this order; with *distinct*, each combination of values once."""

    at: Token
    columns: tuple[Named, ...]
    distinct: bool


@dataclass(frozen=True, slots=True)
class ProjectAway:
    """Drops columns."""

    at: Token
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Summarize:
    """One row for each combination of *by*: these columns, then the number of rows under each name of *counts*."""

    at: Token
    counts: tuple[str, ...]
    by: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Sort:
    """Sorts by *keys*, the first before the second; with *limit*, keeps that many rows."""

    at: Token
    keys: tuple[SortKey, ...]
    limit: int | None


@dataclass(frozen=True, slots=True)
class Take:
    """Keeps the first *limit* rows."""

    at: Token
    limit: int


@dataclass(frozen=True, slots=True)
class Count:
    """One row with the number of rows."""

    at: Token


Operator: TypeAlias = Where | Extend | Project | ProjectAway | Summarize | Sort | Take | Count
