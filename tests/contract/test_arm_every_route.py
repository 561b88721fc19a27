"""Every route of the API, with every token that must not open it: generated from the table of operations."""

import base64
import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from joserfc import jwt
from joserfc.jwk import RSAKey
from sqlalchemy import select

from strongroom.controlplane.arm.routing import Operation, fill, parameters
from strongroom.controlplane.arm.table import OPERATIONS
from strongroom.controlplane.home import Home
from strongroom.controlplane.identity.audit import AuditKind
from strongroom.controlplane.identity.keys import SigningKeys
from strongroom.controlplane.identity.principals import PrincipalRecord, add_secret, new_service_principal
from strongroom.controlplane.identity.roles import READER
from strongroom.controlplane.identity.stored import DatabaseSecrets, TxPrincipals
from strongroom.controlplane.identity.tokens import Audiences, TokenAuthority
from strongroom.controlplane.state import schema
from strongroom.controlplane.state.database import Database
from strongroom.controlplane.state.times import now

from ..serving import RunningServer, running_server

VERSION = "2025-01-01"
STORAGE = "https://storage.azure.com"
OTHER_TENANT = "00000000-0000-0000-0000-0000000000ff"
GROUP = "guarded"
VAULT = "guarded-vault"
NAMES = {"group": GROUP, "vault": VAULT, "location": "westus", "namespace": "Microsoft.DataProtection"}

OPEN_TO_ALL_SIGNED_IN = {
    # What the answers hold is cut to what the caller has a role at, or says nothing of what is stored.
    "ContainerServiceOperationResults_Get",
    "ContainerServiceOperations_Get",
    "DataProtectionOperations_List",
    "Permissions_List",
    "Providers_GetAtTenantScope",
    "Providers_ListAtTenantScope",
    "ResourceGraphOperations_List",
    "Resources",
    "ResourceGroups_List",
    "Resources_List",
    "Resources_ListByResourceGroup",
    "Subscriptions_Get",
    "Subscriptions_List",
    "Tenants_List",
}
"""Operations that ask for no action. A new one belongs here only after somebody thought about what it gives away."""

DIRECTORY = {o.name for o in OPERATIONS if o.name.startswith("Graph_") and (o.method == "GET" or o.safe)}
"""Everybody who is signed in may look up names and ids of principals, as in Azure's own directory; all are reads."""


@dataclass
class Stage:
    """A server with something to protect, the database behind it, and two principals besides the administrator."""

    server: RunningServer
    db: Database
    tokens: TokenAuthority
    session: requests.Session
    nobody: PrincipalRecord
    reader: PrincipalRecord

    def path(self, operation: Operation) -> str:
        """Return a path of *operation*: of things that exist where the stage has them."""
        subscription = self.server.subscription
        scope = f"subscriptions/{subscription}/resourceGroups/{GROUP}"
        named = {**NAMES, "subscription": subscription, "scope": scope, "resource": scope}
        names = {name: named.get(name, str(uuid.UUID(int=7))) for name in parameters(operation.path)}
        return fill(operation.path, names)

    def send(self, method: str, path: str, header: str | None, *, body: Any = None) -> requests.Response:
        headers = {} if header is None else {"Authorization": header}
        json_body = (body or {}) if method in {"PUT", "POST", "PATCH"} else None
        url = f"{self.server.url}{path}?api-version={VERSION}"
        return self.session.request(method, url, json=json_body, headers=headers, timeout=60)

    def mint(self, record: PrincipalRecord, audience: str = "", *, at: datetime | None = None) -> str:
        return self.tokens.mint(record, audience or self.server.url, now=at or now()).text

    def stored(self) -> dict[str, list[Any]]:
        """Return everything that a refused request could have changed."""
        tables = (
            schema.resources,
            schema.jobs,
            schema.operations,
            schema.points,
            schema.outbox,
            schema.secrets,
            schema.principals,
            schema.replays,
        )
        with self.db.read() as tx:
            return {t.name: sorted(map(repr, tx.connection.execute(select(t)).mappings().all())) for t in tables}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_server(tmp_path_factory.mktemp("routes")) as server, requests.Session() as session:
        session.trust_env = False  # the environment may name another CA bundle
        session.verify = server.ready["caFile"]
        home = Home.open(Path(server.home))
        db = Database.open(home.database_url, home.secret_key)
        nobody, _ = add_secret(new_service_principal("nobody", now=now()), now=now(), lifetime=None)
        reader, _ = add_secret(new_service_principal("reader", now=now()), now=now(), lifetime=None)
        with db.write() as tx:
            TxPrincipals(tx).put(nobody)
            TxPrincipals(tx).put(reader)
        server.token()  # at the first sign-in the server makes its signing key
        tokens = TokenAuthority(
            SigningKeys(DatabaseSecrets(db)),
            tenant_id=server.ready["tenantId"],
            audiences=Audiences.of([server.url], others=[STORAGE]),
            authority=f"{server.url}/{server.ready['tenantId']}",
        )
        staged = Stage(server, db, tokens, session, nobody, reader)
        _furnish(staged)
        yield staged
        db.close()


def _furnish(stage: Stage) -> None:
    """Make a vault, and the reader a Reader of everything."""
    administrator = f"Bearer {stage.server.token()}"
    subscription = f"/subscriptions/{stage.server.subscription}"
    group = f"{subscription}/resourceGroups/{GROUP}"
    vault = {
        "location": "westus",
        "identity": {"type": "SystemAssigned"},
        "properties": {"storageSettings": [{"datastoreType": "OperationalStore", "type": "LocallyRedundant"}]},
    }
    role = f"{subscription}/providers/Microsoft.Authorization/roleDefinitions/{READER.id}"
    assignment = {"properties": {"roleDefinitionId": role, "principalId": stage.reader.object_id}}
    for method, path, body in (
        ("POST", f"{subscription}/providers/Microsoft.DataProtection/register", {}),
        ("PUT", group, {"location": "westus"}),
        ("PUT", f"{group}/providers/Microsoft.DataProtection/backupVaults/{VAULT}", vault),
        ("PUT", f"/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}", assignment),
    ):
        answer = stage.send(method, path, administrator, body=body)
        assert answer.status_code in {200, 201}, answer.text


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found


def _header(token: str) -> dict[str, Any]:
    return _claims(f".{token.split('.')[0]}")


def _administrator(stage: Stage) -> str:
    """A valid token of somebody who may do everything: what the forgeries are made of."""
    return stage.server.token()


def _none(stage: Stage) -> str:
    token = _administrator(stage)
    header = {**_header(token), "alg": "none"}
    return f"Bearer {_b64(json.dumps(header).encode())}.{token.split('.')[1]}."


def _foreign(stage: Stage, **claims: str) -> str:
    """A token that says all the right things, the id of our key included, and is signed by another key."""
    token = _administrator(stage)
    key = RSAKey.generate_key(2048)
    return "Bearer " + jwt.encode(_header(token), {**_claims(token), **claims}, key, algorithms=["RS256"])


def _owner_record(stage: Stage) -> PrincipalRecord:
    with stage.db.read() as tx:
        found = TxPrincipals(tx).get_by_app_id(stage.server.ready["clientId"])
    assert found is not None
    return found


def _expired(stage: Stage) -> str:
    return "Bearer " + stage.mint(_owner_record(stage), at=now() - timedelta(hours=1, minutes=2))


def _other_tenant(stage: Stage) -> str:
    """A token for another tenant that our own key signed."""
    other = TokenAuthority(
        stage.tokens.keys, tenant_id=OTHER_TENANT, audiences=stage.tokens.audiences, authority="https://elsewhere"
    )
    return "Bearer " + other.mint(_owner_record(stage), stage.server.url, now=now()).text


def _altered(stage: Stage) -> str:
    """The nobody's token with the administrator's object id."""
    header, _, signature = stage.mint(stage.nobody).split(".")
    claims = {**_claims(stage.mint(stage.nobody)), "oid": _owner_record(stage).object_id}
    return f"Bearer {header}.{_b64(json.dumps(claims).encode())}.{signature}"


REFUSED: dict[str, tuple[Callable[[Stage], str | None], str]] = {
    "no token": (lambda _: None, "AuthenticationFailed"),
    "another scheme": (lambda _: "Basic YTpi", "AuthenticationFailedInvalidHeader"),
    "no JWT": (lambda _: "Bearer opaque", "InvalidAuthenticationToken"),
    "alg=none": (_none, "InvalidAuthenticationToken"),
    "a foreign key": (_foreign, "InvalidAuthenticationToken"),
    "altered claims": (_altered, "InvalidAuthenticationToken"),
    "expired": (_expired, "ExpiredAuthenticationToken"),
    "another audience": (
        lambda stage: "Bearer " + stage.mint(_owner_record(stage), STORAGE),
        "InvalidAuthenticationTokenAudience",
    ),
    "another tenant": (_other_tenant, "InvalidAuthenticationTokenTenant"),
}


def test_the_token_that_the_forgeries_are_made_of_is_good(stage: Stage) -> None:
    """Else each refusal below could have another reason."""
    path = f"/subscriptions/{stage.server.subscription}/resourceGroups/{GROUP}"
    assert stage.send("GET", path, f"Bearer {_administrator(stage)}").status_code == 200
    assert stage.send("GET", path, "Bearer " + stage.mint(_owner_record(stage))).status_code == 200


@pytest.mark.parametrize("kind", REFUSED)
def test_no_route_opens_to_a_token_that_is_not_ours(stage: Stage, kind: str) -> None:
    make, code = REFUSED[kind]
    header = make(stage)
    before = stage.stored()
    wrong = []
    for operation in OPERATIONS:
        answer = stage.send(operation.method, stage.path(operation), header)
        challenge = answer.headers.get("WWW-Authenticate", "")
        found = code if operation.method == "HEAD" else answer.json()["error"]["code"]
        if (answer.status_code, found) != (401, code) or not challenge.startswith("Bearer authorization_uri="):
            wrong.append((operation.name, answer.status_code, found, challenge))
    assert wrong == []
    assert stage.stored() == before


def test_paths_that_do_not_exist_are_not_told_from_others_without_a_token(stage: Stage) -> None:
    for path in ("/", "/nowhere", "/subscriptions/x/providers/Microsoft.Nothing/things"):
        assert stage.send("GET", path, None).status_code == 401


def test_who_has_no_role_is_refused_on_every_route_that_asks_for_an_action(stage: Stage) -> None:
    header = "Bearer " + stage.mint(stage.nobody)
    before = stage.stored()
    wrong = []
    for operation in OPERATIONS:
        if not operation.action:
            continue
        answer = stage.send(operation.method, stage.path(operation), header)
        code = "AuthorizationFailed" if operation.method == "HEAD" else answer.json()["error"]["code"]
        if (answer.status_code, code) != (403, "AuthorizationFailed"):
            wrong.append((operation.name, answer.status_code, code))
    assert wrong == []
    assert stage.stored() == before


def test_operations_without_an_action_are_known_by_name(stage: Stage) -> None:
    assert {operation.name for operation in OPERATIONS if not operation.action} == OPEN_TO_ALL_SIGNED_IN | DIRECTORY


def test_operations_without_an_action_tell_nothing_of_what_is_stored_to_who_has_no_role(stage: Stage) -> None:
    header = "Bearer " + stage.mint(stage.nobody)
    for operation in OPERATIONS:
        if operation.action or operation.name in DIRECTORY:
            continue
        answer = stage.send(operation.method, stage.path(operation), header)
        # The answer may repeat names of the request's own path: what it must not hold is what only a resource says.
        told = json.dumps({k: v for k, v in answer.json().items() if k not in {"error", "id", "name"}})
        assert VAULT not in told, (operation.name, answer.text)
        assert f"resourceGroups/{GROUP}" not in told, (operation.name, answer.text)
        assert answer.status_code < 500, (operation.name, answer.text)


def test_a_reader_reads_everywhere_and_changes_nothing(stage: Stage) -> None:
    header = "Bearer " + stage.mint(stage.reader)
    before = stage.stored()
    wrong = []
    for operation in OPERATIONS:
        if not operation.action:
            continue
        answer = stage.send(operation.method, stage.path(operation), header)
        reads = operation.action.lower().endswith("/read")
        if reads == (answer.status_code == 403) or answer.status_code == 401:
            wrong.append((operation.name, operation.action, answer.status_code))
        if not reads and operation.method != "HEAD" and answer.json()["error"]["code"] != "AuthorizationFailed":
            wrong.append((operation.name, operation.action, answer.text))
    assert wrong == []
    assert stage.stored() == before


def test_operations_that_change_something_do_not_ask_for_reading_alone() -> None:
    """A wrong action in the table would open a route to every Reader: the tests above could not see it."""
    wrong = [
        (operation.name, operation.action)
        for operation in OPERATIONS
        if operation.method in {"PUT", "PATCH", "DELETE"} or operation.is_action
        if operation.action.lower().endswith("/read") or not operation.action
    ]
    assert wrong == []


def test_the_published_document_has_exactly_these_routes(stage: Stage) -> None:
    """So what is shown here for the table is shown for every route of the document."""
    published = stage.session.get(f"{stage.server.url}/openapi.json", timeout=60).json()["paths"]
    found = {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path))
        for path, methods in published.items()
        for method, row in methods.items()
        if isinstance(row, dict) and "operationId" in row
    }
    assert found == {(o.method, re.sub(r"\{\+?\w+\}", "{}", o.path)) for o in OPERATIONS}


def test_refusals_are_in_the_audit_trail_and_do_not_fill_it(stage: Stage) -> None:
    scope = f"/subscriptions/{stage.server.subscription}/resourceGroups/{GROUP}"
    header = "Bearer " + stage.mint(stage.nobody)
    with stage.db.read() as tx:
        before = len(tx.audit.newest(100_000))
    for _ in range(300):
        assert stage.send("GET", scope, header).status_code == 403
        assert stage.send("GET", scope, "Bearer opaque").status_code == 401
    with stage.db.read() as tx:
        rows = tx.audit.newest(100_000)
    assert len(rows) - before < 20
    assert any(r["event"] == AuditKind.ACCESS_DENIED and r["principal"] == stage.nobody.object_id for r in rows)
    refused = [r for r in rows if r["event"] == AuditKind.TOKEN_REFUSED]
    assert any("InvalidAuthenticationToken from 127.0.0.1" in r["detail"] for r in refused), refused
    assert all("opaque" not in str(r) for r in rows)


def test_an_answer_does_not_wait_for_the_clients_acknowledgement(stage: Stage) -> None:
    """Nagle's algorithm and delayed acknowledgements together cost 40 ms on every answer of a kept connection."""
    header = "Bearer " + stage.mint(stage.reader)
    fastest = min(stage.send("GET", "/subscriptions", header).elapsed for _ in range(20))
    assert fastest < timedelta(milliseconds=35)
