"""The RSA keys that sign access tokens: made, rotated, kept sealed, and published as a JWKS."""

import json
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from strongroom.errors import ExitCode, StrongroomError

SECRET_NAME: Final = "identity/signing-keys"  # noqa: S105  the name of a stored secret, not one
KEY_BITS: Final = 2048  # what Azure signs with; NIST SP 800-57 allows it until 2030, and keys live for months at most
ROTATE_AFTER: Final = timedelta(days=30)  # bounds what a key that leaked unnoticed is worth
KEEP_AFTER: Final = timedelta(hours=2)  # a superseded key verifies until its last token (1 h) and every leeway is over


class Secrets(Protocol):
    """Where the keys lie: sealed bytes by name (`state.secrets` does it)."""

    def get(self, name: str) -> bytes | None: ...

    def put(self, name: str, data: bytes) -> None:
        """Store *data* whole or not at all, in place of what *name* had."""
        ...

    def delete(self, name: str) -> None: ...


class SigningKeysDamaged(StrongroomError):
    """The stored signing keys cannot be read."""

    exit_code = ExitCode.DAMAGED


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key that tokens may name in `kid`, public half only."""

    kid: str
    created: datetime
    key: RSAKey


class SigningKeys:
    """The newest key signs; it and those it superseded less than `KEEP_AFTER` ago verify. Thread-safe, one process.

    A superseded key loses its private half at once: nobody needs it again. Several processes on one database would each
    have to reload; there is one for now.
    """

    def __init__(self, secrets: Secrets, *, rotate_after: timedelta = ROTATE_AFTER) -> None:
        """Read the stored keys, if there are any. Raises `SigningKeysDamaged` and what *secrets* raises."""
        self._secrets = secrets
        self._rotate_after = rotate_after
        self._lock = threading.Lock()
        self._signing: RSAKey | None = None
        self._verifying: tuple[VerifyingKey, ...] = ()  # newest first; replaced whole, so readers need no lock
        stored = secrets.get(SECRET_NAME)
        if stored is not None:
            self._signing, self._verifying = _parse(stored)

    def __repr__(self) -> str:
        return f"SigningKeys({[key.kid for key in self._verifying]})"

    def signing(self, now: datetime) -> tuple[str, RSAKey]:
        """Return (kid, private key) to sign with at *now*; makes the first key, and a new one when it is due.

        Making one takes a tenth of a second and writes the store.
        """
        with self._lock:
            signing, newest = self._signing, self._verifying[0] if self._verifying else None
            if signing is None or newest is None or now - newest.created >= self._rotate_after:
                signing = self._rotate(now, keep=True)
            return self._verifying[0].kid, signing

    def verifying(self, kid: str, now: datetime) -> RSAKey | None:
        """Return the public key that *kid* names, None when it is unknown or no longer trusted at *now*."""
        return next((known.key for known in self._trusted(now) if known.kid == kid), None)

    def jwks(self, now: datetime) -> dict[str, Any]:
        """Return the public keys as a JSON Web Key Set (RFC 7517), newest first."""
        return {
            "keys": [
                known.key.as_dict(private=False, kid=known.kid, use="sig", alg="RS256") for known in self._trusted(now)
            ]
        }

    def rotate(self, now: datetime, *, revoke: bool = False) -> None:
        """Make a new key before it is due; with *revoke* every token signed until now is refused from now on."""
        with self._lock:
            self._rotate(now, keep=not revoke)

    def _trusted(self, now: datetime) -> list[VerifyingKey]:
        kept: list[VerifyingKey] = []
        for known in self._verifying:
            if kept and now >= kept[-1].created + KEEP_AFTER:
                break  # superseded for so long that no token of it, nor of any older key, is still valid
            kept.append(known)
        return kept

    def _rotate(self, now: datetime, *, keep: bool) -> RSAKey:
        key = RSAKey.generate_key(KEY_BITS)
        made = VerifyingKey(key.thumbprint(), now, _public(key))
        verifying = (made, *(self._trusted(now) if keep else ()))
        # Stored before it signs anything: a crash in between must not orphan tokens.
        self._secrets.put(SECRET_NAME, _serialise(key, verifying))
        self._signing, self._verifying = key, verifying
        return key


def _public(key: RSAKey) -> RSAKey:
    return RSAKey.import_key(key.as_dict(private=False))


def _serialise(signing: RSAKey, verifying: tuple[VerifyingKey, ...]) -> bytes:
    keys = [
        {"kid": known.kid, "created": known.created.isoformat(), "jwk": known.key.as_dict(private=False)}
        for known in verifying
    ]
    keys[0]["jwk"] = signing.as_dict(private=True)
    return json.dumps({"version": 1, "keys": keys}).encode()


def _parse(stored: bytes) -> tuple[RSAKey, tuple[VerifyingKey, ...]]:
    try:
        document = json.loads(stored)
        if document["version"] != 1:
            raise ValueError("unknown version")
        entries = [
            (str(one["kid"]), datetime.fromisoformat(one["created"]), RSAKey.import_key(one["jwk"]))
            for one in document["keys"]
        ]
        signing = entries[0][2]
        if not signing.is_private:
            raise ValueError("the newest key has no private half")
        return signing, tuple(VerifyingKey(kid, created, _public(key)) for kid, created, key in entries)
    except (ValueError, KeyError, IndexError, TypeError, JoseError) as error:
        # The cause is not chained: its text could hold parts of a private key.
        raise SigningKeysDamaged(
            f"the stored signing keys ({SECRET_NAME}) cannot be read: {type(error).__name__}",
            hint="Restore this home from a copy (strongroom serve restore)",
        ) from None
