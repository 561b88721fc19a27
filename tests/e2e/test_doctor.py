"""`strongroom doctor` names each thing that is broken, with the command that mends it."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from strongroom.cli.doctor_cluster import check_cluster
from strongroom.cli.options import ClusterOptions
from strongroom.controlplane.identity.roles import BACKUP_READER
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.objects import SNAPSHOT_CLASS
from strongroom.testbed.options import TestbedOptions
from strongroom.testbed.sharing import shared_testbed

from ..serving import RunningServer, running_server
from .service_stage import CLUSTER, GROUP, INSTANCE, SNAPSHOTS, VAULT, Stage, application

Findings = dict[tuple[str, str], Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A control plane of this module's own, which its tests break."""
    with running_server(tmp_path_factory.mktemp("doctor")) as running:
        yield running


@pytest.fixture(scope="module")
def stage(server: RunningServer, testbeds_folder: Path) -> Iterator[Stage]:
    """The server and a cluster of the module's own, with an application, not connected yet."""
    with shared_testbed(testbeds_folder / "own-doctor") as cluster:
        cluster.kubectl("apply", "-f", "-", stdin=application("shop"))
        cluster.kubectl("wait", "pvc/data", "-n", "shop", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
        yield Stage(server.home.parent / "ready.json", cluster)


@pytest.fixture(scope="module")
def repository(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A repository with a recovery point, as options."""
    folder = tmp_path_factory.mktemp("doctors-repository")
    where = ("--repository", f"file://{folder}/repository", "--key-file", f"{folder}/key.json")
    assert stage.run("repository", "init", *where).returncode == 0
    made = stage.run("point", "create", *where, "--kubeconfig", str(stage.testbed.kubeconfig))
    assert made.returncode == 0, made.stderr
    return where


@pytest.fixture
def bare(stage: Stage) -> tuple[str, ...]:
    return ("--kubeconfig", str(stage.testbed.kubeconfig))


def broken(findings: Findings) -> set[tuple[str, str]]:
    return {key for key, finding in findings.items() if finding["status"] != "ok"}


# A bare kubeconfig


def test_a_sound_cluster_and_repository_have_no_finding(
    stage: Stage, bare: tuple[str, ...], repository: tuple[str, ...]
) -> None:
    code, findings = stage.findings(*bare, *repository)
    assert (code, broken(findings)) == (0, set())
    assert findings["volumes", ""]["found"] == "1 of 1 claims can be snapshotted"
    table = stage.run("doctor", *bare, ready=False)
    assert table.returncode == 0
    assert table.stdout.split()[:5] == ["CHECK", "OF", "FOUND", "WHAT", "MENDS"]


def test_an_api_group_that_does_not_answer_is_named(stage: Stage, bare: tuple[str, ...]) -> None:
    service = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1.dead.example.org"},
        "spec": {
            "group": "dead.example.org",
            "version": "v1",
            "groupPriorityMinimum": 100,
            "versionPriority": 10,
            "insecureSkipTLSVerify": True,
            "service": {"name": "nobody", "namespace": "default"},
        },
    }
    stage.testbed.kubectl("apply", "-f", "-", stdin=json.dumps(service))
    try:
        code, findings = stage.findings(*bare)
    finally:
        stage.testbed.kubectl("delete", "apiservice", "v1.dead.example.org")
    assert (code, broken(findings)) == (1, {("API group", "dead.example.org/v1")})
    assert "kubectl get apiservice v1.dead.example.org" in findings["API group", "dead.example.org/v1"]["mend"][0]


def test_a_claim_that_no_snapshot_class_serves_is_named(stage: Stage, bare: tuple[str, ...]) -> None:
    kept = stage.testbed.kubectl("get", "volumesnapshotclass", SNAPSHOT_CLASS, "-o", "json")
    stage.testbed.kubectl("delete", "volumesnapshotclass", SNAPSHOT_CLASS)
    try:
        code, findings = stage.findings(*bare)
    finally:
        stage.testbed.kubectl("create", "-f", "-", stdin=without_server_fields(kept))
    assert (code, broken(findings)) == (1, {("volume", "shop/data")})
    assert findings["volume", "shop/data"]["code"] == "UserErrorVolumeSnapshotClassNotFound"


def without_server_fields(text: str) -> str:
    found = json.loads(text)
    for name in ("resourceVersion", "uid", "creationTimestamp", "managedFields"):
        found["metadata"].pop(name, None)
    return json.dumps(found)


async def test_snapshots_that_no_controller_takes_up_are_named(stage: Stage) -> None:
    snapshot = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": "waiting", "namespace": "shop"},
        "spec": {"source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": SNAPSHOT_CLASS},
    }
    later = datetime.now(UTC) + timedelta(minutes=10)
    stage.testbed.stop("snapshot-controller")
    try:
        stage.testbed.kubectl("create", "-f", "-", stdin=json.dumps(snapshot))
        options = ClusterOptions(kubeconfig=stage.testbed.kubeconfig)
        found = {each.check: each for each in await check_cluster(options, "", None, 1, later)}
    finally:
        stage.testbed.start("snapshot-controller")
        stage.testbed.kubectl("delete", "volumesnapshot", "waiting", "-n", "shop")
    assert found["snapshot-controller"].status == "fail"
    assert "shop/waiting" in found["snapshot-controller"].found


def test_missing_rights_are_named_and_the_printed_command_grants_them(stage: Stage) -> None:
    kubeconfig = stage.testbed.make_client_cert("visitor")
    code, findings = stage.findings("--kubeconfig", str(kubeconfig))
    assert code == 1
    assert {("rights", "read"), ("rights", "snapshot"), ("rights", "restore")} <= broken(findings)
    for what in ("read", "snapshot", "restore"):
        for command in findings["rights", what]["mend"][0].replace("USER", "visitor").split(" && "):
            words = command.replace("'", "").split()
            assert words[0] == "kubectl"
            stage.testbed.kubectl(*words[1:])
    code, findings = stage.findings("--kubeconfig", str(kubeconfig))
    assert (code, broken(findings)) == (0, set())


def test_kinds_in_an_etcd_of_their_own_and_a_missing_snapshot_api_are_warnings(
    stage: Stage, own_testbed: Callable[..., Testbed]
) -> None:
    other = own_testbed(TestbedOptions(volumes=False, etcd_servers_overrides=("/configmaps",)))
    code, findings = stage.findings("--kubeconfig", str(other.kubeconfig))
    assert code == 3
    assert broken(findings) == {("kinds", "one instant"), ("snapshot API", "snapshot.storage.k8s.io")}
    assert "configmaps" in findings["kinds", "one instant"]["found"]


def test_a_cluster_that_cannot_be_reached_is_the_finding(
    stage: Stage, tmp_path: Path, repository: tuple[str, ...]
) -> None:
    text = stage.testbed.kubeconfig.read_text()
    (tmp_path / "config").write_text(text.replace(stage.testbed.server, "https://127.0.0.1:9"))
    code, findings = stage.findings("--kubeconfig", str(tmp_path / "config"), *repository)
    assert (code, broken(findings)) == (1, {("API server", "https://127.0.0.1:9")})
    assert ("store", repository[1]) in findings, "the repository is looked at all the same"
    code, findings = stage.findings("--kubeconfig", str(tmp_path / "absent"))
    assert (code, broken(findings)) == (1, {("kubeconfig", str(tmp_path / "absent"))})


def test_a_repository_that_is_old_damaged_or_closed_is_named(
    stage: Stage, bare: tuple[str, ...], repository: tuple[str, ...], tmp_path: Path
) -> None:
    code, findings = stage.findings(*bare, *repository, "--max-age", "1s")
    assert (code, [check for check, _ in broken(findings)]) == (1, ["last backup"])

    folder = Path(repository[1].removeprefix("file://"))
    copied = tmp_path / "repository"
    shutil.copytree(folder, copied)
    (manifest,) = copied.glob("points/*/manifest.json")
    manifest.write_bytes(manifest.read_bytes()[:-7])
    code, findings = stage.findings(*bare, "--repository", f"file://{copied}", *repository[2:])
    assert code == 1
    assert {check for check, _ in broken(findings)} == {"recovery points", "last backup"}

    other = tmp_path / "other.json"
    where = ("--repository", f"file://{tmp_path}/second", "--key-file", str(other))
    assert stage.run("repository", "init", *where).returncode == 0
    code, findings = stage.findings(*bare, *repository[:2], "--key-file", str(other))
    assert (code, [check for check, _ in broken(findings)]) == (1, ["repository"])

    code, findings = stage.findings(*bare, "--repository", f"file://{tmp_path}/nowhere", "--key-file", str(other))
    assert code == 1
    assert [check for check, _ in broken(findings)] in (["store"], ["repository"])


def test_a_service_and_a_kubeconfig_are_not_looked_at_together(stage: Stage, bare: tuple[str, ...]) -> None:
    assert stage.run("doctor", *bare, "--vault-name", VAULT).returncode == 2


# A control plane


@pytest.fixture(scope="module")
def protected(stage: Stage) -> Stage:
    """The stage, with the cluster protected and backed up once."""
    code, findings = stage.findings()
    assert code == 1, "a new server lacks everything"
    assert {check for check, _ in broken(findings)} == {"provider", "clusters", "storage", "vaults"}
    stage.prepare()
    stage.connect()
    stage.document("vault", "create", VAULT, "-g", GROUP)
    stage.document("policy", "create", "often")
    stage.trust()
    new = ("--cluster", CLUSTER, "--policy", "often", "--snapshot-resource-group", SNAPSHOTS)
    stage.document("instance", "create", INSTANCE, *new, "--include-namespace", "shop", "--grant")
    code, findings = stage.findings()
    assert (code, broken(findings)) == (3, {("last backup", INSTANCE)}), "there is no backup yet"
    mend(stage, findings["last backup", INSTANCE])
    return stage


def mend(stage: Stage, finding: Any) -> None:
    """Run the command that a finding gives."""
    words = finding["mend"][0].split()
    assert words[0] == "strongroom"
    done = stage.run(*words[1:])
    assert done.returncode == 0, done.stderr


def test_a_sound_service_has_no_finding(protected: Stage) -> None:
    code, findings = protected.findings()
    assert (code, broken(findings)) == (0, set())
    checks = {check for check, _ in findings}
    assert {"certificate", "server", "providers", "extension", "trusted access", "storage", "vault"} <= checks
    assert {"protection", "readiness", "last backup", "jobs"} <= checks


def test_missing_roles_and_the_jobs_that_fail_by_them_are_named_and_mended(protected: Stage) -> None:
    with protected.session() as session:
        cluster = session.get(protected.cluster_id(session))["identity"]["principalId"]
        for assignment in session.items(f"{session.root}/providers/Microsoft.Authorization/roleAssignments"):
            if assignment["properties"]["principalId"] == cluster:
                session.delete(assignment["id"])
    assert protected.run("instance", "backup", INSTANCE).returncode == 1
    code, findings = protected.findings()
    assert code == 1
    assert broken(findings) == {("readiness", INSTANCE), ("roles", INSTANCE), ("jobs", INSTANCE)}
    assert findings["readiness", INSTANCE]["mend"][0].startswith("az role assignment create")
    mend(protected, findings["roles", INSTANCE])
    assert protected.run("instance", "backup", INSTANCE).returncode == 0
    code, findings = protected.findings()
    assert (code, broken(findings)) == (3, {("jobs", INSTANCE)}), "a failure with a backup after it is a warning"


def test_missing_trusted_access_is_named(protected: Stage) -> None:
    with protected.session() as session:
        session.delete(f"{protected.cluster_id(session)}/trustedAccessRoleBindings/tab")
    try:
        _, findings = protected.findings("--instance", INSTANCE)
    finally:
        protected.trust()
    assert findings["readiness", INSTANCE]["code"] == "UserErrorTrustedAccessGatewayReturnedForbidden"
    assert "az aks trustedaccess rolebinding create" in findings["readiness", INSTANCE]["mend"][0]


def test_what_the_caller_may_not_see_is_told_and_the_rest_is_looked_at(
    protected: Stage, server: RunningServer, tmp_path: Path
) -> None:
    group = f"/subscriptions/{server.subscription}/resourceGroups/{GROUP}"
    caller, _ = server.caller(BACKUP_READER.id, group)
    _, secret = server.request("POST", f"/v1.0/applications/{caller['id']}/addPassword", {})
    content = json.loads(protected.ready_file.read_text())
    signs_in = {"clientId": caller["appId"], "clientSecret": secret["secretText"]}
    (tmp_path / "ready.json").write_text(json.dumps(content | signs_in))
    code, findings = protected.findings("--ready-file", str(tmp_path / "ready.json"), "-g", GROUP)
    assert code == 1
    assert "AuthorizationFailed" in findings["providers", server.subscription]["found"]
    assert "AuthorizationFailed" in findings["readiness", INSTANCE]["found"]
    for check, subject in (("protection", INSTANCE), ("last backup", INSTANCE), ("vault", VAULT)):
        assert findings[check, subject]["status"] == "ok"


def test_an_extension_that_was_taken_away_in_the_cluster_is_named(protected: Stage) -> None:
    protected.testbed.kubectl("delete", "clusterrolebinding", "strongroom-read")
    try:
        code, findings = protected.findings()
    finally:
        protected.connect()
    assert code == 1
    found = findings["extension", f"{CLUSTER}/azure-aks-backup"]
    assert (found["status"], found["code"]) == ("fail", "Unhealthy")


def test_a_cluster_that_does_not_answer_is_named(protected: Stage) -> None:
    protected.testbed.stop("kube-apiserver")
    try:
        code, findings = protected.findings()
    finally:
        protected.testbed.start("kube-apiserver")
    assert code == 1
    assert findings["extension", f"{CLUSTER}/azure-aks-backup"]["code"] == "ClusterUnreachable"
    assert findings["readiness", INSTANCE]["status"] == "fail"


def test_suspended_backups_are_a_warning(protected: Stage) -> None:
    with protected.session() as session:
        path = f"{session.group(GROUP)}/providers/Microsoft.DataProtection/backupVaults/{VAULT}"
        session.post(f"{path}/backupInstances/{INSTANCE}/suspendBackups", {})
        try:
            _, findings = protected.findings()
        finally:
            session.post(f"{path}/backupInstances/{INSTANCE}/resumeBackups")
    assert findings["protection", INSTANCE]["status"] == "warn"


def test_a_server_that_is_gone_or_another_one_is_the_finding(protected: Stage, tmp_path: Path) -> None:
    content = json.loads(protected.ready_file.read_text())
    (tmp_path / "ready.json").write_text(json.dumps(content | {"endpoint": "https://127.0.0.1:9"}))
    code, findings = protected.findings("--ready-file", str(tmp_path / "ready.json"))
    assert (code, broken(findings)) == (1, {("server", "https://127.0.0.1:9")})
    (tmp_path / "ready.json").write_text(json.dumps(content | {"caFile": requests.certs.where()}))
    code, findings = protected.findings("--ready-file", str(tmp_path / "ready.json"))
    assert code == 1
    assert {check for check, _ in broken(findings)} == {"certificate", "server"}
    (tmp_path / "ready.json").write_text("{}")
    assert protected.run("doctor", "--ready-file", str(tmp_path / "ready.json")).returncode == 2
