"""What the API answers about everything that can exist has the form that its OpenAPI document tells."""

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema_rs
import pytest

from strongroom.controlplane.arm.answers import ANSWERS
from strongroom.controlplane.arm.openapi import document
from strongroom.controlplane.arm.routing import fill, parameters
from strongroom.controlplane.arm.table import OPERATIONS

from .arm_stage import ENDPOINT, Stage, bodies_of, open_stage

DOCUMENT = document(OPERATIONS, ANSWERS, version="1", endpoint=ENDPOINT)
METHODS = ("get", "put", "patch", "post", "delete", "head")
# Asks for what a running server has and this stage has not, or for what Strongroom does not do.
NOT_THERE = frozenset({404, 501})


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    opened = await open_stage(tmp_path)
    yield opened
    opened.db.close()


def described(name: str) -> tuple[str, dict[str, Any]]:
    """Return where the document has an operation."""
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if item.get(method, {}).get("operationId") == name:
                return path, item[method]
    raise AssertionError(f"{name} is not in the document")


def problems_of(name: str, status: int, body: Any) -> list[str]:
    """Return how an answer differs from the document."""
    _, operation = described(name)
    response = operation["responses"].get(str(status)) or operation["responses"].get(f"{status // 100}XX")
    if response and "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    if response is None:
        return [f"{name}: the status {status} is not documented"]
    if body is None:
        return []
    if "content" not in response:
        return [f"{name}: a body where none is documented: {str(body)[:200]}"]
    schema = {**response["content"]["application/json"]["schema"], "components": DOCUMENT["components"]}
    found = jsonschema_rs.validator_for(schema).iter_errors(body)
    return [f"{name}: {'/'.join(map(str, each.instance_path))}: {each.message[:300]}" for each in found]


async def test_every_get_answers_in_the_documented_form(stage: Stage) -> None:
    problems: list[str] = []
    missing: set[str] = set()
    for operation in OPERATIONS:
        if operation.method != "GET":
            continue
        names = {name: stage.names.get(name, "x1") for name in parameters(operation.path)}
        answer = await stage.send("GET", quote(fill(operation.path, names)))
        if answer.status in NOT_THERE:
            missing.add(operation.name)
            continue
        problems += problems_of(operation.name, answer.status, answer.json() if answer.content else None)
    assert not problems, "\n".join(problems)
    expected = {"BackupVaults_Get", "BackupInstances_Get", "Jobs_Get", "RecoveryPoints_Get", "ManagedClusters_Get",
                "Extensions_Get", "TrustedAccessRoleBindings_Get", "StorageAccounts_GetProperties",
                "BlobContainers_Get", "BackupPolicies_Get", "Jobs_List", "ResourceGroups_Get"}  # fmt: skip
    assert not expected & missing


async def test_every_good_request_answers_in_the_documented_form(stage: Stage) -> None:
    start, problems, done = stage.dump(), [], set()
    for name, body in bodies_of(stage).items():
        operation = next((each for each in OPERATIONS if each.name == name), None)
        if operation is None:
            continue
        for new in (False, True):
            stage.rewind(start)
            names = {each: stage.names.get(each, "x1") for each in parameters(operation.path)}
            if new and parameters(operation.path)[-1:]:
                last = parameters(operation.path)[-1]
                names[last] = str(uuid.uuid4()) if last == "assignment" else "new1"
            answer = await stage.send(operation.method, quote(fill(operation.path, names)), json.dumps(body).encode())
            if answer.status < 300:
                done.add(name)
                problems += problems_of(name, answer.status, answer.json() if answer.content else None)
    assert not problems, "\n".join(problems)
    assert done == set(bodies_of(stage)) & {each.name for each in OPERATIONS}
