"""The control plane's documents in a cluster: made once, followed through every outage, withdrawn for good."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.controlplane.clusters import documents
from strongroom.controlplane.clusters.errors import DocumentGone, DocumentTaken
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.config import load_kubeconfig
from strongroom.extension.api.documents import (
    Backup,
    BackupSpec,
    Kind,
    ObjectMeta,
    Restore,
    RestoreCriteria,
    RestoreSpec,
    Selection,
)
from strongroom.extension.api.status import BackupStatus, Phase, RestoreStatus, Status
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.faults import FaultProxy
from strongroom.testbed.faults_rules import DropReply, DropRequest, Expired, Rule
from strongroom.testbed.sharing import shared_testbed

from .extension_stage import OWN_NAMESPACE, config_map, eventually, get, put
from .watching_stage import WatchStage

SECONDS = 120.0  # a backup takes two; the machine may be busy with other tests


@pytest.fixture(scope="module")
def cluster(testbeds_folder: Path) -> Iterator[Testbed]:
    """A cluster of this file's own: definitions stand for the whole cluster."""
    with shared_testbed(testbeds_folder / "clusters-documents") as testbed:
        testbed.kubectl("create", "namespace", "shop")
        put(testbed, "shop", config_map("settings", colour="blue"))
        yield testbed


@pytest.fixture
async def stage(cluster: Testbed, tmp_path: Path) -> AsyncIterator[WatchStage]:
    built = await WatchStage.build(cluster, tmp_path)
    yield built
    built.stop(signal.SIGKILL)


def backup(name: str, **caller: str) -> Backup:
    selection = Selection(snapshot_volumes=False, include_cluster_scope_resources=False, included_namespaces=("shop",))
    spec = BackupSpec(storage_location="main", selection=selection, caller={"job": name, "instance": "i", **caller})
    return Backup(metadata=ObjectMeta(name=name), spec=spec)


def restore(name: str, point: str, target: str) -> Restore:
    criteria = RestoreCriteria(
        include_cluster_scope_resources=False, included_namespaces=("shop",), namespace_mappings={"shop": target}
    )
    spec = RestoreSpec(storage_location="main", recovery_point_id=point, criteria=criteria, caller={"job": name})
    return Restore(metadata=ObjectMeta(name=name), spec=spec)


async def ignored(_: Status) -> None:
    """Take a status that the test does not look at."""


async def followed(api: KubeApi, document: Backup | Restore) -> Any:
    """Make a document and return its final status."""
    uid = await documents.submit(api, document)
    async with asyncio.timeout(SECONDS):
        return await documents.follow(api, document.kind, document.name, uid, ignored)


async def test_a_withdrawn_backup_has_stopped_and_nothing_can_begin_under_its_name(
    stage: WatchStage, cluster: Testbed
) -> None:
    name = str(uuid.uuid4())
    async with KubeApi(load_kubeconfig(cluster.kubeconfig)) as api:
        with stage.running():
            await stage.locate()
            stage.doom("store packs/", "hold")
            uid = await documents.submit(api, backup(name))
            assert await documents.submit(api, backup(name, policy="another")) == uid, "what is remembered may differ"
            watched = asyncio.create_task(documents.follow(api, Kind.BACKUP, name, uid, ignored))

            async def held() -> bool:
                await asyncio.sleep(0)
                return not stage.fate.exists()

            await eventually(held)
            stone = await documents.withdraw(api, Kind.BACKUP, name)
            async with asyncio.timeout(SECONDS):
                status = await documents.follow(api, Kind.BACKUP, name, stone, ignored)
            assert status.phase is Phase.CANCELLED
            ends = [line for line in stage.log().splitlines() if "run ends" in line and name in line]
            assert len(ends) == 2, "first what ran, then what was put in its place"
            with pytest.raises(DocumentGone):
                await watched
            with pytest.raises(DocumentTaken):
                await documents.submit(api, backup(name))
            assert await documents.withdraw(api, Kind.BACKUP, name) == stone
            # Also what never was, and what nobody runs any more.
            for kind in (Kind.BACKUP, Kind.RESTORE):
                other = str(uuid.uuid4())
                uid = await documents.withdraw(api, kind, other)
                async with asyncio.timeout(SECONDS):
                    assert (await documents.follow(api, kind, other, uid, ignored)).phase is Phase.CANCELLED
            assert await stage.callers() == []
            # One that a cluster which was away kept: the instance's next one begins with its end.
            stage.doom("store packs/", "hold")
            orphan, following = str(uuid.uuid4()), backup(str(uuid.uuid4()))
            await documents.submit(api, backup(orphan))
            await eventually(held)
            await documents.withdraw_others(api, following)
            assert (await followed(api, following)).phase is Phase.COMPLETED
            assert [caller["job"] for caller in await stage.callers()] == [following.name]
            assert stage.get("backup", orphan)["spec"]["withdrawn"]


async def test_a_job_s_document_that_is_made_anew_is_the_same_work_through_every_outage(
    stage: WatchStage, cluster: Testbed
) -> None:
    job, target = str(uuid.uuid4()), f"shop-{uuid.uuid4().hex[:6]}"
    with stage.running():
        await stage.locate()
    with FaultProxy.for_cluster(cluster.kubeconfig) as proxy:
        kubeconfig = proxy.write_kubeconfig(stage.folder / "through")
        # What is asked is done, and its answer lost; then watches end in every way.
        rules = [
            Rule(DropReply(), method="POST", path="/backups", times=1),
            Rule(Expired(), path=r"/backups\?.*watch=true", times=1),
            Rule(DropRequest(), path=r"/backups\?.*watch=true", times=1),
            Rule(DropReply(), path=r"/backups\?.*limit=", times=1),
        ]
        for rule in rules:
            proxy.add(rule)
        async with KubeApi(load_kubeconfig(kubeconfig)) as api:
            following = asyncio.create_task(followed(api, backup(job)))

            async def all_happened() -> bool:
                return [rule.fired for rule in rules] == [1, 1, 1, 1]

            await eventually(all_happened)  # nobody carries the Backup out before
            stage.start()
            first = await following
            assert isinstance(first, BackupStatus)
            assert (first.phase, bool(first.recovery_point_id)) == (Phase.COMPLETED, True)
            stage.kubectl("delete", "backup", job)
            again = await followed(api, backup(job))
            assert again.recovery_point_id == first.recovery_point_id
            assert [caller["job"] for caller in await stage.callers()] == [job]

            made = await followed(api, restore(job, first.recovery_point_id, target))
            assert isinstance(made, RestoreStatus)
            stage.kubectl("delete", "restore", job)
            repeated = await followed(api, restore(job, first.recovery_point_id, target))
            assert (repeated.restore_id, repeated.phase) == (made.restore_id, Phase.COMPLETED)
            assert get(cluster, "configmap", "settings", "-n", target)["data"] == {"colour": "blue"}
            await documents.discard(api, Kind.RESTORE, job)
            await documents.discard(api, Kind.RESTORE, job)
            assert stage.get("restore", job) == {}
    assert OWN_NAMESPACE in stage.kubectl("get", "backup", job, "-o", "yaml")
    cluster.kubectl("delete", "namespace", target, "--wait=false")
