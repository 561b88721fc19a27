"""The extension goes on by itself when the API server was away in the middle of a restore."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from strongroom.extension.api.status import Phase
from strongroom.testbed.cluster import Testbed

from .extension_stage import Stage, config_map, eventually, put

OBJECTS = 6000  # at the 1,250 a second of a fast machine the restore shows its progress a few times


async def test_a_restore_goes_on_after_the_api_server_was_away(
    own_testbed: Callable[[], Testbed], tmp_path: Path
) -> None:
    testbed = own_testbed()
    stage = await Stage.build(testbed, tmp_path)
    try:
        testbed.kubectl("create", "namespace", "shop")
        put(testbed, "shop", *(config_map(f"settings-{number}") for number in range(OBJECTS)))
        point = (await stage.back_up("shop")).recovery_point_id
        stage.statuses.clear()
        run = asyncio.create_task(stage.restore(point, {"shop": "shop2"}))

        async def creating() -> bool:
            latest = stage.statuses[-1].progress if stage.statuses else None
            return latest is not None and 0 < latest.done < OBJECTS and "plan" not in latest.phase

        await eventually(creating)
        await asyncio.to_thread(testbed.stop, "kube-apiserver", kill=True)
        assert not run.done()
        await asyncio.to_thread(testbed.start, "kube-apiserver")
        status = await run
        assert (status.phase, status.error, status.warnings) == (Phase.COMPLETED, None, ())
        names = testbed.kubectl("get", "configmaps", "-n", "shop2", "-l", "env=prod", "-o", "name").split()
        assert len(names) == OBJECTS
    finally:
        await stage.extension.stop()
