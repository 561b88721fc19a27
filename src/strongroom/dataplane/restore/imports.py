"""Brings CSI snapshots of a recovery point into the target, so that claims can be filled from them.

For each claim a static VolumeSnapshotContent (always Retain: deleting it never deletes the backup's data on the
storage) and the VolumeSnapshot bound to it. Both are removed once the claim is bound; what a restore leaves behind,
because its claim waits for a Pod, `sweep_imports` removes later.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import (
    KubeAlreadyExists,
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeNotFound,
    KubeUnauthorized,
    KubeUnreachable,
)
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.restore.gather import refusal_of
from strongroom.dataplane.restore.model import PlannedObject, VolumeImport
from strongroom.dataplane.restore.waits import until

CONTENT_KIND = Kind(
    "snapshot.storage.k8s.io", "v1", "VolumeSnapshotContent", "volumesnapshotcontents", False, frozenset()
)
SNAPSHOT_KIND = Kind("snapshot.storage.k8s.io", "v1", "VolumeSnapshot", "volumesnapshots", True, frozenset())
CLAIM_KIND = Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True, frozenset())
RESTORE_LABEL = "strongroom.dev/restore"
CLAIM_ANNOTATION = "strongroom.dev/claim"
READY_SECONDS = 60  # an import reads the snapshot's state from the driver; nothing is copied
NUDGE_SECONDS = 3.0  # an import takes about 0.2 s where the controllers are idle; the pause doubles
NUDGED_ANNOTATION = "strongroom.dev/import-seen-at"
BOUND_SECONDS = 120  # a driver that copies on provisioning needs its time; then the sweep takes over
ABANDONED_AFTER = timedelta(days=1)  # an import without a claim: a restore in flight makes the claim within minutes
SWEPT_AT_ONCE = 8
FIELD_MANAGER = "strongroom"


def import_name(restore_id: str, planned: PlannedObject) -> str:
    """Return the name of the snapshot and the content from which a planned claim is filled."""
    return f"strongroom-{restore_id}-{planned.number}"


async def import_snapshot(api: KubeApi, restore_id: str, planned: PlannedObject, volume: VolumeImport) -> str:
    """Make content and snapshot for a claim and wait until the snapshot can be used; return "" or why it cannot.

    Safe to repeat: both have names of their own in this restore. Raises a `KubeError` when the target refuses them.
    """
    name = import_name(restore_id, planned)
    marks = {
        "labels": {RESTORE_LABEL: restore_id},
        "annotations": {CLAIM_ANNOTATION: f"{planned.namespace}/{planned.name}"},
    }
    content = {
        "apiVersion": CONTENT_KIND.api_version,
        "kind": CONTENT_KIND.kind,
        "metadata": {"name": name, **marks},
        "spec": {
            "deletionPolicy": "Retain",
            "driver": volume.driver,
            "source": {"snapshotHandle": volume.handle},
            "sourceVolumeMode": volume.volume_mode,
            "volumeSnapshotRef": {
                "apiVersion": SNAPSHOT_KIND.api_version,
                "kind": SNAPSHOT_KIND.kind,
                "name": name,
                "namespace": planned.namespace,
            },
        },
    }
    snapshot = {
        "apiVersion": SNAPSHOT_KIND.api_version,
        "kind": SNAPSHOT_KIND.kind,
        "metadata": {"name": name, "namespace": planned.namespace, **marks},
        "spec": {"source": {"volumeSnapshotContentName": name}},
    }
    for kind, namespace, body in ((CONTENT_KIND, None, content), (SNAPSHOT_KIND, planned.namespace, snapshot)):
        try:
            await api.create(kind, body, namespace, field_manager=FIELD_MANAGER)
        except KubeAlreadyExists:
            continue  # an earlier attempt of this very restore made it

    clock = asyncio.get_running_loop().time
    nudge_after = NUDGE_SECONDS
    nudge_at = clock() + nudge_after

    async def ready() -> str:
        nonlocal nudge_after, nudge_at
        raw = await api.get_at(SNAPSHOT_KIND, name, planned.namespace)
        if raw is None:
            return "its VolumeSnapshot is gone"
        status = msgspec.json.decode(raw).get("status") or {}
        if status.get("readyToUse"):
            return ""
        if clock() >= nudge_at:
            nudge_after *= 2
            nudge_at = clock() + nudge_after
            await _nudge(api, name)
        error = (status.get("error") or {}).get("message", "")
        return f"the snapshot {volume.handle} of driver {volume.driver} is not ready{': ' + error if error else ''}"

    # The claim comes after its snapshot is ready: a provisioner that finds it not ready backs off for many seconds.
    why = await until(ready, READY_SECONDS)
    if why:
        await _remove(api, name, planned.namespace)
    return why


async def _nudge(api: KubeApi, name: str) -> None:
    """Change an annotation of a content, so that both CSI controllers look at it again.

    Either may miss the moment in which the other has done its part, and then looks again at its resync only, which is
    15 minutes away (as in kubernetes-csi/external-snapshotter issue 225).
    """
    seen = {"metadata": {"annotations": {NUDGED_ANNOTATION: datetime.now(UTC).isoformat(timespec="seconds")}}}
    with suppress(KubeNotFound, KubeForbidden, KubeConflict):  # it is a help; the wait's end tells what is wrong
        await api.patch(CONTENT_KIND, name, None, seen, "merge", field_manager=FIELD_MANAGER)


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    annotations: dict[str, str] = {}
    creation_timestamp: str = ""


class _SnapshotRef(msgspec.Struct, frozen=True):
    namespace: str = ""
    name: str = ""


class _ContentSpec(msgspec.Struct, frozen=True, rename="camel"):
    volume_snapshot_ref: _SnapshotRef = _SnapshotRef()
    deletion_policy: str = ""


class _Content(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _ContentSpec


class _ClaimStatus(msgspec.Struct, frozen=True):
    phase: str = ""


class _Claim(msgspec.Struct, frozen=True):
    status: _ClaimStatus = _ClaimStatus()


_content = msgspec.json.Decoder(_Content).decode
_claim = msgspec.json.Decoder(_Claim).decode


async def finish_imports(api: KubeApi, restore_id: str, claims: Sequence[PlannedObject]) -> list[str]:
    """Wait for claims that bind at once, then remove the imports of all claims that are bound; return warnings.

    A claim that waits for its first consumer is not waited for.
    """
    warnings = []

    async def bound(claim: PlannedObject) -> str:
        raw = await api.get_at(CLAIM_KIND, claim.name, claim.namespace)
        phase = _claim(raw).status.phase if raw is not None else "gone"
        return "" if phase == "Bound" else f"it is {phase}"

    waiting = [claim for claim in claims if claim.volume and not claim.volume.waits_for_consumer]

    async def wait(claim: PlannedObject) -> str:
        why = await until(lambda: bound(claim), BOUND_SECONDS)
        return f"claim {claim.namespace}/{claim.name} is not bound after {BOUND_SECONDS} s: {why}" if why else ""

    warnings += [why for why in await asyncio.gather(*(wait(claim) for claim in waiting)) if why]
    await sweep_imports(api, restore_id=restore_id)
    return warnings


async def sweep_imports(api: KubeApi, *, restore_id: str = "") -> list[str]:
    """Remove the imports of restores (of one: *restore_id*) whose claims are bound; return their names.

    One whose claim is missing is removed when it is older than a day. The storage's snapshots stay: Retain.
    """
    labels = f"{RESTORE_LABEL}={restore_id}" if restore_id else RESTORE_LABEL
    try:
        found = [_content(item) async for page in api.list_pages(CONTENT_KIND, labels=labels) for item in page.items]
    except (KubeNotFound, KubeForbidden):
        return []  # no snapshot API, or none of our business
    gate = asyncio.Semaphore(SWEPT_AT_ONCE)

    async def sweep(content: _Content) -> str:
        async with gate:
            return content.metadata.name if await _sweep_one(api, content) else ""

    return [name for name in await asyncio.gather(*(sweep(content) for content in found)) if name]


async def _sweep_one(api: KubeApi, content: _Content) -> bool:
    namespace, _, name = content.metadata.annotations.get(CLAIM_ANNOTATION, "").partition("/")
    if not name or content.spec.deletion_policy != "Retain":
        return False  # not as we made it: somebody else decides
    raw = await api.get_at(CLAIM_KIND, name, namespace)
    if raw is not None and _claim(raw).status.phase != "Bound":
        return False
    made = datetime.fromisoformat(content.metadata.creation_timestamp)
    if raw is None and datetime.now(UTC) - made < ABANDONED_AFTER:
        return False
    await _remove(api, content.metadata.name, content.spec.volume_snapshot_ref.namespace)
    return True


async def _remove(api: KubeApi, name: str, namespace: str) -> None:
    """Remove an import. The storage keeps its snapshot: the content says Retain."""
    try:
        with suppress(KubeNotFound):
            await api.delete(SNAPSHOT_KIND, name, namespace)
        with suppress(KubeNotFound):
            await api.delete(CONTENT_KIND, name)
    except (KubeUnreachable, KubeUnauthorized):
        raise
    except KubeError as error:
        raise type(error)(
            f"the import {name} in namespace {namespace} could not be removed: {refusal_of(error)}",
            hint="Remove the VolumeSnapshot and its VolumeSnapshotContent by hand; the backup's data is not touched",
        ) from error
