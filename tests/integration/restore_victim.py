"""A process that carries out a restore plan and is killed just before its n-th write. Not a test.

Usage: restore_victim.py JSON. A write is a request that changes the cluster or an entry of the restore's journal.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.transport import Call
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.restore import journal
from strongroom.dataplane.restore.execute import execute
from strongroom.dataplane.restore.model import RestorePlan


class Fate:
    """Counts writes. Before the one that is named it kills this very process; *after*: right after it."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at = at
        self.after = after
        self.writes = 0

    def before_write(self) -> int:
        self.writes += 1
        if self.writes == self.at and not self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.writes

    def after_write(self, number: int) -> None:
        if number == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(task: dict[str, Any]) -> None:
    fate = Fate(task["at"], after=task["after"])
    store = await open_store(task["repository"])
    repo = await Repository.open(store, KeyFile.load(Path(task["key"])))
    plan = RestorePlan.from_json(Path(task["plan"]).read_bytes())
    append = journal.write_restore_entry

    async def counted_append(*arguments: Any) -> None:
        number = fate.before_write()
        try:
            await append(*arguments)
        finally:
            fate.after_write(number)

    journal.write_restore_entry = counted_append
    async with KubeApi.from_kubeconfig(Path(task["kubeconfig"])) as api:
        request = api._transport.request

        async def counted_request(call: Call) -> bytes:
            if call.method == "GET":
                return await request(call)
            number = fate.before_write()
            try:
                return await request(call)
            finally:
                fate.after_write(number)

        api._transport.request = counted_request  # type: ignore[method-assign]
        point = await repo.point(plan.point)
        await execute(api, repo, point, plan, restore_id=task["id"], concurrency=4)


asyncio.run(main(json.loads(sys.argv[1])))
