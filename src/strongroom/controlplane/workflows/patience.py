"""Lets work outlast its database: what cannot be read or written now is tried again until the database answers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from strongroom.controlplane.state.errors import StateUnavailable
from strongroom.controlplane.workflows.engine import JSON, Body, EngineUnavailable, Steps

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_SECONDS: Final = 0.5  # before the second attempt; a restarted PostgreSQL is back within seconds
MOST_SECONDS: Final = 10.0  # between later ones: nobody waits for more once the database is back


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Return what *call* returns, called again while a database does not answer, for as long as that takes.

    *call* may so be done twice: a commit whose confirmation was lost is repeated.
    """
    pause = FIRST_SECONDS
    while True:
        try:
            return await call()
        except StateUnavailable as error:
            log.warning("waiting for the database", extra={"reason": error.reason})
        except EngineUnavailable as error:
            log.warning("waiting for the workflows' database", extra={"reason": str(error)})
        await asyncio.sleep(pause)
        pause = min(2 * pause, MOST_SECONDS)


def patient(body: Body) -> Body:
    """Return *body*, each step of which is done again when a database failed under it.

    A step's error would be remembered, and fail a job that only had to wait.
    """

    async def run(steps: Steps, workflow_id: str) -> None:
        await body(_PatientSteps(steps), workflow_id)

    return run


class _PatientSteps:
    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    async def run(self, name: str, step: Callable[[], Awaitable[JSON]]) -> JSON:
        return await self._steps.run(name, lambda: patiently(step))

    async def sleep(self, seconds: float) -> None:
        await self._steps.sleep(seconds)
