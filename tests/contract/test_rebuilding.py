"""A home is lost: `strongroom vault rebuild` makes its vaults anew from a container, whatever the container holds."""

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from strongroom.cli.main import run
from strongroom.controlplane.catalog.keys import ensure_repository
from strongroom.controlplane.catalog.recovery_kit import (
    IDENTITY_FILE,
    KitContainer,
    kit_is_taken,
    recovery_recipient,
    write_kit,
)
from strongroom.controlplane.catalog.sealed import StateSecrets
from strongroom.controlplane.home import Home
from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import now
from strongroom.controlplane.workflows.remembered import remembered
from strongroom.dataplane.objectstore import ObjectStore, open_store
from strongroom.dataplane.objectstore.filesystem import FilesystemStore
from strongroom.dataplane.repository.repository import Repository
from strongroom.testbed.builders import back_up, config_map
from strongroom.testbed.postgres import Postgres
from strongroom.testbed.stores import Azurite, azurite

GROUP = "/subscriptions/5a0b1f0e-6f1c-4f2b-9f43-0d4f3c6a7b11/resourceGroups/rg"
VAULT = f"{GROUP}/providers/Microsoft.DataProtection/backupVaults/vault1"
POLICY = f"{VAULT}/backupPolicies/gold"
INSTANCE = f"{VAULT}/backupInstances/shop"
CLUSTER = f"{GROUP}/providers/Microsoft.ContainerService/managedClusters/aks1"
ACCOUNT = f"{GROUP}/providers/Microsoft.Storage/storageAccounts/backups"
CONTAINER = f"{ACCOUNT}/blobServices/default/containers/box"
SOURCE = {
    "objectType": "Datasource",
    "datasourceType": "Microsoft.ContainerService/managedClusters",
    "resourceID": CLUSTER,
}
STORE = {"objectType": "DataStoreInfoBase", "dataStoreType": "OperationalStore"}


def policy() -> dict[str, Any]:
    tag = {"tagInfo": {"id": "Default_", "tagName": "Default"}, "taggingPriority": 99, "isDefault": True}
    schedule = {"repeatingTimeIntervals": ["R/2023-04-05T13:00:00+00:00/PT4H"], "timeZone": "UTC"}
    keep = {"objectType": "AbsoluteDeleteOption", "duration": "P7D"}
    return {
        "objectType": "BackupPolicy",
        "datasourceTypes": ["Microsoft.ContainerService/managedClusters"],
        "policyRules": [
            {
                "objectType": "AzureBackupRule",
                "name": "BackupHourly",
                "backupParameters": {"objectType": "AzureBackupParams", "backupType": "Incremental"},
                "dataStore": STORE,
                "trigger": {
                    "objectType": "ScheduleBasedTriggerContext",
                    "schedule": schedule,
                    "taggingCriteria": [tag],
                },
            },
            {
                "objectType": "AzureRetentionRule",
                "name": "Default",
                "isDefault": True,
                "lifecycles": [{"deleteAfter": keep, "sourceDataStore": STORE}],
            },
        ],
    }


def instance() -> dict[str, Any]:
    configuration = {
        "objectType": "KubernetesClusterBackupDatasourceParameters",
        "snapshotVolumes": False,
        "includeClusterScopeResources": True,
        "includedNamespaces": ["shop"],
    }
    place = {
        "objectType": "AzureOperationalStoreParameters",
        "dataStoreType": "OperationalStore",
        "resourceGroupId": GROUP,
    }
    return {
        "objectType": "BackupInstance",
        "friendlyName": "the shop",
        "dataSourceInfo": SOURCE,
        "dataSourceSetInfo": {**SOURCE, "objectType": "DatasourceSet"},
        "policyInfo": {
            "policyId": POLICY,
            "policyParameters": {
                "dataStoreParametersList": [place],
                "backupDatasourceParametersList": [configuration],
            },
        },
        "currentProtectionState": "ProtectionConfigured",
    }


def caller() -> dict[str, str]:
    """Return what the manifest of a backup of the instance says, made as the server makes it."""
    storage = [{"datastoreType": "OperationalStore", "type": "ZoneRedundant"}]
    security = {"softDeleteSettings": {"state": "On", "retentionDurationInDays": 30.0}}
    vault = {"location": "westeurope", "properties": {"storageSettings": storage, "securitySettings": security}}
    around = remembered(
        Resource(INSTANCE, "", {"properties": instance()}, VAULT),
        Resource(POLICY, "", {"properties": policy()}, VAULT),
        Resource(VAULT, "", vault, GROUP),
        CONTAINER,
    )
    said = {"instance": INSTANCE, "policy": POLICY, "tag": "Default", "retention": "P7D", "dataSource": CLUSTER}
    return {**around, **said}


class Lost:
    """A home that is gone: what is left are its kit and a container."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kit = folder / "kit.json"
        self.place = folder / "cloud" / "box"
        self.new = folder / "new"
        self.in_kit: dict[str, str] = {}

    async def open(self) -> ObjectStore:
        return FilesystemStore(self.place, create=True)

    @property
    def url(self) -> str:
        return f"file://{self.place}"

    def make(self, *callers: dict[str, str], kit_names_container: bool = True) -> list[str]:
        """Take a backup for each of *callers*, hand over the kit, lose the home; return the points' ids."""
        # The command line runs a loop of its own: the tests are in none.
        return asyncio.run(self._make(callers, kit_names_container))

    async def _make(self, callers: Sequence[dict[str, str]], kit_names_container: bool) -> list[str]:
        old = Home.open(self.folder / "old")
        db = Database.open(old.database_url, old.secret_key)
        store = await self.open()
        keys = await ensure_repository(store, StateSecrets(db), CONTAINER, recovery_recipient(old.folder))
        repository = await Repository.open(store, keys)
        points: list[str] = []
        for n, said in enumerate(callers):
            points.append((await back_up(repository, [config_map("a", str(n))], caller=said))[1].id)
        known = [KitContainer(id=CONTAINER, url=self.url, credentials=self.in_kit)] if kit_names_container else []
        await write_kit(
            self.kit, old.folder, StateSecrets(db), tenant_id=old.config.tenant_id, containers=known, now=now()
        )
        db.close()
        shutil.rmtree(old.folder)
        return points

    def rebuild(self, capsys: pytest.CaptureFixture[str], *words: str, expect: int = 0) -> dict[str, Any]:
        code = run(["vault", "rebuild", "--home", str(self.new), "--kit", str(self.kit), *words, "--output", "json"])
        printed = capsys.readouterr()
        assert code == expect, printed.err + printed.out
        found: dict[str, Any] = json.loads(printed.out or printed.err)
        return found

    def resources(self, *ids: str) -> list[Resource | None]:
        home = Home.open(self.new)
        db = Database.open(home.database_url, home.secret_key)
        with db.read() as tx:
            found = [tx.resources.get(id) for id in ids]
        db.close()
        return found


class LostInAzure(Lost):
    """As `Lost`, with the container in Azure Blob Storage."""

    def __init__(self, folder: Path, service: Azurite) -> None:
        super().__init__(folder)
        service.make_container("box")
        self.blobs = f"az://{service.account}/box?endpoint={service.endpoint}"
        self.key = service.environment["AZURE_STORAGE_ACCOUNT_KEY"]

    @property
    def url(self) -> str:
        return self.blobs

    async def open(self) -> ObjectStore:
        return await open_store(self.url, credentials={"accountKey": self.key})


@pytest.fixture
def lost(tmp_path: Path) -> Lost:
    return Lost(tmp_path)


@pytest.mark.parametrize("named", ["id", "url"])
def test_everything_comes_back_under_its_own_id(lost: Lost, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    points = lost.make(caller(), caller())
    done = lost.rebuild(capsys, "--from", CONTAINER if named == "id" else lost.url)
    assert {VAULT, POLICY, INSTANCE, ACCOUNT, CONTAINER, GROUP} <= set(done["made"])
    assert (done["recoveryPoints"], done["doubts"], done["unreadable"]) == (2, [], {})
    vault, rules, shop = lost.resources(VAULT, POLICY, INSTANCE)
    assert vault
    assert rules
    assert shop
    assert vault.doc["location"] == "westeurope"
    assert vault.properties["storageSettings"][0]["type"] == "ZoneRedundant"
    assert vault.properties["securitySettings"]["softDeleteSettings"]["retentionDurationInDays"] == 30
    assert rules.properties == policy()
    assert shop.properties["currentProtectionState"] == "ProtectionStopped"
    parameters = shop.properties["policyInfo"]["policyParameters"]["backupDatasourceParametersList"]
    assert parameters[0]["includedNamespaces"] == ["shop"]
    home = Home.open(lost.new)
    db = Database.open(home.database_url, home.secret_key)
    with db.read() as tx:
        assert {p.id for p in tx.points.of_instance(INSTANCE)} == set(points)
    db.close()


def test_it_can_be_repeated_and_then_finds_what_is_new(lost: Lost, capsys: pytest.CaptureFixture[str]) -> None:
    lost.make(caller())
    lost.rebuild(capsys, "--from", lost.url)
    again = lost.rebuild(capsys, "--from", CONTAINER)
    assert (again["made"], again["recoveryPoints"]) == ([], 0)
    assert {VAULT, POLICY, INSTANCE} <= set(again["stood"])


def test_the_url_is_enough_when_the_kit_is_from_before_the_container(
    lost: Lost, capsys: pytest.CaptureFixture[str]
) -> None:
    lost.make(caller(), kit_names_container=False)
    lost.rebuild(capsys, "--from", CONTAINER, expect=2)
    assert lost.rebuild(capsys, "--from", lost.url)["container"] == CONTAINER


def test_points_that_tell_little_still_make_an_instance(lost: Lost, capsys: pytest.CaptureFixture[str]) -> None:
    lost.make({"instance": INSTANCE, "policy": POLICY, "dataSource": CLUSTER})
    done = lost.rebuild(capsys, "--from", CONTAINER, "--location", "West US", expect=3)
    assert len(done["doubts"]) == 3
    vault, shop = lost.resources(VAULT, INSTANCE)
    assert vault
    assert shop
    assert vault.doc["location"] == "westus"
    assert shop.properties["policyInfo"]["policyId"] == POLICY


@pytest.mark.parametrize(
    "lie",
    [
        {"instance": "/subscriptions/../x"},
        {"instance": f"{GROUP}/providers/Microsoft.Compute/snapshots/s"},
        {"instance": INSTANCE.replace("5a0b1f0e-6f1c-4f2b-9f43-0d4f3c6a7b11", "not-a-guid")},
        {"instance": f"{VAULT}/backupInstances/<script>"},
        {"config": '{"dataSourceInfo": []}'},
        {"config": '{"policyInfo": {"policyId": "/subscriptions/other"}}'},
        {"config": "not JSON"},
        {"config": "[" * 5000},
        {"policyConfig": '{"policyRules": [1, 2]}'},
        {"policyConfig": '}, "id": "x"'},
        {"vaultConfig": '{"location": 5}'},
        {"vaultConfig": '{"location": "westus", "properties": {"securitySettings": {"softDeleteSettings": 7}}}'},
    ],
    ids=lambda lie: f"{next(iter(lie))}: {next(iter(lie.values()))[-24:]}",
)
def test_what_a_broken_cluster_wrote_is_told_and_harms_nothing_else(
    lost: Lost, lie: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    other = {k: v.replace("vault1", "vault2") for k, v in caller().items()}
    lost.make({**caller(), **lie}, other)
    done = lost.rebuild(capsys, "--from", CONTAINER, expect=3)
    assert len(done["doubts"]) == 1, done["doubts"]
    assert other["instance"] in done["made"]


def test_one_vault_alone(lost: Lost, capsys: pytest.CaptureFixture[str]) -> None:
    other = {k: v.replace("vault1", "vault2") for k, v in caller().items()}
    lost.make(caller(), other)
    done = lost.rebuild(capsys, "--from", CONTAINER, "--vault", VAULT)
    assert VAULT in done["made"]
    assert VAULT.replace("vault1", "vault2") not in done["made"]
    refused = lost.rebuild(capsys, "--from", CONTAINER, "--vault", VAULT.replace("vault1", "none"), expect=2)
    assert "vault2" in refused["error"]["hint"]


@pytest.mark.parametrize("credentials", ["kit", "file"])
def test_a_container_in_a_cloud_needs_its_credentials(
    tmp_path: Path, credentials: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with azurite() as service:
        lost = LostInAzure(tmp_path, service)
        if credentials == "kit":
            lost.in_kit = {"accountKey": lost.key}
        lost.make(caller())
        words = ["--from", CONTAINER]
        if credentials == "file":
            refused = lost.rebuild(capsys, *words, expect=2)
            assert "--credential" in refused["error"]["hint"]
            (tmp_path / "key.txt").write_text(lost.key + "\n")
            words += ["--credential", f"accountKey=@{tmp_path / 'key.txt'}"]
        assert lost.rebuild(capsys, *words)["recoveryPoints"] == 1
        assert lost.key.encode() not in b"".join(f.read_bytes() for f in lost.new.glob("state.sqlite*"))
        assert lost.rebuild(capsys, "--from", CONTAINER)["recoveryPoints"] == 0, "the home has them now"


def test_a_home_with_postgresql(
    lost: Lost, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost.make(caller())
    with postgres.database() as url:
        monkeypatch.setenv("STRONGROOM_DATABASE", url)
        assert lost.rebuild(capsys, "--from", lost.url)["recoveryPoints"] == 1
        assert lost.rebuild(capsys, "--from", CONTAINER)["made"] == []
        new = lost.folder / "new-kit.json"
        assert run(["recovery-kit", str(new), "--home", str(lost.new)]) == 0
        assert CONTAINER in {c["id"] for c in json.loads(new.read_text())["containers"]}
        assert run(["serve", "backup", str(lost.folder / "copy.tar"), "--home", str(lost.new)]) == 0
        assert "pg_dump" in capsys.readouterr().err
    assert not (lost.new / "state.sqlite").exists()


def test_a_kit_of_another_home_is_refused_and_leaves_nothing(
    lost: Lost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost.make(caller())
    (tmp_path / "foreign").mkdir()
    foreign = Lost(tmp_path / "foreign")
    foreign.make(caller())
    lost.kit = foreign.kit
    refused = lost.rebuild(capsys, "--from", lost.url, "--container", CONTAINER, expect=2)
    assert refused["error"]["type"] == "KitInvalid"
    assert lost.resources(VAULT, CONTAINER) == [None, None]


def test_the_kit_makes_a_key_file_for_the_plain_command_line(
    lost: Lost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (point,) = lost.make(caller())
    key = tmp_path / "container.key"
    words = ["--repository", lost.url, "--key-file", str(key)]
    assert run(["repository", "key-file", "--kit", str(lost.kit), *words]) == 0
    assert key.stat().st_mode & 0o777 == 0o600
    assert "AGE-SECRET-KEY" not in "".join(capsys.readouterr())
    assert run(["point", "list", *words, "--quiet"]) == 0
    assert capsys.readouterr().out.split() == [point]
    assert run(["repository", "key-file", "--kit", str(lost.kit), *words]) == 2


def test_a_new_kit_opens_what_can_be_reached_and_names_the_rest(
    lost: Lost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost.make(caller())
    lost.rebuild(capsys, "--from", CONTAINER)
    new = tmp_path / "new.json"
    assert run(["recovery-kit", str(new), "--new", "--home", str(lost.new)]) == 0
    key = ["--repository", lost.url, "--key-file", str(tmp_path / "new.key")]
    assert run(["repository", "key-file", "--kit", str(new), *key]) == 0
    assert run(["point", "show", "latest", *key, "--quiet"]) == 0
    lost.place.rename(tmp_path / "away")
    capsys.readouterr()
    words = ["--new", "--home", str(lost.new), "--output", "json"]
    assert run(["recovery-kit", str(tmp_path / "newer.json"), *words]) == 3
    assert [c["container"] for c in json.loads(capsys.readouterr().out)["notReached"]] == [CONTAINER]


def test_the_kit_leaves_the_home_with_its_secret_and_nothing_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, kit = tmp_path / "home", tmp_path / "kit.json"
    assert run(["recovery-kit", str(kit), "--home", str(home)]) == 2, "there is no home"
    assert not home.exists()
    opened = Home.open(home)
    assert run(["recovery-kit", str(kit), "--home", str(home)]) == 2, "its database is elsewhere"
    assert not (home / "state.sqlite").exists()
    Database.open(opened.database_url, opened.secret_key).close()
    assert run(["recovery-kit", str(kit), "--home", str(home)]) == 0
    printed = "".join(capsys.readouterr())
    identity = json.loads(kit.read_text())["identity"]
    assert identity.startswith("AGE-SECRET-KEY")
    assert "AGE-SECRET-KEY" not in printed
    assert kit.stat().st_mode & 0o777 == 0o600
    assert kit_is_taken(home)
    assert run(["recovery-kit", str(tmp_path / "second.json"), "--home", str(home)]) == 2
    assert run(["recovery-kit", str(tmp_path / "third.json"), "--home", str(home), "--new"]) == 0
    assert json.loads((tmp_path / "third.json").read_text())["identity"] != identity
    assert not (home / IDENTITY_FILE).exists()
