"""The root of Strongroom's error tree, and the exit code that each kind of failure ends a command with.

Every component derives its own errors from `StrongroomError`; the command line prints the message, the hint and
nothing else (no traceback), and exits with `exit_code`.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a script may conclude from the end of a `strongroom` command (documented in docs/reference/cli.md)."""

    WHOLE = 0
    FAILED = 1
    USAGE = 2
    INCOMPLETE = 3
    """Done, but something selected is missing: a Partial recovery point, objects that could not be restored."""
    DAMAGED = 4
    """Stored bytes are damaged or not trusted."""
    UNREACHABLE = 5
    """A server or store did not answer, or refused the credentials or the permission."""


class StrongroomError(Exception):
    """A failure that a user can read: what happened, and in *hint* what to do next.

    Subclasses set `exit_code`; *hint* is a full sentence or empty.
    """

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class UsageError(StrongroomError):
    """An argument, a field or a file given by the user is not acceptable."""

    exit_code = ExitCode.USAGE
