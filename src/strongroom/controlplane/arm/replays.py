"""Gives a repeated POST the answer of the first one, so that a lost reply does not start a second backup.

azure-core repeats a POST after a 5xx or a broken connection, with the same `x-ms-client-request-id`.
"""

import hashlib
import json
from datetime import timedelta
from typing import Final

from strongroom.controlplane.arm.call import Reply
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.journal import Replay
from strongroom.controlplane.state.times import now

KEPT_FOR: Final = timedelta(minutes=10)  # issue 4: longer than any client repeats


class Replays:
    """The memory of answers. The key binds caller, method, path, body and the client's request id."""

    @staticmethod
    def key(caller: str, method: str, path: str, body: bytes, client_request_id: str) -> str | None:
        """Return the key of a request, None when the client gave it no id to be recognised by."""
        if not client_request_id:
            return None
        parts = (caller, method, path.lower(), client_request_id)
        digest = hashlib.sha256()
        for part in (*(p.encode() for p in parts), body):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()

    @staticmethod
    def find(tx: Tx, key: str) -> Reply | None:
        """Return the answer that was given before, if it still counts."""
        found = tx.replays.get(key, since=now() - KEPT_FOR)
        return Reply(found.status, json.loads(found.body), found.headers) if found else None

    @staticmethod
    def keep(tx: Tx, key: str, reply: Reply) -> None:
        """Remember an answer. Raises `Conflict` when the same request was answered by another thread meanwhile."""
        tx.replays.forget(now() - KEPT_FOR)
        tx.replays.add(key, Replay(reply.status, dict(reply.headers), json.dumps(reply.body)))
