"""A process that runs workflows and is killed by the tests: `engine_victim.py URL FOLDER WORKFLOWS`.

Each step writes a line to FOLDER/journal when it begins and when it ends. Where the first line of FOLDER/kill says so,
"WORKFLOW STEP before|inside|ended", the process strikes out the line and ends itself by SIGKILL.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from strongroom.controlplane.workflows.dbos_engine import DbosEngine
from strongroom.controlplane.workflows.engine import JSON, Steps, WorkflowState
from strongroom.testbed.contracts.engine import until_state

STEPS = 4


class Victim:
    def __init__(self, folder: Path) -> None:
        self._kill = folder / "kill"
        self._journal = os.open(folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, *words: object) -> None:
        os.write(self._journal, (" ".join(map(str, words)) + "\n").encode())

    def die_at(self, workflow: str, step: int, where: str) -> None:
        first, *others = self._kill.read_text().splitlines() or [""]
        if first == f"{workflow} {step} {where}":
            self._kill.write_text("\n".join(others))
            self.note("killed")
            os.kill(os.getpid(), signal.SIGKILL)

    async def body(self, steps: Steps, workflow: str) -> None:
        total = 0
        for number in range(STEPS):
            self.die_at(workflow, number, "before")

            async def step(number: int = number) -> JSON:
                self.note("begin", workflow, number)
                await asyncio.sleep(0.01)
                self.die_at(workflow, number, "inside")
                self.note("end", workflow, number)
                self.die_at(workflow, number, "ended")
                return number

            result = await steps.run(f"step {number}", step)
            assert isinstance(result, int)
            total += result
        self.note("sum", workflow, total)
        self.die_at(workflow, STEPS, "before")


async def main(url: str, folder: Path, workflows: list[str]) -> None:
    victim = Victim(folder)
    engine = DbosEngine(url, poll_seconds=0.05)
    engine.register("job", victim.body)
    await engine.launch()
    for workflow in workflows:
        # One key for two: what waits behind a killed one must not overtake it.
        await engine.start("job", workflow, key=workflow[0])
    for workflow in workflows:
        await until_state(engine, workflow, WorkflowState.SUCCEEDED)
    await engine.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
