"""Callers with a role on a part, who try for the rest: by paths, bodies, names, and by keeping threads busy."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from strongroom.controlplane.arm import turns
from strongroom.controlplane.arm.kql import evaluation
from strongroom.controlplane.identity.assignments import assign
from strongroom.controlplane.identity.principals import new_service_principal
from strongroom.controlplane.identity.rbac import RoleDefinition
from strongroom.controlplane.identity.roles import BACKUP_CONTRIBUTOR, CONTRIBUTOR
from strongroom.controlplane.identity.stored import TxPrincipals
from strongroom.controlplane.state.times import now
from strongroom.testbed import certificates

from .arm_stage import ENDPOINT, LOCATION, Stage, bodies_of, open_stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    opened = await open_stage(tmp_path)
    yield opened
    opened.db.close()


def caller(stage: Stage, role: RoleDefinition, scope: str) -> Stage:
    """Return the same stage as a new principal sees it that has *role* at *scope*."""
    record = new_service_principal("somebody", now=now())
    with stage.db.write() as tx:
        TxPrincipals(tx).put(record)
        assign(tx, role, record.object_id, scope, by="test", at=now())
    stage.plane.authorizer.forget()
    return replace(stage, token=stage.plane.tokens.mint(record, ENDPOINT, now=now()).text)


async def test_a_search_too_many_and_a_search_too_costly_are_refused_as_resource_graph_does(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, body = "/providers/Microsoft.ResourceGraph/resources", b'{"query": "Resources | order by name"}'
    monkeypatch.setattr(evaluation, "MAX_SECONDS", -1)
    costly = await stage.send("POST", path, body)
    assert (costly.status, costly.json()["error"]["code"]) == (400, "BadRequest")
    assert costly.json()["error"]["details"][0]["code"] == "QueryTooCostly"
    monkeypatch.setattr(turns, "MAX_OF_CALLER", 0)
    throttled = await stage.send("POST", path, body)
    assert (throttled.status, throttled.headers["retry-after"]) == (429, "5")
    assert throttled.json()["error"]["details"][0]["code"] == "RateLimiting"


async def test_points_of_one_instant_are_listed_page_by_page_and_the_vault_tells_of_the_recovery_kit(
    stage: Stage,
) -> None:
    instance = f"{stage.vault}/backupInstances/instance1"
    with stage.db.write() as tx:
        (first,) = tx.points.of_instance(instance)
        for number in range(4):
            tx.points.put(replace(first, id=f"tie{number}", doc={**first.doc, "name": f"tie{number}"}))
    listed, link = list[str](), f"{instance}/recoveryPoints?$top=2&api-version=2026-06-01"
    while link:
        path, _, query = link.removeprefix(ENDPOINT).partition("?")
        answer = (await stage.send("GET", path, query=query)).json()
        listed += [point["name"] for point in answer["value"]]
        link = answer.get("nextLink", "")
    assert sorted(listed) == sorted({first.id, "tie0", "tie1", "tie2", "tie3"})
    vault = await stage.made("GET", stage.vault)
    assert vault["properties"]["strongroomRecoveryKit"] == "NotTaken"
    with_it = {k: vault[k] for k in ("location", "properties", "identity", "tags") if k in vault}
    assert (await stage.send("PUT", stage.vault, json.dumps(with_it).encode())).status == 200, "it is read-only"


async def test_who_began_an_operation_polls_it_with_a_role_on_the_vault_alone(stage: Stage) -> None:
    own = caller(stage, BACKUP_CONTRIBUTOR, stage.vault)
    begun = await own.send("DELETE", f"{stage.vault}/backupInstances/instance1")
    assert begun.status == 202, begun.content
    for header in ("location", "azure-asyncoperation"):
        path = begun.headers[header].removeprefix(ENDPOINT).partition("?")[0]
        polled = await own.send("GET", path)
        assert polled.status in (200, 202), (header, polled.content)
        other = caller(stage, BACKUP_CONTRIBUTOR, f"{stage.vault}x")
        assert (await other.send("GET", path)).status == 403, header


SECONDS = 10.0


async def test_clusters_that_give_no_answer_keep_nobody_else_from_one(stage: Stage) -> None:
    """More connections than the API has threads, to an address that takes them and says nothing."""

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    body = json.dumps(connection(f"https://127.0.0.1:{port}")).encode()
    clusters = f"{stage.group}/providers/Microsoft.ContainerService/managedClusters"
    waiting = [asyncio.create_task(stage.send("PUT", f"{clusters}/silent{n}", body)) for n in range(50)]
    try:
        async with asyncio.timeout(SECONDS):
            while not held:  # noqa: ASYNC110 - the first one hangs
                await asyncio.sleep(0.01)
            assert (await stage.send("GET", stage.vault)).status == 200
        assert not any(task.done() for task in waiting)
    finally:
        server.close()
        for task in waiting:
            task.cancel()
        for writer in held:
            writer.close()
        await asyncio.gather(*waiting, return_exceptions=True)


def connection(server: str) -> dict[str, Any]:
    ca = base64.b64encode(certificates.make_authority("test").certificate).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": "u", "user": {"token": "c2VjcmV0"}}],
    }
    kubeconfig = base64.b64encode(json.dumps(config).encode()).decode()
    return {"location": LOCATION, "properties": {"strongroomConnection": {"kubeconfig": kubeconfig}}}


def account_in(group: str, name: str) -> str:
    return f"{group}/providers/Microsoft.Storage/storageAccounts/{name}"


async def test_the_name_of_a_deleted_account_gives_nobody_else_what_it_held(stage: Stage) -> None:
    theirs = f"/subscriptions/{stage.subscription}/resourceGroups/theirs"
    await stage.made("PUT", theirs, {"location": LOCATION})
    other = caller(stage, CONTRIBUTOR, theirs)
    body = bodies_of(stage)["StorageAccounts_Create"]
    await stage.made("PUT", account_in(stage.group, "shared"), body)
    await stage.made("PUT", f"{account_in(stage.group, 'shared')}/blobServices/default/containers/backups", {})
    await stage.made("DELETE", f"{account_in(stage.group, 'shared')}/blobServices/default/containers/backups")
    await stage.made("DELETE", account_in(stage.group, "shared"))
    taken = await other.send("PUT", account_in(theirs, "shared"), json.dumps(body).encode())
    assert (taken.status, taken.json()["error"]["code"]) == (409, "StorageAccountAlreadyTaken")
    assert stage.group not in taken.content.decode()
    await stage.made("PUT", account_in(stage.group, "shared"), body)
    await stage.made("DELETE", account_in(stage.group, "shared"))


async def test_a_role_at_what_was_deleted_does_not_hold_for_what_is_made_there_anew(stage: Stage) -> None:
    policy = f"{stage.vault}/backupPolicies/passing"
    container = f"{stage.account}/blobServices/default/containers/passing"
    for path, body in ((policy, bodies_of(stage)["BackupPolicies_CreateOrUpdate"]), (container, {})):
        await stage.made("PUT", path, body)
        before = caller(stage, CONTRIBUTOR, path)
        assert (await before.send("GET", path)).status == 200
        await stage.made("DELETE", path)
        await stage.made("PUT", path, body)
        assert (await before.send("GET", path)).status == 403, path


async def test_a_group_that_is_called_like_a_part_of_paths_opens_no_operation_of_another_group(stage: Stage) -> None:
    begun = await stage.send("DELETE", f"{stage.vault}/backupInstances/instance1")
    operation = begun.headers["azure-asyncoperation"].partition("?")[0].rpartition("/")[2]
    for name in ("operationStatus", "operationResults", "operations"):
        group = f"/subscriptions/{stage.subscription}/resourceGroups/{name}"
        await stage.made("PUT", group, {"location": LOCATION})
        path = f"{group}/providers/Microsoft.DataProtection/operationStatus/{operation}"
        assert (await stage.send("GET", path)).status == 404, name


async def test_who_has_no_role_does_not_learn_which_groups_and_subscriptions_there_are(stage: Stage) -> None:
    nobody = caller(stage, CONTRIBUTOR, "/subscriptions/00000000-0000-0000-0000-0000000000aa")
    absent = "/subscriptions/00000000-0000-0000-0000-0000000000bb"
    own = f"/subscriptions/{stage.subscription}"
    for there, not_there in (
        (f"{own}/resources", f"{absent}/resources"),
        (f"{own}/resourceGroups", f"{absent}/resourceGroups"),
        (f"{stage.group}/resources", f"{own}/resourceGroups/absent/resources"),
    ):
        answers = [await nobody.send("GET", path) for path in (there, not_there)]
        assert [(a.status, a.json()["error"]["code"]) for a in answers] == [(404, "SubscriptionNotFound")] * 2, there
    reader = caller(stage, CONTRIBUTOR, stage.vault)
    assert (await reader.send("GET", f"{stage.group}/resources")).status == 200


async def test_a_filter_that_is_not_understood_is_not_passed_over(stage: Stage) -> None:
    query = "api-version=2026-06-01&$filter=status%20eq%20'Failed'"
    answer = await stage.send("GET", f"{stage.vault}/backupJobs", query=query)
    assert (answer.status, answer.json()["error"]["code"]) == (501, "NotSupported")
