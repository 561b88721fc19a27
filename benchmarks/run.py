"""Measures speed and memory against the goals and writes the table: `python benchmarks/run.py [--only backup,…]`.

Everything runs against a test cluster and servers started here, in a folder that is removed at the end.
"""

import argparse
import datetime
import os
import platform
import shlex
import sys
import tempfile
import time
from pathlib import Path

import backups
import cluster
import content
import peer
import replayed
import restores
from measure import Bench

RESULTS = Path(__file__).parent / "results.md"
ON_CLUSTER = {
    "backup": backups.measure_backups,
    "namespace": backups.measure_namespace,
    "restore": restores.measure_restores,
    "velero": peer.measure_peer,
}
UNLESS_SAID = {"velero"}  # its build takes minutes, once
ALONE = {"many": replayed.measure_many, "secrets": replayed.measure_secrets}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*ON_CLUSTER, *ALONE]
    usual = [name for name in names if name not in UNLESS_SAID]
    parser.add_argument("--only", default=",".join(usual), help=f"which of {', '.join(names)}, with commas between")
    parser.add_argument("--repetitions", type=int, default=5, help="rounds of backups (5)")
    parser.add_argument("--namespaces", type=int, default=content.NAMESPACES, help="of 500 objects each (40)")
    parser.add_argument("--write", type=Path, default=RESULTS, help="where the table goes (benchmarks/results.md)")
    chosen = parser.parse_args()
    only = chosen.only.split(",")
    if unknown := set(only) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="strongroom-bench-") as folder:
        bench = Bench(Path(folder), chosen.namespaces, chosen.repetitions, lambda text: print(text, flush=True))
        if on_cluster := [name for name in ON_CLUSTER if name in only]:
            with cluster.filled(bench) as filled:
                for name in on_cluster:
                    bench.say(name)
                    ON_CLUSTER[name](bench, filled)
        for name in ALONE:
            if name in only:
                bench.say(name)
                ALONE[name](bench)
    seconds = time.monotonic() - began
    table = render(bench, shlex.join(["python", "benchmarks/run.py", *sys.argv[1:]]), seconds)
    chosen.write.write_text(table)
    print(f"\n{table}\nwritten to {chosen.write}")
    return 0 if all(row.met is not False for row in bench.rows) else 3


def render(bench: Bench, command: str, seconds: float) -> str:
    """Return the table as a document that says where its numbers come from."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    verdict = {True: "met", False: "**not met**", None: ""}
    lines = [
        "# Speed and memory",
        "",
        "How each figure is taken, and what the objects look like: [README.md](README.md).",
        "",
        f"- Date: {today}. Command: `{command}`, {seconds / 60:.1f} minutes, {bench.repetitions} rounds.",
        f"- Machine: {os.cpu_count()} cores, {_memory_gib():.0f} GiB, shared by client and servers; Linux "
        f"{platform.release().split('-')[0]}, Python {platform.python_version()}. "
        f"Load average at the end: {os.getloadavg()[0]:.1f}.",
        *(f"- {note}" for note in bench.notes),
        "",
        "| what | measured (median) | goal | verdict |",
        "|---|---|---|---|",
        *(f"| {row.name} | {row.measured} | {row.goal} | {verdict[row.met]} |" for row in bench.rows),
        "",
    ]
    return "\n".join(lines)


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3


if __name__ == "__main__":
    sys.exit(main())
