"""Finds the pods of a backup in which hooks run, and says afterwards which volumes were cut while all stood still."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from strongroom.dataplane.collector.filtering import ObjectFilter
from strongroom.dataplane.collector.instant import PODS
from strongroom.dataplane.collector.selection import Resolved
from strongroom.dataplane.collector.snapshotting import VolumeSurvey
from strongroom.dataplane.hooks.freezing import BackupHooks, Freeze
from strongroom.dataplane.hooks.select import Pod, PodTasks, consistent_claims, pod_from_object, tasks_for
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.repository.model import HookFailure, HookSummary, VolumeEntry, VolumeState

FAILURES_AT_MOST: Final = 20  # in a manifest; their count is always whole


@dataclass(frozen=True)
class Quiet:
    """The freeze of one run, and all running pods of the selected namespaces. *idle* says which hooks run nowhere."""

    freeze: Freeze
    pods: Sequence[Pod]
    idle: tuple[str, ...] = ()

    def mark(self, volumes: Iterable[VolumeEntry]) -> tuple[VolumeEntry, ...]:
        """Return *volumes*, those that were cut while all that mount them stood still as not crash-consistent."""
        quiet = consistent_claims(self.pods, self.freeze.frozen, self.freeze.cut)
        return tuple(
            msgspec.structs.replace(entry, crash_consistent=False)
            if entry.claim_uid in quiet and entry.state is VolumeState.SNAPSHOT_READY
            else entry
            for entry in volumes
        )

    def summary(self) -> HookSummary:
        """Return what the manifest says of the hooks."""
        freeze = self.freeze
        return HookSummary(
            pods=freeze.pods,
            commands=freeze.commands,
            failed=len(freeze.failures),
            failures=tuple(
                HookFailure(
                    hook=each.task.hook, pod=each.task.pod.key, container=each.task.container, reason=each.reason
                )
                for each in freeze.failures[:FAILURES_AT_MOST]
            ),
            frozen=_iso(freeze.began),
            thawed=_iso(freeze.thawed),
            capped=freeze.capped,
        )


async def plan_quiet(
    api: KubeApi,
    hooks: BackupHooks,
    run: str,
    resolved: Resolved,
    survey: VolumeSurvey | None,
    named: Iterable[str] | None,
) -> Quiet:
    """List the pods of the selected namespaces (*named*, None: all) and choose those in which *hooks* run.

    Raises a `KubeError` where pods cannot be listed: without them nobody knows whom to freeze.
    """
    pods = await running_pods(api, named, resolved)
    chosen = choose(hooks, pods, resolved, survey)
    used = {task.hook for one in chosen for task in (*one.pre, *one.post)}
    idle = tuple(f"hook {hook} runs nowhere: no running pod fits it" for hook in hooks.hooks if str(hook) not in used)
    return Quiet(Freeze(api, hooks, run, chosen), pods, idle)


def choose(
    hooks: BackupHooks, pods: Iterable[Pod], resolved: Resolved, survey: VolumeSurvey | None
) -> tuple[PodTasks, ...]:
    """Return what runs in which of *pods*: those that the selection takes, or that mount a claim which is cut."""
    keep = ObjectFilter(resolved.namespaces, resolved.labels)
    claims = {(claim.namespace, claim.name) for claim in survey.claims} if survey is not None else set()
    return tasks_for(
        hooks.hooks,
        pods,
        lambda pod: keep.keeps(pod.namespace, pod.name, msgspec.json.encode(pod.labels)),
        claims,
    )


async def running_pods(api: KubeApi, named: Iterable[str] | None, resolved: Resolved) -> list[Pod]:
    """Return the running pods of the selected namespaces. Raises a `KubeError`."""
    found = []
    for namespace in (None,) if named is None else tuple(named):
        async for page in api.list_pages(PODS, namespace=namespace, fields="status.phase=Running"):
            found += [pod_from_object(item) for item in page.items]
    return [pod for pod in found if not resolved.namespaces.rule(pod.namespace)]


def _iso(moment: datetime | None) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment is not None else ""
