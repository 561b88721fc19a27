"""Finds the hooks that a document refers to, checks that they can run, and thaws what killed backups left frozen."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from strongroom.dataplane.collector.quiet import choose, running_pods
from strongroom.dataplane.collector.selection import Resolved
from strongroom.dataplane.hooks.errors import HookInvalid, HookMissing
from strongroom.dataplane.hooks.freezing import BackupHooks
from strongroom.dataplane.hooks.intent import thaw_leftovers
from strongroom.dataplane.hooks.spec import BACKUP_HOOKS, RESTORE_HOOKS, Hook, read_backup_hook, read_restore_hook
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeError, KubeNotFound
from strongroom.dataplane.kube.kinds import Kind
from strongroom.errors import StrongroomError
from strongroom.extension.api.documents import NamespacedName
from strongroom.extension.api.status import Failure
from strongroom.extension.runs.context import RunContext
from strongroom.extension.runs.failures import failure_of

log = logging.getLogger(__name__)

CANNOT_EXEC: Final = "UserErrorExtensionMissingPermissionsOnCluster"
"""Ours: Azure's extension is cluster-admin."""
# Between two tries to thaw what a killed backup left: applications stand still meanwhile.
THAW_AGAIN_SECONDS: Final = (1.0, 5.0, 15.0, 60.0)

_REVIEWS: Final = Kind(
    "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", False, frozenset(("create",))
)
_Read = Callable[[bytes | Mapping[str, Any], str], tuple[Hook, ...]]


async def backup_hooks(
    api: KubeApi, references: Sequence[NamespacedName] | None
) -> tuple[tuple[Hook, ...], list[Failure]]:
    """Return the hooks that a selection refers to, and what is wrong with the references, all of it."""
    return await _find(api, BACKUP_HOOKS, read_backup_hook, references, "spec.selection.backupHookReferences")


async def restore_hooks(
    api: KubeApi, references: Sequence[NamespacedName] | None
) -> tuple[tuple[Hook, ...], list[Failure]]:
    """Return the hooks that restore criteria refer to; as `backup_hooks`."""
    return await _find(api, RESTORE_HOOKS, read_restore_hook, references, "spec.criteria.restoreHookReferences")


async def check_backup_hooks(api: KubeApi, hooks: tuple[Hook, ...], resolved: Resolved) -> list[Failure]:
    """Return each namespace in which *hooks* would run now and the extension may not run commands."""
    named = resolved.namespaces.names
    pods = await running_pods(api, named, resolved)
    tasks = choose(BackupHooks(hooks, ""), pods, resolved, None)
    return [
        Failure(
            code=CANNOT_EXEC,
            message=f"the extension may not run commands in pods of the namespace {namespace}, as the hooks ask",
            recommended_action=(
                f"Add {namespace} to the extension's configuration setting configuration.hookNamespaces",
            ),
            target="spec.selection.backupHookReferences",
        )
        for namespace in sorted({one.pod.namespace for one in tasks})
        if not await _may_exec(api, namespace)
    ]


async def thaw(context: RunContext, api: KubeApi) -> tuple[str, ...]:
    """Thaw what killed backups left frozen; return in words what is still to be tried. Raises a `KubeError`."""
    async with context.thawing:
        return await thaw_leftovers(api, context.namespace, context.live_freezes)


class Thawer:
    """Thaws in the background: at the start, and whenever a backup with hooks has ended, until nothing is left."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Look for what is frozen, unless that is under way."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._thaw(), name="thaw leftovers")

    def close(self) -> None:
        """Stop; the next process goes on."""
        if self._task is not None:
            self._task.cancel()

    async def _thaw(self) -> None:
        for pause in _pauses():
            # Not beside a backup that has frozen pods of its own: they may be the same ones. It thaws leftovers first.
            if not self._context.live_freezes:
                try:
                    async with self._context.connect() as api:
                        left = await thaw(self._context, api)
                except KubeError as error:
                    left = (error.message,)
                if not left:
                    return
                log.error("applications may be frozen", extra={"reason": left[0], "left": len(left)})
            await asyncio.sleep(pause)


def _pauses() -> Iterable[float]:
    yield from THAW_AGAIN_SECONDS
    while True:
        yield THAW_AGAIN_SECONDS[-1]


async def _find(
    api: KubeApi, kind: Kind, read: _Read, references: Sequence[NamespacedName] | None, target: str
) -> tuple[tuple[Hook, ...], list[Failure]]:
    hooks: list[Hook] = []
    problems: list[Failure] = []
    for number, reference in enumerate(references or ()):
        try:
            hooks += await _read_one(api, kind, read, reference)
        except StrongroomError as error:
            problems.append(failure_of(error, target=f"{target}[{number}]"))
    return tuple(hooks), problems


async def _read_one(api: KubeApi, kind: Kind, read: _Read, reference: NamespacedName) -> tuple[Hook, ...]:
    source = f"{reference.namespace}/{reference.name}"
    if not reference.namespace:
        raise HookInvalid(
            f"the reference to the {kind.kind} {reference.name!r} has no namespace", hint="Name its namespace"
        )
    try:
        raw = await api.get_at(kind, reference.name, reference.namespace)
    except KubeNotFound:
        raw = None  # the kind itself is not served
    if raw is None:
        raise HookMissing(
            f"there is no {kind.kind} {reference.name!r} in the namespace {reference.namespace}",
            hint=f"Create it, or remove the reference to {source}",
        )
    return read(bytes(raw), source)


class _ReviewStatus(msgspec.Struct, frozen=True):
    allowed: bool = False


class _Review(msgspec.Struct, frozen=True):
    status: _ReviewStatus = _ReviewStatus()


async def _may_exec(api: KubeApi, namespace: str) -> bool:
    for verb in ("get", "create"):  # WebSocket exec is a GET; newer servers ask for create as well
        attributes = {"namespace": namespace, "verb": verb, "resource": "pods", "subresource": "exec"}
        body = {
            "apiVersion": _REVIEWS.api_version,
            "kind": _REVIEWS.kind,
            "spec": {"resourceAttributes": attributes},
        }
        if not msgspec.json.decode(await api.create(_REVIEWS, body), type=_Review).status.allowed:
            return False
    return True
