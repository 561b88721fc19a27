"""Who can be a caller or hold a role: service principals with their secrets, and managed identities of resources."""

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

from strongroom.controlplane.identity import credentials
from strongroom.controlplane.identity.errors import IdentityError

MAX_SECRETS: Final = 10  # of one principal, expired ones included: each costs one hash at a wrong sign-in
MAX_NAME_CHARACTERS: Final = 256


class PrincipalKind(StrEnum):
    """What a principal is; spelled as `Principal.kind` and the database have it."""

    SERVICE_PRINCIPAL = "ServicePrincipal"
    MANAGED_IDENTITY = "ManagedIdentity"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller, as its token names it."""

    object_id: str
    app_id: str
    tenant_id: str
    kind: PrincipalKind
    name: str


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A secret of a service principal, known by its hash. *hint*: its first three characters; *expires* None: never."""

    key_id: str
    hint: str
    hash: str = field(repr=False)
    created: datetime
    expires: datetime | None

    def valid_at(self, now: datetime) -> bool:
        return self.expires is None or now < self.expires


@dataclass(frozen=True, slots=True)
class PrincipalRecord:
    """What the directory keeps of a principal. Ids are lower-case GUIDs; *resource_id* is empty for applications."""

    object_id: str
    app_id: str
    kind: PrincipalKind
    name: str
    created: datetime
    resource_id: str = ""
    secrets: tuple[ClientSecret, ...] = ()

    def caller(self, tenant_id: str) -> Principal:
        """Return the caller that a token of this principal names."""
        return Principal(self.object_id, self.app_id, tenant_id, self.kind, self.name)


class PrincipalStore(Protocol):
    """The directory. Done when it passes the suite in tests/contract/test_principal_store.py.

    Ids and resource ids are compared without regard to case. A record handed out is a value: changing it means `put`.
    """

    def get_by_app_id(self, app_id: str) -> PrincipalRecord | None: ...

    def get_by_object_id(self, object_id: str) -> PrincipalRecord | None: ...

    def get_by_resource_id(self, resource_id: str) -> PrincipalRecord | None:
        """Return the managed identity of the resource (the newest, if several were put)."""
        ...

    def list(self) -> list[PrincipalRecord]:
        """Return everybody, ordered by object id."""
        ...

    def put(self, record: PrincipalRecord) -> None:
        """Store *record* in place of what its object id had.

        Raises `AppIdTaken` when another principal has its application id.
        """
        ...

    def delete(self, object_id: str) -> None:
        """Forget a principal; nothing happens when there is none."""
        ...


class AppIdTaken(IdentityError):
    """Two principals cannot share an application id."""

    def __init__(self, app_id: str) -> None:
        super().__init__(
            "Request_MultipleObjectsWithSameKeyValue",
            f"The service principal cannot be created: the application id {app_id} is already in use.",
            status=409,
        )


class MemoryPrincipals:
    """A directory in memory: the twin of the stored one."""

    def __init__(self, records: Iterable[PrincipalRecord] = ()) -> None:
        self._records: dict[str, PrincipalRecord] = {}
        for record in records:
            self.put(record)

    def get_by_app_id(self, app_id: str) -> PrincipalRecord | None:
        wanted = app_id.lower()
        return next((record for record in self._records.values() if record.app_id == wanted), None)

    def get_by_object_id(self, object_id: str) -> PrincipalRecord | None:
        return self._records.get(object_id.lower())

    def get_by_resource_id(self, resource_id: str) -> PrincipalRecord | None:
        wanted = resource_id.lower()
        found = [record for record in self._records.values() if record.resource_id.lower() == wanted and wanted]
        return max(found, key=lambda record: (record.created, record.object_id), default=None)

    def list(self) -> list[PrincipalRecord]:
        return [self._records[key] for key in sorted(self._records)]

    def put(self, record: PrincipalRecord) -> None:
        holder = self.get_by_app_id(record.app_id)
        if holder is not None and holder.object_id != record.object_id:
            raise AppIdTaken(record.app_id)
        self._records[record.object_id] = record

    def delete(self, object_id: str) -> None:
        self._records.pop(object_id.lower(), None)


def new_service_principal(name: str, *, now: datetime, app_id: str = "", object_id: str = "") -> PrincipalRecord:
    """Return a service principal without secrets; ids are random unless given (as GUIDs; ValueError otherwise)."""
    return PrincipalRecord(
        object_id=str(uuid.UUID(object_id)) if object_id else str(uuid.uuid4()),
        app_id=str(uuid.UUID(app_id)) if app_id else str(uuid.uuid4()),
        kind=PrincipalKind.SERVICE_PRINCIPAL,
        name=name[:MAX_NAME_CHARACTERS],
        created=now,
    )


def add_secret(record: PrincipalRecord, *, now: datetime, lifetime: timedelta | None) -> tuple[PrincipalRecord, str]:
    """Return *record* with one more secret, and the secret's text, which is to be had only here.

    Expired secrets are dropped. Raises `IdentityError` when `MAX_SECRETS` valid ones are there already.
    """
    kept = tuple(secret for secret in record.secrets if secret.valid_at(now))
    if len(kept) >= MAX_SECRETS:
        raise IdentityError(
            "Request_BadRequest",
            f"The service principal {record.app_id} has {MAX_SECRETS} secrets already.",
            status=400,
            hint="Remove one that is no longer in use",
        )
    text = credentials.new_secret()
    made = ClientSecret(
        key_id=str(uuid.uuid4()),
        hint=text[:3],
        hash=credentials.hash_secret(text),
        created=now,
        expires=None if lifetime is None else now + lifetime,
    )
    return replace(record, secrets=(*kept, made)), text


def remove_secret(record: PrincipalRecord, key_id: str) -> PrincipalRecord:
    """Return *record* without the secret *key_id*."""
    return replace(record, secrets=tuple(secret for secret in record.secrets if secret.key_id != key_id))


def managed_identity(
    resource_id: str, tenant_id: str, *, incarnation: str, name: str, created: datetime
) -> PrincipalRecord:
    """Return the identity of the ARM resource *resource_id*.

    The same resource and *incarnation* give the same ids, so making it may be repeated. *incarnation* names one life of
    the resource (a GUID made when it is created): a resource that was deleted and made anew is somebody else, and does
    not inherit the role assignments of the old one.
    """
    space = uuid.UUID(tenant_id)
    seed = f"{incarnation}|{resource_id.lower()}"
    return PrincipalRecord(
        object_id=str(uuid.uuid5(space, f"managed identity, object|{seed}")),
        app_id=str(uuid.uuid5(space, f"managed identity, application|{seed}")),
        kind=PrincipalKind.MANAGED_IDENTITY,
        name=name[:MAX_NAME_CHARACTERS],
        created=created,
        resource_id=resource_id,
    )


def to_json(record: PrincipalRecord) -> str:
    """Return what is stored beside the columns: creation, resource as it was written, and the secrets' hashes."""
    return json.dumps(
        {
            "created": record.created.isoformat(),
            "resourceId": record.resource_id,
            "secrets": [
                {
                    "keyId": secret.key_id,
                    "hint": secret.hint,
                    "hash": secret.hash,
                    "created": secret.created.isoformat(),
                    "expires": secret.expires.isoformat() if secret.expires else None,
                }
                for secret in record.secrets
            ],
        }
    )


def from_json(text: str, *, object_id: str, app_id: str, kind: str, name: str) -> PrincipalRecord:
    """Return the record of which `to_json` wrote *text*. Raises ValueError or KeyError for other text."""
    doc = json.loads(text)
    return PrincipalRecord(
        object_id=object_id,
        app_id=app_id,
        kind=PrincipalKind(kind),
        name=name,
        created=datetime.fromisoformat(doc["created"]),
        resource_id=doc["resourceId"],
        secrets=tuple(
            ClientSecret(
                key_id=one["keyId"],
                hint=one["hint"],
                hash=one["hash"],
                created=datetime.fromisoformat(one["created"]),
                expires=datetime.fromisoformat(one["expires"]) if one["expires"] else None,
            )
            for one in doc["secrets"]
        ),
    )
