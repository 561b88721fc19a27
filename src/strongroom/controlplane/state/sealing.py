"""Seals secrets at rest under the home's key: AES-256-GCM, a random nonce, the secret's name bound in."""

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.controlplane.state.errors import SecretDamaged

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12  # AES-GCM's own size; random nonces are safe far beyond the number of secrets of one home
_VERSION: Final = b"\x01"


class SecretBox:
    """Seals and opens the secrets of one home. Never shows its key."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise SecretDamaged(
                f"the key for secrets has {len(key)} bytes instead of {KEY_BYTES}",
                hint="Put the secret.key of this home back from a copy (strongroom serve backup keeps it)",
            )
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return "SecretBox(…)"

    def seal(self, name: str, data: bytes) -> bytes:
        """Return *data* sealed for *name*: version, nonce, ciphertext with tag."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, data, name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """Return what was sealed for *name*. Raises `SecretDamaged`."""
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _VERSION:
                raise InvalidTag
            return self._cipher.decrypt(nonce, body, name.encode())
        except InvalidTag as error:
            raise SecretDamaged(
                f"the stored secret {name!r} does not open under this home's secret.key",
                hint="The database and secret.key belong together: restore both from one copy of the home",
            ) from error
