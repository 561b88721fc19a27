"""The intent to freeze: what has to run so that applications go on, written down before any of them stands still.

It is a ConfigMap `freeze-<run>` in our namespace. Written before the first pre hook and removed after the last post
hook, it survives a kill in between: whoever starts next thaws every one that has no live run (design: section 5, step
2). What it holds may so be run twice.
"""

import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from strongroom.dataplane.hooks.commands import End, Outcome, carry_out
from strongroom.dataplane.hooks.select import Pod, Task
from strongroom.dataplane.hooks.spec import Command
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeAlreadyExists, KubeError, KubeNotFound
from strongroom.dataplane.kube.kinds import Kind

log = logging.getLogger(__name__)

LABEL: Final = "strongroom.dev/intent"
FREEZE: Final = "freeze"
FIELD_MANAGER: Final = "strongroom"
_KEY: Final = "intent.json"
_CONFIG_MAPS: Final = Kind("", "v1", "ConfigMap", "configmaps", namespaced=True, verbs=frozenset(("list",)))


class _Post(msgspec.Struct, frozen=True, rename="camel"):
    hook: str
    namespace: str
    pod: str
    uid: str
    container: str
    command: tuple[str, ...]
    timeout_seconds: float


class _Written(msgspec.Struct, frozen=True):
    run: str
    post: tuple[_Post, ...]


class _Meta(msgspec.Struct, frozen=True):
    name: str


class _ConfigMap(msgspec.Struct, frozen=True):
    metadata: _Meta
    data: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """An intent that was found: its ConfigMap's name, and what to run. Its pods are known by name alone."""

    name: str
    post: tuple[Task, ...]


def intent_name(run: str) -> str:
    """Return the name of the ConfigMap of *run*."""
    return f"{FREEZE}-{run}"


async def write_intent(api: KubeApi, namespace: str, run: str, post: Sequence[Task]) -> None:
    """Write down what is to thaw. Raises a `KubeError`; then nothing may be frozen."""
    written = _Written(
        run,
        tuple(
            _Post(
                hook=task.hook,
                namespace=task.pod.namespace,
                pod=task.pod.name,
                uid=task.pod.uid,
                container=task.container,
                command=task.command.command,
                timeout_seconds=task.command.timeout_s,
            )
            for task in post
        ),
    )
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": intent_name(run),
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "strongroom", LABEL: FREEZE},
        },
        "data": {_KEY: msgspec.json.encode(written).decode()},
    }
    try:
        await api.create(_CONFIG_MAPS, document, namespace, field_manager=FIELD_MANAGER)
    except KubeAlreadyExists as error:
        if not error.after_retry:  # a run's id is random, so nobody else has made it
            raise


async def remove_intent(api: KubeApi, namespace: str, name: str) -> None:
    """Remove an intent; one that is gone is no error. Raises a `KubeError`."""
    try:
        await api.delete(_CONFIG_MAPS, name, namespace)
    except KubeNotFound:
        return


async def list_intents(api: KubeApi, namespace: str) -> tuple[Intent, ...]:
    """Return the intents that there are. One that cannot be read is logged and left out. Raises a `KubeError`."""
    found = []
    async for page in api.list_pages(_CONFIG_MAPS, namespace=namespace, labels=f"{LABEL}={FREEZE}"):
        for item in page.items:
            document = msgspec.json.decode(item, type=_ConfigMap)
            name = document.metadata.name
            try:
                written = msgspec.json.decode((document.data or {}).get(_KEY, ""), type=_Written)
            except msgspec.DecodeError as error:
                log.error("an intent to freeze cannot be read", extra={"intent": name, "reason": str(error)})
                continue
            found.append(Intent(name, tuple(_task(one) for one in written.post)))
    return tuple(found)


async def thaw_leftovers(api: KubeApi, namespace: str, live: Container[str]) -> tuple[str, ...]:
    """Thaw what killed runs left frozen; return in words what is still to be tried again.

    *live* are the names of the intents whose runs are under way. What an intent says is run whether it was run before
    or not. It is removed once each command was carried out, whatever its exit code, or its pod or container is gone.
    Raises a `KubeError` where the intents cannot be listed.
    """
    left: list[str] = []
    for intent in await list_intents(api, namespace):
        if intent.name not in live:
            left += await _thaw(api, namespace, intent)
    return tuple(left)


async def _thaw(api: KubeApi, namespace: str, intent: Intent) -> list[str]:
    left = []
    for task in intent.post:
        outcome = await carry_out(api, task, task.command.timeout_s)
        log.warning(
            "a pod that a killed backup left frozen was thawed"
            if outcome.end is End.DONE
            else "a post hook of a killed backup did not succeed",
            extra={"intent": intent.name, "pod": task.pod.key, "hook": task.hook, "reason": outcome.reason},
        )
        if outcome.end is End.NOT_RUN:
            left.append(outcome.message)
    if not left:
        try:
            await remove_intent(api, namespace, intent.name)
        except KubeError as error:
            left.append(f"the intent {intent.name} could not be removed: {error.message}")
    return left


def undone(outcomes: Sequence[Outcome]) -> bool:
    """Say whether a command of an intent is still to be tried, so that the intent has to stay."""
    return any(outcome.end is End.NOT_RUN for outcome in outcomes)


def _task(one: _Post) -> Task:
    pod = Pod(one.namespace, one.pod, one.uid, {}, (one.container,))
    return Task(one.hook, pod, one.container, Command(one.command, one.container, timeout_s=one.timeout_seconds))
