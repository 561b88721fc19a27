"""The commands `strongroom policy …`: when a vault's backups are made, and how long they are kept."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from strongroom.cli.output import DEFAULT_OUTPUT, Facts, Output, Table, emit
from strongroom.cli.protection import DEFAULT_VAULT, VaultOptions
from strongroom.cli.server import DEFAULT_SERVER, ServerOptions
from strongroom.client.backups import rule_names
from strongroom.client.resources import CLUSTERS
from strongroom.errors import UsageError

app = App(name="policy", help="Backup policies: when backups are made, how long they are kept.")

Json = dict[str, Any]

# docs/reference/policies.md: every 4, 6, 8 or 12 hours, daily, weekly.
PERIODS: Final = {"4h": "PT4H", "6h": "PT6H", "8h": "PT8H", "12h": "PT12H", "1d": "P1D", "7d": "P1W"}
STORE: Final = {"dataStoreType": "OperationalStore", "objectType": "DataStoreInfoBase"}


@app.command
def create(
    name: Annotated[str, Parameter(metavar="NAME", help="What the policy is called.")],
    /,
    *,
    every: Literal["4h", "6h", "8h", "12h", "1d", "7d"] = "4h",
    keep: Annotated[str, Parameter(metavar="DAYS")] = "7d",
    policy: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    vault: VaultOptions = DEFAULT_VAULT,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Create a backup policy, or replace the rules of one. With neither option every 4 hours, kept for 7 days.

    Parameters
    ----------
    every
        How often backups are made, counted from this full hour.
    keep
        How many days they are kept (`7d`), counted from each backup.
    policy
        The policy as a JSON file in Azure's form, for anything more: docs/reference/policies.md.
    """
    properties = _from_file(policy) if policy else simple_policy(every, keep, datetime.now(UTC))
    with server.session() as session:
        found = vault.find(session)
        made = session.put(f"{found.id}/backupPolicies/{name}", {"properties": properties})
    _show(output, made)


@app.command(name="list")
def list_(
    *, vault: VaultOptions = DEFAULT_VAULT, server: ServerOptions = DEFAULT_SERVER, output: Output = DEFAULT_OUTPUT
) -> None:
    """List the backup policies of a vault."""
    with server.session() as session:
        found = list(session.items(f"{vault.find(session).id}/backupPolicies"))
    rows = [(each["name"], ", ".join(rule_names(each)[2]), _kept(each)) for each in found]
    emit(output, found, Table(("name", "schedule", "kept"), rows, [str(each["name"]) for each in found]))


@app.command
def show(
    name: Annotated[str, Parameter(metavar="NAME", help="The policy.")],
    /,
    *,
    vault: VaultOptions = DEFAULT_VAULT,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Show a backup policy; its document is what --policy of `policy create` takes."""
    with server.session() as session:
        _show(output, session.get(f"{vault.find(session).id}/backupPolicies/{name}"))


def simple_policy(every: str, keep: str, now: datetime) -> Json:
    """Return the properties of a policy with one schedule, from this full hour (UTC) on, and one retention.

    Raises `UsageError` for a *keep* that is no number of days.
    """
    days = keep.removesuffix("d")
    if not (days.isascii() and days.isdigit()) or int(days) < 1:
        raise UsageError(f"--keep takes days such as 7d, not {keep!r}")
    start = now.replace(minute=0, second=0, microsecond=0).isoformat()
    return {
        "objectType": "BackupPolicy",
        "datasourceTypes": [CLUSTERS],
        "policyRules": [
            {
                "objectType": "AzureBackupRule",
                "name": "BackupHourly" if every.endswith("h") else "BackupDaily",
                "backupParameters": {"objectType": "AzureBackupParams", "backupType": "Incremental"},
                "dataStore": STORE,
                "trigger": {
                    "objectType": "ScheduleBasedTriggerContext",
                    "schedule": {"repeatingTimeIntervals": [f"R/{start}/{PERIODS[every]}"], "timeZone": "UTC"},
                    "taggingCriteria": [
                        {"tagInfo": {"id": "Default_", "tagName": "Default"}, "taggingPriority": 99, "isDefault": True}
                    ],
                },
            },
            {
                "objectType": "AzureRetentionRule",
                "name": "Default",
                "isDefault": True,
                "lifecycles": [
                    {
                        "deleteAfter": {"objectType": "AbsoluteDeleteOption", "duration": f"P{int(days)}D"},
                        "sourceDataStore": STORE,
                    }
                ],
            },
        ],
    }


def _from_file(path: Path) -> Json:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no JSON object")
    properties: Json = found.get("properties") or found
    return properties


def _kept(policy: Json) -> str:
    rules = [rule for rule in policy["properties"]["policyRules"] if rule["objectType"] == "AzureRetentionRule"]
    return ", ".join(f"{rule['name']} {rule['lifecycles'][0]['deleteAfter']['duration']}" for rule in rules)


def _show(output: Output, policy: Json) -> None:
    rule, _, intervals = rule_names(policy)
    values = {"policy": policy["name"], "backup rule": rule, "schedule": ", ".join(intervals), "kept": _kept(policy)}
    emit(output, policy, Facts(values | {"id": policy["id"]}, ids=[str(policy["id"])]))
