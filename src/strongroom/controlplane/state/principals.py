"""The directory's rows: service principals and managed identities."""

from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Connection, delete, or_, select, update

from strongroom.controlplane.state.schema import principals


@dataclass(frozen=True)
class PrincipalRow:
    """One principal. *resource* is the ARM id a managed identity belongs to, "" for others; *doc* is identity's JSON.

    All three ids are lower-case; the resource as it was written is in *doc*.
    """

    object_id: str
    app_id: str
    kind: str
    name: str
    resource: str
    doc: str


class Principals:
    """The rows of the directory, inside one transaction. Ids are compared without regard to case."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, object_id: str) -> PrincipalRow | None:
        return next(iter(self._rows(principals.c.object_id == object_id.lower())), None)

    def get_by_app_id(self, app_id: str) -> PrincipalRow | None:
        return next(iter(self._rows(principals.c.app_id == app_id.lower())), None)

    def of_resource(self, resource: str) -> list[PrincipalRow]:
        """Return the identities that *resource* (an ARM id) has or had."""
        return self._rows(principals.c.resource == resource.lower()) if resource else []

    def at_or_below(self, resource: str) -> list[PrincipalRow]:
        """Return the identities of *resource* (an ARM id, a resource group's too) and of all that lies below it."""
        key = resource.lower().rstrip("/")
        below = principals.c.resource.startswith(key + "/", autoescape=True)
        return self._rows(or_(principals.c.resource == key, below)) if key else []

    def all(self) -> list[PrincipalRow]:
        """Return everybody, ordered by object id."""
        return self._rows()

    def put(self, row: PrincipalRow) -> None:
        """Store *row* in place of what its object id had. Raises `Conflict` when its application id is another's."""
        values = asdict(row) | {key: getattr(row, key).lower() for key in ("object_id", "app_id", "resource")}
        same = principals.c.object_id == values["object_id"]
        if not self._connection.execute(update(principals).where(same).values(values)).rowcount:
            self._connection.execute(principals.insert().values(values))

    def delete(self, object_id: str) -> None:
        """Forget a principal; nothing happens when there is none."""
        self._connection.execute(delete(principals).where(principals.c.object_id == object_id.lower()))

    def _rows(self, *conditions: ColumnElement[bool]) -> list[PrincipalRow]:
        found = self._connection.execute(select(principals).where(*conditions).order_by(principals.c.object_id))
        return [PrincipalRow(**row) for row in found.mappings()]
