"""Clusters, the backup extension and trusted access through ARM: official clients, a real server, a real cluster."""

import base64
import contextlib
import io
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.containerservice import ContainerServiceClient
from azure.mgmt.dataprotection import DataProtectionMgmtClient
from azure.mgmt.kubernetesconfiguration.extensions import KubernetesConfigurationExtensionsMgmtClient
from azure.mgmt.storage import StorageManagementClient

from strongroom.controlplane.identity.principals import add_secret, new_service_principal
from strongroom.controlplane.identity.stored import DatabasePrincipals
from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.times import now
from strongroom.testbed import certificates
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.sharing import shared_testbed

from ..arm_bodies import hourly_policy
from ..serving import RunningServer, running_server

NAMESPACE = "dataprotection-microsoft"
OPERATOR = "Microsoft.DataProtection/backupVaults/backup-operator"
TYPE = "microsoft.dataprotection.kubernetes"
PREFIX = "configuration.backupStorageLocation."
GROUP = "clusters"
CLUSTERS = "Microsoft.ContainerService/managedClusters"
CONTRIBUTOR = "b24988ac-6180-42a0-ab88-20f7382dd24c"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
EXTENSION = (GROUP, "Microsoft.ContainerService", "managedClusters", "one", "azure-aks-backup")


@dataclass
class Stage:
    """A server with a group, an account and two containers, and a cluster of this module's own."""

    server: RunningServer
    cluster: Testbed

    def __post_init__(self) -> None:
        self.containerservice: Any = self.server.client(ContainerServiceClient)
        self.clusters = self.containerservice.managed_clusters
        self.bindings = self.containerservice.trusted_access_role_bindings
        self.extensions: Any = self.server.client(KubernetesConfigurationExtensionsMgmtClient).extensions
        self.storage: Any = self.server.client(StorageManagementClient)
        self.vaults: Any = self.server.client(DataProtectionMgmtClient).backup_vaults
        self.group_id = f"/subscriptions/{self.server.subscription}/resourceGroups/{GROUP}"
        self.cluster_id = f"{self.group_id}/providers/Microsoft.ContainerService/managedClusters/one"

    def send(self, method: str, path: str, body: Any = None, *, credential: Any = None) -> requests.Response:
        """Send a request as it is, which no client of Azure's would make."""
        url = path if path.startswith("https:") else f"{self.server.url}{path}?api-version=2026-06-01"
        headers = {"Authorization": f"Bearer {self.server.token(credential)}"}
        return requests.request(method, url, json=body, headers=headers, verify=self.server.ready["caFile"], timeout=60)

    def connect(self, name: str = "one", kubeconfig: bytes | None = None, **more: Any) -> Any:
        raw = self.cluster.kubeconfig.read_bytes() if kubeconfig is None else kubeconfig
        connection = {"kubeconfig": base64.b64encode(raw).decode()}
        body = {"location": "westus", "properties": {"strongroomConnection": connection}, **more}
        # Models drop what they do not know: our own property goes as bytes.
        content = io.BytesIO(json.dumps(body).encode())
        return self.clusters.begin_create_or_update(GROUP, name, content).result()

    def settings(self, **changes: str) -> dict[str, str]:
        return {
            f"{PREFIX}bucket": "backups",
            f"{PREFIX}config.storageAccount": "clusterbackups",
            f"{PREFIX}config.resourceGroup": GROUP,
            f"{PREFIX}config.subscriptionId": self.server.subscription,
            f"{PREFIX}config.useAAD": "true",
            "credentials.tenantId": self.server.ready["tenantId"],
            **{PREFIX + key.replace("_", "."): value for key, value in changes.items()},
        }

    def install(self, *, settings: dict[str, str] | None = None, name: str = "azure-aks-backup", **more: Any) -> Any:
        body = {
            "properties": {
                "extensionType": TYPE,
                "autoUpgradeMinorVersion": True,
                "releaseTrain": "stable",
                "scope": {"cluster": {}},
                "configurationSettings": settings if settings is not None else self.settings(),
                **more,
            }
        }
        return self.extensions.begin_create(*EXTENSION[:-1], name, body).result()

    def bind(self, vault: str, *, name: str = "tarb", roles: tuple[str, ...] = (OPERATOR,)) -> Any:
        body = {"properties": {"sourceResourceId": vault, "roles": list(roles)}}
        return self.bindings.begin_create_or_update(GROUP, "one", name, body).result()

    def vault(self) -> Any:
        body = {
            "location": "westus",
            "identity": {"type": "SystemAssigned"},
            "properties": {"storageSettings": [{"datastoreType": "OperationalStore", "type": "LocallyRedundant"}]},
        }
        return self.vaults.begin_create_or_update(GROUP, "vault1", body).result()

    def somebody(self, role: str, scope: str) -> Any:
        """Return a credential of a new principal that has *role* at *scope*, and no other."""
        record, secret = add_secret(new_service_principal("somebody", now=now()), now=now(), lifetime=None)
        with self.database() as database:
            DatabasePrincipals(database).put(record)
        definition = f"/providers/Microsoft.Authorization/roleDefinitions/{role}"
        body = {"properties": {"roleDefinitionId": definition, "principalId": record.object_id}}
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        assert self.send("PUT", path, body).status_code == 201
        return self.server.sign_in(record.app_id, secret)

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        home = self.server.home
        database = Database.open(f"sqlite:///{home / 'state.sqlite'}", (home / "secret.key").read_bytes())
        try:
            yield database
        finally:
            database.close()

    def in_cluster(self, kind: str, *words: str) -> set[str]:
        found = json.loads(self.cluster.kubectl("get", kind, *words, "-o", "json"))
        return {one["metadata"]["name"] for one in found["items"]}

    def hosted(self) -> list[int]:
        """Return the processes of extensions that the server hosts."""
        found = []
        for task in Path(f"/proc/{self.server.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(word) for word in task.read_text().split()]
        return [pid for pid in found if b"strongroom.extension.main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def accounts(self) -> set[str]:
        return self.in_cluster("serviceaccounts", "-n", NAMESPACE) - {"default"}

    def kept(self) -> Iterator[tuple[str, bytes]]:
        """Every byte that the server left outside its memory: its log, and all files of its home."""
        yield "the log", self.server.log.read_bytes()
        for path in self.server.home.rglob("*"):
            if path.is_file():
                yield str(path), path.read_bytes()

    def assert_nowhere(self, *secrets: str) -> None:
        for place, content in self.kept():
            for secret in secrets:
                for form in (secret, base64.b64encode(secret.encode()).decode().rstrip("=")):
                    assert form.encode() not in content, f"{place} holds {form[:6]}…"


@pytest.fixture(scope="module")
def bare(testbeds_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Not the cluster that all tests share: these tests take everything of ours out of theirs."""
    with (
        shared_testbed(testbeds_folder / f"arm-clusters-{os.getpid()}") as cluster,
        running_server(tmp_path_factory.mktemp("arm-clusters")) as server,
    ):
        yield prepared(Stage(server, cluster))


def prepared(stage: Stage) -> Stage:
    for name in ("ContainerService", "KubernetesConfiguration", "DataProtection", "Storage"):
        path = f"/subscriptions/{stage.server.subscription}/providers/Microsoft.{name}/register"
        assert stage.send("POST", path).status_code == 200
    assert stage.send("PUT", stage.group_id, {"location": "westus"}).status_code in {200, 201}
    for account, location in (("clusterbackups", "westus"), ("elsewhere", "eastus")):
        body = {"location": location, "kind": "StorageV2", "sku": {"name": "Standard_LRS"}}
        stage.storage.storage_accounts.begin_create(GROUP, account, body).result()
        stage.storage.blob_containers.create(GROUP, account, "backups", {})
    return stage


@pytest.fixture
def stage(bare: Stage) -> Stage:
    """The stage with the cluster connected."""
    bare.connect()
    return bare


def refusal(caught: pytest.ExceptionInfo[HttpResponseError]) -> tuple[int | None, str, str]:
    assert caught.value.error is not None
    return caught.value.status_code, str(caught.value.error.code), str(caught.value.error.message)


# --- connecting


def test_a_cluster_is_connected_within_the_request(bare: Stage) -> None:
    made = bare.connect(tags={"env": "test"})
    assert made.provisioning_state == "Succeeded"
    assert made.power_state.code == "Running"
    assert f"v{made.current_kubernetes_version}" == bare.cluster.version
    assert made.identity.type == "SystemAssigned"
    assert made.node_resource_group == f"MC_{GROUP}_one_westus"
    assert made.identity_profile["kubeletidentity"].object_id == made.identity.principal_id
    assert {"strongroom-connector", "strongroom-installer"} <= bare.accounts()
    with bare.database() as database, database.read() as tx:
        principal = tx.principals.get(made.identity.principal_id)
    assert principal is not None
    assert principal.kind == "ManagedIdentity"


def test_connecting_again_answers_200_and_keeps_the_identity(stage: Stage) -> None:
    before = stage.clusters.get(GROUP, "one")
    raw = base64.b64encode(stage.cluster.kubeconfig.read_bytes()).decode()
    body = {"location": "West US", "properties": {"strongroomConnection": {"kubeconfig": raw}}}
    answer = stage.send("PUT", stage.cluster_id.replace("resourceGroups", "resourcegroups"), body)
    assert answer.status_code == 200
    assert answer.json()["identity"]["principalId"] == before.identity.principal_id
    assert "strongroomConnection" not in answer.text
    assert "Azure-AsyncOperation" not in answer.headers, "there is nothing to poll for"


def test_neither_the_admin_s_key_nor_the_connector_s_token_lies_anywhere_in_plain_text(stage: Stage) -> None:
    document = yaml.safe_load(stage.cluster.kubeconfig.read_text())
    key = base64.b64decode(document["users"][0]["user"]["client-key-data"]).decode()
    secret = json.loads(stage.cluster.kubectl("get", "secret", "strongroom-connector", "-n", NAMESPACE, "-o", "json"))
    token = base64.b64decode(secret["data"]["token"]).decode()
    stage.assert_nowhere(token, document["users"][0]["user"]["client-key-data"], key.splitlines()[1])
    with pytest.raises(AssertionError, match=r"sqlite"):
        stage.assert_nowhere("clusterbackups")  # what is kept in plain text would be found


def test_one_kubernetes_cluster_has_one_id(stage: Stage) -> None:
    with pytest.raises(HttpResponseError) as caught:
        stage.connect("two")
    status, code, message = refusal(caught)
    assert (status, code) == (409, "ClusterAlreadyConnected")
    assert stage.cluster_id in message
    with pytest.raises(ResourceNotFoundError):
        stage.clusters.get(GROUP, "two")


def test_who_may_not_read_the_other_resource_does_not_learn_its_name(stage: Stage) -> None:
    assert stage.send("PUT", f"{stage.group_id}-b", {"location": "westus"}).status_code in {200, 201}
    credential = stage.somebody(CONTRIBUTOR, f"{stage.group_id}-b")
    raw = base64.b64encode(stage.cluster.kubeconfig.read_bytes()).decode()
    body = {"location": "westus", "properties": {"strongroomConnection": {"kubeconfig": raw}}}
    path = f"{stage.group_id}-b/providers/Microsoft.ContainerService/managedClusters/two"
    answer = stage.send("PUT", path, body, credential=credential)
    assert answer.status_code == 409
    assert "/managedClusters/one" not in answer.text


def test_a_new_cluster_without_a_connection_is_refused_and_an_old_one_changes_its_tags(stage: Stage) -> None:
    with pytest.raises(HttpResponseError) as caught:
        stage.clusters.begin_create_or_update(GROUP, "new", {"location": "westus"}).result()
    status, code, message = refusal(caught)
    assert (status, code) == (400, "InvalidParameter")
    assert "strongroomConnection" in message
    before = stage.clusters.get(GROUP, "one")
    body = {"location": "westus", "tags": {"team": "shop"}, "properties": {"dnsPrefix": "other"}}
    after = stage.clusters.begin_create_or_update(GROUP, "one", body).result()
    assert after.tags == {"team": "shop"}
    assert after.properties == before.properties


def test_tags_are_patched_and_clusters_are_listed(stage: Stage) -> None:
    assert stage.clusters.begin_update_tags(GROUP, "one", {"tags": {"a": "b"}}).result().tags == {"a": "b"}
    assert [c.id for c in stage.clusters.list()] == [stage.cluster_id]
    assert [c.id for c in stage.clusters.list_by_resource_group(GROUP.upper())] == [stage.cluster_id]
    assert stage.clusters.get(GROUP, "ONE").id == stage.cluster_id


def test_another_location_or_identity_is_refused(stage: Stage) -> None:
    moved = stage.send("PUT", stage.cluster_id, {"location": "eastus"})
    assert (moved.status_code, moved.json()["error"]["code"]) == (409, "InvalidResourceLocation")
    strange = stage.send("PUT", stage.cluster_id, {"location": "a/../b"})
    assert (strange.status_code, strange.json()["error"]["target"]) == (400, "location")
    body = {"location": "westus", "identity": {"type": "UserAssigned"}}
    other = stage.send("PUT", stage.cluster_id, body)
    assert (other.status_code, other.json()["error"]["code"]) == (501, "NotSupported")


@pytest.mark.parametrize("which", ["user", "admin"])
def test_credentials_of_a_cluster_are_not_handed_out(stage: Stage, which: str) -> None:
    with pytest.raises(HttpResponseError) as caught:
        getattr(stage.clusters, f"list_cluster_{which}_credentials")(GROUP, "one")
    assert refusal(caught)[:2] == (501, "NotSupported")


# --- untrusted kubeconfigs

SECRET = "s3cr3t" + uuid.uuid4().hex
AUTHORITY = base64.b64encode(certificates.make_authority("other").certificate).decode()
REFUSED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("exec", {}, {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": [SECRET]}}),
    ("auth-provider", {}, {"auth-provider": {"name": "oidc", "config": {"id-token": SECRET}}}),
    ("tokenFile", {}, {"tokenFile": f"/var/run/{SECRET}"}),
    ("client-key", {}, {"client-key": f"/home/{SECRET}"}),
    ("username", {}, {"username": "admin", "password": SECRET}),
    ("password", {}, {"password": SECRET}),
    ("as", {}, {"as": SECRET, "token": SECRET}),
    ("client-key-data", {}, {"client-certificate-data": AUTHORITY, "client-key-data": SECRET}),
    ("unknown-to-us", {}, {"unknown-to-us": SECRET}),
    ("insecure-skip-tls-verify", {"insecure-skip-tls-verify": True}, {}),
    ("certificate-authority", {"certificate-authority": f"/etc/{SECRET}"}, {}),
    ("proxy-url", {"proxy-url": f"http://user:{SECRET}@proxy"}, {}),
    ("tls-server-name", {"tls-server-name": SECRET}, {}),
    ("certificate-authority-data", {"certificate-authority-data": SECRET}, {}),
    ("server", {"server": f"https://user:{SECRET}@api.example.org"}, {}),
    ("server", {"server": f"https://169.254.169.254/{SECRET}"}, {}),
    ("server", {"server": f"http://api.example.org/{SECRET}"}, {}),
]


@pytest.mark.parametrize(("field", "cluster", "user"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_an_untrusted_kubeconfig_is_refused_by_field_and_leaves_no_secret_behind(
    bare: Stage, field: str, cluster: dict[str, Any], user: dict[str, Any]
) -> None:
    before = {place for place, _ in bare.kept() if "sqlite" not in place}
    config = kubeconfig({"server": bare.cluster.server, **cluster}, {"token": SECRET, **user})
    answer = put_kubeconfig(bare, config)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "KubeconfigRefused")
    assert field in error["message"]
    assert error["target"] == "properties.strongroomConnection.kubeconfig"
    assert SECRET not in answer.text
    bare.assert_nowhere(SECRET)
    assert {place for place, _ in bare.kept() if "sqlite" not in place} == before
    assert bare.send("GET", path_of(bare, "bad")).status_code == 404


def kubeconfig(cluster: dict[str, Any], user: dict[str, Any]) -> bytes:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"certificate-authority-data": AUTHORITY, **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    return json.dumps(document).encode()


def path_of(stage: Stage, name: str) -> str:
    return f"{stage.group_id}/providers/Microsoft.ContainerService/managedClusters/{name}"


def put_kubeconfig(stage: Stage, config: bytes, name: str = "bad") -> requests.Response:
    connection = {"kubeconfig": base64.b64encode(config).decode()}
    body = {"location": "westus", "properties": {"strongroomConnection": connection}}
    return stage.send("PUT", path_of(stage, name), body)


def real_ca(stage: Stage) -> str:
    return base64.b64encode(stage.cluster.ca_file.read_bytes()).decode()


def test_a_wrong_token_a_wrong_authority_and_a_dead_server_are_told_apart(bare: Stage) -> None:
    real = {"server": bare.cluster.server, "certificate-authority-data": real_ca(bare)}
    for cluster, code in (
        (real, "ClusterUnauthorized"),
        ({"server": bare.cluster.server}, "ClusterUnreachable"),
        ({"server": "https://127.0.0.1:1"}, "ClusterUnreachable"),
    ):
        answer = put_kubeconfig(bare, kubeconfig(cluster, {"token": SECRET}))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), answer.text
        assert SECRET not in answer.text
    bare.assert_nowhere(SECRET)


def test_a_credential_that_may_too_little_is_told_what_it_lacks(bare: Stage) -> None:
    weak = bare.cluster.make_client_cert("somebody").read_bytes()
    answer = put_kubeconfig(bare, weak)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "ClusterForbidden")
    assert "namespaces" in error["message"]


@pytest.mark.parametrize(
    "value", ["%%%" + SECRET, {"deep": SECRET}, [SECRET], 7, ""], ids=["text", "object", "list", "number", "empty"]
)
def test_what_is_no_base64_of_a_kubeconfig_is_refused_without_being_repeated(bare: Stage, value: Any) -> None:
    body = {"location": "westus", "properties": {"strongroomConnection": {"kubeconfig": value}}}
    answer = bare.send("PUT", path_of(bare, "bad"), body)
    assert answer.status_code == 400
    assert SECRET not in answer.text
    bare.assert_nowhere(SECRET)


# --- the extension


def test_the_extension_is_installed_and_its_container_has_a_repository(stage: Stage) -> None:
    made = stage.install()
    assert made.properties.provisioning_state == "Succeeded"
    assert made.properties.current_version
    assert made.properties.error_info is None
    principal = made.properties.aks_assigned_identity.principal_id
    assert principal == made.identity.principal_id != stage.clusters.get(GROUP, "one").identity.principal_id
    assert made.properties.configuration_settings == stage.settings()
    assert "strongroom-extension" in stage.accounts()
    container = stage.server.home / "storage" / "clusterbackups" / "backups"
    assert (container / "repository.json").is_file()
    assert len(list((container / "keys").iterdir())) >= 2, "the control plane's own key and the extension's"
    (status,) = stage.extensions.get(*EXTENSION).properties.statuses
    assert (status.code, status.level) == ("Installed", "Information")
    assert [e.name for e in stage.extensions.list(*EXTENSION[:-1])] == ["azure-aks-backup"]


def test_the_first_answer_has_the_headers_that_clients_read(stage: Stage) -> None:
    path = f"{stage.cluster_id}/providers/Microsoft.KubernetesConfiguration/extensions/azure-aks-backup"
    body = {"properties": {"extensionType": TYPE.upper(), "configurationSettings": stage.settings()}}
    stage.install()
    answer = stage.send("PUT", path, body)
    assert answer.status_code == 200
    assert answer.json()["properties"]["provisioningState"] == "Updating"
    assert answer.headers["Retry-After"] == "1"
    assert "Location" not in answer.headers, "az would take it for the resource"
    repeated = stage.send("PUT", path, body)
    polled = "Azure-AsyncOperation"
    assert repeated.headers[polled] == answer.headers[polled], "its answer may have been lost: nothing begins twice"
    other = {"properties": {"extensionType": TYPE, "configurationSettings": {**stage.settings(), "other": "x"}}}
    busy = stage.send("PUT", path, other)
    assert (busy.status_code, busy.json()["error"]["code"]) == (409, "OperationNotAllowed")
    assert "Retry-After" not in busy.headers
    assert stage.send("GET", answer.headers["Azure-AsyncOperation"]).json()["status"] in {"Inprogress", "Succeeded"}
    stage_settled(stage)


def stage_settled(stage: Stage) -> None:
    """Wait for the operation that runs, by polling it as an update does."""
    until(lambda: stage.extensions.get(*EXTENSION).properties.provisioning_state != "Updating")


def test_settings_are_patched_key_by_key_and_unknown_ones_kept_as_they_are(stage: Stage) -> None:
    stage.install()
    patch = {"properties": {"configurationSettings": {"resources.limits.CPU": "1"}}}
    done = stage.extensions.begin_update(*EXTENSION, patch).result()
    assert done.properties.provisioning_state == "Succeeded"
    assert done.properties.configuration_settings == {**stage.settings(), "resources.limits.CPU": "1"}


def test_hooks_may_run_in_the_namespaces_that_a_setting_lists_and_in_no_others(stage: Stage) -> None:
    name = "configuration.hookNamespaces"

    def bound() -> list[str]:
        return stage.cluster.kubectl(
            "get", "rolebindings", "-A", "--field-selector=metadata.name=strongroom-hooks",
            "-o", "jsonpath={.items[*].metadata.namespace}",
        ).split()  # fmt: skip

    with pytest.raises(HttpResponseError) as caught:
        stage.install(settings={**stage.settings(), name: "default,*"})
    assert refusal(caught)[:2] == (400, "BMSUserErrorInvalidInput")
    stage.install(settings={**stage.settings(), name: " default "})
    assert bound() == ["default"]
    patch = {"properties": {"configurationSettings": {name: ""}}}
    stage.extensions.begin_update(*EXTENSION, patch).result()
    assert bound() == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"bucket": "nowhere"}, "UserErrorNoDefaultBackupStorageLocationFound"),
        ({"config_storageAccount": "nowhere"}, "UserErrorNoDefaultBackupStorageLocationFound"),
        ({"config_storageAccount": "elsewhere"}, "InvalidStorageAccount"),
        ({"config_subscriptionId": str(uuid.uuid4())}, "InvalidStorageAccount"),
    ],
)
def test_a_storage_location_that_cannot_be_used_is_refused_at_once(
    stage: Stage, changes: dict[str, str], code: str
) -> None:
    with pytest.raises(HttpResponseError) as caught:
        stage.install(settings=stage.settings(**changes))
    assert refusal(caught)[:2] == (400, code)


def test_what_the_extension_does_not_have_is_refused(stage: Stage) -> None:
    for more, status, code in (
        ({"extensionType": "microsoft.flux"}, 400, "ExtensionTypeNotSupported"),
        ({"configurationProtectedSettings": {"password": SECRET}}, 501, "NotSupported"),
        ({"scope": {"namespace": {"targetNamespace": "a"}}}, 501, "NotSupported"),
        ({"version": "9.9.9"}, 501, "NotSupported"),
    ):
        with pytest.raises(HttpResponseError) as caught:
            stage.install(**more)
        assert refusal(caught)[:2] == (status, code)
        assert SECRET not in str(caught.value)
    stage.install()
    with pytest.raises(HttpResponseError) as caught:
        stage.install(name="second")
    assert refusal(caught)[:2] == (409, "ExtensionTypeAlreadyInstalled")
    stage.assert_nowhere(SECRET)


def test_an_installation_that_fails_says_why_and_the_next_one_mends_it(stage: Stage) -> None:
    container = stage.server.home / "storage" / "clusterbackups" / "broken"
    stage.storage.blob_containers.create(GROUP, "clusterbackups", "broken", {})
    container.rename(container.with_name("aside"))
    container.write_text("no folder")
    with pytest.raises(HttpResponseError) as caught:
        stage.install(settings=stage.settings(bucket="broken"))
    assert caught.value.error is not None
    assert caught.value.error.code
    failed = stage.extensions.get(*EXTENSION).properties
    assert failed.provisioning_state == "Failed"
    assert failed.error_info.message
    assert [s.level for s in failed.statuses] == ["Error"]
    container.unlink()
    container.with_name("aside").rename(container)
    mended = stage.install(settings=stage.settings(bucket="broken"))
    assert mended.properties.provisioning_state == "Succeeded"
    assert mended.properties.error_info is None
    assert (container / "repository.json").is_file()


def test_who_may_not_write_the_container_does_not_install_into_it(stage: Stage) -> None:
    stage.extensions.begin_delete(*EXTENSION).result()
    credential = stage.somebody(CONTRIBUTOR, stage.cluster_id)
    path = f"{stage.cluster_id}/providers/Microsoft.KubernetesConfiguration/extensions/azure-aks-backup"
    body = {"properties": {"extensionType": TYPE, "configurationSettings": stage.settings()}}
    answer = stage.send("PUT", path, body, credential=credential)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "LinkedAuthorizationFailed")
    assert stage.send("GET", path).status_code == 404


def test_the_health_says_what_somebody_took_away(stage: Stage) -> None:
    stage.install()
    stage.cluster.kubectl("delete", "clusterrolebinding", "strongroom-read")
    (status,) = stage.extensions.get(*EXTENSION).properties.statuses
    assert status.level == "Error"
    assert "strongroom-read" in status.message
    stage.install()
    assert [s.level for s in stage.extensions.get(*EXTENSION).properties.statuses] == ["Information"]


def test_a_hosted_extension_works_again_after_its_death_and_ends_with_its_removal(stage: Stage) -> None:
    def holder() -> str:
        lease = json.loads(stage.cluster.kubectl("get", "lease", "strongroom-extension", "-n", NAMESPACE, "-o", "json"))
        return str(lease["spec"]["holderIdentity"])

    stage.install()
    (first,) = stage.hosted()
    before = holder()
    os.kill(first, signal.SIGKILL)
    until(lambda: holder() not in ("", before))
    (second,) = stage.hosted()
    assert second != first
    assert [s.level for s in stage.extensions.get(*EXTENSION).properties.statuses] == ["Information"]
    with pytest.raises(HttpResponseError) as caught:
        stage.install(settings={**stage.settings(), "configuration.mode": "sideways"})
    assert refusal(caught)[:2] == (400, "BMSUserErrorInvalidInput")
    in_cluster = {"configuration.mode": "inCluster", "configuration.image": "registry.example/strongroom:1"}
    with pytest.raises(HttpResponseError, match="is a folder of this server"):
        stage.install(settings={**stage.settings(), **in_cluster})
    assert stage.hosted() == [second], "what there is was left as it is"
    stage.extensions.begin_delete(*EXTENSION).result()
    assert stage.hosted() == []


def test_a_deleted_extension_leaves_the_cluster_and_its_identity_ends(stage: Stage) -> None:
    first = stage.install()
    stage.extensions.begin_delete(*EXTENSION).result()
    assert "strongroom-extension" not in stage.accounts()
    with pytest.raises(ResourceNotFoundError):
        stage.extensions.get(*EXTENSION)
    with stage.database() as database, database.read() as tx:
        assert tx.principals.get(first.identity.principal_id) is None
    path = f"{stage.cluster_id}/providers/Microsoft.KubernetesConfiguration/extensions/azure-aks-backup"
    assert stage.send("DELETE", path).status_code == 204
    assert stage.install().identity.principal_id != first.identity.principal_id, "a new one inherits no roles"


# --- trusted access


def test_a_vault_is_bound_and_unbound(stage: Stage) -> None:
    vault = stage.vault()
    made = stage.bind(vault.id)
    assert (made.provisioning_state, made.source_resource_id, made.roles) == ("Succeeded", vault.id, [OPERATOR])
    (account,) = (name for name in stage.accounts() if name.startswith("vault-"))
    assert [b.name for b in stage.bindings.list(GROUP, "one")] == ["tarb"]
    assert stage.bindings.get(GROUP, "one", "TARB").name == "tarb"
    path = f"{stage.cluster_id}/trustedAccessRoleBindings/tarb"
    begun, repeated = stage.send("DELETE", path), stage.send("DELETE", path)
    assert (begun.status_code, repeated.status_code) == (202, 202)
    assert begun.headers["Location"] == repeated.headers["Location"]
    until(lambda: stage.send("GET", begun.headers["Location"]).status_code == 204)
    assert account not in stage.accounts()
    with pytest.raises(ResourceNotFoundError):
        stage.bindings.get(GROUP, "one", "tarb")
    again = stage.send("DELETE", f"{stage.cluster_id}/trustedAccessRoleBindings/tarb")
    assert again.status_code == 204


def test_a_binding_names_a_vault_that_exists_and_the_one_role(stage: Stage) -> None:
    vault = stage.vault().id
    for source, roles, code in (
        (f"{vault}x", (OPERATOR,), "InvalidParameter"),
        (stage.cluster_id, (OPERATOR,), "LinkedInvalidPropertyId"),
        (vault, ("Microsoft.MachineLearningServices/workspaces/mlworkload",), "InvalidParameter"),
        (vault, (), "InvalidParameter"),
    ):
        with pytest.raises(HttpResponseError) as caught:
            stage.bind(source, roles=roles)
        assert refusal(caught)[:2] == (400, code)


def test_who_may_not_read_the_vault_does_not_bind_it(stage: Stage) -> None:
    vault = stage.vault().id
    credential = stage.somebody(CONTRIBUTOR, stage.cluster_id)
    for source in (vault, f"{vault}x"):
        body = {"properties": {"sourceResourceId": source, "roles": [OPERATOR]}}
        path = f"{stage.cluster_id}/trustedAccessRoleBindings/mine"
        answer = stage.send("PUT", path, body, credential=credential)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "LinkedAuthorizationFailed")


def test_an_operation_is_shown_to_who_began_it_or_may_read_its_cluster(stage: Stage) -> None:
    vault = stage.vault().id
    caller = stage.somebody(CONTRIBUTOR, stage.group_id)
    path = f"{stage.cluster_id}/trustedAccessRoleBindings/shown"
    body = {"properties": {"sourceResourceId": vault, "roles": [OPERATOR]}}
    begun = stage.send("PUT", path, body, credential=caller)
    assert begun.status_code == 201
    place = begun.headers["Azure-AsyncOperation"]
    assert stage.send("GET", place, credential=caller).status_code == 200
    reader = stage.somebody(READER, stage.cluster_id)
    assert stage.send("GET", place, credential=reader).status_code == 200
    stranger = stage.somebody(READER, vault)
    assert stage.send("GET", place, credential=stranger).status_code == 403
    until(lambda: stage.send("GET", place).json()["status"] != "Inprogress")
    stage.bindings.begin_delete(GROUP, "one", "shown").result()


def test_the_trusted_access_roles_are_listed(stage: Stage) -> None:
    (role,) = stage.containerservice.trusted_access_roles.list("westus")
    assert f"{role.source_resource_type}/{role.name}" == OPERATOR
    assert "backups" in role.rules[0].resources


# --- what ends


def test_a_killed_server_goes_on_with_an_installation(testbeds_folder: Path, tmp_path: Path, bare: Stage) -> None:
    """Killed at once after its answer, whatever it was at then: the operation ends, and well."""
    with contextlib.ExitStack() as servers:
        if any(bare.clusters.list()):
            bare.clusters.begin_delete(GROUP, "one").result()
        with running_server(tmp_path) as server:
            stage = prepared(Stage(server, bare.cluster))
            stage.connect()
            path = f"{stage.cluster_id}/providers/Microsoft.KubernetesConfiguration/extensions/azure-aks-backup"
            body = {"properties": {"extensionType": TYPE, "configurationSettings": stage.settings()}}
            begun = stage.send("PUT", path, body)
            assert begun.status_code == 201
            server.process.kill()
            server.process.wait()
        after = Stage(servers.enter_context(running_server(tmp_path)), bare.cluster)
        place = begun.headers["Azure-AsyncOperation"].removeprefix(server.url)
        until(lambda: after.send("GET", f"{after.server.url}{place}").json()["status"] == "Succeeded")
        assert after.extensions.get(*EXTENSION).properties.provisioning_state == "Succeeded"
        after.clusters.begin_delete(GROUP, "one").result()


def test_while_an_instance_protects_it_a_cluster_keeps_its_extension_and_its_place(stage: Stage) -> None:
    stage.install()
    vault = stage.vault().id
    stage.bind(vault)
    policy = f"{vault}/backupPolicies/four-hourly"
    assert stage.send("PUT", policy, POLICY).status_code == 200
    source = {"objectType": "Datasource", "datasourceType": CLUSTERS, "resourceID": stage.cluster_id}
    properties = {
        "objectType": "BackupInstance",
        "dataSourceInfo": source,
        "dataSourceSetInfo": {**source, "objectType": "DatasourceSet"},
        "policyInfo": {
            "policyId": policy,
            "policyParameters": {
                "dataStoreParametersList": [
                    {
                        "objectType": "AzureOperationalStoreParameters",
                        "dataStoreType": "OperationalStore",
                        "resourceGroupId": stage.group_id,
                    }
                ],
                "backupDatasourceParametersList": [
                    {
                        "objectType": "KubernetesClusterBackupDatasourceParameters",
                        "snapshotVolumes": False,
                        "includeClusterScopeResources": False,
                        "includedNamespaces": ["default"],
                    }
                ],
            },
        },
    }
    granted = stage.send("POST", f"{vault}/grantPermissions", {"backupInstance": properties})
    assert granted.status_code == 200, granted.text
    instance = f"{vault}/backupInstances/one"
    made = stage.send("PUT", instance, {"properties": properties})
    assert made.status_code == 201, made.text
    refusals: tuple[Callable[[], Any], ...] = (
        lambda: stage.clusters.begin_delete(GROUP, "one").result(),
        lambda: stage.extensions.begin_delete(*EXTENSION).result(),
        lambda: stage.extensions.begin_delete(*EXTENSION, force_delete=False).result(),
    )
    for refused in refusals:
        with pytest.raises(HttpResponseError) as caught:
            refused()
        status, code, message = refusal(caught)
        assert (status, code) == (409, "ResourceInUse")
        assert instance in message
    assert stage.extensions.get(*EXTENSION).properties.provisioning_state == "Succeeded"
    stage.extensions.begin_delete(*EXTENSION, force_delete=True).result()
    assert "strongroom-extension" not in stage.accounts()
    until(lambda: stage.send("GET", instance).json()["properties"]["provisioningState"] != "Provisioning")
    assert stage.send("DELETE", instance).status_code == 202
    until(lambda: stage.send("GET", instance).status_code == 404)
    stage.clusters.begin_delete(GROUP, "one").result()
    assert list(stage.clusters.list()) == []


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} seconds"
        time.sleep(0.1)


POLICY = hourly_policy()


def test_a_deleted_cluster_is_left_in_order_and_can_be_connected_anew(stage: Stage) -> None:
    stage.install()
    stage.bind(stage.vault().id)
    before = stage.clusters.get(GROUP, "one").identity.principal_id
    stage.clusters.begin_delete(GROUP, "one").result()
    assert stage.accounts() == set()
    assert not stage.in_cluster("clusterrolebindings") & {"strongroom-read", "strongroom-snapshots"}
    assert list(stage.clusters.list()) == []
    with stage.database() as database, database.read() as tx:
        assert tx.secrets.get(f"cluster/{stage.cluster_id.lower()}") is None
        assert tx.principals.get(before) is None
    assert stage.send("DELETE", stage.cluster_id).status_code == 204
    assert stage.send("GET", f"{stage.cluster_id}/trustedAccessRoleBindings/tarb").status_code == 404
    assert stage.connect().identity.principal_id != before


def test_a_cluster_that_is_gone_fails_to_give_its_extension_up_unless_forced(
    testbeds_folder: Path, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as living:
        server = living.enter_context(running_server(tmp_path))
        with shared_testbed(testbeds_folder / f"arm-gone-{os.getpid()}") as cluster:
            stage = prepared(Stage(server, cluster))
            stage.connect()
            stage.install()
        with pytest.raises(HttpResponseError):
            stage.extensions.begin_delete(*EXTENSION).result()
        assert stage.extensions.get(*EXTENSION).properties.provisioning_state == "Failed"
        stage.extensions.begin_delete(*EXTENSION, force_delete=True).result()
        with pytest.raises(ResourceNotFoundError):
            stage.extensions.get(*EXTENSION)
        stage.clusters.begin_delete(GROUP, "one").result()
        assert list(stage.clusters.list()) == []
