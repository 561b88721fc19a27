"""What a kubeconfig that a user sent may hold, and what is refused: every field, by name."""

import asyncio
import base64
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.controlplane.clusters.connect import connect
from strongroom.controlplane.clusters.errors import ClusterError, KubeconfigRefused
from strongroom.controlplane.clusters.kubeconfig import MAX_BYTES, parse_kubeconfig
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.credentials import StaticCredentials
from strongroom.dataplane.kube.errors import KubeAddressRefused
from strongroom.dataplane.kube.inline import inline_access
from strongroom.protection.addresses import refused_address
from strongroom.testbed import certificates

AUTHORITY = certificates.make_authority("test")
CLIENT = certificates.make_client(AUTHORITY, "admin")
CA = base64.b64encode(AUTHORITY.certificate).decode()
CERTIFICATE = base64.b64encode(CLIENT.certificate).decode()
KEY = base64.b64encode(CLIENT.key).decode()
SECRET = "c2VjcmV0LXRva2Vu"


def config(*, cluster: Any = None, user: Any = None, **more: Any) -> dict[str, Any]:
    """A kubeconfig that is accepted, with fields added to or replaced in its cluster and user."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": "https://api.example.org:6443",
                    "certificate-authority-data": CA,
                    **(cluster or {}),
                },
            }
        ],
        "users": [{"name": "u", "user": {"token": SECRET, **(user or {})}}],
        **more,
    }


def refusal(document: Any, *, allow_loopback: bool = False, context: str | None = None) -> KubeconfigRefused:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(KubeconfigRefused) as caught:
        parse_kubeconfig(raw, context, allow_loopback=allow_loopback)
    return caught.value


def test_inline_values_are_taken_and_no_repr_shows_them() -> None:
    document = config(user={"client-certificate-data": CERTIFICATE, "client-key-data": KEY})
    connection = parse_kubeconfig(yaml.safe_dump(document).encode(), allow_loopback=False)
    assert connection.server == "https://api.example.org:6443"
    assert connection.ca == AUTHORITY.certificate
    assert connection.client_certificate == CLIENT.certificate
    assert connection.client_key == CLIENT.key
    assert connection.token == SECRET
    assert SECRET not in repr(connection)
    assert "BEGIN" not in repr(connection)
    assert connection.kube_access().tls is not None


def test_the_context_that_is_named_is_taken_and_others_are_not_looked_at() -> None:
    document = config()
    document["contexts"].append({"name": "two", "context": {"cluster": "c", "user": "plugin"}})
    document["users"].append({"name": "plugin", "user": {"exec": {"command": "aws"}}})
    assert parse_kubeconfig(json.dumps(document).encode(), allow_loopback=False).token == SECRET
    assert refusal(document, context="two").field == "users[plugin].user.exec"
    assert refusal(document, context="three").field == "contexts[three]"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exec", {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", "id"]}),
        ("auth-provider", {"name": "oidc"}),
        ("client-certificate", "/etc/ssl/admin.crt"),
        ("client-key", "/etc/ssl/admin.key"),
        ("tokenFile", "/var/run/secrets/kubernetes.io/serviceaccount/token"),
        ("username", "admin"),
        ("password", "hunter2"),
        ("as", "system:admin"),
        ("as-uid", "1"),
        ("as-groups", ["system:masters"]),
        ("as-user-extra", {"scopes": ["all"]}),
        ("somethingNew", "x"),
        ("<<", {"exec": {}}),
    ],
)
def test_a_user_with_anything_but_inline_credentials_is_refused_by_the_field_s_name(name: str, value: object) -> None:
    refused = refusal(config(user={name: value}))
    assert refused.field == f"users[u].user.{name}"
    assert refused.found
    assert refused.accepted
    assert "hunter2" not in str(refused)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("certificate-authority", "/etc/ssl/ca.crt"),
        ("insecure-skip-tls-verify", True),
        ("proxy-url", "http://user:hunter2@proxy.example.org"),
        ("tls-server-name", "other.example.org"),
        ("somethingNew", {"x": 1}),
        ("certificate-authority-data", ""),
        ("certificate-authority-data", "no base64!"),
        ("certificate-authority-data", base64.b64encode(b"no pem").decode()),
        ("certificate-authority-data", 7),
        ("server", ""),
        ("server", 7),
        ("server", "http://api.example.org"),
        ("server", "https://user:hunter2@api.example.org"),
        ("server", "https://api.example.org/?x=1"),
        ("server", "https://api.example.org/?"),
        ("server", "https://api.example.org#f"),
        ("server", "https://api.example.org/a/../b"),
        ("server", "https://api.example.org/%2e%2e/b"),
        ("server", "https://api.example.org:99999"),
        ("server", "https://api.example.org\\@evil.example.org"),
        ("server", "https://api.example.org\r\nHost: x"),
        ("server", "https://[::1"),
        ("server", "https://exämple.org"),
        ("server", "file:///etc/passwd"),
        *[
            ("server", f"https://{host}:6443")
            for host in (
                "127.0.0.1",
                "localhost",
                "LOCALHOST.",
                "x.localhost",
                "127.1",
                "2130706433",
                "0x7f000001",
                "0x7f.0.0.1",
                "0177.0.0.1",
                "[::1]",
                "[::ffff:127.0.0.1]",
                "[::ffff:7f00:1]",
                "[64:ff9b::7f00:1]",
                "[2002:7f00:1::]",
                "0.0.0.0",
                "[::]",
                "169.254.169.254",
                "[fe80::1]",
                "[fe80::1%25eth0]",
                "[fd00:ec2::254]",
                "168.63.129.16",
                "224.0.0.1",
                "[ff02::1]",
                "255.255.255.255",
            )
        ],
    ],
)
def test_a_cluster_with_anything_but_a_plain_server_and_an_authority_is_refused_by_the_field_s_name(
    name: str, value: object
) -> None:
    refused = refusal(config(cluster={name: value}))
    assert refused.field == f"clusters[c].cluster.{name}"
    assert "hunter2" not in str(refused)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
def test_loopback_is_open_where_the_server_is_configured_so(host: str) -> None:
    document = config(cluster={"server": f"https://{host}:6443"})
    parsed = parse_kubeconfig(json.dumps(document).encode(), allow_loopback=True)
    assert parsed.server == f"https://{host}:6443"


@pytest.mark.parametrize("host", ["0.0.0.0", "169.254.169.254", "[::ffff:169.254.169.254]", "[fe80::1]", "224.0.0.1"])
def test_permitting_loopback_permits_nothing_else(host: str) -> None:
    refused = refusal(config(cluster={"server": f"https://{host}"}), allow_loopback=True)
    assert refused.field == "clusters[c].cluster.server"


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "172.16.0.1", "20.50.2.1", "fd12::1", "2603:1000::1"])
def test_addresses_of_clusters_are_open(address: str) -> None:
    assert refused_address(address, allow_loopback=False) == ""


@pytest.mark.parametrize(
    ("user", "field"),
    [
        ({"token": None}, "users[u].user"),
        ({"token": "two words"}, "users[u].user.token"),
        ({"token": "line\nbreak"}, "users[u].user.token"),
        ({"token": "x" * 20_000}, "users[u].user.token"),
        ({"token": ["x"]}, "users[u].user.token"),
        ({"client-certificate-data": CERTIFICATE}, "users[u].user.client-key-data"),
        ({"client-key-data": KEY}, "users[u].user.client-certificate-data"),
        (
            {"client-certificate-data": CERTIFICATE, "client-key-data": CERTIFICATE},
            "users[u].user.client-certificate-data",
        ),
    ],
)
def test_a_credential_that_cannot_be_used_is_refused(user: dict[str, Any], field: str) -> None:
    assert refusal(config(user=user)).field == field


def test_an_authority_that_is_no_certificate_is_refused() -> None:
    broken = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").decode()
    refused = refusal(config(cluster={"certificate-authority-data": broken}))
    assert refused.field == "clusters[c].cluster.certificate-authority-data"


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password() -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(CLIENT.key, None)
    sealed = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"pass"),
    )
    user = {"client-certificate-data": CERTIFICATE, "client-key-data": base64.b64encode(sealed).decode()}
    assert refusal(config(user=user)).field == "users[u].user.client-certificate-data"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"a: &x 1\nb: *x",
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        b"!!python/object/apply:os.system ['id']",
        b"a: !!binary aGk=",
        b"[" * 5000,
        b"{a: " * 5000,
        b"- " * 40_000,
        b"a: 'not closed",
        b"? [a, b]\n: c",
        b"\x00",
        b"x" * (MAX_BYTES + 1),
        b"current-context: 1" + b"0" * 10_000,
    ],
)
def test_what_is_no_plain_mapping_is_refused_at_once(raw: bytes) -> None:
    assert refusal(raw).accepted


@pytest.mark.parametrize(
    "change",
    [
        {"contexts": None},
        {"contexts": {}},
        {"contexts": ["one"]},
        {"contexts": [{"name": "one"}]},
        {"contexts": [{"name": "one", "context": {"cluster": "c"}}]},
        {"contexts": [{"name": "one", "context": {"cluster": "c", "user": "u", "as": "x"}}]},
        {"contexts": [{"name": "one", "context": {"cluster": "c", "user": "nobody"}}]},
        {"contexts": [{"name": "one", "context": {"cluster": ["c"], "user": "u"}}]},
        {"clusters": []},
        {"users": [{"name": "u", "user": {"token": "a"}}, {"name": "u", "user": {"token": "b"}}]},
        {"current-context": None},
        {"current-context": ["one"]},
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(change: dict[str, Any]) -> None:
    assert refusal(config(**change)).accepted


_SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
)
_PLACES = st.sampled_from(["", "contexts", "clusters", "users", "cluster", "user", "context", "server"])


@settings(max_examples=200, deadline=None)
@given(place=_PLACES, key=st.text(max_size=12), value=_VALUES)
def test_any_change_of_a_kubeconfig_is_taken_or_refused_and_never_anything_else(
    place: str, key: str, value: object
) -> None:
    document = config()
    if place in ("contexts", "clusters", "users"):
        document[place] = value
    elif place in ("cluster", "user", "context"):
        document[f"{place}s"][0][place][key] = value
    elif place == "server":
        document["clusters"][0]["cluster"]["server"] = f"https://{value}"
    else:
        document[key] = value
    try:
        parsed = parse_kubeconfig(json.dumps(document).encode(), allow_loopback=False)
    except KubeconfigRefused as refused:
        said = str(refused)
    else:
        said = parsed.server
    assert said
    assert SECRET not in said


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="{}[]:-&*!|>'\"#,? \nab", max_size=80).map(str.encode))
def test_any_bytes_are_refused_and_never_anything_else(raw: bytes) -> None:
    with pytest.raises(KubeconfigRefused):
        parse_kubeconfig(raw, allow_loopback=False)


@pytest.mark.parametrize("status", [200, 403, 404])
@pytest.mark.parametrize("body", [b'{"internal": "page"}', b"<p>page", b"[]", b"\xff", b'{"gitVersion": 7}'])
async def test_another_server_s_answer_is_not_passed_on(tmp_path: Path, status: int, body: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()
        writer.close()

    server = certificates.make_server(AUTHORITY, "internal", ("127.0.0.1",))
    server.write(tmp_path, "server")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as listener:
        port = listener.sockets[0].getsockname()[1]
        document = config(cluster={"server": f"https://127.0.0.1:{port}/some/path"})
        admin = parse_kubeconfig(json.dumps(document).encode(), allow_loopback=True)
        with pytest.raises(ClusterError) as caught:
            await connect(admin)
    assert "page" not in str(caught.value)
    assert "is it a Kubernetes API server" in str(caught.value)


async def test_the_address_that_is_connected_to_is_judged_whatever_the_name_promised() -> None:
    asked: list[str] = []
    arrived = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        writer.close()

    def rule(address: str) -> str:
        asked.append(address)
        return refused_address(address, allow_loopback=False)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    # To the parser a name is a name; which address it has shows when a connection is made.
    name = socket.getaddrinfo("localhost", port, proto=socket.IPPROTO_TCP)
    async with listener:
        for host in ("localhost", "127.0.0.1"):
            access = inline_access(
                f"https://{host}:{port}", AUTHORITY.certificate, StaticCredentials("Bearer x"), refuse_address=rule
            )
            async with KubeApi(access) as api:
                with pytest.raises(KubeAddressRefused, match="loopback"):
                    await api.get_path("/version")
    assert {str(entry[4][0]) for entry in name} <= set(asked)
    assert not arrived.is_set(), "no connection was made, not even one that was closed again"
