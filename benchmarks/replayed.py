"""Measures memory where etcd does not reach: 200,000 objects, and 5,000 Secrets of 1 MB, from a replaying server.

`replayed.py FOLDER NAME` is that server, in a process of its own; it prints a line when it is ready and ends with its
standard input.
"""

import asyncio
import base64
import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import content
from measure import Bench, new_repository, run

from strongroom.testbed.replay import ReplayedKind, namespace_name, object_name, serve

MIB = 1024 * 1024
MANY = 200_000
SECRETS = 5_000
SECRET_BYTES = 1000 * 1000  # of data in base64, near the API server's limit of 1 MiB
POOL = 1024  # texts of 1 KB; an object's 2 KB are two of them: making 200,000 anew would take longer than the backup


def kinds_of(name: str) -> tuple[list[ReplayedKind], int]:
    """Return the kinds and the number of namespaces of the scene *name*."""
    draw = random.Random(name)
    if name == "many":
        pool = [json.dumps(content.settings(draw, 980)).encode() for _ in range(POOL)]

        def config(number: int) -> bytes:
            first, second = pool[number % POOL], pool[number * 7919 // POOL % POOL]
            return b',"data":{"application":%b,"environment":%b,"revision":"%d"}' % (first, second, number)

        def custom(number: int) -> bytes:
            first, second = pool[number % POOL], pool[number * 7919 // POOL % POOL]
            return b',"spec":{"size":%d,"owner":%b,"settings":%b}' % (number, first, second)

        config_maps = ReplayedKind("", "v1", "ConfigMap", "configmaps", 200, 750, config)
        widgets = ReplayedKind(content.GROUP, "v1", "Widget", "widgets", 200, 250, custom, custom=True)
        assert config_maps.count + widgets.count == MANY
        return [config_maps, widgets], 200
    noise = base64.b64encode(draw.randbytes(4 * SECRET_BYTES))

    def secret(number: int) -> bytes:
        at = number * 4096 % (len(noise) - SECRET_BYTES)
        return b',"data":{"archive":"%b"},"type":"Opaque"' % noise[at : at + SECRET_BYTES]

    return [ReplayedKind("", "v1", "Secret", "secrets", 50, SECRETS // 50, secret)], 50


@contextlib.contextmanager
def server(folder: Path, name: str) -> Iterator[Path]:
    """Run the replaying server in a process of its own; yield its kubeconfig."""
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, __file__, str(folder), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("the replaying server did not start")
        yield folder / "kubeconfig"
        process.stdin.close()


def measure_many(bench: Bench) -> None:
    """200,000 objects: memory of a first and of an unchanged backup, and the bytes that one object takes to read."""
    repository = new_repository(bench.folder)
    with server(bench.folder / "many", "many") as kubeconfig:
        task = {"kubeconfig": str(kubeconfig), **repository, "volumes": False}
        first = run("backup", task)
        again = run("backup", task)
    for result, taken_over in ((first, 0), (again, MANY)):
        if result["state"] != "Completed" or result["objects"] < MANY or result["taken_over"] < taken_over:
            raise AssertionError(f"not the whole cluster was backed up: {result}")
    for result, title in ((first, "first"), (again, "unchanged")):
        peak = result["peak"] / MIB
        seconds = f"{result['wall']:.1f} s, {result['cpu'] / result['objects'] * 1e6:.0f} µs CPU per object"
        measured = f"{peak:.0f} MiB ({seconds})"
        bench.row(f"peak memory, {MANY:,} objects, {title} backup", measured, "≤ 300 MiB", peak <= 300)
    kind = kinds_of("many")[0][0]
    for number in (0, kind.count // 2 + 17, kind.count - 1):
        wanted = {"group": "", "kind": "ConfigMap", "namespace": namespace_name(number // kind.each)}
        found = run("find", {**repository, **wanted, "name": object_name(kind, number)})
        read = found["bytes"] / MIB
        measured = f"{read:.2f} MiB in {found['requests']} requests, {found['wall'] * 1000:.0f} ms"
        bench.row(f"one object (number {number:,}) out of {MANY:,}", measured, "≤ 4 MiB", read <= 4)


def measure_secrets(bench: Bench) -> None:
    """5,000 Secrets of 1 MB: memory."""
    with server(bench.folder / "secrets", "secrets") as kubeconfig:
        result = run("backup", {"kubeconfig": str(kubeconfig), **new_repository(bench.folder), "volumes": False})
    if result["state"] != "Completed" or result["objects"] < SECRETS:
        raise AssertionError(f"not the whole cluster was backed up: {result}")
    peak = result["peak"] / MIB
    rate = result["bytes"] / MIB / result["wall"]
    measured = f"{peak:.0f} MiB ({result['wall']:.0f} s, {rate:.0f} MiB/s)"
    bench.row(f"peak memory, {SECRETS:,} Secrets of 1 MB", measured, "≤ 300 MiB", peak <= 300)


async def _serve(folder: Path, name: str) -> None:
    kinds, namespaces = kinds_of(name)
    async with serve(kinds, namespaces, folder):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)  # until the process that started us closes it, or ends


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2]))
