"""What is wrong with a document, collected while it is read: where, what was found, what is accepted.

A value is never repeated, only its JSON type, except for the names of an enumeration: a body may hold credentials.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from strongroom.protection.errors import Refused, UserError

Path = tuple[Any, str | int] | None
"""Where a value lies: its parent's path and the key or index there; None is the document itself."""

MAX_REPORTED = 20  # more than a person mends in one go; the rest is counted
_ENOUGH = 1000  # problems; from here on reading more of the body only costs time: 4 MiB of them took 2 s
_MAX_SHOWN_CHARACTERS = 60  # of a name that the caller wrote: enough to find it, too little to flood a log
_PLAIN_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]{0,79}", re.ASCII)


@dataclass(slots=True)
class Problems:
    """Collects the problems of one document."""

    found: list[UserError] = field(default_factory=list)
    count: int = 0

    @property
    def enough(self) -> bool:
        """Whether there are so many that reading on is of no use; lists and maps then stop."""
        return self.count >= _ENOUGH

    def add(self, path: Path, message: str) -> None:
        """Take one more problem; past `MAX_REPORTED` it is only counted."""
        self.count += 1
        if len(self.found) < MAX_REPORTED:
            self.found.append(UserError("", message, target=render(path)))

    def expect(self, path: Path, value: object, accepted: str) -> None:
        """Take the problem that *value* is not of the *accepted* kind."""
        self.add(path, f"found {json_type(value)}, accepted: {accepted}")

    def unknown_name(self, path: Path, name: str, accepted: Sequence[str]) -> None:
        """Take the problem that *name* is none of the *accepted* ones."""
        self.add(path, f"found {shown(name)}, accepted: {', '.join(accepted)}")

    def refuse(self, what: str, code: str) -> None:
        """Raise `Refused` with *code* for everything found; return if nothing was."""
        if not self.count:
            return
        details = tuple(UserError(code, problem.message, target=problem.target) for problem in self.found)
        listed = "; ".join(f"{problem.target or 'the body'}: {problem.message}" for problem in details)
        if self.count == 1:
            raise Refused(UserError(code, f"{what}: {listed}", target=details[0].target))
        count = f"{self.count} or more" if self.enough else str(self.count)
        more = "; and so on" if self.count > len(details) else ""
        raise Refused(UserError(code, f"{what}; it has {count} problems: {listed}{more}", details=details))


def render(path: Path) -> str:
    """Return *path* as people write it: `properties.policyRules[0].trigger`, `tags['a b']`."""
    parts: list[str] = []
    while path is not None:
        path, key = path
        if isinstance(key, int):
            parts.append(f"[{key}]")
        elif _PLAIN_KEY.fullmatch(key):
            parts.append(f".{key}")
        else:
            parts.append(f"[{shown(key)}]")
    return "".join(reversed(parts)).removeprefix(".")


def json_type(value: object) -> str:
    """Return the name of *value*'s JSON type with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "an array"
        case _:
            return "an object"


def shown(name: str) -> str:
    """Return a name of the caller's in quotes, printable and at most 60 characters of it."""
    return ascii(name if len(name) <= _MAX_SHOWN_CHARACTERS else name[:_MAX_SHOWN_CHARACTERS] + "...")
