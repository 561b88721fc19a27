"""The start of hosted extensions with the server: what it waits for, and what it leaves alone."""

import asyncio
import json
from pathlib import Path

from strongroom.controlplane.workflows.containers import SEALED
from strongroom.controlplane.workflows.locating import host_extensions

from .arm_stage import finish, open_stage
from .carrying_out import services_of


async def test_a_cloud_that_does_not_answer_holds_no_start_up(tmp_path: Path) -> None:
    stage = await open_stage(tmp_path)
    asked: list[asyncio.StreamWriter] = []
    cloud = await asyncio.start_server(lambda _, writer: asked.append(writer), "127.0.0.1", 0)
    port = cloud.sockets[0].getsockname()[1]
    place = {
        "url": f"s3://bucket-1?endpoint=http://127.0.0.1:{port}",
        "credentials": {"accessKeyId": "AKIA", "secretAccessKey": "secret"},
    }
    with stage.db.write() as tx:
        tx.secrets.put(SEALED + stage.account.lower(), json.dumps(place).encode())
    extension = f"{stage.cluster}/providers/Microsoft.KubernetesConfiguration/extensions/azure-aks-backup"
    finish(stage, extension, lambda r: r.with_properties({"currentVersion": "1"}))
    try:
        async with asyncio.timeout(10):
            await host_extensions(services_of(stage))
        assert not asked
    finally:
        for writer in asked:
            writer.close()
        cloud.close()
        await stage.plane.pool.close()
        stage.db.close()
