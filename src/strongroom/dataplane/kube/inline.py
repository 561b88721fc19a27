"""Access to a cluster from values alone: no file is read, no program is run, no environment is asked."""

import os
import ssl
from collections.abc import Callable

from strongroom.dataplane.kube.config import ClusterAccess, is_loopback
from strongroom.dataplane.kube.credentials import Credentials, NoCredentials
from strongroom.dataplane.kube.errors import KubeconfigInvalid


def inline_access(
    server: str,
    ca: bytes,
    credentials: Credentials | None = None,
    *,
    certificate: bytes = b"",
    key: bytes = b"",
    refuse_address: Callable[[str], str] | None = None,
) -> ClusterAccess:
    """Return how to reach *server* (an https URL), whose certificate one of *ca* (PEM) must have signed.

    Either *credentials* say who we are, or the client *certificate* and its *key* (PEM), or both. *refuse_address* is
    `ClusterAccess.refuse_address`. Proxies of the environment are not used: their addresses, not the server's, would
    be what *refuse_address* sees. Raises `KubeconfigInvalid`, whose field is `ca`, `certificate` or `server`.
    """
    if not server.startswith("https://"):
        raise KubeconfigInvalid("the server is no https URL", field="server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # authorities of clusters often lack the extensions (config.py)
    try:
        context.load_verify_locations(cadata=ca.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise KubeconfigInvalid(f"the certificate authority cannot be used: {error}", field="ca") from error
    if certificate or key:
        _load_client(context, certificate, key)
    return ClusterAccess(
        server=server.rstrip("/"),
        tls=context,
        credentials=credentials or NoCredentials(),
        compression=not is_loopback(server),
        refuse_address=refuse_address,
    )


def _load_client(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Give *context* a client certificate. OpenSSL takes it by path alone: here a file in memory that has no name."""
    parts = []
    try:
        for data in (certificate, key):
            parts.append(os.memfd_create("client-certificate", os.MFD_CLOEXEC))
            os.write(parts[-1], data)
        certificate_path, key_path = (f"/proc/self/fd/{part}" for part in parts)
        # Without the callback OpenSSL would ask for an encrypted key's password at our terminal.
        context.load_cert_chain(certificate_path, key_path, password=lambda: b"")
    except (ssl.SSLError, OSError, ValueError) as error:
        # The text of an ssl.SSLError holds no key material.
        message = f"the client certificate or its key cannot be used: {error}"
        raise KubeconfigInvalid(message, field="certificate") from error
    finally:
        for part in parts:
            os.close(part)
