"""Makes one self-contained kubeconfig of a user's own: files are read, an exec plugin is run, here and now.

What comes out holds the administrator's credential inline, to be sent to a server that runs no program of others and
reads no file. It has one context.
"""

import base64
import binascii
from pathlib import Path
from typing import Any, Final

import yaml

from strongroom.dataplane.kube.config import load_kubeconfig, read_entries
from strongroom.dataplane.kube.credentials import ExecCredentials, TokenFileCredentials
from strongroom.dataplane.kube.errors import KubeconfigInvalid

# Left out they would change whom the kubeconfig reaches, how safely, or with which rights.
_NOT_CARRIED: Final = {
    "insecure-skip-tls-verify": "the server's certificate would not be verified",
    "proxy-url": "the control plane connects directly",
    "tls-server-name": "the control plane verifies the name in the server's URL",
    "auth-provider": "use an exec plugin",
    "username": "use a token or a client certificate",
    "password": "use a token or a client certificate",
    "as": "impersonation: use credentials that have the rights themselves",
    "as-uid": "impersonation: use credentials that have the rights themselves",
    "as-groups": "impersonation: use credentials that have the rights themselves",
    "as-user-extra": "impersonation: use credentials that have the rights themselves",
}
_NAME: Final = "cluster"  # of the only context, cluster and user


async def flatten(path: Path | None = None, context: str | None = None) -> bytes:
    """Return the kubeconfig (YAML) of *context* with nothing but inline values. Holds a secret.

    Files are found as `load_kubeconfig` finds them. Raises `KubeconfigInvalid`, which names the field: for what that
    refuses, and for what cannot be carried over to another machine.
    """
    access = load_kubeconfig(path, context)
    cluster, user, at_cluster, at_user = read_entries(path, context)
    for body, at in ((cluster, at_cluster), (user, at_user)):
        for key, why in _NOT_CARRIED.items():
            if body.get(key):
                raise KubeconfigInvalid(
                    f"{at}.{key} cannot be sent to a control plane: {why}", field=f"{at}.{key}", hint="Leave it out"
                )
    flat_cluster = {"server": access.server, "certificate-authority-data": _authority(cluster, at_cluster)}
    flat_user: dict[str, str] = {}
    if isinstance(access.credentials, ExecCredentials | TokenFileCredentials) or user.get("token"):
        header = await access.credentials.authorization()
        flat_user["token"] = (header or "").removeprefix("Bearer ")
    for key in ("client-certificate", "client-key"):
        if data := _inline(user, key, at_user):
            flat_user[f"{key}-data"] = data
    if not flat_user:
        raise KubeconfigInvalid(f"{at_user} holds no credential", field=at_user)
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": _NAME,
        "contexts": [{"name": _NAME, "context": {"cluster": _NAME, "user": _NAME}}],
        "clusters": [{"name": _NAME, "cluster": flat_cluster}],
        "users": [{"name": _NAME, "user": flat_user}],
    }
    return yaml.safe_dump(document).encode()


def _authority(cluster: dict[str, Any], at: str) -> str:
    found = _inline(cluster, "certificate-authority", at)
    if not found:
        raise KubeconfigInvalid(
            f"{at} names no certificate authority",
            field=f"{at}.certificate-authority-data",
            hint="Put there the certificate of the authority that signed the API server's",
        )
    return found


def _inline(body: dict[str, Any], key: str, at: str) -> str:
    """Return the base64 of a certificate or key, which stands inline (that goes first, as in kubectl) or in a file."""
    if data := body.get(f"{key}-data"):
        try:
            return base64.b64encode(base64.b64decode("".join(str(data).split()), validate=True)).decode()
        except (binascii.Error, ValueError):
            raise KubeconfigInvalid(f"{at}.{key}-data is no base64", field=f"{at}.{key}-data") from None
    if not body.get(key):
        return ""
    try:
        return base64.b64encode(Path(str(body[key])).read_bytes()).decode()
    except OSError as error:
        raise KubeconfigInvalid(f"cannot read the file of {at}.{key}: {error}", field=f"{at}.{key}") from error
