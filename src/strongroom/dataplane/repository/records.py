"""The records that prune leaves: what is condemned (absent to writers) and what was swept (deleted, or about to be).

Both are signed, sealed and create-only. Reading them tells which points are hidden and which manifests are void.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import msgspec

from strongroom.dataplane.objectstore.errors import ObjectNotFound
from strongroom.dataplane.objectstore.port import ObjectInfo
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import Damaged, NotTrusted
from strongroom.dataplane.repository.files import Files
from strongroom.dataplane.repository.model import Manifest, VolumeEntry
from strongroom.dataplane.repository.signing import verify


class CondemnedRecord(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What one prune or deletion condemned: point ids, and keys of files that no live manifest needs.

    `volumes` are the CSI snapshots of the points that could not be deleted yet.
    """

    id: str
    writer: str
    written: str
    points: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    volumes: tuple[VolumeEntry, ...] = ()


class SweptRecord(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What one sweep deletes: keys of files (manifests of points included) and the condemned records it did away."""

    id: str
    writer: str
    written: str
    points: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


Record = TypeVar("Record", CondemnedRecord, SweptRecord)


@dataclass(frozen=True)
class PruneRecords:
    """All records of a repository, with the store's time of each condemned one."""

    condemned: tuple[tuple[CondemnedRecord, datetime], ...] = ()
    swept: tuple[SweptRecord, ...] = ()
    condemned_points: frozenset[str] = field(default=frozenset())
    condemned_files: frozenset[str] = field(default=frozenset())
    swept_points: frozenset[str] = field(default=frozenset())
    swept_files: frozenset[str] = field(default=frozenset())

    def void(self, manifest: Manifest) -> str:
        """Return the key of a file that *manifest* relies on and a sweep deleted, or "": then it is void."""
        if not self.swept_files:
            return ""
        return next((key for key in sorted(manifest_files(manifest)) if key in self.swept_files), "")


def manifest_files(manifest: Manifest) -> frozenset[str]:
    """Return the keys of every file that a manifest relies on: run, indexes, lists, packs."""
    keys: set[str] = {paths.run_path(manifest.run)}
    keys.update(paths.index_path(index.id) for index in manifest.indexes)
    for kind in manifest.kinds:
        for segment in kind.segments:
            keys.add(paths.list_path(segment.file.id))
            keys.update(paths.pack_path(pack) for pack in segment.packs)
    return frozenset(keys)


async def read_records(files: Files, writers: Mapping[str, bytes]) -> PruneRecords:
    """Read `condemned/` and `swept/`, which *writers* may have signed: their public keys by id.

    Raises `Damaged`, `NotTrusted`: a forged record could hide recovery points, and an unread one bring them back.
    """
    condemned_infos, swept_infos = await asyncio.gather(_list(files, paths.CONDEMNED), _list(files, paths.SWEPT))
    condemned = []
    for info in condemned_infos:
        if (found := await _read(files, writers, info, CondemnedRecord)) is not None:
            condemned.append((found, info.modified))
    swept = [record for info in swept_infos if (record := await _read(files, writers, info, SweptRecord)) is not None]
    return PruneRecords(
        condemned=tuple(condemned),
        swept=tuple(swept),
        condemned_points=frozenset(p for record, _ in condemned for p in record.points),
        condemned_files=frozenset(f for record, _ in condemned for f in record.files),
        swept_points=frozenset(p for record in swept for p in record.points),
        swept_files=frozenset(f for record in swept for f in record.files),
    )


async def _list(files: Files, prefix: str) -> list[ObjectInfo]:
    return [info async for info in files.store.list(prefix)]


async def _read(files: Files, writers: Mapping[str, bytes], info: ObjectInfo, form: type[Record]) -> Record | None:
    try:
        payload, _ = verify(info.key, await files.read(info.key), writers)
    except ObjectNotFound:
        return None  # a sweep took it away between our list and our read
    except NotTrusted as error:
        raise NotTrusted(
            f"{error.message}, or not to delete anything",
            hint="It is a record of deletions: find out who wrote it; if nobody should have, remove that file",
        ) from error
    try:
        return msgspec.json.decode(payload, type=form)
    except msgspec.DecodeError as error:
        raise Damaged(f"{info.key} is not understood: {error}") from error
