"""What is deleted, and what still stands behind it: running jobs, policies, bindings, the repository of a container."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from strongroom.controlplane.workflows import syncing
from strongroom.controlplane.workflows.dispatcher import Dispatcher
from strongroom.controlplane.workflows.engine import Steps, WorkflowCancelled
from strongroom.controlplane.workflows.following import finish as finish_job
from strongroom.controlplane.workflows.memory_engine import MemoryEngine
from strongroom.controlplane.workflows.protecting import Protecting
from strongroom.controlplane.workflows.syncing import Syncing
from strongroom.protection.job import JobStatus

from .arm_stage import Stage, bodies_of, finish, open_stage
from .carrying_out import carried_out, services_of


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    opened = await open_stage(tmp_path)
    yield opened
    await opened.plane.pool.close()
    opened.db.close()


async def soft_deleted(stage: Stage) -> str:
    """Delete the instance, and return what lists it now."""
    services, engine = services_of(stage), MemoryEngine()
    engine.register("delete-instance", Protecting(services, engine).delete)
    await stage.made("DELETE", f"{stage.vault}/backupInstances/instance1")
    await engine.launch()
    await carried_out(stage, engine, services)
    await engine.close()
    return f"{stage.vault}/deletedBackupInstances/instance1"


async def refused(stage: Stage, method: str, path: str) -> str:
    answer = await stage.send(method, path)
    assert answer.status == 400, answer.content
    return str(answer.json()["error"]["code"])


async def test_deleting_an_instance_cancels_what_runs_for_it(stage: Stage) -> None:
    services, engine = services_of(stage), MemoryEngine()
    began = asyncio.Event()

    async def endless(steps: Steps, job_id: str) -> None:
        async def work() -> None:
            began.set()
            await asyncio.Event().wait()

        try:
            await steps.run("back up", work)
        except WorkflowCancelled:
            await steps.run("cancel", lambda: finish_job(services, job_id, JobStatus.CANCELLED))

    engine.register("backup", endless)
    engine.register("delete-instance", Protecting(services, engine).delete)
    instance = f"{stage.vault}/backupInstances/instance1"
    await stage.made("POST", f"{instance}/backup", bodies_of(stage)["BackupInstances_AdhocBackup"])
    await engine.launch()
    dispatcher = Dispatcher(services, engine)
    await dispatcher.start()
    async with asyncio.timeout(60):
        await began.wait()
    await dispatcher.stop()
    await stage.made("DELETE", instance)
    await carried_out(stage, engine, services)
    await engine.close()
    with stage.db.read() as tx:
        assert tx.resources.get(instance) is None
        assert tx.resources.get(f"{stage.vault}/deletedBackupInstances/instance1")
        statuses = {job.status for job in tx.jobs.page(vault=stage.vault, limit=10)}
    assert statuses == {"Completed", "Cancelled"}


async def test_a_soft_deleted_instance_keeps_its_policy_and_comes_back_only_where_there_is_room(stage: Stage) -> None:
    deleted = await soft_deleted(stage)
    assert await refused(stage, "DELETE", f"{stage.vault}/backupPolicies/policy1") == "UserErrorDppPolicyObjectInUse"

    body = bodies_of(stage)["BackupInstances_CreateOrUpdate"]
    await stage.made("PUT", f"{stage.vault}/backupInstances/instance2", body)
    finish(stage, f"{stage.vault}/backupInstances/instance2", lambda r: r)
    code = await refused(stage, "POST", f"{deleted}/undelete")
    assert code == "UserErrorDppDatasourceAlreadyHasBackupInstance"
    limits = stage.plane.limits
    object.__setattr__(stage.plane, "limits", replace(limits, instances_per_vault=1))
    assert "Limit" in await refused(stage, "POST", f"{deleted}/undelete")
    object.__setattr__(stage.plane, "limits", limits)
    with stage.db.write() as tx:
        tx.resources.delete(f"{stage.vault}/backupInstances/instance2")
    await stage.made("POST", f"{deleted}/undelete")
    with stage.db.read() as tx:
        back = tx.resources.get(f"{stage.vault}/backupInstances/instance1")
    assert back is not None
    assert back.properties["currentProtectionState"] == "ProtectionStopped"


@pytest.mark.parametrize("unbound_before", [False, True])
async def test_a_deleted_vault_leaves_no_access_behind_not_even_to_one_of_its_name(
    stage: Stage, unbound_before: bool
) -> None:
    binding = f"{stage.cluster}/trustedAccessRoleBindings/binding1"
    with stage.db.write() as tx:
        tx.resources.delete(f"{stage.vault}/backupInstances/instance1")
    if unbound_before:
        await stage.made("DELETE", binding)
    await stage.made("DELETE", stage.vault)
    assert (await stage.made("GET", binding))["properties"]["provisioningState"] == "Deleting"
    with stage.db.read() as tx:
        assert [(o.kind, o.resource) for o in tx.operations.open()] == [("unbind-access", binding)]
    # The cluster does not answer, and the vault is made again.
    finish(stage, binding, lambda r: r.with_properties({"provisioningState": "Failed"}))
    await stage.made("PUT", stage.vault, bodies_of(stage)["BackupVaults_CreateOrUpdate"])
    await stage.made("PUT", f"{stage.vault}/backupPolicies/policy1", bodies_of(stage)["BackupPolicies_CreateOrUpdate"])
    body = json.dumps(bodies_of(stage)["BackupInstances_CreateOrUpdate"]).encode()
    answer = await stage.send("PUT", f"{stage.vault}/backupInstances/instance1", body)
    assert b"UserErrorTrustedAccessGatewayReturnedForbidden" in answer.content
    await stage.made("PUT", binding, bodies_of(stage)["TrustedAccessRoleBindings_CreateOrUpdate"])
    again = await stage.send("PUT", f"{stage.vault}/backupInstances/instance1", body)
    assert b"UserErrorTrustedAccessGatewayReturnedForbidden" not in again.content


async def test_a_synchronization_that_a_store_holds_up_ends(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncing, "SYNC_SECONDS", 0.2)
    services, engine = services_of(stage), MemoryEngine()

    class Hung(Syncing):
        async def _sync_place(self, *_: Any) -> None:
            await asyncio.Event().wait()

    engine.register("sync-instance", Hung(services).sync)
    answer = await stage.send("POST", f"{stage.vault}/backupInstances/instance1/sync", b"{}")
    assert answer.status == 202
    await engine.launch()
    await carried_out(stage, engine, services)
    await engine.close()
    status = await stage.made("GET", answer.headers["azure-asyncoperation"].partition(":8443")[2].partition("?")[0])
    assert (status["status"], status["error"]["code"]) == ("Failed", "OperationTimedOut")


async def test_the_repository_of_a_deleted_container_is_not_for_another(stage: Stage) -> None:
    container = f"{stage.account}/blobServices/default/containers/left"
    await stage.made("PUT", container, {})
    with stage.db.write() as tx:
        tx.secrets.put(f"container/{container.lower()}", b'{"repository":"r1","made":true}')
    await stage.made("DELETE", container)
    with stage.db.read() as tx:
        assert tx.secrets.get("repository-of/r1") == container.lower().encode()
        assert tx.secrets.get(f"container/{container.lower()}") is None
