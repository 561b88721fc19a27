"""The documents that say what an extension is to do: storage locations, backups, restores, deletions.

They are custom resources (group `backup.strongroom.dev/v1alpha1`, camelCase); folders of the server alone come
over a pipe. Reading is strict, because whoever may write one is not trusted with more: unknown kinds,
unknown fields of a `spec` and wrong types are refused with the field's path.
"""

import base64
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Self, TypeVar

import msgspec

from strongroom.errors import UsageError

GROUP: Final = "backup.strongroom.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

# RFC 1123 subdomains of at most 253 characters: what Kubernetes takes as names of custom resources.
NAME_CHARACTERS: Final = 253
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", re.ASCII)
_ROOT_KEY_BYTES = 32  # a raw Ed25519 public key

_SHOWN_CHARACTERS = 80  # of a foreign value in a message: enough to find it
_T = TypeVar("_T")

_BACKUP_PARAMETERS = "KubernetesClusterBackupDatasourceParameters"
_RESTORE_CRITERIA = "KubernetesClusterRestoreCriteria"


class DocumentInvalid(UsageError):
    """A document cannot be read; *field* is the path of what is wrong in it (`spec.selection.labelSelectors[0]`)."""

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class Kind(StrEnum):
    """The kinds of documents."""

    BACKUP_STORAGE_LOCATION = "BackupStorageLocation"
    BACKUP = "Backup"
    RESTORE = "Restore"
    DELETE_BACKUP = "DeleteBackup"


class _Spec(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


class ObjectMeta(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """The part of Kubernetes' metadata that is read here; the rest is ignored.

    `creation_timestamp` (RFC 3339) bounds how far back a repeated Backup looks for its own recovery point; without it
    all of the extension's own points are looked at. `uid` tells a custom resource from one of the same name that was
    deleted before.
    """

    name: str
    namespace: str = ""
    uid: str = ""
    creation_timestamp: str = ""


class NamespacedName(_Spec, frozen=True, kw_only=True):
    """A reference to an object of the cluster."""

    name: str
    namespace: str = ""


class StorageLocationSpec(_Spec, frozen=True, kw_only=True):
    """Where a repository lies and whose signatures count there.

    `url` as `strongroom.dataplane.objectstore` reads it; `cluster_endpoint` takes the place of its endpoint where the
    cluster sees the store at another address. `root` is the base64 of the repository's raw public root key, which the
    extension pins. `repository_id`, if given, must be the repository's.
    """

    url: str
    root: str
    cluster_endpoint: str | None = None
    repository_id: str | None = None

    @property
    def root_public(self) -> bytes:
        """The pinned root key, 32 bytes."""
        return base64.b64decode(self.root, validate=True)


class Selection(_Spec, frozen=True, kw_only=True):
    """What a backup takes: ARM's `KubernetesClusterBackupDatasourceParameters`, name for name.

    docs/reference/extension.md says what each means here. `includeClusterScopeResources` and `snapshotVolumes` are
    required in ARM, and so here.
    """

    snapshot_volumes: bool
    include_cluster_scope_resources: bool
    included_namespaces: tuple[str, ...] | None = None
    excluded_namespaces: tuple[str, ...] | None = None
    included_resource_types: tuple[str, ...] | None = None
    excluded_resource_types: tuple[str, ...] | None = None
    label_selectors: tuple[str, ...] | None = None
    included_volume_types: tuple[str, ...] | None = None
    backup_hook_references: tuple[NamespacedName, ...] | None = None

    @classmethod
    def from_arm(cls, parameters: Mapping[str, Any]) -> Self:
        """Return ARM's datasource parameters as a selection: nulls and properties that ARM does not have are left out.

        Raises `DocumentInvalid`, also for the parameters of another kind of datasource.
        """
        return _from_arm(parameters, cls, _BACKUP_PARAMETERS)


class RestoreCriteria(_Spec, frozen=True, kw_only=True):
    """What a restore takes and how: ARM's `KubernetesClusterRestoreCriteria`, name for name."""

    include_cluster_scope_resources: bool
    included_namespaces: tuple[str, ...] | None = None
    excluded_namespaces: tuple[str, ...] | None = None
    included_resource_types: tuple[str, ...] | None = None
    excluded_resource_types: tuple[str, ...] | None = None
    label_selectors: tuple[str, ...] | None = None
    persistent_volume_restore_mode: str | None = None
    conflict_policy: str | None = None
    namespace_mappings: dict[str, str] | None = None
    restore_hook_references: tuple[NamespacedName, ...] | None = None
    resource_modifier_reference: NamespacedName | None = None

    @classmethod
    def from_arm(cls, criteria: Mapping[str, Any]) -> Self:
        """Return one of ARM's restore criteria; as `Selection.from_arm`."""
        return _from_arm(criteria, cls, _RESTORE_CRITERIA)


class SnapshotSettings(_Spec, frozen=True, kw_only=True):
    """`parameters` are laid over those of the VolumeSnapshotClasses (`resourceGroup`, `incremental`, …)."""

    parameters: dict[str, str] = {}


Caller = dict[str, str]
"""Opaque data of whoever wanted the backup, kept in the manifest. The extension reads two of it: of one `instance` at
most one backup and one restore run at a time; a document whose `job` is its own name is that job's for ever."""


class BackupSpec(_Spec, frozen=True, kw_only=True):
    """*dry_run*: check what only the cluster knows and take no backup. *withdrawn* as for a Restore."""

    storage_location: str
    selection: Selection
    snapshot: SnapshotSettings = SnapshotSettings()
    caller: Caller = {}
    dry_run: bool = False
    withdrawn: bool = False


class RestoreSpec(_Spec, frozen=True, kw_only=True):
    """*dry_run*: plan the restore and change nothing.

    *withdrawn*: do nothing, but be `Cancelled` once what ran under this name has stopped. Whoever cancels by deletion
    puts such a document in the place of the deleted one: it says when, and nothing else can begin under its name.
    """

    storage_location: str
    recovery_point_id: str
    criteria: RestoreCriteria
    caller: Caller = {}
    dry_run: bool = False
    withdrawn: bool = False


class DeleteBackupSpec(_Spec, frozen=True, kw_only=True):
    """Delete the CSI snapshots of a recovery point that is condemned already."""

    storage_location: str
    recovery_point_id: str


class _Document(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    metadata: ObjectMeta

    @property
    def kind(self) -> Kind:
        """The document's kind."""
        return Kind(type(self).__name__)

    @property
    def name(self) -> str:
        """The document's name."""
        return self.metadata.name

    @property
    def identity(self) -> str:
        """What the document is told from all others of its kind by: its name, and its uid where it has one."""
        return f"{self.name}/{self.metadata.uid}" if self.metadata.uid else self.name

    @property
    def work_uid(self) -> str:
        """The uid by which the work is found again, "" where its name is enough.

        A document that was deleted and made anew is new work, unless `caller.job` is its name: names of jobs are never
        used twice, and what the job has committed must not be done again.
        """
        caller: Caller = getattr(self.spec, "caller", {})  # type: ignore[attr-defined]  # each document has a spec
        return "" if caller.get("job") == self.name else self.metadata.uid

    @property
    def work_identity(self) -> str:
        """As `identity`, with `work_uid`."""
        return f"{self.name}/{self.work_uid}" if self.work_uid else self.name

    def to_json(self) -> dict[str, Any]:
        """Return the document as it is sent."""
        built: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return {"apiVersion": API_VERSION, "kind": str(self.kind), **built}


class BackupStorageLocation(_Document, frozen=True, kw_only=True):
    """A repository that backups go to and restores come from. Credentials never stand in it."""

    spec: StorageLocationSpec


class Backup(_Document, frozen=True, kw_only=True):
    """One backup. Its name is the id of the job, and makes it idempotent."""

    spec: BackupSpec


class Restore(_Document, frozen=True, kw_only=True):
    """One restore. Its id in the repository follows from its name."""

    spec: RestoreSpec


class DeleteBackup(_Document, frozen=True, kw_only=True):
    """One deletion of a recovery point's CSI snapshots."""

    spec: DeleteBackupSpec


Work = Backup | Restore | DeleteBackup
Document = BackupStorageLocation | Work

_TYPES: Final[Mapping[str, type[BackupStorageLocation] | type[Backup] | type[Restore] | type[DeleteBackup]]] = {
    Kind.BACKUP_STORAGE_LOCATION: BackupStorageLocation,
    Kind.BACKUP: Backup,
    Kind.RESTORE: Restore,
    Kind.DELETE_BACKUP: DeleteBackup,
}


def parse_document(value: object) -> Document:
    """Return the document in the JSON value *value*. Raises `DocumentInvalid` naming the field."""
    if not isinstance(value, Mapping):
        raise DocumentInvalid(f"a document is a JSON object, not {type(value).__name__}")
    if (version := value.get("apiVersion")) != API_VERSION:
        raise DocumentInvalid(f"apiVersion is {_shown(version)}; {API_VERSION} is understood", field="apiVersion")
    kind = value.get("kind")
    found = _TYPES.get(kind) if isinstance(kind, str) else None
    if found is None:
        raise DocumentInvalid(
            f"kind is {_shown(kind)}; understood are {', '.join(str(each) for each in Kind)}", field="kind"
        )
    document: Document = _convert(value, found)
    name = document.metadata.name
    if len(name) > NAME_CHARACTERS or not _NAME.fullmatch(name):
        raise DocumentInvalid(
            f"metadata.name is {_shown(name)}, which is not a name in Kubernetes", field="metadata.name"
        )
    if isinstance(document, BackupStorageLocation):
        _check_root(document.spec)
    return document


def parse_work(value: object) -> Work:
    """Return the document in *value*, which is something to do. Raises `DocumentInvalid`."""
    document = parse_document(value)
    if isinstance(document, BackupStorageLocation):
        raise DocumentInvalid("a BackupStorageLocation is no work: send it as a location", field="kind")
    return document


def _check_root(spec: StorageLocationSpec) -> None:
    try:
        length = len(spec.root_public)
    except ValueError:
        length = 0
    if length != _ROOT_KEY_BYTES:
        raise DocumentInvalid("spec.root is not the base64 of a raw Ed25519 public key", field="spec.root")


def _from_arm(value: Mapping[str, Any], found: type[_T], object_type: str) -> _T:
    if (said := value.get("objectType", object_type)) != object_type:
        raise DocumentInvalid(f"objectType is {_shown(said)}; {object_type} is supported", field="objectType")
    names = {field.encode_name for field in msgspec.structs.fields(found)}  # type: ignore[arg-type]  # a Struct of ours
    return _convert({name: each for name, each in value.items() if name in names and each is not None}, found)


def _convert(value: object, found: type[_T]) -> _T:
    try:
        return msgspec.convert(value, found)
    except msgspec.ValidationError as error:
        said = str(error)
        text, _, path = said.rpartition(" - at `$")
        field = path.strip("`").removeprefix(".") if text else ""
        raise DocumentInvalid(f"{field or 'the document'}: {text or said}", field=field) from error


def _shown(value: object) -> str:
    """Return *value* as messages quote it: untrusted, so cut."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
