"""Reads an ARM document's fields into values, noting every problem with its JSON path instead of stopping at the first.

The documents arrive shape-checked (property names in the API's casing, no nulls); what is read here is checked again
because the shapes leave polymorphic parts open, and a wrong type must never become a stack trace.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeVar

from strongroom.protection.errors import UserError, invalid, shown

Choice = TypeVar("Choice", bound=StrEnum)

NAME_CHARACTERS = 200  # of a field's name in a path; names of ours are far shorter, keys of a map are a client's choice

_MISSING = "is missing"


class Fields:
    """A JSON object at *path* whose fields are read one by one; what is wrong goes to *problems*.

    Every reader returns a neutral value (empty, None, False) for a field it has complained about, so that reading can
    go on. The caller looks at *problems* before it uses the result. Nulls count as absent.
    """

    def __init__(self, value: Mapping[str, object], path: str, problems: list[UserError]) -> None:
        self._value = value
        self.path = path
        self.problems = problems

    def at(self, name: str) -> str:
        """Return the JSON path of the field *name*, which is cut short where a client chose a long one."""
        name = name if len(name) <= NAME_CHARACTERS else name[: NAME_CHARACTERS - 1] + "…"
        return f"{self.path}.{name}" if self.path else name

    def wrong(self, name: str, message: str, *actions: str) -> None:
        """Note that the field *name* (or this object, if empty) is not acceptable."""
        self.problems.append(invalid(self.at(name) if name else self.path, message, *actions))

    def has(self, name: str) -> bool:
        """Say whether the field is there and not null."""
        return self._value.get(name) is not None

    def text(self, name: str, *, required: bool = True) -> str:
        """Return a text without the blanks around it; an empty one counts as missing."""
        value = self._value.get(name)
        if value is not None and not isinstance(value, str):
            self.wrong(name, f"a text is expected, not {_kind(value)}")
            return ""
        text = (value or "").strip()
        if required and not text:
            self.wrong(name, _MISSING)
        return text

    def flag(self, name: str, *, default: bool | None = None) -> bool:
        """Return true or false; without a *default* the field is required."""
        value = self._value.get(name)
        if isinstance(value, bool):
            return value
        if value is not None:
            self.wrong(name, f"true or false is expected, not {_kind(value)}")
        elif default is None:
            self.wrong(name, _MISSING)
        return bool(default)

    def integer(self, name: str, *, required: bool = True) -> int | None:
        """Return a whole number; 15.0 is one, as JSON writers differ."""
        value = self._value.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if value is not None:
            self.wrong(name, f"a whole number is expected, not {_kind(value)}")
        elif required:
            self.wrong(name, _MISSING)
        return None

    def choice(self, name: str, choices: type[Choice], *, default: Choice | None = None) -> Choice | None:
        """Return the member of *choices* that the field names, in any casing; without *default* it is required."""
        text = self.text(name, required=default is None)
        if not text:
            return default
        return self._member(self.at(name), text, choices)

    def choices(self, name: str, choices: type[Choice]) -> tuple[Choice, ...]:
        """Return the members of *choices* that a list of texts names, each once."""
        found = (
            self._member(f"{self.at(name)}[{number}]", text, choices) for number, text in enumerate(self.texts(name))
        )
        return tuple(dict.fromkeys(member for member in found if member is not None))

    def _member(self, path: str, text: str, choices: type[Choice]) -> Choice | None:
        for member in choices:
            if member.value.casefold() == text.casefold():
                return member
        self.problems.append(
            invalid(
                path, f"{shown(text)} is not accepted; accepted are {', '.join(member.value for member in choices)}"
            )
        )
        return None

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, empty if absent."""
        found = []
        for number, value in enumerate(self._list(name)):
            if isinstance(value, str) and value.strip():
                found.append(value.strip())
            else:
                self.wrong(f"{name}[{number}]", f"a text is expected, not {_kind(value)}")
        return tuple(found)

    def child(self, name: str, *, required: bool = True) -> "Fields | None":
        """Return the object in the field *name*."""
        value = self._value.get(name)
        if isinstance(value, Mapping):
            return Fields(value, self.at(name), self.problems)
        if value is not None:
            self.wrong(name, f"an object is expected, not {_kind(value)}")
        elif required:
            self.wrong(name, _MISSING)
        return None

    def children(self, name: str) -> "list[Fields]":
        """Return the objects in a list, empty if absent."""
        found = []
        for number, value in enumerate(self._list(name)):
            if isinstance(value, Mapping):
                found.append(Fields(value, f"{self.at(name)}[{number}]", self.problems))
            else:
                self.wrong(f"{name}[{number}]", f"an object is expected, not {_kind(value)}")
        return found

    def text_map(self, name: str) -> dict[str, str]:
        """Return an object whose values are texts, empty if absent."""
        fields = self.child(name, required=False)
        return {key: fields.text(key) for key in fields._value} if fields is not None else {}

    def object_type(self, accepted: Iterable[str], why: str = "") -> str:
        """Return the discriminator `objectType` as one of *accepted*, in any casing, or note that it is another."""
        found = self.text("objectType")
        names = tuple(accepted)
        for name in names:
            if name.casefold() == found.casefold():
                return name
        if found:
            self.wrong(
                "objectType", f"{shown(found)} is not accepted; accepted: {', '.join(names)}", *([why] * bool(why))
            )
        return ""

    def _list(self, name: str) -> list[object]:
        value = self._value.get(name)
        if isinstance(value, list):
            return value
        if value is not None:
            self.wrong(name, f"a list is expected, not {_kind(value)}")
        return []


def _kind(value: object) -> str:
    """Return what JSON calls the type of *value*, without the value: it may be long, or secret."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text" if value.strip() else "an empty text"
        case list():
            return "a list"
        case _:
            return "an object"
