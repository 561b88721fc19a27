"""What handlers work with: the database, sign-in, authorisation, limits, and the way to wake the workers."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from strongroom.controlplane.arm.authorizer import Authorizer
from strongroom.controlplane.arm.replays import Replays
from strongroom.controlplane.clusters.pool import ClusterPool
from strongroom.controlplane.identity.tokens import TokenAuthority
from strongroom.controlplane.state.database import Database
from strongroom.controlplane.workflows.containers import Containers
from strongroom.protection.job import Limits

T = TypeVar("T")


class Runner(Protocol):
    """Runs a coroutine on the server's event loop and waits for it: for handlers, which are synchronous."""

    def __call__(self, work: Coroutine[Any, Any, T]) -> T: ...


@dataclass(frozen=True)
class Plane:
    """The services of one control plane. *endpoint* is its URL without a slash at the end.

    *pool* reaches the connected clusters. *poke* wakes the dispatcher of the outbox, *run* carries out what must happen
    inside the request; both may be called from any thread. *loopback_only*: the server itself listens
    on loopback, so clusters and stores there are accepted (design.md, section 8). *kit_taken* says whether the server's
    recovery kit was.
    """

    db: Database
    endpoint: str
    tenant: str
    tokens: TokenAuthority
    authorizer: Authorizer
    pool: ClusterPool
    containers: Containers
    poke: Callable[[], None]
    run: Runner
    location: str = "local"
    limits: Limits = field(default_factory=Limits)
    replays: Replays = field(default_factory=Replays)
    loopback_only: bool = True
    kit_taken: Callable[[], bool] = lambda: False
