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


STATES = {
    "quiet": "",
    "written": ", cluster just written to",
}
"""The states of a cluster, and what a row's title says of them. Clusters compact every five minutes (kube-apiserver,
--etcd-compaction-interval); most kinds did not change since, and of those the API server reads an exact list from etcd.
In a cluster in which everything was written a moment ago it has them all in memory."""
CHANGED = {
    "one place": ("1 % changed, one kind and namespace", 0.03),
    "spread": ("1 % changed, over all", 0.10),
}


def measure_backups(bench: Bench, cluster: Cluster) -> None:
    """Rounds of: first backup, unchanged, changed in one place, changed all over; each in both states of the cluster.

    Each backup is paired with a listing directly before it.
    """
    one_percent = len(cluster.objects) // 100
    rounds: dict[tuple[str, str], list[Result]] = {}
    floors: dict[tuple[str, str], list[Result]] = {}
    cluster.paths = collections_of(run("backup", {**cluster.task, **new_repository(bench.folder)}))  # also warms up

    def pair(state: str, name: str, task: dict[str, Any]) -> None:
        if state == "quiet":
            cluster.quieten()
        below = floor(cluster, cluster.paths)
        result = run("backup", task)
        floors.setdefault((state, name), []).append(below)
        rounds.setdefault((state, name), []).append(result)
        bench.say(f"    {state}, {name}: listing {below['wall']:.2f} s, backup {result['wall']:.2f} s")

    # The populated cluster was just written to; after its first compaction most kinds are quiet for good.
    for turn, state in enumerate(("written", "quiet")):
        for number in range(turn * bench.repetitions, (turn + 1) * bench.repetitions):  # each change is a new one
            task = {**cluster.task, **new_repository(bench.folder)}
            pair(state, "first", task)
            pair(state, "unchanged", task)
            cluster.change(populate.one_place(cluster.objects, one_percent), seed=number)
            pair(state, "one place", task)
            cluster.change(populate.spread(cluster.objects, one_percent, seed=number), seed=number)
            pair(state, "spread", task)
    _check(rounds, one_percent)
    for state, title in STATES.items():
        _report(bench, rounds, floors, state, title)
    peak = max(result["peak"] for results in rounds.values() for result in results) / MIB
    objects = rounds["quiet", "first"][0]["objects"]
    bench.row(f"peak memory, {objects:,} objects", f"{peak:.0f} MiB", "≤ 300 MiB", peak <= 300)


def _check(rounds: dict[tuple[str, str], list[Result]], one_percent: int) -> None:
    """A fast backup that did not do its work is no result."""
    for (state, name), results in rounds.items():
        for result in results:
            left = result["objects"] - result["taken_over"]
            expected = {"first": result["objects"], "one place": one_percent, "spread": one_percent}.get(name, 0)
            # What the cluster itself changes meanwhile (a lease, a status) is a handful.
            if result["state"] != "Completed" or not expected <= left <= expected + 20:
                raise AssertionError(
                    f"{state}, {name}: {left} of {result['objects']} objects were read, {result['reason']}"
                )


def _report(
    bench: Bench,
    rounds: dict[tuple[str, str], list[Result]],
    floors: dict[tuple[str, str], list[Result]],
    state: str,
    title: str,
) -> None:
    first, listing = rounds[state, "first"], floors[state, "first"]
    objects = first[0]["objects"]
    written = median(first, "written")
    bench.notes.append(
        f"{state.capitalize()} cluster: {objects:,} objects, {median(listing, 'bytes') / MIB:.1f} MiB of JSON, "
        f"{len(cluster_kinds(first[0]))} kinds; bare listing {median(listing, 'wall'):.2f} s, API server "
        f"{median(listing, *SERVER):.2f} s CPU, client {median(listing, 'cpu'):.2f} s CPU. Process start, left out of "
        f"all figures: {median(first, 'startup'):.2f} s."
    )

    def wall(name: str, what: str, most: float) -> None:
        results, below = rounds[state, name], floors[state, name]
        times = ratio(results, below, "wall")
        said = f"{times:.2f} × listing ({median(results, 'wall'):.2f} of {median(below, 'wall'):.2f} s)"
        bench.row(f"{what}, wall{title}", said, f"≤ {most} ×", times <= most)

    wall("first", "first backup", 1.3)
    each = median(first, "cpu") / objects * 1e6
    bench.row(f"first backup, client CPU{title}", f"{each:.0f} µs per object", "≤ 60 µs", each <= 60)
    bench.row(f"first backup, bytes written{title}", f"{written / MIB:.1f} MiB")
    wall("unchanged", "unchanged", 0.45)
    results, below = rounds[state, "unchanged"], floors[state, "unchanged"]
    server = ratio(results, below, *SERVER)
    cpu = f"{server:.2f} × ({median(results, *SERVER):.2f} of {median(below, *SERVER):.2f} s)"
    bench.row(f"unchanged, API-server CPU{title}", cpu, "≤ 0.4 ×", server <= 0.4)
    each = median(results, "cpu") / objects * 1e6
    bench.row(f"unchanged, client CPU{title}", f"{each:.0f} µs per object")
    share = median(results, "written") / written
    bench.row(f"unchanged, bytes written{title}", f"{share:.2%} of the first", "≤ 1 %", share <= 0.01)
    for name, (what, most) in CHANGED.items():
        wall(name, what, 0.6)
        share = median(rounds[state, name], "written") / written
        bench.row(f"{what}, bytes written{title}", f"{share:.2%} of the first", f"≤ {most:.0%}", share <= most)


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
