"""An engine that keeps its workflows in memory: for quick tests of what runs on one. Nothing outlives the process."""

import asyncio
import math
from collections import defaultdict
from dataclasses import dataclass, field

from strongroom.controlplane.workflows.engine import (
    Body,
    EngineMisused,
    WorkflowState,
    check_name,
)
from strongroom.controlplane.workflows.running import CANCELLED, Execute, Outcome, Result, Run


@dataclass
class _Workflow:
    id: str
    kind: str
    key: str
    due: float
    begun: bool = False
    cancel: bool = False
    results: list[tuple[str, Result]] = field(default_factory=list)
    outcome: Outcome | None = None


class MemoryStore:
    """What a `MemoryEngine` keeps: hand it to the next one, and that goes on where the last was closed."""

    def __init__(self) -> None:
        self.workflows: dict[str, _Workflow] = {}


class MemoryEngine:
    """`Engine` in memory; see there."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self._workflows = (store or MemoryStore()).workflows
        self._kinds: dict[str, tuple[Body, int | None]] = {}
        self._runs: dict[str, Run] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._launched = False

    def register(self, kind: str, body: Body, *, queue_concurrency: int | None = None) -> None:
        check_name("kind", kind)
        if self._launched or kind in self._kinds:
            raise EngineMisused(f"kind {kind} is registered twice, or after launch")
        self._kinds[kind] = (body, queue_concurrency)

    async def launch(self) -> None:
        if self._launched:
            raise EngineMisused("the engine is launched already")
        self._launched = True
        self._dispatch()

    async def start(self, kind: str, workflow_id: str, *, key: str, delay_seconds: float = 0) -> None:
        self._check_launched()
        check_name("workflow id", workflow_id)
        check_name("key", key)
        if kind not in self._kinds:
            raise EngineMisused(f"kind {kind} is not registered")
        if (known := self._workflows.get(workflow_id)) is not None:
            if known.kind != kind:
                raise EngineMisused(f"workflow {workflow_id} exists with kind {known.kind}")
            return
        due = asyncio.get_running_loop().time() + delay_seconds
        self._workflows[workflow_id] = _Workflow(workflow_id, kind, key, due)
        self._dispatch()

    async def cancel(self, workflow_id: str) -> None:
        self._check_launched()
        workflow = self._workflows.get(workflow_id)
        if workflow is None or workflow.outcome is not None:
            return
        workflow.cancel = True
        if not workflow.begun:
            workflow.outcome = CANCELLED
        elif (run := self._runs.get(workflow_id)) is not None:
            run.cancel()

    async def state(self, workflow_id: str) -> WorkflowState:
        self._check_launched()
        workflow = self._workflows.get(workflow_id)
        if workflow is None:
            return WorkflowState.ABSENT
        if workflow.outcome is not None:
            return WorkflowState(workflow.outcome["state"])
        return WorkflowState.RUNNING if workflow.begun else WorkflowState.WAITING

    async def error(self, workflow_id: str) -> str | None:
        self._check_launched()
        workflow = self._workflows.get(workflow_id)
        return None if workflow is None or workflow.outcome is None else workflow.outcome.get("error")

    async def close(self) -> None:
        self._launched = False
        if self._timer is not None:
            self._timer.cancel()
        for run in self._runs.values():
            run.stop()
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()))

    def _check_launched(self) -> None:
        if not self._launched:
            raise EngineMisused("the engine is not launched")

    def _dispatch(self) -> None:
        """Begin every workflow that may run now, and set a timer for the next one whose delay is not over."""
        if not self._launched:
            return
        loop = asyncio.get_running_loop()
        running: dict[str, int] = defaultdict(int)
        for identity in self._tasks:
            running[self._workflows[identity].kind] += 1
        taken = {(self._workflows[identity].kind, self._workflows[identity].key) for identity in self._tasks}
        open_ones = [one for one in self._workflows.values() if one.outcome is None and one.id not in self._tasks]
        next_due = math.inf
        # Those that had begun before a restart go before what waited behind them.
        for workflow in sorted(open_ones, key=lambda one: not one.begun):
            if workflow.kind not in self._kinds or (workflow.kind, workflow.key) in taken:
                continue
            body, limit = self._kinds[workflow.kind]
            if workflow.due > loop.time() and not workflow.begun:
                next_due = min(next_due, workflow.due)
                continue
            if limit is not None and running[workflow.kind] >= limit:
                continue
            taken.add((workflow.kind, workflow.key))
            running[workflow.kind] += 1
            workflow.begun = True
            self._tasks[workflow.id] = asyncio.create_task(self._live(workflow, body))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if next_due == math.inf else loop.call_at(next_due, self._dispatch)

    async def _live(self, workflow: _Workflow, body: Body) -> None:
        position = 0

        async def record(name: str, execute: Execute) -> Result:
            nonlocal position
            position += 1
            if position <= len(workflow.results):
                remembered, result = workflow.results[position - 1]
                if remembered != name:
                    raise EngineMisused(f"the body asks for step {name} where {remembered} stands in its history")
                return result
            result = await execute()
            workflow.results.append((name, result))
            return result

        run = self._runs[workflow.id] = Run(body, workflow.id, record)
        if workflow.cancel:
            run.cancel()
        try:
            workflow.outcome = await run.live()
        except asyncio.CancelledError:
            if self._launched:
                raise
        finally:
            del self._runs[workflow.id], self._tasks[workflow.id]
            self._dispatch()
