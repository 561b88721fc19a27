"""All operations of Microsoft.Authorization."""

from typing import Final

from strongroom.controlplane.arm.authorization import assignments, definitions

OPERATIONS: Final = (*definitions.OPERATIONS, *assignments.OPERATIONS)
