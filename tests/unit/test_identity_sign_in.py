"""Signing in: the token request, client secrets, and the limit on failures."""

import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.controlplane.identity import credentials
from strongroom.controlplane.identity.errors import IdentityError
from strongroom.controlplane.identity.oauth import (
    MAX_BODY_BYTES,
    OAuthRefused,
    audience_of,
    correlation_id,
    read_token_request,
)
from strongroom.controlplane.identity.principals import (
    MAX_SECRETS,
    add_secret,
    managed_identity,
    new_service_principal,
    remove_secret,
)
from strongroom.controlplane.identity.signin_limit import SignInLimit
from strongroom.controlplane.identity.tokens import Audiences

NOW = datetime(2026, 11, 23, 16, 30, tzinfo=UTC)
TENANT = "6f1f7ad1-3f5e-4a3b-9c52-0b1d2f6a7c11"
FORM = "application/x-www-form-urlencoded"
GOOD = {"grant_type": "client_credentials", "client_id": "app", "client_secret": "s3", "scope": "https://h/.default"}


def refused(fields: dict[str, str], *, content_type: str = FORM, authorization: str | None = None) -> OAuthRefused:
    with pytest.raises(OAuthRefused) as caught:
        read_token_request(urlencode(fields).encode(), content_type, authorization)
    return caught.value


def basic(client_id: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


def test_a_request_is_read_from_the_form() -> None:
    wanted = read_token_request(urlencode(GOOD).encode(), f"{FORM}; charset=utf-8", None)
    assert (wanted.client_id, wanted.client_secret, wanted.resource) == ("app", "s3", "https://h")
    assert "s3" not in repr(wanted)


def test_client_and_secret_may_come_as_http_basic() -> None:
    fields = {"grant_type": "client_credentials", "scope": "https://h/.default"}
    wanted = read_token_request(urlencode(fields).encode(), FORM, basic("a%2Bb", "s%3A+3"))
    assert (wanted.client_id, wanted.client_secret, wanted.basic) == ("a+b", "s: 3", True)


@pytest.mark.parametrize(
    ("scope", "audience"),
    [
        ("https://h:8443/.default", "https://h:8443"),
        ("https://h:8443//.default", "https://h:8443/"),
        ("https://management.azure.com/.default openid profile offline_access", "https://management.azure.com"),
        ("https://h/.default https://h/.default", "https://h"),
    ],
)
def test_a_scope_names_the_audience(scope: str, audience: str) -> None:
    assert audience_of(scope) == audience


@pytest.mark.parametrize(
    ("scope", "error", "number"),
    [
        ("https://h/user_impersonation", "invalid_scope", 1002012),
        ("/.default", "invalid_scope", 1002012),
        ("https://a/.default https://b/.default", "invalid_scope", 28000),
        ("openid", "invalid_request", 900144),
    ],
)
def test_other_scopes_are_refused_as_azure_refuses_them(scope: str, error: str, number: int) -> None:
    found = refused(GOOD | {"scope": scope})
    assert (found.error, found.number) == (error, number)


def test_the_v1_endpoints_resource_is_the_audience() -> None:
    fields = {k: v for k, v in GOOD.items() if k != "scope"} | {"resource": "https://h/"}
    assert read_token_request(urlencode(fields).encode(), FORM, None).resource == "https://h/"


@pytest.mark.parametrize(
    "grant", ["password", "refresh_token", "authorization_code", "urn:ietf:params:oauth:grant-type:device_code", "x\n"]
)
def test_other_grants_are_unsupported(grant: str) -> None:
    found = refused(GOOD | {"grant_type": grant})
    assert (found.error, found.number, found.status) == ("unsupported_grant_type", 70003, 400)
    assert "\n" not in found.message


@pytest.mark.parametrize(
    ("missing", "error", "number", "status"),
    [
        ("grant_type", "invalid_request", 900144, 400),
        ("client_id", "invalid_request", 900144, 400),
        ("scope", "invalid_request", 900144, 400),
        ("client_secret", "invalid_client", 7000218, 401),
    ],
)
def test_a_missing_field_is_named(missing: str, error: str, number: int, status: int) -> None:
    found = refused({k: v for k, v in GOOD.items() if k != missing})
    assert (found.error, found.number, found.status) == (error, number, status)
    assert missing in found.message


def test_a_client_assertion_is_refused_clearly() -> None:
    fields = {k: v for k, v in GOOD.items() if k != "client_secret"} | {"client_assertion": "a.b.c"}
    assert "not supported" in refused(fields).message


def test_repeated_fields_and_two_ways_to_authenticate_are_refused() -> None:
    repeated = urlencode([*GOOD.items(), ("client_id", "other")]).encode()
    with pytest.raises(OAuthRefused, match="more than once"):
        read_token_request(repeated, FORM, None)
    assert "more than one way" in refused(GOOD, authorization=basic("app", "s3")).message
    no_secret = {k: v for k, v in GOOD.items() if k != "client_secret"}
    assert "more than one way" in refused(no_secret, authorization=basic("other", "s3")).message


@pytest.mark.parametrize("authorization", ["Basic", "Basic !!!", "Basic YWJj", "Basic Og==", "Basic /w=="])
def test_malformed_basic_credentials_are_refused(authorization: str) -> None:
    assert refused(GOOD, authorization=authorization).error == "invalid_client"


@pytest.mark.parametrize("content_type", ["application/json", "", "multipart/form-data; boundary=x"])
def test_a_body_that_is_no_form_has_no_fields(content_type: str) -> None:
    assert refused(GOOD, content_type=content_type).number == 900144


@given(st.binary(max_size=300))
def test_any_body_is_refused_or_read_and_never_crashes(body: bytes) -> None:
    with pytest.raises(OAuthRefused):
        read_token_request(body, FORM, None)


def test_bodies_with_too_much_are_refused() -> None:
    for body in (b"a" * (MAX_BODY_BYTES + 1), b"&".join(b"a%d=1" % n for n in range(60))):
        with pytest.raises(OAuthRefused):
            read_token_request(body, FORM, None)


def test_a_refusal_reads_like_azures() -> None:
    body = refused(GOOD | {"grant_type": "x"}).body(
        now=NOW, trace_id="t", correlation_id="c", authority="https://127.0.0.1:8443"
    )
    assert body["error_description"].startswith("AADSTS70003: The app requested an unsupported grant type 'x'.")
    assert body["error_description"].endswith("Trace ID: t Correlation ID: c Timestamp: 2026-11-23 16:30:00Z")
    assert body["error_codes"] == [70003]
    assert body["timestamp"] == "2026-11-23 16:30:00Z"


def test_a_correlation_id_is_kept_only_if_it_is_one() -> None:
    assert correlation_id(TENANT.upper()) == TENANT
    assert correlation_id("x\r\ny") not in ("x\r\ny", "")
    assert len(correlation_id(None)) == 36


def test_audiences_are_minted_in_any_case_and_no_others() -> None:
    audiences = Audiences.of(
        ["https://127.0.0.1:8443", "https://localhost:8443/"], others=["https://storage.azure.com"]
    )
    assert audiences.find("https://LOCALHOST:8443/") == "https://LOCALHOST:8443/"
    assert audiences.find("https://storage.azure.com") == "https://storage.azure.com"
    assert audiences.find("https://vault.azure.net") is None
    assert audiences.find("https://127.0.0.1:8443//") is None


def test_a_secret_matches_its_own_hash_only() -> None:
    secret = credentials.new_secret()
    stored = credentials.hash_secret(secret)
    assert credentials.matches(secret, stored)
    assert not credentials.matches(secret + "x", stored)
    assert not credentials.matches("", stored)
    assert secret not in stored
    assert credentials.hash_secret(secret) != stored


@pytest.mark.parametrize(
    "stored", ["", "secret", "scrypt$x$8$1$AA==$AA==", "md5$1$1$1$AA==$AA==", "scrypt$3$8$1$AA==$!"]
)
def test_a_stored_text_of_another_form_matches_nothing(stored: str) -> None:
    assert not credentials.matches("secret", stored)


def test_a_stored_hash_cannot_ask_for_unbounded_memory() -> None:
    assert not credentials.matches("x", "scrypt$1073741824$8$1$AA==$AA==")


def test_secrets_rotate_and_expired_ones_make_room() -> None:
    record, first = add_secret(new_service_principal("p", now=NOW), now=NOW, lifetime=timedelta(days=1))
    record, second = add_secret(record, now=NOW, lifetime=None)
    assert [secret.hint for secret in record.secrets] == [first[:3], second[:3]]
    assert first not in repr(record)
    later, _ = add_secret(record, now=NOW + timedelta(days=1), lifetime=None)
    assert record.secrets[0] not in later.secrets
    assert remove_secret(record, record.secrets[1].key_id).secrets == record.secrets[:1]


def test_the_number_of_secrets_is_bounded() -> None:
    record = new_service_principal("p", now=NOW)
    for _ in range(MAX_SECRETS):
        record, _text = add_secret(record, now=NOW, lifetime=None)
    with pytest.raises(IdentityError):
        add_secret(record, now=NOW, lifetime=None)


def test_an_identity_is_the_same_when_made_again_and_another_in_a_new_life_of_the_resource() -> None:
    def made(resource: str, incarnation: str) -> tuple[str, str]:
        identity = managed_identity(resource, TENANT, incarnation=incarnation, name="n", created=NOW)
        return identity.object_id, identity.app_id

    assert made("/subscriptions/S/x", "1") == made("/SUBSCRIPTIONS/s/X", "1")
    everybody = [*made("/s/x", "1"), *made("/s/x", "2"), *made("/s/y", "1")]
    assert len(set(everybody)) == 6


def test_failures_block_one_application_at_one_address_for_a_while() -> None:
    limit = SignInLimit(max_failures=3, window=timedelta(seconds=60))
    assert [limit.failed("app", "a", NOW) for _ in range(3)] == [False, False, True]
    assert limit.wait("APP", "a", NOW + timedelta(seconds=20)) == timedelta(seconds=40)
    assert limit.wait("app", "b", NOW) is None
    assert limit.wait("other", "a", NOW) is None
    assert limit.wait("app", "a", NOW + timedelta(seconds=60)) is None
    assert limit.failed("app", "a", NOW + timedelta(seconds=60)) is False


def test_failures_that_are_reported_out_of_order_all_count() -> None:
    limit = SignInLimit(max_failures=3)
    found = [limit.failed("app", "a", NOW - timedelta(milliseconds=n)) for n in range(3)]
    assert found == [False, False, True]


def test_success_forgets_failures() -> None:
    limit = SignInLimit(max_failures=2)
    limit.failed("app", "a", NOW)
    limit.succeeded("app", "a")
    assert not limit.failed("app", "a", NOW)
    assert len(limit) == 1


def test_a_clock_that_jumps_back_locks_nobody_out_for_longer_than_a_window() -> None:
    limit = SignInLimit(max_failures=1, window=timedelta(seconds=60))
    limit.failed("app", "a", NOW)
    assert limit.wait("app", "a", NOW - timedelta(days=365)) == timedelta(seconds=60)


def test_the_table_of_failures_is_bounded() -> None:
    limit = SignInLimit(tracked=100)
    for n in range(1000):
        limit.failed("app", f"address{n}", NOW)
    assert len(limit) == 100
    assert limit.failed("app", "address999", NOW) is False
