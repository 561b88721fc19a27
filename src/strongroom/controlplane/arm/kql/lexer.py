"""Cuts a Resource Graph query into tokens, each with its place in the text."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from strongroom.controlplane.arm.kql.errors import KqlError
from strongroom.controlplane.arm.kql.values import LONG_MAXIMUM, Value, parse_datetime, parse_timespan

MAX_QUERY_BYTES = 64 * 1024  # the longest query of a client is under 2 KiB; lists of resource ids make it longer
SHOWN_TOKEN_CHARACTERS = 60  # of a token in an error: the reader needs its start, not a whole list of ids


class Kind(Enum):
    """What a token is; the text of NAME and SYMBOL tells which one."""

    NAME = "a name"
    SYMBOL = "a symbol"
    STRING = "a string"
    NUMBER = "a number"
    TIMESPAN = "a timespan"
    DATETIME = "a datetime"
    END = "the end of the query"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the query: *text* as written, *value* for literals, *start* and *end* in characters from 0."""

    kind: Kind
    text: str
    start: int
    end: int
    line: int
    column: int
    value: Value = None

    def error(self, problem: str, *expected: str) -> KqlError:
        """Return the error that points at this token."""
        return KqlError(problem, line=self.line, column=self.column, token=self.text, expected=expected)

    @property
    def shown(self) -> str:
        """This token as an error message shows it."""
        if self.kind is Kind.END:
            return "the end of the query"
        text = self.text
        return repr(text if len(text) <= SHOWN_TOKEN_CHARACTERS else f"{text[:SHOWN_TOKEN_CHARACTERS]}…")


_SPACE = re.compile(r"(?:[ \t\r\n\f\v\u00a0\ufeff]+|//[^\n]*)+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)([A-Za-z_0-9]*)")
_STRING = re.compile(r"""'((?:[^'\\\r\n]|\\.)*)'|"((?:[^"\\\r\n]|\\.)*)\"""")
_VERBATIM = re.compile(r"""@(?:'((?:[^']|'')*)'|"((?:[^"]|"")*)")""")
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)")
# The two-character operators first, then "!" with the word it negates: `x !in~ ('a')`.
_SYMBOL = re.compile(
    r"==|!=|=~|!~|<=|>=|!(?:in|contains|startswith|endswith|has)(?:_cs|~)?(?![A-Za-z0-9_])|[|()\[\],.=<>+\-*;~]"
)
# `datetime(2024-01-31T10:00:00Z)` holds no expression: what stands between the brackets is one literal.
# No part of the pattern can match what the next one matches: a long run of spaces would else take quadratic time.
_BRACKETED = re.compile(r"[ \t\r\n]*\(([^()\r\n]*)\)")
_BRACKETED_LITERALS: Mapping[str, Kind] = {
    "datetime": Kind.DATETIME,
    "date": Kind.DATETIME,
    "timespan": Kind.TIMESPAN,
    "time": Kind.TIMESPAN,
}

_ESCAPES: Mapping[str, str] = {
    **{quoted: quoted for quoted in ("\\", "'", '"')},
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "0": "\0",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
}
_SECONDS: Mapping[str, float] = {
    **dict.fromkeys(("d", "day", "days"), 86_400.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3_600.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "milli", "millis", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("micro", "micros", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("tick", "ticks"), 1e-7),
}


def tokenize(query: str) -> list[Token]:
    """Return the tokens of *query* and one END token; raises `KqlError` at the first text that is none."""
    if len(query.encode("utf-8", "surrogatepass")) > MAX_QUERY_BYTES:
        raise KqlError(f"the query is longer than {MAX_QUERY_BYTES} bytes", line=1, column=1, token="")
    lexer = _Lexer(query)
    tokens = []
    while (token := lexer.next()).kind is not Kind.END:
        tokens.append(token)
    return [*tokens, token]


class _Lexer:
    def __init__(self, query: str) -> None:
        self.query = query
        self.position = 0
        self.line = 1
        self.line_start = 0

    def next(self) -> Token:
        self._skip_space()
        if self.position == len(self.query):
            return self._token(Kind.END, self.position)
        first = self.query[self.position]
        if first in "'\"":
            return self._string()
        if first == "@" and (verbatim := _VERBATIM.match(self.query, self.position)):
            single, double = verbatim.groups()
            text = single.replace("''", "'") if single is not None else double.replace('""', '"')
            return self._checked(self._token(Kind.STRING, verbatim.end(), text), text)
        if "0" <= first <= "9":
            return self._number()
        if name := _NAME.match(self.query, self.position):
            return self._bracketed(name) or self._token(Kind.NAME, name.end())
        if symbol := _SYMBOL.match(self.query, self.position):
            return self._token(Kind.SYMBOL, symbol.end())
        token = self._token(Kind.SYMBOL, self.position + 1)
        raise token.error(f"{token.shown} is not part of the query language")

    def _skip_space(self) -> None:
        if space := _SPACE.match(self.query, self.position):
            self._advance(space.end())

    def _advance(self, end: int) -> None:
        newlines = self.query.count("\n", self.position, end)
        if newlines:
            self.line += newlines
            self.line_start = self.query.rindex("\n", self.position, end) + 1
        self.position = end

    def _token(self, kind: Kind, end: int, value: Value = None) -> Token:
        start = self.position
        text = self.query[start:end]
        token = Token(kind, text, start, end, self.line, start - self.line_start + 1, value)
        self._advance(end)
        return token

    def _string(self) -> Token:
        match = _STRING.match(self.query, self.position)
        if match is None:
            line_end = self.query.find("\n", self.position)
            token = self._token(Kind.STRING, len(self.query) if line_end < 0 else line_end)
            raise token.error("the string is not closed on its line", f"a closing {token.text[0]}")
        quoted = match[1] if match[1] is not None else match[2]
        token = self._token(Kind.STRING, match.end())

        def unescape(escape: re.Match[str]) -> str:
            code = escape[1]
            if code[0] == "u" and len(code) > 1:
                return chr(int(code[1:], 16))
            if code not in _ESCAPES:
                raise token.error(
                    f"\\{code} is not an escape sequence", r"\\", r"\'", r"\"", r"\n", r"\r", r"\t", r"\uXXXX"
                )
            return _ESCAPES[code]

        value = _ESCAPE.sub(unescape, quoted)
        checked = Token(token.kind, token.text, token.start, token.end, token.line, token.column, value)
        return self._checked(checked, value)

    def _checked(self, token: Token, value: str) -> Token:
        # A lone surrogate cannot be written in UTF-8: it would break the answer that repeats it.
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise token.error("the string holds half of a surrogate pair", "whole Unicode characters")
        return token

    def _number(self) -> Token:
        match = _NUMBER.match(self.query, self.position)
        assert match is not None  # the caller saw a digit
        digits, unit = match.groups()
        start = self._token(Kind.NUMBER, match.end())
        number = float(digits)
        value: Value
        if unit:
            if unit not in _SECONDS:
                raise start.error(f"{unit!r} is not a unit of time", "d", "h", "m", "s", "ms", "microsecond", "tick")
            try:
                value = timedelta(seconds=number * _SECONDS[unit])
            except OverflowError as error:
                raise start.error(f"the timespan {start.shown} is too long") from error
            kind = Kind.TIMESPAN
        elif digits.isdigit():
            significant = digits.lstrip("0") or "0"
            # Python refuses to convert thousands of digits, so their number is looked at first.
            if len(significant) > len(str(LONG_MAXIMUM)) or int(significant) > LONG_MAXIMUM:
                raise start.error(f"the number {start.shown} does not fit in 64 bits")
            kind, value = Kind.NUMBER, int(significant)
        else:
            if not math.isfinite(number):
                raise start.error(f"the number {start.shown} is too large")
            kind, value = Kind.NUMBER, number
        return Token(kind, start.text, start.start, start.end, start.line, start.column, value)

    def _bracketed(self, name: re.Match[str]) -> Token | None:
        kind = _BRACKETED_LITERALS.get(name[0])
        match = _BRACKETED.match(self.query, name.end()) if kind else None
        if kind is None or match is None:
            return None
        written = match[1].strip()
        if len(written) > 1 and written[0] in "'\"" and written[-1] == written[0]:
            written = written[1:-1]
        token = self._token(kind, match.end())
        if written == "null":
            return token
        value: Value
        if kind is Kind.DATETIME:
            value = parse_datetime(written)
            expected = "an ISO 8601 time, such as datetime(2024-01-31T10:00:00Z)"
        else:
            value = _short_timespan(written) or parse_timespan(written)
            expected = "a timespan, such as timespan(1.12:00:00) or 36h"
        if value is None:
            raise token.error(f"{token.shown} is not a {name[0]}", expected)
        return Token(kind, token.text, token.start, token.end, token.line, token.column, value)


def _short_timespan(written: str) -> timedelta | None:
    match = _NUMBER.fullmatch(written)
    if match is None or match[2] not in _SECONDS:
        return None
    try:
        return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
    except OverflowError:
        return None
