"""Microsoft.ContainerService: connected clusters, and which vaults may act in them."""

from typing import Final

from strongroom.controlplane.arm.containerservice import clusters, trusted_access
from strongroom.controlplane.arm.routing import Operation

OPERATIONS: Final[tuple[Operation, ...]] = (*clusters.OPERATIONS, *trusted_access.OPERATIONS)
