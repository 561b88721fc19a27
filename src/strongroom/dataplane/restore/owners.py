"""Owners of planned objects: who makes whom, who comes first, which references can be kept. Pure.

Checklist rows 2 and 13.
"""

from collections.abc import Iterable, Mapping

from strongroom.dataplane.restore.candidates import Candidate, OwnerKey
from strongroom.dataplane.restore.model import Action, Owner
from strongroom.dataplane.restore.rules.metadata import OwnerReference

CONTROLLERS = {
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("apps", "StatefulSet"),
    ("apps", "DaemonSet"),
    ("batch", "Job"),
    ("batch", "CronJob"),
    ("", "ReplicationController"),
}
MADE_BY_CONTROLLERS = {("", "Pod"), ("apps", "ReplicaSet"), ("batch", "Job"), ("", "ReplicationController")}
"""Kinds that a built-in controller makes again by itself. A claim of a StatefulSet is not among them: it holds data."""


def owner_key(candidate: Candidate, reference: OwnerReference) -> OwnerKey:
    """Return the owner's key in the target. Its scope is unknown, so the namespace is that of the object it owns."""
    return (reference.group, reference.kind, candidate.namespace, reference.name)


def unresolved(candidates: Iterable[Candidate], by_uid: Mapping[str, Candidate]) -> set[OwnerKey]:
    """Return the owners that the plan does not hold itself: the target may have them."""
    return {
        owner_key(candidate, reference)
        for candidate in candidates
        if candidate.action is not Action.SKIP
        for reference in candidate.references
        if reference.uid not in by_uid
    }


def skip_controlled(
    candidates: Iterable[Candidate], by_uid: Mapping[str, Candidate], found: Mapping[OwnerKey, str]
) -> None:
    """Leave out what a built-in controller, itself restored or there already, makes again.

    Restoring a ReplicaSet beside its Deployment races with the controller's adoption: two sets of Pods, or Pods of a
    dead ReplicaSet. Without its controller the object is restored like any other.
    """
    decided: set[str] = set()

    def decide(candidate: Candidate) -> None:
        uid = candidate.row.uid if candidate.row else ""
        if uid in decided or candidate.action is Action.SKIP:
            return
        decided.add(uid)
        if (candidate.group, candidate.kind) not in MADE_BY_CONTROLLERS:
            return
        for reference in candidate.references:
            if not reference.controller or (reference.group, reference.kind) not in CONTROLLERS:
                continue
            owner = by_uid.get(reference.uid)
            if owner is None:
                if found.get(owner_key(candidate, reference)):
                    candidate.skip(f"made by {reference.kind} {reference.name}, which the target has")
                    candidate.skipped_with_owner = True
                continue
            decide(owner)
            if owner.lives or owner.skipped_with_owner:
                why = f"made by {owner.kind} {owner.name}"
                candidate.skip(why if owner.lives else f"{why}, which is not restored itself ({owner.reason})")
                candidate.skipped_with_owner = True

    for candidate in candidates:
        decide(candidate)


def link_owners(
    candidates: Iterable[Candidate], by_uid: Mapping[str, Candidate], found: Mapping[OwnerKey, str]
) -> None:
    """Set each candidate's owners and its level: owners of one wave come before what they own.

    A reference is dropped, with a note, only where the owner is neither restored nor there. An owner of a later wave (a
    claim's StatefulSet) or of a circle is deferred: its reference is added once it exists.
    """
    depth: dict[int, int] = {}

    def level(candidate: Candidate, path: tuple[int, ...]) -> int:
        known = depth.get(id(candidate))
        if known is not None:
            return known
        deepest = 0
        for reference in candidate.references:
            owner = by_uid.get(reference.uid)
            if owner is None or owner.existing is not None or not owner.lives or owner.stage != candidate.stage:
                continue
            if id(owner) in path or owner is candidate:
                continue
            deepest = max(deepest, 1 + level(owner, (*path, id(candidate))))
        depth[id(candidate)] = deepest
        return deepest

    for candidate in candidates:
        if not candidate.references or candidate.action is Action.SKIP:
            continue
        candidate.level = level(candidate, ())
        owners = []
        for reference in candidate.references:
            owner = by_uid.get(reference.uid)
            if owner is not None and owner.existing is not None:
                owners.append(Owner(source_uid=reference.uid, uid=owner.existing.uid))
            elif owner is not None and owner.lives:
                first = owner.stage < candidate.stage or (
                    owner.stage == candidate.stage and level(owner, ()) < candidate.level
                )
                owners.append(Owner(source_uid=reference.uid, deferred=not first))
                if not first:
                    candidate.notes += (f"the ownerReference to {owner.title} is added after that is restored",)
                    candidate.calls += 1
                elif owner.title not in candidate.needs:
                    candidate.needs += (owner.title,)
            elif uid := found.get(owner_key(candidate, reference), ""):
                owners.append(Owner(source_uid=reference.uid, uid=uid))
            else:
                candidate.notes += (
                    f"ownerReference to {reference.kind} {reference.name} dropped: "
                    "the owner is not restored and the target has none",
                )
        candidate.owners = tuple(owners)
