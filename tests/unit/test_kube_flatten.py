"""A user's kubeconfig becomes one that a server takes: everything inline, and nothing that it would have to trust."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from strongroom.controlplane.clusters.kubeconfig import parse_kubeconfig
from strongroom.controlplane.tls import TlsFiles, ensure_tls
from strongroom.dataplane.kube.errors import KubeconfigInvalid
from strongroom.dataplane.kube.flatten import flatten


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Certificates that OpenSSL takes."""
    return ensure_tls(tmp_path_factory.mktemp("pems"), now=datetime.now(UTC))


def written(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    document = {
        "current-context": "other",
        "contexts": [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in ("other", "mine")],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    (folder / "config").write_text(yaml.safe_dump(document))
    return folder / "config"


async def test_certificates_in_files_beside_the_kubeconfig_are_taken_in(tmp_path: Path, pems: TlsFiles) -> None:
    (tmp_path / "ca").write_bytes(pems.ca_certificate.read_bytes())
    (tmp_path / "crt").write_bytes(pems.server_certificate.read_bytes())
    (tmp_path / "key").write_bytes(pems.server_key.read_bytes())
    path = written(tmp_path, {"certificate-authority": "ca"}, {"client-certificate": "crt", "client-key": "key"})
    found = parse_kubeconfig(await flatten(path, "mine"), allow_loopback=False)
    assert found.server == "https://10.0.0.1:6443"
    assert found.ca == pems.ca_certificate.read_bytes()
    assert found.client_key == pems.server_key.read_bytes()
    assert found.token == ""


async def test_a_plugin_and_a_token_file_become_a_token(tmp_path: Path, pems: TlsFiles) -> None:
    (tmp_path / "token").write_text("from-a-file\n")
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "made"}}
    (tmp_path / "plugin").write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    (tmp_path / "plugin").chmod(0o700)
    run = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", "interactiveMode": "Never"}
    ca = {"certificate-authority-data": base64.b64encode(pems.ca_certificate.read_bytes()).decode()}
    for user, token in (({"tokenFile": "token"}, "from-a-file"), ({"exec": run}, "made"), ({"token": "t"}, "t")):
        raw = await flatten(written(tmp_path, ca, user))
        assert parse_kubeconfig(raw, allow_loopback=False).token == token
        assert b"exec" not in raw
        assert b"tokenFile" not in raw


@pytest.mark.parametrize(
    ("cluster", "user", "field"),
    [
        ({"insecure-skip-tls-verify": True}, {"token": "t"}, "clusters[c].cluster.insecure-skip-tls-verify"),
        ({"proxy-url": "http://proxy:3128"}, {"token": "t"}, "clusters[c].cluster.proxy-url"),
        ({"tls-server-name": "x"}, {"token": "t"}, "clusters[c].cluster.tls-server-name"),
        ({}, {"token": "t", "as": "root"}, "users[u].user.as"),
        ({}, {"username": "a", "password": "hunter2"}, "users[u].user.username"),
        ({}, {"auth-provider": {"name": "gcp"}}, "users[u].user.auth-provider"),
        ({}, {"token": "t"}, "clusters[c].cluster.certificate-authority-data"),
    ],
)
async def test_what_would_change_meaning_on_another_machine_is_refused_with_its_field(
    cluster: dict[str, Any], user: dict[str, Any], field: str, tmp_path: Path
) -> None:
    with pytest.raises(KubeconfigInvalid) as refused:
        await flatten(written(tmp_path, cluster, user))
    assert refused.value.field == field
    assert "hunter2" not in str(refused.value)


async def test_a_kubeconfig_without_any_credential_is_refused(tmp_path: Path, pems: TlsFiles) -> None:
    ca = {"certificate-authority-data": base64.b64encode(pems.ca_certificate.read_bytes()).decode()}
    with pytest.raises(KubeconfigInvalid, match="no credential"):
        await flatten(written(tmp_path, ca, {}))
