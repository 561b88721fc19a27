"""The rows of Resource Graph's tables: what a resource looks like in a query. Pure.

Shape: azure-backup-for-aks.md, section 4. Types and resource groups are in lower case, as in Azure; ids and names as
they were written.
"""

from collections.abc import Mapping
from typing import Any, Final

from strongroom.protection.errors import Refused
from strongroom.protection.instance import ProtectionState
from strongroom.protection.policy import parse_policy

Row = dict[str, Any]

# What may be done with an instance in each state; the names are those seen in Azure's answers.
_ALWAYS: Final = ("Restore", "ChangePolicy", "EditBackupInstance", "Delete")


def row(document: Mapping[str, Any], *, type: str, tenant: str, location: str = "", **properties: Any) -> Row:
    """Return the row of an ARM document; *properties* are laid over its own.

    *location* is that of the resource it lies in, for those that have none of their own.
    """
    id = str(document["id"])
    segments = id.split("/")
    return {
        "id": id,
        "name": document["name"],
        "type": type.lower(),
        "tenantId": tenant,
        "kind": document.get("kind") or "",
        "location": document.get("location") or location,
        "resourceGroup": segments[4].lower() if len(segments) > 4 else "",
        "subscriptionId": segments[2],
        "managedBy": document.get("managedBy") or "",
        "sku": document.get("sku"),
        "plan": document.get("plan"),
        "properties": {**document.get("properties", {}), **properties},
        "tags": document.get("tags"),
        "identity": document.get("identity"),
        "zones": document.get("zones"),
        "extendedLocation": document.get("extendedLocation"),
    }


def extended_properties(
    vault: str, state: str, policy: Mapping[str, Any] | None, span: tuple[str, str] | None
) -> dict[str, Any]:
    """Return `backupInstanceExtendedProperties`; *span*: the times of the oldest and the newest point, None: none."""
    oldest, newest = span or (None, None)
    return {
        "allowedOperations": _allowed(state, has_points=span is not None),
        "protectionStateInSecondaryRegion": "",
        "protectedPrimaryRegion": "",
        "protectedSecondaryRegion": "",
        "vaultId": vault,
        "policyExtendedInfo": {"configuredMaximumRetention": _longest_retention(policy)},
        "recoveryPointInfo": {
            "oldestRecoveryPointInPrimaryRegion": oldest,
            "latestRecoveryPointInPrimaryRegion": newest,
            "oldestRecoveryPointInSecondaryRegion": None,
            "latestRecoveryPointInSecondaryRegion": None,
        },
    }


def _allowed(state: str, *, has_points: bool) -> list[str]:
    running = state == ProtectionState.CONFIGURED
    return [
        *(["BackupNow", "StopBackup"] if running else []),
        *(one for one in _ALWAYS if one != "Restore" or has_points),
    ]


def _longest_retention(policy: Mapping[str, Any] | None) -> str | None:
    """Return the longest retention of a policy as .NET writes a time span: `7.00:00:00`."""
    if policy is None:
        return None
    try:
        rules = parse_policy(policy).retention_rules
    except Refused:
        return None
    return f"{max(rule.operational.longest_days for rule in rules)}.00:00:00"
