"""Finds what changed between two recovery points, or between one and objects read elsewhere, field by field.

Digests are compared first; bodies are fetched for objects whose digest differs, and list segments that both points
share are not read at all.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from strongroom.dataplane.repository.model import BlobRef, Digest, KindEntry, ObjectRow, SegmentRef
from strongroom.dataplane.repository.objects import Parts
from strongroom.dataplane.repository.points import RecoveryPoint

BATCH_OBJECTS = 128  # pairs of bodies fetched at once: a few MiB, in few requests

Keeps = Callable[[ObjectRow], bool]

_SECRET = ("", "Secret")
# Fields of a Secret that hold its values, as paths from the root; the annotation is kubectl's copy of the object.
_SECRET_FIELDS = ("data", "stringData", "metadata.annotations.kubectl.kubernetes.io/last-applied-configuration")


class Change(StrEnum):
    """What happened to an object on the way from the first state to the second."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True)
class FieldChange:
    """One field that differs. `before` or `after` is None where the field is absent.

    Elements of lists are named by their index, or by `name` where all of them have one. A Secret's values are hidden.
    """

    path: str
    before: Any = None
    after: Any = None
    hidden: bool = False


@dataclass(frozen=True)
class ObjectChange:
    """One object that differs; `fields` only for a changed one."""

    group: str
    version: str
    kind: str
    namespace: str
    name: str
    change: Change
    fields: tuple[FieldChange, ...] = ()


async def diff_points(
    before: RecoveryPoint, after: RecoveryPoint, kinds: Sequence[tuple[str, str]], keeps: Keeps
) -> AsyncIterator[ObjectChange]:
    """Yield what differs between the bodies of two points, in the one order, for *kinds* (group, kind).

    An object that was deleted and made again has a changed `metadata.uid`. Raises `Damaged`.
    """
    for group, kind in kinds:
        first, second = before.entry(group, kind), after.entry(group, kind)
        pairs: list[tuple[ObjectRow, ObjectRow]] = []
        async for old, new in _merge(_rows(before, first, second, keeps), _rows(after, second, first, keeps)):
            if old is not None and new is not None and _differ(old, new):
                pairs.append((old, new))
            # What is pending comes first: the order of the answer is that of the lists.
            if pairs and (old is None or new is None or len(pairs) >= BATCH_OBJECTS):
                for changed in await _changed(before, after, pairs):
                    yield changed
                pairs.clear()
            if new is None and old is not None:
                yield _of(old, Change.REMOVED)
            elif old is None and new is not None:
                yield _of(new, Change.ADDED)
        for changed in await _changed(before, after, pairs):
            yield changed


async def diff_current(
    point: RecoveryPoint,
    entry: KindEntry,
    keeps: Keeps,
    current: AsyncIterator[Sequence[Parts]],
    digest: Callable[[bytes], Digest],
    selected: Keeps,
) -> AsyncIterator[ObjectChange]:
    """Yield what differs between one kind of *point* and its objects now, read elsewhere and split by the same rules.

    *digest* is that of the point's repository. Of objects that the point lacks, those are added that it would have
    taken by *selected*. Objects that are gone come last. Raises `Damaged`.
    """
    rows: dict[tuple[str, str], ObjectRow] = {}
    async for segment in point.rows(entry):
        rows.update(((row.namespace, row.name), row) for row in segment if keeps(row))
    async for page in current:
        differing: list[tuple[ObjectRow, Parts]] = []
        for parts in page:
            row = rows.pop((parts.namespace, parts.name), None)
            if row is None:
                new = _row(entry, parts, digest)
                if keeps(new) and selected(new):
                    yield _of(new, Change.ADDED)
            elif digest(parts.body) != row.body.digest or parts.uid != row.uid:
                differing.append((row, parts))
        for start in range(0, len(differing), BATCH_OBJECTS):
            batch = differing[start : start + BATCH_OBJECTS]
            bodies = await point.blobs([row.body for row, _ in batch])
            for row, parts in batch:
                fields = body_changes(row, bodies[row.body.digest], parts.uid, parts.body)
                yield _of(row, Change.CHANGED, fields)
    for row in rows.values():
        yield _of(row, Change.REMOVED)


def field_changes(before: Any, after: Any, path: str = "") -> Iterator[FieldChange]:
    """Yield the fields in which two JSON values differ. Pure."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(name for name in after if name not in before)]:
            yield from field_changes(before.get(name), after.get(name), f"{path}.{name}" if path else name)
    elif isinstance(before, list) and isinstance(after, list):
        old, new = _named(before), _named(after)
        if old is None or new is None:
            old, new = dict(enumerate(before)), dict(enumerate(after))
        for key in [*old, *(key for key in new if key not in old)]:
            mark = f"[{key}]" if isinstance(key, int) else f"[name={key}]"
            yield from field_changes(old.get(key), new.get(key), f"{path}{mark}")
    elif before != after or type(before) is not type(after):
        yield FieldChange(path, before, after)


def _named(items: list[Any]) -> dict[Any, Any] | None:
    """Return the elements by their `name`, as Kubernetes merges such lists, or None where they have none."""
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return None
    return dict(zip(names, items, strict=True))


def _differ(old: ObjectRow, new: ObjectRow) -> bool:
    return old.body.digest != new.body.digest or old.uid != new.uid


def _of(row: ObjectRow, change: Change, fields: Sequence[FieldChange] = ()) -> ObjectChange:
    return ObjectChange(row.group, row.version, row.kind, row.namespace, row.name, change, tuple(fields))


def _row(entry: KindEntry, parts: Parts, digest: Callable[[bytes], Digest]) -> ObjectRow:
    body = BlobRef(digest(parts.body), len(parts.body), "", 0)
    names = (entry.group, entry.version, entry.kind, parts.namespace, parts.name)
    return ObjectRow(*names, parts.uid, parts.resource_version, parts.generation, parts.labels, body)


async def _changed(
    before: RecoveryPoint, after: RecoveryPoint, pairs: Sequence[tuple[ObjectRow, ObjectRow]]
) -> list[ObjectChange]:
    if not pairs:
        return []
    old_refs: list[BlobRef] = [old.body for old, _ in pairs]
    old_bodies = await before.blobs(old_refs)
    new_bodies = await after.blobs([new.body for _, new in pairs])
    return [
        _of(
            new,
            Change.CHANGED,
            body_changes(old, old_bodies[old.body.digest], new.uid, new_bodies[new.body.digest]),
        )
        for old, new in pairs
    ]


def body_changes(old: ObjectRow, before: bytes, uid: str, after: bytes) -> list[FieldChange]:
    """Return the fields in which an object's new *uid* and body differ from the *old* row with its body *before*."""
    changes = list(field_changes(msgspec.json.decode(before), msgspec.json.decode(after)))
    if old.uid != uid:
        changes.insert(0, FieldChange("metadata.uid", old.uid, uid))
    if (old.group, old.kind) == _SECRET:
        changes = [_hidden(change) for change in changes]
    return changes


def _hidden(change: FieldChange) -> FieldChange:
    secret = any(change.path == field or change.path.startswith(f"{field}.") for field in _SECRET_FIELDS)
    # Where annotations appear or go as a whole, kubectl's copy may be among them.
    whole = change.path in ("metadata.annotations", "metadata")
    return FieldChange(change.path, hidden=True) if secret or whole else change


async def _rows(
    point: RecoveryPoint, entry: KindEntry | None, other: KindEntry | None, keeps: Keeps
) -> AsyncIterator[ObjectRow]:
    """Yield the rows of a kind that are not in a segment which the other point has too, in the one order."""
    if entry is None:
        return
    shared = {segment.content for segment in other.segments} if other is not None else set[str]()
    rest: tuple[SegmentRef, ...] = tuple(segment for segment in entry.segments if segment.content not in shared)
    async for rows in point.rows(msgspec.structs.replace(entry, segments=rest)):
        for row in filter(keeps, rows):
            yield row


async def _merge(
    before: AsyncIterator[ObjectRow], after: AsyncIterator[ObjectRow]
) -> AsyncIterator[tuple[ObjectRow | None, ObjectRow | None]]:
    old, new = await anext(before, None), await anext(after, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.sort_name < new.sort_name):
            yield old, None
            old = await anext(before, None)
        elif old is None or new.sort_name < old.sort_name:
            yield None, new
            new = await anext(after, None)
        else:
            yield old, new
            old, new = await anext(before, None), await anext(after, None)
