"""Runs pieces of work in processes of their own and keeps what they measured."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORK = Path(__file__).parent / "work.py"
WORK_SECONDS = 300  # of one piece of work; the longest takes a third of it

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. *met* is None where nothing is demanded."""

    name: str
    measured: str
    goal: str
    met: bool | None


@dataclass
class Bench:
    """What all measurements share: the folder to work in, the size of the cluster, how often each is repeated, and what
    came out."""

    folder: Path
    namespaces: int
    repetitions: int
    say: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, name: str, measured: str, goal: str = "", met: bool | None = None) -> None:
        """Add one line to the table and show it."""
        self.rows.append(Row(name, measured, goal, met))
        verdict = {True: "met", False: "NOT met", None: ""}[met]
        self.say(f"  {name}: {measured}  [{goal}] {verdict}")


def run(name: str, task: Mapping[str, Any]) -> Result:
    """Do one piece of work in a new process. Its `startup` is the seconds until everything was imported."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(WORK), name, json.dumps(task)], capture_output=True, text=True, timeout=WORK_SECONDS,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    result: Result = json.loads(done.stdout)
    result["startup"] = result["ready"] - began
    return result


def median(results: Sequence[Result], *path: str) -> float:
    """Return the median of one measured value; *path* leads into nested results."""
    return statistics.median(_at(result, path) for result in results)


def ratio(above: Sequence[Result], below: Sequence[Result], *path: str) -> float:
    """Return the median of the ratios of pairs that were measured one after the other."""
    return statistics.median(_at(a, path) / max(_at(b, path), 1e-9) for a, b in zip(above, below, strict=True))


def _at(result: Any, path: Sequence[str]) -> float:
    for name in path:
        result = result[name]
    return float(result)


def new_repository(folder: Path) -> dict[str, str]:
    """Make an empty, encrypted repository in a new folder; return what a task needs to open it."""
    root = Path(tempfile.mkdtemp(prefix="repository-", dir=folder))
    code = (
        "import asyncio, sys; from pathlib import Path\n"
        "from strongroom.dataplane.objectstore.opening import open_store\n"
        "from strongroom.dataplane.repository.repository import Repository\n"
        "async def main():\n"
        "    store = await open_store(sys.argv[1], create=True)\n"
        "    await Repository.init(store, key_file=Path(sys.argv[2]))\n"
        "asyncio.run(main())\n"
    )
    url, key = (root / "store").as_uri(), str(root / "key.json")
    subprocess.run([sys.executable, "-c", code, url, key], check=True)
    return {"repository": url, "key": key}
