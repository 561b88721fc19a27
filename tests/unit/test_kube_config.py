"""What a kubeconfig gives, and the field that each unusable one is blamed on."""

import json
import os
import ssl
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from strongroom.dataplane.kube.config import is_loopback, load_in_cluster, load_kubeconfig
from strongroom.dataplane.kube.credentials import ExecCredentials, ExecPlugin, TokenFileCredentials
from strongroom.dataplane.kube.errors import KubeconfigInvalid
from strongroom.errors import ExitCode
from strongroom.testbed.faults_tls import self_signed


def document(user: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "team"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://api.example.org:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
    }


def write(folder: Path, content: Any, name: str = "kubeconfig") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


async def test_a_token_becomes_a_bearer_header_and_stays_out_of_repr(tmp_path: Path) -> None:
    access = load_kubeconfig(write(tmp_path, document({"token": "s3cret"})))
    assert await access.credentials.authorization() == "Bearer s3cret"
    assert "s3cret" not in repr(access)
    assert (access.server, access.namespace, access.compression) == ("https://api.example.org:6443", "team", True)
    assert access.tls is not None
    assert access.tls.verify_mode is ssl.CERT_REQUIRED
    assert access.tls.check_hostname
    assert access.warnings == ()


async def test_name_and_password_become_a_basic_header(tmp_path: Path) -> None:
    access = load_kubeconfig(write(tmp_path, document({"username": "u", "password": "p"})))
    assert await access.credentials.authorization() == "Basic dTpw"


async def test_a_token_file_is_relative_to_the_kubeconfig_and_read_again_after_a_refusal(tmp_path: Path) -> None:
    token = write(tmp_path, "first\n", "token")
    access = load_kubeconfig(write(tmp_path, document({"tokenFile": "token"})))
    assert await access.credentials.authorization() == "Bearer first"
    token.write_text("second")
    assert await access.credentials.authorization() == "Bearer first"
    assert access.credentials.renew()
    assert await access.credentials.authorization() == "Bearer second"
    token.unlink()
    access.credentials.renew()
    with pytest.raises(KubeconfigInvalid, match="token file"):
        await access.credentials.authorization()


PLUGIN = """#!{python}
import json, os, sys
with open({log!r}, "a") as log:
    log.write("run\\n")
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert info["kind"] == "ExecCredential", info
status = {{"token": os.environ["GIVEN"] + "-" + sys.argv[1]}}
if len(sys.argv) > 2:
    status["expirationTimestamp"] = sys.argv[2]
print(json.dumps({{"apiVersion": info["apiVersion"], "kind": "ExecCredential", "status": status}}))
"""


def plugin(folder: Path, text: str = PLUGIN) -> Path:
    path = folder / "plugin"
    path.write_text(text.format(python=sys.executable, log=str(folder / "runs")))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_an_exec_plugin_is_run_once_until_its_token_is_refused(tmp_path: Path, version: str) -> None:
    plugin(tmp_path)
    exec_ = {
        "apiVersion": f"client.authentication.k8s.io/{version}",
        "command": "./plugin",
        "args": ["x"],
        "env": [{"name": "GIVEN", "value": "token"}],
        "interactiveMode": "Never",
    }
    credentials = load_kubeconfig(write(tmp_path, document({"exec": exec_}))).credentials
    assert [await credentials.authorization() for _ in range(3)] == ["Bearer token-x"] * 3
    assert (tmp_path / "runs").read_text() == "run\n"
    assert credentials.renew()
    await credentials.authorization()
    assert (tmp_path / "runs").read_text() == "run\nrun\n"


@pytest.mark.parametrize(("expires", "runs"), [("2000-01-01T00:00:00Z", 2), ("2999-01-01T00:00:00Z", 1)])
async def test_an_expired_token_runs_the_plugin_again(tmp_path: Path, expires: str, runs: int) -> None:
    command = (str(plugin(tmp_path)), "x", expires)
    spec = ExecPlugin("client.authentication.k8s.io/v1", command, {"GIVEN": "t"}, "", "users[u].user.exec", "https://x")
    credentials = ExecCredentials(spec)
    await credentials.authorization()
    await credentials.authorization()
    assert (tmp_path / "runs").read_text() == "run\n" * runs


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\necho no such account >&2\nexit 3\n", "ended with 3: no such account"),
        ("#!/bin/sh\necho not json\n", "no ExecCredential"),
        (
            '#!/bin/sh\necho \'{{"apiVersion":"client.authentication.k8s.io/v1","status":'
            '{{"clientCertificateData":"x"}}}}\'\n',
            "gave no token",
        ),
        (
            '#!/bin/sh\necho \'{{"apiVersion":"client.authentication.k8s.io/v1beta1","status":{{"token":"x"}}}}\'\n',
            "answered in client.authentication.k8s.io/v1beta1",
        ),
    ],
)
async def test_a_plugin_that_fails_is_named_with_what_it_said(tmp_path: Path, text: str, said: str) -> None:
    exec_ = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin(tmp_path, text))}
    credentials = load_kubeconfig(write(tmp_path, document({"exec": exec_}))).credentials
    with pytest.raises(KubeconfigInvalid, match=said) as raised:
        await credentials.authorization()
    assert raised.value.field.startswith("users[u].user.exec")


async def test_a_missing_plugin_gives_its_install_hint(tmp_path: Path) -> None:
    exec_ = {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin", "installHint": "Get it at X"}
    credentials = load_kubeconfig(write(tmp_path, document({"exec": exec_}))).credentials
    with pytest.raises(KubeconfigInvalid) as raised:
        await credentials.authorization()
    assert raised.value.hint == "Get it at X"


def _without(key: str) -> dict[str, Any]:
    content = document()
    del content[key]
    return content


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (_without("current-context"), "current-context"),
        (_without("clusters"), "clusters[k]"),
        (_without("users"), "users[u]"),
        (document(cluster={"server": "api.example.org"}), "clusters[k].cluster.server"),
        (document(cluster={"server": "ftp://x"}), "clusters[k].cluster.server"),
        (document(cluster={"certificate-authority": "missing.pem"}), "clusters[k].cluster.certificate-authority"),
        (document(cluster={"certificate-authority-data": "bm90IGEgY2VydA=="}), "clusters[k].cluster"),
        (document(cluster={"proxy-url": "socks5://x:1"}), "clusters[k].cluster.proxy-url"),
        (
            document(cluster={"insecure-skip-tls-verify": True, "certificate-authority-data": "eA=="}),
            "clusters[k].cluster.insecure-skip-tls-verify",
        ),
        (document({"client-certificate": "missing.pem", "client-key": "missing.key"}), "users[u].user"),
        (document({"client-certificate-data": "eA=="}), "users[u].user"),
        (document({"auth-provider": {"name": "gcp"}}), "users[u].user.auth-provider"),
        (document({"as-groups": ["g"]}), "users[u].user.as"),
        (
            document({"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "x"}}),
            "users[u].user.exec.apiVersion",
        ),
        ({"clusters": {"k": {}}}, "clusters"),
        (document({"token": 5}), "token"),
        (document(cluster={"proxy-url": 5}), "proxy-url"),
        ({"clusters": [{"cluster": {}}]}, "clusters[0].name"),
        ({"users": [{"name": "u", "user": "x"}]}, "users[0].user"),
    ],
)
def test_an_unusable_kubeconfig_names_its_field(tmp_path: Path, content: Any, field: str) -> None:
    with pytest.raises(KubeconfigInvalid) as raised:
        load_kubeconfig(write(tmp_path, content))
    assert raised.value.field == field
    assert raised.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("content", ["users: [token: s3cret\n  ]x", "just text", "", "\x00"])
def test_a_file_that_is_no_kubeconfig_is_refused_without_quoting_it(tmp_path: Path, content: str) -> None:
    with pytest.raises(KubeconfigInvalid) as raised:
        load_kubeconfig(write(tmp_path, content))
    assert "s3cret" not in str(raised.value)


def test_a_missing_file_and_an_unknown_context_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigInvalid, match="cannot read"):
        load_kubeconfig(tmp_path / "none")
    with pytest.raises(KubeconfigInvalid, match="no context 'other'") as raised:
        load_kubeconfig(write(tmp_path, document()), "other")
    assert "c" in raised.value.hint


def test_skipping_verification_is_honoured_and_warned_about(tmp_path: Path) -> None:
    access = load_kubeconfig(write(tmp_path, document(cluster={"insecure-skip-tls-verify": True})))
    assert access.tls is not None
    assert access.tls.verify_mode is ssl.CERT_NONE
    assert "not verified" in access.warnings[0]


async def test_impersonation_is_never_left_out(tmp_path: Path) -> None:
    user = {"token": "t", "as": "jane", "as-groups": ["a", "b"], "as-uid": "7", "as-user-extra": {"k": ["v"]}}
    assert load_kubeconfig(write(tmp_path, document(user))).headers == (
        ("Impersonate-User", "jane"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Extra-k", "v"),
    )


@pytest.mark.parametrize(
    ("cluster", "compression"),
    [
        ({}, True),
        ({"disable-compression": True}, False),
        ({"server": "https://127.0.0.1:6443"}, False),
        ({"server": "https://[::1]:6443"}, False),
        ({"server": "https://localhost"}, False),
    ],
)
def test_compression_is_on_unless_disabled_or_on_loopback(
    tmp_path: Path, cluster: dict[str, Any], compression: bool
) -> None:
    assert load_kubeconfig(write(tmp_path, document(cluster=cluster))).compression is compression


def test_proxy_and_server_name_come_from_the_cluster_and_loopback_is_never_proxied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    named = {"proxy-url": "http://other:1", "tls-server-name": "kubernetes"}
    access = load_kubeconfig(write(tmp_path, document(cluster=named)))
    assert (access.proxy, access.tls_server_name) == ("http://other:1", "kubernetes")
    assert load_kubeconfig(write(tmp_path, document())).proxy == "http://proxy.example.org:3128"
    local = document(cluster={"server": "https://127.0.0.1:6443"})
    assert load_kubeconfig(write(tmp_path, local)).proxy is None


def test_the_files_of_kubeconfig_are_merged_and_the_first_mention_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    first = write(tmp_path, {"current-context": "c", "contexts": document()["contexts"]}, "first")
    second = document({"tokenFile": "token"})
    second["current-context"] = "unused"
    second["contexts"][0]["context"]["namespace"] = "second"
    write(tmp_path / "other", second)
    monkeypatch.setenv(
        "KUBECONFIG", os.pathsep.join([str(first), str(tmp_path / "none"), str(tmp_path / "other/kubeconfig")])
    )
    access = load_kubeconfig()
    assert access.namespace == "team"
    assert isinstance(access.credentials, TokenFileCredentials)
    assert access.credentials._path == tmp_path / "other" / "token"


async def test_in_cluster_reads_the_account_of_the_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KubeconfigInvalid, match="not inside a cluster"):
        load_in_cluster(tmp_path)
    (tmp_path / "token").write_text("pod-token")
    (tmp_path / "namespace").write_text("mine")
    (tmp_path / "ca.crt").write_bytes(self_signed()[1])
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    access = load_in_cluster(tmp_path)
    assert (access.server, access.namespace) == ("https://10.0.0.1:443", "mine")
    assert await access.credentials.authorization() == "Bearer pod-token"


@pytest.mark.parametrize(("server", "expected"), [("https://127.3.2.1", True), ("https://example.org", False)])
def test_loopback_is_told_without_dns(server: str, expected: bool) -> None:
    assert is_loopback(server) is expected
