"""The port through which the catalog keeps secrets, and its driver on the control plane's database."""

from typing import Protocol

from strongroom.controlplane.identity.stored import DatabaseSecrets


class Secrets(Protocol):
    """Small secrets by name, sealed at rest. Each call is whole or not done; all may be called from any thread."""

    def get(self, name: str) -> bytes | None:
        """Return the secret *name*, None when there is none."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Store *data* as *name*, in place of what it had."""
        ...

    def keep(self, name: str, data: bytes) -> bytes:
        """Store *data* as *name* unless it has something; return what it has now, to every caller the same."""
        ...

    def delete(self, name: str) -> None:
        """Forget *name*; nothing happens when there is none."""
        ...

    def names(self, prefix: str) -> list[str]:
        """Return the names that start with *prefix*, sorted."""
        ...


class StateSecrets(DatabaseSecrets):
    """`Secrets` in the control plane's database. Raises `StateUnavailable` and `SecretDamaged`."""

    def keep(self, name: str, data: bytes) -> bytes:
        with self.database.write() as tx:
            stands = tx.secrets.get(name)
            if stands is None:
                tx.secrets.add(name, data)
            return data if stands is None else stands

    def names(self, prefix: str) -> list[str]:
        with self.database.read() as tx:
            return tx.secrets.names(prefix)
