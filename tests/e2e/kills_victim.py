"""Control planes that kill themselves: one life after the other, for the kill tests. Not a test.

`python kills_victim.py` has all code loaded and forks a life for each line `[FOLDER, DATABASE, PORT]` on its stdin: a
start costs a third of a second then. It writes the life's process id, and how it ended when it has (-9: SIGKILL).

`FOLDER/plan` holds a JSON list of points `[kind, step, place, how]`, each met once, in any order. *place* is `before`
the step, `inside` it (some time after its beginning: SECONDS below), `ended` (its effect is there, the record of it is
not) or `recorded`. The kind `answer` is a request, its *step* the end of its path: it is carried out, not answered.
*how*: `server` kills this process alone, `group` its children with it; `hold` waits there until cancelled, `pause` for
PAUSE_SECONDS.

`FOLDER/days` moves the clock of the work ahead.
"""

import asyncio
import ctypes
import json
import logging
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from strongroom.controlplane import main
from strongroom.controlplane.arm import app
from strongroom.controlplane.main import ServeOptions, serve
from strongroom.controlplane.state.times import now
from strongroom.controlplane.workflows.engine import JSON, Body, Steps
from strongroom.controlplane.workflows.services import Services
from strongroom.protection.job import Limits

SECONDS = (0.05, 1.0)  # a backup and a restore of the test's application take about as long
PAUSE_SECONDS = 1.0  # the test sees within a tenth of it that work is where it is held
LIMITS = Limits(on_demand_backups_per_day=1000, restores_per_day=1000)

Step = Callable[[], Awaitable[JSON]]


class Fate:
    """The plan of kills, kept in a file that outlives the killed."""

    def __init__(self, folder: Path) -> None:
        self._plan = folder / "plan"
        self._random = random.Random(len(self._points()))

    def meet(self, kind: str, step: str, place: str) -> None:
        """Die if that is planned for here."""
        points = self._points()
        for point in points:
            if point[:3] == [kind, step, place] and point[3] in {"server", "group"}:
                self._done(point)
                logging.warning("killed at %s", point)
                target = 0 if point[3] == "group" else os.getpid()
                (os.killpg if target == 0 else os.kill)(target, signal.SIGKILL)

    async def hold(self, kind: str, step: str, place: str) -> None:
        """Stay here until cancelled, or for a while, if that is planned."""
        for how, seconds in (("hold", 3600.0), ("pause", PAUSE_SECONDS)):
            if (point := [kind, step, place, how]) in self._points():
                self._done(point)
                await asyncio.sleep(seconds)

    def _done(self, point: list[str]) -> None:
        self._plan.write_text(json.dumps([other for other in self._points() if other != point]))

    async def meet_inside(self, kind: str, step: str) -> None:
        await asyncio.sleep(self._random.uniform(*SECONDS))
        self.meet(kind, step, "inside")

    def _points(self) -> list[list[str]]:
        points: list[list[str]] = json.loads(self._plan.read_text()) if self._plan.exists() else []
        return points


class DeadlySteps:
    """The engine's steps, with fate around each."""

    def __init__(self, steps: Steps, kind: str, fate: Fate) -> None:
        self._steps = steps
        self._kind = kind
        self._fate = fate

    async def run(self, name: str, step: Step) -> JSON:
        async def deadly() -> JSON:
            await self._fate.hold(self._kind, name, "before")
            self._fate.meet(self._kind, name, "before")
            inside = asyncio.create_task(self._fate.meet_inside(self._kind, name))
            try:
                value = await step()
            finally:
                inside.cancel()
            # One that was quicker than its killer dies here instead.
            self._fate.meet(self._kind, name, "inside")
            await self._fate.hold(self._kind, name, "ended")
            self._fate.meet(self._kind, name, "ended")
            return value

        value = await self._steps.run(name, deadly)
        self._fate.meet(self._kind, name, "recorded")
        return value

    async def sleep(self, seconds: float) -> None:
        await self._steps.sleep(seconds)


def deadly(kind: str, body: Body, fate: Fate) -> Body:
    async def run(steps: Steps, workflow_id: str) -> None:
        await body(DeadlySteps(steps, kind, fate), workflow_id)

    return run


def arm_with(folder: Path) -> None:
    """Put fate around each body and each answer of the control plane that this process will serve."""
    fate = Fate(folder)
    bodies, carry_out = main.bodies, app.ArmApp._carry_out

    def all_deadly(*parts: Any) -> dict[str, Body]:
        return {kind: deadly(kind, body, fate) for kind, body in bodies(*parts).items()}

    def unanswered(self: Any, request: Any, *others: Any) -> Any:
        reply = carry_out(self, request, *others)
        if request.method != "GET":
            fate.meet("answer", request.url.path.rpartition("/")[2], "before")
        return reply

    def moved(**parts: Any) -> Services:
        return Services(**{**parts, "clock": clock})

    def clock() -> datetime:
        days = folder / "days"
        return now() + timedelta(days=int(days.read_text()) if days.exists() else 0)

    for place, name, part in (
        (main, "bodies", all_deadly),
        (main, "Services", moved),
        (app.ArmApp, "_carry_out", unanswered),
    ):
        setattr(place, name, part)


def live(folder: Path, database: str, port: int) -> None:
    """Serve from *folder*, until a signal."""
    os.setsid()
    die_with_parent()
    log = os.open(folder / "server.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    arm_with(folder)
    ready = folder / "ready.json"
    asyncio.run(serve(ServeOptions(folder / "home", port=port, ready_file=ready, database=database, limits=LIMITS)))


def die_with_parent() -> None:
    """Have Linux kill this process when its parent dies: a test run that is killed leaves nothing."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG of linux/prctl.h


if __name__ == "__main__":
    die_with_parent()
    for line in sys.stdin:
        where, database, port = json.loads(line)
        life = os.fork()
        if life == 0:
            code = 1
            try:
                live(Path(where), database, port)
                code = 0
            except BaseException:
                logging.exception("the server ends")
            finally:
                os._exit(code)
        print(life, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(life, 0)[1]), flush=True)
