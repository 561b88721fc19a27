"""When each backup instance is due next: what the scheduler reads at every tick."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from sqlalchemy import Connection, and_, delete, select, update

from strongroom.controlplane.state.schema import schedules

BATCH: Final = 500  # instances in one statement: databases take thousands of parameters at most


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

    def set_all(self, instances: Iterable[str], due: str | None) -> None:
        """Plan *due* for all *instances*, None: nothing."""
        for keys in _batches(instances):
            self._connection.execute(delete(schedules).where(schedules.c.instance.in_(keys)))
            if due is not None:
                self._connection.execute(schedules.insert(), [{"instance": key, "due": due} for key in keys])

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

    def planned(self, instances: Iterable[str]) -> dict[str, str]:
        """Return the stamps of the next slots of *instances*, by their lower-cased ids; without those without one."""
        found: dict[str, str] = {}
        for keys in _batches(instances):
            rows = self._connection.execute(select(schedules).where(schedules.c.instance.in_(keys)))
            found |= {row.instance: row.due for row in rows}
        return found

    def due(self, now: str, *, limit: int) -> list[Due]:
        """Return what is due at the stamp *now*, longest due first."""
        due = schedules.c.due <= now
        statement = select(schedules).where(due).order_by(schedules.c.due, schedules.c.instance).limit(limit)
        return [Due(row.instance, row.due) for row in self._connection.execute(statement)]


def _batches(instances: Iterable[str]) -> Iterator[list[str]]:
    keys = iter(dict.fromkeys(instance.lower() for instance in instances))
    while batch := list(islice(keys, BATCH)):
        yield batch
