"""Keeps the storage locations: reads each with its Secret before a job and now and then, and says if it can be used."""

import asyncio
import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from strongroom.dataplane.kube.api import KubeApi, WatchEvent
from strongroom.dataplane.kube.errors import KubeError, KubeInvalid, KubeNotFound, KubeProtocolError
from strongroom.dataplane.objectstore.errors import StoreUnavailable
from strongroom.dataplane.repository.errors import NotTrusted, ReadOnly, WrongKey
from strongroom.errors import StrongroomError, UsageError
from strongroom.extension.api.documents import BackupStorageLocation, DocumentInvalid, Kind
from strongroom.extension.api.status import Availability, Condition, LocationStatus, cut
from strongroom.extension.runs.context import RunContext
from strongroom.extension.runs.failures import INTERNAL
from strongroom.extension.runs.feed import now_text
from strongroom.extension.watching.monitor import OPENED, Monitor
from strongroom.extension.watching.resources import KINDS, SECRETS, document_of, head_of
from strongroom.extension.watching.statuses import write_status

log = logging.getLogger(__name__)

SECRET_PREFIX: Final = "storage-"  # noqa: S105 - of the names of Secrets: `storage-<location>`
CHECK_SECONDS: Final = 240.0  # credentials that live an hour are renewed every 15 minutes: docs/reference/extension.md
FIRST_AGAIN_SECONDS: Final = 1.0  # after a check that failed, twice as long after each further one
OPEN_SECONDS: Final = 60.0  # a store that is slower than that is away
_KIND: Final = KINDS[Kind.BACKUP_STORAGE_LOCATION]


class CredentialsMissing(UsageError):
    """The Secret with a storage location's credentials is not there, or holds none."""


class LocalStoreRefused(UsageError):
    """A custom resource names a folder of the machine that the extension runs on: not the cluster's to name."""


class _Secret(msgspec.Struct, frozen=True):
    data: dict[str, str] | None = None


@dataclass
class _Watched:
    uid: str
    generation: int
    due: float
    failures: int = 0
    written: LocationStatus | None = None


class LocationKeeper:
    """The storage locations of one namespace. With *hosted* folders and the environment's credentials are not used."""

    def __init__(self, api: KubeApi, context: RunContext, monitor: Monitor, *, hosted: bool) -> None:
        self._api = api
        self._context = context
        self._monitor = monitor
        self._hosted = hosted
        self._watched: dict[str, _Watched] = {}
        self._own: set[str] = set()
        self._wake = asyncio.Event()

    def listed(self, objects: Sequence[msgspec.Raw]) -> None:
        """Take all locations that there are."""
        names = {self._see(raw) for raw in objects}
        for name in set(self._watched) - names:
            self._gone(name)

    def changed(self, event: WatchEvent) -> None:
        """Take one change."""
        if event.type == "DELETED":
            self._gone(head_of(event.raw).metadata.name)
        else:
            self._see(event.raw)

    async def refresh(self, name: str) -> None:
        """Read a location and its credentials as they are now, for a job. One that a pipe told of stays as it is.

        Raises `CredentialsMissing`, `LocalStoreRefused`, `DocumentInvalid`, `KubeError`.
        """
        if self._context.knows(name) and name not in self._own:
            return
        try:
            location = document_of(
                Kind.BACKUP_STORAGE_LOCATION, await self._api.get(_KIND, name, self._context.namespace)
            )
        except KubeNotFound:
            self._forget(name)
            return
        assert isinstance(location, BackupStorageLocation)
        local = location.spec.url.startswith("file:")
        if local and self._hosted:
            raise LocalStoreRefused(
                f"the BackupStorageLocation {name} names a folder of the server", hint="Use the server's own API for it"
            )
        credentials = await self._credentials(name)
        if credentials is None and self._hosted:
            raise CredentialsMissing(
                f"there is no Secret {self._context.namespace}/{SECRET_PREFIX}{name} with the store's credentials",
                hint="Make it, with the keys that docs/reference/extension.md lists",
            )
        self._context.locate(location, credentials)
        self._own.add(name)

    async def run(self) -> None:
        """Check what is due, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            now = loop.time()
            due = [name for name, each in self._watched.items() if each.due <= now]
            await asyncio.gather(*(self._check(name) for name in due))
            wait = min((each.due for each in self._watched.values()), default=None)
            try:
                async with asyncio.timeout(None if wait is None else max(0.0, wait - loop.time())):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def close(self) -> None:
        """Forget the locations: the next keeper reads them anew."""
        for name in list(self._own):
            self._forget(name)

    def _see(self, raw: msgspec.Raw) -> str:
        meta = head_of(raw).metadata
        known = self._watched.get(meta.name)
        if known is None or (known.uid, known.generation) != (meta.uid, meta.generation):
            now = asyncio.get_running_loop().time()
            self._watched[meta.name] = _Watched(meta.uid, meta.generation, now)
            self._wake.set()
        return meta.name

    def _gone(self, name: str) -> None:
        self._watched.pop(name, None)
        self._monitor.location_gone(name)
        self._forget(name)

    def _forget(self, name: str) -> None:
        if name in self._own:
            self._own.discard(name)
            self._context.forget(name)

    async def _check(self, name: str) -> None:
        """Try one location, and say what came of it where that is news."""
        watched = self._watched[name]
        keys = self._context.keys
        repository_id, condition = await self._try(name)
        if name in self._watched:
            self._monitor.location(name, condition.reason)
        phase = Availability.AVAILABLE if condition.status == "True" else Availability.UNAVAILABLE
        before = watched.written
        if before is not None and before.phase is phase:
            condition = msgspec.structs.replace(
                condition, last_transition_time=before.conditions[0].last_transition_time
            )
        status = LocationStatus(
            phase=phase,
            recipient=keys.recipient_public,
            writer=base64.b64encode(keys.writer_public).decode(),
            repository_id=repository_id,
            conditions=(condition,),
        )
        watched.failures = 0 if phase is Availability.AVAILABLE else watched.failures + 1
        pause = (
            min(CHECK_SECONDS, FIRST_AGAIN_SECONDS * 2.0 ** (watched.failures - 1))
            if watched.failures
            else CHECK_SECONDS
        )
        if status != before:
            try:
                await write_status(
                    self._api,
                    self._context.namespace,
                    Kind.BACKUP_STORAGE_LOCATION,
                    name,
                    watched.uid,
                    msgspec.to_builtins(status),
                )
                watched.written = status
                log.info("storage location checked", extra={"location": name, "reason": condition.reason})
            except (KubeNotFound, KubeInvalid):
                pass  # deleted meanwhile, and perhaps another one of the name is there: the watch tells
            except KubeError as error:
                log.warning("status not written yet", extra={"document": name, "reason": error.message})
                pause = FIRST_AGAIN_SECONDS
        watched.due = asyncio.get_running_loop().time() + pause

    async def _try(self, name: str) -> tuple[str, Condition]:
        try:
            async with asyncio.timeout(OPEN_SECONDS), self._context.repository(name) as repository:
                repository.require_writer()
                return repository.info.id, _condition(OPENED, "")
        except TimeoutError:
            return "", _condition("StoreUnavailable", f"the store did not answer within {OPEN_SECONDS:.0f} s")
        except (WrongKey, ReadOnly, NotTrusted) as error:
            keys = self._context.keys
            writer = base64.b64encode(keys.writer_public).decode()
            command = f"strongroom repository allow --recipient {keys.recipient_public} --writer {writer}"
            told = f"{error.message}. If it is the right repository, let this extension in: {command}"
            return "", _condition("NotAllowed", cut(told))
        except StrongroomError as error:
            told = f"{error.message}. {error.hint}" if error.hint else error.message
            return "", _condition(_reason(error), cut(told))
        except Exception:
            # One odd location must not stop the work with all others.
            log.exception("location not checked by a fault of ours", extra={"location": name})
            return "", _condition(INTERNAL, "a fault of the extension; its log has the trace")

    async def _credentials(self, name: str) -> dict[str, str] | None:
        try:
            raw = await self._api.get(SECRETS, SECRET_PREFIX + name, self._context.namespace)
        except KubeNotFound:
            return None
        try:
            data = msgspec.json.decode(raw, type=_Secret).data or {}
            return {key: base64.b64decode(value, validate=True).decode("utf-8") for key, value in data.items()}
        except (msgspec.DecodeError, ValueError):
            # Neither the content nor an error that may quote it is repeated.
            raise KubeProtocolError(f"the Secret {SECRET_PREFIX}{name} holds what is no text") from None


def _condition(reason: str, message: str) -> Condition:
    return Condition(
        type="Available",
        status="True" if reason == OPENED else "False",
        reason=reason,
        message=message,
        last_transition_time=now_text(),
    )


def _reason(error: StrongroomError) -> str:
    """Return the reason of the condition: one word, by what is to be done."""
    if isinstance(error, CredentialsMissing | LocalStoreRefused):
        return type(error).__name__
    if isinstance(error, StoreUnavailable):
        return "StoreUnavailable"
    if isinstance(error, DocumentInvalid):
        return "Invalid"
    return type(error).__name__
