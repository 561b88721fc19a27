"""Converts and compares the values of a query as Kusto does: strings, numbers, times, and JSON whose type shows late.

A value read from `properties` is *dynamic*: its type is known when the row is. Compared with something whose type the
query does tell, it is converted to that type first; so `properties.isUserTriggered == 'true'` compares texts and
`properties.startTime > datetime(…)` compares times. What cannot be converted is null. Text has no null: a missing
value read as text is the empty string.
Source: https://learn.microsoft.com/kusto/query/scalar-data-types/ (null-values, dynamic).
"""

import json
import math
import re
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any, TypeAlias

Value: TypeAlias = bool | int | float | str | datetime | timedelta | list[Any] | dict[str, Any] | None

LONG_MAXIMUM = 2**63 - 1  # Kusto's `long`
INT_MAXIMUM = 2**31 - 1  # Kusto's `int`


class Type(Enum):
    """The type of an expression, as far as the query alone tells it."""

    BOOL = "bool"
    NUMBER = "number"
    STRING = "string"
    DATETIME = "datetime"
    TIMESPAN = "timespan"
    DYNAMIC = "dynamic"


_DATETIME = re.compile(
    r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})"
    r"(?:[T ]([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)? ?(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))?)?[Zz]?"
)
_TIMESPAN = re.compile(r"(-)?(?:([0-9]{1,8})\.)?([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,7}))?)?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_REAL = re.compile(r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def parse_datetime(text: str) -> datetime | None:
    """Return the time that *text* writes in ISO 8601, in UTC; without an offset it is UTC. None if it writes none.

    Digits beyond microseconds are cut: Kusto keeps 100 ns, Python's `datetime` does not.
    """
    match = _DATETIME.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, offset_hours, offset_minutes = match.groups()
    try:
        zone = UTC
        if sign:
            offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
            zone = timezone(offset if sign == "+" else -offset)
        microsecond = int((fraction or "0")[:6].ljust(6, "0"))
        local = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), microsecond, zone
        )
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def parse_timespan(text: str) -> timedelta | None:
    """Return the timespan that *text* writes as `d.hh:mm:ss.fffffff`, None if it writes none."""
    match = _TIMESPAN.fullmatch(text.strip())
    if match is None:
        return None
    sign, days, hours, minutes, seconds, fraction = match.groups()
    if int(hours) > 23 or int(minutes) > 59 or int(seconds or 0) > 59:
        return None
    span = timedelta(
        days=int(days or 0),
        hours=int(hours),
        minutes=int(minutes),
        seconds=int(seconds or 0),
        microseconds=int((fraction or "0")[:6].ljust(6, "0")),
    )
    return -span if sign else span


def format_datetime(value: datetime) -> str:
    """Return *value* as Kusto's `tostring` writes it: UTC, seven digits after the second."""
    return f"{_utc(value).replace(tzinfo=None).isoformat(timespec='microseconds')}0Z"


def format_timespan(value: timedelta) -> str:
    """Return *value* as Kusto writes it: `[-][d.]hh:mm:ss[.fffffff]`."""
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days = f"{value.days}." if value.days else ""
    fraction = f".{value.microseconds:06d}0" if value.microseconds else ""
    return f"{sign}{days}{hours:02d}:{minutes:02d}:{seconds:02d}{fraction}"


def to_json(value: Value) -> Value:
    """Return *value* as the answer carries it: times and timespans as text, all else as it is."""
    match value:
        case datetime():
            return format_datetime(value) if value.microsecond else f"{_utc(value).replace(tzinfo=None).isoformat()}Z"
        case timedelta():
            return format_timespan(value)
        case _:
            return value


def to_text(value: Value) -> str:
    """Return *value* as `tostring` does; null is the empty string, an array or object its JSON."""
    if isinstance(value, str):  # nearly always so, and this runs several times a row
        return value
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case datetime():
            return format_datetime(value)
        case timedelta():
            return format_timespan(value)
        case list() | dict():
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)
        case _:
            return repr(value)


def to_number(value: Value) -> int | float | None:
    """Return *value* as a number, None if it is none."""
    match value:
        case bool():
            return int(value)
        case int() | float():
            return value
        case str():
            text = value.strip()
            if _INTEGER.fullmatch(text):
                return int(text)
            if _REAL.fullmatch(text):
                number = float(text)
                return number if math.isfinite(number) else None
            return None
        case _:
            return None


def to_integer(value: Value, maximum: int) -> int | None:
    """Return *value* cut to a whole number, None if it is no number or its magnitude exceeds *maximum*."""
    number = to_number(value)
    if number is None or not math.isfinite(number):
        return None
    whole = int(number)
    return whole if -maximum - 1 <= whole <= maximum else None


def to_bool(value: Value) -> bool | None:
    """Return *value* as a truth value: texts `true`, `false`, `1`, `0` in any case, numbers unlike 0; else None."""
    if value is True or value is False:
        return value
    match value:
        case int() | float():
            return value != 0
        case str():
            return _TRUTH.get(value.strip().lower())
        case _:
            return None


def to_datetime(value: Value) -> datetime | None:
    """Return *value* as a time in UTC, None if it is none."""
    match value:
        case datetime():
            return _utc(value)
        case str():
            return parse_datetime(value)
        case _:
            return None


def to_timespan(value: Value) -> timedelta | None:
    """Return *value* as a timespan, None if it is none."""
    match value:
        case timedelta():
            return value
        case str():
            return parse_timespan(value)
        case _:
            return None


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_CONVERSIONS = {
    Type.BOOL: to_bool,
    Type.NUMBER: to_number,
    Type.DATETIME: to_datetime,
    Type.TIMESPAN: to_timespan,
}


def kind_of(value: Value) -> Type:
    """Return the type that *value* turned out to have; arrays, objects and null are DYNAMIC."""
    match value:
        case bool():
            return Type.BOOL
        case int() | float():
            return Type.NUMBER
        case str():
            return Type.STRING
        case datetime():
            return Type.DATETIME
        case timedelta():
            return Type.TIMESPAN
        case _:
            return Type.DYNAMIC


def _pair(left: Value, right: Value, as_type: Type) -> tuple[Any, Any]:
    """Return both values in one type, None for what is null in it; *as_type* DYNAMIC lets the values decide."""
    if as_type is Type.DYNAMIC:
        if left is None or right is None:
            return left, right
        kinds = {kind_of(left), kind_of(right)}
        as_type = next(kind for kind in _WIDER if kind in kinds) if len(kinds) > 1 else kinds.pop()
    if as_type in (Type.STRING, Type.DYNAMIC):
        return to_text(left), to_text(right)
    convert = _CONVERSIONS[as_type]
    return convert(left), convert(right)


_WIDER = (Type.DATETIME, Type.TIMESPAN, Type.STRING, Type.DYNAMIC, Type.NUMBER, Type.BOOL)


def equal(left: Value, right: Value, as_type: Type) -> bool | None:
    """Return whether the values are equal as *as_type*: null equals nothing, and null with null is null."""
    first, second = _pair(left, right, as_type)
    if first is None and second is None:
        return None
    return bool(first == second) if first is not None and second is not None else False


def less(left: Value, right: Value, as_type: Type) -> bool | None:
    """Return whether *left* comes before *right* as *as_type*; null if either is null."""
    first, second = _pair(left, right, as_type)
    return None if first is None or second is None else bool(first < second)


def less_or_equal(left: Value, right: Value, as_type: Type) -> bool | None:
    """Return whether *left* comes before *right* or equals it as *as_type*; null if either is null."""
    first, second = _pair(left, right, as_type)
    return None if first is None or second is None else bool(first <= second)


_SORT_RANKS = {kind: rank for rank, kind in enumerate(_WIDER)}


def sort_key(value: Value) -> tuple[int, Any]:
    """Return a key that orders values of any types: like with like, then type by type. Not for null."""
    kind = kind_of(value)
    return (
        _SORT_RANKS[kind],
        to_text(value) if kind is Type.DYNAMIC else _utc(value) if isinstance(value, datetime) else value,
    )


def group_key(value: Value) -> tuple[Type, Any]:
    """Return a hashable key under which two values are one group of `summarize` or `distinct`."""
    kind = kind_of(value)
    return (kind, to_text(value) if kind is Type.DYNAMIC and value is not None else value)
