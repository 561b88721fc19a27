"""A process whose SQLite database can write nothing for a while: `engine_full_disk.py URL`. It ends with 0 if all ends.

A limit on the size of files stands for a full disk.
"""

import asyncio
import resource
import sys
from collections import Counter

from strongroom.controlplane.workflows.dbos_engine import DbosEngine
from strongroom.controlplane.workflows.engine import JSON, EngineUnavailable, Steps, WorkflowState
from strongroom.testbed.contracts.engine import until, until_state

STEPS = 3
FULL_BYTES = 4096  # less than the database has already


async def main(url: str) -> None:
    done: Counter[int] = Counter()
    full = asyncio.Event()

    async def body(steps: Steps, workflow_id: str) -> None:
        for number in range(STEPS):

            async def step(number: int = number) -> JSON:
                done[number] += 1
                if number == 1:
                    await full.wait()
                return number

            await steps.run(f"step {number}", step)

    engine = DbosEngine(url, poll_seconds=0.05, watch_seconds=0.2)
    engine.register("job", body)
    await engine.launch()
    await engine.start("job", "w", key="k")

    async def in_the_middle() -> bool:
        return done[1] == 1

    await until(in_the_middle)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, hard))
    full.set()  # its result cannot be stored now

    async def refused() -> bool:
        try:
            await engine.start("job", "x", key="x")
        except EngineUnavailable:
            # dbos has let go of the workflow.
            return "w" not in engine._runs
        return False

    await until(refused)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await until_state(engine, "w", WorkflowState.SUCCEEDED)
    await engine.close()
    assert done == {0: 1, 1: 2, 2: 1}, done


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
