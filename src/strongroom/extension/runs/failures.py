"""Words an error as a status does: with the code that scripts know from Azure, and what to do."""

from typing import Final

from strongroom.dataplane.collector.selection import UnknownNamespace
from strongroom.dataplane.hooks.errors import FreezeFailed, HookFailed, HookMissing
from strongroom.dataplane.kube.errors import (
    KubeconfigInvalid,
    KubeError,
    KubeForbidden,
    KubeServerError,
    KubeTooManyRequests,
    KubeUnauthorized,
    KubeUnreachable,
    UnknownKind,
)
from strongroom.dataplane.objectstore.errors import (
    StoreDenied,
    StoreFull,
    StoreMissing,
    StoreUnavailable,
    StoreUnsafe,
)
from strongroom.dataplane.repository.errors import (
    NoRepository,
    NoSuchPoint,
    NotTrusted,
    ReadOnly,
    RepositoryError,
    RunTooLong,
)
from strongroom.dataplane.restore.errors import RestoreInterrupted
from strongroom.errors import StrongroomError, UsageError
from strongroom.extension.api.documents import DocumentInvalid
from strongroom.extension.api.status import Failure, cut
from strongroom.extension.runs.context import UnknownLocation
from strongroom.protection.errors import ErrorCode

OPERATION_FAILED: Final = "UserErrorKubernetesBackupOperationFailed"
"""Ours, for what Azure has no code for."""
INTERNAL: Final = "InternalError"
"""A fault of the extension itself; its log has the trace."""

_Codes = tuple[tuple[type[StrongroomError] | tuple[type[StrongroomError], ...], str, bool], ...]
# The first row that fits decides, so special errors stand before general ones. The flag: retryable.
_CODES: Final[_Codes] = (
    ((StoreMissing, NoRepository, UnknownLocation), ErrorCode.NO_DEFAULT_LOCATION, False),
    (StoreDenied, ErrorCode.LOCATION_PERMISSION_MISSING, False),
    (StoreUnavailable, ErrorCode.LOCATION_NOT_READY, True),
    ((StoreFull, StoreUnsafe), ErrorCode.BACKUP_LOCATION_READ_ONLY, False),
    # The control plane certifies the extension's key when it allows it on the container.
    (ReadOnly, ErrorCode.LOCATION_NOT_READY, True),
    (NoSuchPoint, ErrorCode.GENERIC_RESOURCE_NOT_FOUND, False),
    (NotTrusted, ErrorCode.LOCATION_NOT_READY, False),
    (RunTooLong, ErrorCode.SYNC_TIMEOUT, True),
    (RepositoryError, OPERATION_FAILED, False),
    (UnknownNamespace, ErrorCode.NAMESPACE_NOT_FOUND, False),
    ((HookFailed, FreezeFailed), ErrorCode.HOOK_FAILED, False),
    (HookMissing, ErrorCode.GENERIC_RESOURCE_NOT_FOUND, False),
    (RestoreInterrupted, ErrorCode.EXTENSION_UNHEALTHY, True),
    ((KubeUnreachable, KubeTooManyRequests, KubeServerError), ErrorCode.EXTENSION_UNHEALTHY, True),
    ((KubeUnauthorized, KubeForbidden), ErrorCode.EXTENSION_HAS_ERRORS, False),
    (KubeconfigInvalid, ErrorCode.EXTENSION_IDENTITY_NOT_FOUND, False),
    ((UsageError, UnknownKind), ErrorCode.INVALID_INPUT, False),
    (KubeError, OPERATION_FAILED, False),
)


def failure_of(error: StrongroomError, *, target: str = "") -> Failure:
    """Return *error* as a status tells it; *target* is the field or resource that it is about."""
    code, retryable = OPERATION_FAILED, False
    for types, known, again in _CODES:
        if isinstance(error, types):
            code, retryable = str(known), again
            break
    else:
        if error.exit_code == UsageError.exit_code:
            code = str(ErrorCode.INVALID_INPUT)
    if isinstance(error, DocumentInvalid):
        target = target or error.field
    return Failure(
        code=code,
        message=cut(error.message),
        recommended_action=(error.hint,) if error.hint else (),
        target=target,
        retryable=retryable,
    )


def together(problems: list[Failure]) -> Failure:
    """Return one failure for *problems*, at least one: itself, or one that holds them all as details."""
    if len(problems) == 1:
        return problems[0]
    actions = tuple(dict.fromkeys(action for each in problems for action in each.recommended_action))
    return Failure(
        code=problems[0].code,
        message=cut(f"{len(problems)} problems: " + "; ".join(each.message for each in problems)),
        recommended_action=actions,
        retryable=all(each.retryable for each in problems),
        details=tuple(problems),
    )
