"""Writes statuses to custom resources, and an event for each new phase: the newest alone, not too often, never lost."""

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeAlreadyExists, KubeError, KubeInvalid, KubeNotFound
from strongroom.extension.api.documents import API_VERSION, Kind
from strongroom.extension.api.status import STATUS_TYPES, Failure, Phase, Status, cut, status_json
from strongroom.extension.runs.failures import INTERNAL
from strongroom.extension.runs.feed import now_text
from strongroom.extension.watching.resources import EVENTS, KINDS

log = logging.getLogger(__name__)

PROGRESS_SECONDS: Final = 2.0  # between two statuses of one resource in one phase: each is a write to etcd
AGAIN_SECONDS: Final = 2.0  # after a write that failed, which had its own retries
EVENT_NAME_CHARACTERS: Final = 200  # of a resource's name in that of an event, which has 253 in all
COMPONENT: Final = "strongroom-extension"


@dataclass(frozen=True)
class Told:
    """One status of one resource."""

    kind: Kind
    name: str
    uid: str
    status: Status


@dataclass
class _Pending:
    told: Told
    due: float


class StatusWriter:
    """Keeps the newest status of each resource until it is written, through outages of the API server."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._pending: dict[tuple[Kind, str], _Pending] = {}
        self._written: dict[tuple[Kind, str], tuple[Phase, float]] = {}
        self._wake = asyncio.Event()

    def tell(self, told: Told) -> None:
        """Have a status written; it takes the place of one that was not written yet. Never blocks."""
        key = (told.kind, told.uid)
        now = asyncio.get_running_loop().time()
        phase, at = self._written.get(key, (None, 0.0))
        due = at + PROGRESS_SECONDS if phase is told.status.phase else now
        self._pending[key] = _Pending(told, max(due, now))
        self._wake.set()

    def forget(self, kind: Kind, uid: str) -> None:
        """Write nothing more of a resource that is gone."""
        self._pending.pop((kind, uid), None)
        self._written.pop((kind, uid), None)

    async def run(self) -> None:
        """Write what is due, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            now = loop.time()
            for key in [key for key, each in self._pending.items() if each.due <= now]:
                # It may have been replaced, or its resource deleted, while the one before was written.
                if (pending := self._pending.pop(key, None)) is not None:
                    await self._carry_out(key, pending.told)
            wait = min((each.due for each in self._pending.values()), default=None)
            try:
                async with asyncio.timeout(None if wait is None else max(0.0, wait - loop.time())):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _carry_out(self, key: tuple[Kind, str], told: Told) -> None:
        loop = asyncio.get_running_loop()
        try:
            await write_status(self._api, self._namespace, told.kind, told.name, told.uid, status_json(told.status))
        except KubeNotFound:
            self.forget(*key)
            return
        except KubeInvalid as error:
            await self._refused(told, error)
            return
        except KubeError as error:
            log.warning("status not written yet", extra={"document": told.name, "reason": error.message})
            self._pending.setdefault(key, _Pending(told, loop.time() + AGAIN_SECONDS))
            return
        before, _ = self._written.get(key, (None, 0.0))
        if told.status.phase.final:
            self._written.pop(key, None)
        else:
            self._written[key] = (told.status.phase, loop.time())
        if before is not told.status.phase:
            await self._event(told)

    async def _refused(self, told: Told, error: KubeInvalid) -> None:
        """End a resource whose status the API server does not take: another one has its name, or it is our fault."""
        log.error("status refused", extra={"document": told.name, "reason": error.message})
        if not told.status.phase.final:
            return
        failure = Failure(code=INTERNAL, message=cut(f"the status was refused by the API server: {error.detail}"))
        least = STATUS_TYPES[told.kind](phase=told.status.phase, completion_time=now_text(), error=failure)
        try:
            await write_status(self._api, self._namespace, told.kind, told.name, told.uid, status_json(least))
        except (KubeInvalid, KubeNotFound):
            return  # it is not there any more: `uid` is not that of what has the name now
        except KubeError as again:
            log.error("status lost", extra={"document": told.name, "reason": again.message})

    async def _event(self, told: Told) -> None:
        body = event_of(told, self._namespace, now_text())
        try:
            await self._api.create(EVENTS, body, self._namespace)
        except KubeAlreadyExists:
            return  # told by the process before, or by an attempt whose answer was lost
        except KubeError as error:
            log.warning("event not written", extra={"document": told.name, "reason": error.message})


async def write_status(
    api: KubeApi, namespace: str, kind: Kind, name: str, uid: str, status: Mapping[str, Any]
) -> None:
    """Put *status* in the place of the whole status of one very resource.

    Raises `KubeNotFound`, `KubeInvalid` (also where another resource has the name by now), other `KubeError`s.
    """
    # Without a resourceVersion: only we write statuses, and whoever changes labels meanwhile is no conflict.
    patch = [
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "add", "path": "/status", "value": status},
    ]
    await api.patch(KINDS[kind], name, namespace, patch, "json", subresource="status")


def event_of(told: Told, namespace: str, at: str) -> dict[str, Any]:
    """Return the event that tells a resource's new phase; its name is the same one however often it is told."""
    status = told.status
    digest = hashlib.sha256(f"{told.uid}\0{status.phase}".encode()).hexdigest()[:16]
    good = status.phase not in (Phase.FAILED, Phase.PARTIALLY_FAILED, Phase.CANCELLED)
    message = status.error.message if status.error else _MESSAGES[status.phase]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{told.name[:EVENT_NAME_CHARACTERS].rstrip('.-')}.{digest}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": str(told.kind),
            "name": told.name,
            "namespace": namespace,
            "uid": told.uid,
        },
        "type": "Normal" if good else "Warning",
        "reason": str(status.phase),
        "message": cut(message),
        "source": {"component": COMPONENT},
        "firstTimestamp": _seconds(at),
        "lastTimestamp": _seconds(at),
        "count": 1,
    }


_MESSAGES: Final = {
    Phase.NEW: "taken",
    Phase.IN_PROGRESS: "under way",
    Phase.COMPLETED: "done",
    Phase.PARTIALLY_FAILED: "done, but something that was selected is missing: status.warnings",
    Phase.FAILED: "failed",
    Phase.CANCELLED: "cancelled",
}


def _seconds(text: str) -> str:
    """Return a time without its milliseconds, which events do not take."""
    return f"{text[:19]}Z"
