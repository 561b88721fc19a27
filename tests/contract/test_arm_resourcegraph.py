"""Searches over vaults and subscriptions, by the official client, and the CSI snapshots of recovery points."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.dataprotection import DataProtectionMgmtClient
from azure.mgmt.resource.resources import ResourceManagementClient
from azure.mgmt.resourcegraph import ResourceGraphClient

from strongroom.controlplane.home import Home
from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.points import StoredPoint
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import stamp
from strongroom.controlplane.workflows.jobdocs import ended, new_job
from strongroom.controlplane.workflows.pointdocs import snapshot_facts
from strongroom.dataplane.repository.model import VolumeEntry, VolumeState
from strongroom.protection.job import JobStatus

from ..serving import RunningServer

READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLUSTERS = "Microsoft.ContainerService/managedClusters"
INSTANCES = "Microsoft.DataProtection/backupVaults/backupInstances"
JOBS_QUERY = (
    "RecoveryServicesResources | where type =~ 'microsoft.dataprotection/backupvaults/backupjobs'"
    "| extend vaultName = properties.vaultName"
    "| extend operation = case( tolower(properties.operationCategory) startswith 'backup' "
    "and properties.isUserTriggered == 'true', strcat('OnDemand',properties.operationCategory)"
    ", tolower(properties.operationCategory) startswith 'backup' and properties.isUserTriggered == 'false', "
    "strcat('Scheduled', properties.operationCategory)"
    ", type =~ 'microsoft.dataprotection/backupVaults/backupJobs', properties.operationCategory, 'Invalid')"
)


@dataclass
class Stage:
    """Two vaults in one group; each has an instance with two jobs, the first one's a point with two snapshots."""

    server: RunningServer
    group: str
    vaults: list[Any]

    @property
    def subscriptions(self) -> list[str]:
        return [self.server.subscription]

    def ask(self, query: str, *, credential: Any = None, **options: Any) -> Any:
        client = self.server.client(ResourceGraphClient, subscription="", credential=credential)
        return client.resources({"subscriptions": self.subscriptions, "query": query, "options": options})


@pytest.fixture(scope="module")
def stage(server: RunningServer) -> Stage:
    resources = server.client(ResourceManagementClient)
    resources.providers.register("Microsoft.DataProtection")
    group = f"RG-{uuid.uuid4().hex[:8]}"
    resources.resource_groups.create_or_update(group, {"location": "westus"})
    client = server.client(DataProtectionMgmtClient).backup_vaults
    body = {
        "location": "westus",
        "tags": {"env": "test"},
        "properties": {"storageSettings": [{"datastoreType": "VaultStore", "type": "LocallyRedundant"}]},
    }
    vaults = [client.begin_create_or_update(group, name, body).result() for name in ("vault-a", "vault-b")]
    # Protection needs a cluster, which tests/e2e has: here its traces are written as the workers write them.
    home = Home.open(server.home)
    db = Database.open(home.database_url, home.secret_key)
    for number, vault in enumerate(vaults):
        protect(db, vault.id, group, with_point=number == 0)
    db.close()
    return Stage(server, group, vaults)


def protect(db: Database, vault_id: str, group: str, *, with_point: bool) -> None:
    subscription = vault_id.split("/")[2]
    cluster = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{CLUSTERS}/aks"
    id = f"{vault_id}/backupInstances/aks-1"
    properties = {
        "friendlyName": "aks",
        "currentProtectionState": "ProtectionConfigured",
        "dataSourceInfo": {"resourceID": cluster, "datasourceType": CLUSTERS, "resourceName": "aks"},
        "dataSourceSetInfo": {"resourceID": cluster, "datasourceType": CLUSTERS},
        "policyInfo": {
            "policyId": f"{vault_id}/backupPolicies/none",
            "policyParameters": {
                "dataStoreParametersList": [
                    {
                        "objectType": "AzureOperationalStoreParameters",
                        "dataStoreType": "OperationalStore",
                        "resourceGroupId": f"/subscriptions/{subscription}/resourceGroups/{group}",
                    }
                ]
            },
        },
    }
    instance = Resource(
        id, INSTANCES, {"id": id, "name": "aks-1", "type": INSTANCES, "properties": properties}, vault_id
    )
    with db.write() as tx:
        vault = tx.resources.get(vault_id)
        assert vault is not None
        tx.resources.put(instance)
        for minutes, on_demand in ((0, True), (5, False)):
            at = AT + timedelta(minutes=minutes)
            job = new_job(
                instance, "Backup", at, vault=vault, on_demand=on_demand, policy_name="none", task="Trigger Backup"
            )
            tx.jobs.add(ended(job, JobStatus.COMPLETED, at + timedelta(minutes=1)))
        if with_point:
            volumes = [
                VolumeEntry(
                    namespace="shop",
                    claim=claim,
                    claim_uid=str(uuid.uuid4()),
                    driver="disk.csi",
                    state=state,
                    handle=f"handle-{claim}",
                    restore_size_bytes=3 * 1024**3 - 1,
                    created=stamp(AT),
                )
                for claim, state in (
                    ("data", VolumeState.SNAPSHOT_READY),
                    ("logs", VolumeState.SNAPSHOT_FAILED),
                    ("more", VolumeState.SNAPSHOT_READY),
                )
            ]
            private = {"cluster": cluster, "volumes": snapshot_facts(volumes)}
            for age in (0, 1):
                point = f"{'ab'[age] * 31}{uuid.uuid4().hex[0]}"
                time = stamp(AT - timedelta(days=age))
                tx.points.put(StoredPoint(id, point, time, "", "Default", {"id": point}, private=private))


def group_filter(stage: Stage) -> str:
    return f" | where resourceGroup in~ ('{stage.group}')"


def test_jobs_of_two_vaults_are_found_in_one_search(stage: Stage) -> None:
    found = stage.ask(JOBS_QUERY + group_filter(stage) + " | where operation in~ ('OnDemandBackup')")
    assert (found.total_records, found.count, found.result_truncated) == (2, 2, "false")
    assert {row["vaultName"] for row in found.data} == {"vault-a", "vault-b"}
    [first, _] = found.data
    assert first["type"] == "microsoft.dataprotection/backupvaults/backupjobs"
    assert first["resourceGroup"] == stage.group.lower()
    assert first["subscriptionId"] == stage.server.subscription
    assert first["location"] == "westus"
    assert first["properties"]["status"] == "Completed"


def test_jobs_are_filtered_by_time_status_and_vault(stage: Stage) -> None:
    query = JOBS_QUERY + group_filter(stage) + " | where vaultName in~ ('vault-a')"
    later = query + " | where properties.startTime > datetime(2026-03-01T12:02:00Z)"
    assert [row["operation"] for row in stage.ask(later).data] == ["ScheduledBackup"]
    assert stage.ask(query + " | where properties.status in~ ('Failed')").data == []


def test_an_instance_says_what_may_be_done_and_between_which_points(stage: Stage) -> None:
    query = f"RecoveryServicesResources | where type =~ '{INSTANCES}'" + group_filter(stage) + " | order by id asc"
    [first, second] = stage.ask(query).data
    extended = first["properties"]["backupInstanceExtendedProperties"]
    assert {"BackupNow", "Restore", "StopBackup"} <= set(extended["allowedOperations"])
    assert extended["vaultId"].lower() == stage.vaults[0].id.lower()
    points = extended["recoveryPointInfo"]
    assert points["latestRecoveryPointInPrimaryRegion"] == stamp(AT)
    assert points["oldestRecoveryPointInPrimaryRegion"] == stamp(AT - timedelta(days=1))
    empty = second["properties"]["backupInstanceExtendedProperties"]
    assert "Restore" not in empty["allowedOperations"]
    assert empty["recoveryPointInfo"]["latestRecoveryPointInPrimaryRegion"] is None


def test_vaults_and_snapshots_are_resources(stage: Stage) -> None:
    kinds = stage.ask("Resources" + group_filter(stage) + " | summarize count() by type | order by type asc").data
    assert kinds == [
        {"type": "microsoft.compute/snapshots", "count_": 4},
        {"type": "microsoft.dataprotection/backupvaults", "count_": 2},
    ]
    vaults = stage.ask(f"resources | where type =~ 'microsoft.dataprotection/backupvaults'{group_filter(stage)}").data
    assert [v["tags"] for v in vaults] == [{"env": "test"}] * 2
    named = stage.ask(f"resources | where id in~ ('{stage.vaults[1].id}')").data
    assert [v["name"] for v in named] == ["vault-b"]


def test_an_answer_comes_in_pages_and_as_a_table(stage: Stage) -> None:
    query = JOBS_QUERY + group_filter(stage) + " | order by id asc | project id, operation"
    whole = [row["id"] for row in stage.ask(query).data]
    first = stage.ask(query, **{"$top": 3})
    assert (first.count, first.total_records, first.result_truncated) == (3, 4, "true")
    rest = stage.ask(query, **{"$top": 3, "$skipToken": first.skip_token})
    assert (rest.result_truncated, rest.skip_token) == ("false", None)
    assert [row["id"] for row in [*first.data, *rest.data]] == whole
    table = stage.ask(query, **{"$skip": 3, "resultFormat": "table"}).data
    assert table["columns"] == [{"name": "id", "type": "string"}, {"name": "operation", "type": "string"}]
    assert [row[0] for row in table["rows"]] == whole[3:]


def test_a_caller_finds_what_he_may_read_and_nothing_else(stage: Stage) -> None:
    _, credential = stage.server.caller(READER, stage.vaults[1].id)
    query = JOBS_QUERY + group_filter(stage)
    assert {row["vaultName"] for row in stage.ask(query, credential=credential).data} == {"vault-b"}
    found = stage.ask("Resources" + group_filter(stage), credential=credential).data
    assert [row["name"] for row in found] == ["vault-b"]
    _, nobody = stage.server.caller(READER)
    with pytest.raises(HttpResponseError) as refused:
        stage.ask(query, credential=nobody)
    assert "NoValidSubscriptionsInQueryRequest" in str(refused.value)


@pytest.mark.parametrize(
    ("query", "token"),
    [
        ("Resources | where type ~~ 'x'", "~"),
        ("Resources | join (Resources) on id", "join"),
        ("Elsewhere | take 1", "Elsewhere"),
        ("Resources | where", "end of query"),
    ],
)
def test_a_query_outside_the_language_is_refused_at_its_token(stage: Stage, query: str, token: str) -> None:
    with pytest.raises(HttpResponseError) as refused:
        stage.ask(query)
    assert refused.value.status_code == 400
    details = {d.code: d for d in refused.value.error.details}
    assert "InvalidQuery" in details
    assert details["ParserFailure"].target == token
    assert "line 1, column" in details["ParserFailure"].message


def test_snapshots_are_listed_and_read_in_their_resource_group(stage: Stage) -> None:
    place = f"/subscriptions/{stage.server.subscription}/resourceGroups/{stage.group}"
    path = f"{place}/providers/Microsoft.Compute/snapshots"
    status, answer = stage.server.request("GET", f"{path}?api-version=2024-03-02")
    assert status == 200
    found = answer["value"]
    assert [(s["tags"]["namespace"], s["tags"]["persistentVolumeClaim"]) for s in found] == [
        ("shop", "data"),
        ("shop", "more"),
    ] * 2
    first = found[0]
    assert first["tags"]["recoveryPoint"].startswith("a")
    assert first["tags"]["cluster"].endswith("/managedClusters/aks")
    assert first["properties"]["diskSizeGB"] == 3
    assert first["properties"]["strongroomSnapshot"]["handle"] == "handle-data"
    assert stage.server.request("GET", f"{first['id']}?api-version=2024-03-02") == (200, first)
    assert stage.server.request("GET", f"{path}/nothing-0?api-version=2024-03-02")[0] == 404
    assert stage.server.request("GET", f"{path}/{first['name']}9?api-version=2024-03-02")[0] == 404


def test_snapshots_come_in_pages_that_end_with_a_point(stage: Stage) -> None:
    link = f"/subscriptions/{stage.server.subscription}/resourceGroups/{stage.group}/providers/Microsoft.Compute"
    link += "/snapshots?api-version=2024-03-02&$top=1"
    pages = []
    while link:
        _, answer = stage.server.request("GET", link.removeprefix(stage.server.url))
        pages.append([s["name"] for s in answer["value"]])
        link = answer.get("nextLink", "")
    assert [len(page) for page in pages] == [2, 2]
    assert len({name for page in pages for name in page}) == 4
