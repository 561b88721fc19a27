"""Reads every selected kind at one instant X into a run, in the order in which kinds need each other."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from strongroom.dataplane.collector import rules
from strongroom.dataplane.collector.filtering import ObjectFilter, needed_in
from strongroom.dataplane.collector.incremental import (
    Definition,
    Definitions,
    Stored,
    base_of,
    converts_by_webhook,
    crd_of,
)
from strongroom.dataplane.collector.instant import (
    CONFIG_MAPS,
    KIND_ERRORS,
    LIST,
    Instant,
    Probe,
    probe_kinds,
    reason,
)
from strongroom.dataplane.collector.kindread import KindRead, KindReading, Reader
from strongroom.dataplane.collector.metadata import Meta, list_metadata
from strongroom.dataplane.collector.needed import REFERRED_KINDS, REFERRING_KINDS, Needs
from strongroom.dataplane.collector.selection import (
    CLAIM,
    CONTENT,
    DEFINITION,
    NAMESPACE,
    NEEDED_KINDS,
    STORAGE_CLASS,
    VOLUME,
    KindChoice,
    Resolved,
    in_order,
)
from strongroom.dataplane.collector.snapshotting import claim_of
from strongroom.dataplane.kube.discovery import Discovery
from strongroom.dataplane.kube.errors import KubeExpired, KubeForbidden
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.kube.pages import PAGE_GROWTH, PAGE_START_ITEMS
from strongroom.dataplane.repository.errors import Damaged
from strongroom.dataplane.repository.model import KindEntry, Manifest
from strongroom.dataplane.repository.objects import Parts
from strongroom.dataplane.snapshots.claims import Claim

KINDS_AT_ONCE: Final = 4  # on two cores shared with the API server 8 took no less time than 4 (20,000 objects)
NAMED_READS_AT_MOST: Final = 64  # so many needed objects are read by name; for more the kind is listed
NEWEST_TRIES: Final = 3  # a newest list that expires in mid-paging is begun again so often
DEFINITIONS: Final = Kind(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False, verbs=LIST
)

GroupKind = tuple[str, str]


@dataclass(frozen=True)
class KindOutcome:
    """What became of one kept kind: *read*, or *failed* with a reason; *note* says why it is not exact."""

    choice: KindChoice
    read: KindRead | None = None
    failed: str = ""
    note: str = ""
    skipped: Mapping[str, int] = field(default_factory=dict)
    denied: Mapping[str, str] = field(default_factory=dict)


class ClusterRead:
    """One pass over the selected kinds at one X.

    Made by `begin`, which tests the kinds and lists what the plan needs; `read` then stores. Should X expire, `read`
    returns False and `stored` holds what the next pass builds upon.
    """

    def __init__(
        self,
        reader: Reader,
        discovery: Discovery,
        resolved: Resolved,
        instant: Instant,
        probes: Mapping[Kind, Probe],
        namespaces: Mapping[str, Meta] | None,
        named: Sequence[str] | None,
        progress: Callable[[str, int, int, int], None],
    ) -> None:
        self._reader = reader
        self._discovery = discovery
        self.resolved = resolved
        self.instant = instant
        self._probes = probes
        self.namespaces = namespaces
        self.definitions: Definitions | None = None
        self._definition_metas: list[Meta] | None = None
        self._named = named
        self._progress = progress
        self.needs = Needs()
        self.claims: dict[str, Claim] = {}
        self.warnings: list[str] = []
        self.outcomes: dict[GroupKind, KindOutcome] = {}
        self.stored: dict[GroupKind, Stored] = {}
        self._earlier: Manifest | None = None
        self._before: Mapping[GroupKind, Stored] = {}
        self._expired = False
        self._newest_only = False
        self._narrow = bool(
            not resolved.labels.everything or resolved.selection.include_kinds or resolved.selection.exclude_kinds
        )

    @classmethod
    async def begin(
        cls,
        reader: Reader,
        discovery: Discovery,
        resolved: Resolved,
        instant: Instant,
        *,
        progress: Callable[[str, int, int, int], None],
    ) -> "ClusterRead":
        """Test the kinds against X."""
        named = resolved.namespaces.names
        kinds = [
            choice.kind
            for choice in resolved.kinds
            if not choice.rule and choice.kind.api_version not in discovery.aggregated
        ]
        # Tested in any case: the marker lies in a ConfigMap, and definitions tell of changed custom resources.
        kinds += [kind for kind in (CONFIG_MAPS, DEFINITIONS) if kind not in kinds]
        probes = await probe_kinds(reader.api, kinds, instant, named)
        namespaces = instant.namespaces
        if namespaces is not None:
            labelled = frozenset(name for name, meta in namespaces.items() if labelled_out(meta))
            resolved = replace(resolved, namespaces=replace(resolved.namespaces, labelled_out=labelled, _known={}))
        return cls(reader, discovery, resolved, instant, probes, namespaces, named, progress)

    async def list_definitions(self) -> None:
        """List the definitions of custom resources at X, without their documents. Raises `KubeExpired`."""
        if not self.shared(DEFINITIONS):
            return
        if (known := self._probes[DEFINITIONS].at(self.instant)) is not None:
            self._definition_metas = list(known)
            return
        listed: list[Meta] = []
        pages = list_metadata(self._reader.api, DEFINITIONS, revision=self.instant.revision, with_labels=False)
        try:
            async with aclosing(pages):
                async for page in pages:
                    listed += page.metas
        except KubeForbidden:
            return
        self._definition_metas = listed

    async def define(self, earlier: Manifest | None) -> None:
        """Find out of each listed definition whether it converts by webhook: *earlier* knows it of those that did not
        change, of others the document is read, which is large. Raises `KubeExpired`."""
        if self._definition_metas is None:
            return
        known = {
            entry.crd: entry.conversion_webhook for entry in (earlier.kinds if earlier is not None else ()) if entry.crd
        }
        served = {(kind.group, kind.plural) for kind in self._discovery.kinds}
        found: dict[tuple[str, str], Definition] = {}

        async def define(meta: Meta) -> None:
            identity = f"{meta.uid}/{meta.resource_version}"
            webhook = known.get(identity)
            if webhook is None:
                async with self._reader.single_reads:
                    raw = await self._reader.api.get_at(DEFINITIONS, meta.name, None, self.instant.revision)
                webhook = raw is not None and converts_by_webhook(raw)
            found[_group_plural(meta.name)] = Definition(identity, webhook)

        await in_parallel(*(define(meta) for meta in self._definition_metas if _group_plural(meta.name) in served))
        self.definitions = found

    def shared(self, kind: Kind) -> bool:
        """Whether *kind* passed the same-etcd test."""
        probe = self._probes.get(kind)
        return probe is not None and probe.shared

    async def read(
        self, earlier: Manifest | None, before: Mapping[GroupKind, Stored], *, newest_only: bool = False
    ) -> bool:
        """Read and store all kinds; False when X expired on the way.

        *earlier* is the point to take over from, *before* what this run stored at instants that expired. With
        *newest_only* (X expired for good) kinds that are not complete yet are read at a revision of their own.
        """
        self._earlier, self._before, self._newest_only = earlier, before, newest_only
        self._expired = False
        for stage in self._stages():
            gate = asyncio.Semaphore(KINDS_AT_ONCE)
            await in_parallel(*(self._read_kind(choice, gate) for choice in stage))
            if self._expired:
                return False
        return True

    def _stages(self) -> Iterable[list[KindChoice]]:
        """Yield kinds in stages: a kind that others need is read when it is known what they need.

        Within a stage the largest come first, by the count that the test saw: the last one to end is then a small one.
        """
        kept = [choice for choice in self.resolved.kinds if not choice.rule]
        kept.sort(key=lambda choice: -self._count(choice.kind))
        late = NEEDED_KINDS if not self.resolved.everything else frozenset[GroupKind]()
        yield [choice for choice in kept if _key(choice) not in late]
        yield [choice for choice in kept if _key(choice) in late and _key(choice) == CLAIM]
        self._note_needs()
        yield [choice for choice in kept if _key(choice) in late and _key(choice) != CLAIM]

    def _note_needs(self) -> None:
        """Note what is known only now: the definitions of kept kinds, and each namespace selected as such."""
        if not self._narrow:
            selected = self.namespaces if self.namespaces is not None else self._named or ()
            self.needs.namespaces.update(name for name in selected if not self.resolved.namespaces.rule(name))
        defined = {meta.name for meta in self._definition_metas} if self._definition_metas is not None else None
        for outcome in self.outcomes.values():
            kind = outcome.choice.kind
            name = f"{kind.plural}.{kind.group}"
            kept = outcome.read is not None and outcome.read.objects
            if kept and "." in kind.group and (defined is None or name in defined):
                self.needs.definitions.add(name)

    async def _read_kind(self, choice: KindChoice, gate: asyncio.Semaphore) -> None:
        async with gate:
            key = _key(choice)
            done = self.outcomes.get(key)
            if self._expired or (done is not None and (done.failed or (done.read is not None and done.read.complete))):
                return
            self._progress(choice.kind.name, len(self.outcomes), self._kept_count(), self._objects())
            self.outcomes[key] = await self._outcome(choice)
            self._progress(choice.kind.name, len(self.outcomes), self._kept_count(), self._objects())

    async def _outcome(self, choice: KindChoice) -> KindOutcome:
        kind = choice.kind
        probe = self._probes.get(kind, Probe(False))
        if choice.needed_only and self._needed_names(_key(choice)) == set():
            # Nothing of it is needed, so nothing is missing, whether it may be read or not.
            return KindOutcome(choice, KindRead(kind, revision=self.instant.revision, exact=True, complete=True))
        if probe.failed:
            return KindOutcome(choice, failed=probe.failed)
        exact = probe.shared and not self._newest_only
        known = probe.at(self.instant) if exact else None
        if known is not None and (nothing := self._nothing(choice, known)):
            return nothing
        use_base = True
        for tries in range(NEWEST_TRIES, 0, -1):
            keep = self._filter(choice)
            reading = self._reading(choice, keep, probe, exact, use_base=use_base)
            try:
                read = await self._carry_out(choice, reading)
            except Damaged as error:
                # The earlier point is check's to report; this one must be whole all the same.
                if not use_base:
                    raise
                await reading.keep_stored()
                use_base = False
                self.warnings.append(f"{kind.name} is read whole: {error.message}")
                continue
            except KubeExpired as error:
                part = await reading.keep_stored()
                if exact:
                    self._expired = True
                    self._store(kind, part)
                    return KindOutcome(choice, read=part)
                if tries == 1:
                    return KindOutcome(choice, failed=reason(error))
                continue
            except KIND_ERRORS as error:
                await reading.keep_stored()
                return KindOutcome(choice, failed=reason(error), skipped=dict(keep.skipped))
            self._store(kind, read)
            note = "" if exact else self._why_not_exact(kind, probe)
            denied = {**(probe.denied or {}), **read.denied}
            return KindOutcome(choice, read, note=note, skipped=dict(keep.skipped), denied=denied)
        raise AssertionError("unreachable: the last try returns")

    def _nothing(self, choice: KindChoice, known: Sequence[Meta]) -> KindOutcome | None:
        """Return the outcome of a kind of which, as the test saw at X itself, no object is kept; else None."""
        keep = self._filter(choice)
        if any(keep.keeps(meta.namespace, meta.name, bytes(meta.labels)) for meta in known):
            return None
        read = KindRead(choice.kind, revision=self.instant.revision, exact=True, complete=True)
        return KindOutcome(choice, read, skipped=dict(keep.skipped))

    async def _carry_out(self, choice: KindChoice, reading: KindReading) -> KindRead:
        names = self._needed_names(_key(choice)) if choice.needed_only else None
        if names is not None and len(names) <= NAMED_READS_AT_MOST:
            return await reading.read_named([("", name) for name in names])
        return await reading.read()

    def _reading(
        self, choice: KindChoice, keep: ObjectFilter, probe: Probe, exact: bool, *, use_base: bool
    ) -> KindReading:
        kind, key = choice.kind, _key(choice)
        bodies_needed = key == CLAIM or (self._narrow and key in REFERRING_KINDS)
        base = base_of(
            kind,
            self._entry(key),
            self._before.get(key),
            shared=exact,
            definitions=self.definitions,
            revision=self.instant.revision,
            bodies_needed=bodies_needed,
        )
        # One selector and no object that may be needed besides: the server can filter.
        selectors = self.resolved.labels.selectors
        simple = kind.namespaced and key != CLAIM and len(selectors) == 1
        return KindReading(
            self._reader,
            kind,
            keep,
            revision=self.instant.revision if exact else None,
            namespaces=self._namespaces_of(kind, probe),
            server_labels=selectors[0].text if simple and selectors[0].requirements else None,
            base=base if use_base else None,
            count=probe.count,
            known=probe.at(self.instant) if exact else None,
            skip_denied=self._named is not None,
            observe=self._observer(key),
            seen=self._seer(key) if self._narrow and kind.namespaced else None,
        )

    def _filter(self, choice: KindChoice) -> ObjectFilter:
        key = _key(choice)
        needed: Callable[[str, str], bool] | None = None
        if key == CLAIM and (self._narrow or choice.needed_only):
            needed = self.needs.needs_claim
        elif choice.needed_only:
            needed = needed_in(self._needed_names(key) or ())
        return ObjectFilter(
            self.resolved.namespaces,
            self.resolved.labels if choice.kind.namespaced else None,
            group=choice.kind.group,
            own_names=self._reader.own_contents if key == CONTENT else (),
            needed=needed,
            needed_only=choice.needed_only,
            names_are_namespaces=key == NAMESPACE,
        )

    def _needed_names(self, key: GroupKind) -> set[str] | None:
        """Return the names of the needed objects of a kind, None where they are known by pattern only."""
        names = {
            VOLUME: self.needs.volumes,
            STORAGE_CLASS: self.needs.storage_classes,
            NAMESPACE: self.needs.namespaces,
            DEFINITION: self.needs.definitions,
        }
        return names.get(key)

    def _observer(self, key: GroupKind) -> Callable[[Kind, Parts], None] | None:
        if key == CLAIM:
            return self._observe_claim
        return self.needs.observe if self._narrow and key in REFERRING_KINDS else None

    def _observe_claim(self, kind: Kind, parts: Parts) -> None:
        self.needs.observe(kind, parts)
        self.claims[parts.uid] = claim_of(parts)

    def _seer(self, key: GroupKind) -> Callable[[str, str], None]:
        def see(namespace: str, name: str) -> None:
            self.needs.namespaces.add(namespace)
            if key in REFERRED_KINDS:
                self.needs.kept.add((key[1], f"{namespace}/{name}"))

        return see

    def _namespaces_of(self, kind: Kind, probe: Probe) -> Sequence[str] | None:
        """Return the namespaces to list one by one, None for one list of the cluster: whichever is fewer requests."""
        if not kind.namespaced:
            return None
        if probe.namespaces is not None:
            return probe.namespaces
        if not self.resolved.namespaces.narrows:
            return None
        names = self._named
        if self.namespaces is not None:
            names = in_order(name for name in self.namespaces if not self.resolved.namespaces.rule(name))
        if names is None or len(names) > _pages_of(probe.count):
            return None
        return names

    def _entry(self, key: GroupKind) -> KindEntry | None:
        if self._earlier is None:
            return None
        return next((each for each in self._earlier.kinds if (each.group, each.kind) == key), None)

    def _store(self, kind: Kind, read: KindRead) -> None:
        crd, webhook = crd_of(kind, self.definitions)
        self.stored[(kind.group, kind.kind)] = Stored(read, self.shared(kind), crd, webhook)

    def _why_not_exact(self, kind: Kind, probe: Probe) -> str:
        if kind.api_version in self._discovery.aggregated:
            return "it is served by another API server, which knows no revision of this one"
        if not probe.shared:
            return f"it does not share the core etcd: its newest revision was {probe.revision} beside the core's"
        return "the revision of the recovery point was compacted away before it was read"

    def _count(self, kind: Kind) -> int:
        probe = self._probes.get(kind)
        return (probe.count or 0) if probe is not None else 0

    def _kept_count(self) -> int:
        return sum(not choice.rule for choice in self.resolved.kinds)

    def _objects(self) -> int:
        return sum(outcome.read.objects for outcome in self.outcomes.values() if outcome.read is not None)


async def in_parallel(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run coroutines together; the first failure cancels the others and is raised itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failures:
        first: BaseException = failures
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from failures
    return [task.result() for task in tasks]


def _group_plural(definition: str) -> tuple[str, str]:
    """Return group and plural of a CustomResourceDefinition by its name, `plural.group`."""
    plural, _, group = definition.partition(".")
    return group, plural


def labelled_out(meta: Meta) -> bool:
    """Say whether a namespace's own label leaves it out of backups."""
    labels = msgspec.json.decode(meta.labels, type=dict[str, str] | None) or {}
    return labels.get(rules.EXCLUDE_MARK) == "true"


def _pages_of(count: int | None) -> int:
    """Return how many pages a list of *count* small objects takes; unknown counts as many."""
    if count is None:
        return 1 << 30
    pages, size, held = 1, PAGE_START_ITEMS, PAGE_START_ITEMS
    while held < count:
        size *= PAGE_GROWTH
        held += size
        pages += 1
    return pages


def _key(choice: KindChoice) -> GroupKind:
    return (choice.kind.group, choice.kind.kind)
