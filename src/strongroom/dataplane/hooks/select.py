"""Decides which commands run in which containers. Pure: takes hooks, pods, and which namespaces and claims count."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from strongroom.dataplane.hooks.spec import Command, Hook

RUNNING: Final = "Running"


class _Meta(msgspec.Struct, frozen=True):
    name: str
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None


class _Container(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    restart_policy: str = ""


class _ClaimSource(msgspec.Struct, frozen=True, rename="camel"):
    claim_name: str = ""


class _Volume(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    persistent_volume_claim: _ClaimSource | None = None
    ephemeral: dict[str, msgspec.Raw] | None = None


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    containers: list[_Container] = []
    init_containers: list[_Container] | None = None
    volumes: list[_Volume] | None = None


class _State(msgspec.Struct, frozen=True):
    running: dict[str, msgspec.Raw] | None = None


class _ContainerStatus(msgspec.Struct, frozen=True):
    name: str
    state: _State = _State()


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    phase: str = ""
    container_statuses: list[_ContainerStatus] | None = None
    init_container_statuses: list[_ContainerStatus] | None = None


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _Spec = _Spec()
    status: _Status = _Status()


_decode_pod = msgspec.json.Decoder(_Pod).decode


@dataclass(frozen=True, slots=True)
class Pod:
    """What hooks have to know of a pod. *containers* are those a command can run in, the first one first.

    *claims* are the names of the claims that it mounts, *running* the containers that run now.
    """

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    containers: tuple[str, ...]
    claims: frozenset[str] = frozenset()
    phase: str = RUNNING
    running: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Task:
    """One command in one container. *container* is "" where the pod has none of the name that the hook gives."""

    hook: str
    pod: Pod
    container: str
    command: Command


@dataclass(frozen=True, slots=True)
class PodTasks:
    """What runs in one pod: *pre* before the snapshots, *post* after them, each in this order."""

    pod: Pod
    pre: tuple[Task, ...]
    post: tuple[Task, ...]


def pod_from_object(raw: bytes | bytearray | memoryview | msgspec.Raw) -> Pod:
    """Return the pod in an object of a list."""
    pod = _decode_pod(raw)
    sidecars = [each.name for each in pod.spec.init_containers or () if each.restart_policy == "Always"]
    claims = set()
    for volume in pod.spec.volumes or ():
        if volume.persistent_volume_claim is not None:
            claims.add(volume.persistent_volume_claim.claim_name)
        elif volume.ephemeral is not None:
            claims.add(f"{pod.metadata.name}-{volume.name}")  # how Kubernetes names the claim that it makes
    statuses = [*(pod.status.container_statuses or ()), *(pod.status.init_container_statuses or ())]
    return Pod(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        uid=pod.metadata.uid,
        labels=pod.metadata.labels or {},
        containers=(*(each.name for each in pod.spec.containers), *sidecars),
        claims=frozenset(claims),
        phase=pod.status.phase,
        running=frozenset(each.name for each in statuses if each.state.running is not None),
    )


def tasks_for(
    hooks: Sequence[Hook], pods: Iterable[Pod], selected: Callable[[Pod], bool], claims: Container[tuple[str, str]]
) -> tuple[PodTasks, ...]:
    """Return what is to run in which of the running *pods*, in the order of pods and of hooks.

    A pod counts that the backup takes (*selected*), or that mounts one of *claims* (namespace, name), whose volumes
    are about to be cut.
    """
    found = []
    for pod in pods:
        if pod.phase != RUNNING:
            continue
        if not (selected(pod) or any((pod.namespace, claim) in claims for claim in pod.claims)):
            continue
        picking = [hook for hook in hooks if hook.picks(pod.namespace, pod.labels)]
        pre = tuple(task(hook, pod, command) for hook in picking for command in hook.pre)
        post = tuple(task(hook, pod, command) for hook in picking for command in hook.post)
        if pre or post:
            found.append(PodTasks(pod, pre, post))
    return tuple(found)


def task(hook: Hook, pod: Pod, command: Command) -> Task:
    """Return *command* for the container that it names, without a name for the pod's first."""
    wanted = command.container or (pod.containers[0] if pod.containers else "")
    return Task(str(hook), pod, wanted if wanted in pod.containers else "", command)


def consistent_claims(
    pods: Iterable[Pod], frozen: Container[str], cut: Iterable[tuple[str, str, str]]
) -> frozenset[str]:
    """Return the uids of the claims whose volumes were cut while all that write to them stood still.

    *cut* are the claims (namespace, name, uid) that were cut before the thaw began, *frozen* the uids of the pods
    whose pre hooks all succeeded. A claim that no running pod mounts, or one that is not frozen too, is not among them.
    """
    users: dict[tuple[str, str], list[bool]] = {}
    for pod in pods:
        if pod.phase == RUNNING:
            for claim in pod.claims:
                users.setdefault((pod.namespace, claim), []).append(pod.uid in frozen)
    return frozenset(uid for namespace, name, uid in cut if (found := users.get((namespace, name))) and all(found))
