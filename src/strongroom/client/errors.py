"""What a request to a control plane can end with, grouped by remedy."""

from strongroom.client.problems import Problem
from strongroom.errors import ExitCode, StrongroomError, UsageError


class ClientError(StrongroomError):
    """A request to a control plane did not succeed."""


class ReadyFileInvalid(ClientError, UsageError):
    """The file that says where the server is cannot be used."""


class ServerUnreachable(ClientError):
    """The server did not answer, or is not the one that the ready file names."""

    exit_code = ExitCode.UNREACHABLE


class AccessDenied(ClientError):
    """The server does not know the caller, or does not allow it this."""

    exit_code = ExitCode.UNREACHABLE


class RequestRefused(ClientError):
    """The server refused a request, or could not do what it asks: ARM's *code*, and HTTP's *status* (0: while working).

    *problems* are all that the server named, one by one. The exit code is that of a usage error where the request
    itself is what is wrong.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int,
        target: str = "",
        hint: str = "",
        problems: tuple[Problem, ...] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.status = status
        self.target = target
        self.problems = problems
        if status in (400, 404, 413):
            self.exit_code = ExitCode.USAGE
