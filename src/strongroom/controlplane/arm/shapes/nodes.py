"""The parts a shape is made of; each reads one JSON value and tells what is wrong with it.

Reading is one pass: names get the schema's casing, nulls and unknown properties go, types and enumerations are checked,
what only the service may write is left out. The order of lists and of properties stays the caller's.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from .problems import Path, Problems

JSON = Any
_REFUSED: Final = None  # what a node returns after it told a problem: the document is refused as a whole
MAX_INTEGER = 2**63 - 1  # what databases and the clients' languages hold
_MAX_EXACT_FLOAT = 2**53  # above it a float no longer names one integer
# RFC 3339, as the SDKs write it; whether the day exists is a matter of whoever computes with it
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)


class Node(Protocol):
    """Reads one kind of JSON value."""

    def read(self, value: JSON, path: Path, problems: Problems) -> JSON:
        """Return *value* (not null) in canonical form; tells *problems* what keeps it from being acceptable."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string that every database stores: no NUL, no half of a surrogate pair."""

    format: str = ""

    def read(self, value: JSON, path: Path, problems: Problems) -> JSON:
        """See `Node`."""
        if type(value) is not str:
            problems.expect(path, value, "a string")
        elif not storable(value):
            problems.add(path, "found a string with a NUL or half a surrogate pair, accepted: Unicode text")
        elif self.format == "date-time" and not _TIMESTAMP.fullmatch(value):
            problems.add(path, "found a string that is no timestamp, accepted: one like 2026-11-23T16:00:00Z")
        return value


@dataclass(frozen=True, slots=True)
class Truth:
    """true or false."""

    def read(self, value: JSON, path: Path, problems: Problems) -> JSON:
        """See `Node`."""
        if type(value) is not bool:
            problems.expect(path, value, "true or false")
        return value


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer of at most 64 bits; `7.0` is one too (PowerShell writes that)."""

    def read(self, value: JSON, path: Path, problems: Problems) -> JSON:
        """See `Node`."""
        if type(value) is float and value.is_integer() and abs(value) < _MAX_EXACT_FLOAT:
            return int(value)
        if type(value) is not int:
            problems.expect(path, value, "an integer")
        elif abs(value) > MAX_INTEGER:
            problems.add(path, "found an integer of more than 64 bits, accepted: a smaller one")
        return value


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number."""

    def read(self, value: JSON, path: Path, problems: Problems) -> JSON:
        """See `Node`."""
        if type(value) not in (int, float):
            problems.expect(path, value, "a number")
        elif abs(value) > MAX_INTEGER or not math.isfinite(value):
            problems.add(path, "found a number that is too large, accepted: a smaller one")
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few strings, whatever its casing; the canonical one comes back."""

    values: tuple[str, ...]
    by_folded: Mapping[str, str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        exact = {value: value for value in self.values}
        object.__setattr__(self, "by_folded", {value.lower(): value for value in self.values} | exact)

    def read(self, value: JSON, path: Path, problems: Problems) -> JSON:
        """See `Node`."""
        if type(value) is not str:
            problems.expect(path, value, f"one of {', '.join(self.values)}")
            return _REFUSED
        canonical = self.by_folded.get(value) or self.by_folded.get(value.lower())
        if canonical is None:
            problems.unknown_name(path, value, self.values)
        return canonical


@dataclass(frozen=True, slots=True)
class Anything:
    """Any JSON value whose strings are storable; only answers have such a field."""

    def read(self, value: JSON, path: Path, problems: Problems) -> JSON:
        """See `Node`."""
        pending = [value]
        while pending:
            item = pending.pop()
            if isinstance(item, str) and not storable(item):
                problems.add(path, "holds a string with a NUL or half a surrogate pair, accepted: Unicode text")
            elif isinstance(item, dict):
                pending += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                pending += item
        return value


@dataclass(frozen=True, slots=True)
class ListOf:
    """An array of one kind of value; its order is kept."""

    item: Node

    def read(self, value: JSON, path: Path, problems: Problems) -> JSON:
        """See `Node`."""
        if type(value) is not list:
            problems.expect(path, value, "an array")
            return _REFUSED
        if None in value:
            problems.expect((path, value.index(None)), None, "no null in an array")
            return _REFUSED
        read = self.item.read
        items = []
        for index, item in enumerate(value):
            items.append(read(item, (path, index), problems))
            if problems.enough:
                break
        return items


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object with free keys (tags, namespace mappings, settings): keys stay as they are, nulls go."""

    item: Node

    def read(self, value: JSON, path: Path, problems: Problems) -> JSON:
        """See `Node`."""
        if type(value) is not dict:
            problems.expect(path, value, "an object")
            return _REFUSED
        read = self.item.read
        members = {}
        for key, item in value.items():
            if not storable(key):
                problems.add(path, "found a key with a NUL or half a surrogate pair, accepted: Unicode text")
            elif item is not None:
                members[key] = read(item, (path, key), problems)
            if problems.enough:
                break
        return members


@dataclass(frozen=True, slots=True)
class Field:
    """One property of a `Record`. *read_only*: the service's to write; *write_only*: never in an answer."""

    name: str
    node: Node
    required: bool = False
    read_only: bool = False
    write_only: bool = False


@dataclass(eq=False, slots=True)
class Record:
    """An object with known properties, found whatever the casing of their names."""

    name: str
    description: str = ""
    fields: tuple[Field, ...] = ()
    _by_name: dict[str, tuple[str, Node]] = field(init=False, default_factory=dict, repr=False)
    _required: tuple[str, ...] = field(init=False, default=(), repr=False)

    def complete(self, fields: Sequence[Field]) -> None:
        """Give the record its properties; apart from its making, because a record may contain itself."""
        self.fields = tuple(fields)
        writable = [item for item in self.fields if not item.read_only]
        self._by_name = {item.name.lower(): (item.name, item.node) for item in writable}
        self._by_name |= {item.name: (item.name, item.node) for item in writable}
        self._required = tuple(item.name for item in writable if item.required)

    def read(self, value: JSON, path: Path, problems: Problems) -> JSON:
        """See `Node`."""
        if type(value) is not dict:
            problems.expect(path, value, "an object")
            return _REFUSED
        document: dict[str, JSON] = {}
        by_name = self._by_name
        for key, item in value.items():
            if item is None:
                continue
            known = by_name.get(key) or by_name.get(key.lower())
            if known is None:
                continue
            name, node = known
            if name in document:
                problems.add((path, name), "found twice, spelled in different cases, accepted: once")
                continue
            document[name] = node.read(item, (path, name), problems)
        for name in self._required:
            if name not in document:
                problems.add((path, name), "is missing")
        return document


@dataclass(eq=False, slots=True)
class Union:
    """An object whose kind is told by one of its properties (`objectType`)."""

    name: str
    discriminator: str
    arms: dict[str, Record] = field(default_factory=dict)
    description: str = ""
    _by_folded: dict[str, Record] = field(init=False, default_factory=dict, repr=False)

    def complete(self, arms: Mapping[str, Record]) -> None:
        """Give the union its kinds by discriminator value; apart from its making, as for `Record`."""
        self.arms = dict(arms)
        self._by_folded = {value.lower(): arm for value, arm in arms.items()} | self.arms

    def read(self, value: JSON, path: Path, problems: Problems) -> JSON:
        """See `Node`."""
        if type(value) is not dict:
            problems.expect(path, value, "an object")
            return _REFUSED
        kind = value.get(self.discriminator) or self._find(value)
        if kind is None:
            problems.add((path, self.discriminator), f"is missing, accepted: {', '.join(self.arms)}")
            return _REFUSED
        if type(kind) is not str:
            problems.expect((path, self.discriminator), kind, f"one of {', '.join(self.arms)}")
            return _REFUSED
        arm = self._by_folded.get(kind) or self._by_folded.get(kind.lower())
        if arm is None:
            problems.unknown_name((path, self.discriminator), kind, tuple(self.arms))
            return _REFUSED
        return arm.read(value, path, problems)

    def _find(self, value: dict[str, JSON]) -> JSON:
        folded = self.discriminator.lower()
        return next((item for key, item in value.items() if key.lower() == folded and item is not None), None)


def storable(text: str) -> bool:
    """Tell whether every database takes *text*: PostgreSQL refuses NUL, UTF-8 has no lone surrogates."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    return not any("\ud800" <= character <= "\udfff" for character in text)
