"""Signs what must not be forged, and says whether a signature is of somebody whom the root key certified. Pure.

An envelope is `{"payload": …, "keyId": …, "signature": …}`; the signature covers the payload's stored bytes, the file's
path and the format version (docs/format/repository.md, "Signed files").
"""

import base64
import hashlib
import struct
from collections.abc import Mapping

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from strongroom.dataplane.repository.errors import Damaged, NotTrusted
from strongroom.dataplane.repository.sealing import FORMAT_VERSION

ROOT = "root"
"""The key id of the repository's root key."""


class _Envelope(msgspec.Struct, rename="camel"):
    payload: msgspec.Raw
    key_id: str
    signature: str


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """Return the raw public half (32 bytes)."""
    return key.public_key().public_bytes_raw()


def writer_id(public: bytes) -> str:
    """Return a writer's id: the first 16 hex digits of the SHA-256 of its public key."""
    return hashlib.sha256(public).hexdigest()[:16]


def sign(path: str, payload: bytes, key_id: str, key: Ed25519PrivateKey) -> bytes:
    """Return the envelope of *payload* (JSON text) for the file at *path*."""
    signature = base64.b64encode(key.sign(_message(path, payload))).decode()
    return msgspec.json.encode(_Envelope(msgspec.Raw(payload), key_id, signature))


def verify(path: str, envelope: bytes, trusted: Mapping[str, bytes]) -> tuple[bytes, str]:
    """Return the payload's bytes and the id of the key that signed them.

    *trusted* maps key ids to raw public keys. Raises `Damaged` for what is no envelope and `NotTrusted` for a key that
    is not in it or a signature that does not fit.
    """
    try:
        parsed = msgspec.json.decode(envelope, type=_Envelope)
        signature = base64.b64decode(parsed.signature, validate=True)
    except (msgspec.DecodeError, ValueError) as error:
        raise Damaged(f"{path} is not a signed file: {error}") from error
    public = trusted.get(parsed.key_id)
    if public is None:
        raise NotTrusted(f"{path} is signed by {parsed.key_id!r}, whom this repository's root key did not certify")
    payload = bytes(parsed.payload)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _message(path, payload))
    except InvalidSignature as error:
        raise NotTrusted(f"the signature of {path} does not fit: it was edited, or written elsewhere") from error
    return payload, parsed.key_id


def _message(path: str, payload: bytes) -> bytes:
    return b"strongroom-signature\x00" + struct.pack(">I", FORMAT_VERSION) + path.encode() + b"\x00" + payload
