"""Protection states of a backup instance: which action leads where, which does nothing, and which is refused.

Reference section 1.8. Where Azure's answer to an illegal action was never observed, the code is our own
(`ErrorCode.STATE_FORBIDS`) and the remedy says which action is legal.
"""

from dataclasses import dataclass
from enum import StrEnum

from strongroom.protection.errors import ErrorCode, Refused, UserError
from strongroom.protection.retention import RetentionMode


class ProtectionState(StrEnum):
    """`currentProtectionState`, spelled as on the wire.

    `BackupsSuspended` is what the service answers after suspendBackups; the SDK's enum lacks it and tolerates it.
    """

    CONFIGURING = "ConfiguringProtection"
    CONFIGURED = "ProtectionConfigured"
    UPDATING = "UpdatingProtection"
    SUSPENDED = "BackupsSuspended"
    STOPPED = "ProtectionStopped"
    ERROR = "ProtectionError"
    CONFIGURING_FAILED = "ConfiguringProtectionFailed"
    SOFT_DELETING = "SoftDeleting"
    SOFT_DELETED = "SoftDeleted"

    @property
    def in_motion(self) -> bool:
        """Whether a job is at work that will end in another state."""
        return self in (ProtectionState.CONFIGURING, ProtectionState.UPDATING, ProtectionState.SOFT_DELETING)

    @property
    def takes_scheduled_backups(self) -> bool:
        """Whether a slot that is due is carried out; in every other state it is skipped or waits."""
        return self is ProtectionState.CONFIGURED

    @property
    def retention(self) -> RetentionMode:
        """Whether points expire. "Retain forever" holds for what is stopped, and for what is deleted until its purge.

        Suspended instances ("retain as per policy") and failing ones go on letting points go, but for the newest.
        """
        if self in (ProtectionState.STOPPED, ProtectionState.SOFT_DELETING, ProtectionState.SOFT_DELETED):
            return RetentionMode.FOREVER
        return RetentionMode.AS_PER_POLICY


class Action(StrEnum):
    """What a user may ask of an instance, as the API names it; CREATE and UPDATE are both the PUT."""

    CREATE = "create"
    UPDATE = "update"
    STOP_PROTECTION = "stopProtection"
    SUSPEND_BACKUPS = "suspendBackups"
    RESUME_PROTECTION = "resumeProtection"
    RESUME_BACKUPS = "resumeBackups"
    DELETE = "delete"
    UNDELETE = "undelete"
    BACKUP = "backup"
    RESTORE = "restore"


@dataclass(frozen=True, slots=True)
class Transition:
    """A legal action that changes something.

    The instance is in *during* while the job runs, then in *after* (None: it is gone), or in *failed* if the job fails.
    """

    during: ProtectionState
    after: ProtectionState | None
    failed: ProtectionState


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """A legal action whose result is there already; the API answers 200 (204 for a delete of what is not there)."""


Decision = Transition | NothingToDo

_S = ProtectionState
_SETTLED = (_S.CONFIGURED, _S.SUSPENDED, _S.STOPPED, _S.ERROR, _S.CONFIGURING_FAILED)
_CONFIGURE = Transition(_S.CONFIGURING, _S.CONFIGURED, _S.ERROR)
_STOP = Transition(_S.STOPPED, _S.STOPPED, _S.STOPPED)
_SUSPEND = Transition(_S.SUSPENDED, _S.SUSPENDED, _S.SUSPENDED)
_NOTHING = NothingToDo()

# Everything legal for an instance that exists and that no job is at work on; what is absent here is refused.
_LEGAL: dict[Action, dict[ProtectionState, Decision]] = {
    Action.UPDATE: {
        _S.CONFIGURED: Transition(_S.UPDATING, _S.CONFIGURED, _S.ERROR),
        # What a user has stopped stays stopped: new settings must not start backups again.
        _S.SUSPENDED: Transition(_S.UPDATING, _S.SUSPENDED, _S.SUSPENDED),
        _S.STOPPED: Transition(_S.UPDATING, _S.STOPPED, _S.STOPPED),
        _S.ERROR: _CONFIGURE,
        _S.CONFIGURING_FAILED: _CONFIGURE,
    },
    Action.STOP_PROTECTION: {
        _S.CONFIGURED: _STOP,
        _S.SUSPENDED: _STOP,
        _S.ERROR: _STOP,
        _S.CONFIGURING_FAILED: _STOP,
        _S.STOPPED: _NOTHING,
    },
    Action.SUSPEND_BACKUPS: {
        _S.CONFIGURED: _SUSPEND,
        _S.ERROR: _SUSPEND,
        _S.SUSPENDED: _NOTHING,
    },
    Action.RESUME_PROTECTION: {
        _S.STOPPED: _CONFIGURE,
        _S.SUSPENDED: _CONFIGURE,  # as recorded; resumeBackups would do as well
        _S.ERROR: _CONFIGURE,  # a resume that failed is asked for again
        _S.CONFIGURING_FAILED: _CONFIGURE,
        _S.CONFIGURED: _NOTHING,
    },
    Action.RESUME_BACKUPS: {
        _S.SUSPENDED: _CONFIGURE,
        _S.CONFIGURED: _NOTHING,
    },
    Action.DELETE: {state: Transition(_S.SOFT_DELETING, _S.SOFT_DELETED, state) for state in _SETTLED},
    Action.UNDELETE: {_S.SOFT_DELETED: Transition(_S.SOFT_DELETED, _S.STOPPED, _S.SOFT_DELETED)},
    Action.BACKUP: {_S.CONFIGURED: _NOTHING},
    Action.RESTORE: dict.fromkeys((*_SETTLED, _S.CONFIGURING, _S.UPDATING), _NOTHING),
}


def decide(
    name: str, state: ProtectionState | None, action: Action, *, soft_delete: bool = True, changed: bool = True
) -> Decision:
    """Return what *action* does to the instance *name* in *state* (None: there is no such instance).

    *soft_delete*: whether the vault keeps deleted instances; without it a delete leaves nothing. *changed*: whether an
    update differs from the stored document; one that does not is nothing to do unless the instance is in error.
    Raises `Refused`: 404 for what is not there, 409 (retryable) while a job is at work on it, else 400.
    """
    match action:
        case Action.CREATE:
            if state is None:
                return _CONFIGURE
            if state is ProtectionState.SOFT_DELETED:
                raise _refused(name, state, action)
            return decide(name, state, Action.UPDATE, soft_delete=soft_delete, changed=changed)
        case Action.DELETE if state is None:
            return _NOTHING
        case _ if state is None:
            raise _not_found(name, action)
        case Action.UNDELETE if state is not ProtectionState.SOFT_DELETED:
            raise _not_found(name, action)
        case Action.DELETE if not soft_delete and state in _SETTLED:
            return Transition(ProtectionState.SOFT_DELETING, None, state)
        case Action.UPDATE if not changed and state not in (
            ProtectionState.ERROR,
            ProtectionState.CONFIGURING_FAILED,
            ProtectionState.SOFT_DELETING,
            ProtectionState.SOFT_DELETED,
        ):
            return _NOTHING
        case Action.DELETE if state is ProtectionState.SOFT_DELETING:
            return _NOTHING
    decision = _LEGAL[action].get(state)
    if decision is None:
        raise _refused(name, state, action)
    return decision


def check_backup(name: str, state: ProtectionState) -> None:
    """Raise `Refused` unless an on-demand backup may start in *state*."""
    decide(name, state, Action.BACKUP)


def check_restore(name: str, state: ProtectionState) -> None:
    """Raise `Refused` unless a restore may start in *state*: whatever has points may be restored, but not deleted."""
    decide(name, state, Action.RESTORE)


_REMEDIES: dict[ProtectionState, dict[Action | None, str]] = {
    _S.STOPPED: {
        Action.SUSPEND_BACKUPS: "Its points are retained forever. Call resumeProtection first, then suspendBackups.",
        None: "Call resumeProtection first.",
    },
    _S.SUSPENDED: {None: "Call resumeBackups first."},
    _S.ERROR: {
        None: "See protectionErrorDetails; then update the backup instance, or call resumeProtection.",
    },
    _S.CONFIGURING_FAILED: {
        None: "See protectionErrorDetails; then update the backup instance, or call resumeProtection.",
    },
    _S.SOFT_DELETED: {
        None: "Undelete the backup instance first: POST deletedBackupInstances/{name}/undelete.",
    },
}


def _refused(name: str, state: ProtectionState, action: Action) -> Refused:
    if state.in_motion:
        return Refused(
            UserError(
                str(ErrorCode.STATE_FORBIDS),
                f"{action} is not possible while the backup instance {name} is in {state}",
                recommended_action=("Wait until the running operation has ended, then repeat the request.",),
                target=name,
                retryable=True,
            ),
            status=409,
        )
    remedies = _REMEDIES[state]
    return Refused(
        UserError(
            str(ErrorCode.STATE_FORBIDS),
            f"{action} is not possible for the backup instance {name}, which is in {state}",
            recommended_action=(remedies.get(action, remedies[None]),),
            target=name,
        )
    )


def _not_found(name: str, action: Action) -> Refused:
    if action is Action.UNDELETE:
        code, message = ErrorCode.GENERIC_RESOURCE_NOT_FOUND, f"there is no deleted backup instance {name}"
        remedy = "List deletedBackupInstances of the vault."
    else:
        code, message = ErrorCode.RESOURCE_NOT_FOUND, f"there is no backup instance {name}"
        remedy = "List backupInstances of the vault; a deleted one stands in deletedBackupInstances."
    return Refused(UserError(str(code), message, recommended_action=(remedy,), target=name), status=404)
