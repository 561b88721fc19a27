"""Reads `$filter`: comparisons and functions, joined by `and`, as Azure's clients send them.

Understood are `name eq 'text'` (and ne, gt, ge, lt, le; names may be paths: `properties/status`), functions of texts
(`atScope()`, `assignedTo('id')`, `startswith(name, 'x')`), parentheses around a part, and nothing else: an `or` or a
`not` is refused at its place, never overlooked.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeGuard
from urllib.parse import unquote

from strongroom.controlplane.arm.shapes.nodes import storable
from strongroom.protection.errors import Refused, UserError

Value = str | float | bool | None

OPERATORS: Final = ("eq", "ne", "gt", "ge", "lt", "le")
_MAX_CHARACTERS: Final = 4096  # the longest that a client sends names two ARM ids of 2,048 at most; most have 100
_MAX_PARENTHESES: Final = 16
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<text>(?:datetime|guid)?'(?:[^']|'')*')
      | (?P<time>\d{4}-\d\d-\d\d(?:[T ][0-9:.]+(?:Z|[+-]\d\d:\d\d)?)?(?![\w-]))
      | (?P<guid>[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})
      | (?P<number>-?\d+(?:\.\d+)?(?![\w.]))
      | (?P<name>[A-Za-z_$][\w$./-]*)
      | (?P<mark>[(),])
    )""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_CONSTANTS: Final[Mapping[str, Value]] = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Comparison:
    """`field operator value`; *field* as the caller wrote it, *operator* in lower case."""

    field: str
    operator: str
    value: Value


@dataclass(frozen=True)
class Function:
    """`name(arguments)`; *name* as the caller wrote it. An argument without quotes is a `Name`."""

    name: str
    arguments: tuple["str | Name", ...] = ()


@dataclass(frozen=True)
class Name:
    """A property's name among the arguments of a function."""

    text: str


Condition = Comparison | Function


def parse_filter(
    text: str, *, fields: Collection[str] | None = None, functions: Collection[str] = ()
) -> tuple[Condition, ...]:
    """Return the conditions of *text*, which all have to hold; none for an empty filter, which clients send.

    With *fields* only these may be compared, and only *functions* may be called, whatever their casing: a condition
    that a list cannot check must not be overlooked. Raises `Refused` (InvalidFilterInQueryString) that names the place.
    """
    if len(text) > _MAX_CHARACTERS or not storable(text):
        raise _refused(f"it has more than {_MAX_CHARACTERS} characters, or such as no text has")
    try:
        conditions = _Parser(text).conditions()
    except Refused:
        # Some proxies and callers encode twice.
        if "%" not in text:
            raise
        conditions = _Parser(unquote(text)).conditions()
    known_fields = None if fields is None else {name.lower() for name in fields}
    known_functions = {name.lower() for name in functions}
    for condition in conditions:
        match condition:
            case Comparison(field) if known_fields is not None and field.lower() not in known_fields:
                raise _refused(f"'{_short(field)}' is unknown; accepted are {', '.join(fields or ()) or 'no fields'}")
            case Function(name) if name.lower() not in known_functions:
                raise _refused(
                    f"the function '{_short(name)}' is unknown; accepted are {', '.join(functions) or 'none'}"
                )
    return conditions


def matches(conditions: Collection[Condition], value_of: Callable[[str], Value]) -> bool:
    """Tell whether an entry meets all comparisons; *value_of* gives its value by the field's name in lower case.

    Texts compare without regard to case, as ARM's do. An absent value (None) is equal to null only. Functions are the
    caller's to decide and count as met.
    """
    return all(_holds(condition, value_of(condition.field.lower())) for condition in conditions if _compares(condition))


def time_range(text: str) -> tuple[datetime | None, datetime | None]:
    """Return the first and last instant of a recovery points' filter `startDate eq '...' and endDate eq '...'`.

    Both are included and in UTC (a time without zone is UTC already), None if not given. `ge` with startDate and `le`
    with endDate mean the same. Raises `Refused` for any other condition.
    """
    found: dict[str, datetime] = {}
    for condition in parse_filter(text, fields=("startDate", "endDate")):
        if not isinstance(condition, Comparison):
            continue
        field = condition.field.lower()
        if condition.operator not in ("eq", "ge" if field == "startdate" else "le"):
            raise _refused(f"'{condition.field} {condition.operator}' is not understood; accepted is 'eq'")
        if field in found:
            raise _refused(f"'{condition.field}' stands twice")
        found[field] = instant(condition.value)
    return found.get("startdate"), found.get("enddate")


def instant(value: Value) -> datetime:
    """Return the instant that a filter's *value* spells, in UTC. Raises `Refused` if it spells none."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None:
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _refused(f"'{_short(str(value))}' is no time; accepted is one like 2026-11-23T16:00:00Z") from error
    raise _refused("a number stands for a time; accepted is one like '2026-11-23T16:00:00Z'")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    value: Value
    column: int


class _Parser:
    """Reads one filter from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._open = 0

    def conditions(self) -> tuple[Condition, ...]:
        if self._peek() is None:
            return ()
        found = self._conjunction()
        if extra := self._peek():
            raise _at(extra, "'and' or the end")
        return tuple(found)

    def _conjunction(self) -> list[Condition]:
        found = self._part()
        while (token := self._peek()) and token.kind == "name" and token.text.lower() == "and":
            self._at += 1
            found += self._part()
        return found

    def _part(self) -> list[Condition]:
        if (token := self._peek()) and token.text == "(":
            if self._open >= _MAX_PARENTHESES:
                raise _at(token, f"no more than {_MAX_PARENTHESES} parentheses inside each other")
            self._at += 1
            self._open += 1
            found = self._conjunction()
            self._take(")")
            self._open -= 1
            return found
        name = self._next("a property or a function")
        if name.kind != "name" or name.text.lower() in ("and", "or", "not", *OPERATORS):
            raise _at(name, "a property or a function")
        after = self._next("one of " + ", ".join(OPERATORS))
        if after.text == "(":
            return [Function(name.text, tuple(self._arguments()))]
        operator = after.text.lower()
        if after.kind != "name" or operator not in OPERATORS:
            raise _at(after, "one of " + ", ".join(OPERATORS))
        value = self._next("a value")
        if value.kind == "mark" or (value.kind == "name" and value.text.lower() not in _CONSTANTS):
            raise _at(value, "a value: a text in single quotes, a number, a time, true, false or null")
        return [Comparison(name.text, operator, value.value)]

    def _arguments(self) -> list[str | Name]:
        found: list[str | Name] = []
        if (token := self._peek()) and token.text == ")":
            self._at += 1
            return found
        while True:
            token = self._next("an argument")
            if token.kind == "name":
                found.append(Name(token.text))
            elif token.kind != "mark" and isinstance(token.value, str):
                found.append(token.value)
            else:
                raise _at(token, "a text in single quotes")
            after = self._next("',' or ')'")
            if after.text == ")" and after.kind == "mark":
                return found
            if after.text != "," or after.kind != "mark":
                raise _at(after, "',' or ')'")

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self, wanted: str) -> _Token:
        token = self._peek()
        if token is None:
            raise _refused(f"it ends where {wanted} is due")
        self._at += 1
        return token

    def _take(self, mark: str) -> None:
        token = self._next(f"'{mark}'")
        if token.text != mark or token.kind != "mark":
            raise _at(token, f"'and' or '{mark}'")


def _tokens(text: str) -> list[_Token]:
    found = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            place = at + len(text[at:]) - len(text[at:].lstrip())
            raise _refused(f"'{_short(text[place:])}' at character {place + 1} is no part of a filter")
        kind = str(match.lastgroup)
        written = match.group(kind)
        value: Value = written
        if kind == "text":
            value = written[written.index("'") + 1 : -1].replace("''", "'")
        elif kind == "number":
            value = float(written)
        elif kind == "name":
            value = _CONSTANTS.get(written.lower(), written)
        found.append(_Token("text" if kind in ("time", "guid") else kind, written, value, match.start(kind) + 1))
        at = match.end()
    return found


def _compares(condition: Condition) -> TypeGuard[Comparison]:
    return isinstance(condition, Comparison)


def _holds(condition: Comparison, found: Value) -> bool:
    wanted = condition.value
    order: int | None = None
    if isinstance(found, str) and isinstance(wanted, str):
        order = _order(found, wanted)
    elif _is_number(found) and _is_number(wanted):
        order = (found > wanted) - (found < wanted)
    match condition.operator:
        case "eq":
            return order == 0 if order is not None else found is wanted
        case "ne":
            return order != 0 if order is not None else found is not wanted
        case "gt":
            return order is not None and order > 0
        case "ge":
            return order is not None and order >= 0
        case "lt":
            return order is not None and order < 0
        case _:
            return order is not None and order <= 0


def _order(one: str, other: str) -> int:
    """Return -1, 0 or 1: by time if both texts spell one (`00Z` and `00.0000000Z` are the same), else without case."""
    if one[:4].isdigit() and other[:4].isdigit():
        try:
            first, second = instant(one), instant(other)
        except Refused:
            pass
        else:
            return (first > second) - (first < second)
    one, other = one.lower(), other.lower()
    return (one > other) - (one < other)


def _is_number(value: Value) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:40] + "...")[1:-1]


def _at(token: _Token, wanted: str) -> Refused:
    return _refused(f"'{_short(token.text)}' at character {token.column} stands where {wanted} is due")


def _refused(reason: str) -> Refused:
    message = f"The query parameter $filter is not understood: {reason}."
    return Refused(UserError("InvalidFilterInQueryString", message, target="$filter"))
