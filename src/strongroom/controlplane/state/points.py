"""Recovery points as the API answers them: a memory of what the containers hold, which can be rebuilt from them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, select, tuple_, update

from strongroom.controlplane.state.resources import Document
from strongroom.controlplane.state.schema import points
from strongroom.controlplane.state.times import stamp

KEPT = "Kept"
DELETING = "Deleting"
"""Condemned in the repository; what its volumes left behind is still being removed."""


@dataclass(frozen=True)
class StoredPoint:
    """A recovery point of *instance* (ARM id). *time* and *expiry* are stamps; *expiry* "" means kept for ever."""

    instance: str
    id: str
    time: str
    expiry: str
    tag: str
    doc: Document
    state: str = KEPT
    private: Document = field(default_factory=dict)


class Points:
    """The recovery points, inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, instance: str, id: str) -> StoredPoint | None:
        condition = and_(points.c.instance == instance.lower(), points.c.id == id.lower())
        row = self._connection.execute(select(points).where(condition)).one_or_none()
        return _point(row) if row else None

    def put(self, point: StoredPoint) -> None:
        """Write a point, in place of what was known of it."""
        key = and_(points.c.instance == point.instance.lower(), points.c.id == point.id.lower())
        values = {
            "time": point.time,
            "expiry": point.expiry,
            "tag": point.tag,
            "state": point.state,
            "doc": json.dumps(point.doc, ensure_ascii=False, separators=(",", ":")),
            "private": json.dumps({**point.private, "instance": point.instance, "id": point.id}),
        }
        if not self._connection.execute(update(points).where(key).values(values)).rowcount:
            self._connection.execute(
                points.insert().values(instance=point.instance.lower(), id=point.id.lower(), **values)
            )

    def delete(self, instance: str, id: str) -> None:
        key = and_(points.c.instance == instance.lower(), points.c.id == id.lower())
        self._connection.execute(delete(points).where(key))

    def of_instance(
        self,
        instance: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        before: tuple[str, str] | None = None,
        limit: int | None = None,
        states: Sequence[str] = (KEPT,),
    ) -> list[StoredPoint]:
        """Return the points of an instance, newest first, from past *before* (time, id) on.

        Their times are between *start* and *end*, both included.
        """
        conditions = [points.c.instance == instance.lower(), points.c.state.in_(states)]
        if start is not None:
            conditions.append(points.c.time >= stamp(start))
        if end is not None:
            conditions.append(points.c.time <= stamp(end))
        if before:
            conditions += [points.c.time <= before[0], tuple_(points.c.time, points.c.id) < tuple_(*before)]
        statement = select(points).where(*conditions).order_by(points.c.time.desc(), points.c.id.desc())
        rows = self._connection.execute(statement.limit(limit) if limit else statement)
        return [_point(row) for row in rows]

    def expiries(self, instance: str) -> list[tuple[str, str, str]]:
        """Return id, time and expiry of the kept points of an instance, without their documents."""
        rows = self._connection.execute(select(points.c.id, points.c.time, points.c.expiry).where(_kept_of(instance)))
        return [(row.id, row.time, row.expiry) for row in rows]

    def instances_with_expired(self, now: datetime) -> list[str]:
        """Return the instances (lower-cased ARM ids) that have a kept point whose expiry has come, and a newer one."""
        newer = points.alias("newer")
        has_newer = (
            select(newer.c.id)
            .where(newer.c.instance == points.c.instance, newer.c.state == KEPT, newer.c.time > points.c.time)
            .exists()
        )
        condition = and_(points.c.state == KEPT, points.c.expiry > "", points.c.expiry <= stamp(now), has_newer)
        statement = select(points.c.instance).where(condition).distinct().order_by(points.c.instance)
        return [instance for (instance,) in self._connection.execute(statement)]

    def in_state(self, state: str) -> list[StoredPoint]:
        return [_point(row) for row in self._connection.execute(select(points).where(points.c.state == state))]

    def count(self, instance: str) -> int:
        return int(self._connection.execute(select(func.count()).where(_kept_of(instance))).scalar_one())


def _kept_of(instance: str) -> ColumnElement[bool]:
    # The state not as the column itself: SQLite would find by its index all kept points of all instances.
    return and_(points.c.instance == instance.lower(), points.c.state.concat("") == KEPT)


def _point(row: Row[Any]) -> StoredPoint:
    private = json.loads(row.private)
    return StoredPoint(
        instance=private.pop("instance"),
        id=private.pop("id"),
        time=row.time,
        expiry=row.expiry,
        tag=row.tag,
        state=row.state,
        doc=json.loads(row.doc),
        private=private,
    )
