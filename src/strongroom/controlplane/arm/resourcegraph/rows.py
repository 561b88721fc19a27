"""The rows of Resource Graph's tables: what a resource looks like in a query. Pure.

Shape: azure-backup-for-aks.md, section 4. Types and resource groups are in lower case, as in Azure; ids and names as
they were written.
"""

from collections.abc import Mapping
from typing import Any, Final

from strongroom.protection.errors import Refused
from strongroom.protection.instance import ProtectionState
from strongroom.protection.policy import parse_policy
from strongroom.protection.schedule import HourlySeries

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
        "policyExtendedInfo": _policy_info(policy),
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


def _policy_info(policy: Mapping[str, Any] | None) -> dict[str, str | None]:
    """Return how often a policy asks for a recovery point and how long it keeps one, None where it cannot be read."""
    unknown: dict[str, str | None] = {"configuredRPGenerationFrequency": None, "configuredMaximumRetention": None}
    if policy is None:
        return unknown
    try:
        parsed = parse_policy(policy)
    except Refused:
        return unknown
    hours = min(one.hours if isinstance(one, HourlySeries) else 24 * one.days for one in parsed.schedule.series)
    days = max(rule.operational.longest_days for rule in parsed.retention_rules)
    return {
        "configuredRPGenerationFrequency": _time_span(hours),
        "configuredMaximumRetention": _time_span(24 * days),
    }


def _time_span(hours: int) -> str:
    """Return a span as .NET writes it: `04:00:00`, `7.00:00:00`."""
    days, rest = divmod(hours, 24)
    return f"{days}.{rest:02}:00:00" if days else f"{rest:02}:00:00"
