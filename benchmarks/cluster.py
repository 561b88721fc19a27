"""The cluster of the benchmarks: one testbed, filled once, and how a piece of work reaches it."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plain_client
import populate
from content import Made
from measure import Bench

from strongroom.testbed.cluster import Testbed
from strongroom.testbed.options import TestbedOptions


@dataclass
class Cluster:
    """A filled testbed. *paths* are the collections that a backup reads, largest first."""

    testbed: Testbed
    objects: list[Made]
    paths: list[str]

    @property
    def task(self) -> dict[str, Any]:
        """What every piece of work on this cluster needs; the CPU of the named processes is measured beside it."""
        servers = {name: self.testbed.pid(name) for name in ("kube-apiserver", "etcd")}
        return {"kubeconfig": str(self.testbed.kubeconfig), "servers": servers}

    def change(self, objects: Sequence[Made], seed: int) -> None:
        """Change *objects*, and wait until no controller follows."""

        async def work() -> None:
            async with plain_client.connect(self.testbed.kubeconfig, populate.AT_ONCE) as session:
                await populate.change(session, objects, seed)
                await populate.settled(session)

        asyncio.run(work())

    def quieten(self) -> None:
        """Bring the cluster into the state of one that nobody wrote to for five minutes: compacted up to now.

        The API server then has no list of the past in memory, and reads exact lists from etcd.
        """
        self.testbed.compact()


@contextlib.contextmanager
def filled(bench: Bench) -> Iterator[Cluster]:
    """Start a testbed without volumes and fill it."""
    # Compaction comes when a measurement asks for it, not in the middle of one. "0" would also end the API server's
    # looking for the compactions of others, which `quieten` needs.
    testbed = Testbed.up(bench.folder / "testbed", TestbedOptions(volumes=False, etcd_compaction_interval="24h"))
    try:
        bench.say("filling the cluster")
        objects = asyncio.run(_fill(testbed.kubeconfig, bench.namespaces))
        yield Cluster(testbed, objects, [])
    finally:
        testbed.down()


async def _fill(kubeconfig: Path, namespaces: int) -> list[Made]:
    async with plain_client.connect(kubeconfig, populate.AT_ONCE) as session:
        return await populate.populate(session, namespaces)
