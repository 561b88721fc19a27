"""Recovery points as the API answers them, made from what their manifests say of themselves."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.points import StoredPoint
from strongroom.controlplane.state.resources import Document
from strongroom.controlplane.state.times import stamp
from strongroom.controlplane.workflows.containers import Place
from strongroom.dataplane.repository.model import Manifest, VolumeEntry, VolumeState
from strongroom.protection.times import TimeTextInvalid, parse_calendar_period, parse_instant

POINTS: Final = "Microsoft.DataProtection/backupVaults/backupInstances/recoveryPoints"


def store_points(tx: Tx, instance: str, place: Place, manifests: Iterable[Manifest]) -> int:
    """Make the points of *manifests* known as those of *instance*; return how many were new."""
    new = 0
    for manifest in manifests:
        if tx.points.get(instance, manifest.id) is None:
            tx.points.put(stored_point(instance, place, manifest))
            new += 1
    return new


def stored_point(instance: str, place: Place, manifest: Manifest) -> StoredPoint:
    """Return the stored form of a point. Shape: azure-backup-for-aks.md, section 3.5."""
    caller = manifest.caller
    time = point_time(manifest)
    expiry = expiry_of(caller.get("retention", ""), time)
    policy = caller.get("policy", "")
    full = not manifest.incremental.base
    document: Document = {
        "id": f"{instance}/recoveryPoints/{manifest.id}",
        "name": manifest.id,
        "type": POINTS,
        "properties": {
            "objectType": "AzureBackupDiscreteRecoveryPoint",
            "recoveryPointId": manifest.id,
            "friendlyName": manifest.id,
            "recoveryPointTime": time,
            "recoveryPointType": "Full" if full else "Incremental",
            "recoveryPointState": "Completed" if manifest.state == "Completed" else "Partial",
            "recoveryPointDataStoresDetails": [
                {
                    "id": place.location_name,
                    "type": "OperationalStore",
                    "creationTime": time,
                    "expiryTime": expiry or None,
                    "metaData": None,
                    "visible": True,
                    "state": "COMMITTED",
                    "rehydrationExpiryTime": None,
                    "rehydrationStatus": None,
                }
            ],
            "retentionTagName": caller.get("tag", "").lower() or None,
            "retentionTagVersion": caller.get("policyVersion") or None,
            "policyName": policy.rpartition("/")[2] or None,
            "policyVersion": caller.get("policyVersion") or None,
            "expiryTime": expiry or None,
        },
    }
    private: Document = {
        "container": place.id,
        "cluster": caller.get("dataSource", ""),
        "slot": caller.get("slot", ""),
        "trigger": caller.get("trigger", ""),
        "job": caller.get("job", ""),
        "volumes": snapshot_facts(manifest.volumes),
    }
    return StoredPoint(instance, manifest.id, time, expiry, caller.get("tag", ""), document, private=private)


def snapshot_facts(volumes: Iterable[VolumeEntry]) -> list[Document]:
    """Return what is remembered of the CSI snapshots that a point holds, in the manifest's order."""
    return [
        {
            "namespace": one.namespace,
            "claim": one.claim,
            "driver": one.driver,
            "handle": one.handle,
            "snapshotClass": one.snapshot_class,
            "storageClass": one.storage_class,
            "volume": one.volume,
            "sizeBytes": one.restore_size_bytes,
            "created": one.created,
        }
        for one in volumes
        if one.state is VolumeState.SNAPSHOT_READY and one.handle
    ]


def point_time(manifest: Manifest) -> str:
    """Return when the point was read (X), as a stamp."""
    return stamp(datetime.fromisoformat(manifest.instant.taken))


def expiry_of(retention: str, time: str) -> str:
    """Return when a point taken at *time* (a stamp) expires that was made under *retention* (P7D); "" for never."""
    try:
        return stamp(parse_calendar_period(retention).after(parse_instant(time)).to_stdlib()) if retention else ""
    except TimeTextInvalid:
        # The manifest is from a container that others write to: a retention that cannot be read keeps the point.
        return ""
