"""What every run works with: the cluster, the extension's keys, and the storage locations with their credentials."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.config import ClusterAccess
from strongroom.dataplane.kube.errors import KubeServerError, KubeTooManyRequests, KubeUnreachable
from strongroom.dataplane.kube.transport import RetryPolicy
from strongroom.dataplane.objectstore.location import AzureLocation, GcsLocation, S3Location, parse_location
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.repository.errors import WrongKey
from strongroom.dataplane.repository.model import PointId
from strongroom.dataplane.repository.repository import Repository
from strongroom.errors import UsageError
from strongroom.extension.api.documents import BackupStorageLocation, StorageLocationSpec
from strongroom.extension.keys import ExtensionKeys

AWAY: Final = (KubeUnreachable, KubeServerError, KubeTooManyRequests)
"""How an API server says, or does not say, that the same request may succeed later."""
# Between attempts at a run that an API server which is away broke off; each has the retries of its own requests before.
# One that restarts is back in a minute. A watching extension is without its lease after 90 s and begins anew when the
# server is back: so it never tells of a failure for an outage alone.
OUTAGE_PAUSES_SECONDS: Final = (5.0, *(10.0,) * 10)


class UnknownLocation(UsageError):
    """A document names a storage location that the extension was not told of."""


class Job(NamedTuple):
    """Which document made a recovery point: its name, and its uid if it had one."""

    name: str
    uid: str

    def is_that_of(self, other: "Job") -> bool:
        """Say whether both are one document. A control plane's job has no uid here, and its name alone counts."""
        return self.name == other.name and (self.uid == other.uid or not (self.uid and other.uid))


@dataclass
class _Located:
    spec: StorageLocationSpec
    credentials: dict[str, str] | None = field(repr=False)


class RunContext:
    """The cluster and the storage locations of one extension. Connections are made anew for each run."""

    def __init__(self, access: ClusterAccess, keys: ExtensionKeys, namespace: str) -> None:
        self.keys = keys
        self.namespace = namespace
        self._access = access
        self.jobs: dict[PointId, Job] = {}
        """The job of each of our own recovery points that was looked at: a manifest never changes."""
        self.live_freezes: set[str] = set()
        """The names of the intents to freeze whose runs are under way in this process."""
        self.thawing = asyncio.Lock()
        """Held while what killed backups left frozen is thawed."""
        self._locations: dict[str, _Located] = {}
        self.still_ours: Callable[[], Awaitable[None]] | None = None
        """Awaited before a recovery point is committed: returns while no other process may be at the same work."""
        self.refresh: Callable[[str], Awaitable[None]] | None = None
        """Called with a location's name before it is opened: whoever knows more of it says so by `locate`."""

    def locate(self, location: BackupStorageLocation, credentials: Mapping[str, str] | None) -> None:
        """Take a storage location, or a new version of one. Runs that have it open see new credentials too."""
        known = self._locations.get(location.name)
        if known is not None and known.credentials and credentials and known.spec.url == location.spec.url:
            # The same mapping: an open store reads it again before a short-lived credential ends. It does so at any
            # time, and so never finds it empty.
            known.credentials.update(credentials)
            for stale in set(known.credentials) - set(credentials):
                del known.credentials[stale]
            known.spec = location.spec
            return
        self._locations[location.name] = _Located(location.spec, dict(credentials) if credentials else None)

    def forget(self, name: str) -> None:
        """Forget a storage location; what runs with it goes on."""
        self._locations.pop(name, None)

    def knows(self, name: str) -> bool:
        """Say whether there is a storage location *name*."""
        return name in self._locations

    def connect(self, retry: RetryPolicy | None = None) -> KubeApi:
        """Return a connection to the cluster, to be entered."""
        return KubeApi(self._access, retry=retry, user_agent="strongroom-extension")

    @asynccontextmanager
    async def repository(self, name: str) -> AsyncIterator[Repository]:
        """Open the repository of the storage location *name*.

        Raises `UnknownLocation`, and what `refresh`, `open_store` and `Repository.open` raise: `WrongKey` where the
        repository's root is not the one that the location pins.
        """
        if self.refresh is not None:
            await self.refresh(name)
        located = self._locations.get(name)
        if located is None:
            raise UnknownLocation(f"there is no BackupStorageLocation {name!r}", hint="Make it before what names it")
        store = await open_store(_url(located.spec), credentials=located.credentials)
        try:
            repository = await Repository.open(store, self.keys.for_root(located.spec.root_public))
            wanted = located.spec.repository_id
            if wanted and repository.info.id != wanted:
                raise WrongKey(f"{store.url} holds the repository {repository.info.id}, not {wanted}")
            yield repository
        finally:
            await store.close()


def _url(spec: StorageLocationSpec) -> str:
    location = parse_location(spec.url)
    if spec.cluster_endpoint and isinstance(location, AzureLocation | S3Location | GcsLocation):
        return replace(location, endpoint=spec.cluster_endpoint).url
    return spec.url
