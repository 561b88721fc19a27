"""Microsoft.KubernetesConfiguration/extensions: the backup extension of a connected cluster."""

from typing import Final

from strongroom.controlplane.arm.extensions import extensions
from strongroom.controlplane.arm.routing import Operation

OPERATIONS: Final[tuple[Operation, ...]] = extensions.OPERATIONS
