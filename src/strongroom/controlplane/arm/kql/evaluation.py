"""Carries out the operators of a parsed Resource Graph query on rows, within a budget of work, time and memory.

Expressions become closures once a run, so that a row costs no walk over the tree. `where` follows Kusto's logic of
three values: a predicate that is null drops the row.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeAlias, assert_never

from strongroom.controlplane.arm.kql import syntax
from strongroom.controlplane.arm.kql.errors import KqlTooCostly
from strongroom.controlplane.arm.kql.functions import FUNCTIONS, add, has_term
from strongroom.controlplane.arm.kql.lexer import Token
from strongroom.controlplane.arm.kql.values import (
    Type,
    Value,
    equal,
    group_key,
    less,
    less_or_equal,
    sort_key,
    to_bool,
    to_json,
    to_text,
)

Row: TypeAlias = Mapping[str, Any]
Evaluate: TypeAlias = Callable[[Row], Value]
Clock: TypeAlias = Callable[[], float]
"""Tells seconds that pass, from any start."""

MAX_EVALUATIONS = 100_000_000  # a client's query of jobs costs about 60 a row: this covers a million of them
MAX_SECONDS = 10.0  # a query holds a thread of the API and, of Python, everybody's: count a million jobs elsewhere
MAX_TEXT_CHARACTERS = 1024 * 1024  # of one computed string; Kusto cuts a cell there
MAX_ROWS_HELD = 25_000  # held at once, for an order or groups; a bound of memory
MAX_CELLS_HELD = 32 * MAX_ROWS_HELD  # columns and sort keys of them: twice what the tables have
# Computed text and list elements, all together: what a query may make of rows it reads, so that it cannot fill memory.
COMPUTED_CHARACTERS_BASE = 64 * 1024 * 1024
COMPUTED_CHARACTERS_PER_ROW = 4 * 1024
LIST_ELEMENT_CHARACTERS = 64  # what an element of a computed list takes in memory, beside its text


def run(operators: Iterable[syntax.Operator], rows: Iterable[Row], now: datetime, clock: Clock) -> list[dict[str, Any]]:
    """Return what *operators* make of *rows* at *now*; the values are JSON's.

    Raises `KqlTooCostly` if that takes more than `MAX_EVALUATIONS` steps or `MAX_SECONDS`, makes too much text, or
    holds too many rows.
    """
    meter, found = _Meter(clock), list[dict[str, Any]]()
    for row in _Pipeline(now, meter).over(meter.read(rows), operators):
        found.append({name: to_json(value) for name, value in row.items()})
        meter.hold(len(found), len(row))
    return found


def run_page(
    operators: tuple[syntax.Operator, ...], rows: Iterable[Row], now: datetime, clock: Clock, *, skip: int, size: int
) -> tuple[list[dict[str, Any]], int]:
    """Return *size* rows of the answer from row *skip* on, and how many rows the whole answer has; holds no others.

    Raises `KqlTooCostly` as `run` does.
    """
    meter, found, total = _Meter(clock), list[dict[str, Any]](), 0
    pipeline = _Pipeline(now, meter)
    match operators:
        case (*before, syntax.Sort(limit=None) as last) if skip + size < MAX_ROWS_HELD:
            # Of an ordered answer the rows behind the page are counted, not kept.
            stream = meter.counted(pipeline.over(meter.read(rows), before))
            stream = pipeline.over(stream, [replace(last, limit=skip + size)])
        case _:
            stream = pipeline.over(meter.read(rows), operators)
    for row in stream:
        if skip <= total < skip + size:
            found.append({name: to_json(value) for name, value in row.items()})
        total += 1
    return found, max(total, meter.rows)


class _Pipeline:
    """Lays operators over rows, for one run."""

    def __init__(self, now: datetime, meter: "_Meter") -> None:
        self._meter = meter
        self._binder = _Binder(now.replace(tzinfo=UTC) if now.tzinfo is None else now.astimezone(UTC), meter)

    def over(self, rows: Iterator[Row], operators: Iterable[syntax.Operator]) -> Iterator[Row]:
        for operator in operators:
            rows, self._meter.last = _apply(operator, rows, self._binder), operator.at
        return rows


class _Meter:
    """Counts what a run costs and ends it when that is too much."""

    def __init__(self, clock: Clock) -> None:
        self.evaluations = MAX_EVALUATIONS
        self.characters = COMPUTED_CHARACTERS_BASE
        self.clock = clock
        self.ends = clock() + MAX_SECONDS
        self.rows = 0
        self.last: Token | None = None
        """The operator that a run ended in, where nothing says more."""

    def read(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            self.characters += COMPUTED_CHARACTERS_PER_ROW
            self.tick(self.last)
            yield row

    def counted(self, rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            self.rows += 1
            yield row

    def work(self, cost: int, at: Token) -> None:
        self.evaluations -= cost
        if self.evaluations < 0:
            raise KqlTooCostly("the query takes too much work over this many rows", _NARROWER, at)

    def tick(self, at: Token | None) -> None:
        """End the run if it lasts too long; due wherever one row may take long, so at each part of a list."""
        if self.clock() > self.ends:
            raise KqlTooCostly(f"the query takes more than {MAX_SECONDS:g} seconds", _NARROWER, at)

    def hold(self, rows: int, width: int, at: Token | None = None) -> None:
        if rows > MAX_ROWS_HELD or rows * width > MAX_CELLS_HELD:
            problem = f"more than {min(MAX_ROWS_HELD, rows - 1)} rows of {width} columns have to be held"
            raise KqlTooCostly(problem, f"{_NARROWER}, `project` or `take`", at or self.last)

    def made(self, value: Value, at: Token) -> None:
        if isinstance(value, str):
            size = len(value)
            if size > MAX_TEXT_CHARACTERS:
                problem = f"the query computes a string of more than {MAX_TEXT_CHARACTERS} characters"
                raise KqlTooCostly(problem, "a shorter value", at)
        elif isinstance(value, list):
            size = LIST_ELEMENT_CHARACTERS * len(value) + sum(map(len, value))
        else:
            return
        self.characters -= size
        if self.characters < 0:
            raise KqlTooCostly("the query computes too much text", "fewer or shorter computed values", at)


_NARROWER = "a narrower `where` before this, on type, resourceGroup or id (for jobs on properties.startTime)"


def _apply(operator: syntax.Operator, rows: Iterator[Row], binder: "_Binder") -> Iterator[Row]:
    match operator:
        case syntax.Where():
            return _where(operator, rows, binder)
        case syntax.Extend():
            return _extend(operator, rows, binder)
        case syntax.Project(distinct=False):
            return _project(operator, rows, binder)
        case syntax.Project():
            return _distinct(_project(operator, rows, binder), binder.meter, operator.at)
        case syntax.ProjectAway():
            return ({name: row[name] for name in row if name not in operator.names} for row in rows)
        case syntax.Summarize():
            return _summarize(operator, rows, binder)
        case syntax.Sort():
            return _sort(operator, rows, binder)
        case syntax.Take():
            return islice(rows, operator.limit)
        case syntax.Count():
            return iter([{"Count": sum(1 for _ in rows)}])
        case _:
            assert_never(operator)


def _where(operator: syntax.Where, rows: Iterator[Row], binder: "_Binder") -> Iterator[Row]:
    predicate = binder.bind(operator.predicate, operator.at)
    cost, work, at = operator.predicate.cost, binder.meter.work, operator.at
    for row in rows:
        work(cost, at)
        if to_bool(predicate(row)) is True:
            yield row


def _columns(
    columns: tuple[syntax.Named, ...], rows: Iterator[Row], binder: "_Binder", at: Token
) -> Iterator[tuple[Row, dict[str, Value]]]:
    bound = [(column.name, binder.bind_part(column.expression, at)) for column in columns]
    cost, work = 1 + sum(column.expression.cost for column in columns), binder.meter.work
    for row in rows:
        work(cost, at)
        yield row, {name: evaluate(row) for name, evaluate in bound}


def _extend(operator: syntax.Extend, rows: Iterator[Row], binder: "_Binder") -> Iterator[Row]:
    return ({**row, **values} for row, values in _columns(operator.columns, rows, binder, operator.at))


def _project(operator: syntax.Project, rows: Iterator[Row], binder: "_Binder") -> Iterator[Row]:
    return (values for _, values in _columns(operator.columns, rows, binder, operator.at))


def _distinct(rows: Iterator[Row], meter: _Meter, at: Token) -> Iterator[Row]:
    seen = set()
    for row in rows:
        key = tuple(map(group_key, row.values()))
        if key not in seen:
            seen.add(key)
            meter.hold(len(seen), len(row), at)
            yield row


def _summarize(operator: syntax.Summarize, rows: Iterator[Row], binder: "_Binder") -> Iterator[Row]:
    groups: dict[tuple[Any, ...], tuple[dict[str, Value], list[int]]] = {}
    if not operator.by:
        groups[()] = ({}, [0])  # without groups there is one row, also for no rows
    for _, values in _columns(operator.by, rows, binder, operator.at):
        _, number = groups.setdefault(tuple(map(group_key, values.values())), (values, [0]))
        number[0] += 1
        binder.meter.hold(len(groups), len(values), operator.at)
    for values, number in groups.values():
        yield {**values, **dict.fromkeys(operator.counts, number[0])}


def _sort(operator: syntax.Sort, rows: Iterator[Row], binder: "_Binder") -> Iterator[Row]:
    bound = [binder.bind_part(key.expression, operator.at) for key in operator.keys]
    cost, work, at = 1 + sum(key.expression.cost for key in operator.keys), binder.meter.work, operator.at
    entries: list[tuple[Row, list[Value]]] = []
    for row in rows:
        work(cost, at)
        entries.append((row, [evaluate(row) for evaluate in bound]))
        if operator.limit is not None and len(entries) >= min(2 * operator.limit + _TRIMMED_AT, MAX_ROWS_HELD):
            # Those that are cut off now are so in the end: what comes later goes behind its equals.
            _order(entries, operator, binder.meter)
            del entries[operator.limit :]
        binder.meter.hold(len(entries), len(row) + len(bound), at)
    _order(entries, operator, binder.meter)
    return (row for row, _ in islice(entries, operator.limit))


_TRIMMED_AT = 1_000  # rows beyond twice those wanted: sorting so seldom costs little


def _order(entries: list[tuple[Row, list[Value]]], operator: syntax.Sort, meter: _Meter) -> None:
    """Sort *entries*, rows with the values of the operator's keys, in place."""
    # The sort is stable: sorting by the last key first leaves the first key in command.
    for index, key in reversed(list(enumerate(operator.keys))):
        # `reverse` turns the order of nulls too, so their mark is turned beforehand.
        null_mark = -1 if key.nulls_first != key.descending else 1

        def order(entry: tuple[Row, list[Value]], index: int = index, null_mark: int = null_mark) -> tuple[int, Any]:
            meter.tick(operator.at)
            value = entry[1][index]
            return (null_mark, ()) if value is None else (0, sort_key(value))

        entries.sort(key=order, reverse=key.descending)


@dataclass(frozen=True, slots=True)
class _Binder:
    """Turns expressions into closures for one run."""

    now: datetime
    meter: _Meter

    def bind(self, expression: syntax.Expression, at: Token) -> Evaluate:
        match expression:
            case syntax.Literal(value=value):
                return lambda row: value
            case syntax.Column(name=name):
                return lambda row: row.get(name)
            case syntax.Path():
                return _path(self.bind(expression.base, at), expression.steps)
            case syntax.Comparison():
                left, right = self.bind(expression.left, at), self.bind(expression.right, at)
                return _comparison(expression.operator, left, right, expression.as_type)
            case syntax.TextMatch():
                return self._text_match(expression, at)
            case syntax.Membership():
                return self._membership(expression, at)
            case syntax.Logic():
                return self._logic(expression, at)
            case syntax.Sum():
                terms = [self.bind_part(term, at) for term in expression.terms]
                return _sum(terms, expression.negative)
            case syntax.Call():
                return self._call(expression, at)
            case _:
                raise AssertionError(f"no evaluation for {type(expression).__name__}")

    def bind_part(self, expression: syntax.Expression, at: Token) -> Evaluate:
        """Bind one of many parts: each is where a run may end."""
        evaluate, tick = self.bind(expression, at), self.meter.tick
        if isinstance(expression, syntax.Literal | syntax.Column):
            return evaluate

        def ticked(row: Row) -> Value:
            tick(at)
            return evaluate(row)

        return ticked

    def _text_match(self, expression: syntax.TextMatch, at: Token) -> Evaluate:
        test, negated = _TEXT_TESTS[expression.operator.removesuffix("_cs")], expression.negated
        left, right = self.bind(expression.left, at), self.bind(expression.right, at)
        if expression.operator.endswith("_cs"):
            return lambda row: test(to_text(left(row)), to_text(right(row))) is not negated
        if isinstance(expression.right, syntax.Literal):
            part = to_text(expression.right.value).lower()
            return lambda row: test(to_text(left(row)).lower(), part) is not negated
        return lambda row: test(to_text(left(row)).lower(), to_text(right(row)).lower()) is not negated

    def _logic(self, expression: syntax.Logic, at: Token) -> Evaluate:
        terms, all_of = [self.bind_part(term, at) for term in expression.terms], expression.all_of
        decisive = not all_of  # one false term decides `and`, one true term decides `or`

        def logic(row: Row) -> bool | None:
            unknown = False
            for term in terms:
                truth = to_bool(term(row))
                if truth is decisive:
                    return decisive
                unknown = unknown or truth is None
            return None if unknown else all_of

        return logic

    def _membership(self, expression: syntax.Membership, at: Token) -> Evaluate:
        left, members, negated = self.bind(expression.left, at), expression.members, expression.negated
        texts = [to_text(m.value) for m in members if isinstance(m, syntax.Literal) and m.type is Type.STRING]
        if len(texts) == len(members):
            if expression.ignore_case:
                folded = frozenset(text.lower() for text in texts)
                return lambda row: (to_text(left(row)).lower() in folded) is not negated
            exact = frozenset(texts)
            return lambda row: (to_text(left(row)) in exact) is not negated
        bound = [(self.bind_part(member, at), _member_type(expression.left.type, member.type)) for member in members]

        def contained(row: Row) -> bool:
            value = left(row)
            if expression.ignore_case:
                text = to_text(value).lower()
                found = any(to_text(member(row)).lower() == text for member, _ in bound)
            else:
                found = any(equal(value, member(row), kind) for member, kind in bound)
            return found is not negated

        return contained

    def _call(self, expression: syntax.Call, at: Token) -> Evaluate:
        arguments = [self.bind_part(argument, at) for argument in expression.arguments]
        match expression.name:
            case "now" if not arguments:
                now = self.now
                return lambda row: now
            case "now":
                (offset,) = arguments
                return lambda row: add(self.now, offset(row), subtract=False)
            case "ago":
                (span,) = arguments
                return lambda row: add(self.now, span(row), subtract=True)
            case "not":
                (term,) = arguments
                return lambda row: None if (truth := to_bool(term(row))) is None else not truth
            case "iff" | "iif" | "case":
                return _choice(arguments)
        apply, made = FUNCTIONS[expression.name].apply, self.meter.made
        assert apply is not None  # the names without are those above

        def call(row: Row) -> Value:
            value = apply(*[argument(row) for argument in arguments])
            made(value, at)
            return value

        return call


def _member_type(left: Type, member: Type) -> Type:
    return member if left is Type.DYNAMIC else left


def _path(base: Evaluate, steps: tuple[str | int, ...]) -> Evaluate:
    def path(row: Row) -> Value:
        value: Any = base(row)
        for step in steps:
            if isinstance(value, dict):
                value = _member(value, step)
            elif isinstance(value, list) and isinstance(step, int) and -len(value) <= step < len(value):
                value = value[step]
            else:
                return None
        return value  # type: ignore[no-any-return]

    return path


def _member(value: dict[str, Any], step: str | int) -> Any:
    # Kusto takes the exact name only. Clients disagree about the case of ARM's names (resourceID, resourceId).
    if not isinstance(step, str):
        return None
    if step in value:
        return value[step]
    folded = step.lower()
    return next((member for name, member in value.items() if name.lower() == folded), None)


def _comparison(operator: str, left: Evaluate, right: Evaluate, kind: Type) -> Evaluate:
    match operator:
        case "==" if kind is Type.STRING:
            return lambda row: to_text(left(row)) == to_text(right(row))
        case "==":
            return lambda row: equal(left(row), right(row), kind)
        case "!=":
            return lambda row: None if (same := equal(left(row), right(row), kind)) is None else not same
        case "<":
            return lambda row: less(left(row), right(row), kind)
        case "<=":
            return lambda row: less_or_equal(left(row), right(row), kind)
        case ">":
            return lambda row: less(right(row), left(row), kind)
        case _:
            return lambda row: less_or_equal(right(row), left(row), kind)


_TEXT_TESTS: Mapping[str, Callable[[str, str], bool]] = {
    "=~": lambda text, part: text == part,
    "contains": lambda text, part: part in text,
    "startswith": lambda text, part: text.startswith(part),
    "endswith": lambda text, part: text.endswith(part),
    "has": has_term,
}


def _sum(terms: list[Evaluate], negative: tuple[bool, ...]) -> Evaluate:
    signed = list(zip(terms, negative, strict=True))

    def total(row: Row) -> Value:
        (first, first_negative), *others = signed
        value = first(row)
        if first_negative:
            value = add(0, value, subtract=True)
        for term, subtract in others:
            value = add(value, term(row), subtract=subtract)
        return value

    return total


def _choice(arguments: list[Evaluate]) -> Evaluate:
    branches = list(zip(arguments[:-1:2], arguments[1:-1:2], strict=True))
    otherwise = arguments[-1]

    def choice(row: Row) -> Value:
        for condition, value in branches:
            if to_bool(condition(row)) is True:
                return value(row)
        return otherwise(row)

    return choice
