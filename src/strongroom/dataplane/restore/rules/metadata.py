"""Metadata that every object loses or keeps: identity, owners, finalizers (checklist rows 1, 2, 3). Pure."""

import msgspec

from strongroom.dataplane.restore.rules.draft import Draft, Rule

SERVER_SET = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
    # The name is already made: with generateName the server would refuse or, on a retry, make a second object.
    "generateName",
)
"""Fields of metadata that the target's server sets itself (checklist row 1)."""

PASSING_FINALIZERS = (
    "foregroundDeletion",
    "orphan",
    # On a claim while a snapshot of it is taken, and on a Pod until its Job has counted it: nobody would remove them.
    "snapshot.storage.kubernetes.io/pvc-as-source-protection",
    "batch.kubernetes.io/job-tracking",
)
"""Finalizers that stand for something that was under way at the source."""


class OwnerReference(msgspec.Struct, frozen=True, rename="camel"):
    """One entry of metadata.ownerReferences, as far as a plan needs it."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    api_version: str = ""
    controller: bool | None = None

    @property
    def group(self) -> str:
        """The API group of the owner."""
        return self.api_version.rpartition("/")[0]


_OWNERS = msgspec.json.Decoder(tuple[OwnerReference, ...] | None)


def owner_references(draft: Draft) -> tuple[OwnerReference, ...]:
    """Return the ownerReferences as the source has them."""
    raw = draft.metadata.get("ownerReferences")
    if raw is None:
        return ()
    if isinstance(raw, msgspec.Raw):
        return _OWNERS.decode(raw) or ()
    return msgspec.convert(raw, tuple[OwnerReference, ...])


def clean_metadata(draft: Draft, rule: Rule) -> None:
    """Drop what the server sets, put the target's namespace in, rewrite owners, drop finalizers where asked.

    Owners that have no uid in the target are left out, with a note unless they are added later.
    """
    metadata = draft.metadata
    for name in SERVER_SET:
        metadata.pop(name, None)
    if rule.planned.namespace != rule.planned.source_namespace:
        metadata["namespace"] = rule.planned.namespace
    if rule.planned.name != rule.planned.source_name:
        metadata["name"] = rule.planned.name
    if "finalizers" in metadata:
        kept = [] if rule.request.drop_finalizers else lasting_finalizers(draft)
        if kept:
            metadata["finalizers"] = kept
        else:
            del metadata["finalizers"]
    if "ownerReferences" in metadata:
        _rewrite_owners(draft, rule)


def lasting_finalizers(draft: Draft) -> list[str]:
    """Return the finalizers that are restored: all but those of an action that was under way at the source."""
    return [name for name in draft.meta("finalizers") or () if name not in PASSING_FINALIZERS]


def _rewrite_owners(draft: Draft, rule: Rule) -> None:
    references = draft.meta("ownerReferences") or []
    planned = {owner.source_uid: owner for owner in rule.planned.owners}
    kept = []
    for reference in references:
        source_uid = reference.get("uid", "")
        owner = planned.get(source_uid)
        if owner is None or owner.deferred:
            # The planner noted the reason of a dropped owner; a deferred one is added when its owner is there.
            continue
        uid = owner.uid or rule.new_uids.get(source_uid)
        if uid is None:
            draft.notes.append(
                f"ownerReference to {reference.get('kind')} {reference.get('name')} dropped: the owner was not restored"
            )
            continue
        kept.append({**reference, "uid": uid})
    if kept:
        draft.metadata["ownerReferences"] = kept
    else:
        del draft.metadata["ownerReferences"]
