"""What the service says is wrong, as values: Azure's UserFacingError, alone or with all problems as its details."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: Azure's *code*, what was found, what mends it, and the field or resource it is about."""

    code: str
    message: str
    actions: tuple[str, ...] = ()
    target: str = ""

    @property
    def document(self) -> Json:
        """The problem as documents of the command line list it."""
        return {
            "code": self.code,
            "message": self.message,
            "target": self.target,
            "recommendedAction": list(self.actions),
        }


def problems_of(facing: Any) -> tuple[Problem, ...]:
    """Return the problems of a UserFacingError: its details where it has some, else itself; () for what is none."""
    return tuple(_problems(facing))


def problems_of_answer(error: Json) -> tuple[Problem, ...]:
    """Return the problems of an ARM error object: its UserFacingError's, or its own code and message."""
    for more in error.get("additionalInfo") or ():
        if isinstance(more, dict) and more.get("type") == "UserFacingError":
            return problems_of(more.get("info"))
    return problems_of(error)


def _problems(facing: Any) -> Iterator[Problem]:
    if not isinstance(facing, dict) or not facing.get("code"):
        return
    details = facing.get("details")
    if isinstance(details, list) and details:
        for detail in details:
            yield from _problems(detail)
        return
    actions = facing.get("recommendedAction")
    yield Problem(
        code=str(facing["code"]),
        message=str(facing.get("message") or ""),
        actions=tuple(str(action) for action in actions) if isinstance(actions, list) else (),
        target=str(facing.get("target") or ""),
    )
