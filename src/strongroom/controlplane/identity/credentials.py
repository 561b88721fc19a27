"""Makes client secrets and checks them against scrypt hashes; the secret itself is never stored.

A hash reads `scrypt$N$R$P$SALT$HASH` (salt and hash in base64), so that costs can rise without losing old secrets.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final

SECRET_BYTES: Final = 32  # 256 random bits: guessing is hopeless whatever the rate

# Secrets are random, so the hash only has to survive a stolen database: OWASP's smallest scrypt setting for 16 MiB
# would be r=8, p=5; p=1 keeps a sign-in near 40 ms of one core.
_N: Final = 2**14
_R: Final = 8
_P: Final = 1
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_MEMORY_BYTES: Final = 64 * 1024 * 1024  # scrypt takes 128·N·R = 16 MiB; a stored hash may not ask for more than this

MAX_SECRET_CHARACTERS: Final = 512  # longer ones are refused unhashed


def new_secret() -> str:
    """Return a new random client secret, URL-safe text."""
    return secrets.token_urlsafe(SECRET_BYTES)


def hash_secret(secret: str) -> str:
    """Return what to store for *secret*. Takes tens of milliseconds."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _scrypt(secret, salt, _N, _R, _P)
    return "$".join(["scrypt", str(_N), str(_R), str(_P), _text(salt), _text(digest)])


def matches(secret: str, stored: str) -> bool:
    """Say whether *secret* is the one *stored* was made of; takes the same time for every wrong one.

    A stored text of another form matches nothing.
    """
    if len(secret) > MAX_SECRET_CHARACTERS:
        return False
    try:
        kind, n, r, p, salt, digest = stored.split("$")
        if kind != "scrypt":
            return False
        found = _scrypt(secret, base64.b64decode(salt, validate=True), int(n), int(r), int(p))
        return hmac.compare_digest(found, base64.b64decode(digest, validate=True))
    except (ValueError, binascii.Error):
        return False


def _scrypt(secret: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        secret.encode("utf-8", "surrogatepass"), salt=salt, n=n, r=r, p=p, maxmem=_MEMORY_BYTES, dklen=_HASH_BYTES
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
