"""Reads what a plan depends on, on both sides, and feeds the planner kind by kind.

From the recovery point: rows, then the bodies of the chosen ones, in batches. From the target: what it serves, the
names it has of each chosen kind (metadata only), and the whole object only where names meet. Everything is read by
lists, so the plan needs the `list` permission; the dry runs that settle what a patch would change need `patch` too.
"""

import asyncio
import difflib
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery, discover
from strongroom.dataplane.kube.errors import (
    KubeError,
    KubeForbidden,
    KubeNotFound,
    KubeUnauthorized,
    KubeUnreachable,
)
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.model import BlobRef, ClusterIdentity, KindEntry, ObjectRow
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.restore.candidates import (
    Candidate,
    Existing,
    NamespaceFacts,
    OwnerKey,
    ReleasedVolume,
    SourceObject,
    StorageClassFacts,
    TargetState,
)
from strongroom.dataplane.restore.errors import SelectionInvalid
from strongroom.dataplane.restore.live import LiveObjects
from strongroom.dataplane.restore.model import Conflict, OnExists, Progress, RestorePlan, RestoreRequest
from strongroom.dataplane.restore.plan import CRD, STATUS_DECIDES, Planner
from strongroom.dataplane.restore.rules.table import SNAPSHOTS, never_restored
from strongroom.dataplane.restore.selection import ChosenObjects, check_mapping
from strongroom.dataplane.restore.three_way import after_dry_run

BATCH_OBJECTS = 500
BATCH_BYTES = 8 * 1024 * 1024  # of bodies in memory at once; a page of the server is as large
READ_WHOLE_FROM = 50  # objects of a batch that the target has: a page of all costs less than so many single reads
COMPARES = 8  # comparisons in flight: each is a list of one object and perhaps a dry run; 16 were no faster on 2 cores
NAMESPACES_LISTED_ONE_BY_ONE = 8  # above it one list of the whole kind is fewer requests

NAMESPACE = Kind("", "v1", "Namespace", "namespaces", False, frozenset())
STORAGE_CLASS = Kind("storage.k8s.io", "v1", "StorageClass", "storageclasses", False, frozenset())
DEFAULT_CLASS_ANNOTATION = "storageclass.kubernetes.io/is-default-class"
CLUSTER_NAMESPACE = "kube-system"
"""The uid of this Namespace is the field's usual identity of a cluster."""

ProgressFn = Callable[[Progress], None]


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    uid: str = ""
    namespace: str = ""
    deletion_timestamp: str | None = None
    annotations: dict[str, str] | None = None


class _Object(msgspec.Struct, frozen=True, rename="camel"):
    metadata: _Meta
    volume_binding_mode: str = ""


_DECODE = msgspec.json.Decoder(_Object).decode


@dataclass(slots=True)
class _Names:
    """What the target has of one kind: `known` holds (namespace, name); `live` reads the objects where many meet."""

    kind: Kind | None = None
    namespaces: Sequence[str | None] = ()
    known: set[tuple[str, str]] = field(default_factory=set)
    live: LiveObjects | None = None


async def gather_plan(
    api: KubeApi,
    point: RecoveryPoint,
    request: RestoreRequest,
    *,
    progress: ProgressFn | None = None,
) -> RestorePlan:
    """Return the plan to restore what *request* selects of *point* into the cluster of *api*.

    Changes nothing. Raises `SelectionInvalid` or `SelectorInvalid`, `Damaged` for a point that cannot be read, and a
    `KubeError` when the target does not answer.
    """
    check_mapping(request.map_namespaces)
    await _check_namespaces(point, request)
    discovery = await discover(api)
    short_names = {short: (kind.group, kind.kind) for kind in discovery.kinds for short in kind.short_names}
    chosen = ChosenObjects(request.selection, point.manifest.kinds, short_names)
    target = await target_state(api, discovery)
    gathering = _Gathering(api, point, request, chosen, target, progress)
    return await gathering.run()


async def _check_namespaces(point: RecoveryPoint, request: RestoreRequest) -> None:
    """Raise `SelectionInvalid` when a namespace that the request names is not in the recovery point."""
    selection = request.selection
    named = {name for name in (*selection.include_namespaces, *request.map_namespaces) if not set(name) & set("*?[")}
    entry = point.entry("", "Namespace")
    if not named or entry is None:
        return
    known = {row.name async for rows in point.rows(entry) for row in rows}
    for name in sorted(named - known):
        near = difflib.get_close_matches(name, known, n=3)
        raise SelectionInvalid(
            f"the recovery point holds no namespace {name!r}",
            hint=f"Did you mean {', '.join(near)}?" if near else f"It holds: {', '.join(sorted(known)[:20])}",
        )


async def target_state(api: KubeApi, discovery: Discovery) -> TargetState:
    """Return what the target serves, its namespaces and its storage classes."""
    namespaces, classes = await asyncio.gather(_objects(api, NAMESPACE), _objects(api, STORAGE_CLASS, whole=True))
    facts = {
        item.metadata.name: NamespaceFacts(item.metadata.uid, item.metadata.deletion_timestamp is not None)
        for item in namespaces
    }
    identity = facts.get(CLUSTER_NAMESPACE)
    return TargetState(
        cluster=ClusterIdentity(
            id=identity.uid if identity else "", server=api.server, version=discovery.server_version
        ),
        served=_served(discovery),
        namespaces=facts,
        storage_classes={
            item.metadata.name: StorageClassFacts(
                item.metadata.name,
                item.volume_binding_mode == "WaitForFirstConsumer",
                (item.metadata.annotations or {}).get(DEFAULT_CLASS_ANNOTATION) == "true",
            )
            for item in classes
        },
        snapshots_served=(SNAPSHOTS, "VolumeSnapshotContent") in discovery.versions,
    )


async def _objects(api: KubeApi, kind: Kind, *, whole: bool = False) -> list[_Object]:
    return [_DECODE(item) async for page in api.list_pages(kind, metadata_only=not whole) for item in page.items]


def _served(discovery: Discovery) -> dict[tuple[str, str], tuple[Kind, ...]]:
    served: dict[tuple[str, str], tuple[Kind, ...]] = {}
    for kind in discovery.kinds:
        others = [version for version in discovery.versions.get((kind.group, kind.kind), ()) if version != kind.version]
        versions = (
            kind,
            *(Kind(kind.group, version, kind.kind, kind.plural, kind.namespaced, kind.verbs) for version in others),
        )
        served.setdefault((kind.group, kind.kind), versions)
    return served


class _Gathering:
    """One run of `gather_plan`."""

    def __init__(
        self,
        api: KubeApi,
        point: RecoveryPoint,
        request: RestoreRequest,
        chosen: ChosenObjects,
        target: TargetState,
        progress: ProgressFn | None,
    ) -> None:
        self._api = api
        self._point = point
        self._request = request
        self._chosen = chosen
        self._target = target
        self._planner = Planner(request, point.manifest, target, secrets.token_hex(8))
        self._planner.follow_claims = chosen.narrowed
        self._progress = progress
        self._gate = asyncio.Semaphore(COMPARES)
        self._done = 0
        self._total = 0

    async def run(self) -> RestorePlan:
        entries = [entry for entry in self._point.manifest.kinds if entry.segments and self._chosen.kind(entry)]
        self._total = sum(entry.objects for entry in entries)
        for entry in entries:
            await self._kind(entry)
        await self._needed()
        found = await self._owners(self._planner.unresolved_owners())
        return self._planner.finish(found)

    async def _kind(self, entry: KindEntry) -> None:
        reason = never_restored(entry.group, entry.kind)
        names: _Names | None = None
        async for rows in self._point.rows(entry):
            wanted = [row for row in rows if self._chosen.object(row)]
            if reason:
                for row in wanted:
                    self._planner.add_skipped(self._planner.candidate(row, entry), reason)
            elif wanted:
                if names is None:
                    names = await self._names(entry)
                for batch in batches(wanted):
                    await self._batch(batch, entry, names)
            self._done += len(rows)
            if self._progress is not None:
                self._progress(Progress(f"plan {entry.kind}", self._done, self._total, 0))
        if names is not None and names.live is not None:
            await names.live.close()

    async def _names(self, entry: KindEntry) -> _Names:
        """Return what the target has of this kind where the restore would put objects."""
        served = self._planner.served(entry.group, entry.version, entry.kind, entry.plural, entry.namespaced)
        if served is None or (served[0].group, served[0].kind) not in self._target.served:
            return _Names()
        kind = served[0]
        namespaces: list[str | None] = [None]
        if kind.namespaced:
            there = self._target_namespaces(entry)
            if len(there) <= NAMESPACES_LISTED_ONE_BY_ONE:
                namespaces = list(there)
        names = _Names(kind, namespaces)
        for namespace in namespaces:
            async for page in self._api.list_pages(kind, namespace=namespace, metadata_only=True):
                for item in page.items:
                    meta = _DECODE(item).metadata
                    names.known.add((meta.namespace, meta.name))
        return names

    def _target_namespaces(self, entry: KindEntry) -> list[str]:
        """Return the namespaces of the target into which objects of this kind may go; one that ends counts as gone."""
        sources = {name for segment in entry.segments for name in (segment.first, segment.last)}
        chosen = self._request.selection.include_namespaces
        exact = [name for name in chosen if not any(sign in name for sign in "*?[")]
        if chosen and len(exact) == len(chosen):
            wanted = {self._request.target_namespace(name) for name in exact}
        elif len({name.partition("/")[0] for name in sources}) == 1:
            wanted = {self._request.target_namespace(next(iter(sources)).partition("/")[0])}
        else:
            wanted = set(self._target.namespaces)
        return sorted(name for name in wanted if name in self._target.namespaces)

    async def _batch(self, rows: Sequence[ObjectRow], entry: KindEntry, names: _Names) -> None:
        key = (entry.group, entry.kind)
        status_needed = key in STATUS_DECIDES or self._request.wants_status(*key)
        refs: list[BlobRef] = []
        for row in rows:
            refs.append(row.body)
            if row.managed_fields is not None:
                refs.append(row.managed_fields)
            if status_needed and row.status is not None:
                refs.append(row.status)
        blobs = await self._point.blobs(refs)
        sources = [
            SourceObject(
                row,
                blobs[row.body.digest],
                blobs[row.status.digest] if status_needed and row.status else None,
                blobs[row.managed_fields.digest] if row.managed_fields else None,
            )
            for row in rows
        ]
        candidates = [self._planner.candidate(row, entry) for row in rows]
        meetings = [
            index
            for index, candidate in enumerate(candidates)
            if (candidate.namespace, candidate.name) in names.known and not self._ends(candidate.namespace)
        ]
        whole: dict[int, bytes | None] = {}
        if len(meetings) >= READ_WHOLE_FROM and names.live is None and names.kind is not None:
            names.live = LiveObjects(self._api, names.kind, names.namespaces)
        if names.live is not None:
            for index in meetings:
                whole[index] = await names.live.take(candidates[index].namespace, candidates[index].name)
            if not self._request.map_namespaces:
                names.live.forget(candidates[-1].namespace, candidates[-1].name)
        compared = await asyncio.gather(
            *(self._compare(sources[index], candidates[index], whole.get(index)) for index in meetings)
        )
        existing = dict(zip(meetings, compared, strict=True))
        for index, (source, candidate) in enumerate(zip(sources, candidates, strict=True)):
            self._planner.add(source, candidate, existing.get(index))

    def _ends(self, namespace: str) -> bool:
        there = self._target.namespaces.get(namespace)
        return there is not None and there.terminating

    async def _compare(self, source: SourceObject, candidate: Candidate, read: bytes | None) -> Existing | None:
        """Compare the target's object, *read* already or not, with the planned one; None when it is gone by now."""
        kind = kind_of(candidate)
        namespace = candidate.namespace or None
        async with self._gate:
            raw = read if read is not None else await self._api.get_at(kind, candidate.name, namespace)
            if raw is None:
                return None
            live = msgspec.json.decode(raw)
            metadata = live["metadata"]
            if metadata.get("deletionTimestamp"):
                return None  # it goes: the execution waits for that
            revision = metadata["resourceVersion"]
            released = _released(live) if candidate.kind == "PersistentVolume" else None
            found, patch = self._planner.compare(source, candidate, live)
            if not found or not self._will_patch(candidate):
                return Existing(metadata["uid"], revision, found, released=released)
            try:
                answer = await self._api.patch(kind, candidate.name, namespace, patch, dry_run=True)
            except (KubeUnreachable, KubeUnauthorized):
                raise
            except KubeError as error:
                return Existing(metadata["uid"], revision, found, refusal=refusal_of(error))
            real = after_dry_run(found, live, msgspec.json.decode(answer))
            return Existing(metadata["uid"], revision, real, released=released)

    def _will_patch(self, candidate: Candidate) -> bool:
        return self._request.conflict is Conflict.PATCH or candidate.on_exists is OnExists.MERGE

    async def _needed(self) -> None:
        """Bring along what the chosen objects cannot do without: namespaces, claims' volumes and classes, CRDs."""
        for namespace in sorted(self._planner.namespaces_used):
            if self._request.target_namespace(namespace) not in self._target.namespaces:
                await self._bring("", "Namespace", "", namespace)
        await self._bring_claims()
        for volume in self._planner.volumes_wanted():
            await self._bring("", "PersistentVolume", "", volume)
        for name in self._planner.classes_wanted():
            await self._bring("storage.k8s.io", "StorageClass", "", name)
        for entry in self._point.manifest.kinds:
            key = (entry.group, entry.kind)
            if entry.crd and self._planner.uses(*key) and key not in self._target.served:
                await self._bring(*CRD, "", f"{entry.plural}.{entry.group}")

    async def _bring_claims(self) -> None:
        """Bring the claims that chosen workloads use and the selection leaves out."""
        entry = self._point.entry("", "PersistentVolumeClaim")
        planner = self._planner
        if entry is None or not (planner.claims_used or planner.claim_prefixes):
            return
        missing: list[ObjectRow] = []
        async for rows in self._point.rows(entry):
            for row in rows:
                head, _, number = row.name.rpartition("-")
                made = number.isdecimal() and (row.namespace, f"{head}-") in planner.claim_prefixes
                if not planner.holds(row) and (made or (row.namespace, row.name) in planner.claims_used):
                    missing.append(row)
        if missing:
            names = await self._names(entry)
            for batch in batches(missing):
                await self._batch(batch, entry, names)

    async def _bring(self, group: str, kind: str, namespace: str, name: str) -> None:
        entry = self._point.entry(group, kind)
        if entry is None:
            return
        row = await self._point.find(group, kind, namespace, name)
        if row is not None and not self._planner.holds(row):
            await self._batch([row], entry, await self._names(entry))

    async def _owners(self, wanted: Iterable[OwnerKey]) -> dict[OwnerKey, str]:
        """Return the uids of owners that the target has itself."""

        async def look(key: OwnerKey) -> tuple[OwnerKey, str]:
            group, kind_name, namespace, name = key
            kinds = self._target.served.get((group, kind_name))
            if not kinds:
                return key, ""
            if kinds[0].namespaced and namespace not in self._target.namespaces:
                return key, ""
            async with self._gate:
                try:
                    raw = await self._api.get_at(kinds[0], name, namespace if kinds[0].namespaced else None)
                except (KubeNotFound, KubeForbidden):
                    return key, ""
            return key, _DECODE(raw).metadata.uid if raw is not None else ""

        return {key: uid for key, uid in await asyncio.gather(*(look(key) for key in wanted)) if uid}


def kind_of(candidate: Candidate) -> Kind:
    """Return the kind under which a candidate is sent."""
    return Kind(candidate.group, candidate.version, candidate.kind, candidate.plural, candidate.namespaced, frozenset())


def _released(volume: dict[str, Any]) -> ReleasedVolume | None:
    reference = volume.get("spec", {}).get("claimRef")
    if volume.get("status", {}).get("phase") != "Released" or not reference:
        return None
    return ReleasedVolume(reference.get("namespace", ""), reference.get("name", ""), reference.get("uid", ""))


def refusal_of(error: KubeError) -> str:
    """Return the server's reason in one line: the fields it names, else its message."""
    if error.causes:
        return "; ".join(f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in error.causes)
    return error.detail or error.message


def batches(rows: Sequence[ObjectRow]) -> Iterator[list[ObjectRow]]:
    """Cut *rows* so that one batch holds at most BATCH_OBJECTS and about BATCH_BYTES of blobs."""
    batch: list[ObjectRow] = []
    size = 0
    for row in rows:
        bytes_of = row.body.bytes + (row.managed_fields.bytes if row.managed_fields else 0)
        if batch and (len(batch) >= BATCH_OBJECTS or size + bytes_of > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += bytes_of
    if batch:
        yield batch
