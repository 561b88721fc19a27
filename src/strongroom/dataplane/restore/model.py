"""The values of a restore: what is asked for, the plan made from it, and the result of carrying the plan out.

A plan is saved as JSON (`RestorePlan.to_json`) and carried out as read. It names bodies by digest and embeds none;
values of Secrets never stand in it. JSON names are camelCase; unknown fields are ignored on reading.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from strongroom.dataplane.repository.model import BlobRef, ClusterIdentity, PointId, Selection
from strongroom.dataplane.restore.errors import PlanUnreadable

PLAN_FORMAT = 1
"""Version of the plan's JSON. A reader refuses a newer one."""


class Conflict(StrEnum):
    """What to do with an object that the target has already. Nothing is ever deleted and made again."""

    SKIP = "skip"
    PATCH = "patch"


class VolumeMode(StrEnum):
    """Whether claims get the data of the recovery point, or are provisioned empty."""

    DATA = "data"
    NONE = "none"


class Action(StrEnum):
    """What the plan does with one object. A `conflict` is known at planning time to fail, and is reported as failed."""

    CREATE = "create"
    PATCH = "patch"
    SKIP = "skip"
    CONFLICT = "conflict"


class OnExists(StrEnum):
    """What a planned create does when the object is there after all, because the cluster itself made it meanwhile."""

    POLICY = "policy"
    MERGE = "merge"
    """Add what the recovery point has and take nothing away: the ServiceAccount `default` (checklist rows 9, 19)."""


class _Wire(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    pass


class RestoreRequest(_Wire, frozen=True, kw_only=True):
    """What a restore is asked to do. Kinds in `restore_status` are spelled `Kind` or `Kind.group`."""

    selection: Selection = Selection()
    map_namespaces: Mapping[str, str] = {}
    conflict: Conflict = Conflict.SKIP
    volumes: VolumeMode = VolumeMode.DATA
    map_storage_classes: Mapping[str, str] = {}
    drop_finalizers: bool = False
    preserve_node_ports: bool = False
    restore_status: tuple[str, ...] = ()
    suspend_cronjobs: bool = False

    def target_namespace(self, source: str) -> str:
        """Return where objects of namespace *source* go ("" stays "")."""
        return self.map_namespaces.get(source, source)

    def wants_status(self, group: str, kind: str) -> bool:
        """Say whether the status of this kind is to be put back by a second call."""
        return kind in self.restore_status or f"{kind}.{group}" in self.restore_status


class FieldChange(_Wire, frozen=True, kw_only=True):
    """One field that a patch changes: its path, the value the target has and the one it gets.

    An absent value is None. `hidden` marks a Secret's value, of which neither is told.
    """

    path: str
    before: Any = None
    after: Any = None
    hidden: bool = False


class Owner(_Wire, frozen=True, kw_only=True):
    """One ownerReference of a planned object: the owner's uid at the source, and how it gets its uid in the target.

    `uid` is the owner's uid in the target where it is known at planning time. Without it the owner is created by this
    plan: before the object, or after it where `deferred` (then the reference is added by a patch of its own).
    """

    source_uid: str
    uid: str = ""
    deferred: bool = False


class VolumeImport(_Wire, frozen=True, kw_only=True):
    """The CSI snapshot from which a claim is filled."""

    driver: str
    handle: str
    volume_mode: str = "Filesystem"
    restore_size_bytes: int | None = None
    waits_for_consumer: bool = False


class PlannedObject(_Wire, frozen=True, kw_only=True, gc=False):
    """One object of the recovery point and what the restore does with it.

    `number` is its place in the plan and its name in the journal. `group`, `version`, `kind`, `plural` are those under
    which it is sent to the target; `source_api_version` is set where the recovery point has it under another one.
    `body`, `status` and `managed_fields` are blobs of the recovery point (their digests are base64 in JSON).
    `calls` counts the writes: 1, or 2 where status or managedFields are put back. `needs` says in words what must be
    there first. `existing_uid` and `existing_revision` name the state of the target's object that was compared.
    """

    number: int
    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    source_namespace: str = ""
    source_name: str
    namespace: str = ""
    name: str
    action: Action
    reason: str = ""
    on_exists: OnExists = OnExists.POLICY
    diff: tuple[FieldChange, ...] = ()
    calls: int = 1
    needs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    source_uid: str = ""
    source_api_version: str = ""
    body: BlobRef | None = None
    status: BlobRef | None = None
    managed_fields: BlobRef | None = None
    existing_uid: str = ""
    existing_revision: str = ""
    owners: tuple[Owner, ...] = ()
    volume: VolumeImport | None = None
    keep_volume_name: bool = False
    """A claim that stays with its static PersistentVolume."""
    release_claim: bool = False
    """A Released PersistentVolume of the target, which is given back to its claim: the old claim's uid is removed."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Group, kind, target namespace, target name."""
        return (self.group, self.kind, self.namespace, self.name)


class Wave(_Wire, frozen=True, kw_only=True):
    """Objects that may be restored at the same time, after those of all earlier waves."""

    name: str
    objects: tuple[PlannedObject, ...]


class RestorePlan(_Wire, frozen=True, kw_only=True):
    """What a restore will do, object by object, in its order.

    `target` is the cluster the plan was made for: the uid of its Namespace kube-system. `skipped` holds the objects
    that are left out, each with the reason; `waves` those for which a call is made (and known conflicts).
    """

    format: int = PLAN_FORMAT
    id: str
    point: PointId
    target: ClusterIdentity
    request: RestoreRequest
    waves: tuple[Wave, ...]
    skipped: tuple[PlannedObject, ...] = ()
    warnings: tuple[str, ...] = ()

    def objects(self) -> Iterator[PlannedObject]:
        """Yield every object of the plan, the skipped ones last."""
        for wave in self.waves:
            yield from wave.objects
        yield from self.skipped

    def to_json(self) -> bytes:
        """Return the plan as one JSON document."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, document: bytes) -> "RestorePlan":
        """Read a plan. Raises `PlanUnreadable` when it is none, or one of a newer format."""
        try:
            plan = msgspec.json.decode(document, type=cls)
        except msgspec.DecodeError as error:
            raise PlanUnreadable(
                f"this is not a restore plan: {error}", hint="Make a plan with `strongroom restore plan`"
            ) from error
        if plan.format > PLAN_FORMAT:
            raise PlanUnreadable(
                f"the plan has format {plan.format}; this Strongroom reads up to {PLAN_FORMAT}",
                hint="Make the plan again with this version",
            )
        return plan


class Done(StrEnum):
    """What became of one object."""

    CREATED = "created"
    PATCHED = "patched"
    SKIPPED = "skipped"
    FAILED = "failed"


class ObjectResult(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """What became of one object, under its name in the target. `reason` is "" where there is nothing to say."""

    group: str
    kind: str
    namespace: str
    name: str
    action: Done
    reason: str = ""


class RestoreState(StrEnum):
    """`Completed`: nothing failed. `Partial`: something failed. `Failed`: nothing that was due could be restored."""

    COMPLETED = "Completed"
    PARTIAL = "Partial"
    FAILED = "Failed"


class RestoreResult(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """The result of a restore: counts, and each object with what became of it."""

    restore_id: str
    state: RestoreState
    created: int
    patched: int
    skipped: int
    failed: int
    objects: tuple[ObjectResult, ...]
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


class Progress(msgspec.Struct, frozen=True):
    """How far a restore is: the wave it works at, objects done of all that are due, and how many of them failed."""

    wave: str
    done: int
    total: int
    failed: int
