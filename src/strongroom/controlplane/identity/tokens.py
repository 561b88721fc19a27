"""Mints access tokens (JWT, RS256) and says whom a presented one identifies, or why it is refused.

The claims are those of Azure's v1.0 tokens, issuer `https://sts.windows.net/TENANT/`, so that Azurite takes them too
(reference/azure-clients.md, section D).
"""

import base64
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from strongroom.controlplane.identity import errors
from strongroom.controlplane.identity.keys import SigningKeys
from strongroom.controlplane.identity.principals import Principal, PrincipalKind, PrincipalRecord

ALGORITHM: Final = "RS256"
LIFETIME: Final = timedelta(hours=1)  # Azure's shortest default; a removed principal is out within it
LEEWAY: Final = timedelta(seconds=60)  # clocks of several hosts that serve one home; Azure allows 300 s
MAX_TOKEN_CHARACTERS: Final = 8 * 1024  # ours have 1.2 KiB; uvicorn's headers end at 64 KiB

# Where ARM of the public cloud listens: the SDKs ask for these unless told otherwise (azure-clients.md, A.1).
MANAGEMENT_AUDIENCES: Final = (
    "https://management.azure.com",
    "https://management.azure.com/",
    "https://management.core.windows.net",
    "https://management.core.windows.net/",
)

_HEADER_FIELDS: Final = frozenset({"alg", "typ", "kid", "x5t"})
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+")
_ISSUER: Final = re.compile(r"https://(sts\.windows\.net|login\.microsoftonline\.com)/[0-9a-fA-F-]{36}(/v2\.0|/)?")


@dataclass(frozen=True, slots=True)
class Audiences:
    """The resources that tokens are for: *arm* are ours and accepted by `verify`; *others* are only minted.

    *others* are storage endpoints: `https://storage.azure.com` and accounts' own.
    """

    arm: tuple[str, ...]
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, endpoints: Iterable[str], *, others: Iterable[str] = ()) -> "Audiences":
        """Return the audiences of a server that is reached at *endpoints* (`https://HOST:PORT`)."""
        own = [form for endpoint in endpoints for form in (endpoint.rstrip("/"), endpoint.rstrip("/") + "/")]
        return cls(tuple(dict.fromkeys([*own, *MANAGEMENT_AUDIENCES])), tuple(others))

    def find(self, resource: str) -> str | None:
        """Return *resource* as it was asked for if tokens may be minted for it (case does not matter), else None."""
        wanted = resource.lower()
        return resource if any(wanted == known.lower() for known in (*self.arm, *self.others)) else None


@dataclass(frozen=True, slots=True)
class Minted:
    """A token to hand out; *expires* is when it ends."""

    text: str
    expires: datetime

    def __repr__(self) -> str:
        return f"Minted(…, expires={self.expires})"


class TokenAuthority:
    """Mints and verifies for one tenant. Thread-safe."""

    def __init__(self, keys: SigningKeys, *, tenant_id: str, audiences: Audiences, authority: str) -> None:
        """*tenant_id* is a lower-case GUID; *authority* (`https://HOST/TENANT`) is what refusals point at."""
        self.keys = keys
        self.tenant_id = tenant_id.lower()
        self.issuer = f"https://sts.windows.net/{self.tenant_id}/"
        self.audiences = audiences
        self.authority = authority
        self._arm = frozenset(audience.lower() for audience in audiences.arm)

    def mint(self, record: PrincipalRecord, audience: str, *, now: datetime) -> Minted:
        """Return a token that says that its bearer is *record*, to be used at *audience*."""
        issued = int(now.timestamp())
        expires = issued + int(LIFETIME.total_seconds())
        claims: dict[str, Any] = {
            "aud": audience,
            "iss": self.issuer,
            "iat": issued,
            "nbf": issued,
            "exp": expires,
            "appid": record.app_id,
            "appidacr": "1",
            "app_displayname": record.name,
            "idp": self.issuer,
            "idtyp": "app",
            "oid": record.object_id,
            "sub": record.object_id,
            "tid": self.tenant_id,
            "uti": secrets.token_urlsafe(16),
            "ver": "1.0",
        }
        if record.kind is PrincipalKind.MANAGED_IDENTITY:
            claims["xms_mirid"] = record.resource_id
        kid, key = self.keys.signing(now)
        text = jwt.encode({"alg": ALGORITHM, "typ": "JWT", "kid": kid}, claims, key, algorithms=[ALGORITHM])
        return Minted(text, datetime.fromtimestamp(expires, UTC))

    def authenticate(self, header: str | None, *, now: datetime) -> Principal:
        """Return whom the `Authorization` header identifies. Raises `TokenRefused`."""
        if header is None or not header.strip():
            raise errors.header_missing()
        scheme, _, token = header.strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise errors.header_invalid()
        return self.verify(token.strip(), now=now)

    def verify(self, token: str, *, now: datetime) -> Principal:
        """Return whom *token* identifies at *now*.

        Raises `TokenRefused`: `InvalidAuthenticationToken` unless one of our keys signed it with RS256,
        `ExpiredAuthenticationToken`, `InvalidAuthenticationTokenTenant`, `InvalidAuthenticationTokenAudience`.
        """
        claims = self._signed_claims(token, now)
        issuer, tenant = claims.get("iss"), claims.get("tid")
        if issuer != self.issuer or tenant != self.tenant_id:
            raise errors.wrong_tenant(str(issuer)[:200], self.tenant_id, self.authority)
        audience = claims.get("aud")
        if not isinstance(audience, str) or audience.lower() not in self._arm:
            raise errors.wrong_audience(str(audience), self.audiences.arm)
        begins, ends = _instant(claims, "nbf"), _instant(claims, "exp")
        if now >= ends + LEEWAY:
            raise errors.token_expired(ends, now)
        if now < begins - LEEWAY:
            raise errors.token_invalid("it is not valid yet")
        return Principal(
            object_id=_text(claims, "oid"),
            app_id=_text(claims, "appid"),
            tenant_id=self.tenant_id,
            kind=PrincipalKind.MANAGED_IDENTITY if "xms_mirid" in claims else PrincipalKind.SERVICE_PRINCIPAL,
            name=_text(claims, "app_displayname"),
        )

    def _signed_claims(self, token: str, now: datetime) -> Mapping[str, Any]:
        """Return the claims of *token* if one of our keys signed it; nothing in it is believed before that."""
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise errors.token_invalid(f"it is longer than {MAX_TOKEN_CHARACTERS} characters")
        segments = token.split(".")
        if len(segments) != 3 or not all(_SEGMENT.fullmatch(segment) for segment in segments):
            raise errors.token_invalid("it is not a JSON Web Token of three parts")
        header = _json_object(segments[0])
        # The algorithm is ours to choose, never the token's: this ends alg=none and HS256 keyed with our public key.
        if header.get("alg") != ALGORITHM:
            raise errors.token_invalid(f"it is not signed with {ALGORITHM}")
        if not header.keys() <= _HEADER_FIELDS:  # crit, b64, jku, jwk, x5u, zip: nothing we mint, nothing we follow
            raise errors.token_invalid("its header has fields that are not accepted")
        kid = header.get("kid")
        key = self.keys.verifying(kid, now) if isinstance(kid, str) else None
        if key is None:
            self._explain_foreign(segments[1])
            raise errors.token_invalid("it is signed with a key that is not, or no longer, one of this authority")
        if not _canonical(segments[2]):
            raise errors.token_invalid("its signature is not valid")
        return _verified(token, key)

    def _explain_foreign(self, payload: str) -> None:
        """Name the tenant of a token that another authority signed; it is refused in any case."""
        issuer = _json_object(payload).get("iss")
        if isinstance(issuer, str) and issuer != self.issuer and _ISSUER.fullmatch(issuer):
            raise errors.wrong_tenant(issuer, self.tenant_id, self.authority)


def _verified(token: str, key: RSAKey) -> Mapping[str, Any]:
    try:
        return jwt.decode(token, key, algorithms=[ALGORITHM]).claims
    except (JoseError, ValueError, RecursionError) as error:
        raise errors.token_invalid("its signature is not valid") from error


def _json_object(segment: str) -> Mapping[str, Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except (ValueError, RecursionError) as error:
        raise errors.token_invalid("it is not a JSON Web Token") from error
    if not isinstance(found, dict):
        raise errors.token_invalid("it is not a JSON Web Token")
    return found


def _canonical(segment: str) -> bool:
    """Say whether *segment* is the only spelling of its bytes: one token must not have several texts."""
    try:
        decoded = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        return False
    return base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() == segment


def _instant(claims: Mapping[str, Any], name: str) -> datetime:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**37:  # the year 6325
        raise errors.token_invalid(f"its claim '{name}' is not an instant")
    return datetime.fromtimestamp(value, UTC)


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        raise errors.token_invalid(f"its claim '{name}' is missing")
    return value
