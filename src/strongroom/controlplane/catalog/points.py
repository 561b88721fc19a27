"""Reads the recovery points of a repository as facts: what the control plane lists, and whole reports on demand."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from strongroom.dataplane.repository.errors import Damaged, NoSuchObject, NoSuchPoint, RepositoryError
from strongroom.dataplane.repository.model import Manifest, ObjectRow, PointId, ReadAs, VolumeEntry
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.repository import READERS, Repository

PARTIAL: Final = "Partial"
OBJECTS_AT_MOST: Final = 1000  # one page of a listing; a list segment has at most 4,096 rows


@dataclass(frozen=True)
class VolumeFacts:
    """One PersistentVolumeClaim of a point; *handle* is "" where it has no CSI snapshot, and *reason* says why.

    *state* is one of the repository's words (`ready`, `failed`, …), *created* ISO 8601 UTC, *size_bytes* that a
    restored volume needs (None where the driver did not say).
    """

    namespace: str
    claim: str
    driver: str
    handle: str
    state: str
    reason: str = ""
    volume: str = ""
    storage_class: str = ""
    snapshot_class: str = ""
    size_bytes: int | None = None
    created: str = ""
    location: str = ""


@dataclass(frozen=True)
class CoverageFacts:
    """How many kinds were saved, left out by a rule, and could not be read; and API groups that did not answer."""

    saved: int
    excluded: int
    failed: int
    failed_groups: int
    at_own_revision: int
    """Of the saved ones: how many were read at a revision of their own, not at the point's."""


@dataclass(frozen=True)
class PointFacts:
    """A recovery point that is whole and trusted.

    *time* is when its state was taken. *sha256* (hex) is that of the manifest's stored bytes: remembered, it shows when
    the store was rolled back. *caller* is what the control plane had written into it (`instance`, `job`, `tag`, …);
    *cluster* (the cluster's uid) and *writer* are what the extension itself can vouch for.
    """

    id: str
    sha256: str
    writer: str
    sequence: int
    time: datetime
    started: datetime
    finished: datetime
    partial: bool
    base: str
    """The id of the point that unchanged objects were taken over from, "" for one that was read whole."""
    cluster: str
    cluster_version: str
    objects: int
    object_bytes: int
    bytes_read: int
    bytes_written: int
    coverage: CoverageFacts
    warnings: int
    caller: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[VolumeFacts, ...] = ()


@dataclass(frozen=True)
class PointListing:
    """What a repository holds beyond the *known* points, and what became of these.

    *points* are new, oldest first. *unreadable* maps new ids to why they cannot be used (damaged, forged, void).
    *deleted* are known ones that were condemned or swept; *lost* are known ones that are gone or replaced though nobody
    deleted them: the store was rolled back or somebody wrote there.
    """

    points: tuple[PointFacts, ...]
    unreadable: Mapping[str, str]
    deleted: frozenset[str]
    lost: frozenset[str]


async def list_points(repository: Repository, *, known: Mapping[str, str] | None = None) -> PointListing:
    """Return the recovery points that are not in *known* (id to the SHA-256 it had, "" where that was not kept).

    Only their manifests are read, and of each writer's known points the newest. Raises what the store raises, and
    `Damaged` or `NotTrusted` for records of deletion that cannot be believed.
    """
    known = known or {}
    records = await repository.records()
    stored = frozenset(await repository.point_ids())
    hidden = records.condemned_points | records.swept_points
    gate = asyncio.Semaphore(READERS)
    unreadable: dict[str, str] = {}

    async def read(point_id: PointId) -> PointFacts | None:
        async with gate:
            try:
                point = await repository.load(point_id)
                if missing := records.void(point.manifest):
                    unreadable[point_id] = f"void: committed too late ({missing} was swept before)"
                    return None
                return point_facts(point)
            except NoSuchPoint:
                return None  # swept between the list and this
            except RepositoryError as error:
                unreadable[point_id] = error.message
                return None

    found = await asyncio.gather(*(read(i) for i in sorted(stored) if i not in known and i not in hidden))
    alive = {i: sha for i, sha in known.items() if i not in hidden}
    lost = {i for i in alive if i not in stored} | await _replaced(repository, alive, stored)
    return PointListing(
        points=tuple(sorted((p for p in found if p is not None), key=lambda p: (p.time, p.id))),
        unreadable=unreadable,
        deleted=frozenset(i for i in known if i in hidden),
        lost=frozenset(lost),
    )


def point_facts(point: RecoveryPoint) -> PointFacts:
    """Return what the control plane keeps of a point. Raises `Damaged` for times that are none."""
    manifest = point.manifest
    return PointFacts(
        id=manifest.id,
        sha256=point.sha256,
        writer=manifest.writer,
        sequence=manifest.sequence,
        time=_instant(manifest, manifest.instant.taken or manifest.finished),
        started=_instant(manifest, manifest.started),
        finished=_instant(manifest, manifest.finished),
        partial=manifest.state == PARTIAL,
        base=manifest.incremental.base,
        cluster=manifest.cluster.id,
        cluster_version=manifest.cluster.version,
        objects=manifest.objects,
        object_bytes=manifest.object_bytes,
        bytes_read=manifest.bytes_read,
        bytes_written=manifest.bytes_written,
        coverage=_coverage(manifest),
        warnings=len(manifest.warnings),
        caller=dict(manifest.caller),
        volumes=tuple(volume_facts(v) for v in manifest.volumes),
    )


def volume_facts(volume: VolumeEntry) -> VolumeFacts:
    """Return one volume as the control plane keeps it."""
    return VolumeFacts(
        namespace=volume.namespace,
        claim=volume.claim,
        driver=volume.driver,
        handle=volume.handle,
        state=volume.state.value,
        reason=volume.reason,
        volume=volume.volume,
        storage_class=volume.storage_class,
        snapshot_class=volume.snapshot_class,
        size_bytes=volume.restore_size_bytes,
        created=volume.created,
        location=volume.location,
    )


async def point_report(repository: Repository, point_id: str) -> dict[str, Any]:
    """Return everything that a point's manifest says, but for the files that it names, as JSON by its own names.

    It can be long: one entry for each served kind, each volume and each warning. Raises as `Repository.point` does.
    """
    point = await repository.point(point_id)
    report: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(point.manifest))
    report.pop("indexes", None)
    for kind in report["kinds"]:
        kind.pop("segments", None)
    return {**report, "sha256": point.sha256}


@dataclass(frozen=True)
class ObjectFacts:
    """One object of a point, as it is browsed."""

    group: str
    version: str
    kind: str
    namespace: str
    name: str
    uid: str
    bytes: int


async def list_objects(
    repository: Repository, point_id: str, group: str, kind: str, *, after: str = "", limit: int = OBJECTS_AT_MOST
) -> Sequence[ObjectFacts]:
    """Return objects of one kind in order, from past *after* (`namespace/name`, or `name` for cluster scope).

    [] for a kind that the point has none of. Raises as `Repository.point` does, and `Damaged`.
    """
    point = await repository.point(point_id)
    entry = point.entry(group, kind)
    found: list[ObjectFacts] = []
    if entry is None:
        return found
    async for rows in point.rows(entry, first=after):
        found += [_object(row) for row in rows if row.sort_name > after.encode()]
        if len(found) >= limit:
            break
    return found[:limit]


async def read_object(repository: Repository, point_id: str, group: str, kind: str, namespace: str, name: str) -> bytes:
    """Return one object (JSON) as the cluster served it. Raises `NoSuchObject`, and as `list_objects` does."""
    point = await repository.point(point_id)
    row = await point.find(group, kind, namespace, name)
    if row is None:
        where = f"{namespace}/{name}" if namespace else name
        raise NoSuchObject(f"the recovery point {point_id} holds no {kind} {where}")
    return await point.served(row)


async def _replaced(repository: Repository, alive: Mapping[str, str], stored: frozenset[PointId]) -> set[str]:
    """Return the newest known point of each writer whose stored bytes are not those that were seen: it was replaced.

    The manifests before it are chained to it by their hashes; `check` follows the chain.
    """
    newest: dict[str, str] = {}
    for point_id in sorted(i for i, sha in alive.items() if sha and i in stored):
        newest[point_id.partition("-")[0]] = point_id
    replaced = set()
    for point_id in newest.values():
        try:
            if (await repository.load(point_id)).sha256 != alive[point_id]:
                replaced.add(point_id)
        except RepositoryError:
            replaced.add(point_id)
    return replaced


def _coverage(manifest: Manifest) -> CoverageFacts:
    count = {read_as: sum(1 for k in manifest.kinds if k.read_as is read_as) for read_as in ReadAs}
    return CoverageFacts(
        saved=count[ReadAs.EXACT] + count[ReadAs.AT_REVISION],
        excluded=count[ReadAs.EXCLUDED],
        failed=count[ReadAs.FAILED],
        failed_groups=len(manifest.failed_groups),
        at_own_revision=count[ReadAs.AT_REVISION],
    )


def _instant(manifest: Manifest, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Damaged(f"the manifest of {manifest.id} has {text!r} for a time") from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _object(row: ObjectRow) -> ObjectFacts:
    return ObjectFacts(row.group, row.version, row.kind, row.namespace, row.name, row.uid, row.body.bytes)
