"""Microsoft.Compute, as far as backups show there: the CSI snapshots of recovery points, to be read."""
