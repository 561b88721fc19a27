"""What the control plane owes and what it did: work to start, answers to repeat, and the audit trail."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, select

from strongroom.controlplane.state.schema import audit, outbox, replays
from strongroom.controlplane.state.times import now, stamp


@dataclass(frozen=True)
class Work:
    """A workflow to start: its *kind*, its *id*, and the *key* of what it must not overlap with."""

    id: str
    kind: str
    key: str


class Outbox:
    """Workflows that a committed transaction asked for and that the engine has not taken over yet.

    A row is written with the change that needs the work, so neither exists without the other; it is deleted only
    after the engine has stored the workflow, whose start is idempotent by id.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, kind: str, id: str, key: str = "") -> None:
        """Ask for the workflow *id* of *kind*; at most one of a *key* runs at once ("": the id itself)."""
        values = {"id": id, "kind": kind, "key": key.lower() or id, "due": stamp(now())}
        self._connection.execute(outbox.insert().values(values))

    def waiting(self, *, limit: int = 200) -> list[Work]:
        rows = self._connection.execute(select(outbox).order_by(outbox.c.due, outbox.c.id).limit(limit))
        return [Work(row.id, row.kind, row.key) for row in rows]

    def done(self, id: str) -> None:
        self._connection.execute(delete(outbox).where(outbox.c.id == id))


@dataclass(frozen=True)
class Replay:
    """The answer that a repeated request gets again."""

    status: int
    headers: Mapping[str, str]
    body: str


class Replays:
    """Answers to POST actions, kept so that a request whose reply was lost is not carried out twice."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, key: str, *, since: datetime) -> Replay | None:
        """Return the answer under *key* if it was made at or after *since*."""
        condition = (replays.c.key == key) & (replays.c.made >= stamp(since))
        row = self._connection.execute(select(replays).where(condition)).one_or_none()
        return Replay(row.status, json.loads(row.headers), row.body) if row else None

    def add(self, key: str, replay: Replay) -> None:
        """Keep an answer. Raises `Conflict` when the key has one that is not forgotten yet."""
        values = {
            "key": key,
            "made": stamp(now()),
            "status": replay.status,
            "headers": json.dumps(dict(replay.headers)),
            "body": replay.body,
        }
        self._connection.execute(replays.insert().values(values))

    def forget(self, before: datetime) -> None:
        self._connection.execute(delete(replays).where(replays.c.made < stamp(before)))


class Audit:
    """Sign-ins, denials and changes, in order. Details are chosen by the writer and never hold a secret."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, event: str, *, principal: str, action: str, scope: str, outcome: str, detail: str = "") -> None:
        values = {
            "time": stamp(now()),
            "event": event,
            "principal": principal,
            "action": action,
            "scope": scope,
            "outcome": outcome,
            "detail": detail,
        }
        self._connection.execute(audit.insert().values(values))

    def newest(self, limit: int) -> list[dict[str, str]]:
        rows = self._connection.execute(select(audit).order_by(audit.c.seq.desc()).limit(limit)).mappings()
        return [{k: str(v) for k, v in row.items()} for row in rows]

    def forget(self, before: datetime) -> None:
        self._connection.execute(delete(audit).where(audit.c.time < stamp(before)))
