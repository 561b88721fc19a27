"""Decides for each claim and volume of a plan where the data comes from (checklist rows 23, 24). Pure.

A claim is filled from the CSI snapshot of the recovery point; or it keeps its static volume; or it is provisioned
empty, and the plan says that and why.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from strongroom.dataplane.repository.model import VolumeEntry, VolumeState
from strongroom.dataplane.restore.candidates import Candidate, StorageClassFacts
from strongroom.dataplane.restore.model import Action, Conflict, FieldChange, RestoreRequest, VolumeImport, VolumeMode

CLAIM_UID_PATH = "spec.claimRef.uid"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """A PersistentVolume of the recovery point, as far as claims depend on it."""

    reclaim_policy: str
    dynamic: bool
    claim: tuple[str, str] | None
    """(namespace, name) at the source."""


@dataclass(frozen=True, slots=True)
class ClaimFacts:
    """A PersistentVolumeClaim of the recovery point."""

    volume: str
    storage_class: str | None


def decide_volumes(
    claims: Iterable[tuple[Candidate, ClaimFacts]],
    volumes: Mapping[str, tuple[Candidate, VolumeFacts]],
    entries: Mapping[tuple[str, str], VolumeEntry],
    request: RestoreRequest,
    classes: Mapping[str, StorageClassFacts],
    *,
    snapshots_served: bool,
) -> list[str]:
    """Set on each claim where its data comes from and on each volume whether it is restored. Return warnings."""
    warnings: list[str] = []
    kept: set[str] = set()
    claims = list(claims)
    claimed = {(claim.source_namespace, claim.source_name) for claim, _ in claims}
    for claim, facts in claims:
        if claim.action is Action.SKIP and claim.existing is None:
            continue
        if claim.existing is not None:
            claim.notes += ("the claim exists: its data is not restored",)
            warnings.append(f"{claim.title} exists: its data is not restored")
            continue
        entry = entries.get((claim.source_namespace, claim.source_name))
        volume = volumes.get(facts.volume)
        why_not = _why_no_snapshot(entry, request, snapshots_served=snapshots_served)
        if not why_not and entry is not None:
            storage_class = _class_of(facts, request, classes)
            claim.volume = VolumeImport(
                driver=entry.driver,
                handle=entry.handle,
                volume_mode=entry.volume_mode,
                restore_size_bytes=entry.restore_size_bytes,
                waits_for_consumer=storage_class is not None and storage_class.waits_for_consumer,
            )
            claim.calls += 2  # the VolumeSnapshot and its content
            claim.reason = "filled from the recovery point's snapshot"
        elif volume is not None and _is_kept(volume, request):
            claim.keep_volume_name = True
            claim.reason = f"keeps its volume {facts.volume}"
            claim.needs += (f"PersistentVolume {facts.volume}",)
            kept.add(facts.volume)
        elif volume is not None and _waits_for(claim, volume, request):
            _give_back(claim, volume[0], request, warnings)
            kept.add(facts.volume)
        else:
            claim.reason = f"provisioned empty: {why_not}"
            if request.volumes is VolumeMode.DATA:
                warnings.append(f"{claim.title} is provisioned empty, its data is not restored: {why_not}")
        _check_class(claim, facts, request, classes, warnings)
    for name, (persistent, volume_facts) in volumes.items():
        if persistent.action is not Action.CREATE or name in kept or volume_facts.claim is None:
            continue
        if not volume_facts.dynamic and volume_facts.claim not in claimed:
            continue
        if volume_facts.dynamic and volume_facts.reclaim_policy == "Retain" and volume_facts.claim not in claimed:
            continue
        persistent.skip(
            "its claim is filled or provisioned anew"
            if volume_facts.claim in claimed
            else "its storage is deleted with it (reclaim policy Delete)"
        )
    return warnings


def _why_no_snapshot(entry: VolumeEntry | None, request: RestoreRequest, *, snapshots_served: bool) -> str:
    if request.volumes is VolumeMode.NONE:
        return "asked for without data"
    if entry is None:
        return "the recovery point holds no snapshot of it"
    if entry.state is not VolumeState.SNAPSHOT_READY or not entry.handle:
        return entry.reason or f"its snapshot is {entry.state.value}"
    if not snapshots_served:
        return "the target serves no snapshot.storage.k8s.io"
    return ""


def _is_kept(volume: tuple[Candidate, VolumeFacts], request: RestoreRequest) -> bool:
    """Say whether the claim goes back to its own volume: one that nobody provisions again, and that the target lacks.

    Two PersistentVolumes on one storage volume are never made.
    """
    candidate, facts = volume
    if candidate.existing is not None or candidate.action is not Action.CREATE:
        return False
    if not facts.dynamic:
        return True
    return facts.reclaim_policy == "Retain" and request.volumes is VolumeMode.DATA


def _waits_for(claim: Candidate, volume: tuple[Candidate, VolumeFacts], request: RestoreRequest) -> bool:
    """Say whether the target still has the claim's volume, Released, with the data that the claim had."""
    candidate, facts = volume
    existing = candidate.existing
    if existing is None or existing.released is None or candidate.action not in (Action.SKIP, Action.PATCH):
        return False
    if facts.dynamic and request.volumes is VolumeMode.NONE:
        return False
    return (existing.released.namespace, existing.released.name) == (claim.namespace, claim.name)


def _give_back(claim: Candidate, volume: Candidate, request: RestoreRequest, warnings: list[str]) -> None:
    """Let the claim have its Released volume, which forgets the old claim's uid: a patch of what exists."""
    released = volume.existing.released if volume.existing else None
    if request.conflict is Conflict.SKIP or released is None:
        claim.reason = f"its volume {volume.name} is there, Released with its data; the conflict policy is skip"
        claim.action = Action.CONFLICT
        warnings.append(f"{claim.title} is not restored: its volume {volume.name} waits for it. Use the policy patch")
        return
    claim.keep_volume_name = True
    claim.reason = f"gets its volume {volume.name} back, which the target has with its data"
    volume.action, volume.reason = Action.PATCH, f"Released: given back to its claim {claim.namespace}/{claim.name}"
    volume.release_claim = True
    volume.differences += (FieldChange(path=CLAIM_UID_PATH, before=released.claim_uid),)


def _class_of(
    facts: ClaimFacts, request: RestoreRequest, classes: Mapping[str, StorageClassFacts]
) -> StorageClassFacts | None:
    if facts.storage_class is None:
        return next((found for found in classes.values() if found.default), None)
    return classes.get(request.map_storage_classes.get(facts.storage_class, facts.storage_class))


def _check_class(
    claim: Candidate,
    facts: ClaimFacts,
    request: RestoreRequest,
    classes: Mapping[str, StorageClassFacts],
    warnings: list[str],
) -> None:
    if not claim.keep_volume_name and facts.storage_class and _class_of(facts, request, classes) is None:
        name = request.map_storage_classes.get(facts.storage_class, facts.storage_class)
        warnings.append(f"{claim.title} names StorageClass {name}, which neither the target nor this plan has")
