"""Says where a Resource Graph query leaves the supported language, and what could have stood there instead."""

from typing import TYPE_CHECKING

from strongroom.errors import UsageError

if TYPE_CHECKING:
    from strongroom.controlplane.arm.kql.lexer import Token


class KqlError(UsageError):
    """A query that is not KQL, or uses KQL that is not supported.

    *line* and *column* count characters from 1. *token* is the text found there, empty at the end of the query.
    *expected* lists what could have stood there; it is empty where the message says all there is to say.
    """

    def __init__(self, problem: str, *, line: int, column: int, token: str, expected: tuple[str, ...] = ()) -> None:
        message = f"line {line}, column {column}: {problem}"
        super().__init__(message, hint=f"expected {_alternatives(expected)}" if expected else "")
        self.problem = problem
        self.line = line
        self.column = column
        self.token = token
        self.expected = expected


class KqlTooCostly(KqlError):
    """A query that asks for more time, work or memory than one query may have, at the operator where it ran out."""

    def __init__(self, problem: str, instead: str, at: "Token | None") -> None:
        line, column, token = (at.line, at.column, at.text) if at else (1, 1, "")
        super().__init__(problem, line=line, column=column, token=token, expected=(instead,))


def _alternatives(words: tuple[str, ...]) -> str:
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} or {words[-1]}"
