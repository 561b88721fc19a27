"""All operations of the directory."""

from typing import Final

from strongroom.controlplane.arm.graph import changes, directory

OPERATIONS: Final = (*directory.OPERATIONS, *changes.OPERATIONS)
