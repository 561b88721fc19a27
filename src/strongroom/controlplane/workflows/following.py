"""Follows a document of a job in its extension, and writes how far the job is and how it ended."""

import time
from datetime import datetime
from typing import Final

from strongroom.controlplane.clusters.documents import OnStatus
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.workflows import jobdocs
from strongroom.controlplane.workflows.services import Services
from strongroom.extension.api.status import Status
from strongroom.protection.errors import UserError
from strongroom.protection.job import JobStatus

PROGRESS_SECONDS: Final = 2.0  # between two writes of a job's progress


def follow(services: Services, job_id: str) -> OnStatus:
    """Return what takes the statuses of a job's document and writes its progress, every few seconds at the most."""
    written = 0.0

    async def on_status(status: Status) -> None:
        nonlocal written
        if status.progress is None or time.monotonic() - written < PROGRESS_SECONDS:
            return
        written = time.monotonic()
        await services.write(lambda tx: _save_progress(tx, job_id, status, services.clock()))

    return on_status


async def finish(services: Services, job_id: str, status: JobStatus, *errors: UserError) -> None:
    """Write how a job ended, unless it had ended before."""
    await services.write(lambda tx: end_job(tx, job_id, status, services.clock(), *errors))


def end_job(tx: Tx, job_id: str, status: JobStatus, at: datetime, *errors: UserError) -> None:
    """Write how a job ended, unless it had ended before."""
    job = tx.jobs.get(job_id)
    if job is not None and job.ended is None:
        tx.jobs.save(jobdocs.ended(job, status, at, *errors))


def _save_progress(tx: Tx, job_id: str, status: Status, at: datetime) -> None:
    job = tx.jobs.get(job_id)
    progress = status.progress
    if job is None or job.ended is not None or progress is None:
        return
    tasks = list(job.doc["properties"]["extendedInfo"]["subTasks"])
    first = {**tasks[0], "taskProgress": str(_percent(progress.done, progress.total))}
    details = {"Done": str(progress.done), "Total": str(progress.total), "Objects": str(progress.objects)}
    phase = jobdocs.sub_task(
        2,
        progress.phase,
        jobdocs.IN_PROGRESS,
        job_id,
        progress=_percent(progress.done, progress.total),
        details={**details, "Detail": progress.detail},
    )
    tx.jobs.save(jobdocs.extended(job, at, subTasks=[first, phase]))


def _percent(done: int, total: int) -> int:
    return min(100, 100 * done // total) if total else 0
