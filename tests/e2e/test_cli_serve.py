"""`strongroom serve`, and the commands that talk to it, as processes: what they print and what they exit with."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from azure.mgmt.resource.resources import ResourceManagementClient

from strongroom.testbed.cluster import Testbed
from strongroom.testbed.options import TestbedOptions
from strongroom.testbed.sharing import shared_testbed

from ..serving import RunningServer

PROGRAM = Path(sys.executable).with_name("strongroom")
READY_SECONDS = 60
STOP_SECONDS = 30
GROUP = "rg"


def strongroom(
    *words: str, ready: Path | None = None, stdin: str | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STRONGROOM_READY")} | more
    if ready is not None:
        environment["STRONGROOM_READY_FILE"] = str(ready)
    return subprocess.run(
        [PROGRAM, *words], input=stdin, capture_output=True, text=True, env=environment, timeout=120, check=False
    )


@dataclass
class Served:
    """`strongroom serve` as a process of a test's own."""

    process: subprocess.Popen[bytes]
    ready_file: Path
    log: Path

    @property
    def server(self) -> RunningServer:
        """The same, for the official clients."""
        return RunningServer(self.ready_file.parent, json.loads(self.ready_file.read_text()), self.process, self.log)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


def start(folder: Path, *words: str) -> Served:
    ready, log = folder / "ready.json", folder / "serve.log"
    ready.unlink(missing_ok=True)
    command = [PROGRAM, "serve", "--home", folder / "home", "--port", "0", "--ready-file", ready, *words]
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    deadline = time.monotonic() + READY_SECONDS
    while not ready.exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return Served(process, ready, log)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with an empty resource group."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "stores" / "first").mkdir(parents=True)
    running = start(folder, "--storage-root", str(folder / "stores"))
    try:
        groups = running.server.client(ResourceManagementClient).resource_groups
        groups.create_or_update(GROUP, {"location": "westus"})
        yield running
    finally:
        assert running.stop() == 0


def test_serve_tells_its_address_logs_events_and_stops_cleanly(tmp_path: Path) -> None:
    running = start(tmp_path, "--name", "backup.example.org")
    try:
        assert running.ready_file.stat().st_mode & 0o777 == 0o600
        ready = json.loads(running.ready_file.read_text())
        assert {"endpoint", "caFile", "tenantId", "subscriptionId", "clientId", "clientSecret", "version"} == set(ready)
        described = requests.get(
            f"https://127.0.0.1:{ready['endpoint'].rpartition(':')[2]}/openapi.json", verify=ready["caFile"], timeout=30
        )
        assert described.json()["openapi"] == "3.1.0"
        second = strongroom("serve", "--home", str(tmp_path / "home"), "--port", "0", "--output", "json")
        assert second.returncode == 2
    finally:
        assert running.stop() == 0
    log = running.log.read_text()
    assert " INFO strongroom.controlplane.main serving endpoint=https://backup.example.org:" in log
    assert "Traceback" not in log
    assert ready["clientSecret"] not in log
    assert start_again_has_the_same_identity(tmp_path, ready)


def start_again_has_the_same_identity(folder: Path, before: dict[str, str]) -> bool:
    again = start(folder)
    after = json.loads(again.ready_file.read_text())
    assert again.stop() == 0
    return all(after[key] == before[key] for key in ("tenantId", "subscriptionId", "clientId", "clientSecret"))


def test_a_taken_port_and_a_limit_of_zero_are_usage_errors(served: Served, tmp_path: Path) -> None:
    port = served.server.url.rpartition(":")[2]
    taken = strongroom("serve", "--home", str(tmp_path / "home"), "--port", port)
    assert (taken.returncode, "cannot be listened on" in taken.stderr) == (2, True)
    limited = strongroom("serve", "--home", str(tmp_path / "home"), "--max-restores-per-day", "0")
    assert limited.returncode == 2
    assert "restores_per_day" in limited.stderr


def test_a_database_url_that_is_none_is_refused_without_being_repeated(tmp_path: Path) -> None:
    refused = strongroom(
        "serve", "--home", str(tmp_path / "home"), "--port", "0", STRONGROOM_DATABASE="mysql://u:hunter2@h/d"
    )
    assert refused.returncode in (1, 2)
    assert "postgresql://" in refused.stderr
    assert "hunter2" not in refused.stderr


def test_storage_is_attached_listed_and_attached_anew(served: Served, tmp_path: Path) -> None:
    elsewhere = strongroom(
        "storage", "attach", "backups1", "-g", GROUP, "--url", f"file://{tmp_path}", ready=served.ready_file
    )
    assert (elsewhere.returncode, "--storage-root" in elsewhere.stderr) == (2, True), elsewhere.stderr
    url = f"file://{served.ready_file.parent}/stores/first"
    for _ in range(2):
        made = strongroom(
            "storage", "attach", "backups1", "-g", GROUP, "--url", url, "-o", "json", ready=served.ready_file
        )
        assert made.returncode == 0, made.stderr
        document = json.loads(made.stdout)
        assert document["properties"]["provisioningState"] == "Succeeded"
        assert document["location"] == "westus", "that of its group"
        assert "strongroomLocation" not in made.stdout
    listed = strongroom("storage", "list", "-g", GROUP, "-q", ready=served.ready_file)
    assert listed.stdout == "backups1\n"
    table = strongroom("storage", "list", ready=served.ready_file)
    assert table.stdout.splitlines()[0].split() == ["NAME", "RESOURCE", "GROUP", "LOCATION", "STATE", "LIES", "AT"]


def test_credentials_come_from_files_stdin_and_the_environment_and_are_never_shown(
    served: Served, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2hunter2\n")
    where = ["-g", GROUP, "--url", "s3://bucket/x?endpoint=http://127.0.0.1:9&region=r", "-o", "json"]
    for how, more in (
        (f"secretAccessKey=@{secret}", {}),
        ("secretAccessKey=@-", {"stdin": "hunter2hunter2"}),
        ("secretAccessKey=env:MY_SECRET", {"MY_SECRET": "hunter2hunter2"}),
    ):
        made = strongroom(
            "storage", "attach", "elsewhere", *where, "--credential", how, "--credential", "accessKeyId=env:MY_ID",
            ready=served.ready_file, MY_ID="id", **more,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        assert "hunter2" not in made.stdout + made.stderr
    plain = strongroom(
        "storage", "attach", "elsewhere", *where, "--credential", "secretAccessKey=hunter2", ready=served.ready_file
    )
    assert plain.returncode == 2
    assert "hunter2" not in plain.stderr
    wrong = strongroom(
        "storage", "attach", "elsewhere", *where, "--credential", f"password=@{secret}", ready=served.ready_file
    )
    assert wrong.returncode == 2
    assert "StrongroomLocationRefused" in json.loads(wrong.stderr)["error"]["message"]
    assert "hunter2" not in wrong.stderr + served.log.read_text()


def test_a_group_that_is_not_there_is_told_with_the_command_that_makes_it(served: Served) -> None:
    refused = strongroom(
        "storage", "attach", "backups2", "-g", "nowhere", "--url", "s3://b", "-o", "json", ready=served.ready_file
    )
    error = json.loads(refused.stderr)["error"]
    assert (refused.returncode, error["type"]) == (2, "RequestRefused")
    assert error["message"].startswith("ResourceGroupNotFound")
    assert error["hint"] == "az group create --name nowhere --location LOCATION"


@pytest.mark.parametrize("damage", ["absent", "no JSON", "no secret", "unset"])
def test_a_ready_file_that_cannot_be_used_is_a_usage_error(damage: str, served: Served, tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    content = json.loads(served.ready_file.read_text())
    if damage == "no JSON":
        path.write_text("hunter2")
    elif damage == "no secret":
        path.write_text(json.dumps({k: v for k, v in content.items() if k != "clientSecret"}))
    found = strongroom("storage", "list", ready=None if damage == "unset" else path)
    assert found.returncode == 2
    assert "ready file" in found.stderr
    assert "hunter2" not in found.stderr


def test_a_server_that_is_gone_or_another_one_is_unreachable(served: Served, tmp_path: Path) -> None:
    content = json.loads(served.ready_file.read_text())
    for changes, words in (
        ({"endpoint": "https://127.0.0.1:9"}, "serve` running"),
        ({"clientSecret": "wrong"}, "sign in"),
        ({"caFile": requests.certs.where()}, "another server"),
    ):
        (tmp_path / "ready.json").write_text(json.dumps(content | changes))
        found = strongroom("storage", "list", ready=tmp_path / "ready.json")
        assert found.returncode == 5, found.stderr
        assert words in found.stderr
        assert "Traceback" not in found.stderr


@pytest.fixture(scope="module")
def cluster(testbeds_folder: Path) -> Iterator[Testbed]:
    """A cluster of this module's own: connecting one changes it as a whole."""
    with shared_testbed(testbeds_folder / "own-cli-serve", TestbedOptions(volumes=False)) as running:
        yield running


def with_files(kubeconfig: dict[str, Any], folder: Path) -> None:
    """Move certificates and key into files, with relative names."""
    for section, keys in (
        ("clusters", ("certificate-authority",)),
        ("users", ("client-certificate", "client-key")),
    ):
        body = kubeconfig[section][0][section.removesuffix("s")]
        for key in keys:
            data = body.pop(f"{key}-data", None)
            if data is not None:
                (folder / key).write_bytes(base64.b64decode(data))
                body[key] = key


def with_plugin(kubeconfig: dict[str, Any], folder: Path, token: str) -> None:
    """Let a program of the user's say who we are."""
    plugin = folder / "plugin"
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}}
    plugin.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(answer)}\nEND\n")
    plugin.chmod(0o700)
    run = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", "interactiveMode": "Never"}
    kubeconfig["users"][0]["user"] = {"exec": run}


def administrators_token(cluster: Testbed) -> str:
    cluster.kubectl("create", "serviceaccount", "user", "-n", "default")
    cluster.kubectl(
        "create", "clusterrolebinding", "user", "--clusterrole=cluster-admin", "--serviceaccount=default:user"
    )
    return cluster.kubectl("create", "token", "user", "-n", "default").strip()


def test_a_cluster_is_connected_with_files_and_plugins_of_the_users_side_and_disconnected(
    served: Served, cluster: Testbed, tmp_path: Path
) -> None:
    kubeconfig = yaml.safe_load(cluster.kubeconfig.read_text())
    ways: list[Callable[[dict[str, Any]], None]] = [
        lambda config: with_files(config, tmp_path),
        lambda config: with_plugin(config, tmp_path, administrators_token(cluster)),
    ]
    for way in ways:
        way(kubeconfig)
        (tmp_path / "config").write_text(yaml.safe_dump(kubeconfig))
        words = ("cluster", "connect", "aks1", "-g", GROUP, "--kubeconfig", str(tmp_path / "config"), "-o", "json")
        made = strongroom(*words, ready=served.ready_file)
        assert made.returncode == 0, made.stderr
        document = json.loads(made.stdout)
        assert document["properties"]["provisioningState"] == "Succeeded"
        assert "strongroomConnection" not in made.stdout
    assert strongroom("cluster", "list", "-q", ready=served.ready_file).stdout == "aks1\n"
    shown = strongroom("cluster", "show", "aks1", "-g", GROUP, ready=served.ready_file)
    assert shown.returncode == 0
    assert document["properties"]["currentKubernetesVersion"] in shown.stdout
    assert "dataprotection-microsoft" in cluster.kubectl("get", "namespaces")
    gone = strongroom("cluster", "disconnect", "aks1", "-g", GROUP, ready=served.ready_file)
    assert gone.returncode == 0, gone.stderr
    assert strongroom("cluster", "list", "-q", ready=served.ready_file).stdout == ""
    missing = strongroom("cluster", "show", "aks1", "-g", GROUP, ready=served.ready_file)
    assert missing.returncode == 2


def test_what_cannot_be_carried_to_the_server_is_refused_here(served: Served, tmp_path: Path) -> None:
    kubeconfig = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9", "insecure-skip-tls-verify": True}}],
        "users": [{"name": "c", "user": {"token": "hunter2"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(kubeconfig))
    refused = strongroom(
        "cluster", "connect", "aks2", "-g", GROUP, "--kubeconfig", str(tmp_path / "config"), ready=served.ready_file
    )
    assert refused.returncode == 2
    assert "clusters[c].cluster.insecure-skip-tls-verify" in refused.stderr
    assert "hunter2" not in refused.stderr
