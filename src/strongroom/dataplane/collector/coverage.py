"""Tells what a backup has and what not: an entry for every served kind, the state, the warnings. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from strongroom.dataplane.collector.cluster_read import GroupKind, KindOutcome
from strongroom.dataplane.collector.incremental import Definitions, crd_of
from strongroom.dataplane.collector.selection import KindChoice, Resolved
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.model import GroupFailure, KindEntry, ReadAs, VolumeEntry, VolumeState

COMPLETED: Final = "Completed"
PARTIAL: Final = "Partial"


def kind_entries(
    resolved: Resolved,
    outcomes: Mapping[GroupKind, KindOutcome],
    definitions: Definitions | None,
    shared: Callable[[Kind], bool],
) -> tuple[KindEntry, ...]:
    """Return an entry for every served kind in the one order: saved, excluded by a named rule, or failed."""
    return tuple(
        _entry(choice, outcomes.get((choice.kind.group, choice.kind.kind)), definitions, shared(choice.kind))
        for choice in resolved.kinds
    )


def _entry(choice: KindChoice, outcome: KindOutcome | None, definitions: Definitions | None, shared: bool) -> KindEntry:
    kind = choice.kind
    crd, webhook = crd_of(kind, definitions)

    def entry(read_as: ReadAs, reason: str = "") -> KindEntry:
        read = outcome.read if outcome is not None and not outcome.failed else None
        return KindEntry(
            group=kind.group,
            version=kind.version,
            kind=kind.kind,
            plural=kind.plural,
            namespaced=kind.namespaced,
            read_as=read_as,
            revision=read.revision if read else "",
            objects=read.objects if read else 0,
            rule=choice.rule,
            reason=reason,
            needed_by_only=choice.needed_only,
            failed_namespaces=dict(outcome.denied) if outcome else {},
            etcd_shared=shared,
            crd=crd,
            conversion_webhook=webhook,
            skipped=dict(sorted(outcome.skipped.items())) if outcome else {},
            segments=read.segments if read else (),
        )

    if choice.rule:
        return entry(ReadAs.EXCLUDED)
    if outcome is None or outcome.failed or outcome.read is None:
        return entry(ReadAs.FAILED, outcome.failed if outcome else "it was not read")
    if outcome.read.exact:
        return entry(ReadAs.EXACT)
    return entry(ReadAs.AT_REVISION, outcome.note)


def group_failures(failed: Mapping[str, str], resolved: Resolved) -> tuple[GroupFailure, ...]:
    """Return the API groups whose discovery failed; none where the selection names kinds of other groups only."""
    if resolved.skipped_groups:
        return ()
    return tuple(GroupFailure(group=group, reason=reason) for group, reason in sorted(failed.items()))


def state_of(entries: Sequence[KindEntry], failures: Sequence[GroupFailure], volumes: Sequence[VolumeEntry]) -> str:
    """Return Partial when something selected is missing, else Completed.

    Missing are a kind that failed or was denied (also in one namespace), a group that failed discovery, a CSI snapshot
    that failed. A volume that no driver can snapshot and a kind read off X are warnings of a Completed point.
    """
    missing = (
        bool(failures)
        or any(entry.read_as is ReadAs.FAILED or entry.failed_namespaces for entry in entries)
        or any(volume.state is VolumeState.SNAPSHOT_FAILED for volume in volumes)
    )
    return PARTIAL if missing else COMPLETED


def warnings_of(entries: Sequence[KindEntry], failures: Sequence[GroupFailure]) -> tuple[str, ...]:
    """Return in words what a reader of the point has to know about kinds and groups."""
    lines = [f"API group {failure.group} could not be discovered: {failure.reason}" for failure in failures]
    for entry in entries:
        name = f"{entry.kind}.{entry.group}" if entry.group else entry.kind
        if entry.read_as is ReadAs.FAILED:
            lines.append(f"{name} is not in the recovery point: {entry.reason}")
        elif entry.read_as is ReadAs.AT_REVISION:
            lines.append(f"{name} was read at its own revision {entry.revision or 'none'}: {entry.reason}")
        lines.extend(
            f"{name} of namespace {namespace} is not in the recovery point: {why}"
            for namespace, why in sorted(entry.failed_namespaces.items())
        )
    return tuple(lines)
