"""What can go wrong between the control plane and a container, grouped by what its user should do next.

What the store or the repository say themselves (`StoreDenied`, `Damaged`, …) passes through as it is.
"""

from strongroom.errors import ExitCode, StrongroomError, UsageError


class CatalogError(StrongroomError):
    """The root of this component's errors."""


class UnknownRepository(CatalogError):
    """The container holds a repository whose keys this server does not have."""

    exit_code = ExitCode.USAGE


class RepositoryHeld(CatalogError):
    """The container holds a repository that is another container's of this server."""

    exit_code = ExitCode.USAGE


class RepositoryLost(CatalogError):
    """The container held a repository and holds none now."""

    exit_code = ExitCode.DAMAGED


class AttachmentRefused(CatalogError, UsageError):
    """A storage location that a user wants to attach is not accepted.

    *field* is the path of what is refused below `strongroomLocation` (`url`, `credentials.accountKey`).
    """

    exit_code = ExitCode.USAGE

    def __init__(self, field: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class KitInvalid(CatalogError, UsageError):
    """A file is not a recovery kit, or not one for this repository."""

    exit_code = ExitCode.USAGE


class KitTaken(CatalogError, UsageError):
    """The recovery secret has left this home already: there is nothing to hand over."""

    exit_code = ExitCode.USAGE


class KitExists(CatalogError, UsageError):
    """A recovery kit would overwrite a file."""

    exit_code = ExitCode.USAGE
