"""Carries out a Backup: one recovery point, however often the document comes and whenever the process was killed."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from strongroom.dataplane.collector.collect import BackupRequest, BackupResult, Progress, collect
from strongroom.dataplane.hooks.freezing import BackupHooks
from strongroom.dataplane.objectstore.errors import StoreUnavailable
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import RepositoryError
from strongroom.dataplane.repository.model import Manifest, PointId, ReadAs, VolumeEntry, VolumeState
from strongroom.dataplane.repository.repository import READERS, Repository
from strongroom.extension.api.documents import Backup
from strongroom.extension.api.status import (
    BackupStatus,
    Coverage,
    Phase,
    StatusWarning,
    VolumeCounts,
    bounded,
)
from strongroom.extension.runs.checks import check_backup, existing_only
from strongroom.extension.runs.context import AWAY, OUTAGE_PAUSES_SECONDS, Job, RunContext
from strongroom.extension.runs.failures import together
from strongroom.extension.runs.feed import Feed
from strongroom.extension.runs.hooks import backup_hooks, thaw
from strongroom.extension.runs.mapping import backup_selection, unsupported_of_backup
from strongroom.protection.errors import ErrorCode

log = logging.getLogger(__name__)

JOB: Final = "job"
"""The key of the manifest's caller data that holds the name of the Backup which made it."""
UID: Final = "resourceUid"
"""The same for the uid of a Backup that is a custom resource: one of the same name later is another one."""
CLOCKS_DIFFER: Final = timedelta(hours=1)  # the server's and ours, daylight saving mistakes included
LOOK_SECONDS: Final = 30.0  # for the point of a backup that was cancelled in mid-commit; somebody waits for the end


async def run_backup(context: RunContext, backup: Backup, feed: Feed) -> BackupStatus:
    """Take the recovery point of *backup*, or find the one that was taken, and return what to say of it.

    If it stops before the commit there is no point, and what was stored is garbage that prune removes; after it the
    next run of the same document finds the point. An API server that is away for a while has it begin anew. Raises what
    `collect` and `RunContext.repository` raise. Cancelled after the commit it returns, because the point is there.
    """
    if backup.spec.dry_run:
        return await check_backup(context, backup)
    for pause in OUTAGE_PAUSES_SECONDS:
        try:
            return await _attempt(context, backup, feed)
        except AWAY as error:
            log.warning("backup begins anew", extra={"document": backup.name, "reason": error.message})
            feed.progress("waiting to begin anew", detail=error.message)
        await asyncio.sleep(pause)
    return await _attempt(context, backup, feed)


async def _attempt(context: RunContext, backup: Backup, feed: Feed) -> BackupStatus:
    spec = backup.spec
    if problems := unsupported_of_backup(spec.selection):
        return BackupStatus(phase=Phase.FAILED, error=together(problems))
    selection = backup_selection(spec.selection)
    feed.progress("opening the storage location")
    async with context.repository(spec.storage_location) as repo, context.connect() as api:
        repo.require_writer()
        if (found := await committed(repo, backup, context.jobs)) is not None:
            return status_of(found, found.warnings)
        selection, missing = await existing_only(api, selection)
        hooks, problems = await backup_hooks(api, spec.selection.backup_hook_references)
        if problems:
            return BackupStatus(phase=Phase.FAILED, error=together(problems))
        if hooks:
            # Before anything is frozen by this run: the thaw of an earlier one would not know the difference.
            missing += [_hook_warning("", text) for text in await thaw(context, api)]
        request = BackupRequest(
            selection=selection,
            snapshot_volumes=spec.selection.snapshot_volumes,
            snapshot_parameters=spec.snapshot.parameters,
            caller=_caller(backup),
            hooks=BackupHooks(hooks, context.namespace, live=context.live_freezes) if hooks else None,
            before_commit=context.still_ours,
        )
        try:
            result = await collect(api, repo, request, progress=lambda step: _tell(feed, step))
        except (asyncio.CancelledError, StoreUnavailable):
            # A commit that was broken off, by us or on its way, may have gone through.
            found = await asyncio.shield(_look(repo, backup, context.jobs))
            if found is None:
                raise
            return status_of(found, found.warnings, missing)
    return _status_of_result(result, missing)


def _caller(backup: Backup) -> dict[str, str]:
    uid = backup.metadata.uid
    return {**backup.spec.caller, JOB: backup.name, **({UID: uid} if uid else {})}


async def committed(repo: Repository, backup: Backup, jobs: dict[PointId, Job]) -> Manifest | None:
    """Return the manifest that *backup* committed in an earlier attempt, None if there is none.

    Only this extension's own points can be it. The newest are looked at first, back to the document's creation if that
    is said. *jobs* remembers what was looked at: each manifest is read once in the life of the process.
    """
    wanted = Job(backup.name, backup.work_uid)
    writer = repo.require_writer()
    since = _since(backup.metadata.creation_timestamp)
    own = sorted((each for each in await repo.point_ids() if each.startswith(f"{writer}-")), reverse=True)
    for start in range(0, len(own), READERS):
        batch = own[start : start + READERS]
        loaded = await asyncio.gather(*(_manifest(repo, each) for each in batch if each not in jobs))
        manifests = [each for each in loaded if each is not None]
        jobs.update((each.id, Job(each.caller.get(JOB, ""), each.caller.get(UID, ""))) for each in manifests)
        for point_id in batch:
            if point_id in jobs and jobs[point_id].is_that_of(wanted):
                manifest = await _manifest(repo, point_id)
                if manifest is not None and not (await repo.records()).void(manifest):
                    return manifest
        if since is not None and manifests and datetime.fromisoformat(manifests[-1].finished) < since:
            return None
    return None


def status_of(manifest: Manifest, warnings: Iterable[str], others: Sequence[StatusWarning] = ()) -> BackupStatus:
    """Return the status of a Backup whose recovery point is that of *manifest*."""
    kept, count = bounded([*others, *_warnings(manifest, warnings)])
    read = Counter(entry.read_as for entry in manifest.kinds)
    states = Counter(entry.state for entry in manifest.volumes)
    ready, failed = states[VolumeState.SNAPSHOT_READY], states[VolumeState.SNAPSHOT_FAILED]
    return BackupStatus(
        phase=Phase.COMPLETED if manifest.state == "Completed" else Phase.PARTIALLY_FAILED,
        start_time=manifest.started,
        completion_time=manifest.finished,
        recovery_point_id=manifest.id,
        report=paths.manifest_path(manifest.id),
        warnings=kept,
        warning_count=count,
        objects=manifest.objects,
        bytes_read=manifest.bytes_read,
        bytes_written=manifest.bytes_written,
        coverage=Coverage(
            saved=read[ReadAs.EXACT] + read[ReadAs.AT_REVISION],
            excluded=read[ReadAs.EXCLUDED],
            failed=read[ReadAs.FAILED],
            failed_groups=len(manifest.failed_groups),
        ),
        volumes=VolumeCounts(ready=ready, failed=failed, not_snapshotted=len(manifest.volumes) - ready - failed),
    )


def _status_of_result(result: BackupResult, missing: Sequence[StatusWarning]) -> BackupStatus:
    status = status_of(result.manifest, result.warnings, missing)
    return msgspec.structs.replace(status, bytes_written=result.bytes_written)


def _warnings(manifest: Manifest, texts: Iterable[str]) -> Iterator[StatusWarning]:
    """Give each of the data plane's warnings its resource and code."""
    volumes = {_said_of(entry): entry for entry in manifest.volumes if entry.reason}
    for text in texts:
        if (pod := _hook_pod(manifest, text)) is not None:
            yield _hook_warning(pod, text)
            continue
        entry = next((one for said, one in volumes.items() if text.endswith(said)), None)
        if entry is None:
            yield StatusWarning(code=str(ErrorCode.GENERIC_WARNING), message=text)
        else:
            yield StatusWarning(resource=f"{entry.namespace}/{entry.claim}", code=_volume_code(entry), message=text)


def _hook_pod(manifest: Manifest, text: str) -> str | None:
    """Return the pod (`namespace/name`) in which a hook failed that *text* tells of, None for another text."""
    failures = manifest.hooks.failures if manifest.hooks is not None else ()
    return next((each.pod for each in failures if text.startswith(f"hook {each.hook} in pod {each.pod}, ")), None)


def _hook_warning(pod: str, text: str) -> StatusWarning:
    return StatusWarning(resource=pod, code=str(ErrorCode.HOOK_FAILED), message=text)


def _said_of(entry: VolumeEntry) -> str:
    """Return how a warning about this volume ends; SnapshotSession.entries words it so."""
    return f" {entry.namespace}/{entry.claim} is not in the recovery point: {entry.reason}"


def _volume_code(entry: VolumeEntry) -> str:
    if not entry.volume:
        return str(ErrorCode.PVC_NOT_BOUND)
    if entry.state is VolumeState.SNAPSHOT_FAILED:
        return str(ErrorCode.SNAPSHOT_TIMEOUT)
    return str(ErrorCode.GENERIC_WARNING)


def _tell(feed: Feed, step: Progress) -> None:
    feed.progress(step.phase, step.done, step.total, step.objects, step.kind)


async def _look(repo: Repository, backup: Backup, jobs: dict[PointId, Job]) -> Manifest | None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await committed(repo, backup, jobs)
    except (TimeoutError, StoreUnavailable):
        return None


async def _manifest(repo: Repository, point_id: PointId) -> Manifest | None:
    try:
        return (await repo.load(point_id)).manifest
    except RepositoryError:
        return None  # swept since it was listed, or damaged: not one that this document can count on


def _since(creation_timestamp: str) -> datetime | None:
    try:
        created = datetime.fromisoformat(creation_timestamp)
    except ValueError:
        return None
    return (created if created.tzinfo else created.replace(tzinfo=UTC)) - CLOCKS_DIFFER
