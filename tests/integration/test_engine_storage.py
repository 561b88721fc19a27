"""What the durable engine keeps in its database: JSON, ids only, not for ever; and a database that takes nothing."""

import asyncio
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from strongroom.controlplane.workflows.dbos_engine import DbosEngine
from strongroom.controlplane.workflows.engine import JSON, StepFailed, Steps, WorkflowState
from strongroom.testbed.contracts.engine import launched, nothing, returning, until, until_state

PATIENCE_SECONDS = 90


async def test_everything_is_kept_as_json_and_nothing_as_pickle(tmp_path: Path) -> None:
    async def body(steps: Steps, workflow_id: str) -> None:
        async def failing() -> JSON:
            raise ValueError("no")

        await steps.run("plain", returning({"id": "x"}))
        try:
            await steps.run("failing", failing)
        except StepFailed:
            raise RuntimeError("ends badly") from None

    file = tmp_path / "workflows.sqlite"
    async with launched(DbosEngine(f"sqlite:///{file}", poll_seconds=0.05), job=body) as engine:
        await engine.start("job", "w", key="k")
        await until_state(engine, "w", WorkflowState.FAILED)
    with sqlite3.connect(file) as connection:
        kinds = {row[0] for row in connection.execute("SELECT serialization FROM workflow_status")}
        kinds |= {row[0] for row in connection.execute("SELECT serialization FROM operation_outputs")}
        inputs = [row[0] for row in connection.execute("SELECT inputs FROM workflow_input")]
    connection.close()
    assert kinds == {"strongroom_json"}
    assert inputs == ['{"args": ["w"], "kwargs": {}}']


async def test_what_finished_long_ago_is_deleted_and_what_runs_is_not(tmp_path: Path) -> None:
    file = tmp_path / "workflows.sqlite"

    async def waiting(steps: Steps, workflow_id: str) -> None:
        await steps.run("wait", asyncio.Event().wait)

    # Kept for less than no time: what has finished is old at once.
    engine = DbosEngine(f"sqlite:///{file}", poll_seconds=0.05, watch_seconds=0.1, keep=timedelta(seconds=-5))
    async with launched(engine, job=nothing, wait=waiting):
        await engine.start("wait", "open", key="k")
        await engine.start("wait", "behind", key="k")
        await until_state(engine, "open", WorkflowState.RUNNING)
    finished = DbosEngine(f"sqlite:///{file}", poll_seconds=0.05)
    async with launched(finished, job=nothing, wait=waiting):
        await finished.start("job", "done", key="k")
        await until_state(finished, "done", WorkflowState.SUCCEEDED)
    again = DbosEngine(f"sqlite:///{file}", poll_seconds=0.05, watch_seconds=0.1, keep=timedelta(seconds=-5))
    async with launched(again, job=nothing, wait=waiting):
        await until_state(again, "done", WorkflowState.ABSENT)
        assert await again.state("behind") is WorkflowState.WAITING

        async def running() -> bool:
            return await again.state("open") is WorkflowState.RUNNING

        await until(running)
    with sqlite3.connect(file) as connection:
        left = {row[0] for row in connection.execute("SELECT DISTINCT workflow_uuid FROM operation_outputs")}
    connection.close()
    assert left == {"open"}


def test_a_workflow_goes_on_after_the_disk_was_full(tmp_path: Path) -> None:
    victim = Path(__file__).with_name("engine_full_disk.py")
    command = [sys.executable, str(victim), f"sqlite:///{tmp_path}/workflows.sqlite"]
    done = subprocess.run(command, timeout=PATIENCE_SECONDS, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
