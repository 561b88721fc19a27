"""ARM resources: one row each, whatever their type, with the document that is answered."""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, delete, func, or_, select, update

from strongroom.controlplane.state.errors import Conflict
from strongroom.controlplane.state.schema import resources
from strongroom.controlplane.state.times import now, stamp

Document = dict[str, Any]
"""An ARM document as JSON gives it: it is stored and sent as it is, and read only through typed parsers."""


@dataclass(frozen=True)
class Resource:
    """A stored resource. *doc* is the whole answer (id, name, type included); *private* is never answered.

    *type* is the full type as ARM spells it (`Microsoft.DataProtection/backupVaults`). *parent* is the id of what
    lists it: the resource one level up, else its resource group, else its subscription.
    """

    id: str
    type: str
    doc: Document
    parent: str
    private: Document = field(default_factory=dict)
    etag: str = ""
    created: str = ""
    modified: str = ""

    @property
    def name(self) -> str:
        return self.id.rpartition("/")[2]

    @property
    def properties(self) -> Document:
        found = self.doc.get("properties")
        return found if isinstance(found, dict) else {}

    def with_doc(self, doc: Document) -> "Resource":
        return replace(self, doc=doc)

    def with_properties(self, changes: Mapping[str, Any]) -> "Resource":
        """Return the resource with *changes* laid over its properties."""
        return replace(self, doc={**self.doc, "properties": {**self.properties, **changes}})

    def with_private(self, changes: Mapping[str, Any]) -> "Resource":
        return replace(self, private={**self.private, **changes})


class Resources:
    """The resources, inside one transaction. Ids and types are compared without regard to case."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, id: str) -> Resource | None:
        """Return the resource *id*, or None."""
        row = self._connection.execute(select(resources).where(resources.c.key == id.lower())).one_or_none()
        return _resource(row) if row else None

    def put(self, resource: Resource, *, if_match: str | None = None, if_absent: bool = False) -> Resource:
        """Write *resource* and return it with its new etag.

        Raises `Conflict` with *if_absent* when it exists, with *if_match* when it is absent or its etag is another.
        """
        time = stamp(now())
        etag = secrets.token_hex(8)
        segments = resource.id.lower().split("/")
        values = {
            "type": resource.type.lower(),
            "parent": resource.parent.lower(),
            "subscription": segments[2] if len(segments) > 2 and segments[1] == "subscriptions" else "",
            "resource_group": segments[4] if len(segments) > 4 and segments[3] == "resourcegroups" else "",
            "doc": msgspec.json.encode(resource.doc).decode(),
            "private": msgspec.json.encode({**resource.private, "type": resource.type}).decode(),
            "etag": etag,
            "modified": time,
        }
        condition = resources.c.key == resource.id.lower()
        if if_match is not None:
            condition = and_(condition, resources.c.etag == if_match)
        done = None if if_absent else self._connection.execute(update(resources).where(condition).values(values))
        if done is None or not done.rowcount:
            if if_match is not None:
                raise Conflict(f"{resource.id} changed since it was read", hint="Read it again and repeat the change")
            self._connection.execute(
                resources.insert().values(key=resource.id.lower(), id=resource.id, created=time, **values)
            )
        return replace(resource, etag=etag, modified=time, created=resource.created or time)

    def delete(self, id: str) -> bool:
        """Delete one resource, and tell whether it was there. Its children stay: see `delete_tree`."""
        return bool(self._connection.execute(delete(resources).where(resources.c.key == id.lower())).rowcount)

    def delete_tree(self, id: str) -> int:
        """Delete *id* and all below it; return how many there were."""
        key = id.lower()
        below = resources.c.key.startswith(key + "/", autoescape=True)
        return int(self._connection.execute(delete(resources).where(or_(resources.c.key == key, below))).rowcount)

    def children(
        self, parent: str, type: str, *, after: str = "", limit: int | None = None, mentioning: str = ""
    ) -> list[Resource]:
        """Return the resources of *type* below *parent* in the order of their ids, from past the key *after* on.

        *mentioning*: only those whose document's JSON holds this ASCII text, in any case. It spares reading thousands
        of documents for a few, and says nothing of where the text stands.
        """
        condition = and_(
            resources.c.parent == parent.lower(), resources.c.type == type.lower(), resources.c.key > after.lower()
        )
        if mentioning:
            condition = and_(condition, resources.c.doc.icontains(mentioning, autoescape=True))
        return self._select(condition, limit)

    def count(self, parent: str, type: str) -> int:
        """Return how many resources of *type* are below *parent*."""
        condition = and_(resources.c.parent == parent.lower(), resources.c.type == type.lower())
        return int(self._connection.execute(select(func.count()).where(condition)).scalar_one())

    def of_type(
        self,
        type: str,
        *,
        subscription: str = "",
        resource_group: str = "",
        after: str = "",
        limit: int | None = None,
    ) -> list[Resource]:
        """Return the resources of *type* (in one subscription, one resource group), in the order of their ids."""
        conditions = [resources.c.type == type.lower(), resources.c.key > after.lower()]
        if subscription:
            conditions.append(resources.c.subscription == subscription.lower())
        if resource_group:
            conditions.append(resources.c.resource_group == resource_group.lower())
        return self._select(and_(*conditions), limit)

    def within(
        self,
        subscription: str,
        *,
        resource_group: str = "",
        types: Collection[str] = (),
        after: str = "",
        limit: int | None = None,
    ) -> list[Resource]:
        """Return the resources of *types* (all types without) in a subscription, or in one of its resource groups."""
        conditions = [resources.c.subscription == subscription.lower(), resources.c.key > after.lower()]
        if resource_group:
            conditions.append(resources.c.resource_group == resource_group.lower())
        if types:
            conditions.append(resources.c.type.in_([type.lower() for type in types]))
        return self._select(and_(*conditions), limit)

    def at_or_below(self, id: str, type: str) -> list[Resource]:
        """Return the resources of *type* whose parent is *id* or lies below it."""
        key = id.lower().rstrip("/")
        below = or_(resources.c.parent == key, resources.c.parent.startswith(key + "/", autoescape=True))
        return self._select(and_(resources.c.type == type.lower(), below), None)

    def _select(self, condition: Any, limit: int | None) -> list[Resource]:
        statement = select(resources).where(condition).order_by(resources.c.key)
        return [_resource(row) for row in self._connection.execute(statement.limit(limit) if limit else statement)]


def _resource(row: Row[Any]) -> Resource:
    private = msgspec.json.decode(row.private)
    return Resource(
        id=row.id,
        type=private.pop("type"),
        doc=msgspec.json.decode(row.doc),
        parent=row.parent,
        private=private,
        etag=row.etag,
        created=row.created,
        modified=row.modified,
    )
