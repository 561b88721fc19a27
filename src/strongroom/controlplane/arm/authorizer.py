"""Decides whether a caller may do an action at a scope, from the role assignments in the database."""

import threading
import time
from typing import Final

from strongroom.controlplane.identity.assignments import ASSIGNMENTS, assignment_of, read_access
from strongroom.controlplane.identity.errors import authorization_failed, linked_authorization_failed
from strongroom.controlplane.identity.principals import Principal
from strongroom.controlplane.identity.rbac import Access
from strongroom.controlplane.state.database import Database

__all__ = ["ASSIGNMENTS", "Authorizer", "assignment_of", "read_access"]

REFRESH_SECONDS: Final = 30.0  # for what workers changed: Azure's own assignments take effect within ten minutes


class Authorizer:
    """Answers for one database, whose assignments it holds indexed.

    They are read anew after `forget`, which every request that changes them calls, and now and then: see
    `REFRESH_SECONDS`.
    """

    def __init__(self, db: Database, tenant: str) -> None:
        self._db = db
        self._tenant = tenant
        self._lock = threading.Lock()
        self._access: Access | None = None
        self._read_at = 0.0

    def demand(self, principal: Principal, action: str, scope: str) -> None:
        """Check the caller. Raises `AccessDenied` as ARM words it; the HTTP side writes it to the audit trail."""
        if not self.allowed(principal.object_id, action, scope):
            raise authorization_failed(principal.app_id, principal.object_id, action, scope)

    def demand_linked(self, principal: Principal, action: str, linked: str, own_action: str, own_scope: str) -> None:
        """Check what a request refers to. Raises `AccessDenied` (LinkedAuthorizationFailed)."""
        if not self.allowed(principal.object_id, action, linked):
            pairs = [(action, linked)]
            raise linked_authorization_failed(principal.app_id, principal.object_id, own_action, own_scope, pairs)

    def allowed(self, principal_id: str, action: str, scope: str, *, data: bool = False) -> bool:
        """Say whether the principal may do *action* at *scope*."""
        return self.access().allowed(principal_id, action, scope, data=data)

    def access(self) -> Access:
        """Return the index of all assignments."""
        with self._lock:
            now = time.monotonic()
            if self._access is None or now - self._read_at > REFRESH_SECONDS:
                with self._db.read() as tx:
                    self._access = read_access(tx, self._tenant)
                self._read_at = now
            return self._access

    def forget(self) -> None:
        """Let the next question see the assignments as they are now: call it once a change is committed."""
        with self._lock:
            self._access = None
