"""Carries out a Restore: by its journal in the repository it goes on where a killed process left it, never twice."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from strongroom.dataplane.hooks.restoring import any_was_to_succeed, run_restore_hooks
from strongroom.dataplane.hooks.spec import Hook
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeError
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.journal import read_restore_journal
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.restore.errors import NoSuchRestore, RestoreInterrupted, RestoreTakenOver
from strongroom.dataplane.restore.execute import execute, load_plan
from strongroom.dataplane.restore.gather import gather_plan
from strongroom.dataplane.restore.journal import finished
from strongroom.dataplane.restore.model import (
    Action,
    Done,
    Progress,
    RestorePlan,
    RestoreRequest,
    RestoreResult,
    RestoreState,
)
from strongroom.extension.api.documents import Restore
from strongroom.extension.api.status import Failure, Phase, RestoreCounts, RestoreStatus, StatusWarning, bounded
from strongroom.extension.runs.context import AWAY, OUTAGE_PAUSES_SECONDS, RunContext
from strongroom.extension.runs.failures import OPERATION_FAILED, together
from strongroom.extension.runs.feed import Feed
from strongroom.extension.runs.hooks import restore_hooks
from strongroom.extension.runs.mapping import restore_request, unsupported_of_restore
from strongroom.protection.errors import ErrorCode

RESTORE_ID_CHARACTERS: Final = 16  # as `new_restore_id`: part of the names of volume imports
# Killed while it wrote the plan, an id is spent and nothing was sent. So many kills in one place are no accident.
IDS_AT_MOST: Final = 8


def restore_id_of(identity: str, attempt: int = 0) -> str:
    """Return the id of the restore that the document *identity* begins: the same one after every kill."""
    said = f"strongroom-restore\0{identity}\0{attempt}".encode()
    return hashlib.sha256(said).hexdigest()[:RESTORE_ID_CHARACTERS]


async def run_restore(context: RunContext, restore: Restore, feed: Feed) -> RestoreStatus:
    """Carry *restore* out, or go on with it, and return what to say of it.

    If it stops anywhere, the journal says what was done, and the next run of the same document goes on. Raises what
    `gather_plan`, `execute` and `RunContext.repository` raise.
    """
    spec = restore.spec
    problems = unsupported_of_restore(spec.criteria)
    if problems:
        return RestoreStatus(phase=Phase.FAILED, error=together(problems))
    request = restore_request(spec.criteria)
    feed.progress("opening the storage location")
    async with context.repository(spec.storage_location) as repo, context.connect() as api:
        hooks, problems = await restore_hooks(api, spec.criteria.restore_hook_references)
        if problems:
            return RestoreStatus(phase=Phase.FAILED, error=together(problems))
        if spec.dry_run:
            point = await repo.point(spec.recovery_point_id)
            return status_of_plan(await gather_plan(api, point, request), [])
        repo.require_writer()
        restore_id, plan = await _begun(repo, restore.work_identity)
        result = await finished(repo, restore_id)
        if result is None:
            result = await _carry_out(api, repo, restore, request, restore_id, plan, feed)
        failed, warnings = await _run_hooks(api, hooks, result, feed)
    status = status_of(result, warnings)
    if failed and status.phase is Phase.COMPLETED:
        return msgspec.structs.replace(status, phase=Phase.PARTIALLY_FAILED)
    return status


async def _run_hooks(
    api: KubeApi, hooks: Sequence[Hook], result: RestoreResult, feed: Feed
) -> tuple[bool, list[StatusWarning]]:
    """Run the hooks in what was restored; return whether one failed that was not to, and what to say.

    If it stops anywhere, the next run of the same document runs them all again.
    """
    if not hooks:
        return False, []
    created = [
        (each.group, each.kind, each.namespace, each.name) for each in result.objects if each.action is Done.CREATED
    ]
    feed.progress("running hooks")
    try:
        outcomes = await run_restore_hooks(
            api, hooks, created, progress=lambda done, total: feed.progress("running hooks", done, total)
        )
    except KubeError as error:
        warning = StatusWarning(code=str(ErrorCode.HOOK_FAILED), message=f"hooks did not run: {error.message}")
        return True, [warning]
    return any_was_to_succeed(outcomes), [
        StatusWarning(
            resource=each.task.pod.key,
            code=str(ErrorCode.HOOK_FAILED),
            message=f"{each.message}. {each.hint}" if each.hint else each.message,
        )
        for each in outcomes
    ]


async def _begun(repo: Repository, identity: str) -> tuple[str, RestorePlan | None]:
    """Return the id to restore under, and the plan of a restore that was begun under it."""
    for attempt in range(IDS_AT_MOST):
        restore_id = restore_id_of(identity, attempt)
        if not await read_restore_journal(repo, restore_id):
            return restore_id, None
        try:
            return restore_id, await load_plan(repo, restore_id)
        except NoSuchRestore:
            continue  # killed before its plan was whole: nothing was sent, and its entries cannot be written again
    raise NoSuchRestore(f"the restore {identity} was killed {IDS_AT_MOST} times while its plan was written")


async def _carry_out(
    api: KubeApi,
    repo: Repository,
    restore: Restore,
    request: RestoreRequest,
    restore_id: str,
    plan: RestorePlan | None,
    feed: Feed,
) -> RestoreResult:
    resume = plan is not None
    point = await repo.point(plan.point if plan is not None else restore.spec.recovery_point_id)
    if plan is None:
        plan = await gather_plan(api, point, request, progress=lambda step: _tell(feed, step))
    for pause in (*OUTAGE_PAUSES_SECONDS, None):
        try:
            return await execute(
                api,
                repo,
                point,
                plan,
                restore_id=restore_id,
                resume=resume,
                progress=lambda step: _tell(feed, step),
            )
        except (RestoreInterrupted, RestoreTakenOver, *AWAY) as error:
            # An API server that is still away says so before the journal is opened again. Taken over: by a process of
            # ours that is ending (it lets go within seconds), or by a user's own `restore apply --resume`, whose
            # result counts.
            if pause is None:
                raise
            feed.progress("waiting to go on", detail=error.message)
            await asyncio.sleep(pause)
            resume = resume or isinstance(error, RestoreInterrupted | RestoreTakenOver)
    raise AssertionError("the last attempt returns or raises")


def status_of(result: RestoreResult, warnings: Sequence[StatusWarning]) -> RestoreStatus:
    """Return the status of a Restore that ended as *result* says."""
    failed = [
        StatusWarning(
            resource=f"{each.kind} {each.namespace}/{each.name}" if each.namespace else f"{each.kind} {each.name}",
            code=str(ErrorCode.GENERIC_WARNING),
            message=each.reason,
        )
        for each in result.objects
        if each.action is Done.FAILED
    ]
    kept, count = bounded([*warnings, *failed, *_generic(result.warnings)])
    error = None
    phase = {RestoreState.COMPLETED: Phase.COMPLETED, RestoreState.PARTIAL: Phase.PARTIALLY_FAILED}.get(
        result.state, Phase.FAILED
    )
    if phase is Phase.FAILED:
        error = Failure(
            code=OPERATION_FAILED,
            message=f"none of the {result.failed} objects that were due could be restored",
            recommended_action=("Read the reasons in the warnings and in the restore's full result",),
        )
    return RestoreStatus(
        phase=phase,
        restore_id=result.restore_id,
        report=paths.result_path(result.restore_id),
        counts=RestoreCounts(
            created=result.created, patched=result.patched, skipped=result.skipped, failed=result.failed
        ),
        warnings=kept,
        warning_count=count,
        error=error,
    )


def status_of_plan(plan: RestorePlan, warnings: Sequence[StatusWarning]) -> RestoreStatus:
    """Return the status of a dry run: what would be done, and each conflict as a warning."""
    actions: Counter[Action] = Counter(each.action for each in plan.objects())
    conflicts = [
        StatusWarning(
            resource=f"{each.kind} {each.namespace}/{each.name}" if each.namespace else f"{each.kind} {each.name}",
            code=str(ErrorCode.GENERIC_WARNING),
            message=each.reason,
        )
        for each in plan.objects()
        if each.action is Action.CONFLICT
    ]
    kept, count = bounded([*warnings, *conflicts, *_generic(plan.warnings)])
    return RestoreStatus(
        phase=Phase.COMPLETED,
        counts=RestoreCounts(
            created=actions[Action.CREATE],
            patched=actions[Action.PATCH],
            skipped=actions[Action.SKIP],
            failed=actions[Action.CONFLICT],
        ),
        warnings=kept,
        warning_count=count,
    )


def _generic(texts: Sequence[str]) -> list[StatusWarning]:
    return [StatusWarning(code=str(ErrorCode.GENERIC_WARNING), message=text) for text in texts]


def _tell(feed: Feed, step: Progress) -> None:
    detail = f"{step.failed} failed" if step.failed else ""
    feed.progress(step.wave, step.done, step.total, step.done, detail)
