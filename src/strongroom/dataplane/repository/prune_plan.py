"""Decides what a prune condemns and what it sweeps. Pure: everything the answer depends on is an argument."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.model import Manifest
from strongroom.dataplane.repository.records import PruneRecords, manifest_files

COLLECTED = (paths.PACKS, paths.INDEX, paths.LISTS, paths.RUNS)
"""The folders whose files live only while a manifest names them."""


def live_files(manifests: Iterable[Manifest], records: PruneRecords) -> frozenset[str]:
    """Return the keys that must stay: what the manifests name that are neither condemned nor void."""
    keys: set[str] = set()
    for manifest in manifests:
        if manifest.id not in records.condemned_points and not records.void(manifest):
            keys |= manifest_files(manifest)
    return frozenset(keys)


def to_condemn(
    stored: Mapping[str, datetime],
    live: frozenset[str],
    records: PruneRecords,
    now: datetime,
    max_run: timedelta,
) -> list[str]:
    """Return the keys of garbage that is not condemned yet, oldest first.

    *stored* maps keys to the store's time of each. Files younger than *max_run* may belong to a run that has not
    committed and are never returned.
    """
    return [
        key
        for key, modified in sorted(stored.items(), key=lambda item: (item[1], item[0]))
        if key.startswith(COLLECTED)
        and key not in live
        and key not in records.condemned_files
        and now - modified > max_run
    ]


@dataclass(frozen=True)
class Sweep:
    """What may be deleted now: files, manifests of condemned points, and the records that are then fulfilled."""

    files: tuple[str, ...]
    points: tuple[str, ...]
    fulfilled: tuple[str, ...]


def to_sweep(
    stored: Mapping[str, datetime],
    live: frozenset[str],
    records: PruneRecords,
    now: datetime,
    max_run: timedelta,
) -> Sweep:
    """Return what was condemned for longer than 2 x *max_run* and is still not named by a live manifest.

    By then every run that might have counted on it has committed (so it is live, and stays) or has given up. Records
    with CSI snapshots that wait for deletion are not fulfilled; their files and points are swept all the same.
    """
    files: dict[str, None] = {}
    points: dict[str, None] = {}
    fulfilled: list[str] = []
    for record, written in records.condemned:
        if now - written <= 2 * max_run:
            continue
        files.update((key, None) for key in record.files if key in stored and key not in live)
        points.update((point, None) for point in record.points if paths.manifest_path(point) in stored)
        if not record.volumes:
            fulfilled.append(record.id)
    return Sweep(tuple(files), tuple(points), tuple(fulfilled))
