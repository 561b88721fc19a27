"""What can go wrong with a repository, grouped by what the caller can do about it."""

from strongroom.errors import ExitCode, StrongroomError, UsageError


class RepositoryError(StrongroomError):
    """The root of this component's errors."""


class NoRepository(RepositoryError, UsageError):
    """There is no repository at the location."""

    exit_code = ExitCode.USAGE


class RepositoryExists(RepositoryError, UsageError):
    """`init` found a repository, or files that are not ours, at the location."""

    exit_code = ExitCode.USAGE


class KeyFileExists(RepositoryError, UsageError):
    """`init` would overwrite a key file."""

    exit_code = ExitCode.USAGE


class KeyMissing(RepositoryError, UsageError):
    """The repository needs a key file and none was found."""

    exit_code = ExitCode.USAGE


class KeyFileInvalid(RepositoryError, UsageError):
    """The key file cannot be read or is not one."""

    exit_code = ExitCode.USAGE


class KeyConflict(RepositoryError):
    """The root has signed something else about this key before, and what it signed is never changed."""


class UnknownFormat(RepositoryError):
    """The repository was written by a newer Strongroom, or is none."""


class NoSuchPoint(RepositoryError, UsageError):
    """No recovery point has this id (or more than one has this prefix)."""

    exit_code = ExitCode.USAGE


class NoSuchObject(RepositoryError, UsageError):
    """The recovery point does not hold this object."""

    exit_code = ExitCode.USAGE


class NotTrusted(RepositoryError):
    """Stored bytes are not signed by whom they should be, or belong somewhere else."""

    exit_code = ExitCode.DAMAGED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint or "Find out who wrote there, and put the file back from a copy")


class WrongKey(NotTrusted):
    """The key file belongs to another repository."""


class Damaged(RepositoryError):
    """Stored bytes are not what the recovery point says they are."""

    exit_code = ExitCode.DAMAGED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint or "See what it hurts: strongroom repository check --read-data")


class MalformedObject(RepositoryError):
    """The cluster served an item that is not a Kubernetes object."""

    def __init__(self, group: str, kind: str, why: str) -> None:
        super().__init__(f"an item of the list of {kind}{'.' + group if group else ''} is not an object: {why}")


class RunTooLong(RepositoryError):
    """A run passed the repository's maxRun; what it wrote may already be condemned, so it commits nothing."""

    def __init__(self, seconds: int) -> None:
        super().__init__(
            f"this run took longer than the repository's maxRun of {seconds} s and was given up",
            hint="No recovery point was made; run it again. Earlier recovery points are untouched",
        )


class CommittedTooLate(RepositoryError):
    """A prune swept files that this run relies on before the run committed; its manifest is void to every reader."""


class ReadOnly(RepositoryError, UsageError):
    """The repository was opened without the keys that this operation needs."""

    exit_code = ExitCode.USAGE
