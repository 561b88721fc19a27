"""Which claims a backup snapshots, and what it says of those that it does not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from strongroom.dataplane.collector import rules
from strongroom.dataplane.collector.filtering import ObjectFilter
from strongroom.dataplane.collector.instant import KIND_ERRORS, PODS, reason
from strongroom.dataplane.collector.needed import REFERRING_KINDS, WORKLOADS, Needs
from strongroom.dataplane.collector.selection import Resolved
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.model import VolumeEntry, VolumeState
from strongroom.dataplane.repository.objects import Parts, split
from strongroom.dataplane.snapshots.claims import Claim, PersistentVolume, claim_from_object, volume_from_object

LIST: Final = frozenset(("list",))
CLAIMS: Final = Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", namespaced=True, verbs=LIST)
VOLUMES: Final = Kind("", "v1", "PersistentVolume", "persistentvolumes", namespaced=False, verbs=LIST)


@dataclass(frozen=True)
class VolumeSurvey:
    """The claims that a backup is to snapshot, with their volumes, as they stand before X. *problems* are warnings."""

    claims: tuple[Claim, ...] = ()
    volumes: Mapping[str, PersistentVolume] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


async def survey_volumes(api: KubeApi, resolved: Resolved, named: Iterable[str] | None) -> VolumeSurvey:
    """List the claims that are selected, or used by selected pods and workloads, and their volumes.

    What is listed here serves the snapshots only; the objects of the backup are read at X. A kind that cannot be
    listed is a problem, never an error: objects are not lost because volumes are.
    """
    choice = resolved.choice((CLAIMS.group, CLAIMS.kind))
    if choice is None or choice.rule:
        return VolumeSurvey()
    needs = Needs()
    namespaces = tuple(named) if named is not None else None
    try:
        if choice.needed_only or not resolved.labels.everything:
            await _observe_users(api, resolved, namespaces, needs)
        keep = ObjectFilter(
            resolved.namespaces, resolved.labels, needed=needs.needs_claim, needed_only=choice.needed_only
        )
        claims = [
            claim_of(parts)
            for parts in await _list(api, CLAIMS, namespaces)
            if keep.keeps(parts.namespace, parts.name, parts.labels.encode())
        ]
    except KIND_ERRORS as error:
        return VolumeSurvey(problems=(f"no volume is snapshotted: {reason(error)}",))
    wanted = tuple(claim for claim in claims if not opted_out(claim))
    if not any(claim.volume for claim in wanted):
        return VolumeSurvey(wanted)
    volumes: dict[str, PersistentVolume] = {}
    try:
        async for page in api.list_pages(VOLUMES):
            for item in page.items:
                volume = volume_from_object(item)
                volumes[volume.name] = volume
    except KIND_ERRORS as error:
        # The claims are named all the same: each is then a volume of which nothing is known.
        return VolumeSurvey(wanted, volumes, (f"what drives the volumes is unknown: {reason(error)}",))
    return VolumeSurvey(wanted, volumes)


def claim_of(parts: Parts) -> Claim:
    """Return the claim in a split object; its uid is no part of the body."""
    return replace(claim_from_object(parts.body), uid=parts.uid)


def opted_out(claim: Claim) -> bool:
    """Say whether the claim's annotation keeps its data out of backups."""
    return claim.annotations.get(rules.EXCLUDE_MARK) == "true"


def without_snapshot(claim: Claim, state: VolumeState, why: str) -> VolumeEntry:
    """Return what the manifest says of a claim whose data is not in the recovery point."""
    return VolumeEntry(
        namespace=claim.namespace,
        claim=claim.name,
        claim_uid=claim.uid,
        volume=claim.volume,
        storage_class=claim.storage_class,
        volume_mode=claim.volume_mode,
        capacity=claim.capacity,
        state=state,
        reason=why,
    )


async def _observe_users(api: KubeApi, resolved: Resolved, namespaces: tuple[str, ...] | None, needs: Needs) -> None:
    """Look which claims the selected pods and workloads use now."""
    for choice in resolved.kinds:
        key = (choice.kind.group, choice.kind.kind)
        if choice.rule or key not in REFERRING_KINDS or not (key in WORKLOADS or key[1] in (PODS.kind, "CronJob")):
            continue
        keep = ObjectFilter(resolved.namespaces, resolved.labels)
        for parts in await _list(api, choice.kind, namespaces):
            if keep.keeps(parts.namespace, parts.name, parts.labels.encode()):
                needs.observe(choice.kind, parts)


async def _list(api: KubeApi, kind: Kind, namespaces: tuple[str, ...] | None) -> list[Parts]:
    found = []
    for namespace in (None,) if namespaces is None else namespaces:
        async for page in api.list_pages(kind, namespace=namespace):
            found += [split(item.copy(), kind.group, kind.version, kind.kind) for item in page.items]
    return found
