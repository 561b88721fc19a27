"""Azure's own clients sign in against the authority's routes, unmodified, over TLS on loopback."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msal
import pytest
import requests
import uvicorn
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential
from joserfc import jwt
from joserfc.jwk import KeySet
from starlette.applications import Starlette

from strongroom.controlplane.identity.audit import AuditKind
from strongroom.controlplane.identity.authority import AuthorityRoutes
from strongroom.controlplane.identity.keys import SigningKeys
from strongroom.controlplane.identity.principals import MemoryPrincipals, add_secret, new_service_principal
from strongroom.controlplane.identity.signin_limit import MAX_FAILURES
from strongroom.controlplane.identity.stored import DatabaseAudit, DatabasePrincipals, DatabaseSecrets
from strongroom.controlplane.identity.tokens import Audiences, TokenAuthority
from strongroom.controlplane.state.database import Database
from strongroom.testbed.certificates import make_authority, make_server

TENANT = "6f1f7ad1-3f5e-4a3b-9c52-0b1d2f6a7c11"


@dataclass
class Served:
    endpoint: str
    ca: str
    client_id: str
    secret: str
    tokens: TokenAuthority
    principals: MemoryPrincipals | DatabasePrincipals

    def credential(self, *, tenant: str = TENANT, client_id: str = "", secret: str = "", **more: Any) -> Any:
        return ClientSecretCredential(
            tenant,
            client_id or self.client_id,
            secret or self.secret,
            authority=self.endpoint,
            connection_verify=self.ca,
            **more,
        )

    def post(
        self, fields: dict[str, str], path: str = f"/{TENANT}/oauth2/v2.0/token", **more: Any
    ) -> requests.Response:
        return requests.post(self.endpoint + path, data=fields, verify=self.ca, timeout=20, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        return requests.get(self.endpoint + path, verify=self.ca, timeout=20, **more)

    def fields(self, **changed: str) -> dict[str, str]:
        return {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.secret,
            "scope": self.endpoint + "/.default",
        } | changed


class Server(uvicorn.Server):
    """uvicorn in a thread, which must not take the process's signals."""

    def install_signal_handlers(self) -> None:
        pass


def wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the server ended before it served"
        assert time.monotonic() < deadline, "the server did not start in 20 seconds"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path_factory.mktemp('identity')}/state.sqlite", bytes(32))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def served(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("tls")
    ca = make_authority("test")
    ca.write(folder, "ca")
    make_server(ca, "strongroom", ["127.0.0.1"]).write(folder, "server")
    listening = socket.create_server(("127.0.0.1", 0))
    endpoint = f"https://127.0.0.1:{listening.getsockname()[1]}"
    now = datetime.now(UTC)
    principals = DatabasePrincipals(database)
    record, secret = add_secret(new_service_principal("how-to", now=now), now=now, lifetime=None)
    principals.put(record)
    tokens = TokenAuthority(
        SigningKeys(DatabaseSecrets(database)),
        tenant_id=TENANT,
        audiences=Audiences.of([endpoint], others=["https://storage.azure.com"]),
        authority=f"{endpoint}/{TENANT}",
    )
    routes = AuthorityRoutes(
        tokens=tokens,
        principals=principals,
        audit=DatabaseAudit(database),
        endpoints=[endpoint, endpoint.replace("127.0.0.1", "localhost")],
        now=lambda: datetime.now(UTC),
    )
    config = uvicorn.Config(
        Starlette(routes=routes.routes()),
        ssl_certfile=str(folder / "server.crt"),
        ssl_keyfile=str(folder / "server.key"),
        log_level="critical",
        lifespan="off",
        # Clients keep idle connections; asyncio would wait 30 s for each to answer the TLS goodbye.
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        wait_until_started(server, thread)
        yield Served(endpoint, str(folder / "ca.crt"), record.app_id, secret, tokens, principals)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
        routes.close()


def claims_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return decoded


@pytest.mark.parametrize("tenant", [TENANT, TENANT.upper(), "organizations", "common"])
def test_azure_identity_signs_in_with_a_tenant_without_instance_discovery(served: Served, tenant: str) -> None:
    token = served.credential(tenant=tenant, disable_instance_discovery=True).get_token(served.endpoint + "/.default")
    caller = served.tokens.verify(token.token, now=datetime.now(UTC))
    assert caller.app_id == served.client_id
    assert caller.name == "how-to"
    assert 3500 < token.expires_on - time.time() <= 3600


def test_azure_identity_signs_in_with_tenant_adfs_and_no_switch(served: Served) -> None:
    token = served.credential(tenant="adfs").get_token(served.endpoint + "/.default")
    assert served.tokens.verify(token.token, now=datetime.now(UTC)).tenant_id == TENANT


@pytest.mark.parametrize(
    ("scope", "audience"),
    [
        ("{}/.default", "{}"),
        ("{}//.default", "{}/"),
        ("https://management.azure.com/.default", "https://management.azure.com"),
        ("https://management.azure.com//.default", "https://management.azure.com/"),
    ],
)
def test_the_audience_is_the_one_asked_for_and_accepted(served: Served, scope: str, audience: str) -> None:
    credential = served.credential(disable_instance_discovery=True)
    token = credential.get_token(scope.format(served.endpoint)).token
    assert claims_of(token)["aud"] == audience.format(served.endpoint)
    assert served.tokens.verify(token, now=datetime.now(UTC)).app_id == served.client_id


def test_msal_alone_signs_in_and_caches_the_token(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", served.ca)  # requests prefers it to MSAL's verify=
    app = msal.ConfidentialClientApplication(
        served.client_id,
        client_credential=served.secret,
        authority=f"{served.endpoint}/{TENANT}",
        instance_discovery=False,
    )
    first = app.acquire_token_for_client([served.endpoint + "/.default"])
    again = app.acquire_token_for_client([served.endpoint + "/.default"])
    assert first["access_token"] == again["access_token"]
    assert again["token_source"] == "cache"


@pytest.mark.parametrize("tenant", [TENANT, "adfs"])
def test_a_wrong_secret_is_told_in_azures_words_and_without_the_secret(served: Served, tenant: str) -> None:
    credential = served.credential(tenant=tenant, secret="wrong-secret", disable_instance_discovery=True)
    with pytest.raises(ClientAuthenticationError) as caught:
        credential.get_token(served.endpoint + "/.default")
    assert "AADSTS7000215" in str(caught.value)
    assert "wrong-secret" not in str(caught.value)


def test_an_unknown_application_tenant_or_resource_is_named(served: Served) -> None:
    stranger = served.credential(client_id=TENANT, disable_instance_discovery=True)
    with pytest.raises(ClientAuthenticationError, match="AADSTS700016"):
        stranger.get_token(served.endpoint + "/.default")
    with pytest.raises(ClientAuthenticationError, match="AADSTS500011"):
        served.credential(disable_instance_discovery=True).get_token("https://vault.azure.net/.default")
    answer = served.post(served.fields(), f"/{'0' * 8}-0000-0000-0000-{'0' * 12}/oauth2/v2.0/token")
    assert (answer.status_code, answer.json()["error_codes"]) == (400, [90002])


def test_every_valid_secret_works_and_an_expired_one_is_called_expired(served: Served) -> None:
    now = datetime.now(UTC)
    record, old = add_secret(new_service_principal("two", now=now), now=now - timedelta(days=2), lifetime=timedelta(1))
    record, first = add_secret(record, now=now - timedelta(days=1, hours=12), lifetime=timedelta(days=30))
    record, second = add_secret(record, now=now - timedelta(days=1, hours=12), lifetime=None)
    served.principals.put(record)
    for secret in (first, second):
        assert served.post(served.fields(client_id=record.app_id, client_secret=secret)).status_code == 200
    answer = served.post(served.fields(client_id=record.app_id, client_secret=old))
    assert (answer.status_code, answer.json()["error_codes"]) == (401, [7000222])


def test_a_deleted_application_cannot_sign_in(served: Served) -> None:
    now = datetime.now(UTC)
    record, secret = add_secret(new_service_principal("gone", now=now), now=now, lifetime=None)
    served.principals.put(record)
    fields = served.fields(client_id=record.app_id, client_secret=secret)
    assert served.post(fields).status_code == 200
    served.principals.delete(record.object_id)
    assert served.post(fields).json()["error"] == "unauthorized_client"


def test_secrets_come_by_http_basic_too(served: Served) -> None:
    fields = {"grant_type": "client_credentials", "scope": served.endpoint + "/.default"}
    assert served.post(fields, auth=(served.client_id, served.secret)).status_code == 200
    answer = served.post(fields, auth=(served.client_id, "wrong"))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


def test_the_v1_endpoint_answers_numbers_as_text(served: Served) -> None:
    fields = {k: v for k, v in served.fields().items() if k != "scope"} | {"resource": served.endpoint}
    answer = served.post(fields, f"/{TENANT}/oauth2/token")
    assert answer.status_code == 200
    assert answer.json()["expires_in"] in ("3599", "3600")
    assert int(answer.json()["expires_on"]) > time.time()
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_ad_fs_endpoint_answers_numbers_to_which_az_adds_the_time(served: Served) -> None:
    fields = {k: v for k, v in served.fields().items() if k != "scope"} | {"resource": served.endpoint}
    answer = served.post(fields, "/adfs/oauth2/token")
    assert answer.status_code == 200
    assert answer.json()["expires_in"] in (3599, 3600)


@pytest.mark.parametrize(
    ("path", "token_path", "issuer"),
    [
        (f"/{TENANT}/v2.0/.well-known/openid-configuration", f"/{TENANT}/oauth2/v2.0/token", "sts"),
        (f"/{TENANT.upper()}/.well-known/openid-configuration", f"/{TENANT}/oauth2/v2.0/token", "sts"),
        ("/common/v2.0/.well-known/openid-configuration", f"/{TENANT}/oauth2/v2.0/token", "sts"),
        ("/adfs/.well-known/openid-configuration", "/adfs/oauth2/token", "adfs"),
        ("/adfs/adfs/v2.0/.well-known/openid-configuration", "/adfs/oauth2/token", "adfs"),
    ],
)
def test_discovery_is_served_where_each_client_looks(served: Served, path: str, token_path: str, issuer: str) -> None:
    document = served.get(path).json()
    assert document["token_endpoint"] == served.endpoint + token_path
    assert {"authorization_endpoint", "device_authorization_endpoint", "jwks_uri"} <= document.keys()
    # az takes the first path segment of the issuer for the tenant.
    assert document["issuer"].split("/")[3] == {"sts": TENANT, "adfs": "adfs"}[issuer]
    keys = served.get(document["jwks_uri"].removeprefix(served.endpoint)).json()
    token = served.post(served.fields(), token_path).json()["access_token"]
    verified = jwt.decode(token, KeySet.import_key_set(keys), algorithms=["RS256"]).claims
    assert verified["iss"] == served.tokens.issuer


def test_documents_use_the_name_that_was_called_and_no_made_up_one(served: Served) -> None:
    path = f"/{TENANT}/v2.0/.well-known/openid-configuration"
    port = served.endpoint.rpartition(":")[2]
    local = served.get(path, headers={"Host": f"localhost:{port}"}).json()
    assert local["token_endpoint"].startswith(f"https://localhost:{port}/")
    evil = served.get(path, headers={"Host": "evil.example"}).json()
    assert evil["token_endpoint"].startswith(served.endpoint)


def test_instance_discovery_knows_this_host_only(served: Served) -> None:
    query = {"api-version": "1.1", "authorization_endpoint": f"{served.endpoint}/{TENANT}/oauth2/v2.0/authorize"}
    known = served.get("/common/discovery/instance", params=query).json()
    assert known["tenant_discovery_endpoint"].startswith(served.endpoint)
    foreign = served.get("/common/discovery/instance", params=query | {"authorization_endpoint": "https://evil/x"})
    assert (foreign.status_code, foreign.json()["error"]) == (400, "invalid_instance")


@pytest.mark.parametrize("path", ["oauth2/v2.0/devicecode", "oauth2/v2.0/authorize", "oauth2/authorize"])
def test_interactive_sign_in_is_refused_clearly(served: Served, path: str) -> None:
    answer = served.post({}, f"/{TENANT}/{path}")
    assert answer.status_code == 400
    assert "not supported" in answer.json()["error_description"]


def test_a_body_that_is_too_long_is_not_read_to_its_end(served: Served) -> None:
    answer = served.post(served.fields(padding="x" * 1_000_000))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_failures_are_slowed_down_even_when_they_come_at_once_and_are_audited(
    served: Served, database: Database
) -> None:
    now = datetime.now(UTC)
    record, secret = add_secret(new_service_principal("guessed", now=now), now=now, lifetime=None)
    served.principals.put(record)

    def guess(n: int) -> int:
        return served.post(served.fields(client_id=record.app_id, client_secret=f"guess-{n}")).status_code

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(guess, range(MAX_FAILURES + 20)))
    # Two sign-ins run at a time, so one more than the limit may get through.
    assert MAX_FAILURES <= found.count(401) <= MAX_FAILURES + 1
    assert found.count(429) == len(found) - found.count(401)
    blocked = served.post(served.fields(client_id=record.app_id, client_secret=secret))
    assert blocked.status_code == 429
    assert 0 < int(blocked.headers["Retry-After"]) <= 60
    assert served.post(served.fields()).status_code == 200  # others are not concerned
    with database.read() as tx:
        events = [event for event in tx.audit.newest(100) if event["principal"] == record.object_id]
    assert len(events) == found.count(401)
    assert all(event["event"] == AuditKind.SIGN_IN_REFUSED for event in events)
    assert all("AADSTS7000215" in event["detail"] and "127.0.0.1" in event["detail"] for event in events)
    assert not any("guess-" in str(event) for event in events)


def test_a_sign_in_is_audited(served: Served, database: Database) -> None:
    served.post(served.fields())
    with database.read() as tx:
        (event,) = tx.audit.newest(1)
    assert (event["event"], event["scope"], event["outcome"]) == ("SignedIn", served.endpoint, "succeeded")
    assert served.secret not in str(event)
