"""Certificates and kubeconfigs of the fault proxy: its own, and those it uses towards an API server."""

import base64
import datetime
import ipaddress
import json
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CERTIFICATE_DAYS = 2  # a proxy lives as long as a test run


@dataclass(frozen=True, slots=True)
class Upstream:
    """An API server, and the TLS context that authenticates us to it (None: plain HTTP)."""

    server: str
    tls: ssl.SSLContext | None
    token: str | None = None


def self_signed() -> tuple[ssl.SSLContext, bytes]:
    """Return a server's TLS context for 127.0.0.1 and localhost, and its certificate (PEM) for clients to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "strongroom fault proxy")])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_chain(context, pem, secret)
    return context, pem


def read_upstream(kubeconfig: Path) -> Upstream:
    """Return the current context's server of *kubeconfig*, with its client certificate or token.

    Raises `KeyError` or `OSError` for a file that is not a kubeconfig: it is the testbed's own.
    """
    document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    context = _entry(document, "contexts", document["current-context"])
    cluster = _entry(document, "clusters", context["cluster"])
    user = _entry(document, "users", context["user"])
    server = str(cluster["server"]).rstrip("/")
    if not server.startswith("https:"):
        return Upstream(server, None, user.get("token"))
    authority = _data(cluster, "certificate-authority", kubeconfig)
    tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    certificate, key = _data(user, "client-certificate", kubeconfig), _data(user, "client-key", kubeconfig)
    if certificate and key:
        _load_chain(tls, certificate, key)
    return Upstream(server, tls, user.get("token"))


def write_kubeconfig(path: Path, server: str, certificate: bytes, token: str) -> Path:
    """Write a kubeconfig (0600) for a proxy at *server* that shows *certificate* and wants *token*."""
    name = "fault-proxy"
    authority = base64.b64encode(certificate).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": name, "user": {"token": token}}],
    }
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file)  # JSON is YAML
    return path


def _load_chain(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:  # 0700; ssl takes a key from a file only
        chain = Path(folder, "chain.pem")
        chain.write_bytes(certificate + b"\n" + key)
        context.load_cert_chain(chain)


def _entry(document: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in document[section] if entry["name"] == name)[section[:-1]]
    return found


def _data(entry: dict[str, Any], key: str, kubeconfig: Path) -> bytes:
    if entry.get(f"{key}-data"):
        return base64.b64decode(entry[f"{key}-data"])
    return (kubeconfig.parent / entry[key]).read_bytes() if entry.get(key) else b""
