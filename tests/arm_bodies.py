"""Request bodies that tests of several tiers send; Azure's shapes: azure-backup-for-aks.md, section 3.5."""

from typing import Any

DATASOURCE = "Microsoft.ContainerService/managedClusters"
STORE = {"objectType": "DataStoreInfoBase", "dataStoreType": "OperationalStore"}


def hourly_policy(*, start: str = "2023-04-05T13:00:00+00:00", zone: str = "UTC") -> dict[str, Any]:
    """Return PowerShell's default policy: every 4 hours from *start* on, kept for 7 days."""
    default = {"tagInfo": {"id": "Default_", "tagName": "Default"}, "taggingPriority": 99, "isDefault": True}
    deletion = {"objectType": "AbsoluteDeleteOption", "duration": "P7D"}
    return {
        "properties": {
            "objectType": "BackupPolicy",
            "datasourceTypes": [DATASOURCE],
            "policyRules": [
                {
                    "objectType": "AzureBackupRule",
                    "name": "BackupHourly",
                    "backupParameters": {"objectType": "AzureBackupParams", "backupType": "Incremental"},
                    "dataStore": dict(STORE),
                    "trigger": {
                        "objectType": "ScheduleBasedTriggerContext",
                        "schedule": {"repeatingTimeIntervals": [f"R/{start}/PT4H"], "timeZone": zone},
                        "taggingCriteria": [default],
                    },
                },
                {
                    "objectType": "AzureRetentionRule",
                    "name": "Default",
                    "isDefault": True,
                    "lifecycles": [{"deleteAfter": deletion, "sourceDataStore": dict(STORE)}],
                },
            ],
        }
    }
