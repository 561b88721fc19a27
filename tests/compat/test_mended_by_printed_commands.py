"""Everything that a backup needs is absent, and mended by nothing but the commands that the errors print.

Commands of az itself and of `strongroom` are run as printed. az's extensions cannot be installed here (they are no
packages of PyPI), so of `az k8s-extension create` and `az dataprotection backup-vault update` the printed options are
read, and the requests are sent that the extensions make of them: reference/azure-clients.md, section B.4.

What the server cannot know is filled in: FILE, the kubeconfig, and ACCOUNT, CONTAINER and GROUP of a storage account.
"""

import json
import shlex
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError

from strongroom.client.problems import Problem, problems_of_answer
from strongroom.testbed.cluster import Testbed

from ..e2e.service_stage import Stage
from ..serving import RunningServer, running_server
from .azure_command import AzureCli, signed_in
from .recorded import RecordedClient

KIND = "Microsoft.ContainerService/managedClusters"
DP = "api-version=2025-07-01"
EXTENSIONS = "api-version=2023-05-01"
STORAGE = "api-version=2025-08-01"
AKS = "api-version=2026-06-01"
GROUPS = "api-version=2024-11-01"
REGION = "westeurope"
ELSEWHERE = "northeurope"  # of the cluster's group: whatever is made must be told the vault's region
OPERATION = "azure-async-operation"
ROUNDS = 6  # each mends something, and what was hidden behind it comes next

UNREGISTERED = "MissingSubscriptionRegistration"
NO_EXTENSION = "UserErrorKubernetesBackupExtensionNotFoundError"
NO_LOCATION = "UserErrorNoDefaultBackupStorageLocationFound"
NO_STORAGE_ROLE = "UserErrorExtensionMSIMissingPermissionsOnBackupStorageLocation"
NO_ROLE = "UserErrorMissingRoleAssignment"
NO_ACCESS = "UserErrorTrustedAccessGatewayReturnedForbidden"


def option(words: list[str], name: str) -> str:
    return words[words.index(f"--{name}") + 1]


@dataclass
class Site:
    """A server with a vault that has no identity, and a cluster's subscription where there is a group and no more."""

    server: RunningServer
    client: RecordedClient
    az: AzureCli
    testbed: Testbed
    clusters: str
    """The subscription of the cluster."""
    account: str = field(default_factory=lambda: f"mended{uuid.uuid4().hex[:8]}")
    refused: list[Problem] = field(default_factory=list)
    """What kept commands from being carried out, until its own commands were."""

    def __post_init__(self) -> None:
        self.vault = (
            f"/subscriptions/{self.server.subscription}/resourceGroups/vaults/providers/"
            "Microsoft.DataProtection/backupVaults/vault1"
        )
        self.apps = f"/subscriptions/{self.clusters}/resourceGroups/apps"
        self.cluster = f"{self.apps}/providers/{KIND}/aks1"
        self.stage = Stage(self.server.home.parent / "ready.json", self.testbed)

    def put(self, path: str, body: Any, command: str) -> Any:
        sent = self.client.send("PUT", path, body, command=command)
        assert sent.status in (200, 201), sent.body
        return self.client.wait(sent, OPERATION)

    def validate(self) -> tuple[Problem, ...]:
        """Validate as `az dataprotection backup-instance validate-for-backup` does."""
        command = "dataprotection backup-instance validate-for-backup"
        body = {"backupInstance": self.instance()}
        sent = self.client.send("POST", f"{self.vault}/validateForBackup?{DP}", body, command=command)
        assert sent.status == 202, sent.body
        try:
            self.client.wait(sent, "location")
        except HttpResponseError as error:
            if error.response is None:
                raise
            return problems_of_answer(json.loads(error.response.text())["error"])
        return ()

    def instance(self) -> dict[str, Any]:
        source = {
            "datasourceType": KIND,
            "objectType": "Datasource",
            "resourceId": self.cluster,
            "resourceLocation": REGION,
            "resourceName": "aks1",
            "resourceType": KIND,
            "resourceUri": self.cluster,
        }
        store = {
            "dataStoreType": "OperationalStore",
            "objectType": "AzureOperationalStoreParameters",
            "resourceGroupId": f"/subscriptions/{self.clusters}/resourceGroups/snapshots",
        }
        configuration = {
            "objectType": "KubernetesClusterBackupDatasourceParameters",
            "snapshotVolumes": True,
            "includeClusterScopeResources": True,
        }
        return {
            "objectType": "BackupInstance",
            "friendlyName": "aks1/all",
            "dataSourceInfo": source,
            "dataSourceSetInfo": {**source, "objectType": "DatasourceSet"},
            "policyInfo": {
                "policyId": f"{self.vault}/backupPolicies/daily",
                "policyParameters": {
                    "dataStoreParametersList": [store],
                    "backupDatasourceParametersList": [configuration],
                },
            },
        }

    def mend(self, problem: Problem) -> None:
        """Run every command that a problem prints. An action that is none begins with a word of prose."""
        commands = [action for action in problem.actions if action.startswith(("az ", "strongroom "))]
        assert problem.actions[:1] == tuple(commands[:1]), f"it begins with no command: {problem}"
        for command in commands:
            self.run(command)

    def run(self, command: str) -> None:
        known = {
            "FILE": str(self.testbed.kubeconfig),
            "blobContainer=CONTAINER": "blobContainer=points",
            "storageAccount=ACCOUNT": f"storageAccount={self.account}",
            "storageAccountResourceGroup=GROUP": "storageAccountResourceGroup=apps",
        }
        words = [known.get(word, word) for word in shlex.split(command)]
        left = [word for word in words if "…" in word or word.rpartition("=")[2].isupper()]
        assert not left, f"it takes more than is known to run: {command}"
        match words:
            case ["strongroom", *rest]:
                done = self.stage.run(*rest)
                assert done.returncode == 0, (command, done.stdout, done.stderr)
            case ["az", "k8s-extension", "create", *rest]:
                self.create_extension(rest)
            case ["az", "dataprotection", "backup-vault", "update", *rest]:
                self.update_vault(rest)
            case ["az", *rest]:
                self.az(*rest)
            case _:
                pytest.fail(f"nobody knows this command: {command}")

    def update_vault(self, words: list[str]) -> None:
        path = (
            f"/subscriptions/{option(words, 'subscription')}/resourceGroups/{option(words, 'resource-group')}"
            f"/providers/Microsoft.DataProtection/backupVaults/{option(words, 'vault-name')}?{DP}"
        )
        command = "dataprotection backup-vault update"
        whole = self.client.send("GET", path, command=command).body
        changed = self.put(path, {**whole, "identity": {"type": option(words, "type")}}, command)
        assert changed["identity"]["principalId"]

    def create_extension(self, words: list[str]) -> None:
        """Send the extension's PUT, and until it is taken run the commands that its refusals print.

        Where the account is absent az stops at its own GET of it; who sends the PUT otherwise reads the refusal.
        """
        command = "k8s-extension create"
        assert option(words, "cluster-type") == "managedClusters"
        subscription, group = option(words, "subscription"), option(words, "resource-group")
        cluster = (
            f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{KIND}/{option(words, 'cluster-name')}"
        )
        given = dict(word.split("=", 1) for word in words if "=" in word)
        account = (
            f"/subscriptions/{given['storageAccountSubscriptionId']}/resourceGroups/"
            f"{given['storageAccountResourceGroup']}/providers/Microsoft.Storage/storageAccounts/"
            f"{given['storageAccount']}"
        )
        path = f"{cluster}/providers/Microsoft.KubernetesConfiguration/extensions/{option(words, 'name')}?{EXTENSIONS}"
        for _ in range(ROUNDS):
            found = self.client.send("GET", f"{account}?{STORAGE}", command=command)
            endpoint = found.body["properties"]["primaryEndpoints"]["blob"] if found.status == 200 else ""
            prefix = "configuration.backupStorageLocation"
            settings = {
                f"{prefix}.bucket": given["blobContainer"],
                f"{prefix}.config.storageAccount": given["storageAccount"],
                f"{prefix}.config.resourceGroup": given["storageAccountResourceGroup"],
                f"{prefix}.config.subscriptionId": given["storageAccountSubscriptionId"],
                f"{prefix}.config.useAAD": "true",
                f"{prefix}.config.storageAccountURI": endpoint,
                "credentials.tenantId": self.server.ready["tenantId"],
            }
            properties = {
                "extensionType": option(words, "extension-type"),
                "autoUpgradeMinorVersion": True,
                "releaseTrain": option(words, "release-train"),
                "scope": {option(words, "scope"): {}},
                "configurationSettings": settings,
            }
            sent = self.client.send("PUT", path, {"properties": properties}, command=command)
            if sent.status in (200, 201):
                assert self.client.wait(sent, OPERATION)["properties"]["provisioningState"] == "Succeeded"
                return
            for problem in problems_of_answer(sent.body["error"]):
                self.refused.append(problem)
                self.mend(problem)
        pytest.fail(f"the extension is still refused: {self.refused}")


@pytest.fixture
def site(compat_cluster: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("mended")
    with running_server(folder) as server:
        alias = "/providers/Microsoft.Subscription/aliases/clusters?api-version=2021-10-01"
        wanted = {"properties": {"displayName": "clusters", "workload": "Production"}}
        status, made = server.request("PUT", alias, wanted)
        assert status in (200, 201), made
        az = signed_in(server, folder / "az")
        client = RecordedClient(server)
        site = Site(server, client, az, compat_cluster, str(made["properties"]["subscriptionId"]))
        for group, region in ((site.apps, ELSEWHERE), (site.vault.partition("/providers/")[0], REGION)):
            site.put(f"{group}?{GROUPS}", {"location": region}, "group create")
        # A vault stands in a subscription that is registered for vaults; for the rest it is not.
        root = f"/subscriptions/{server.subscription}/providers/Microsoft.DataProtection"
        client.send("POST", f"{root}/register?{GROUPS}")
        stores = [{"datastoreType": "VaultStore", "type": "LocallyRedundant"}]
        vault = {"location": REGION, "identity": {"type": "None"}, "properties": {"storageSettings": stores}}
        site.put(f"{site.vault}?{DP}", vault, "dataprotection backup-vault create")
        yield site
        # Leave the cluster to the next server.
        extension = f"{site.cluster}/providers/Microsoft.KubernetesConfiguration/extensions/azure-aks-backup"
        for path, final in ((f"{extension}?{EXTENSIONS}&forceDelete=false", OPERATION), (f"{site.cluster}?{AKS}", "")):
            sent = client.send("DELETE", path)
            if sent.status == 202:
                client.wait(sent, final)
        client.close()


def test_what_is_absent_at_once_is_mended_by_the_printed_commands(site: Site) -> None:
    rounds: list[list[str]] = []
    told: set[Problem] = set()
    while problems := site.validate():
        assert len(rounds) < ROUNDS, problems
        rounds.append(sorted(problem.code for problem in problems))
        now = set(problems)
        assert len(now) == len(problems), "each is told once"
        assert not now & told, "what its commands have mended does not come again"
        told |= now
        for problem in problems:
            site.mend(problem)
    assert rounds == [
        sorted(
            [
                "BMSUserErrorInvalidInput",  # no policy
                *5 * [UNREGISTERED],  # three where the cluster is, two where the vault is
                "ResourceNotFound",  # no cluster
                "ResourceGroupNotFound",  # no snapshot resource group
                "UserErrorVaultIdentityNotFound",
            ]
        ),
        # The cluster is there, and the identities of vault and cluster: what hangs on them can be seen to be absent.
        sorted([NO_EXTENSION, NO_ACCESS, "KubernetesBackupListExtensionsError", NO_ROLE, NO_ROLE]),
        [NO_STORAGE_ROLE],
    ]
    # Installing the extension has named its account and then its container.
    assert [problem.code for problem in site.refused] == [NO_LOCATION, NO_LOCATION]
    account = f"{site.apps}/providers/Microsoft.Storage/storageAccounts/{site.account}"
    place = f"{account}/blobServices/default/containers/points"
    assert [problem.target for problem in site.refused] == [account, place]
