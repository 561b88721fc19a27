"""One piece of work in a process of its own, so that its CPU and memory are its own: `work.py NAME JSON`.

It says when it is ready (everything imported), does the work, and prints one JSON object: wall and CPU seconds from
then on, the CPU seconds of the server processes meanwhile, the most memory it ever held, and what the work gave.
"""

import asyncio
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
_TICKS = os.sysconf("SC_CLK_TCK")

Result = dict[str, Any]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of another process, user and system, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_bytes() -> int:
    """Return the most memory this program ever held (VmHWM).

    Not ru_maxrss: Linux counts into that what the parent held when it forked.
    """
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024


class Meter:
    """Measures from `start` to `stop`."""

    def __init__(self, servers: Mapping[str, int]) -> None:
        self._servers = servers

    def start(self) -> None:
        gc.collect()
        self._used = resource.getrusage(resource.RUSAGE_SELF)
        self._server_cpu = {name: cpu_seconds(pid) for name, pid in self._servers.items()}
        self.began = time.monotonic()

    def stop(self) -> Result:
        wall = time.monotonic() - self.began
        used = resource.getrusage(resource.RUSAGE_SELF)
        server = {name: cpu_seconds(pid) - self._server_cpu[name] for name, pid in self._servers.items()}
        cpu = used.ru_utime + used.ru_stime - self._used.ru_utime - self._used.ru_stime
        return {"wall": wall, "cpu": cpu, "server_cpu": server, "peak": peak_bytes()}


async def list_bare(meter: Meter, task: Mapping[str, Any]) -> Result:
    """The floor of a backup: read every page and drop it."""
    import plain_client

    meter.start()
    async with plain_client.connect(Path(task["kubeconfig"]), task["at_once"]) as session:
        listed = await plain_client.list_and_drop(session, task["paths"], at_once=task["at_once"])
        return {**meter.stop(), "bytes": listed.size, "pages": listed.pages}


async def create_bare(meter: Meter, task: Mapping[str, Any]) -> Result:
    """The floor of a restore: the same objects, posted."""
    import content
    import plain_client

    names = [content.namespace_name(number, task["prefix"]) for number in task["numbers"]]
    objects = [
        made
        for number, name in zip(task["numbers"], names, strict=True)
        for made in content.namespace_objects(number, name)
    ]
    meter.start()
    async with plain_client.connect(Path(task["kubeconfig"]), task["at_once"]) as session:
        namespaces = [content.namespace(name) for name in names]
        await plain_client.create_all(session, namespaces, at_once=task["at_once"])
        await plain_client.create_all(session, objects, at_once=task["at_once"])
        return {**meter.stop(), "objects": len(objects) + len(namespaces)}


async def backup(meter: Meter, task: Mapping[str, Any]) -> Result:
    """One backup, by the function that `strongroom point create` calls."""
    from strongroom.dataplane.collector.collect import BackupRequest, collect
    from strongroom.dataplane.kube.api import KubeApi
    from strongroom.dataplane.repository.model import Selection

    selection = Selection(include_namespaces=tuple(task.get("namespaces", ())))
    request = BackupRequest(selection=selection, snapshot_volumes=task.get("volumes", True))
    meter.start()
    repository = await _repository(task)
    async with KubeApi.from_kubeconfig(Path(task["kubeconfig"])) as api:
        done = await collect(api, repository, request)
    measured = meter.stop()
    manifest = done.manifest
    entries = [entry for entry in manifest.kinds if entry.read_as == "exact"]
    return {
        **measured,
        "point": manifest.id,
        "state": manifest.state,
        "objects": manifest.objects,
        "bytes": done.bytes_read,
        "written": repository.store.bytes_written,
        "requests": done.requests,
        "taken_over": manifest.incremental.taken_over,
        "reason": manifest.incremental.reason,
        "kinds": [[entry.group, entry.version, entry.plural, entry.objects] for entry in entries],
    }


async def restore(meter: Meter, task: Mapping[str, Any]) -> Result:
    """Plan and execute a restore of some namespaces under new names."""
    from strongroom.dataplane.kube.api import KubeApi
    from strongroom.dataplane.repository.model import Selection
    from strongroom.dataplane.restore.execute import execute
    from strongroom.dataplane.restore.gather import gather_plan
    from strongroom.dataplane.restore.model import RestoreRequest

    selection = Selection(include_namespaces=tuple(task["map"]))
    request = RestoreRequest(selection=selection, map_namespaces=task["map"])
    meter.start()
    repository = await _repository(task)
    async with KubeApi.from_kubeconfig(Path(task["kubeconfig"])) as api:
        point = await repository.point(task["point"])
        plan = await gather_plan(api, point, request)
        planned = time.monotonic() - meter.began
        before = api.requests
        result = await execute(api, repository, point, plan)
        measured = meter.stop()
        failed = [each.reason for each in result.objects if each.action == "failed"]
        return {
            **measured,
            "plan": planned,
            "calls": api.requests - before,
            "planned_calls": sum(planned.calls for wave in plan.waves for planned in wave.objects),
            "created": result.created,
            "skipped": result.skipped,
            "failed": failed,
        }


async def find(meter: Meter, task: Mapping[str, Any]) -> Result:
    """Read one object of a recovery point, as `strongroom point cat` does."""
    meter.start()
    repository = await _repository(task)
    point = await repository.point("latest")
    row = await point.find(task["group"], task["kind"], task["namespace"], task["name"])
    assert row is not None
    body = await point.served(row)
    return {
        **meter.stop(),
        "bytes": repository.store.bytes_read,
        "requests": repository.store.requests,
        "objects": point.manifest.objects,
        "body": len(body),
    }


async def _repository(task: Mapping[str, Any]) -> Any:
    from strongroom.dataplane.objectstore.opening import open_store
    from strongroom.dataplane.repository.keyfile import KeyFile
    from strongroom.dataplane.repository.repository import Repository

    store = await open_store(task["repository"])
    return await Repository.open(store, KeyFile.load(Path(task["key"])))


WORK: dict[str, Callable[[Meter, Mapping[str, Any]], Awaitable[Result]]] = {
    "list": list_bare, "create": create_bare, "backup": backup, "restore": restore, "find": find
}  # fmt: skip
_NEEDS = {  # what a piece of work imports belongs to the start of the process, not to the work
    "list": ("plain_client",),
    "create": ("plain_client", "content"),
    "backup": ("strongroom.dataplane.collector.collect", "strongroom.dataplane.objectstore.opening"),
    "restore": ("strongroom.dataplane.restore.execute", "strongroom.dataplane.objectstore.opening"),
    "find": ("strongroom.dataplane.repository.repository", "strongroom.dataplane.objectstore.opening"),
}


def main() -> None:
    name, task = sys.argv[1], json.loads(sys.argv[2])
    for module in _NEEDS[name]:
        __import__(module)
    ready = time.monotonic()
    meter = Meter(task.get("servers", {}))
    if profile := os.environ.get("BENCHMARK_PROFILE"):
        import cProfile

        profiler = cProfile.Profile()
        result = profiler.runcall(asyncio.run, WORK[name](meter, task))
        profiler.dump_stats(f"{profile}.{name}.{os.getpid()}")
    else:
        result = asyncio.run(WORK[name](meter, task))
    print(json.dumps({"ready": ready, **result}))


if __name__ == "__main__":
    main()
