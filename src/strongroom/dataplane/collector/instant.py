"""Chooses the instant X of a backup and finds out which kinds can be read exactly at it.

X is the revision of a quorum-read list. Kinds that are kept in one etcd share its revision counter. A kind in an etcd
of its own answers an exact list with some past state and without an error, so every kind is tested before it is read at
X (design: section 5, step 3; tried on a real API server with --etcd-servers-overrides).
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from strongroom.dataplane.collector.metadata import Meta, MetaPage, list_metadata
from strongroom.dataplane.collector.reading import denial
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import (
    KubeBadRequest,
    KubeError,
    KubeForbidden,
    KubeNotFound,
    KubeProtocolError,
    KubeServerError,
    KubeTooManyRequests,
)
from strongroom.dataplane.kube.kinds import Kind

LIST: Final = frozenset(("list",))
NAMESPACES: Final = Kind("", "v1", "Namespace", "namespaces", namespaced=False, verbs=LIST)
PODS: Final = Kind("", "v1", "Pod", "pods", namespaced=True, verbs=LIST)
CONFIG_MAPS: Final = Kind("", "v1", "ConfigMap", "configmaps", namespaced=True, verbs=LIST)

INSTANTS_AT_MOST: Final = 3  # design: section 5, step 4: each costs a pass over all metadata, and etcd gives 5 minutes

PROBE_ITEMS: Final = 50  # costs the server 0.5 ms of a large kind, and saves a request for each small one
PROBES_AT_ONCE: Final = 6
"""Each first use of a connection costs two handshakes (measured: 9 ms beside a busy server), a test 1.5 ms: with 16
at once a small backup spent half of its time on connections."""

KIND_ERRORS: Final = (
    KubeForbidden,
    KubeNotFound,
    KubeBadRequest,
    KubeServerError,
    KubeProtocolError,
    KubeTooManyRequests,
)
"""Errors that concern one kind: it is `failed`, the others are still saved. All else ends the run."""


@dataclass(frozen=True, slots=True)
class Instant:
    """X, and when by our clock it was taken: between the request and its answer, so *taken* is good to that span.

    *namespaces* are all namespaces at X by name, None where they may not be listed.
    """

    revision: str
    taken: datetime
    attempt: int = 1
    namespaces: Mapping[str, Meta] | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """What a kind's test showed: `shared`, or why it cannot be read at X.

    *failed* is the server's reason where the kind cannot be read at all. *namespaces* is set where only these may be
    listed, with a reason for each of *denied*. *count* is how many objects there were, None where the server does not
    count them; *metas* all of them where they are few.
    """

    shared: bool
    revision: str = ""
    failed: str = ""
    namespaces: tuple[str, ...] | None = None
    denied: Mapping[str, str] | None = None
    count: int | None = None
    metas: tuple[Meta, ...] | None = None

    def at(self, instant: Instant) -> tuple[Meta, ...] | None:
        """Return the metadata of all objects at X if the test was answered at X itself and they are few."""
        return self.metas if self.shared and self.revision == instant.revision else None


async def take_instant(api: KubeApi, named: Sequence[str] | None, attempt: int = 1) -> Instant:
    """Take X now: after this every write has a revision above it. *named* as for `core_revision`.

    X is the revision of the list of namespaces, which is needed at X anyway. Raises `KubeExpired` where that list is so
    long that X expires meanwhile.
    """
    namespaces: dict[str, Meta] = {}
    revision, taken = "", datetime.now(UTC)
    try:
        async with aclosing(list_metadata(api, NAMESPACES)) as pages:
            async for page in pages:
                if not revision:
                    revision, taken = page.revision, datetime.now(UTC)
                namespaces |= {meta.name: meta for meta in page.metas}
    except KubeForbidden:
        revision = await core_revision(api, named)
        return Instant(revision, datetime.now(UTC), attempt)
    return Instant(revision, taken, attempt, namespaces)


async def core_revision(api: KubeApi, named: Sequence[str] | None) -> str:
    """Return the revision of the core etcd now.

    Namespaces are read; who may not list them but names namespaces (*named*) reads the pods of the first instead.
    """
    try:
        return await _revision(api, NAMESPACES, None)
    except KubeForbidden:
        if not named:
            raise
        return await _revision(api, PODS, named[0])


async def probe_kinds(
    api: KubeApi, kinds: Iterable[Kind], instant: Instant, named: Sequence[str] | None
) -> dict[Kind, Probe]:
    """Test for each kind whether it shares the core etcd, and whether it may be listed.

    A newest list of each must be at a revision between X and a core reading taken afterwards. *named* are namespaces
    given by name: where a kind may not be listed in the whole cluster, it is tried in each of these.
    """

    gate = asyncio.Semaphore(PROBES_AT_ONCE)

    async def probe(kind: Kind) -> Probe:
        async with gate:
            return await probe_now(kind)

    async def probe_now(kind: Kind) -> Probe:
        try:
            page = await _first_page(api, kind, None, PROBE_ITEMS)
            count = len(page.metas) + (page.remaining or 0) if page.remaining or not page.continue_token else None
            return Probe(False, page.revision, count=count, metas=None if page.continue_token else tuple(page.metas))
        except KubeForbidden as error:
            if not named or not kind.namespaced:
                return Probe(False, failed=denial(error, kind))
            return await _probe_namespaces(api, kind, named)
        except KIND_ERRORS as error:
            return Probe(False, failed=reason(error))

    listed = list(kinds)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(probe(kind)) for kind in listed]
    after = await core_revision(api, named)
    probes: dict[Kind, Probe] = {}
    for kind, task in zip(listed, tasks, strict=True):
        found = task.result()
        shared = not found.failed and between(instant.revision, found.revision, after)
        probes[kind] = replace(found, shared=shared)
    return probes


def between(first: str, revision: str, last: str) -> bool:
    """Say whether *revision* lies in [*first*, *last*]; one that is no number (an aggregated API's) never does."""
    try:
        return int(first) <= int(revision) <= int(last)
    except ValueError:
        return False


def reason(error: KubeError) -> str:
    """Return what the coverage report says of a kind that failed: the server's words."""
    return error.message


async def _probe_namespaces(api: KubeApi, kind: Kind, named: Sequence[str]) -> Probe:
    denied: dict[str, str] = {}
    revision = ""
    for namespace in named:
        try:
            revision = await _revision(api, kind, namespace)
        except KIND_ERRORS as error:
            denied[namespace] = denial(error, kind) if isinstance(error, KubeForbidden) else reason(error)
    if len(denied) == len(named):
        return Probe(False, failed=next(iter(denied.values())))
    return Probe(False, revision, "", tuple(name for name in named if name not in denied), denied)


async def _revision(api: KubeApi, kind: Kind, namespace: str | None) -> str:
    return (await _first_page(api, kind, namespace, 1)).revision


async def _first_page(api: KubeApi, kind: Kind, namespace: str | None, items: int) -> MetaPage:
    async with aclosing(list_metadata(api, kind, namespace=namespace, first=items)) as pages:
        async for page in pages:
            return page
    raise KubeProtocolError(f"a list of {kind.resource} gave no page", verb="list", resource=kind.resource)
