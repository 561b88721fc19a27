"""The real `az`, unmodified, against a server of ours: sign-in, groups, roles, storage, clusters, and `az rest`.

Skips where azure-cli is not installed: `make compat` installs it. Its extensions (`az dataprotection` and
`az k8s-extension`) are no packages of PyPI; what they send is replayed in test_recorded_requests.py.
"""

import base64
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.testbed.azure_cli import VERSION, installed
from strongroom.testbed.cluster import Testbed

from ..serving import RunningServer, running_server
from .azure_command import AzureCli, new_cli, sign_in, signed_in

OPERATOR = "Microsoft.DataProtection/backupVaults/backup-operator"
VAULT = {
    "identity": {"type": "SystemAssigned"},
    "location": "westeurope",
    "properties": {
        "securitySettings": {"softDeleteSettings": {"retentionDurationInDays": 14.0, "state": "On"}},
        "storageSettings": [{"datastoreType": "VaultStore", "type": "LocallyRedundant"}],
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A control plane of this file's own: az works in the one subscription there is, and other tests make more."""
    if installed() is None:
        pytest.skip(f"azure-cli {VERSION} is not installed: make compat")
    with running_server(tmp_path_factory.mktemp("az-server")) as running:
        yield running


@pytest.fixture(scope="module")
def az(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> AzureCli:
    """az, signed in as the administrator of the server."""
    return signed_in(server, tmp_path_factory.mktemp("az"))


@pytest.fixture
def group(az: AzureCli) -> str:
    name = f"az-{uuid.uuid4().hex[:8]}"
    az("group", "create", "-n", name, "-l", "westeurope", "--tags", "made=here")
    return name


@pytest.fixture
def vault(az: AzureCli, server: RunningServer, group: str, tmp_path: Path) -> str:
    """A vault that az has made and waited for."""
    az("provider", "register", "-n", "Microsoft.DataProtection", "--wait")
    base = f"/subscriptions/{server.subscription}/resourceGroups/{group}/providers/Microsoft.DataProtection"
    body = written(tmp_path / "vault.json", VAULT)
    version = ("--api-version", "2025-07-01")
    made = az("resource", "create", "--id", f"{base}/backupVaults/vault1", "--is-full-object", "-p", body, *version)
    assert made["properties"]["provisioningState"] == "Succeeded", "az has polled until the vault was there"
    return str(made["id"])


def written(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document))
    return f"@{path}"


def test_the_account_is_the_server_s_subscription(az: AzureCli, server: RunningServer) -> None:
    shown = az("account", "show")
    assert (shown["id"], shown["tenantId"]) == (server.subscription, server.ready["tenantId"])
    assert shown["user"] == {"name": server.ready["clientId"], "type": "servicePrincipal"}
    assert "westeurope" in {one["name"] for one in az("account", "list-locations")}
    assert az("account", "get-access-token")["subscription"] == server.subscription


def test_the_tenant_adfs_needs_no_setting_of_instance_discovery(server: RunningServer, tmp_path: Path) -> None:
    cli = new_cli(server, tmp_path)
    endpoints = ("--endpoint-resource-manager", server.url, "--endpoint-active-directory", f"{server.url}/adfs")
    cli("cloud", "register", "-n", "Strongroom", *endpoints)
    cli("cloud", "set", "-n", "Strongroom")
    [account] = sign_in(cli, server, "adfs")
    assert account["id"] == server.subscription
    assert cli("group", "list") == [] or cli("group", "list")
    # `az ad` adds the lifetime of a token to the time: it has to be a number.
    assert server.ready["clientId"] in {one["appId"] for one in cli("ad", "sp", "list", "--all")}


def test_resource_groups(az: AzureCli, group: str) -> None:
    assert az("group", "show", "-n", group)["tags"] == {"made": "here"}
    assert az("group", "update", "-n", group, "--set", "tags.more=yes")["tags"] == {"made": "here", "more": "yes"}
    assert group in {one["name"] for one in az("group", "list", "--tag", "more=yes")}
    assert az("group", "exists", "-n", group) is True
    az("group", "delete", "-n", group, "--yes")
    assert az("group", "exists", "-n", group) is False
    assert "ResourceGroupNotFound" in az.refused("group", "show", "-n", group)


def test_providers(az: AzureCli) -> None:
    az("provider", "register", "-n", "Microsoft.KubernetesConfiguration", "--wait")
    shown = az("provider", "show", "-n", "Microsoft.KubernetesConfiguration")
    assert shown["registrationState"] == "Registered"
    assert "extensions" in {kind["resourceType"] for kind in shown["resourceTypes"]}
    assert "Microsoft.DataProtection" in {one["namespace"] for one in az("provider", "list")}


def test_storage_accounts_and_containers(az: AzureCli, group: str) -> None:
    name = f"az{uuid.uuid4().hex[:10]}"
    where = ("-n", name, "-g", group)
    assert az("storage", "account", "check-name", "--name", name)["nameAvailable"] is True
    made = az("storage", "account", "create", *where, "--sku", "Standard_LRS", "--allow-shared-key-access", "false")
    assert made["allowSharedKeyAccess"] is False
    assert made["primaryEndpoints"]["blob"]
    assert az("storage", "account", "show", "-n", name)["id"] == made["id"], "found without its group"
    assert az("storage", "account", "update", *where, "--tags", "a=b")["tags"] == {"a": "b"}
    assert [key["keyName"] for key in az("storage", "account", "keys", "list", *where)] == ["key1", "key2"]
    container = ("-n", "points", "--storage-account", name, "-g", group)
    assert az("storage", "container-rm", "create", *container)["name"] == "points"
    assert az("storage", "container-rm", "exists", *container)["exists"] is True
    containers = az("storage", "container-rm", "list", "--storage-account", name, "-g", group)
    assert [one["name"] for one in containers] == ["points"]
    assert "ResourceGroupDeletionBlocked" in az.refused("group", "delete", "-n", group, "--yes")
    az("storage", "container-rm", "delete", *container, "--yes")
    az("storage", "account", "delete", *where, "--yes")
    assert az("storage", "account", "list", "-g", group) == []


def test_roles_of_a_service_principal(az: AzureCli, server: RunningServer, group: str) -> None:
    scope = f"/subscriptions/{server.subscription}/resourceGroups/{group}"
    name = f"caller-{uuid.uuid4().hex[:8]}"
    made = az("ad", "sp", "create-for-rbac", "-n", name, "--role", "Reader", "--scopes", scope)
    app = made["appId"]
    principal = az("ad", "sp", "show", "--id", app)
    assert principal["displayName"] == name
    assert name in {one["displayName"] for one in az("ad", "sp", "list", "--all")}
    assert [one["id"] for one in az("ad", "sp", "list", "--display-name", name)] == [principal["id"]]

    assignments = ("role", "assignment")
    created = az(*assignments, "create", "--assignee", app, "--role", "Backup Contributor", "--scope", scope)
    assert (created["principalId"], created["scope"]) == (principal["id"], scope)
    by_id = ("--assignee-object-id", principal["id"], "--assignee-principal-type", "ServicePrincipal")
    repeated = az(*assignments, "create", *by_id, "--role", "Backup Contributor", "--scope", scope)
    assert repeated["name"] == created["name"], "az answers the one that exists"
    listed = az(*assignments, "list", "--assignee", app, "--all")
    assert {one["roleDefinitionName"] for one in listed} == {"Reader", "Backup Contributor"}
    assert {one["principalName"] for one in listed} == {app}
    az(*assignments, "delete", "--assignee", app, "--role", "Backup Contributor", "--scope", scope)
    assert [one["roleDefinitionName"] for one in az(*assignments, "list", "-g", group)] == ["Reader"]
    assert "doesn't exist" in az.refused(*assignments, "create", *by_id, "--role", "Nonsense", "--scope", scope)

    renewed = az("ad", "app", "credential", "reset", "--id", app)
    assert server.token(server.sign_in(app, renewed["password"]))
    az("ad", "app", "delete", "--id", app)
    assert "does not exist" in az.refused("ad", "sp", "show", "--id", app)


def test_role_definitions(az: AzureCli) -> None:
    [reader] = az("role", "definition", "list", "--name", "Reader")
    assert reader["name"] == "acdd72a7-3385-48ef-bd42-f606fba81ae7"
    assert reader["permissions"][0]["actions"] == ["*/read"]
    assert "Disk Snapshot Contributor" in {one["roleName"] for one in az("role", "definition", "list")}


def test_resources_of_every_kind(az: AzureCli, group: str, vault: str) -> None:
    assert [one["id"] for one in az("resource", "list", "-g", group)] == [vault]
    kind = ("--resource-type", "Microsoft.DataProtection/backupVaults")
    assert vault in {one["id"] for one in az("resource", "list", *kind)}
    # az leaves an empty segment where a resource has no parent.
    assert az("resource", "show", "-g", group, "-n", "vault1", *kind)["id"] == vault
    assert az("resource", "tag", "--ids", vault, "--tags", "a=b")["tags"] == {"a": "b"}
    az("resource", "delete", "--ids", vault)
    assert az("resource", "list", "-g", group) == []
    assert "ResourceNotFound" in az.refused("resource", "show", "--ids", vault)


def test_rest_reaches_every_route_and_errors_are_told(az: AzureCli, group: str, vault: str, tmp_path: Path) -> None:
    version = "api-version=2025-07-01"
    url = f"{vault}?{version}"
    shown = az("rest", "--url", url)
    assert shown["identity"]["principalId"]
    shown["tags"] = {"tier": "gold"}
    answer = az("rest", "--method", "put", "--url", url, "--body", written(tmp_path / "body.json", shown))
    assert answer["tags"] == {"tier": "gold"}
    assert az("rest", "--url", url)["properties"]["provisioningState"] == "Succeeded"
    jobs = "RecoveryServicesResources | where type =~ 'microsoft.dataprotection/backupvaults/backupjobs'"
    query = written(tmp_path / "query.json", {"query": jobs, "options": {"resultFormat": "objectArray"}})
    graph = "/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01"
    found = az("rest", "--method", "post", "--url", graph, "--body", query)
    assert (found["data"], found["resultTruncated"]) == ([], "false")
    bad = written(tmp_path / "bad.json", {"properties": {"objectType": "BackupPolicy", "policyRules": "none"}})
    policy = f"{vault}/backupPolicies/p?{version}"
    assert "policyRules" in az.refused("rest", "--method", "put", "--url", policy, "--body", bad)
    # az waits for the operation of a POST, and tells what it failed with.
    request = json.dumps({"backupInstance": {"objectType": "BackupInstance"}})
    action = ("resource", "invoke-action", "--ids", vault, "--action", "validateForBackup", "--request-body", request)
    assert "dataSourceInfo" in az.refused(*action, "--api-version", "2025-07-01")


@pytest.fixture(scope="module")
def cluster_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of its own: a cluster is connected under one name, and disconnecting it leaves nothing behind."""
    if installed() is None:
        pytest.skip(f"azure-cli {VERSION} is not installed: make compat")
    with running_server(tmp_path_factory.mktemp("az-cluster")) as server:
        yield server


def test_clusters_and_trusted_access(cluster_server: RunningServer, compat_cluster: Testbed, tmp_path: Path) -> None:
    server = cluster_server
    az = signed_in(server, tmp_path, slash="")
    for namespace in ("Microsoft.ContainerService", "Microsoft.DataProtection"):
        az("provider", "register", "-n", namespace)
    az("group", "create", "-n", "aks", "-l", "westeurope")
    base = f"/subscriptions/{server.subscription}/resourceGroups/aks/providers"
    cluster = f"{base}/Microsoft.ContainerService/managedClusters/aks1"
    kubeconfig = base64.b64encode(compat_cluster.kubeconfig.read_bytes()).decode()
    connection = {"location": "westeurope", "properties": {"strongroomConnection": {"kubeconfig": kubeconfig}}}
    body = written(tmp_path / "cluster.json", connection)
    az("rest", "--method", "put", "--url", f"{cluster}?api-version=2026-06-01", "--body", body)
    vault = f"{base}/Microsoft.DataProtection/backupVaults/vault1"
    made = ("--is-full-object", "-p", written(tmp_path / "vault.json", VAULT), "--api-version", "2025-07-01")
    az("resource", "create", "--id", vault, *made)

    shown = az("aks", "show", "-g", "aks", "-n", "aks1")
    assert shown["identity"]["principalId"]
    assert shown["provisioningState"] == "Succeeded"
    assert [one["name"] for one in az("aks", "list")] == ["aks1"]
    assert "NotSupported" in az.refused("aks", "get-credentials", "-g", "aks", "-n", "aks1", "-f", str(tmp_path / "k"))

    trusted = ("aks", "trustedaccess")
    [role] = az(*trusted, "role", "list", "-l", "westeurope")
    assert f"{role['sourceResourceType']}/{role['name']}" == OPERATOR
    binding = ("-g", "aks", "--cluster-name", "aks1", "-n", "tarb")
    wanted = ("--source-resource-id", vault, "--roles", OPERATOR)
    bound = az(*trusted, "rolebinding", "create", *binding, *wanted)
    assert (bound["sourceResourceId"], bound["provisioningState"]) == (vault, "Succeeded")
    assert "already" in az.refused(*trusted, "rolebinding", "create", *binding, *wanted)
    assert az(*trusted, "rolebinding", "show", *binding)["roles"] == [OPERATOR]
    listed = az(*trusted, "rolebinding", "list", "-g", "aks", "--cluster-name", "aks1")
    assert [one["name"] for one in listed] == ["tarb"]
    az(*trusted, "rolebinding", "delete", *binding, "--yes")
    assert az(*trusted, "rolebinding", "list", "-g", "aks", "--cluster-name", "aks1") == []
    az("resource", "delete", "--ids", vault)
    az("aks", "delete", "-g", "aks", "-n", "aks1", "--yes")
    assert az("aks", "list") == []
