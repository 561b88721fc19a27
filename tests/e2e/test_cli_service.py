"""The commands that work with a control plane from the shell: vaults, policies, backup instances, jobs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from strongroom.client.session import Session
from strongroom.testbed.sharing import shared_testbed

from ..serving import RunningServer, running_server
from .service_stage import CLUSTER, GROUP, INSTANCE, LOCATION, SNAPSHOTS, VAULT, Stage, application

NEW = ("--cluster", CLUSTER, "--policy", "often", "--snapshot-resource-group", SNAPSHOTS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A control plane of this module's own: it is to have one vault."""
    with running_server(tmp_path_factory.mktemp("cli-service")) as running:
        yield running


@pytest.fixture(scope="module")
def stage(server: RunningServer, testbeds_folder: Path) -> Iterator[Stage]:
    """A cluster that is connected, a vault with a policy, and nothing protected yet; no role is assigned."""
    with shared_testbed(testbeds_folder / "own-cli-service") as cluster:
        made = Stage(server.home.parent / "ready.json", cluster)
        cluster.kubectl("apply", "-f", "-", stdin=application("shop"))
        cluster.kubectl("wait", "pvc/data", "-n", "shop", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
        made.prepare()
        made.connect()
        made.document("vault", "create", VAULT, "-g", GROUP)
        made.document("policy", "create", "often", "--every", "4h", "--keep", "3d")
        made.trust()
        yield made


def test_a_cluster_is_protected_backed_up_and_restored_from_the_shell(stage: Stage) -> None:
    refused = stage.document("instance", "validate", *NEW, code=1)
    assert not refused["ready"]
    assert len(refused["problems"]) == 4
    assert all("role assignment create" in each["recommendedAction"][0] for each in refused["problems"])
    failed = stage.run("instance", "create", INSTANCE, *NEW)
    assert failed.returncode == 2
    assert "az role assignment create" in failed.stderr

    granted = stage.document("instance", "grant", "--cluster", CLUSTER, "--snapshot-resource-group", SNAPSHOTS)
    assert len(granted["roleAssignments"]) == 4
    assert stage.run("instance", "grant", *NEW).stdout == "no role is missing\n"
    assert stage.document("instance", "validate", *NEW) == {"ready": True, "problems": []}
    made = stage.document("instance", "create", INSTANCE, *NEW, "--include-namespace", "shop")
    assert made["properties"]["currentProtectionState"] == "ProtectionConfigured"
    assert stage.run("instance", "list", "-q").stdout == f"{INSTANCE}\n"
    assert stage.document("instance", "validate", INSTANCE)["ready"]

    done = stage.run("instance", "backup", "sho", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("job ")
    job = json.loads(done.stdout)
    point = job["properties"]["extendedInfo"]["targetRecoverPoint"]["recoveryPointID"]
    (listed,) = stage.document("instance", "points", INSTANCE)
    assert listed["name"] == point

    back = ("instance", "restore", INSTANCE, "--point", "latest", "--map-namespace", "shop=copy")
    assert stage.document(*back, "--include-namespace", "shop", "--validate-only")["ready"]
    take_roles(stage, stage.cluster_id)
    refused = stage.document(*back, "--include-namespace", "shop", "--validate-only", code=1)
    assert "az role assignment create" in refused["problems"][0]["recommendedAction"][0]
    (assigned,) = stage.document("instance", "grant", INSTANCE, "--target", CLUSTER)["roleAssignments"]
    assert assigned["properties"]["scope"].endswith(SNAPSHOTS)
    begun = stage.document(*back, "--include-namespace", "shop", "--no-wait")
    assert begun["properties"]["operationCategory"] == "Restore"
    waited = stage.document("job", "wait", begun["name"])
    assert waited["properties"]["status"] == "Completed", waited
    copied = json.loads(stage.testbed.kubectl("get", "configmap", "settings", "-n", "copy", "-o", "json"))
    assert copied["data"] == {"greeting": "hello"}

    assert stage.run("job", "list", "-q").stdout.split() == [begun["name"], job["name"]], "newest first"
    assert stage.run("job", "list", "--operation", "Backup", "-q").stdout.split() == [job["name"]]
    assert stage.run("job", "list", "--status", "Failed", "-o", "json").stdout == "[]\n"
    late = stage.run("job", "cancel", begun["name"])
    assert late.returncode == 1
    assert "UserErrorJobNotInProgress" in late.stderr


def take_roles(stage: Stage, resource: Callable[[Session], str]) -> int:
    """Delete the role assignments of a resource's identity; return how many there were."""
    with stage.session() as session:
        principal = session.get(resource(session))["identity"]["principalId"]
        assignments = session.items(f"{session.root}/providers/Microsoft.Authorization/roleAssignments")
        taken = [each["id"] for each in assignments if each["properties"]["principalId"] == principal]
        for assignment in taken:
            session.delete(assignment)
    return len(taken)


def test_a_failed_job_ends_the_command_with_1_and_says_why_and_what_mends_it(stage: Stage) -> None:
    stage.run("instance", "create", INSTANCE, *NEW, "--include-namespace", "shop", "--grant")
    assert take_roles(stage, lambda _: str(stage.document("vault", "show", VAULT)["id"])) == 2
    failed = stage.run("instance", "backup", INSTANCE)
    assert failed.returncode == 1, failed.stdout
    assert "Failed" in failed.stdout
    assert "az role assignment create" in failed.stdout
    granted = stage.document("instance", "grant", INSTANCE, "--permissions-scope", "ResourceGroup")
    scopes = {each["properties"]["scope"].rpartition("/")[2] for each in granted["roleAssignments"]}
    assert scopes == {GROUP, SNAPSHOTS}
    assert stage.run("instance", "backup", INSTANCE).returncode == 0


def test_a_request_file_serves_as_az_writes_it(stage: Stage, tmp_path: Path) -> None:
    stage.run("instance", "create", INSTANCE, *NEW, "--include-namespace", "shop", "--grant")
    file = tmp_path / "instance.json"
    file.write_text(json.dumps(stage.document("instance", "show", INSTANCE)))
    assert stage.run("instance", "grant", "--backup-instance", str(file)).stdout == "no role is missing\n"
    doubled = stage.document("instance", "validate", "--backup-instance", str(file), code=1)
    assert "protects the cluster with this policy already" in doubled["problems"][0]["message"]
    for content in ("no JSON", "[]"):
        file.write_text(content)
        assert stage.run("instance", "grant", "--backup-instance", str(file)).returncode == 2
    assert stage.run("instance", "grant", "--backup-instance", str(tmp_path / "absent")).returncode == 2


def test_vaults_and_policies_are_shown_as_the_api_has_them(stage: Stage) -> None:
    again = stage.document("vault", "create", VAULT, "-g", GROUP)
    shown = stage.document("vault", "show", VAULT)
    assert again["id"] == shown["id"]
    assert (shown["location"], shown["properties"]["provisioningState"]) == (LOCATION, "Succeeded")
    assert stage.run("vault", "list", "-q").stdout == f"{VAULT}\n"
    policy = stage.document("policy", "show", "often")
    assert policy["properties"]["policyRules"][1]["lifecycles"][0]["deleteAfter"]["duration"] == "P3D"
    assert stage.run("policy", "list", "-q").stdout == "often\n"
    assert stage.run("policy", "create", "wrong", "--keep", "never").returncode == 2


def test_what_is_not_there_is_a_usage_error_that_names_what_is(stage: Stage) -> None:
    for words, told in (
        (("instance", "show", "nothing"), "no backup instance 'nothing'"),
        (("instance", "list", "--vault-name", "nothing"), "no backup vault 'nothing'"),
        (("instance", "grant"), "no backup instance is named"),
        (("instance", "grant", "--cluster", "nothing"), f"There are {CLUSTER}"),
        (("job", "show", "nothing"), "no job 'nothing'"),
        (("job", "list", "--limit", "0"), "--limit"),
    ):
        failed = stage.run(*words)
        assert failed.returncode == 2, (words, failed.stderr)
        assert told in failed.stderr, (words, failed.stderr)
