"""The values that a repository keeps: object rows, list segments, volumes, coverage, the manifest of a recovery point.

Their bytes are described in docs/format/repository.md. JSON names are camelCase; unknown fields are ignored on reading.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NewType

import msgspec

Digest = NewType("Digest", bytes)
"""32 bytes: HMAC-SHA-256 of a blob under the repository's digest key; its SHA-256 where there is no encryption."""

PointId = NewType("PointId", str)
"""Writer id (16 hex digits), '-', sequence number (16 decimal digits)."""

RunId = NewType("RunId", str)


class What(StrEnum):
    """Which part of an object a blob is. Status churn must not rewrite bodies, so each has a digest of its own."""

    BODY = "body"
    STATUS = "status"
    MANAGED_FIELDS = "managedFields"


class BlobRef(msgspec.Struct, frozen=True):
    """A blob by its digest, with a hint where it lies (pack id and row group number in it)."""

    digest: Digest
    bytes: int
    pack: str
    row_group: int


class ObjectRow(msgspec.Struct, frozen=True):
    """One object of a recovery point. `namespace` is "" for cluster-scoped kinds. `labels` is a JSON object's text."""

    group: str
    version: str
    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int | None
    labels: str
    body: BlobRef
    status: BlobRef | None = None
    managed_fields: BlobRef | None = None

    @property
    def sort_name(self) -> bytes:
        """The key of the one order within a kind: the server's own (design: section 6, one order everywhere)."""
        return sort_name(self.namespace, self.name)


def sort_name(namespace: str, name: str) -> bytes:
    """Return the bytes by which objects of one kind are ordered: `namespace/name`, or `name` for cluster scope."""
    return f"{namespace}/{name}".encode() if namespace else name.encode()


class _Wire(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    pass


class FileRef(_Wire, frozen=True, kw_only=True):
    """A stored file: its id, and SHA-256 (hex), length and salt (hex, "" when not sealed) of its stored bytes."""

    id: str
    sha256: str
    length: int
    salt: str = ""


class SegmentRef(_Wire, frozen=True, kw_only=True):
    """One segment of a kind's object list: its file, the digest (hex) of its content, its rows and its range of names.

    The content digest leaves the blobs' hints out. `first` and `last` are `namespace/name` (or `name`), both included.
    `bytes` is the length of all bodies. `packs` are the packs that the rows' blobs lie in: what is live follows from
    manifests alone.
    """

    file: FileRef
    content: str
    rows: int
    first: str
    last: str
    bytes: int = 0
    packs: tuple[str, ...] = ()


class ReadAs(StrEnum):
    """How truly a kind was read: all at the point's revision, at a revision of its own, or not."""

    EXACT = "exact"
    AT_REVISION = "at revision"
    FAILED = "failed"
    EXCLUDED = "excluded"


class KindEntry(_Wire, frozen=True, kw_only=True):
    """The coverage of one served kind, and where its list lies.

    `rule` names the rule that excluded it; `reason` is the server's reason of a failure, or of the label
    `at revision`. `failed_namespaces` maps a namespace to the reason why this kind could not be read there.
    `etcd_shared` is the result of the same-etcd test (design: section 5, step 3). `crd` is `uid/resourceVersion` of
    the kind's CustomResourceDefinition ("" for built-in kinds), `conversion_webhook` whether it converts by webhook.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    read_as: ReadAs
    revision: str = ""
    objects: int = 0
    rule: str = ""
    reason: str = ""
    needed_by_only: bool = False
    failed_namespaces: Mapping[str, str] = {}
    etcd_shared: bool = False
    crd: str = ""
    conversion_webhook: bool = False
    skipped: Mapping[str, int] = {}
    """Objects of this kind left out by a rule: the rule's name to how many."""
    segments: tuple[SegmentRef, ...] = ()


class GroupFailure(_Wire, frozen=True, kw_only=True):
    """An API group (or group/version) whose discovery failed, with the server's reason."""

    group: str
    reason: str


class Reference(_Wire, frozen=True, kw_only=True):
    """An object that kept objects refer to but the selection leaves out (listed, not saved)."""

    kind: str
    namespace: str
    name: str
    referred_by: str


class VolumeState(StrEnum):
    """What became of one selected PersistentVolumeClaim's data."""

    SNAPSHOT_READY = "ready"
    SNAPSHOT_FAILED = "failed"
    NOT_SNAPSHOTTABLE = "notSnapshottable"
    EXCLUDED = "excluded"
    NOT_REQUESTED = "notRequested"


class SecretRef(_Wire, frozen=True, kw_only=True):
    """A secret that a CSI driver needs to delete or use a snapshot."""

    namespace: str
    name: str


class VolumeEntry(_Wire, frozen=True, kw_only=True):
    """One PersistentVolumeClaim of the point and its CSI snapshot, which this manifest owns.

    `skew_ms` is creation time of the snapshot minus the time X was taken, in milliseconds. `location` says in words
    where the data lies. Empty strings and None where nothing is known.
    """

    namespace: str
    claim: str
    claim_uid: str
    volume: str = ""
    driver: str = ""
    storage_class: str = ""
    volume_mode: str = "Filesystem"
    capacity: str = ""
    state: VolumeState
    reason: str = ""
    handle: str = ""
    group_handle: str = ""
    snapshot_class: str = ""
    class_parameters: Mapping[str, str] = {}
    deletion_secret: SecretRef | None = None
    list_secret: SecretRef | None = None
    restore_size_bytes: int | None = None
    created: str = ""
    skew_ms: int | None = None
    crash_consistent: bool = True
    location: str = ""


class ClusterIdentity(_Wire, frozen=True, kw_only=True):
    """Which cluster was read: `id` is the uid of the Namespace kube-system, the field's usual identity of a cluster."""

    id: str
    server: str
    version: str


class Selection(_Wire, frozen=True, kw_only=True):
    """What a backup or restore was asked to take (patterns as given; None for cluster_scoped: not said)."""

    include_namespaces: tuple[str, ...] = ()
    exclude_namespaces: tuple[str, ...] = ()
    include_kinds: tuple[str, ...] = ()
    exclude_kinds: tuple[str, ...] = ()
    selectors: tuple[str, ...] = ()
    cluster_scoped: bool | None = None


class Instant(_Wire, frozen=True, kw_only=True):
    """When the point was read: the revision X, when X was taken (ISO 8601 UTC), and how often X had to be taken."""

    revision: str
    taken: str
    attempts: int = 1


class Incremental(_Wire, frozen=True, kw_only=True):
    """Whether objects were taken over from an earlier point, and if not, why not. `whole_since` is ISO 8601 UTC of the
    last reading of everything in the chain."""

    base: str = ""
    reason: str = ""
    taken_over: int = 0
    whole_since: str = ""


class HookFailure(_Wire, frozen=True, kw_only=True):
    """A hook's command that did not succeed: which hook, in which pod (`namespace/name`) and container, and why."""

    hook: str
    pod: str
    container: str = ""
    reason: str


class HookSummary(_Wire, frozen=True, kw_only=True):
    """What became of the hooks: pods and commands, and when applications stood still (`frozen` to `thawed`, ISO 8601).

    `failed` counts commands; `failures` are the first of them. `capped`: the longest time of standing still was over
    before everything was cut.
    """

    pods: int = 0
    commands: int = 0
    failed: int = 0
    failures: tuple[HookFailure, ...] = ()
    frozen: str = ""
    thawed: str = ""
    capped: bool = False


class Manifest(_Wire, frozen=True, kw_only=True):
    """The signed payload of `points/<id>/manifest.json`: the commit point, and the root of all that the point names."""

    format: int
    id: PointId
    run: RunId
    writer: str
    sequence: int
    previous: str
    """SHA-256 (hex) of the stored bytes of this writer's previous manifest, "" for its first."""
    repository: str
    """SHA-256 (hex) of repository.json."""
    started: str
    finished: str
    cluster: ClusterIdentity
    selection: Selection
    instant: Instant
    incremental: Incremental
    state: str
    """Completed or Partial."""
    kinds: tuple[KindEntry, ...]
    failed_groups: tuple[GroupFailure, ...] = ()
    excluded_namespaces: Mapping[str, str] = {}
    references: tuple[Reference, ...] = ()
    volumes: tuple[VolumeEntry, ...] = ()
    warnings: tuple[str, ...] = ()
    indexes: tuple[FileRef, ...] = ()
    objects: int = 0
    object_bytes: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    rules: str = ""
    """Version of Strongroom's rules of splitting objects; objects are taken over only from a point with the same."""
    hooks: HookSummary | None = None
    """What became of the hooks, None where there were none."""
    caller: Mapping[str, str] = {}
    """Opaque data of the caller (instance, tag, rule, expiry, job)."""
