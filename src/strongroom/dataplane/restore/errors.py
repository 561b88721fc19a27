"""What can go wrong with a restore as a whole. What goes wrong with one object is a result, not an error."""

from strongroom.errors import ExitCode, StrongroomError, UsageError


class RestoreError(StrongroomError):
    """The root of this component's errors."""


class PlanUnreadable(RestoreError, UsageError):
    """The file is not a restore plan, or one of a newer format."""

    exit_code = ExitCode.USAGE


class PlanMismatch(RestoreError, UsageError):
    """The plan was made for another recovery point or another cluster."""

    exit_code = ExitCode.USAGE


class SelectionInvalid(RestoreError, UsageError):
    """The selection, the mapping or an option of the request cannot be used."""

    exit_code = ExitCode.USAGE


class NoSuchRestore(RestoreError, UsageError):
    """There is no journal of this restore in the repository."""

    exit_code = ExitCode.USAGE


class RestoreTakenOver(RestoreError):
    """Another process writes the journal of the same restore."""


class RestoreInterrupted(RestoreError):
    """The target or the repository stopped answering in mid-restore; what was done is in the journal."""

    exit_code = ExitCode.UNREACHABLE
