"""What the planner knows about one object of the recovery point until the plan is whole. Values, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.model import ClusterIdentity, ObjectRow
from strongroom.dataplane.restore.model import Action, FieldChange, OnExists, Owner, VolumeImport
from strongroom.dataplane.restore.rules.metadata import OwnerReference
from strongroom.dataplane.restore.waves import Stage


@dataclass(frozen=True, slots=True)
class SourceObject:
    """One object of the recovery point: its row and its blobs (status only where its kind's rules look at it)."""

    row: ObjectRow
    body: bytes
    status: bytes | None = None
    managed_fields: bytes | None = None


@dataclass(frozen=True, slots=True)
class Existing:
    """The target's object of the same name.

    `differences` are those that a patch would remove, after the dry run where there was one; None when nobody compared.
    `refusal` is the server's reason why the patch cannot be made (an immutable field).
    """

    uid: str
    revision: str
    differences: tuple[FieldChange, ...] | None = None
    refusal: str = ""
    released: "ReleasedVolume | None" = None


@dataclass(frozen=True, slots=True)
class ReleasedVolume:
    """A PersistentVolume of the target whose claim is gone: it still holds that claim's data, and its uid."""

    namespace: str
    name: str
    claim_uid: str


@dataclass(frozen=True, slots=True)
class StorageClassFacts:
    """A StorageClass of the target, as far as claims depend on it."""

    name: str
    waits_for_consumer: bool = False
    default: bool = False


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """A Namespace of the target."""

    uid: str
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class TargetState:
    """What the target serves and has, beside the objects themselves.

    `served` maps (group, kind) to its kinds by version, the preferred one first.
    """

    cluster: ClusterIdentity
    served: Mapping[tuple[str, str], tuple[Kind, ...]]
    namespaces: Mapping[str, NamespaceFacts] = field(default_factory=dict)
    storage_classes: Mapping[str, StorageClassFacts] = field(default_factory=dict)
    snapshots_served: bool = True


OwnerKey = tuple[str, str, str, str]
"""Group, kind, namespace ("" for a cluster-scoped owner, or where the child's namespace is meant) and name."""


@dataclass(slots=True)
class Candidate:
    """One object on its way into the plan."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    row: ObjectRow | None
    source_namespace: str
    source_name: str
    namespace: str
    name: str
    stage: Stage
    action: Action = Action.CREATE
    reason: str = ""
    on_exists: OnExists = OnExists.POLICY
    existing: Existing | None = None
    differences: tuple[FieldChange, ...] = ()
    calls: int = 1
    needs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    references: tuple[OwnerReference, ...] = ()
    owners: tuple[Owner, ...] = ()
    volume: VolumeImport | None = None
    keep_volume_name: bool = False
    release_claim: bool = False
    source_api_version: str = ""
    skipped_with_owner: bool = False
    """Skipped because its controller makes it, or because it is finished: what it controls is not restored either."""
    level: int = 0

    def skip(self, reason: str) -> None:
        """Leave the object out."""
        self.action, self.reason = Action.SKIP, reason

    @property
    def lives(self) -> bool:
        """Whether the target will have the object after the restore."""
        return self.existing is not None or self.action in (Action.CREATE, Action.PATCH)

    @property
    def title(self) -> str:
        """Kind and name in the target."""
        return f"{self.kind} {self.namespace + '/' if self.namespace else ''}{self.name}"
