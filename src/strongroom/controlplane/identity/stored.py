"""Keeps principals, signing keys and audit events in the control plane's database."""

from strongroom.controlplane.identity.audit import AuditEvent, AuditKind
from strongroom.controlplane.identity.principals import AppIdTaken, PrincipalRecord, from_json, to_json
from strongroom.controlplane.state.database import Database, Tx
from strongroom.controlplane.state.principals import PrincipalRow

_OUTCOMES = {
    AuditKind.SIGNED_IN: "succeeded",
    AuditKind.SIGN_IN_REFUSED: "refused",
    AuditKind.ACCESS_DENIED: "denied",
    AuditKind.TOKEN_REFUSED: "refused",
}


class TxPrincipals:
    """The directory inside one transaction: a `PrincipalStore`."""

    def __init__(self, tx: Tx) -> None:
        self._rows = tx.principals

    def get_by_app_id(self, app_id: str) -> PrincipalRecord | None:
        return _record(self._rows.get_by_app_id(app_id))

    def get_by_object_id(self, object_id: str) -> PrincipalRecord | None:
        return _record(self._rows.get(object_id))

    def get_by_resource_id(self, resource_id: str) -> PrincipalRecord | None:
        found = [_read(row) for row in self._rows.of_resource(resource_id)]
        return max(found, key=lambda record: (record.created, record.object_id), default=None)

    def list(self) -> list[PrincipalRecord]:
        return [_read(row) for row in self._rows.all()]

    def put(self, record: PrincipalRecord) -> None:
        holder = self._rows.get_by_app_id(record.app_id)
        if holder is not None and holder.object_id != record.object_id:
            raise AppIdTaken(record.app_id)
        self._rows.put(
            PrincipalRow(
                object_id=record.object_id,
                app_id=record.app_id,
                kind=str(record.kind),
                name=record.name,
                resource=record.resource_id.lower(),
                doc=to_json(record),
            )
        )

    def delete(self, object_id: str) -> None:
        self._rows.delete(object_id)


class DatabasePrincipals:
    """The directory, each call in a transaction of its own: a `PrincipalStore`. Raises `StateUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get_by_app_id(self, app_id: str) -> PrincipalRecord | None:
        with self._database.read() as tx:
            return TxPrincipals(tx).get_by_app_id(app_id)

    def get_by_object_id(self, object_id: str) -> PrincipalRecord | None:
        with self._database.read() as tx:
            return TxPrincipals(tx).get_by_object_id(object_id)

    def get_by_resource_id(self, resource_id: str) -> PrincipalRecord | None:
        with self._database.read() as tx:
            return TxPrincipals(tx).get_by_resource_id(resource_id)

    def list(self) -> list[PrincipalRecord]:
        with self._database.read() as tx:
            return TxPrincipals(tx).list()

    def put(self, record: PrincipalRecord) -> None:
        with self._database.write() as tx:
            TxPrincipals(tx).put(record)

    def delete(self, object_id: str) -> None:
        with self._database.write() as tx:
            TxPrincipals(tx).delete(object_id)


class DatabaseSecrets:
    """Sealed secrets, each call in a transaction of its own: the `Secrets` port of `keys`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, name: str) -> bytes | None:
        with self.database.read() as tx:
            return tx.secrets.get(name)

    def put(self, name: str, data: bytes) -> None:
        with self.database.write() as tx:
            tx.secrets.put(name, data)

    def delete(self, name: str) -> None:
        with self.database.write() as tx:
            tx.secrets.delete(name)


class DatabaseAudit:
    """The audit trail in the database: the `AuditTrail` port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, event: AuditEvent) -> None:
        with self._database.write() as tx:
            tx.audit.add(
                str(event.kind),
                principal=event.principal,
                action=event.action,
                scope=event.scope,
                outcome=_OUTCOMES[event.kind],
                detail=event.detail,
            )


def _record(row: PrincipalRow | None) -> PrincipalRecord | None:
    return None if row is None else _read(row)


def _read(row: PrincipalRow) -> PrincipalRecord:
    return from_json(row.doc, object_id=row.object_id, app_id=row.app_id, kind=row.kind, name=row.name)
