"""What a user is told when something is refused or went wrong: Azure's UserFacingError as a value.

`UserError` travels: in an ARM error's `additionalInfo`, in a job's `errorDetails` and `warningDetails`, in an
instance's `protectionErrorDetails`. `Refused` is the exception that carries one out of a rule to the API.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from strongroom.errors import ExitCode, StrongroomError

SHOWN_CHARACTERS = 80  # of a value that a client sent, in a message
LISTED_PROBLEMS = 10  # in the message of an error with many details; the details hold all of them


class ErrorCode(StrEnum):
    """Codes that scripts compare; spelled as Azure spells them where Azure has the case.

    Sources: reference/azure-backup-for-aks.md sections 3.7 and 5, reference/azure-clients.md. The last group is ours.
    """

    # ARM and the service
    INVALID_INPUT = "BMSUserErrorInvalidInput"
    RESOURCE_NOT_FOUND = "ResourceNotFound"
    GENERIC_RESOURCE_NOT_FOUND = "UserErrorGenericResourceNotFound"
    POLICY_IN_USE = "UserErrorDppPolicyObjectInUse"
    ALREADY_PROTECTED = "UserErrorDppDatasourceAlreadyHasBackupInstance"
    DATASOURCE_SET_MISSING = "ScenarioPluginInvalidWorkflowDataRequest"
    LIMIT_REACHED = "CloudDosTimeboudLimitReached"  # the service's own spelling
    LINKED_AUTHORIZATION_FAILED = "LinkedAuthorizationFailed"
    VAULT_TIER_NOT_SUPPORTED = "DppUserErrorVaultTierPolicyNotSupported"

    # the extension and the storage location
    LIST_EXTENSIONS = "KubernetesBackupListExtensionsError"
    EXTENSION_NOT_FOUND = "UserErrorKubernetesBackupExtensionNotFoundError"
    EXTENSION_HAS_ERRORS = "UserErrorKubernetesBackupExtensionHasErrors"
    EXTENSION_IDENTITY_NOT_FOUND = "UserErrorKubernetesBackupExtensionIdentityNotFound"
    EXTENSION_UNHEALTHY = "UserErrorKubernetesBackupExtensionUnhealthy"
    EXTENSION_RESTARTED_DURING_BACKUP = "UserErrorBackupPluginPodRestartedDuringBackup"
    EXTENSION_RESTARTED_DURING_RESTORE = "UserErrorBackupPluginPodRestartedDuringRestore"
    CUSTOM_RESOURCES_TIMEOUT = "KubernetesBackupCustomResourcesTrackingTimeOutError"
    SYNC_TIMEOUT = "ExtensionTimedOutWaitingForBackupItemSync"
    DELETE_BACKUP_FAILED = "BackupPluginDeleteBackupOperationFailed"
    DELETE_LOCATION_READ_ONLY = "UserErrorDeleteBackupFailedBackupStorageLocationReadOnly"
    DELETE_LOCATION_NOT_FOUND = "UserErrorDeleteBackupFailedBackupStorageLocationNotFound"
    BACKUP_LOCATION_READ_ONLY = "UserErrorBackupFailedBackupStorageLocationReadOnly"
    NO_DEFAULT_LOCATION = "UserErrorNoDefaultBackupStorageLocationFound"
    LOCATION_PERMISSION_MISSING = "UserErrorExtensionMSIMissingPermissionsOnBackupStorageLocation"
    LOCATION_NOT_READY = "UserErrorBackupStorageLocationNotReady"
    SNAPSHOT_GROUP_LOCKED = "UserErrorSnapshotResourceGroupHasLocks"

    # warnings of a job
    GENERIC_WARNING = "KubernetesBackupGenericWarning"
    SNAPSHOT_LIMIT = "UserErrorPVSnapshotLimitReached"
    SNAPSHOT_DISALLOWED = "UserErrorPVSnapshotDisallowedByPolicy"
    SNAPSHOT_TIMEOUT = "CSISnapshottingTimedOut"
    HOOK_FAILED = "UserErrorHookExecutionFailed"
    NAMESPACE_NOT_FOUND = "UserErrorNamespaceNotFound"
    PVC_HAS_NO_VOLUME = "UserErrorPVCHasNoVolume"
    PVC_NOT_BOUND = "UserErrorPVCNotBoundToVolume"
    PV_NOT_FOUND = "UserErrorPVNotFound"
    STORAGE_CLASS_MISSING = "UserErrorStorageClassMissingForPVC"
    CRD_VERSION_MISMATCH = "UserErrorSourceandTargetClusterCRDVersionMismatch"

    # ours: Azure's wording for the case was never observed
    STATE_FORBIDS = "UserErrorOperationNotAllowedInProtectionState"
    VAULT_IDENTITY_NOT_FOUND = "UserErrorVaultIdentityNotFound"
    CLUSTER_IDENTITY_NOT_FOUND = "UserErrorClusterIdentityNotFound"
    ROLE_ASSIGNMENT_MISSING = "UserErrorMissingRoleAssignment"
    NOT_SUPPORTED = "NotSupported"


@dataclass(frozen=True)
class UserError:
    """One thing a user has to know: what happened, about what, and what to do.

    *target* is the JSON path of a field (`properties.policyRules[0].trigger`) or an ARM id, empty if neither fits.
    *retryable* says that the same request may succeed later without any change by the user.
    """

    code: str
    message: str
    recommended_action: tuple[str, ...] = ()
    target: str = ""
    details: tuple["UserError", ...] = ()
    retryable: bool = False


class Refused(StrongroomError):
    """A request breaks a rule of the domain; nothing was changed. The API answers it with HTTP *status*."""

    exit_code = ExitCode.USAGE

    def __init__(self, error: UserError, *, status: int = 400) -> None:
        super().__init__(error.message, hint=" ".join(error.recommended_action))
        self.error = error
        self.status = status


def invalid(target: str, message: str, *actions: str) -> UserError:
    """Return the error for a field that is not acceptable: *message* says what was found and what is accepted."""
    return UserError(str(ErrorCode.INVALID_INPUT), message, recommended_action=actions, target=target)


def shown(text: str) -> str:
    """Return *text* in quotes for a message, shortened: what a client sent may be megabytes."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…")


def refuse_if_any(problems: Iterable[UserError], what: str) -> None:
    """Raise `Refused` for all *problems* of *what* together; return if there are none.

    A single problem is the error itself. Several become `details` of one error that counts them, so that a user mends
    everything in one go.
    """
    found = tuple(problems)
    if not found:
        return
    if len(found) == 1:
        raise Refused(found[0])
    first = found[:LISTED_PROBLEMS]
    listed = "; ".join(f"{each.target}: {each.message}" if each.target else each.message for each in first)
    if len(found) > len(first):
        listed += "; and more, see the details"
    actions = tuple(dict.fromkeys(action for problem in found for action in problem.recommended_action))
    raise Refused(
        UserError(
            str(ErrorCode.INVALID_INPUT),
            f"{what} has {len(found)} problems: {listed}",
            recommended_action=actions,
            details=found,
        )
    )
