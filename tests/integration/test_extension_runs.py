"""An extension carries documents out: backups, restores and deletions, each once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from strongroom.controlplane.clusters.errors import DocumentGone, DocumentTaken
from strongroom.dataplane.repository.prune import delete_point
from strongroom.extension.api.status import DeleteBackupStatus, Phase
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.sharing import shared_testbed

from .extension_stage import (
    LOCATION,
    OWN_NAMESPACE,
    Stage,
    backup,
    claim,
    config_map,
    eventually,
    get,
    new_name,
    put,
    volume_folder,
)


@pytest.fixture(scope="module")
def testbed(testbeds_folder: Path) -> Iterator[Testbed]:
    """A cluster of this file's own: one extension works in a cluster."""
    with shared_testbed(testbeds_folder / "extension-runs") as cluster:
        yield cluster


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


async def test_a_second_backup_takes_over_what_did_not_change(testbed: Testbed, stage: Stage, namespace: str) -> None:
    put(testbed, namespace, *(config_map(f"settings-{number}", value=str(number)) for number in range(20)))
    first = await stage.back_up(namespace)
    put(testbed, namespace, config_map("settings-1", value="changed"))
    second = await stage.back_up(namespace)
    manifest = (await (await stage.repository()).point(second.recovery_point_id)).manifest
    assert manifest.incremental.base == first.recovery_point_id
    assert manifest.incremental.taken_over >= 19
    assert len(set(await stage.jobs())) == 2


async def test_labels_choose_objects_and_a_missing_namespace_is_a_warning(
    testbed: Testbed, stage: Stage, namespace: str
) -> None:
    other = config_map("other")
    other["metadata"]["labels"] = {"env": "test"}
    put(testbed, namespace, config_map("wanted"), other)
    selection = {"includedNamespaces": [namespace, "gone-with-the-wind"], "labelSelectors": ["env=prod"]}
    status = await stage.back_up(namespace, selection=selection)
    assert status.phase is Phase.COMPLETED
    assert [(each.resource, each.code) for each in status.warnings] == [
        ("gone-with-the-wind", "UserErrorNamespaceNotFound")
    ]
    point = await (await stage.repository()).point(status.recovery_point_id)
    assert await point.find("", "ConfigMap", namespace, "wanted") is not None
    assert await point.find("", "ConfigMap", namespace, "other") is None


async def test_a_document_sent_again_is_not_carried_out_again(testbed: Testbed, stage: Stage, namespace: str) -> None:
    put(testbed, namespace, config_map("settings"))
    name = new_name()
    first = await stage.back_up(namespace, name)
    assert await stage.back_up(namespace, name) == first
    await stage.extension.stop()
    await stage.start()
    again = await stage.back_up(namespace, name)
    assert again.recovery_point_id == first.recovery_point_id
    assert await stage.jobs() == [name]
    with pytest.raises(DocumentTaken):
        await stage.back_up(namespace, name, selection={"snapshotVolumes": False})


async def test_a_restore_sent_again_is_not_carried_out_again(
    testbed: Testbed, stage: Stage, namespace: str, other: str
) -> None:
    put(testbed, namespace, config_map("settings"))
    point = (await stage.back_up(namespace)).recovery_point_id
    name = new_name()
    first = await stage.restore(point, {namespace: other}, name)
    testbed.kubectl("delete", "configmap", "settings", "-n", other)
    await stage.extension.stop()
    await stage.start()
    again = await stage.restore(point, {namespace: other}, name)
    assert (again.phase, again.restore_id, again.counts) == (first.phase, first.restore_id, first.counts)
    assert get(testbed, "configmap", "settings", "-n", other) == {}


async def test_backups_of_one_instance_wait_for_each_other_and_others_do_not(
    testbed: Testbed, stage: Stage, namespace: str
) -> None:
    put(testbed, namespace, config_map("settings"))
    held, waiting = new_name(), new_name()
    stage.doom(r"store points/", "hold")
    first = asyncio.create_task(stage.back_up(namespace, held))
    await stage.doomed()
    second = asyncio.create_task(stage.back_up(namespace, waiting))
    other_instance = await stage.back_up(namespace, caller={"instance": "another"})
    assert other_instance.phase is Phase.COMPLETED
    assert get(testbed, "backup", waiting, "-n", OWN_NAMESPACE)["status"]["phase"] == "New"
    assert not second.done()
    testbed.kubectl("delete", "backup", held, "-n", OWN_NAMESPACE)
    with pytest.raises(DocumentGone):
        await first
    assert (await second).phase is Phase.COMPLETED
    assert held not in await stage.jobs()


async def test_a_dry_run_names_everything_that_is_in_the_way_and_takes_no_backup(
    testbed: Testbed, stage: Stage, namespace: str
) -> None:
    unbound = claim("unbound", "no-such-class")
    unsnapshottable = claim("data")
    unsnapshottable["metadata"]["annotations"] = {"strongroom.dev/snapshot-class": "no-such-class"}
    put(testbed, namespace, unbound, unsnapshottable)
    await volume_folder(testbed, namespace, "data")
    await stage.make_repository()  # where nobody has let the extension in
    await stage.extension.location(stage.location())
    hooks = [{"name": "freeze", "namespace": namespace}]
    status = await stage.back_up(namespace, selection={"backupHookReferences": hooks}, dryRun=True)
    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert {(each.code, each.target) for each in status.error.details} == {
        ("UserErrorGenericResourceNotFound", "spec.selection.backupHookReferences[0]"),
        ("UserErrorBackupStorageLocationNotReady", "spec.storageLocation"),
        ("UserErrorVolumeSnapshotClassNotFound", f"{namespace}/data"),
    }
    assert all(each.recommended_action for each in status.error.details)
    assert ("UserErrorPVCNotBoundToVolume", f"{namespace}/unbound") in {
        (each.code, each.resource) for each in status.warnings
    }
    assert await stage.jobs() == []


async def test_a_dry_run_of_what_works_completes(testbed: Testbed, stage: Stage, namespace: str) -> None:
    put(testbed, namespace, config_map("settings"), claim("data"))
    await volume_folder(testbed, namespace, "data")
    status = await stage.back_up(namespace, dryRun=True)
    assert (status.phase, status.error, status.warnings) == (Phase.COMPLETED, None, ())
    assert await stage.jobs() == []


async def test_a_backup_that_names_hooks_does_not_run_without_them(stage: Stage, namespace: str) -> None:
    hooks = [{"name": "freeze", "namespace": namespace}]
    status = await stage.back_up(namespace, selection={"backupHookReferences": hooks})
    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert status.error.code == "UserErrorGenericResourceNotFound"
    assert await stage.jobs() == []


async def test_a_repository_with_another_root_than_the_pinned_one_is_not_opened(stage: Stage, namespace: str) -> None:
    trusted = stage.location()
    await stage.make_repository()
    elsewhere = msgspec.structs.replace(trusted.spec, url=stage.url, repository_id=None)
    await stage.extension.location(msgspec.structs.replace(trusted, spec=elsewhere))
    status = await stage.back_up(namespace)
    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert "root key" in status.error.message


async def test_the_snapshots_of_a_point_go_after_it_was_deleted_and_not_before(
    testbed: Testbed, stage: Stage, namespace: str
) -> None:
    put(testbed, namespace, claim("data"))
    await volume_folder(testbed, namespace, "data")
    point = (await stage.back_up(namespace)).recovery_point_id
    repo = await stage.repository()
    (volume,) = (await repo.point(point)).manifest.volumes
    document = {**backup(new_name(), namespace), "kind": "DeleteBackup"}
    document["spec"] = {"storageLocation": LOCATION, "recoveryPointId": point}
    early = await stage.run(document)
    assert (early.phase, bool(early.error and "not condemned" in early.error.message)) == (Phase.FAILED, True)
    assert testbed.snapshot_path(volume.handle).exists()
    await delete_point(repo, point)
    status = await stage.run({**document, "metadata": {"name": new_name()}})
    assert isinstance(status, DeleteBackupStatus)
    assert (status.phase, status.deleted, status.not_deleted) == (Phase.COMPLETED, 1, ())
    assert not testbed.snapshot_path(volume.handle).exists()


async def test_the_child_ends_with_its_pipe_and_keeps_its_keys(stage: Stage) -> None:
    keys = await stage.extension.start()
    pid = stage.extension.pid
    assert pid is not None
    await stage.extension.location(stage.location())
    await stage.extension.stop()

    async def ended() -> bool:
        return not Path(f"/proc/{pid}").exists()

    await eventually(ended)
    assert not stage.extension.alive
    assert await stage.extension.start() == keys
