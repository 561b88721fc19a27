"""Hooks on a real node: a writer is frozen while its volume is cut, and thaws whatever happens."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from strongroom.dataplane.collector.collect import BackupRequest, BackupResult, Progress, collect
from strongroom.dataplane.hooks.errors import FreezeFailed, HookFailed
from strongroom.dataplane.hooks.freezing import BackupHooks
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.model import Manifest, Selection, VolumeEntry
from strongroom.dataplane.repository.repository import Repository
from strongroom.testbed.capsule import unsupported
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.options import Level, TestbedOptions

from .extension_stage import eventually as until
from .hooks_stage import (
    DATABASE,
    FREEZE,
    THAW,
    command,
    cut_numbers,
    goes_on,
    hook,
    hooks_of,
    intents,
    is_frozen,
    python,
    snapshots,
    start_database,
    thaws,
)
from .node_stage import claim, create, pod, run


@pytest.fixture
async def repo(tmp_path: Path, request: pytest.FixtureRequest) -> Repository:
    store = MemoryStore(request.node.name, create=True)
    _, key = await Repository.init(store, key_file=tmp_path / "key.json")
    return await Repository.open(store, KeyFile.load(key))


@pytest.fixture
async def api(node_testbed: Testbed) -> AsyncIterator[KubeApi]:
    async with KubeApi.from_kubeconfig(node_testbed.kubeconfig) as api:
        yield api


@pytest.fixture
def database(node_testbed: Testbed, node_namespace: str) -> str:
    """A namespace with the writer in it."""
    start_database(node_testbed, node_namespace)
    return node_namespace


async def back_up(
    api: KubeApi, repo: Repository, namespace: str, *entries: dict[str, Any], cap_s: float = 60.0, **more: Any
) -> BackupResult:
    # The intent lies in the test's own namespace: others use the same cluster.
    hooks = BackupHooks(hooks_of(*entries), namespace, cap_s=cap_s)
    request = BackupRequest(Selection(include_namespaces=(namespace,)), marker=False, hooks=hooks)
    return await collect(api, repo, request, **more)


def volume_of(manifest: Manifest, name: str) -> VolumeEntry:
    return next(entry for entry in manifest.volumes if entry.claim == name)


async def test_a_writer_is_frozen_while_its_volume_is_cut_and_goes_on(
    node_testbed: Testbed, database: str, api: KubeApi, repo: Repository
) -> None:
    create(node_testbed, database, claim("other"))
    run(node_testbed, database, pod("stranger", "sleep", "100000", claim="other"))
    seen: list[tuple[bool, list[str]]] = []

    def look(step: Progress) -> None:
        if step.phase == "snapshotting volumes":
            seen.append((is_frozen(node_testbed, database), intents(node_testbed, database)))

    result = await back_up(api, repo, database, DATABASE, progress=look)
    manifest = result.manifest
    assert (manifest.state, result.warnings) == ("Completed", ())
    assert seen == [(True, [f"freeze-{manifest.run}"])]
    left, right = cut_numbers(node_testbed, volume_of(manifest, "ledger").handle)
    assert left == right
    assert not volume_of(manifest, "ledger").crash_consistent
    assert volume_of(manifest, "other").crash_consistent
    assert manifest.hooks is not None
    assert (manifest.hooks.pods, manifest.hooks.commands, manifest.hooks.failed) == (1, 2, 0)
    assert manifest.hooks.frozen < manifest.instant.taken < manifest.hooks.thawed
    assert intents(node_testbed, database) == []
    goes_on(node_testbed, database)


async def test_a_pre_hook_that_must_not_fail_ends_the_backup_before_anything_is_cut_and_thaws_the_others(
    node_testbed: Testbed, database: str, api: KubeApi, repo: Repository
) -> None:
    refusing = hook("refusing", "db", [command("python3", "-c", "raise SystemExit('disk is full')")], [])
    with pytest.raises(HookFailed, match=r"refusing of shop/hooks in pod .*exit code 1: disk is full"):
        await back_up(api, repo, database, DATABASE, refusing)
    assert thaws(node_testbed, database) == 1
    goes_on(node_testbed, database)
    assert (snapshots(node_testbed, database), intents(node_testbed, database)) == ([], [])
    assert await repo.point_ids() == []


async def test_a_pre_hook_that_may_fail_is_a_warning_with_its_bounded_output(
    node_testbed: Testbed, database: str, api: KubeApi, repo: Repository
) -> None:
    script = "print('x' * 100_000); print('no space left'); raise SystemExit(7)"
    result = await back_up(api, repo, database, hook("loud", "db", [python(script, onError="Continue")], []))
    assert result.manifest.state == "Completed"
    (warning,) = result.warnings
    assert "exit code 7" in warning
    assert warning.endswith("no space left")
    assert len(warning) < 1000
    assert volume_of(result.manifest, "ledger").crash_consistent


async def test_a_pre_hook_that_does_not_end_in_its_time_counts_as_failed(
    node_testbed: Testbed, database: str, api: KubeApi, repo: Repository
) -> None:
    slow = hook("slow", "db", [python(FREEZE), python("import time; time.sleep(1000)", timeout="1s")], [python(THAW)])
    with pytest.raises(HookFailed, match="did not end within 1 s"):
        await back_up(api, repo, database, slow)
    goes_on(node_testbed, database)


async def test_at_the_cap_everything_thaws_and_what_is_cut_later_is_crash_consistent(
    node_testbed: Testbed, database: str, api: KubeApi, repo: Repository
) -> None:
    run(node_testbed, database, pod("slow", "sleep", "100000"))
    endless = hook("endless", "slow", [command("sleep", "1000", onError="Continue", timeout="5m")], [])
    result = await back_up(api, repo, database, DATABASE, endless, cap_s=2.0)
    manifest = result.manifest
    assert manifest.hooks is not None
    assert manifest.hooks.capped
    assert "did not end within" in result.warnings[0]
    assert "thawed after 2 s" in result.warnings[1]
    assert volume_of(manifest, "ledger").handle
    assert volume_of(manifest, "ledger").crash_consistent
    goes_on(node_testbed, database)


async def test_a_backup_that_is_cancelled_while_all_stands_still_thaws(
    node_testbed: Testbed, database: str, api: KubeApi, repo: Repository
) -> None:
    frozen = asyncio.Event()

    def look(step: Progress) -> None:
        if step.phase == "snapshotting volumes":
            assert is_frozen(node_testbed, database)
            frozen.set()

    backup = asyncio.create_task(back_up(api, repo, database, DATABASE, progress=look))
    await frozen.wait()
    backup.cancel()
    with pytest.raises(asyncio.CancelledError):
        await backup
    assert thaws(node_testbed, database) == 1
    goes_on(node_testbed, database)
    assert (snapshots(node_testbed, database), intents(node_testbed, database)) == ([], [])


async def test_a_post_hook_that_fails_is_told_and_the_recovery_point_is_partial(
    node_testbed: Testbed, database: str, api: KubeApi, repo: Repository
) -> None:
    broken = hook("broken", "db", [], [command("no-such-program")])
    result = await back_up(api, repo, database, DATABASE, broken)
    assert result.manifest.state == "Partial"
    assert "no-such-program" in result.warnings[0]
    assert not volume_of(result.manifest, "ledger").crash_consistent
    goes_on(node_testbed, database)
    assert intents(node_testbed, database) == []


async def test_without_a_written_intent_nothing_is_frozen(
    node_testbed: Testbed, database: str, api: KubeApi, repo: Repository
) -> None:
    hooks = BackupHooks(hooks_of(DATABASE), "no-such-namespace")
    request = BackupRequest(Selection(include_namespaces=(database,)), marker=False, hooks=hooks)
    with pytest.raises(FreezeFailed, match="nothing was frozen"):
        await collect(api, repo, request)
    assert thaws(node_testbed, database) == 0
    assert hooks.live == set()


async def test_a_hook_that_fits_no_pod_is_a_warning(
    node_testbed: Testbed, node_namespace: str, api: KubeApi, repo: Repository
) -> None:
    result = await back_up(api, repo, node_namespace, DATABASE)
    assert result.warnings == ("hook database of shop/hooks runs nowhere: no running pod fits it",)
    assert intents(node_testbed, node_namespace) == []


async def test_while_snapshots_hang_or_nobody_answers_applications_go_on_at_the_cap(
    own_testbed: Callable[..., Testbed], repo: Repository
) -> None:
    if reason := unsupported():
        pytest.skip(reason)
    cluster = own_testbed(TestbedOptions(level=Level.NODE))
    cluster.kubectl("create", "namespace", "shop")
    start_database(cluster, "shop")

    async def is_cutting() -> bool:
        return len(snapshots(cluster, "shop")) == 1

    async with KubeApi.from_kubeconfig(cluster.kubeconfig) as api:
        await asyncio.to_thread(cluster.stop, "csi-snapshotter", kill=True)
        backup = asyncio.create_task(back_up(api, repo, "shop", DATABASE, cap_s=4.0))
        await until(is_cutting)
        assert is_frozen(cluster, "shop")
        await asyncio.to_thread(goes_on, cluster, "shop")
        assert not backup.done()
        await asyncio.to_thread(cluster.start, "csi-snapshotter")
        result = await backup
        assert result.manifest.hooks is not None
        assert (result.manifest.hooks.capped, result.manifest.hooks.failed) == (True, 0)
        assert "thawed after 4 s" in result.warnings[0]
        assert volume_of(result.manifest, "ledger").handle
        assert volume_of(result.manifest, "ledger").crash_consistent

        await asyncio.to_thread(cluster.stop, "csi-snapshotter", kill=True)
        backup = asyncio.create_task(back_up(api, repo, "shop", DATABASE, cap_s=4.0))
        await until(is_cutting)
        assert is_frozen(cluster, "shop")
        await asyncio.to_thread(cluster.stop, "kube-apiserver", kill=True)
        # The thaw is due before the server is back, and gets through then, whatever becomes of the backup.
        await asyncio.to_thread(cluster.start, "kube-apiserver")
        await asyncio.to_thread(goes_on, cluster, "shop")
        await asyncio.to_thread(cluster.start, "csi-snapshotter")  # it also removes what the backup has begun
        backup.cancel()
        await asyncio.wait((backup,))
        assert intents(cluster, "shop") == []
        goes_on(cluster, "shop")
