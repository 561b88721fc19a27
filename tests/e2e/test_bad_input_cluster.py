"""Wrong kubeconfigs, servers, credentials, permissions and selections: a clear refusal, or a Partial point."""

import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from strongroom.errors import ExitCode
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.faults import FaultProxy

from .faults_stage import NARROW, Ended, Stage, expect_refused, folder_stage


@pytest.fixture
def stage(testbed: Testbed, namespace: str, tmp_path: Path) -> Stage:
    stage = folder_stage(testbed, namespace, tmp_path)
    made = stage.ask("repository", "init")
    assert made.code == 0, made.err
    return stage


def back_up(stage: Stage, kubeconfig: Path, *arguments: str) -> Ended:
    """Back up the stage's namespace as whoever *kubeconfig* is."""
    selected = ("--include-namespace", stage.namespace, "--kubeconfig", str(kubeconfig))
    return stage.ask("point", "create", *NARROW, *selected, *arguments)


def expect_nothing_written(stage: Stage) -> None:
    """Nothing was begun: no run, no pack, no point."""
    folder = Path(stage.direct.removeprefix("file://"))
    assert {path.name for path in folder.iterdir()} <= {"repository.json", "keys", "probe", ".tmp"}
    assert stage.points() == {}


def written(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


def admin(stage: Stage) -> dict[str, Any]:
    """Return the administrator's kubeconfig as a document."""
    document: dict[str, Any] = yaml.safe_load(stage.testbed.kubeconfig.read_text())
    return document


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("cannot read kubeconfig",)),
        (b"clusters: [\n", ("no YAML",)),
        (b"\xff\xfe\x00", ("cannot read kubeconfig",)),
        (b"- a list\n", ("no mapping",)),
        (b"{}\n", ("current context", "--context")),
        (b"current-context: home\n", ("no context 'home'",)),
    ],
    ids=["absent", "cut off", "no text", "a list", "empty", "without its context"],
)
def test_a_kubeconfig_that_is_none_is_a_usage_error(
    stage: Stage, tmp_path: Path, content: bytes | None, words: tuple[str, ...]
) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_bytes(content)
    expect_refused(back_up(stage, path), "KubeconfigInvalid", *words)
    expect_nothing_written(stage)


def test_an_unknown_context_is_a_usage_error_that_names_the_known_ones(stage: Stage) -> None:
    known = admin(stage)["current-context"]
    ended = back_up(stage, stage.testbed.kubeconfig, "--context", "nowhere")
    expect_refused(ended, "KubeconfigInvalid", "nowhere", known)


def test_a_kubeconfig_field_that_cannot_be_used_is_named_and_no_key_is_printed(stage: Stage, tmp_path: Path) -> None:
    document = admin(stage)
    key = document["users"][0]["user"]["client-key-data"]
    document["users"][0]["user"]["client-key-data"] = key[: len(key) // 2]
    ended = back_up(stage, written(tmp_path, document))
    expect_refused(ended, "KubeconfigInvalid", document["users"][0]["name"])
    assert key[:40] not in ended.err
    expect_nothing_written(stage)


def test_a_server_where_nobody_listens_is_unreachable(stage: Stage, tmp_path: Path) -> None:
    document = admin(stage)
    with socket.socket() as taken:  # bound and not listening: every connection is refused
        taken.bind(("127.0.0.1", 0))
        address = f"https://127.0.0.1:{taken.getsockname()[1]}"
        document["clusters"][0]["cluster"]["server"] = address
        ended = back_up(stage, written(tmp_path, document))
    expect_refused(ended, "KubeUnreachable", address)
    expect_nothing_written(stage)


def test_a_server_with_another_authority_is_not_spoken_to(stage: Stage, tmp_path: Path) -> None:
    document = admin(stage)
    with FaultProxy.for_cluster(stage.testbed.kubeconfig) as impostor:
        document["clusters"][0]["cluster"]["server"] = impostor.url
        ended = back_up(stage, written(tmp_path, document))
        assert impostor.requests == ()
    expect_refused(ended, "KubeUnreachable", impostor.url)


def test_refused_credentials_end_the_command(stage: Stage, tmp_path: Path) -> None:
    document = admin(stage)
    document["users"][0]["user"] = {"token": "c2VjcmV0LXRva2Vu"}
    path = written(tmp_path, document)
    ended = back_up(stage, path)
    expect_refused(ended, "KubeUnauthorized", "401")
    assert "c2VjcmV0LXRva2Vu" not in ended.err
    expect_nothing_written(stage)
    stage.set_up()
    point = back_up(stage, stage.testbed.kubeconfig).json["recoveryPointId"]
    for command in ("plan", "apply"):
        refused = stage.ask("restore", command, "--point", point, "--kubeconfig", str(path))
        expect_refused(refused, "KubeUnauthorized", "401")


@pytest.mark.parametrize(
    ("arguments", "type_", "words"),
    [
        (("--include-kind", "gizmotrons"), "UnknownKind", ("gizmotrons",)),
        (("--include-kind", "deploymets"), "UnknownKind", ("deployments",)),
        (("--exclude-kind", "apps/v7/Deployment"), "UnknownKind", ("apps/v7/Deployment",)),
        (("--include-namespace", "no-such-namespace"), "UnknownNamespace", ("no-such-namespace",)),
        (("--selector", "app in (web"), "SelectorInvalid", ("app in (web",)),
        (("--selector", "=web"), "SelectorInvalid", ("=web",)),
    ],
)
def test_a_selection_that_names_what_is_not_there_is_a_usage_error(
    stage: Stage, arguments: tuple[str, ...], type_: str, words: tuple[str, ...]
) -> None:
    ended = stage.ask("point", "create", "--kubeconfig", str(stage.testbed.kubeconfig), *arguments)
    expect_refused(ended, type_, *words)
    expect_nothing_written(stage)


def test_the_exit_code_of_a_wrong_selection_is_that_of_a_real_process(stage: Stage) -> None:
    cluster = ("--kubeconfig", str(stage.testbed.kubeconfig))
    expect_refused(stage.run("point", "create", "--include-kind", "gizmotrons", *cluster), "UnknownKind", "gizmotrons")


@pytest.fixture
def clerk(stage: Stage) -> Iterator[Path]:
    """A kubeconfig of a user who may list the namespace's ConfigMaps and pods (these tell the revision), no more."""
    user = f"clerk-{uuid.uuid4().hex[:8]}"
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "clerk"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": ["get", "list"]}],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "clerk"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "clerk"},
    }
    stage.set_up()
    stage.apply(role, binding)
    kubeconfig = stage.testbed.make_client_cert(user)
    yield kubeconfig
    kubeconfig.unlink()


def test_a_kind_that_may_not_be_read_makes_the_point_partial_and_the_rest_is_saved(stage: Stage, clerk: Path) -> None:
    selected = ("--include-namespace", stage.namespace, "--kubeconfig", str(clerk))
    ended = stage.run("point", "create", *NARROW, *selected)
    assert ended.code == ExitCode.INCOMPLETE, ended
    document = ended.json
    assert document["state"] == "Partial"
    coverage = {kind["kind"]: kind for kind in document["coverage"]["kinds"]}
    secrets = coverage["Secret"]
    assert secrets["readAs"] == "failed"
    said = json.dumps([secrets["reason"], secrets["failedNamespaces"]])
    assert "list" in said
    assert "secrets" in said
    assert any("secrets" in warning for warning in document["warnings"])
    assert coverage["ConfigMap"]["readAs"] == "exact"
    saved = stage.saved(document["recoveryPointId"])
    assert saved == {name: item for name, item in stage.live().items() if name.startswith("ConfigMap/")}
    stage.expect_sound()


def test_without_the_right_to_list_namespaces_the_missing_verb_is_named(stage: Stage, clerk: Path) -> None:
    ended = stage.ask("point", "create", *NARROW, "--kubeconfig", str(clerk))
    expect_refused(ended, "KubeForbidden", "list", "namespaces")
    expect_nothing_written(stage)
