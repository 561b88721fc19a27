"""Says whose recovery points to believe: a cluster's extension speaks for instances of that cluster alone.

A container may serve several clusters, and each extension may write any `caller` into the manifests that it signs.
So it is kept which cluster published which signing key, and a point counts for an instance only if the extension of the
instance's own cluster signed it.
"""

import json
from collections.abc import Iterable
from typing import Final

from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.dataplane.repository.model import Manifest
from strongroom.dataplane.repository.signing import writer_id

WRITER: Final = "writer/"  # the ARM ids (lower case, JSON) of the clusters that published a key, by the key's id
NOT_BELIEVED: Final = "RecoveryPointNotBelieved"
ACTION: Final = "Microsoft.DataProtection/backupVaults/backupInstances/sync/action"


def remember_writer(tx: Tx, cluster: str, public: bytes) -> None:
    """Keep that the extension of *cluster* (ARM id) published the raw Ed25519 key *public*."""
    name = WRITER + writer_id(public)
    clusters = _clusters(tx, name)
    if cluster.lower() not in clusters:
        # Another's key too: who publishes it cannot sign with it, and must not take it from him.
        tx.secrets.put(name, json.dumps(sorted({*clusters, cluster.lower()})).encode())


def is_known(tx: Tx, cluster: str, public: bytes) -> bool:
    """Say whether `remember_writer` has done that already."""
    return cluster.lower() in _clusters(tx, WRITER + writer_id(public))


def believed(tx: Tx, instance: Resource, manifests: Iterable[Manifest]) -> list[Manifest]:
    """Return those of *manifests* that the extension of the instance's cluster signed; audit the others."""
    cluster = str(instance.properties["dataSourceInfo"]["resourceID"]).strip()
    found = []
    for manifest in manifests:
        clusters = _clusters(tx, WRITER + manifest.writer)
        named = manifest.caller.get("instance", "").lower() == instance.id.lower()
        if named and cluster.lower() in clusters:
            found.append(manifest)
            continue
        by = ", ".join(clusters) or "an extension that is not known"
        what = f"signed by {by}" if named else f"made for {manifest.caller.get('instance', '')[:300] or 'no instance'}"
        tx.audit.add(
            NOT_BELIEVED,
            principal="",
            action=ACTION,
            scope=f"{instance.id}/recoveryPoints/{manifest.id}",
            outcome="Failed",
            detail=f"it is {what}, and the instance protects {cluster}",
        )
    return found


def _clusters(tx: Tx, name: str) -> list[str]:
    kept = tx.secrets.get(name)
    return [] if kept is None else list(json.loads(kept))
