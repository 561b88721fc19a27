"""Follows all objects of one kind: a list, then a watch from there, for ever, through outages and expired revisions."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from strongroom.dataplane.kube.api import KubeApi, WatchEvent
from strongroom.dataplane.kube.errors import KubeError, KubeExpired
from strongroom.dataplane.kube.kinds import Kind

log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 300.0  # an API server ends watches after 30 to 60 minutes by itself; this finds dead ones sooner
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 15.0  # after an outage somebody waits for his backup to begin

Listed = Callable[[Sequence[msgspec.Raw]], None]
"""Takes all objects there are: what is not among them is gone."""
Changed = Callable[[WatchEvent], None]
"""Takes one change; no bookmarks."""
Well = Callable[[bool], None]
"""Takes True when all objects are told and the watch begins, False when an outage does."""


class _Version(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class _Versioned(msgspec.Struct, frozen=True):
    metadata: _Version = _Version()


async def follow(api: KubeApi, kind: Kind, namespace: str, listed: Listed, changed: Changed, told: Well) -> None:
    """Tell all objects of *kind* in *namespace*, then each change; after a gap all objects again.

    Never ends. What the API server answers instead is logged once for each outage, and tried again.
    """
    failures = 0
    revision: str | None = None
    while True:
        try:
            if revision is None:
                objects: list[msgspec.Raw] = []
                async for page in api.list_pages(kind, namespace=namespace):
                    objects += page.items
                    revision = page.revision
                listed(objects)
                del objects
            failures = _well(kind, failures)
            told(True)
            assert revision is not None
            async for event in api.watch(kind, namespace=namespace, revision=revision, timeout=WATCH_SECONDS):
                if event.type != "BOOKMARK":
                    changed(event)
                revision = msgspec.json.decode(event.raw, type=_Versioned).metadata.resource_version or revision
        except KubeExpired:
            log.info("list anew: the watched revision is gone", extra={"resource": kind.resource})
            revision = None
            await asyncio.sleep(FIRST_PAUSE_SECONDS)
        except (KubeError, msgspec.DecodeError) as error:
            failures += 1
            if failures == 1:
                log.warning("watch broken off", extra={"resource": kind.resource, "reason": str(error)})
                told(False)
            if not isinstance(error, KubeError):
                revision = None
            await asyncio.sleep(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1)))


def _well(kind: Kind, failures: int) -> int:
    if failures:
        log.info("watching again", extra={"resource": kind.resource, "failures": failures})
    return 0
