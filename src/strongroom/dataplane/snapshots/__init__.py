"""CSI snapshots of the volumes of a recovery point: taken, handed over to the manifest, deleted, swept."""
