"""Small secrets by name, sealed before they reach the database."""

from sqlalchemy import Connection, delete, select, update

from strongroom.controlplane.state.schema import secrets
from strongroom.controlplane.state.sealing import SecretBox


class Secrets:
    """The sealed secrets of one home, inside one transaction."""

    def __init__(self, connection: Connection, box: SecretBox) -> None:
        self._connection = connection
        self._box = box

    def get(self, name: str) -> bytes | None:
        """Return the secret *name*, None when there is none. Raises `SecretDamaged`."""
        sealed = self._connection.execute(select(secrets.c.sealed).where(secrets.c.name == name)).scalar()
        return None if sealed is None else self._box.open(name, bytes(sealed))

    def put(self, name: str, data: bytes) -> None:
        """Store *data* as *name*, in place of what it had."""
        sealed = self._box.seal(name, data)
        done = self._connection.execute(update(secrets).where(secrets.c.name == name).values(sealed=sealed))
        if not done.rowcount:
            self._connection.execute(secrets.insert().values(name=name, sealed=sealed))

    def add(self, name: str, data: bytes) -> None:
        """Store *data* as *name*, which must be new; else the transaction ends with `Conflict`."""
        self._connection.execute(secrets.insert().values(name=name, sealed=self._box.seal(name, data)))

    def delete(self, name: str) -> None:
        """Forget *name*; nothing happens when there is none."""
        self._connection.execute(delete(secrets).where(secrets.c.name == name))

    def names(self, prefix: str) -> list[str]:
        """Return the names that start with *prefix*, sorted."""
        rows = self._connection.execute(
            select(secrets.c.name).where(secrets.c.name.startswith(prefix, autoescape=True))
        )
        return sorted(name for (name,) in rows)
