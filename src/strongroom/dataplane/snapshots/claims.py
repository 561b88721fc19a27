"""PersistentVolumeClaims and their volumes as far as snapshots need them, and the choice of a VolumeSnapshotClass.

Pure: values in, values out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

SNAPSHOT_CLASS_KEY: Final = "strongroom.dev/snapshot-class"
"""On a VolumeSnapshotClass a label, "true": use this one for its driver. On a claim an annotation: the class's name."""

VELERO_CLASS_LABEL: Final = "velero.io/csi-volumesnapshot-class"
"""The label by which Velero's users mark a driver's class, "true"; as an annotation of a claim it names the class."""

DEFAULT_CLASS_ANNOTATION: Final = "snapshot.storage.kubernetes.io/is-default-class"
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "strongroom"


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim. *volume* is its PersistentVolume's name ("": none yet), *capacity* a quantity."""

    namespace: str
    name: str
    uid: str
    volume: str = ""
    storage_class: str = ""
    volume_mode: str = "Filesystem"
    capacity: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    bound: bool = False

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class PersistentVolume:
    """A PersistentVolume. *source* is the name of its source's field (`csi`, `hostPath`, `nfs`); *driver* and *handle*
    are empty unless that is `csi`."""

    name: str
    source: str
    driver: str = ""
    handle: str = ""
    volume_mode: str = "Filesystem"
    capacity: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotClass:
    """A VolumeSnapshotClass."""

    name: str
    driver: str
    deletion_policy: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether Strongroom made it: such a copy is never the source of another."""
        return self.labels.get(MANAGED_BY_LABEL) == MANAGED_BY


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    namespace: str = ""
    uid: str = ""
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class _Requests(msgspec.Struct, frozen=True):
    requests: dict[str, str] | None = None


class _ClaimSpec(msgspec.Struct, frozen=True, rename="camel"):
    volume_name: str = ""
    storage_class_name: str | None = None
    volume_mode: str | None = None
    resources: _Requests | None = None


class _ClaimStatus(msgspec.Struct, frozen=True, rename="camel"):
    phase: str = ""
    capacity: dict[str, str] | None = None


class _Claim(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _ClaimSpec = _ClaimSpec()
    status: _ClaimStatus | None = None


class _CsiSource(msgspec.Struct, frozen=True, rename="camel"):
    driver: str
    volume_handle: str


class _Class(msgspec.Struct, frozen=True, rename="camel"):
    metadata: _Meta
    driver: str
    deletion_policy: str
    parameters: dict[str, str] | None = None


class _Volume(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: dict[str, msgspec.Raw]


# The fields of a PersistentVolumeSpec that are no source (k8s.io/api core/v1): what remains is the source's field.
_NO_SOURCE = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)

_decode_claim = msgspec.json.Decoder(_Claim).decode
_decode_volume = msgspec.json.Decoder(_Volume).decode
_decode_class = msgspec.json.Decoder(_Class).decode
_decode_csi = msgspec.json.Decoder(_CsiSource).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_texts = msgspec.json.Decoder(dict[str, str]).decode


def claim_from_object(body: bytes | msgspec.Raw) -> Claim:
    """Return the claim that the JSON object *body* is.

    A body without status (as a repository keeps it) counts as bound if it names a volume. Raises
    `msgspec.ValidationError` for what is no PersistentVolumeClaim.
    """
    claim = _decode_claim(body)
    requested = (claim.spec.resources and claim.spec.resources.requests) or {}
    capacity = ((claim.status and claim.status.capacity) or requested).get("storage", "")
    return Claim(
        namespace=claim.metadata.namespace,
        name=claim.metadata.name,
        uid=claim.metadata.uid,
        volume=claim.spec.volume_name,
        storage_class=claim.spec.storage_class_name or "",
        volume_mode=claim.spec.volume_mode or "Filesystem",
        capacity=capacity,
        annotations=claim.metadata.annotations or {},
        labels=claim.metadata.labels or {},
        bound=bool(claim.spec.volume_name) and (claim.status is None or claim.status.phase in ("", "Bound")),
    )


def volume_from_object(body: bytes | msgspec.Raw) -> PersistentVolume:
    """Return the volume that the JSON object *body* is. Raises `msgspec.ValidationError` for what is none."""
    volume = _decode_volume(body)
    spec = volume.spec
    source = next((key for key in spec if key not in _NO_SOURCE), "")
    csi = _decode_csi(spec["csi"]) if "csi" in spec else None
    return PersistentVolume(
        name=volume.metadata.name,
        source="csi" if csi else source,
        driver=csi.driver if csi else "",
        handle=csi.volume_handle if csi else "",
        volume_mode=_decode_text(spec["volumeMode"]) if "volumeMode" in spec else "Filesystem",
        capacity=_decode_texts(spec["capacity"]).get("storage", "") if "capacity" in spec else "",
    )


def class_from_object(body: bytes | msgspec.Raw) -> SnapshotClass:
    """Return the VolumeSnapshotClass that the JSON object *body* is. Raises `msgspec.ValidationError` for none."""
    found = _decode_class(body)
    return SnapshotClass(
        name=found.metadata.name,
        driver=found.driver,
        deletion_policy=found.deletion_policy,
        parameters=found.parameters or {},
        annotations=found.metadata.annotations or {},
        labels=found.metadata.labels or {},
    )


def choose_class(classes: Sequence[SnapshotClass], driver: str, claim: Claim) -> SnapshotClass | str:
    """Return the class to snapshot *claim*, a volume of *driver*, with; or in words why there is none.

    The first rule that applies decides, and where it leaves several the answer is a reason, not a guess (a wrong class
    may put snapshots where nobody looks for them): the class that an annotation of the claim names; the driver's class
    labelled `strongroom.dev/snapshot-class=true`, then `velero.io/csi-volumesnapshot-class=true`; the driver's
    default class; the only class of the driver. Copies that Strongroom made are no candidates.
    """
    for annotation in (SNAPSHOT_CLASS_KEY, VELERO_CLASS_LABEL):
        if name := claim.annotations.get(annotation):
            return _named_class(classes, driver, name, annotation)
    candidates = [one for one in classes if one.driver == driver and not one.ours]
    if not candidates:
        return f"no VolumeSnapshotClass names the driver {driver}"
    for label in (SNAPSHOT_CLASS_KEY, VELERO_CLASS_LABEL):
        if labelled := [one for one in candidates if one.labels.get(label) == "true"]:
            return _only(labelled, f"are labelled {label}=true for the driver {driver}: leave the label on one")
    if defaults := [one for one in candidates if one.annotations.get(DEFAULT_CLASS_ANNOTATION) == "true"]:
        return _only(defaults, f"are defaults of the driver {driver}: label one {SNAPSHOT_CLASS_KEY}=true")
    return _only(candidates, f"serve the driver {driver} and none is the default: label one {SNAPSHOT_CLASS_KEY}=true")


def _named_class(classes: Sequence[SnapshotClass], driver: str, name: str, annotation: str) -> SnapshotClass | str:
    named = next((one for one in classes if one.name == name and not one.ours), None)
    if named is None:
        return f"the claim's annotation {annotation} names the VolumeSnapshotClass {name}, which does not exist"
    if named.driver != driver:
        return (
            f"the claim's annotation {annotation} names the VolumeSnapshotClass {name} of the driver {named.driver}, "
            f"but the volume is of the driver {driver}"
        )
    return named


def _only(classes: Sequence[SnapshotClass], otherwise: str) -> SnapshotClass | str:
    if len(classes) == 1:
        return classes[0]
    return f"the VolumeSnapshotClasses {', '.join(sorted(one.name for one in classes))} {otherwise}"
