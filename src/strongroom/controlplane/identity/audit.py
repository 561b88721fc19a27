"""What identity reports to the audit trail: sign-ins, refused ones, and denials."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class AuditKind(StrEnum):
    """What happened; the text is what the trail stores."""

    SIGNED_IN = "SignedIn"
    SIGN_IN_REFUSED = "SignInRefused"
    ACCESS_DENIED = "AccessDenied"
    TOKEN_REFUSED = "TokenRefused"  # noqa: S105 - the name of an event


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event. Ids are as the caller gave them, at most 200 characters each; never a secret or a token.

    *principal* is an object id where it is known, else an application id; *detail* names address, audience or the
    error's code.
    """

    kind: AuditKind
    principal: str
    action: str
    scope: str
    detail: str = ""


class AuditTrail(Protocol):
    """Where events go. `record` is called from worker threads; what it raises ends the request."""

    def record(self, event: AuditEvent) -> None: ...
