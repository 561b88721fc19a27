"""All operations of Microsoft.Compute that are served."""

from typing import Final

from strongroom.controlplane.arm.compute import snapshots

OPERATIONS: Final = snapshots.OPERATIONS
