"""A hosted extension carries documents out: backups, restores and deletions, each once."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from strongroom.extension.api.status import Phase
from strongroom.testbed.cluster import Testbed

from .extension_stage import Stage, claim, config_map, get, put, volume_folder


@pytest.fixture
async def stage(testbed: Testbed, tmp_path: Path) -> AsyncIterator[Stage]:
    built = await Stage.build(testbed, tmp_path)
    yield built
    await built.extension.stop()


@pytest.fixture
def other(testbed: Testbed, namespace: str) -> Iterator[str]:
    """The name of a namespace to restore into, removed afterwards."""
    yield f"{namespace}-r"
    testbed.kubectl("delete", "namespace", f"{namespace}-r", "--wait=false", "--ignore-not-found")


async def test_a_namespace_is_backed_up_and_comes_back_under_another_name_with_its_volume(
    testbed: Testbed, stage: Stage, namespace: str, other: str
) -> None:
    put(testbed, namespace, config_map("settings", colour="blue"), claim("data"))
    (await volume_folder(testbed, namespace, "data") / "file").write_bytes(b"precious")
    status = await stage.back_up(namespace)
    assert (status.phase, status.error) == (Phase.COMPLETED, None)
    assert status.volumes is not None
    assert status.volumes.ready == 1
    assert status.coverage is not None
    assert status.coverage.saved > 20
    manifest = (await (await stage.repository()).point(status.recovery_point_id)).manifest
    assert manifest.caller["instance"] == f"instance-of-{namespace}"
    assert manifest.caller["job"]
    (await volume_folder(testbed, namespace, "data") / "file").write_bytes(b"changed")

    restored = await stage.restore(status.recovery_point_id, {namespace: other})
    assert (restored.phase, restored.error) == (Phase.COMPLETED, None)
    assert get(testbed, "configmap", "settings", "-n", other)["data"] == {"colour": "blue"}
    assert (await volume_folder(testbed, other, "data") / "file").read_bytes() == b"precious"
