"""The durable engine, its process killed at every step: all ends, nothing finished is repeated, nothing overlaps."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.testbed.postgres import Postgres

VICTIM = Path(__file__).with_name("engine_victim.py")
STEPS = 4  # of the victim's workflows
WORKFLOWS = ("a1", "a2", "b1")
KILLED = -9
PATIENCE_SECONDS = 90  # for one life of a process on a loaded machine

PLACES = ("before", "inside", "ended")  # a step; "ended": its effect is there, the record of it is not
POINTS = [(step, place) for step in range(STEPS) for place in PLACES] + [(STEPS, "before")]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/workflows.sqlite"
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as url:
        yield url


def test_a_process_killed_at_every_step_goes_on_at_that_step(url: str, tmp_path: Path) -> None:
    (tmp_path / "kill").write_text("\n".join(f"a1 {step} {place}" for step, place in POINTS))
    command = [sys.executable, str(VICTIM), url, str(tmp_path), *WORKFLOWS]
    ends = [subprocess.run(command, timeout=PATIENCE_SECONDS, check=False).returncode for _ in range(len(POINTS) + 1)]
    assert ends == [*([KILLED] * len(POINTS)), 0]

    lines = [line.split() for line in (tmp_path / "journal").read_text().splitlines()]
    counts = Counter(tuple(line) for line in lines)
    for step in range(STEPS):
        # Killed inside, killed before the record, done: the finished step is never begun again.
        assert counts["begin", "a1", str(step)] == 3
        assert counts["end", "a1", str(step)] == 2
        assert counts["end", "a2", str(step)] == 1
        assert counts["end", "b1", str(step)] >= 1
    # Killed after its last step, each body passed over its steps once more, and summed up what was remembered.
    assert counts["sum", "a1", "6"] == 2
    assert counts["sum", "a2", "6"] == 1
    assert {line[2] for line in lines if line[0] == "sum"} == {"6"}
    _check_turns(lines)


def _check_turns(lines: list[list[str]]) -> None:
    """Check that of one key no two steps overlap, and that nobody runs before its turn."""
    running: dict[str, list[str]] = {}
    for what, *rest in lines:
        match what:
            case "begin":
                assert rest[0][0] not in running
                running[rest[0][0]] = rest
            case "end":
                assert running.pop(rest[0][0]) == rest
            case "killed":
                running.clear()
    last_of_first = max(number for number, line in enumerate(lines) if line[1:2] == ["a1"])
    assert last_of_first < lines.index(["begin", "a2", "0"])
