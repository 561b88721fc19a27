"""CSI snapshots of the volumes of a recovery point."""
