"""Parses Kubernetes' label selectors and decides which labels they match.

Pure. The syntax is that of `kubectl get -l` (k8s.io/apimachinery, pkg/labels): requirements joined by commas, all of
which must hold; several selectors given together are OR-ed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from strongroom.errors import UsageError

NAME_LIMIT = 63  # characters of a label's name and of its value: the API server's own limit
PREFIX_LIMIT = 253  # characters of a label key's prefix, a DNS subdomain

_TOKEN = re.compile(r"\s*(==|!=|[=!(),<>]|[^\s=!(),<>]+)")
_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_SYMBOLS = frozenset(("==", "!=", "=", "!", "(", ")", ",", "<", ">"))


class SelectorInvalid(UsageError):
    """A label selector does not follow Kubernetes' syntax; the message names the place."""


class Operator(StrEnum):
    """What a requirement asks of one label. `=`, `==` are IN, `!=` is NOT_IN, with one value."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    DOES_NOT_EXIST = "!"
    GREATER = ">"
    LESS = "<"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label key."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether *labels* fulfil it. As in Kubernetes, `!=` and `notin` hold where the key is absent."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None
            case Operator.GREATER | Operator.LESS:
                if value is None or not _INTEGER.fullmatch(value):
                    return False
                (bound,) = self.values
                return int(value) > int(bound) if self.operator is Operator.GREATER else int(value) < int(bound)


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """The requirements of one selector; *text* is as the user gave it and as the API server takes it."""

    text: str
    requirements: tuple[Requirement, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether all requirements hold; a selector without any matches everything."""
        return all(requirement.matches(labels) for requirement in self.requirements)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Several selectors, OR-ed. Without any it matches everything (no label selection was made)."""

    selectors: tuple[LabelSelector, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether one of the selectors matches, or there is none."""
        return not self.selectors or any(selector.matches(labels) for selector in self.selectors)

    @property
    def everything(self) -> bool:
        """True when no selector narrows anything."""
        return not self.selectors or any(not selector.requirements for selector in self.selectors)


def parse_selectors(texts: Sequence[str]) -> AnyOf:
    """Parse each of *texts* as a selector; the result matches what any of them matches. Raises `SelectorInvalid`."""
    return AnyOf(tuple(parse_selector(text) for text in texts))


def parse_selector(text: str) -> LabelSelector:
    """Parse one selector such as `app=shop,tier in (web,api),!canary`. Raises `SelectorInvalid`."""
    return LabelSelector(text.strip(), tuple(_Parser(text).requirements()))


class _Parser:
    """Recursive descent over the tokens of one selector."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _TOKEN.findall(text)
        self._at = 0

    def requirements(self) -> Iterator[Requirement]:
        if not self._tokens:
            return
        while True:
            yield self._requirement()
            following = self._next()
            if following is None:
                return
            if following != ",":
                raise self._wrong(f"expected a comma, found {following!r}")
            if self._peek() is None:
                raise self._wrong("nothing follows the last comma")

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._next()
            return Requirement(self._key(), Operator.DOES_NOT_EXIST)
        key = self._key()
        following = self._peek()
        if following is None or following == ",":
            return Requirement(key, Operator.EXISTS)
        self._next()
        match following:
            case "=" | "==":
                return Requirement(key, Operator.IN, frozenset((self._value(),)))
            case "!=":
                return Requirement(key, Operator.NOT_IN, frozenset((self._value(),)))
            case "in":
                return Requirement(key, Operator.IN, self._values())
            case "notin":
                return Requirement(key, Operator.NOT_IN, self._values())
            case "<" | ">":
                return Requirement(key, Operator(following), frozenset((self._integer(),)))
        raise self._wrong(f"expected an operator (=, ==, !=, in, notin, <, >) after {key!r}, found {following!r}")

    def _key(self) -> str:
        key = self._next()
        if key is None or key in _SYMBOLS:
            raise self._wrong(f"expected a label key, found {key!r}" if key else "expected a label key at the end")
        prefix, slash, name = key.rpartition("/")
        if slash and (len(prefix) > PREFIX_LIMIT or not _PREFIX.fullmatch(prefix)):
            raise self._wrong(f"the prefix of label key {key!r} is not a DNS subdomain")
        if len(name) > NAME_LIMIT or not _NAME.fullmatch(name):
            raise self._wrong(f"{key!r} is not a label key")
        return key

    def _value(self) -> str:
        """One value; it may be empty (`key=`), as the server allows."""
        value = self._peek()
        if value is None or value == ",":
            return ""
        self._next()
        return self._checked(value)

    def _values(self) -> frozenset[str]:
        if self._next() != "(":
            raise self._wrong("expected '(' after in or notin")
        values: set[str] = set()
        if self._peek() == ")":
            raise self._wrong("in and notin need at least one value")
        while True:
            token = self._peek()
            if token in (",", ")"):  # "(a,,b)" and "(a,)" hold the empty value, as for the server
                values.add("")
            elif token is not None:
                self._next()
                values.add(self._checked(token))
            separator = self._next()
            if separator == ")":
                return frozenset(values)
            if separator != ",":
                raise self._wrong("expected ',' or ')' in a list of values")

    def _checked(self, value: str) -> str:
        if value in _SYMBOLS or len(value) > NAME_LIMIT or not _NAME.fullmatch(value):
            raise self._wrong(f"{value!r} is not a label value")
        return value

    def _integer(self) -> str:
        value = self._next()
        if value is None or not _INTEGER.fullmatch(value):
            raise self._wrong("< and > compare with an integer")
        return value

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self) -> str | None:
        token = self._peek()
        self._at += 1
        return token

    def _wrong(self, why: str) -> SelectorInvalid:
        return SelectorInvalid(
            f"label selector {self._text!r}: {why}",
            hint="Write it as for kubectl -l, for example 'app=shop,tier in (web,api),!canary'",
        )
