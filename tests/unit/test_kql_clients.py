"""The queries that Azure's own clients send to Resource Graph, each as it leaves the client.

Source: azure-cli-extensions, `dataprotection/manual/backupcenter_helper.py`, and Az.DataProtection's
`Search-AzDataProtection*InAzGraph`.
"""

from datetime import UTC, datetime
from typing import Any

import pytest

from strongroom.controlplane.arm.kql import parse

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
CLUSTERS = "Microsoft.ContainerService/managedClusters"

INSTANCES = (
    "RecoveryServicesResources | where type =~ 'microsoft.dataprotection/backupvaults/backupinstances'"
    "| extend vaultName = split(split(id, '/Microsoft.DataProtection/backupVaults/')[1],'/')[0]"
    "| extend protectionState = properties.currentProtectionState"
    "| extend datasourceId = properties.dataSourceInfo.resourceID"
    " | where properties.dataSourceInfo.datasourceType in~ ('Microsoft.ContainerService/managedClusters')"
)
POWERSHELL_INSTANCES = INSTANCES.replace("| extend datasourceId = properties.dataSourceInfo.resourceID", "")
JOBS = (
    "RecoveryServicesResources | where type =~ 'microsoft.dataprotection/backupvaults/backupjobs'"
    "| extend vaultName = properties.vaultName"
    "| extend status = properties.status"
    "| extend operation = case( tolower(properties.operationCategory) startswith 'backup' "
    "and properties.isUserTriggered == 'true', strcat('OnDemand',properties.operationCategory)"
    ", tolower(properties.operationCategory) startswith 'backup' and properties.isUserTriggered == 'false', "
    "strcat('Scheduled', properties.operationCategory)"
    ", type =~ 'microsoft.dataprotection/backupVaults/backupJobs', properties.operationCategory, 'Invalid')"
    "| extend datasourceId = properties.dataSourceId"
    " | where properties.dataSourceType in~ ('Microsoft.ContainerService/managedClusters')"
)
VAULTS = "resources | where type =~ 'microsoft.dataprotection/backupvaults'"
DELETED_INSTANCES = (
    "RecoveryServicesResources"
    " | where type =~ 'Microsoft.DataProtection/locations/deletedvaults/deletedbackupinstances'"
    "| extend dataSourceType = strcat(properties.dataSourceSetInfo.datasourceType)"
    "| project id, type, name, location, resourceGroup, subscriptionId, dataSourceType, properties"
)


def filtered(query: str, key: str, *values: str) -> str:
    """Append a filter in the way of the clients' `add_filter_to_query`."""
    return query + " | where " + key + " in~ ('" + "','".join(values) + "')"


def row(vault: str, kind: str, name: str, properties: dict[str, Any], group: str = "rg") -> dict[str, Any]:
    vault_id = (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.DataProtection/backupVaults/{vault}"
    )
    return {
        "id": f"{vault_id}/{kind}/{name}",
        "name": name,
        "type": f"microsoft.dataprotection/backupvaults/{kind.lower()}",
        "tenantId": "t",
        "kind": "",
        "location": "westeurope",
        "resourceGroup": group.lower(),
        "subscriptionId": SUBSCRIPTION,
        "managedBy": "",
        "sku": None,
        "plan": None,
        "properties": properties,
        "tags": None,
        "identity": None,
        "zones": None,
        "extendedLocation": None,
    }


def instance(vault: str, name: str, state: str, cluster: str, group: str = "rg") -> dict[str, Any]:
    source = {"resourceID": cluster, "datasourceType": CLUSTERS}
    return row(vault, "backupInstances", name, {"currentProtectionState": state, "dataSourceInfo": source}, group)


def job(
    vault: str, name: str, category: str, status: str, *, by_user: bool, start: str, end: str | None = None
) -> dict[str, Any]:
    properties = {
        "vaultName": vault,
        "status": status,
        "operationCategory": category,
        "isUserTriggered": by_user,
        "dataSourceId": "/clusters/one",
        "dataSourceType": CLUSTERS,
        "startTime": start,
        "endTime": end,
    }
    return row(vault, "backupJobs", name, properties)


INSTANCE_ROWS = [
    instance("v1", "i1", "ProtectionConfigured", "/clusters/One"),
    instance("v2", "i2", "ProtectionStopped", "/clusters/two", group="Other"),
]
JOB_ROWS = [
    job(
        "v1",
        "j1",
        "Backup",
        "Completed",
        by_user=True,
        start="2026-02-01T10:00:00.1234567Z",
        end="2026-02-01T10:05:00Z",
    ),
    job("v1", "j2", "Backup", "InProgress", by_user=False, start="2026-02-02T10:00:00Z"),
    job("v2", "j3", "Restore", "Failed", by_user=True, start="2026-02-03T10:00:00Z", end="2026-02-03T11:00:00Z"),
]


def names(query: str, rows: list[dict[str, Any]]) -> list[str]:
    return [found["name"] for found in parse(query).run(rows, now=NOW)]


def test_the_instances_query_adds_vault_state_and_datasource_to_each_instance() -> None:
    query = parse(INSTANCES)
    found = query.run([*INSTANCE_ROWS, *JOB_ROWS], now=NOW)
    assert query.table == "RecoveryServicesResources"
    assert [(item["vaultName"], item["protectionState"], item["datasourceId"]) for item in found] == [
        ("v1", "ProtectionConfigured", "/clusters/One"),
        ("v2", "ProtectionStopped", "/clusters/two"),
    ]
    assert found[0] == INSTANCE_ROWS[0] | {
        "vaultName": "v1",
        "protectionState": "ProtectionConfigured",
        "datasourceId": "/clusters/One",
    }


@pytest.mark.parametrize(
    ("key", "values", "expected"),
    [
        ("resourceGroup", ["OTHER"], ["i2"]),
        ("vaultName", ["V1", "v3"], ["i1"]),
        ("protectionState", ["protectionstopped"], ["i2"]),
        ("datasourceId", ["/clusters/one"], ["i1"]),
        ("id", [INSTANCE_ROWS[1]["id"].upper()], ["i2"]),
        ("name", ["i1", "I2"], ["i1", "i2"]),
    ],
)
def test_each_filter_of_the_instances_query_keeps_what_it_names_in_any_case(
    key: str, values: list[str], expected: list[str]
) -> None:
    assert names(filtered(INSTANCES, key, *values), INSTANCE_ROWS) == expected


def test_powershells_instances_query_runs_without_the_datasource_column() -> None:
    (found,) = parse(filtered(POWERSHELL_INSTANCES, "vaultName", "v2")).run(INSTANCE_ROWS, now=NOW)
    assert found["vaultName"] == "v2"
    assert "datasourceId" not in found


@pytest.mark.parametrize(
    ("operation", "expected"),
    [("OnDemandBackup", ["j1"]), ("ScheduledBackup", ["j2"]), ("Restore", ["j3"]), ("Invalid", [])],
)
def test_the_jobs_query_tells_on_demand_scheduled_and_restore_jobs_apart(operation: str, expected: list[str]) -> None:
    assert names(filtered(JOBS, "operation", operation), JOB_ROWS) == expected


@pytest.mark.parametrize(
    ("clause", "expected"),
    [
        (" | where status in~ ('InProgress','Failed')", ["j2", "j3"]),
        (" | where vaultName in~ ('v2')", ["j3"]),
        (" | where datasourceId in~ ('/CLUSTERS/ONE')", ["j1", "j2", "j3"]),
        (" | where resourceGroup in~ ('rg')", ["j1", "j2", "j3"]),
        (" | where properties.startTime > datetime(2026-02-01T10:00:00Z)", ["j1", "j2", "j3"]),
        (" | where properties.startTime > datetime(2026-02-01T12:00:00Z)", ["j2", "j3"]),
        (" | where properties.startTime > datetime(2026-02-02 10:00:00.0000000Z)", ["j3"]),
        (" | where properties.endTime > datetime(2026-02-02T00:00:00Z)", ["j3"]),
        (" | where properties.endTime < datetime(2026-02-02T00:00:00Z)", ["j1"]),
    ],
)
def test_each_filter_of_the_jobs_query_keeps_what_it_names(clause: str, expected: list[str]) -> None:
    assert names(JOBS + clause, JOB_ROWS) == expected


def test_the_vaults_query_reads_resources_in_either_spelling_of_the_table() -> None:
    vault = row("v1", "x", "y", {}) | {"name": "v1", "type": "microsoft.dataprotection/backupvaults"}
    for text in (VAULTS, VAULTS.replace("resources", "Resources")):
        query = parse(filtered(filtered(text, "resourceGroup", "RG"), "name", "V1"))
        assert query.table == "Resources"
        assert query.run([vault, *INSTANCE_ROWS], now=NOW) == [vault]


def test_powershells_query_of_deleted_instances_projects_its_columns_in_order() -> None:
    deleted = row("v1", "x", "d1", {"dataSourceSetInfo": {"datasourceType": CLUSTERS}})
    deleted["type"] = "microsoft.dataprotection/locations/deletedvaults/deletedbackupinstances"
    (found,) = parse(DELETED_INSTANCES).run([deleted, *INSTANCE_ROWS], now=NOW)
    assert list(found) == [
        "id", "type", "name", "location", "resourceGroup", "subscriptionId", "dataSourceType", "properties",
    ]  # fmt: skip
    assert found["dataSourceType"] == CLUSTERS


def test_the_clients_queries_let_a_caller_select_by_type_and_group_and_id() -> None:
    query = filtered(filtered(INSTANCES, "resourceGroup", "RG1", "rg2"), "id", "/Subscriptions/A")
    assert parse(filtered(query, "vaultName", "v")).conditions() == {
        "type": frozenset({"microsoft.dataprotection/backupvaults/backupinstances"}),
        "resourceGroup": frozenset({"rg1", "rg2"}),
        "id": frozenset({"/subscriptions/a"}),
    }
