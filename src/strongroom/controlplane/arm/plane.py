"""What handlers work with: the database, sign-in, authorisation, limits, and the way to wake the workers."""

from collections.abc import Callable
from dataclasses import dataclass, field

from strongroom.controlplane.arm.authorizer import Authorizer
from strongroom.controlplane.arm.replays import Replays
from strongroom.controlplane.identity.tokens import TokenAuthority
from strongroom.controlplane.state.database import Database
from strongroom.protection.job import Limits


@dataclass(frozen=True)
class Plane:
    """The services of one control plane. *endpoint* is its URL without a slash at the end.

    *poke* wakes the dispatcher of the outbox; safe to call from any thread. *loopback_only*: the server itself listens
    on loopback, so clusters and stores there are accepted (design.md, section 8).
    """

    db: Database
    endpoint: str
    tenant: str
    tokens: TokenAuthority
    authorizer: Authorizer
    poke: Callable[[], None]
    location: str = "local"
    limits: Limits = field(default_factory=Limits)
    replays: Replays = field(default_factory=Replays)
    loopback_only: bool = True
