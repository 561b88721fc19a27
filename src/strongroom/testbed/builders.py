"""Builders for tests of the data plane: a repository in any store, objects, and recovery points without a cluster."""

from pathlib import Path
from typing import Any

import msgspec

from strongroom.dataplane.objectstore.port import ObjectStore
from strongroom.dataplane.repository.info import MAX_RUN_SECONDS
from strongroom.dataplane.repository.model import (
    ClusterIdentity,
    Incremental,
    Instant,
    KindEntry,
    Manifest,
    ReadAs,
    Selection,
)
from strongroom.dataplane.repository.objects import split
from strongroom.dataplane.repository.packstream import PACK_BYTES
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.repository.run import ManifestDraft, Run

PAGE_OBJECTS = 100


def config_map(name: str, data: str, namespace: str = "shop") -> bytes:
    """Return a ConfigMap as an API server lists it (no apiVersion, no kind), with a status to have all three parts."""
    return msgspec.json.encode(
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"uid-{name}",
                "resourceVersion": "7",
                "labels": {"app": name},
                "managedFields": [{"manager": "kubectl", "operation": "Apply"}],
            },
            "data": {"value": data},
            "status": {"seen": True},
        }
    )


def draft(*kinds: KindEntry) -> ManifestDraft:
    """Return what a collector would know of a point with these kinds."""
    return ManifestDraft(
        started="2026-11-23T10:00:00Z",
        finished="2026-11-23T10:00:01Z",
        cluster=ClusterIdentity(id="c", server="https://example.test", version="v1.37.2"),
        selection=Selection(),
        instant=Instant(revision="7", taken="2026-11-23T10:00:00Z"),
        incremental=Incremental(),
        state="Completed",
        kinds=kinds,
    )


async def back_up(
    repository: Repository, objects: list[bytes], *, pack_bytes: int = PACK_BYTES, **said: Any
) -> tuple[Run, Manifest]:
    """Commit a recovery point of *objects* (ConfigMaps in order). *said* takes the place of fields of the draft."""
    run = await Run.begin(repository, pack_bytes=pack_bytes)
    await run.know()
    writer = run.kind("", "v1", "ConfigMap")
    for at in range(0, len(objects), PAGE_OBJECTS):
        await writer.add([split(o, "", "v1", "ConfigMap") for o in objects[at : at + PAGE_OBJECTS]])
    entry = KindEntry(
        group="",
        version="v1",
        kind="ConfigMap",
        plural="configmaps",
        namespaced=True,
        read_as=ReadAs.EXACT,
        objects=writer.objects,
        segments=await writer.finish(),
    )
    return run, await run.commit(msgspec.structs.replace(draft(entry), **said))


async def new_repository(
    store: ObjectStore, folder: Path, *, encryption: bool = True, max_run_seconds: int = MAX_RUN_SECONDS
) -> Repository:
    """Make a repository whose key file is `key.json` in *folder*."""
    repository, _ = await Repository.init(
        store, key_file=folder / "key.json", encryption=encryption, max_run_seconds=max_run_seconds
    )
    return repository
