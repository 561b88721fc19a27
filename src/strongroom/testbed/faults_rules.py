"""What a fault proxy can do to a request, and the rules that choose it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TooMany:
    """Answer 429 without asking the server; *retry_after* in seconds, None for an answer without the header."""

    retry_after: float | None = 1.0


@dataclass(frozen=True, slots=True)
class Status:
    """Answer *code* without asking the server. An empty *body* becomes a Kubernetes Status of that code."""

    code: int
    body: bytes = b""
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Expired:
    """Answer 410 Expired as an API server does in mid-paging: with a continue token into another revision."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait *seconds*, then pass the request on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class CutBody:
    """Pass the request on, send the answer's head and *after_bytes* of its body, then close the connection."""

    after_bytes: int


@dataclass(frozen=True, slots=True)
class DropRequest:
    """Close the connection; the server never sees the request."""


@dataclass(frozen=True, slots=True)
class DropReply:
    """Pass the request on, read the server's whole answer, then close the connection without a word of it."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Neither pass the request on nor answer, until the client gives up or the proxy stops."""


Action = TooMany | Status | Expired | Delay | CutBody | DropRequest | DropReply | Hang


@dataclass(slots=True)
class Recorded:
    """One request that reached the proxy.

    *target* is path and query as sent. *status* is what the client got, None while it got nothing. *bytes_in* and
    *bytes_out* count the bodies of request and answer. *action* is the fault it met. *forwarded* tells whether the
    server saw it.
    """

    method: str
    target: str
    bytes_in: int = 0
    status: int | None = None
    bytes_out: int = 0
    action: Action | None = None
    forwarded: bool = False

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(slots=True)
class Rule:
    """Does *action* to requests of *method* (None: any) whose path with query contains the regex *path*.

    The first *skip* matches pass; after them *times* fire (None: all). Requests that an earlier rule took do not count,
    so rules with *times* stand in a row as they were added. *on_match* is called in the proxy's thread
    right before the action. *seen* and *fired* count.
    """

    action: Action
    method: str | None = None
    path: str = ""
    skip: int = 0
    times: int | None = None
    on_match: Callable[[Recorded], None] | None = None
    seen: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)

    def takes(self, method: str, target: str) -> bool:
        """Count a request against this rule and tell whether the rule fires on it."""
        if self.method not in (None, method) or not re.search(self.path, target):
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.times is not None and self.fired >= self.times):
            return False
        self.fired += 1
        return True
