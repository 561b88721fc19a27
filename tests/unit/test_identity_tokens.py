"""Tokens: what is minted verifies, and nothing else does."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import RSAKey

from strongroom.controlplane.identity.errors import TokenRefused
from strongroom.controlplane.identity.keys import KEEP_AFTER, ROTATE_AFTER, SECRET_NAME, SigningKeys, SigningKeysDamaged
from strongroom.controlplane.identity.principals import PrincipalKind, managed_identity, new_service_principal
from strongroom.controlplane.identity.tokens import LEEWAY, LIFETIME, Audiences, TokenAuthority

TENANT = "6f1f7ad1-3f5e-4a3b-9c52-0b1d2f6a7c11"
OTHER_TENANT = "00000000-0000-0000-0000-0000000000ff"
ENDPOINT = "https://127.0.0.1:8443"
NOW = datetime(2026, 11, 23, 16, 30, tzinfo=UTC)
ALICE = new_service_principal("backup script", now=NOW)


class MemorySecrets:
    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def get(self, name: str) -> bytes | None:
        return self.held.get(name)

    def put(self, name: str, data: bytes) -> None:
        self.held[name] = data

    def delete(self, name: str) -> None:
        self.held.pop(name, None)


def authority_of(keys: SigningKeys, tenant: str = TENANT) -> TokenAuthority:
    audiences = Audiences.of([ENDPOINT], others=["https://storage.azure.com"])
    return TokenAuthority(keys, tenant_id=tenant, audiences=audiences, authority=f"{ENDPOINT}/{tenant}")


# One pair of keys for the module: making a key costs a tenth of a second.
KEYS = SigningKeys(MemorySecrets())
TOKENS = authority_of(KEYS)
MINTED = TOKENS.mint(ALICE, ENDPOINT, now=NOW).text


def b64(data: bytes | dict[str, Any]) -> str:
    raw = json.dumps(data).encode() if isinstance(data, dict) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return decoded


def header_of(token: str) -> dict[str, Any]:
    return claims_of("." + token.split(".", maxsplit=1)[0])


def signed(claims: dict[str, Any], *, header: dict[str, Any] | None = None) -> str:
    """A token that our own key signed, whatever it says."""
    kid, key = KEYS.signing(NOW)
    return jwt.encode({"alg": "RS256", "kid": kid, **(header or {})}, claims, key, algorithms=["RS256"])


def refusal(token: str, *, now: datetime = NOW, tokens: TokenAuthority = TOKENS) -> TokenRefused:
    with pytest.raises(TokenRefused) as caught:
        tokens.verify(token, now=now)
    assert caught.value.status == 401
    return caught.value


def test_a_minted_token_identifies_its_principal() -> None:
    caller = TOKENS.verify(MINTED, now=NOW)
    assert caller == ALICE.caller(TENANT)
    assert caller.kind == "ServicePrincipal"


def test_a_token_carries_the_claims_that_azures_clients_and_azurite_read() -> None:
    claims = claims_of(MINTED)
    assert claims["iss"] == f"https://sts.windows.net/{TENANT}/"
    assert claims["aud"] == ENDPOINT
    assert claims["tid"] == TENANT
    assert claims["oid"] == claims["sub"] == ALICE.object_id
    assert claims["appid"] == ALICE.app_id
    assert claims["ver"] == "1.0"
    assert claims["idtyp"] == "app"
    assert claims["exp"] - claims["iat"] == LIFETIME.total_seconds()


def test_a_managed_identity_is_told_from_an_application() -> None:
    vault = "/subscriptions/s/resourceGroups/g/providers/Microsoft.DataProtection/backupVaults/v"
    identity = managed_identity(vault, TENANT, incarnation="1", name="v", created=NOW)
    caller = TOKENS.verify(TOKENS.mint(identity, ENDPOINT, now=NOW).text, now=NOW)
    assert caller.kind is PrincipalKind.MANAGED_IDENTITY
    assert caller.object_id == identity.object_id


@pytest.mark.parametrize(
    "audience", [ENDPOINT, ENDPOINT + "/", "https://management.azure.com", "https://management.core.windows.net/"]
)
def test_tokens_for_every_form_of_our_endpoint_are_accepted(audience: str) -> None:
    assert TOKENS.verify(TOKENS.mint(ALICE, audience, now=NOW).text, now=NOW).object_id == ALICE.object_id


def test_a_token_for_storage_does_not_open_the_api() -> None:
    refused = refusal(TOKENS.mint(ALICE, "https://storage.azure.com", now=NOW).text)
    assert refused.code == "InvalidAuthenticationTokenAudience"
    assert ENDPOINT in refused.message


def test_an_expired_token_is_refused_in_azures_words() -> None:
    refused = refusal(MINTED, now=NOW + LIFETIME + LEEWAY)
    assert refused.code == "ExpiredAuthenticationToken"
    assert refused.message == (
        "The access token expiry UTC time '11/23/2026 5:30:00 PM' is earlier than current UTC time "
        "'11/23/2026 5:31:00 PM'."
    )


def test_clocks_may_differ_by_the_leeway_and_no_more() -> None:
    assert TOKENS.verify(MINTED, now=NOW + LIFETIME + LEEWAY - timedelta(seconds=1))
    assert TOKENS.verify(MINTED, now=NOW - LEEWAY)
    assert refusal(MINTED, now=NOW - LEEWAY - timedelta(seconds=1)).code == "InvalidAuthenticationToken"


def unsigned(claims: dict[str, Any]) -> str:
    return f"{b64({'alg': 'none', 'typ': 'JWT'})}.{b64(claims)}."


def unsigned_with_known_key(claims: dict[str, Any]) -> str:
    return f"{b64({'alg': 'none', 'kid': header_of(MINTED)['kid']})}.{b64(claims)}.AAAA"


def hmac_with(secret: Callable[[], bytes]) -> Callable[[dict[str, Any]], str]:
    def make(claims: dict[str, Any]) -> str:
        signing = f"{b64({'alg': 'HS256', 'kid': header_of(MINTED)['kid']})}.{b64(claims)}"
        return f"{signing}.{b64(hmac.new(secret(), signing.encode(), hashlib.sha256).digest())}"

    return make


def public_pem() -> bytes:
    _, key = KEYS.signing(NOW)
    return key.public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_der() -> bytes:
    _, key = KEYS.signing(NOW)
    return key.public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


FOREIGN = RSAKey.import_key(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def foreign(kid: str | None) -> Callable[[dict[str, Any]], str]:
    def make(claims: dict[str, Any]) -> str:
        header = {"alg": "RS256", **({"kid": kid} if kid else {})}
        return jwt.encode(header, claims, FOREIGN, algorithms=["RS256"])

    return make


def foreign_with_embedded_key(claims: dict[str, Any]) -> str:
    signing = f"{b64({'alg': 'RS256', 'kid': header_of(MINTED)['kid'], 'jwk': FOREIGN.as_dict(private=False)})}"
    return f"{signing}.{b64(claims)}.{b64(bytes(256))}"


@pytest.mark.parametrize(
    "forge",
    [
        unsigned,
        unsigned_with_known_key,
        hmac_with(public_pem),
        hmac_with(public_der),
        hmac_with(lambda: b""),
        foreign(header_of(MINTED)["kid"]),
        foreign("another"),
        foreign(None),
        foreign_with_embedded_key,
    ],
)
def test_forged_tokens_with_perfect_claims_are_refused(forge: Callable[[dict[str, Any]], str]) -> None:
    assert refusal(forge(claims_of(MINTED))).code == "InvalidAuthenticationToken"


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
def test_our_own_key_with_another_algorithm_is_refused(algorithm: str) -> None:
    kid, key = KEYS.signing(NOW)
    token = jwt.encode({"alg": algorithm, "kid": kid}, claims_of(MINTED), key, algorithms=[algorithm])
    assert refusal(token).code == "InvalidAuthenticationToken"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"iss": f"https://sts.windows.net/{OTHER_TENANT}/"}, "InvalidAuthenticationTokenTenant"),
        ({"iss": f"https://sts.windows.net/{TENANT}"}, "InvalidAuthenticationTokenTenant"),
        ({"tid": OTHER_TENANT}, "InvalidAuthenticationTokenTenant"),
        ({"tid": None}, "InvalidAuthenticationTokenTenant"),
        ({"aud": "https://vault.azure.net"}, "InvalidAuthenticationTokenAudience"),
        ({"aud": [ENDPOINT, "https://vault.azure.net"]}, "InvalidAuthenticationTokenAudience"),
        ({"aud": None}, "InvalidAuthenticationTokenAudience"),
        ({"exp": None}, "InvalidAuthenticationToken"),
        ({"exp": "4102444800"}, "InvalidAuthenticationToken"),
        ({"exp": True}, "InvalidAuthenticationToken"),
        ({"exp": 2**60}, "InvalidAuthenticationToken"),
        ({"exp": 1e12}, "InvalidAuthenticationToken"),
        ({"nbf": None}, "InvalidAuthenticationToken"),
        ({"nbf": 4102444800}, "InvalidAuthenticationToken"),
        ({"oid": None}, "InvalidAuthenticationToken"),
        ({"oid": ["x"]}, "InvalidAuthenticationToken"),
        ({"appid": None}, "InvalidAuthenticationToken"),
    ],
)
def test_claims_are_checked_even_under_our_own_signature(change: dict[str, Any], code: str) -> None:
    claims = {k: v for k, v in (claims_of(MINTED) | change).items() if v is not None}
    assert refusal(signed(claims)).code == code


def test_header_fields_that_ask_for_other_treatment_are_refused() -> None:
    for header in ({"crit": ["b64"], "b64": False}, {"jku": "https://evil"}, {"x5u": "https://evil"}):
        head = b64({"alg": "RS256", "kid": header_of(MINTED)["kid"], **header})
        assert refusal(f"{head}.{MINTED.split('.', 1)[1]}").code == "InvalidAuthenticationToken"


def test_a_token_of_another_tenant_of_azure_is_told_where_to_go() -> None:
    claims = claims_of(MINTED) | {"iss": f"https://sts.windows.net/{OTHER_TENANT}/", "tid": OTHER_TENANT}
    refused = refusal(foreign("their-key")(claims))
    assert refused.code == "InvalidAuthenticationTokenTenant"
    assert OTHER_TENANT in refused.message
    assert f"{ENDPOINT}/{TENANT}" in refused.message


def test_tokens_of_another_installation_are_refused() -> None:
    other = authority_of(SigningKeys(MemorySecrets()))
    assert refusal(other.mint(ALICE, ENDPOINT, now=NOW).text).code == "InvalidAuthenticationToken"


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(position=st.integers(0, len(MINTED) - 1), replacement=st.sampled_from("ABCZaz019-_.=+/ \x00é"))
@example(position=len(MINTED) - 1, replacement="B")
def test_no_change_of_one_character_is_accepted(position: int, replacement: str) -> None:
    changed = MINTED[:position] + replacement + MINTED[position + 1 :]
    if changed != MINTED:
        refusal(changed)


def test_every_last_character_but_the_right_one_is_refused() -> None:
    """The signature's last character has bits that carry nothing: a lenient reader takes sixteen spellings."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for last in alphabet.replace(MINTED[-1], ""):
        refusal(MINTED[:-1] + last)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(st.text(alphabet="ABCabc012-_", max_size=60)).map(".".join)))
def test_any_text_is_refused_and_never_crashes(text: str) -> None:
    refusal(text)


@settings(max_examples=200, deadline=None)
@given(
    header=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["alg", "kid", "typ"]), inner),
        max_leaves=6,
    )
)
def test_any_json_as_header_is_refused(header: object) -> None:
    refusal(f"{b64(json.dumps(header).encode())}.{MINTED.split('.', 1)[1]}")


@pytest.mark.parametrize("size", [10_000, 1_000_000])
def test_huge_tokens_are_refused_unread(size: int) -> None:
    head, payload, signature = MINTED.split(".")
    assert "longer" in refusal(f"{head}.{payload}{'A' * size}.{signature}").message


def test_deeply_nested_json_is_refused() -> None:
    refusal(f"{b64(b'[' * 4000)}.{MINTED.split('.', 1)[1]}")


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "AuthenticationFailed"),
        ("", "AuthenticationFailed"),
        ("  ", "AuthenticationFailed"),
        ("Bearer", "AuthenticationFailedInvalidHeader"),
        ("Bearer ", "AuthenticationFailedInvalidHeader"),
        ("Basic abc", "AuthenticationFailedInvalidHeader"),
        (MINTED, "AuthenticationFailedInvalidHeader"),
        ("Bearer a b", "InvalidAuthenticationToken"),
    ],
)
def test_the_authorization_header_must_be_a_bearer_token(header: str | None, code: str) -> None:
    with pytest.raises(TokenRefused) as caught:
        TOKENS.authenticate(header, now=NOW)
    assert caught.value.code == code


def test_the_scheme_may_be_spelled_in_any_case() -> None:
    assert TOKENS.authenticate(f"bearer {MINTED}", now=NOW).object_id == ALICE.object_id


def test_the_challenge_names_the_authority_and_stays_one_header() -> None:
    claims = claims_of(MINTED) | {"aud": 'evil"\r\nSet-Cookie: x'}
    challenge = refusal(signed(claims)).challenge(f"{ENDPOINT}/{TENANT}")
    assert challenge.startswith(f'Bearer authorization_uri="{ENDPOINT}/{TENANT}", error="invalid_token"')
    assert "\r" not in challenge
    assert "\n" not in challenge
    assert challenge.count('"') == 6


def test_a_refusal_never_repeats_the_token() -> None:
    for token in (MINTED[:-2] + "AA", foreign("k")(claims_of(MINTED)), "abc.def.ghi"):
        refused = refusal(token)
        assert not any(part in str(refused) for part in token.split(".") if len(part) > 3)


def test_keys_survive_a_restart() -> None:
    secrets = MemorySecrets()
    token = authority_of(SigningKeys(secrets)).mint(ALICE, ENDPOINT, now=NOW).text
    assert authority_of(SigningKeys(secrets)).verify(token, now=NOW).object_id == ALICE.object_id


def test_a_key_is_rotated_when_due_and_its_tokens_stay_valid_until_they_end() -> None:
    secrets = MemorySecrets()
    keys = SigningKeys(secrets)
    tokens = authority_of(keys)
    first = tokens.mint(ALICE, ENDPOINT, now=NOW).text
    due = NOW + ROTATE_AFTER
    before = due - timedelta(seconds=1)
    old = tokens.mint(ALICE, ENDPOINT, now=before).text
    new = tokens.mint(ALICE, ENDPOINT, now=due).text
    assert header_of(first)["kid"] == header_of(old)["kid"] != header_of(new)["kid"]
    for reopened in (tokens, authority_of(SigningKeys(secrets))):
        assert reopened.verify(old, now=before + LIFETIME)
        assert reopened.verify(new, now=due)
        assert [key["kid"] for key in reopened.keys.jwks(due)["keys"]] == [header_of(new)["kid"], header_of(old)["kid"]]


def test_a_superseded_key_is_no_longer_trusted_once_its_tokens_have_ended() -> None:
    keys = SigningKeys(MemorySecrets())
    tokens = authority_of(keys)
    old = tokens.mint(ALICE, ENDPOINT, now=NOW).text
    keys.rotate(NOW)
    assert keys.verifying(header_of(old)["kid"], NOW + KEEP_AFTER) is None
    assert len(keys.jwks(NOW + KEEP_AFTER)["keys"]) == 1


def test_rotation_forgets_the_private_half_of_the_old_key() -> None:
    secrets = MemorySecrets()
    keys = SigningKeys(secrets)
    keys.rotate(NOW)
    keys.rotate(NOW)
    stored = json.loads(secrets.held[SECRET_NAME])["keys"]
    assert ["d" in one["jwk"] for one in stored] == [True, False]


def test_revoking_ends_every_token_at_once() -> None:
    keys = SigningKeys(MemorySecrets())
    tokens = authority_of(keys)
    old = tokens.mint(ALICE, ENDPOINT, now=NOW).text
    keys.rotate(NOW, revoke=True)
    assert refusal(old, tokens=tokens).code == "InvalidAuthenticationToken"


def test_the_jwks_holds_no_private_part_and_verifies_a_token_elsewhere() -> None:
    published = KEYS.jwks(NOW)["keys"]
    assert all(set(key) == {"kty", "n", "e", "kid", "use", "alg"} for key in published)
    key = next(key for key in published if key["kid"] == header_of(MINTED)["kid"])
    assert jwt.decode(MINTED, RSAKey.import_key(key), algorithms=["RS256"]).claims["oid"] == ALICE.object_id


@pytest.mark.parametrize(
    "stored", [b"", b"{}", b"[]", b'{"version":2,"keys":[]}', b'{"version":1,"keys":[]}', b'{"version":1,"keys":[{}]}']
)
def test_damaged_keys_are_reported_without_their_content(stored: bytes) -> None:
    secrets = MemorySecrets()
    secrets.put(SECRET_NAME, stored)
    with pytest.raises(SigningKeysDamaged) as caught:
        SigningKeys(secrets)
    assert caught.value.__cause__ is None
    assert caught.value.hint


def test_nothing_secret_is_in_a_repr() -> None:
    secrets = MemorySecrets()
    keys = SigningKeys(secrets)
    minted = authority_of(keys).mint(ALICE, ENDPOINT, now=NOW)
    private = json.loads(secrets.held[SECRET_NAME])["keys"][0]["jwk"]["d"]
    assert minted.text not in repr(minted)
    assert private not in repr(keys)
