"""The documents that a rebuild falls back to where recovery points do not tell what there was. Pure."""

from typing import Final

from strongroom.controlplane.arm.dataprotection.vaults import SOFT_DELETE_DAYS, SOFT_DELETE_DAYS_MAX
from strongroom.controlplane.arm.formats import ArmId
from strongroom.controlplane.catalog.rebuild import RebuiltInstance
from strongroom.controlplane.state.resources import Document
from strongroom.controlplane.workflows.readiness import DATASOURCE_TYPE
from strongroom.protection.errors import Refused

STORAGE: Final = [{"datastoreType": "OperationalStore", "type": "LocallyRedundant"}]
"""A vault's storage settings: the API demands them, and here they decide nothing."""


def security_settings(told: Document) -> Document:
    """Return a vault's security settings: as told, and soft delete as the service would have it."""
    soft = {"state": "On", "retentionDurationInDays": SOFT_DELETE_DAYS, **told.get("softDeleteSettings", {})}
    if not SOFT_DELETE_DAYS <= soft["retentionDurationInDays"] <= SOFT_DELETE_DAYS_MAX:
        soft["retentionDurationInDays"] = SOFT_DELETE_DAYS
    return {**told, "softDeleteSettings": soft}


def least_instance(id: str, vault: str, found: RebuiltInstance) -> Document:
    """Return the properties of an instance that would back up everything: cluster and policy as its points say."""
    cluster = found.data_source
    try:
        cluster = ArmId.parse(cluster, kind=DATASOURCE_TYPE).text
    except Refused:
        cluster = f"{vault.rpartition('/providers/')[0]}/providers/{DATASOURCE_TYPE}/unknown"
    policy = found.policy
    if not policy.lower().startswith(f"{vault.lower()}/backuppolicies/"):
        policy = f"{vault}/backupPolicies/rebuilt"
    source = {
        "objectType": "Datasource",
        "datasourceType": DATASOURCE_TYPE,
        "resourceType": DATASOURCE_TYPE,
        "resourceID": cluster,
        "resourceName": cluster.rpartition("/")[2],
    }
    return {
        "friendlyName": found.friendly_name or id.rpartition("/")[2],
        "dataSourceInfo": source,
        "dataSourceSetInfo": {**source, "objectType": "DatasourceSet"},
        "policyInfo": {
            "policyId": policy,
            "policyParameters": {
                "dataStoreParametersList": [
                    {
                        "objectType": "AzureOperationalStoreParameters",
                        "dataStoreType": "OperationalStore",
                        "resourceGroupId": vault.rpartition("/providers/")[0],
                    }
                ],
                "backupDatasourceParametersList": [
                    {
                        "objectType": "KubernetesClusterBackupDatasourceParameters",
                        "snapshotVolumes": True,
                        "includeClusterScopeResources": True,
                    }
                ],
            },
        },
    }


def daily_policy() -> Document:
    """Return the properties of the plainest policy: every day at two in the morning, kept for 30 days."""
    store = {"objectType": "DataStoreInfoBase", "dataStoreType": "OperationalStore"}
    tag = {"tagInfo": {"id": "Default_", "tagName": "Default"}, "taggingPriority": 99, "isDefault": True}
    return {
        "objectType": "BackupPolicy",
        "datasourceTypes": [DATASOURCE_TYPE],
        "policyRules": [
            {
                "objectType": "AzureBackupRule",
                "name": "BackupDaily",
                "backupParameters": {"objectType": "AzureBackupParams", "backupType": "Incremental"},
                "dataStore": store,
                "trigger": {
                    "objectType": "ScheduleBasedTriggerContext",
                    "schedule": {"repeatingTimeIntervals": ["R/2026-01-01T02:00:00+00:00/P1D"], "timeZone": "UTC"},
                    "taggingCriteria": [tag],
                },
            },
            {
                "objectType": "AzureRetentionRule",
                "name": "Default",
                "isDefault": True,
                "lifecycles": [
                    {
                        "deleteAfter": {"objectType": "AbsoluteDeleteOption", "duration": "P30D"},
                        "sourceDataStore": store,
                    }
                ],
            },
        ],
    }
