"""What can go wrong with hooks, by what the user should do next."""

from strongroom.errors import StrongroomError, UsageError


class HookInvalid(UsageError):
    """A BackupHook or RestoreHook says what cannot be done; *field* is the path of it (`spec.backupHook[0].name`)."""

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class HookMissing(StrongroomError):
    """A BackupHook or RestoreHook that is referred to is not in the cluster."""


class HookFailed(StrongroomError):
    """A command with `onError: Fail` failed before the snapshots: there is no recovery point."""


class FreezeFailed(StrongroomError):
    """What is to thaw could not be written down, so nothing was frozen: there is no recovery point."""
