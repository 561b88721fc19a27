"""Jobs: one row for each backup, restore or other work that users follow, with the document that is answered."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select, tuple_, update

from strongroom.controlplane.state.resources import Document
from strongroom.controlplane.state.schema import jobs
from strongroom.controlplane.state.times import stamp


@dataclass(frozen=True)
class Job:
    """A job of a backup instance. *doc* is the whole answer, *private* what its worker needs (never a secret).

    *vault* and *instance* are ARM ids, *category* `Backup`, `Restore`, …, *slot* the name of a schedule's slot or None.
    *ended* is None exactly while the job runs.
    """

    id: str
    vault: str
    instance: str
    category: str
    status: str
    started: str
    doc: Document
    ended: str | None = None
    slot: str | None = None
    private: Document = field(default_factory=dict)

    @property
    def arm_id(self) -> str:
        return f"{self.vault}/backupJobs/{self.id}"

    def changed(self, *, private: Document | None = None, **properties: Any) -> "Job":
        """Return the job with *properties* laid over those of its document."""
        doc = {**self.doc, "properties": {**self.doc["properties"], **properties}}
        status = properties.get("status", self.status)
        return replace(self, doc=doc, status=status, private={**self.private, **(private or {})})


class Jobs:
    """The jobs, inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, id: str) -> Job | None:
        row = self._connection.execute(select(jobs).where(jobs.c.id == id.lower())).one_or_none()
        return _job(row) if row else None

    def has_slot(self, slot: str) -> bool:
        """Return whether the slot of that name has a job."""
        return self._connection.execute(select(jobs.c.id).where(jobs.c.slot == slot)).first() is not None

    def add(self, job: Job) -> None:
        """Write a new job.

        Raises `Conflict` when its id or slot is taken, or another job of its category runs on its instance.
        """
        self._connection.execute(jobs.insert().values(id=job.id.lower(), slot=job.slot, **_values(job)))

    def save(self, job: Job) -> bool:
        """Write a job that runs, or how it ended: False, and nothing changed, when it had ended before."""
        running = and_(jobs.c.id == job.id.lower(), jobs.c.ended.is_(None))
        return bool(self._connection.execute(update(jobs).where(running).values(_values(job))).rowcount)

    def running(self, instance: str, category: str | None = None) -> list[Job]:
        """Return the jobs that run on *instance*, of one category or all."""
        condition = and_(jobs.c.instance == instance.lower(), jobs.c.ended.is_(None))
        if category is not None:
            condition = and_(condition, jobs.c.category == category)
        return [_job(row) for row in self._connection.execute(select(jobs).where(condition))]

    def all_running(self) -> list[Job]:
        """Return every job that has not ended."""
        return [_job(row) for row in self._connection.execute(select(jobs).where(jobs.c.ended.is_(None)))]

    def busy(self, category: str) -> set[str]:
        """Return the instances (lower-cased ARM ids) on which a job of *category* runs."""
        running = and_(jobs.c.category == category, jobs.c.ended.is_(None))
        return {instance for (instance,) in self._connection.execute(select(jobs.c.instance).where(running))}

    def latest_of_slots(self, instance: str, category: str, before: str, statuses: Collection[str]) -> Job | None:
        """Return the job that began last of those for slots before the slot *before*, with one of *statuses*."""
        condition = and_(
            jobs.c.instance == instance.lower(),
            jobs.c.category == category,
            # Of one instance the names of slots differ in their time alone: text order is time order.
            jobs.c.slot < before,
            jobs.c.status.in_(statuses),
        )
        row = self._connection.execute(
            select(jobs).where(condition).order_by(jobs.c.started.desc()).limit(1)
        ).one_or_none()
        return _job(row) if row else None

    def starts_since(self, instance: str, category: str, since: datetime) -> list[str]:
        """Return when the jobs of *category* on demand began, of those that began at or after *since* (stamps)."""
        condition = and_(
            jobs.c.instance == instance.lower(),
            jobs.c.category == category,
            # Not `IS NULL`: SQLite would find by it all jobs on demand of all instances, and read those.
            func.coalesce(jobs.c.slot, "") == "",
            jobs.c.started >= stamp(since),
        )
        return [started for (started,) in self._connection.execute(select(jobs.c.started).where(condition))]

    def page(
        self, *, vault: str = "", subscription: str = "", before: tuple[str, str] | None = None, limit: int
    ) -> list[Job]:
        """Return up to *limit* jobs of a vault or a subscription, newest first, from past *before* (started, id) on."""
        conditions = []
        if vault:
            conditions.append(jobs.c.vault == vault.lower())
        if subscription:
            conditions.append(jobs.c.subscription == subscription.lower())
        if before is not None:
            # As a pair: with `or` SQLite reads every newer job to find where a page begins.
            conditions.append(tuple_(jobs.c.started, jobs.c.id) < tuple_(*before))
        statement = select(jobs).where(*conditions).order_by(jobs.c.started.desc(), jobs.c.id.desc()).limit(limit)
        return [_job(row) for row in self._connection.execute(statement)]


def _values(job: Job) -> dict[str, Any]:
    return {
        "vault": job.vault.lower(),
        "instance": job.instance.lower(),
        "subscription": job.vault.lower().split("/")[2],
        "category": job.category,
        "status": job.status,
        "started": job.started,
        "ended": job.ended,
        "doc": json.dumps(job.doc, ensure_ascii=False, separators=(",", ":")),
        "private": json.dumps({**job.private, "vault": job.vault, "instance": job.instance}),
    }


def _job(row: Row[Any]) -> Job:
    private = json.loads(row.private)
    return Job(
        id=row.id,
        vault=private.pop("vault"),
        instance=private.pop("instance"),
        category=row.category,
        status=row.status,
        started=row.started,
        ended=row.ended,
        slot=row.slot,
        doc=json.loads(row.doc),
        private=private,
    )
