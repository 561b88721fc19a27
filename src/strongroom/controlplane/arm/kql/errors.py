"""Says where a Resource Graph query leaves the supported language, and what could have stood there instead."""

from strongroom.errors import UsageError


class KqlError(UsageError):
    """A query that is not KQL, uses KQL that is not supported, or asks for more work than one query may.

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


def _alternatives(words: tuple[str, ...]) -> str:
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} or {words[-1]}"
