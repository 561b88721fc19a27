"""All operations of Microsoft.DataProtection."""

from typing import Final

from strongroom.controlplane.arm.call import Call, Reply, listing
from strongroom.controlplane.arm.dataprotection import (
    actions,
    instances,
    jobs,
    misc,
    permissions,
    points,
    policies,
    vaults,
)
from strongroom.controlplane.arm.dataprotection.common import NAMESPACE
from strongroom.controlplane.arm.routing import Operation

_ROWS: Final = (
    *vaults.OPERATIONS,
    *policies.OPERATIONS,
    *instances.OPERATIONS,
    *actions.OPERATIONS,
    *permissions.OPERATIONS,
    *points.OPERATIONS,
    *jobs.OPERATIONS,
    *misc.OPERATIONS,
)


def list_operations(call: Call) -> Reply:
    """Answer which actions role definitions can name: those that the operations ask for."""
    names = sorted({row.action for row in OPERATIONS if row.action.startswith(NAMESPACE)})
    return listing(
        [
            {
                "name": name,
                "isDataAction": False,
                "origin": "user",
                "display": {
                    "provider": NAMESPACE,
                    "resource": name.split("/")[-2],
                    "operation": name,
                    "description": name,
                },
            }
            for name in names
        ]
    )


OPERATIONS: Final = (
    *_ROWS,
    Operation("DataProtectionOperations_List", "GET", f"/providers/{NAMESPACE}/operations", "", list_operations),
)
