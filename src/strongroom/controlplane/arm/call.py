"""What a handler is given (`Call`) and gives back (`Reply`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec

from strongroom.controlplane.arm.errors import ArmError, Json, not_found
from strongroom.controlplane.arm.routing import Operation, fill
from strongroom.controlplane.identity.principals import Principal
from strongroom.controlplane.state.database import Database, Tx
from strongroom.controlplane.state.resources import Resource

if TYPE_CHECKING:
    from strongroom.controlplane.arm.plane import Plane

FRACTIONS_UNDERSTOOD = "azsdk-python"
"""Only azure-core reads Retry-After as a decimal number; PowerShell's cmdlets read whole seconds: azure-clients.md."""


@dataclass(frozen=True)
class Reply:
    """An answer: *body* is a JSON document, None for an empty one."""

    status: int
    body: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """An authenticated and authorised request.

    *path* are the parameters of the operation's path as the caller wrote them, *query* has lower-cased names, *body* is
    the shaped document ({} without one), *headers* have lower-cased names.
    """

    plane: "Plane"
    operation: Operation
    principal: Principal
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Json
    request_id: str
    replay_key: str | None = None

    @property
    def db(self) -> Database:
        return self.plane.db

    @property
    def id(self) -> str:
        """The path as an ARM id: canonical casing for Azure's words, the caller's for names."""
        return fill(self.operation.path, self.path)

    @property
    def api_version(self) -> str:
        return self.query.get("api-version", "")

    @property
    def subscription(self) -> str:
        return self.path.get("subscription", "")

    @property
    def group_id(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.path['group']}"

    def url(self, path: str, **query: str) -> str:
        """Return the absolute URL of *path* on this server, with the caller's api-version."""
        parameters = {"api-version": self.api_version, **query}
        return f"{self.plane.endpoint}{quote(path, safe='/=-_.~')}?{urlencode(parameters)}"

    def next_link(self, **query: str) -> str:
        """Return the URL of this same request with *query* laid over its own parameters."""
        kept = {k: v for k, v in self.query.items() if k not in {q.lower() for q in query}}
        return f"{self.plane.endpoint}{quote(self.id, safe='/=-_.~')}?{urlencode({**kept, **query})}"

    def retry_after(self, seconds: float) -> str:
        """Return a `Retry-After`: fractions for azure-core only, at least one whole second for everybody else."""
        if FRACTIONS_UNDERSTOOD in self.headers.get("user-agent", ""):
            return f"{seconds:g}"
        return str(max(1, round(seconds)))

    def require(self, tx: Tx, id: str) -> Resource:
        """Return the resource *id*. Raises ARM's 404."""
        found = tx.resources.get(id)
        if found is None:
            raise not_found(id)
        return found

    def require_group(self, tx: Tx) -> Resource:
        """Return the resource group of the path. Raises `SubscriptionNotFound`, `ResourceGroupNotFound`."""
        require_subscription(tx, self.subscription)
        found = tx.resources.get(self.group_id)
        if found is None:
            name = self.path["group"]
            raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")
        return found

    def demand(self, action: str, scope: str) -> None:
        """Check that the caller may also do *action* at *scope*, which the request refers to.

        Raises `LinkedAuthorizationFailed` as ARM does for linked resources.
        """
        self.plane.authorizer.demand_linked(self.principal, action, scope, self.operation.action, self.id)


def require_subscription(tx: Tx, subscription: str) -> Resource:
    """Return the subscription. Raises `SubscriptionNotFound`."""
    found = tx.resources.get(f"/subscriptions/{subscription}")
    if found is None:
        raise ArmError(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")
    return found


def listing(values: list[Json], next_link: str | None = None) -> Reply:
    """Return a list as ARM answers it."""
    return Reply(200, {"value": values, "nextLink": next_link} if next_link else {"value": values})


def encode(body: Any) -> bytes:
    return msgspec.json.encode(body)
