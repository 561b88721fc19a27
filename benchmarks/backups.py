"""Measures backups of 20,000 objects beside a bare listing of the same bytes."""

from typing import Any

import content
import populate
from cluster import Cluster
from measure import Bench, Result, median, new_repository, ratio, run

KINDS_AT_ONCE = 4  # as strongroom.dataplane.collector.cluster_read: a bare listing with more is no faster on two cores
MIB = 1024 * 1024
SERVER = ("server_cpu", "kube-apiserver")


def collections_of(backup: Result) -> list[str]:
    """Return the paths of the collections that a backup read, in its order."""
    kinds = sorted(backup["kinds"], key=lambda kind: -kind[3])
    return [f"/apis/{group}/{version}/{plural}" if group else f"/api/{version}/{plural}"
            for group, version, plural, _ in kinds]  # fmt: skip


def floor(cluster: Cluster, paths: list[str]) -> Result:
    """List *paths* and drop what comes."""
    return run("list", {**cluster.task, "paths": paths, "at_once": KINDS_AT_ONCE})


def measure_backups(bench: Bench, cluster: Cluster) -> None:
    """Rounds of: listing, first backup; listing, unchanged; listing, changed in one place; listing, changed all over.

    Each backup is paired with the listing directly before it.
    """
    one_percent = len(cluster.objects) // 100
    rounds: dict[str, list[Result]] = {name: [] for name in ("first", "unchanged", "one place", "spread", "quiet")}
    floors: dict[str, list[Result]] = {name: [] for name in rounds}
    cluster.paths = collections_of(run("backup", {**cluster.task, **new_repository(bench.folder)}))  # also warms up

    def pair(name: str, task: dict[str, Any]) -> None:
        floors[name].append(floor(cluster, cluster.paths))
        rounds[name].append(run("backup", task))
        bench.say(f"    {name}: listing {floors[name][-1]['wall']:.2f} s, backup {rounds[name][-1]['wall']:.2f} s")

    for number in range(bench.repetitions):
        task = {**cluster.task, **new_repository(bench.folder)}
        pair("first", task)
        pair("unchanged", task)
        cluster.change(populate.one_place(cluster.objects, one_percent), seed=number)
        pair("one place", task)
        cluster.change(populate.spread(cluster.objects, one_percent, seed=number), seed=number)
        pair("spread", task)
    for _ in range(min(3, bench.repetitions)):
        cluster.quieten()
        pair("quiet", task)
    _check(rounds, one_percent)
    _report(bench, rounds, floors)


def _check(rounds: dict[str, list[Result]], one_percent: int) -> None:
    """A fast backup that did not do its work is no result."""
    for name, results in rounds.items():
        for result in results:
            left = result["objects"] - result["taken_over"]
            expected = {"first": result["objects"], "one place": one_percent, "spread": one_percent}.get(name, 0)
            # What the cluster itself changes meanwhile (a lease, a status) is a handful.
            if result["state"] != "Completed" or not expected <= left <= expected + 20:
                raise AssertionError(f"{name}: {left} of {result['objects']} objects were read, {result['reason']}")


def _report(bench: Bench, rounds: dict[str, list[Result]], floors: dict[str, list[Result]]) -> None:
    first, listing = rounds["first"], floors["first"]
    objects = first[0]["objects"]
    written = median(first, "written")
    bench.notes.append(
        f"{objects:,} objects, {median(listing, 'bytes') / MIB:.1f} MiB of JSON, {len(cluster_kinds(first[0]))} kinds; "
        f"bare listing {median(listing, 'wall'):.2f} s, API server {median(listing, *SERVER):.2f} s CPU, client "
        f"{median(listing, 'cpu'):.2f} s CPU. Process start, left out of all figures: {median(first, 'startup'):.2f} s."
    )
    times = ratio(first, listing, "wall")
    bench.row("first backup, wall", f"{times:.2f} × listing ({median(first, 'wall'):.2f} s)", "≤ 1.3 ×", times <= 1.3)
    each = median(first, "cpu") / objects * 1e6
    bench.row("first backup, client CPU", f"{each:.0f} µs per object", "≤ 60 µs", each <= 60)
    bench.row("first backup, bytes written", f"{written / MIB:.1f} MiB")
    for name, title in (("unchanged", "unchanged"), ("quiet", "unchanged, all lists from etcd (quiet cluster)")):
        results, below = rounds[name], floors[name]
        times, server = ratio(results, below, "wall"), ratio(results, below, *SERVER)
        wall = f"{times:.2f} × listing ({median(results, 'wall'):.2f} of {median(below, 'wall'):.2f} s)"
        bench.row(f"{title}, wall", wall, "≤ 0.45 ×", times <= 0.45)
        cpu = f"{server:.2f} × ({median(results, *SERVER):.2f} of {median(below, *SERVER):.2f} s)"
        bench.row(f"{title}, API-server CPU", cpu, "≤ 0.4 ×", server <= 0.4)
        each = median(results, "cpu") / objects * 1e6
        bench.row(f"{title}, client CPU", f"{each:.0f} µs per object")
        share = median(results, "written") / written
        bench.row(f"{title}, bytes written", f"{share:.2%} of the first", "≤ 1 %", share <= 0.01)
    for name, title, most in (
        ("one place", "1 % changed, one kind and namespace", 0.03),
        ("spread", "1 % changed, over all", 0.10),
    ):
        results = rounds[name]
        times = ratio(results, floors[name], "wall")
        wall = f"{times:.2f} × listing ({median(results, 'wall'):.2f} of {median(floors[name], 'wall'):.2f} s)"
        bench.row(f"{title}, wall", wall, "≤ 0.6 ×", times <= 0.6)
        share = median(results, "written") / written
        bench.row(f"{title}, bytes written", f"{share:.2%} of the first", f"≤ {most:.0%}", share <= most)
    peak = max(result["peak"] for results in rounds.values() for result in results) / MIB
    bench.row(f"peak memory, {objects:,} objects", f"{peak:.0f} MiB", "≤ 300 MiB", peak <= 300)


def cluster_kinds(backup: Result) -> list[Any]:
    """Return the kinds of a backup that have objects."""
    return [kind for kind in backup["kinds"] if kind[3]]


def measure_namespace(bench: Bench, cluster: Cluster) -> None:
    """A backup of one namespace of 500 objects beside a listing of that namespace's kinds."""
    name = content.namespace_name(1)
    task = {**cluster.task, "namespaces": [name]}
    below, results = [], []
    paths: list[str] = []
    for number in range(bench.repetitions + 1):
        backup = run("backup", {**task, **new_repository(bench.folder)})
        if number == 0:
            namespaced = [kind for kind in backup["kinds"] if kind[3] and kind[2] not in _CLUSTER_SCOPED]
            paths = [_in_namespace(kind, name) for kind in namespaced]
        else:
            results.append(backup)
        listed = floor(cluster, paths)
        if number:
            below.append(listed)
    times = ratio(results, below, "wall")
    walls = f"{median(results, 'wall') * 1000:.0f} of {median(below, 'wall') * 1000:.0f} ms"
    counts = f"{results[0]['objects']} objects, {results[0]['requests']} requests"
    bench.row(
        "one namespace of 500, wall",
        f"{times:.1f} × listing its {len(paths)} kinds ({walls}; {counts})",
        "≤ 2 ×",
        times <= 2,
    )


_CLUSTER_SCOPED = frozenset(("namespaces", "customresourcedefinitions"))


def _in_namespace(kind: list[Any], namespace: str) -> str:
    group, version, plural, _ = kind
    return (
        f"/apis/{group}/{version}/namespaces/{namespace}/{plural}"
        if group
        else f"/api/{version}/namespaces/{namespace}/{plural}"
    )
