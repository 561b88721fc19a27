"""What can go wrong with the database, by what the caller does next."""

from strongroom.errors import ExitCode, StrongroomError


class StateError(StrongroomError):
    """The database refused, or what it holds is not as it was written."""


class StateUnavailable(StateError):
    """The database did not answer: nothing of the transaction was kept, and the same one may succeed later."""

    exit_code = ExitCode.UNREACHABLE

    @property
    def reason(self) -> str:
        """What the driver said, for the log: its own words, without statements and their parameters."""
        return str(getattr(self.__cause__, "orig", None) or self)[:200]


class Conflict(StateError):
    """Somebody else wrote first: a row that must be new exists, or a row changed since it was read."""


class SecretDamaged(StateError):
    """A sealed secret does not open under this home's key."""

    exit_code = ExitCode.DAMAGED
