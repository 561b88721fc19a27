"""The scalar functions of the query language that need nothing but their arguments.

`case`, `iff`, `not`, `now` and `ago` stand here with their arity only: the evaluator carries them out itself, since
they choose which argument to evaluate, or need the time of the query.
Source: https://learn.microsoft.com/kusto/query/scalar-functions.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from strongroom.controlplane.arm.kql.values import (
    INT_MAXIMUM,
    LONG_MAXIMUM,
    Type,
    Value,
    kind_of,
    to_bool,
    to_datetime,
    to_integer,
    to_number,
    to_text,
    to_timespan,
)

MAX_ARGUMENTS = 64  # Kusto's own limit for `strcat` and `case`
_BIN_ORIGIN = datetime(1, 1, 1, tzinfo=UTC)  # Kusto counts bins of time from its smallest datetime


@dataclass(frozen=True, slots=True)
class Function:
    """A function of *least* to *most* arguments, each of the type in *accepts* or dynamic (None: any type)."""

    least: int
    most: int
    returns: Type
    apply: Callable[..., Value] | None = None
    accepts: Type | None = None
    keeps_name: bool = False
    """Whether an unnamed column of this call is named after its first argument."""


def split(source: Value, delimiter: Value, index: Value = None) -> Value:
    """Return the parts of *source* between *delimiter* (case counts), or a list of the one at *index*, if any."""
    text, separator = to_text(source), to_text(delimiter)
    parts: list[Any] = text.split(separator) if separator else [text]
    if index is None:
        return parts
    wanted = to_integer(index, INT_MAXIMUM)
    return [parts[wanted]] if wanted is not None and 0 <= wanted < len(parts) else None


def bin_down(value: Value, size: Value) -> Value:
    """Return *value* rounded down to a multiple of *size*: numbers by numbers, times and timespans by timespans."""
    try:
        if isinstance(size, timedelta):
            if size <= timedelta(0):
                return None
            span = to_timespan(value)
            if span is not None:
                return span // size * size
            time = to_datetime(value)
            return _BIN_ORIGIN + (time - _BIN_ORIGIN) // size * size if time is not None else None
        number, step = to_number(value), to_number(size)
        if number is None or step is None or step <= 0:
            return None
        return within_long(math.floor(number / step) * step)
    except (OverflowError, ValueError, ZeroDivisionError):
        return None


def within_long(number: int | float) -> int | float | None:
    """Return *number* if it fits in 64 bits and is finite, else null: what Kusto's arithmetic may yield."""
    if isinstance(number, int):
        return number if -LONG_MAXIMUM - 1 <= number <= LONG_MAXIMUM else None
    return number if math.isfinite(number) else None


def add(left: Value, right: Value, *, subtract: bool) -> Value:
    """Return the sum or difference of numbers, or of times and timespans; null if there is none."""
    try:
        if Type.DATETIME in (kinds := {kind_of(left), kind_of(right)}) or Type.TIMESPAN in kinds:
            return _add_times(left, right, subtract=subtract)
        first, second = to_number(left), to_number(right)
        if first is None or second is None:
            return None
        return within_long(first - second if subtract else first + second)
    except (OverflowError, ValueError):
        return None


def _add_times(left: Value, right: Value, *, subtract: bool) -> Value:
    first_time, second_time = to_datetime(left), to_datetime(right)
    if first_time is not None and second_time is not None:
        return first_time - second_time if subtract else None
    first_span, second_span = to_timespan(left), to_timespan(right)
    if first_time is not None and second_span is not None:
        return first_time - second_span if subtract else first_time + second_span
    if first_span is not None and second_time is not None:
        return None if subtract else second_time + first_span
    if first_span is not None and second_span is not None:
        return first_span - second_span if subtract else first_span + second_span
    return None


def has_term(text: str, term: str) -> bool:
    """Return whether *term* stands in *text* with no letter or digit right before or after it."""
    if not term:
        return True
    start = text.find(term)
    while start >= 0:
        end = start + len(term)
        opens = start == 0 or not (text[start - 1].isalnum() and term[0].isalnum())
        closes = end == len(text) or not (text[end].isalnum() and term[-1].isalnum())
        if opens and closes:
            return True
        start = text.find(term, start + 1)
    return False


def _strcat(*parts: Value) -> Value:
    return "".join(map(to_text, parts))


def _is_empty(value: Value) -> bool:
    return value is None or value == ""


_TO_BOOL = Function(1, 1, Type.BOOL, to_bool, keeps_name=True)
_IFF = Function(3, 3, Type.DYNAMIC)

FUNCTIONS: Mapping[str, Function] = {
    "ago": Function(1, 1, Type.DATETIME, accepts=Type.TIMESPAN),
    "bin": Function(2, 2, Type.DYNAMIC, bin_down, keeps_name=True),
    "case": Function(3, MAX_ARGUMENTS, Type.DYNAMIC),
    "iff": _IFF,
    "iif": _IFF,
    "isempty": Function(1, 1, Type.BOOL, _is_empty),
    "isnotempty": Function(1, 1, Type.BOOL, lambda value: not _is_empty(value)),
    "isnotnull": Function(1, 1, Type.BOOL, lambda value: value is not None),
    "isnull": Function(1, 1, Type.BOOL, lambda value: value is None),
    "not": Function(1, 1, Type.BOOL, accepts=Type.BOOL),
    "now": Function(0, 1, Type.DATETIME, accepts=Type.TIMESPAN),
    "split": Function(2, 3, Type.DYNAMIC, split),
    "strcat": Function(1, MAX_ARGUMENTS, Type.STRING, _strcat),
    "tobool": _TO_BOOL,
    "toboolean": _TO_BOOL,
    "todatetime": Function(1, 1, Type.DATETIME, to_datetime, keeps_name=True),
    "toint": Function(1, 1, Type.NUMBER, lambda value: to_integer(value, INT_MAXIMUM), keeps_name=True),
    "tolong": Function(1, 1, Type.NUMBER, lambda value: to_integer(value, LONG_MAXIMUM), keeps_name=True),
    "tolower": Function(1, 1, Type.STRING, lambda value: to_text(value).lower()),
    "tostring": Function(1, 1, Type.STRING, to_text, keeps_name=True),
    "toupper": Function(1, 1, Type.STRING, lambda value: to_text(value).upper()),
}
