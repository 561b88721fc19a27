"""Bodies of CSI snapshots as resources."""

from typing import Required, TypedDict


class StrongroomSnapshot(TypedDict, total=False):
    """The CSI snapshot itself: its driver and handle, and where it came from."""

    driver: str
    handle: str
    snapshotClass: str
    storageClass: str
    volume: str


class SnapshotCreation(TypedDict, total=False):
    """How a snapshot came to be: always a copy of a volume."""

    createOption: str


class SnapshotProperties(TypedDict, total=False):
    """When a snapshot was cut and how large its volume was."""

    provisioningState: str
    timeCreated: str
    creationData: SnapshotCreation
    diskSizeBytes: int | None
    diskSizeGB: int | None
    strongroomSnapshot: StrongroomSnapshot


class SnapshotBody(TypedDict, total=False):
    """A CSI snapshot of a recovery point; its tags name cluster, namespace, claim, instance and point."""

    id: Required[str]
    name: Required[str]
    type: str
    location: str
    tags: dict[str, str]
    properties: SnapshotProperties
