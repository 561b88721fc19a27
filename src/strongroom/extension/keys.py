"""The extension's own keys: made at its first start, kept in a Secret of its namespace, the public halves published.

The age identity opens repository keys that were wrapped for it, the Ed25519 key signs manifests once a root certified
it. Neither ever leaves the cluster.
"""

import base64
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec
import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeConflict, KubeInvalid, KubeNotFound
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.keyfile import HolderKeys
from strongroom.errors import StrongroomError

SECRET_NAME: Final = "strongroom-extension"  # noqa: S105 - the name that the extension's Role lists
FIELD_MANAGER: Final = "strongroom"
_SECRET = Kind("", "v1", "Secret", "secrets", True, frozenset())
_RECIPIENT = "recipient"
_WRITER = "writer"


class KeysUnusable(StrongroomError):
    """The extension's keys cannot be made or read."""


@dataclass(frozen=True)
class ExtensionKeys:
    """The secret halves: an `AGE-SECRET-KEY-1…` text and the signing key."""

    recipient: str
    writer: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"ExtensionKeys(recipient={self.recipient_public!r}, …)"

    @property
    def recipient_public(self) -> str:
        """`age1…`, for whom repository keys are wrapped."""
        return str(pyrage.x25519.Identity.from_str(self.recipient).to_public())

    @property
    def writer_public(self) -> bytes:
        """The raw public half of the signing key, 32 bytes."""
        return self.writer.public_key().public_bytes_raw()

    def for_root(self, root_public: bytes) -> HolderKeys:
        """Return the keys as they open a repository whose root is *root_public*."""
        return HolderKeys(root_public, self.recipient, self.writer)


class _Secret(msgspec.Struct, frozen=True):
    data: dict[str, str] | None = None


async def ensure_keys(api: KubeApi, namespace: str) -> ExtensionKeys:
    """Return the keys in *namespace*; make them if there are none. Of several at once the first one's stand.

    Needs get, create and patch on the one Secret: it is made by server-side apply, because that alone tells its name to
    RBAC, and it is immutable, so that a second apply cannot replace what the first one made. Raises `KeysUnusable`
    where the namespace is missing or the Secret is not as it was made, and a `KubeError` where the server refuses.
    """
    with suppress(KubeNotFound):
        return _read(await api.get(_SECRET, SECRET_NAME, namespace), namespace)
    keys = ExtensionKeys(str(pyrage.x25519.Identity.generate()), Ed25519PrivateKey.generate())
    try:
        await api.apply(
            _SECRET, SECRET_NAME, namespace, _document(keys, namespace), field_manager=FIELD_MANAGER, force=True
        )
    except KubeNotFound as error:
        raise KeysUnusable(
            f"the cluster has no namespace {namespace}", hint="Connect the cluster and install the extension"
        ) from error
    except (KubeInvalid, KubeConflict):
        pass  # immutable: another process made its own meanwhile, and those count
    try:
        return _read(await api.get(_SECRET, SECRET_NAME, namespace), namespace)
    except KubeNotFound as error:
        raise KeysUnusable(f"the Secret {namespace}/{SECRET_NAME} was deleted as soon as it was made") from error


def _document(keys: ExtensionKeys, namespace: str) -> dict[str, object]:
    texts = {_RECIPIENT: keys.recipient.encode(), _WRITER: base64.b64encode(keys.writer.private_bytes_raw())}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": SECRET_NAME,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "strongroom"},
        },
        "type": "Opaque",
        # Replacing the keys would make every repository of this extension unreadable to it.
        "immutable": True,
        "data": {name: base64.b64encode(text).decode() for name, text in texts.items()},
    }


def _read(raw: bytes | msgspec.Raw, namespace: str) -> ExtensionKeys:
    try:
        data = msgspec.json.decode(raw, type=_Secret).data or {}
        recipient = base64.b64decode(data[_RECIPIENT], validate=True).decode("ascii")
        pyrage.x25519.Identity.from_str(recipient)
        writer = base64.b64decode(base64.b64decode(data[_WRITER], validate=True), validate=True)
        return ExtensionKeys(recipient, Ed25519PrivateKey.from_private_bytes(writer))
    except (KeyError, ValueError, pyrage.IdentityError, msgspec.DecodeError):
        # Neither the content nor an error that may quote it is repeated.
        raise KeysUnusable(
            f"the Secret {namespace}/{SECRET_NAME} does not hold the extension's keys as they were made",
            hint="Put it back from a copy; if there is none delete it, and the control plane certifies new keys",
        ) from None
