"""All operations of the API: what every provider answers, in one table."""

from typing import Final

from strongroom.controlplane.arm.authorization.table import OPERATIONS as AUTHORIZATION
from strongroom.controlplane.arm.compute.table import OPERATIONS as COMPUTE
from strongroom.controlplane.arm.containerservice import OPERATIONS as CONTAINER_SERVICE
from strongroom.controlplane.arm.dataprotection.table import OPERATIONS as DATA_PROTECTION
from strongroom.controlplane.arm.extensions import OPERATIONS as EXTENSIONS
from strongroom.controlplane.arm.graph.table import OPERATIONS as GRAPH
from strongroom.controlplane.arm.resourcegraph.table import OPERATIONS as RESOURCE_GRAPH
from strongroom.controlplane.arm.resources.table import OPERATIONS as RESOURCES
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.storage import OPERATIONS as STORAGE

OPERATIONS: Final[tuple[Operation, ...]] = (
    *AUTHORIZATION,
    *COMPUTE,
    *CONTAINER_SERVICE,
    *DATA_PROTECTION,
    *EXTENSIONS,
    *GRAPH,
    *RESOURCES,
    *RESOURCE_GRAPH,
    *STORAGE,
)
