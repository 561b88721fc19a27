"""Measures restores of 2,000 objects beside bare parallel creates of the same objects."""

import asyncio

import aiohttp
import content
import plain_client
from cluster import Cluster
from measure import Bench, Result, median, new_repository, run

NUMBERS = (1, 3, 5, 7)  # namespaces that are restored: 500 objects each, none of them large
AT_ONCE = (8, 16, 32, 64)  # creates in flight that are tried
APPLIED = 200  # ConfigMaps that were applied server-side: their field ownership takes a second call


def measure_restores(bench: Bench, cluster: Cluster) -> None:
    """Rounds of bare creates at their best concurrency and a restore, each into new namespaces."""
    repository = new_repository(bench.folder)
    applied = "bench-applied"
    asyncio.run(_apply(cluster, applied))
    point = run("backup", {**cluster.task, **repository})["point"]
    searched = {
        at_once: run("create", {**cluster.task, "numbers": NUMBERS, "prefix": f"search-{at_once}", "at_once": at_once})
        for at_once in AT_ONCE
    }
    best = max(searched, key=lambda at_once: _rate(searched[at_once], searched[at_once]["objects"]))
    bare: list[Result] = []
    restored: list[Result] = []
    for number in range(min(3, bench.repetitions)):
        bare.append(run("create", {**cluster.task, "numbers": NUMBERS, "prefix": f"bare-{number}", "at_once": best}))
        names = {content.namespace_name(n): f"restored-{number}-{n}" for n in NUMBERS}
        restored.append(run("restore", {**cluster.task, **repository, "point": point, "map": names}))
        bench.say(
            f"    bare {bare[-1]['wall']:.2f} s, restore {restored[-1]['wall']:.2f} s, {restored[-1]['calls']} calls"
        )
    owned = run("restore", {**cluster.task, **repository, "point": point, "map": {applied: "restored-applied"}})
    for result in (*restored, owned):
        expected = bare[0]["objects"] if result is not owned else APPLIED + 1
        if result["failed"] or result["created"] < expected:
            raise AssertionError(f"{result['created']} of {expected} objects were restored: {result['failed'][:3]}")
    floor = median([{"rate": _rate(each, each["objects"])} for each in bare], "rate")
    whole = median([{"rate": _rate(each, each["created"])} for each in restored], "rate")
    executing = median([{"rate": each["created"] / (each["wall"] - each["plan"])} for each in restored], "rate")
    share = whole / floor
    tried = ", ".join(f"{n}: {_rate(each, each['objects']):.0f}" for n, each in searched.items())
    bench.notes.append(f"Bare creates a second by number in flight: {tried}; the floor is {floor:.0f}/s at {best}.")
    measured = (
        f"{share:.0%} of bare creates ({whole:.0f} of {floor:.0f}/s, plan included; {executing / floor:.0%} without)"
    )
    bench.row("restore, rate", measured, "≥ 80 %", share >= 0.8)
    calls = median([{"calls": each["calls"] / each["created"]} for each in restored], "calls")
    bench.row("restore, API calls per object", f"{calls:.3f} (waits and checks included)", "1", calls <= 1.02)
    calls = owned["calls"] / owned["created"]
    bench.row("restore, API calls per object with field ownership put back", f"{calls:.2f}", "2", calls <= 2.05)
    peak = max(each["peak"] for each in restored) / 1024 / 1024
    bench.row("restore, peak memory", f"{peak:.0f} MiB")


def _rate(result: Result, objects: int) -> float:
    return objects / float(result["wall"])


async def _apply(cluster: Cluster, namespace: str) -> None:
    """Make ConfigMaps by server-side apply."""
    async with plain_client.connect(cluster.testbed.kubeconfig, 16) as session:
        await plain_client.create(session, content.namespace(namespace))
        made = [each for each in content.namespace_objects(1, namespace) if each.kind == "ConfigMap"][:APPLIED]
        async with asyncio.TaskGroup() as group:
            for each in made:
                group.create_task(_apply_one(session, each))


async def _apply_one(session: aiohttp.ClientSession, made: content.Made) -> None:
    headers = {"Content-Type": "application/apply-patch+yaml"}
    path = f"{made.path}/{made.name}"
    async with session.patch(path, params={"fieldManager": "deployer"}, data=made.body, headers=headers) as answer:
        said = await answer.read()
        if answer.status not in (200, 201):
            raise plain_client.Refused(f"apply {path}: {answer.status} {said[:300]!r}")
