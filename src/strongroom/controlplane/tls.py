"""The private certificate authority of a server, and the certificate that it serves with.

Both are made at the first start, in DIR/tls: `ca.crt` (the only file that clients need), `ca.key`, `server.crt`,
`server.key`. The server's certificate is renewed before it ends and whenever the names it serves under change; the
authority stays, so that clients need not be told anything.
"""

import ipaddress
import re
import secrets
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from strongroom.controlplane.state.private_file import write_private
from strongroom.errors import StrongroomError

DEFAULT_NAMES: Final = ("127.0.0.1", "::1", "localhost")  # what az and the SDKs are told: azure-clients.md, rule 1

AUTHORITY_LIFE: Final = timedelta(days=3650)  # clients hold it in bundles that nobody likes to exchange
SERVER_LIFE: Final = timedelta(days=365)  # below the 398 days that Apple's and Google's clients accept
RENEW_BEFORE: Final = timedelta(days=30)  # a server that restarts once a month never serves an ended certificate
_SKEW: Final = timedelta(hours=1)  # valid already for a client whose clock is behind
_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}$)(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*",
    re.ASCII,
)


class TlsMaterialUnusable(StrongroomError):
    """A file in DIR/tls is missing, damaged or not ours, or a name cannot stand in a certificate."""


@dataclass(frozen=True)
class TlsFiles:
    """Where a server's certificates lie. *folder* has mode 0700, every file 0600."""

    folder: Path

    @property
    def ca_certificate(self) -> Path:
        """The authority's certificate: the file for clients' `REQUESTS_CA_BUNDLE`. Not secret."""
        return self.folder / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """The authority's key: who has it can pass for the server."""
        return self.folder / "ca.key"

    @property
    def server_certificate(self) -> Path:
        """The server's certificate, followed by the authority's."""
        return self.folder / "server.crt"

    @property
    def server_key(self) -> Path:
        """The server's key."""
        return self.folder / "server.key"


def ensure_tls(folder: Path, names: Sequence[str] = DEFAULT_NAMES, *, now: datetime) -> TlsFiles:
    """Return the certificates in *folder*, made or renewed where needed for a server that is called *names*.

    *names* are DNS names and IP addresses. May be called again while a server runs, which takes a renewed certificate
    by `load_into`. Stopped anywhere in between, the next call goes on: a key lies before its certificate, and a
    certificate without its key is made anew. Raises `TlsMaterialUnusable`: an authority that is lost, damaged or at its
    end is never replaced by itself, since every client trusts the old one.
    """
    alternatives = [_general_name(name) for name in names]
    if not alternatives:
        raise TlsMaterialUnusable("the server's certificate needs at least one name")
    files = TlsFiles(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # At a first start that was stopped there may be a ca.key; a server's certificate comes only after the authority's.
    if not files.ca_certificate.exists() and not files.server_certificate.exists():
        _make_authority(files, now)
    authority, signer = _load_authority(files, now)
    if _needs_renewal(files, authority, alternatives, now):
        _make_server(files, authority, signer, alternatives, now)
    return files


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context that a server listens with: TLS 1.2 and newer. Raises `TlsMaterialUnusable`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_into(context, files)
    return context


def load_into(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Let *context* serve with the certificate that lies in *files* now: connections from here on get it.

    Raises `TlsMaterialUnusable`.
    """
    try:
        context.load_cert_chain(files.server_certificate, files.server_key)
    except OSError as error:  # ssl.SSLError is one
        raise TlsMaterialUnusable(
            f"the server's certificate or key in {files.folder} cannot be used: {error}",
            hint="Delete server.crt there; the next start makes both anew.",
        ) from error


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context with which a client trusts this server and no other."""
    return ssl.create_default_context(cafile=files.ca_certificate)


def _make_authority(files: TlsFiles, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    # A serial part in the name: a client that trusts two servers' authorities must find the right one of them.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Strongroom CA {secrets.token_hex(4)}")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(name, name, key.public_key(), now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    write_private(files.ca_key, _pem_key(key))
    write_private(files.ca_certificate, certificate.public_bytes(serialization.Encoding.PEM))


def _load_authority(files: TlsFiles, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    hint = "Restore the folder from a backup, or move it away: the next start makes one that clients have yet to trust."
    try:
        certificate = x509.load_pem_x509_certificate(files.ca_certificate.read_bytes())
        key = serialization.load_pem_private_key(files.ca_key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise TlsMaterialUnusable(f"the certificate authority in {files.folder} cannot be read", hint=hint) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise TlsMaterialUnusable(f"ca.key in {files.folder} is not the key of ca.crt", hint=hint)
    if certificate.not_valid_after_utc <= now + RENEW_BEFORE:
        raise TlsMaterialUnusable(
            f"the certificate authority in {files.folder} ends on {certificate.not_valid_after_utc:%Y-%m-%d}", hint=hint
        )
    return certificate, key


def _needs_renewal(
    files: TlsFiles, authority: x509.Certificate, alternatives: Sequence[x509.GeneralName], now: datetime
) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(files.server_certificate.read_bytes())
        key = serialization.load_pem_private_key(files.server_key.read_bytes(), None)
        certificate.verify_directly_issued_by(authority)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:
        return True
    return (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or key.public_key() != certificate.public_key()
        or set(found) != set(alternatives)
        or not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE
    )


def _make_server(
    files: TlsFiles,
    authority: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
    alternatives: Sequence[x509.GeneralName],
    now: datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "strongroom")])
    life = min(SERVER_LIFE, authority.not_valid_after_utc - now)
    issuer = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(name, authority.subject, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
    )
    certificate = builder.sign(signer, hashes.SHA256())
    chain = b"".join(part.public_bytes(serialization.Encoding.PEM) for part in (certificate, authority))
    write_private(files.server_key, _pem_key(key))
    write_private(files.server_certificate, chain)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    if not _HOST_NAME.fullmatch(name):
        raise TlsMaterialUnusable(f"{name!a} is neither an IP address nor a DNS name")
    return x509.DNSName(name.lower())


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
