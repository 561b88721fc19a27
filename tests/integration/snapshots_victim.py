"""Processes that take volume snapshots, sweep or delete, and are killed just before their n-th write. Not a test.

Reads orders from standard input, one JSON document a line, forks a process for each (the imports take longer than the
work) and answers with its exit status, negative for a signal. An order names what to do (`release`, `abandon`, `sweep`
or `delete`), the write before which to die, and whose volumes. A write is a request that changes the cluster, or the
commit: a file with what the manifest would say of the volumes.
"""

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import discover
from strongroom.dataplane.kube.transport import Call
from strongroom.dataplane.repository.model import VolumeEntry
from strongroom.dataplane.snapshots.claims import claim_from_object, volume_from_object
from strongroom.dataplane.snapshots.delete import delete_snapshots
from strongroom.dataplane.snapshots.session import SnapshotSession
from strongroom.dataplane.snapshots.sweep import sweep_orphans


class Fate:
    """Counts writes, and kills this very process before the one that is named."""

    def __init__(self, before: int) -> None:
        self.before = before
        self.writes = 0

    def write(self) -> None:
        self.writes += 1
        if self.writes == self.before:
            os.kill(os.getpid(), signal.SIGKILL)


def doom(api: KubeApi, fate: Fate) -> None:
    """Let *fate* strike at the door of the transport: every request goes through it."""
    request = api._transport.request

    async def counted(call: Call) -> bytes:
        if call.method != "GET":
            fate.write()
        return await request(call)

    api._transport.request = counted  # type: ignore[method-assign]


async def items(api: KubeApi, path: str) -> list[bytes]:
    answer = json.loads(await api.get_path(path))
    return [msgspec.json.encode(item) for item in answer["items"]]


async def main(order: dict[str, Any]) -> None:
    fate = Fate(order["before"])
    async with KubeApi.from_kubeconfig(Path(order["kubeconfig"])) as api:
        discovery = await discover(api)
        doom(api, fate)
        if order["do"] == "sweep":
            later = datetime.now(UTC) + timedelta(hours=1)
            handles = set(order["handles"])
            await sweep_orphans(api, discovery, set(), later, handles, repository_id=order["repository"])
            return
        if order["do"] == "delete":
            await delete_snapshots(api, discovery, msgspec.convert(order["volumes"], list[VolumeEntry]))
            return
        path = f"/api/v1/namespaces/{order['namespace']}/persistentvolumeclaims"
        claims = [claim_from_object(item) for item in await items(api, path)]
        volumes = [volume_from_object(item) for item in await items(api, "/api/v1/persistentvolumes")]
        session = await SnapshotSession.start(
            api,
            discovery,
            order["run"],
            claims,
            {volume.name: volume for volume in volumes},
            {},
            repository_id=order["repository"],
        )
        await session.cut()
        taken = datetime.now(UTC)
        await session.ready()
        entries, _ = session.entries({claim.uid: claim for claim in claims}, taken)
        if order["do"] == "abandon":
            await session.abandon(no_manifest=True)
            return
        fate.write()
        Path(order["manifest"]).write_bytes(msgspec.json.encode(entries))
        await session.release()


for line in sys.stdin:
    child = os.fork()
    if not child:
        status = 1
        try:
            asyncio.run(main(json.loads(line)))
            status = 0
        finally:
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
