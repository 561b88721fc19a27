"""Runs commands in the containers that a restore brought up, each as soon as its container runs.

Pods count that the restore created, and those that controllers which it created have made: containers that were there
before are left alone. Killed on its way, the next run begins anew: a command may so be run twice.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

import msgspec

from strongroom.dataplane.hooks.commands import COMMANDS_AT_ONCE, End, Outcome, carry_out
from strongroom.dataplane.hooks.select import Pod, Task, pod_from_object, task
from strongroom.dataplane.hooks.spec import Hook, OnError
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeServerError, KubeTooManyRequests, KubeUnreachable
from strongroom.dataplane.kube.kinds import Kind

POLL_SECONDS: Final = 1.0  # a list of the namespaces' pods: containers take longer than that to start
ENDED: Final = frozenset(("Succeeded", "Failed"))

Restored = tuple[str, str, str, str]
"""Group, kind, namespace and name of an object that the restore created."""

_LIST: Final = frozenset(("list",))
_PODS: Final = Kind("", "v1", "Pod", "pods", namespaced=True, verbs=_LIST)
_REPLICA_SETS: Final = Kind("apps", "v1", "ReplicaSet", "replicasets", namespaced=True, verbs=_LIST)
_CONTROLLERS: Final = {
    ("apps", "Deployment"): Kind("apps", "v1", "Deployment", "deployments", namespaced=True, verbs=_LIST),
    ("apps", "StatefulSet"): Kind("apps", "v1", "StatefulSet", "statefulsets", namespaced=True, verbs=_LIST),
    ("apps", "DaemonSet"): Kind("apps", "v1", "DaemonSet", "daemonsets", namespaced=True, verbs=_LIST),
    ("apps", "ReplicaSet"): _REPLICA_SETS,
}
_PASSING = (KubeUnreachable, KubeServerError, KubeTooManyRequests)


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    labels: dict[str, str] | None = None
    generation: int = 0
    owner_references: list["_Owner"] | None = None


class _Owner(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    name: str
    controller: bool = False


class _Template(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()


class _Spec(msgspec.Struct, frozen=True):
    replicas: int = 1
    template: _Template = _Template()


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    observed_generation: int = 0
    replicas: int = 0
    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0


class _Controller(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()
    spec: _Spec = _Spec()
    status: _Status = _Status()


async def run_restore_hooks(
    api: KubeApi,
    hooks: Sequence[Hook],
    created: Iterable[Restored],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Run *hooks* in what a restore *created*; return what did not succeed.

    Each command waits for its container as long as it says, counted from the call. After one with `onError: Fail` that
    failed, no further one runs in that pod. *progress* takes commands done and known. Raises a `KubeError` where pods
    cannot be listed.
    """
    return await _Restoring(api, hooks, frozenset(created), progress or (lambda done, total: None)).run()


class _Restoring:
    def __init__(
        self, api: KubeApi, hooks: Sequence[Hook], created: frozenset[Restored], progress: Callable[[int, int], None]
    ) -> None:
        self._api = api
        self._hooks = hooks
        self._created = created
        self._progress = progress
        self._began = asyncio.get_running_loop().time()
        self._longest = max((command.wait_s for hook in hooks for command in hook.post), default=0.0)
        self._gate = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self._seen: dict[str, Pod] = {}
        self._news = asyncio.Event()
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._owned: dict[tuple[str, str], bool] = {}
        self._done = 0
        self._known = 0
        self._awaited = {each for each in created if each[:2] in _CONTROLLERS}
        self._failures: list[Outcome] = []

    async def run(self) -> list[Outcome]:
        namespaces = sorted({each[2] for each in self._created if each[2]})
        try:
            while True:
                over = self._elapsed() > self._longest
                try:
                    pods = [pod for namespace in namespaces for pod in await self._pods(namespace)]
                    self._awaited = {each for each in self._awaited if await self._awaits(each)}
                except _PASSING:
                    if over:
                        raise
                else:
                    self._take(pods)
                if all(run.done() for run in self._runs.values()) and (over or not self._awaited):
                    break
                await asyncio.sleep(POLL_SECONDS)
            for run in self._runs.values():
                run.result()
        finally:
            for run in self._runs.values():
                run.cancel()
            await asyncio.gather(*self._runs.values(), return_exceptions=True)
        return self._failures

    def _elapsed(self) -> float:
        return asyncio.get_running_loop().time() - self._began

    def _take(self, pods: Collection[Pod]) -> None:
        """Take note of the new pods as they are now, and begin with those that were not there before."""
        self._seen = {pod.uid: pod for pod in pods}
        for pod in pods:
            if pod.uid in self._runs or pod.phase in ENDED:
                continue
            tasks = [
                task(hook, pod, each)
                for hook in self._hooks
                if hook.picks(pod.namespace, pod.labels)
                for each in hook.post
            ]
            if tasks:
                self._known += len(tasks)
                self._runs[pod.uid] = asyncio.create_task(self._in_pod(tasks), name=f"hooks in {pod.key}")
        self._news.set()
        self._news = asyncio.Event()

    async def _in_pod(self, tasks: Sequence[Task]) -> None:
        for one in tasks:
            outcome = await self._in_container(one)
            self._done += 1
            self._progress(self._done, self._known)
            if outcome.end is not End.DONE:
                self._failures.append(outcome)
                if one.command.on_error is OnError.FAIL:
                    return

    async def _in_container(self, one: Task) -> Outcome:
        while one.container:
            news = self._news
            pod = self._seen.get(one.pod.uid)
            if pod is None or pod.phase in ENDED:
                return Outcome(one, End.GONE, "the pod ended before it could be run")
            if one.container in pod.running:
                break
            if self._elapsed() > one.command.wait_s:
                reason = f"its container did not run within {one.command.wait_s:g} s"
                return Outcome(one, End.FAILED, reason, "Look at the pod's events, or give a longer waitTimeout")
            await news.wait()
        async with self._gate:
            return await carry_out(self._api, one, one.command.timeout_s)

    async def _pods(self, namespace: str) -> list[Pod]:
        """Return the pods of *namespace* that the restore brought about."""
        found = []
        async for page in self._api.list_pages(_PODS, namespace=namespace):
            for item in page.items:
                pod = pod_from_object(item)
                owner = msgspec.json.decode(item, type=_Controller).metadata.owner_references
                if ("", "Pod", namespace, pod.name) in self._created or await self._is_new(namespace, owner):
                    found.append(pod)
        return found

    async def _is_new(self, namespace: str, owners: Sequence[_Owner] | None) -> bool:
        """Say whether what has these owners is made by something that the restore created."""
        owner = next((each for each in owners or () if each.controller), None)
        if owner is None:
            return False
        group = owner.api_version.rpartition("/")[0]
        if (group, owner.kind, namespace, owner.name) in self._created:
            return True
        if (group, owner.kind) != ("apps", "ReplicaSet"):
            return False
        key = (namespace, owner.name)
        if key not in self._owned:
            raw = await self._api.get_at(_REPLICA_SETS, owner.name, namespace)
            above = msgspec.json.decode(raw, type=_Controller).metadata.owner_references if raw is not None else None
            self._owned[key] = await self._is_new(namespace, above)
        return self._owned[key]

    async def _awaits(self, restored: Restored) -> bool:
        """Say whether a controller has still to make pods that a hook may pick."""
        group, kind, namespace, name = restored
        raw = await self._api.get_at(_CONTROLLERS[group, kind], name, namespace)
        if raw is None:
            return False
        found = msgspec.json.decode(raw, type=_Controller)
        labels = found.spec.template.metadata.labels or {}
        if not any(hook.picks(namespace, labels) for hook in self._hooks):
            return False
        status = found.status
        if status.observed_generation < found.metadata.generation:
            return True
        if kind == "DaemonSet":
            return status.current_number_scheduled < status.desired_number_scheduled
        return status.replicas < found.spec.replicas


def any_was_to_succeed(outcomes: Iterable[Outcome]) -> bool:
    """Say whether one of these failures has `onError: Fail`."""
    return any(each.task.command.on_error is OnError.FAIL for each in outcomes)
