"""The statuses of documents: bounded summaries of what became of a backup, a restore or a deletion.

Full reports are documents in the container; `report` names theirs.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

import msgspec

from strongroom.extension.api.documents import DocumentInvalid, Kind

WARNINGS_AT_MOST: Final = 20  # design.md section 2: statuses are bounded summaries; etcd takes 1.5 MiB an object
TEXT_CHARACTERS: Final = 1000  # of one message: a server's reason fits, a foreign page of HTML does not
NOT_DELETED_AT_MOST: Final = 100  # snapshots that are left, one short line each; their count is always whole


class Phase(StrEnum):
    """How far a document is. The last four are final."""

    NEW = "New"
    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    PARTIALLY_FAILED = "PartiallyFailed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        return self not in (Phase.NEW, Phase.IN_PROGRESS)


class _Status(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    pass


class Condition(_Status, frozen=True, kw_only=True):
    """A condition as Kubernetes words it; `Ready` of what runs, `Available` of a location. Times are RFC 3339 UTC."""

    type: str
    status: str
    reason: str
    message: str = ""
    last_transition_time: str


class Progress(_Status, frozen=True, kw_only=True):
    """How far a run is: *done* of *total* steps of its *phase* (0 where not known), *objects* handled so far."""

    phase: str = ""
    done: int = 0
    total: int = 0
    objects: int = 0
    detail: str = ""


class StatusWarning(_Status, frozen=True, kw_only=True):
    """Something that a user has to know of *resource* (`namespace/claim`, a kind, or "")."""

    resource: str = ""
    code: str
    message: str


class Failure(_Status, frozen=True, kw_only=True):
    """Why a document failed, with Azure's code where there is one. *details* holds all findings of a dry run.

    *retryable*: the same document under a new name may succeed later with nothing changed.
    """

    code: str
    message: str
    recommended_action: tuple[str, ...] = ()
    target: str = ""
    retryable: bool = False
    details: tuple["Failure", ...] = ()


class Coverage(_Status, frozen=True, kw_only=True):
    """How many kinds of the cluster were saved, left out by a rule, or failed; and how many groups failed discovery."""

    saved: int = 0
    excluded: int = 0
    failed: int = 0
    failed_groups: int = 0


class VolumeCounts(_Status, frozen=True, kw_only=True):
    """How many volumes of a recovery point have a snapshot, failed, or cannot have or were not to have one."""

    ready: int = 0
    failed: int = 0
    not_snapshotted: int = 0


class _RunStatus(_Status, frozen=True, kw_only=True):
    phase: Phase
    start_time: str = ""
    completion_time: str = ""
    conditions: tuple[Condition, ...] = ()
    progress: Progress | None = None
    warnings: tuple[StatusWarning, ...] = ()
    warning_count: int = 0
    """How many warnings there were; `warnings` holds the first `WARNINGS_AT_MOST`."""
    report: str = ""
    """Where the full report lies in the container."""
    error: Failure | None = None


class BackupStatus(_RunStatus, frozen=True, kw_only=True):
    """What became of a Backup. Bytes are those read from the API server and written to the store."""

    recovery_point_id: str = ""
    objects: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    coverage: Coverage | None = None
    volumes: VolumeCounts | None = None


class RestoreCounts(_Status, frozen=True, kw_only=True):
    """Objects by what became of them; of a dry run by what is planned (`created` would be created)."""

    created: int = 0
    patched: int = 0
    skipped: int = 0
    failed: int = 0


class RestoreStatus(_RunStatus, frozen=True, kw_only=True):
    """What became of a Restore. `restore_id` names its journal in the repository."""

    restore_id: str = ""
    counts: RestoreCounts | None = None


class NotDeleted(_Status, frozen=True, kw_only=True):
    """One CSI snapshot that is still there, and why."""

    namespace: str
    claim: str
    driver: str
    handle: str
    reason: str


class DeleteBackupStatus(_RunStatus, frozen=True, kw_only=True):
    """What became of a DeleteBackup: `deleted` snapshots confirmed gone, and those that are left."""

    deleted: int = 0
    not_deleted: tuple[NotDeleted, ...] = ()
    not_deleted_count: int = 0


Status = BackupStatus | RestoreStatus | DeleteBackupStatus


class Availability(StrEnum):
    """Whether a storage location can be used."""

    AVAILABLE = "Available"
    UNAVAILABLE = "Unavailable"


class LocationStatus(_Status, frozen=True, kw_only=True):
    """What the extension found of a BackupStorageLocation, and the public halves of its own keys.

    *recipient* is `age1…`, for whom the repository key is to be wrapped, *writer* the base64 of the raw Ed25519 key
    that is to be certified. The condition `Available` says why.
    """

    phase: Availability
    recipient: str = ""
    writer: str = ""
    repository_id: str = ""
    conditions: tuple[Condition, ...] = ()


STATUS_TYPES: Final[dict[Kind, type[BackupStatus] | type[RestoreStatus] | type[DeleteBackupStatus]]] = {
    Kind.BACKUP: BackupStatus,
    Kind.RESTORE: RestoreStatus,
    Kind.DELETE_BACKUP: DeleteBackupStatus,
}


def parse_status(kind: Kind, value: object) -> Status:
    """Return the status of a document of *kind*. Raises `DocumentInvalid`."""
    try:
        return msgspec.convert(value, STATUS_TYPES[kind])
    except (msgspec.ValidationError, KeyError) as error:
        raise DocumentInvalid(f"the status of a {kind} cannot be read: {error}", field="status") from error


def status_json(status: Status) -> dict[str, Any]:
    """Return *status* as it is sent."""
    built: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(status))
    return built


def bounded(warnings: Iterable[StatusWarning]) -> tuple[tuple[StatusWarning, ...], int]:
    """Return the warnings that a status holds, cut to its bounds, and how many there were."""
    every = tuple(warnings)
    kept = tuple(msgspec.structs.replace(each, message=cut(each.message)) for each in every[:WARNINGS_AT_MOST])
    return kept, len(every)


def cut(text: str) -> str:
    """Return *text* at no more than `TEXT_CHARACTERS`."""
    return text if len(text) <= TEXT_CHARACTERS else text[: TEXT_CHARACTERS - 1] + "…"
