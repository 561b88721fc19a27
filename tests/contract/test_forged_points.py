"""Two clusters share a container; the extension of one signs a manifest that names an instance of the other."""

from collections.abc import AsyncIterator
from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.controlplane.clusters.hosted import ExtensionKeys
from strongroom.controlplane.state.schema import audit
from strongroom.controlplane.workflows.backing_up import BackingUp
from strongroom.controlplane.workflows.containers import Place, place_named
from strongroom.controlplane.workflows.memory_engine import MemoryEngine
from strongroom.controlplane.workflows.syncing import Syncing
from strongroom.controlplane.workflows.writers import remember_writer
from strongroom.dataplane.repository.keyfile import HolderKeys
from strongroom.dataplane.repository.repository import Repository
from strongroom.testbed.builders import back_up, config_map

from .arm_stage import POINT, Stage, bodies_of, open_stage
from .carrying_out import carried_out, services_of


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    opened = await open_stage(tmp_path)
    yield opened
    await opened.plane.pool.close()
    opened.db.close()


class Extension:
    """The keys of one, let into the container as `locate` does."""

    def __init__(self) -> None:
        self.identity = pyrage.x25519.Identity.generate()
        self.writer = Ed25519PrivateKey.generate()

    async def let_in(self, stage: Stage, place: Place, cluster: str) -> None:
        public = self.writer.public_key().public_bytes_raw()
        with stage.db.write() as tx:
            remember_writer(tx, cluster, public)
        await stage.plane.containers.allow(place, ExtensionKeys(str(self.identity.to_public()), public))

    async def back_up(self, stage: Stage, place: Place, **caller: str) -> str:
        containers = stage.plane.containers
        async with containers.store(place) as store:
            root = (await containers.keys(place, store)).root_public
            repository = await Repository.open(store, HolderKeys(root, str(self.identity), self.writer))
            said = {"tag": "Default", "retention": "P7D", "dataSource": stage.cluster, **caller}
            return (await back_up(repository, [config_map("a", "b")], caller=said))[1].id


async def test_a_point_counts_only_if_the_extension_of_the_instances_cluster_signed_it(stage: Stage) -> None:
    services, engine = services_of(stage), MemoryEngine()
    engine.register("sync-instance", Syncing(services).sync)
    instance = f"{stage.vault}/backupInstances/instance1"
    with stage.db.write() as tx:
        place = place_named(tx, f"{stage.account}/blobServices/default/containers/backups")
        tx.points.delete(instance, POINT)
    own, other, unknown = Extension(), Extension(), Extension()
    await own.let_in(stage, place, stage.cluster)
    await other.let_in(stage, place, f"{stage.cluster}2")
    # That it publishes the other's key too lets nobody sign with it, and does not take it from its owner.
    with stage.db.write() as tx:
        remember_writer(tx, f"{stage.cluster}2", own.writer.public_key().public_bytes_raw())
    await unknown.let_in(stage, place, "")
    honest = await own.back_up(stage, place, instance=instance)
    forged = [
        await other.back_up(stage, place, instance=instance),
        await unknown.back_up(stage, place, instance=instance),
    ]

    await stage.made("POST", f"{instance}/sync", {})
    await engine.launch()
    await carried_out(stage, engine, services)
    await engine.close()
    with stage.db.read() as tx:
        assert [point.id for point in tx.points.of_instance(instance)] == [honest]
        told = {row.scope.rpartition("/")[2]: row for row in tx.connection.execute(audit.select())}
    for point in forged:
        assert told[point].event == "RecoveryPointNotBelieved"
    assert f"signed by {stage.cluster.lower()}2" in told[forged[0]].detail
    assert honest not in told


async def test_a_job_does_not_end_with_the_point_that_another_cluster_says_is_its(stage: Stage) -> None:
    instance = f"{stage.vault}/backupInstances/instance1"
    await stage.made("POST", f"{instance}/backup", bodies_of(stage)["BackupInstances_AdhocBackup"])
    with stage.db.write() as tx:
        place = place_named(tx, f"{stage.account}/blobServices/default/containers/backups")
        (job,) = tx.jobs.running(instance)
    own, other = Extension(), Extension()
    await own.let_in(stage, place, stage.cluster)
    await other.let_in(stage, place, f"{stage.cluster}2")
    await other.back_up(stage, place, instance=instance, job=job.id)
    assert await BackingUp(services_of(stage))._committed(job.id, place) is None
    mine = await own.back_up(stage, place, instance=instance, job=job.id)
    found = await BackingUp(services_of(stage))._committed(job.id, place)
    assert found is not None
    assert found.id == mine
