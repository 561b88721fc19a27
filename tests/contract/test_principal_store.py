"""What every directory of principals promises: the one in memory and the one in the database."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from strongroom.controlplane.identity.audit import AuditEvent, AuditKind
from strongroom.controlplane.identity.keys import SigningKeys
from strongroom.controlplane.identity.principals import (
    AppIdTaken,
    MemoryPrincipals,
    PrincipalStore,
    add_secret,
    managed_identity,
    new_service_principal,
)
from strongroom.controlplane.identity.stored import DatabaseAudit, DatabasePrincipals, DatabaseSecrets, TxPrincipals
from strongroom.controlplane.state.database import Database
from strongroom.testbed.postgres import Postgres

TENANT = "6f1f7ad1-3f5e-4a3b-9c52-0b1d2f6a7c11"
NOW = datetime(2026, 11, 23, 16, 30, 15, 123456, tzinfo=UTC)
VAULT = "/subscriptions/S/resourceGroups/RG/providers/Microsoft.DataProtection/backupVaults/V1"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path}/state.sqlite", bytes(32))
    yield opened
    opened.close()


@pytest.fixture
def postgres_database(postgres: Postgres) -> Iterator[Database]:
    with postgres.database() as url:
        opened = Database.open(url, bytes(32))
        yield opened
        opened.close()


@pytest.fixture(params=["memory", "database", "transaction", "postgres_database", "postgres_transaction"])
def store(request: pytest.FixtureRequest) -> Iterator[PrincipalStore]:
    kind: str = request.param
    if kind == "memory":
        yield MemoryPrincipals()
        return
    opened: Database = request.getfixturevalue("postgres_database" if kind.startswith("postgres") else "database")
    if kind.endswith("database"):
        yield DatabasePrincipals(opened)
    else:
        with opened.write() as tx:
            yield TxPrincipals(tx)


def test_a_principal_is_found_by_each_of_its_ids_in_any_case(store: PrincipalStore) -> None:
    script = new_service_principal("backup script", now=NOW)
    vault = managed_identity(VAULT, TENANT, incarnation="1", name="V1", created=NOW)
    store.put(script)
    store.put(vault)
    assert store.get_by_object_id(script.object_id.upper()) == script
    assert store.get_by_app_id(script.app_id.upper()) == script
    assert store.get_by_resource_id(VAULT.upper()) == vault
    assert vault.resource_id == VAULT


def test_who_is_not_there_is_none(store: PrincipalStore) -> None:
    store.put(new_service_principal("somebody", now=NOW))
    assert store.get_by_object_id(TENANT) is None
    assert store.get_by_app_id("") is None
    assert store.get_by_resource_id(VAULT) is None
    assert store.get_by_resource_id("") is None


def test_everybody_is_listed_in_the_order_of_ids(store: PrincipalStore) -> None:
    made = [new_service_principal(f"p{n}", now=NOW) for n in range(5)]
    for record in made:
        store.put(record)
    assert store.list() == sorted(made, key=lambda record: record.object_id)


def test_putting_again_replaces(store: PrincipalStore) -> None:
    record = new_service_principal("rotating", now=NOW)
    store.put(record)
    changed, _ = add_secret(record, now=NOW, lifetime=timedelta(days=1))
    changed, _ = add_secret(changed, now=NOW, lifetime=None)
    store.put(changed)
    assert store.list() == [changed]


def test_an_application_id_belongs_to_one_principal(store: PrincipalStore) -> None:
    first = new_service_principal("first", now=NOW)
    store.put(first)
    with pytest.raises(AppIdTaken):
        store.put(new_service_principal("second", now=NOW, app_id=first.app_id))
    assert store.list() == [first]


def test_the_newest_identity_of_a_resource_is_the_one_it_has(store: PrincipalStore) -> None:
    old = managed_identity(VAULT, TENANT, incarnation="1", name="V1", created=NOW)
    new = managed_identity(VAULT.lower(), TENANT, incarnation="2", name="v1", created=NOW + timedelta(seconds=1))
    store.put(new)
    store.put(old)
    assert store.get_by_resource_id(VAULT) == new


def test_deleting_is_idempotent(store: PrincipalStore) -> None:
    record = new_service_principal("gone", now=NOW)
    store.put(record)
    store.delete(record.object_id.upper())
    store.delete(record.object_id)
    assert store.list() == []


def test_a_transaction_that_fails_keeps_no_principal(database: Database) -> None:
    record = new_service_principal("half", now=NOW)
    with contextlib.suppress(RuntimeError), database.write() as tx:
        TxPrincipals(tx).put(record)
        raise RuntimeError
    assert DatabasePrincipals(database).list() == []


def test_signing_keys_lie_sealed_in_the_database_and_come_back(database: Database, tmp_path: Path) -> None:
    kid, key = SigningKeys(DatabaseSecrets(database)).signing(NOW)
    assert SigningKeys(DatabaseSecrets(database)).signing(NOW)[0] == kid
    private = str(key.as_dict(private=True)["d"]).encode()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert kid.encode() not in stored
    assert private not in stored


def test_secrets_can_be_deleted(database: Database) -> None:
    secrets = DatabaseSecrets(database)
    secrets.put("x", b"1")
    assert secrets.get("x") == b"1"
    secrets.delete("x")
    assert secrets.get("x") is None


def test_events_reach_the_audit_trail(database: Database) -> None:
    DatabaseAudit(database).record(AuditEvent(AuditKind.SIGN_IN_REFUSED, "app", "signIn", "https://x", "code=1"))
    with database.read() as tx:
        (event,) = tx.audit.newest(10)
    assert {k: event[k] for k in ("event", "principal", "action", "scope", "outcome", "detail")} == {
        "event": "SignInRefused",
        "principal": "app",
        "action": "signIn",
        "scope": "https://x",
        "outcome": "refused",
        "detail": "code=1",
    }
