"""The snapshot API's kinds, and its objects as values.

Field meanings: github.com/kubernetes-csi/external-snapshotter/client/v8, apis/volumesnapshot/v1/types.go.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

import msgspec

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery
from strongroom.dataplane.kube.kinds import Kind
from strongroom.errors import StrongroomError

GROUP: Final = "snapshot.storage.k8s.io"
VERSION: Final = "v1"
FIELD_MANAGER: Final = "strongroom"

BEING_DELETED_ANNOTATION: Final = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted"
"""On a content: its VolumeSnapshot is going, so csi-snapshotter may act on the content's deletion. Without it a deleted
content stays for ever (pkg/sidecar-controller/snapshot_controller.go, shouldDelete)."""

DELETION_SECRET_NAME_ANNOTATION: Final = "snapshot.storage.kubernetes.io/deletion-secret-name"  # noqa: S105
DELETION_SECRET_NAMESPACE_ANNOTATION: Final = "snapshot.storage.kubernetes.io/deletion-secret-namespace"  # noqa: S105

CONTENT_FINALIZER: Final = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"
"""What keeps a deleted content until csi-snapshotter has asked the driver to delete the snapshot."""

_SNAPSHOT_NAME = re.compile(r"strongroom-(?P<run>.+)-\d+")
_Object = TypeVar("_Object")


class SnapshotApiMissing(StrongroomError):
    """The cluster does not serve `snapshot.storage.k8s.io/v1`; *failed* says that it is served but does not answer."""

    def __init__(self, message: str, *, failed: bool) -> None:
        super().__init__(message, hint="Install the snapshot CRDs, snapshot-controller and a CSI driver with snapshots")
        self.failed = failed


@dataclass(frozen=True, slots=True)
class SnapshotKinds:
    """The three kinds of `snapshot.storage.k8s.io/v1`."""

    snapshot: Kind
    content: Kind
    snapshot_class: Kind


class ObjectMeta(msgspec.Struct, frozen=True, rename="camel"):
    """What we read of an object's metadata."""

    name: str
    creation_timestamp: datetime
    uid: str = ""
    namespace: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None
    finalizers: list[str] | None = None
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class SnapshotError(msgspec.Struct, frozen=True):
    """`status.error`: the controller's last failure. It retries, so the error may pass."""

    message: str | None = None


class SnapshotStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The status of a VolumeSnapshot; `creation_time` (ISO 8601, whole seconds) is set once the snapshot is cut."""

    bound_volume_snapshot_content_name: str | None = None
    creation_time: str | None = None
    ready_to_use: bool | None = None
    error: SnapshotError | None = None


class VolumeSnapshot(msgspec.Struct, frozen=True):
    """A VolumeSnapshot."""

    metadata: ObjectMeta
    status: SnapshotStatus = SnapshotStatus()


class ContentStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The status of a VolumeSnapshotContent: `creation_time` in nanoseconds since 1970, `restore_size` in bytes."""

    snapshot_handle: str | None = None
    volume_group_snapshot_handle: str | None = None
    creation_time: int | None = None
    restore_size: int | None = None
    ready_to_use: bool | None = None
    error: SnapshotError | None = None


class SnapshotRef(msgspec.Struct, frozen=True):
    """Which VolumeSnapshot a content belongs to."""

    name: str = ""
    namespace: str = ""
    uid: str = ""


class ContentSource(msgspec.Struct, frozen=True, rename="camel"):
    """`snapshot_handle` for a static content, none for one that csi-snapshotter was to cut."""

    snapshot_handle: str | None = None


class ContentSpec(msgspec.Struct, frozen=True, rename="camel"):
    """The spec of a VolumeSnapshotContent."""

    deletion_policy: str
    driver: str
    source: ContentSource = ContentSource()
    volume_snapshot_ref: SnapshotRef = SnapshotRef()
    volume_snapshot_class_name: str | None = None


class VolumeSnapshotContent(msgspec.Struct, frozen=True):
    """A VolumeSnapshotContent."""

    metadata: ObjectMeta
    spec: ContentSpec
    status: ContentStatus = ContentStatus()

    @property
    def handle(self) -> str:
        """The snapshot's handle on its storage, "" while there is none."""
        return self.status.snapshot_handle or self.spec.source.snapshot_handle or ""

    @property
    def run(self) -> str:
        """The run that asked for it, by its VolumeSnapshot's name; "" where Strongroom did not."""
        return run_of(self.spec.volume_snapshot_ref.name)


SNAPSHOTS: Final = msgspec.json.Decoder(VolumeSnapshot)
CONTENTS: Final = msgspec.json.Decoder(VolumeSnapshotContent)


def find_kinds(discovery: Discovery) -> SnapshotKinds:
    """Return the kinds that *discovery* found. Raises `SnapshotApiMissing`."""
    failure = next((reason for group, reason in discovery.failed.items() if group.split("/")[0] == GROUP), None)
    served = {kind.plural: kind for kind in discovery.kinds if kind.group == GROUP}
    if not served.keys() >= set(_PLURALS):
        if failure is not None:
            raise SnapshotApiMissing(f"the API group {GROUP} does not answer: {failure}", failed=True)
        raise SnapshotApiMissing(f"the cluster does not serve the API group {GROUP}", failed=False)
    kinds = [served[plural] for plural in _PLURALS]
    for kind in kinds:
        if VERSION not in discovery.versions.get((kind.group, kind.kind), (kind.version,)):
            raise SnapshotApiMissing(f"the cluster serves {GROUP}/{kind.version}, not {GROUP}/{VERSION}", failed=False)
    return SnapshotKinds(*(_in_version(kind) for kind in kinds))


_PLURALS = ("volumesnapshots", "volumesnapshotcontents", "volumesnapshotclasses")


def _in_version(kind: Kind) -> Kind:
    return Kind(kind.group, VERSION, kind.kind, kind.plural, kind.namespaced, kind.verbs)


async def objects(
    api: KubeApi, kind: Kind, decoder: msgspec.json.Decoder[_Object], labels: str | None = None
) -> AsyncIterator[_Object]:
    """Yield all objects of *kind*, decoded. Raises as `KubeApi.list_pages` does."""
    async for page in api.list_pages(kind, labels=labels):
        for item in page.items:
            yield decoder.decode(item)


def snapshot_name(run_id: str, number: int) -> str:
    """Return the name of a run's VolumeSnapshot. Raises `ValueError` for a run id that no object name can hold."""
    name = f"strongroom-{run_id}-{number}"
    if len(name) > 253 or not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name):
        raise ValueError(f"the run id {run_id!r} cannot be part of a Kubernetes object's name")
    return name


def run_of(name: str) -> str:
    """Return the run whose VolumeSnapshot has that *name*, "" for a name that is not ours."""
    match = _SNAPSHOT_NAME.fullmatch(name)
    return match["run"] if match else ""


def content_name(snapshot_uid: str) -> str:
    """Return the name that snapshot-controller gives the content of a VolumeSnapshot (pkg/utils/util.go,
    GetDynamicSnapshotContentNameForSnapshot): known also where the VolumeSnapshot's status does not say it yet."""
    return f"snapcontent-{snapshot_uid}"
