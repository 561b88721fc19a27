"""Carries out, in a test of the API, what its requests asked the workers for."""

import asyncio

from strongroom.controlplane.arm.authorizer import read_access
from strongroom.controlplane.workflows.dispatcher import Dispatcher
from strongroom.controlplane.workflows.memory_engine import MemoryEngine
from strongroom.controlplane.workflows.services import Services

from .arm_stage import Stage


def services_of(stage: Stage) -> Services:
    return Services(
        db=stage.db,
        pool=stage.plane.pool,
        containers=stage.plane.containers,
        limits=stage.plane.limits,
        access=lambda tx: read_access(tx, stage.plane.tenant),
    )


async def carried_out(stage: Stage, engine: MemoryEngine, services: Services) -> None:
    """Hand all waiting work to *engine*, and return when no operation is open."""
    dispatcher = Dispatcher(services, engine)
    await dispatcher.start()
    try:
        async with asyncio.timeout(60):
            while True:
                dispatcher.poke()
                with stage.db.read() as tx:
                    if not list(tx.operations.open()):
                        return
                await asyncio.sleep(0.05)
    finally:
        await dispatcher.stop()
