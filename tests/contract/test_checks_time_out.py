"""Validations that ask a cluster which gives no answer: they end, and say what was waited for."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.controlplane.clusters.connect import ConnectedCluster
from strongroom.controlplane.identity.assignments import read_access
from strongroom.controlplane.state.operations import LongOperation
from strongroom.controlplane.workflows import protecting, restore_work
from strongroom.controlplane.workflows.memory_engine import MemoryEngine
from strongroom.controlplane.workflows.protecting import Protecting
from strongroom.controlplane.workflows.restore_work import Restoring
from strongroom.controlplane.workflows.services import Services
from strongroom.testbed import certificates

from .arm_stage import Stage, bodies_of, open_stage

SECONDS = 20.0


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """A stage whose cluster takes connections and says nothing."""
    held: list[asyncio.StreamWriter] = []

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    ca = certificates.make_authority("test").certificate
    opened = await open_stage(tmp_path)
    await opened.plane.pool.remember(opened.cluster, ConnectedCluster(url, ca, "uid", "v1.37.2", "token", True))
    for module in (protecting, restore_work):
        monkeypatch.setattr(module, "CHECK_SECONDS", 0.2)
    yield opened
    server.close()
    for writer in held:
        writer.close()
    await opened.plane.pool.close()
    opened.db.close()


async def answered(stage: Stage, path: str, name: str) -> LongOperation:
    """Ask for a validation, carry it out, and return its operation."""
    services = Services(
        db=stage.db,
        pool=stage.plane.pool,
        containers=stage.plane.containers,
        limits=stage.plane.limits,
        access=lambda tx: read_access(tx, stage.plane.tenant),
    )
    engine = MemoryEngine()
    engine.register("validate-backup", Protecting(services, engine).validate)
    engine.register("validate-restore", Restoring(services).validate)
    await engine.launch()
    body: Any = bodies_of(stage)[name]
    answer = await stage.send("POST", path, json.dumps(body).encode())
    assert answer.status == 202, answer.content
    with stage.db.read() as tx:
        (work,) = tx.outbox.waiting()
    await engine.start(work.kind, work.id, key=work.key)
    async with asyncio.timeout(SECONDS):
        while True:
            with stage.db.read() as tx:
                found = tx.operations.get(work.id)
            assert found is not None
            if found.ended:
                await engine.close()
                return found
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("backupInstances/instance1/validateForModifyBackup", "BackupInstances_ValidateForModifyBackup"),
        ("backupInstances/instance1/validateRestore", "BackupInstances_ValidateForRestore"),
    ],
)
async def test_a_check_without_an_answer_says_that_the_extension_gave_none(stage: Stage, path: str, name: str) -> None:
    operation = await answered(stage, f"{stage.vault}/{path}", name)
    assert operation.error["code"] == "KubernetesBackupCustomResourcesTrackingTimeOutError", operation.error
    assert "InternalServerError" not in json.dumps(operation.error)
