"""When each backup instance is due next: what the scheduler reads at every tick."""

from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, select, update

from strongroom.controlplane.state.schema import schedules


@dataclass(frozen=True)
class Due:
    """Backup instance *instance* (lower-cased ARM id) has a slot at *due* (a stamp)."""

    instance: str
    due: str


class Schedules:
    """The next slots, inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def set(self, instance: str, due: str) -> None:
        key = instance.lower()
        if not self._connection.execute(update(schedules).where(schedules.c.instance == key).values(due=due)).rowcount:
            self._connection.execute(schedules.insert().values(instance=key, due=due))

    def advance(self, instance: str, before: str, due: str) -> bool:
        """Plan *due* if *before* is what is planned now: of several that see one slot, one gets True."""
        planned = and_(schedules.c.instance == instance.lower(), schedules.c.due == before)
        return bool(self._connection.execute(update(schedules).where(planned).values(due=due)).rowcount)

    def clear(self, instance: str) -> None:
        self._connection.execute(delete(schedules).where(schedules.c.instance == instance.lower()))

    def get(self, instance: str) -> str | None:
        """Return the stamp of the next slot, None when none is planned."""
        found: str | None = self._connection.execute(
            select(schedules.c.due).where(schedules.c.instance == instance.lower())
        ).scalar()
        return found

    def due(self, now: str, *, limit: int) -> list[Due]:
        """Return what is due at the stamp *now*, longest due first."""
        due = schedules.c.due <= now
        statement = select(schedules).where(due).order_by(schedules.c.due, schedules.c.instance).limit(limit)
        return [Due(row.instance, row.due) for row in self._connection.execute(statement)]
