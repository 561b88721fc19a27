"""The served OpenAPI document holds: Schemathesis asks every operation what the document allows, and what it does not.

STRONGROOM_EXAMPLES sets how many requests of each kind an operation gets.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from azure.mgmt.dataprotection import DataProtectionMgmtClient
from azure.mgmt.resource.resources import ResourceManagementClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from strongroom.controlplane.arm.answers import ANSWERS
from strongroom.controlplane.arm.openapi import document
from strongroom.controlplane.arm.table import OPERATIONS

from ..serving import RunningServer, running_server

EXAMPLES = int(os.environ.get("STRONGROOM_EXAMPLES", "2"))
CHECKS = [status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance]
MODES = ("positive", "negative")


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of these tests' own, with something in it to ask for: they delete and unregister what they meet."""
    with running_server(tmp_path_factory.mktemp("schemathesis")) as server:
        resources = server.client(ResourceManagementClient)
        for namespace in ("Microsoft.DataProtection", "Microsoft.Storage", "Microsoft.ContainerService"):
            resources.providers.register(namespace)
        resources.resource_groups.create_or_update("rg", {"location": "westus"})
        body = {
            "location": "westus",
            "identity": {"type": "SystemAssigned"},
            "properties": {"storageSettings": [{"datastoreType": "OperationalStore", "type": "LocallyRedundant"}]},
        }
        vaults: Any = server.client(DataProtectionMgmtClient).backup_vaults
        vaults.begin_create_or_update("rg", "vault1", body).result()
        yield server


@pytest.fixture(scope="module")
def session(own_server: RunningServer) -> Iterator[requests.Session]:
    with requests.Session() as opened:
        opened.verify = own_server.ready["caFile"]
        opened.headers["Authorization"] = f"Bearer {own_server.token()}"
        yield opened


@pytest.fixture(scope="module")
def schemas(own_server: RunningServer) -> dict[str, Any]:
    """The document as the server gives it to anybody, read by Schemathesis, once for each mode."""
    answer = requests.get(f"{own_server.url}/openapi.json", verify=own_server.ready["caFile"], timeout=30)
    assert answer.status_code == 200
    # In a header or a path NUL is no request of ours: uvicorn and clients refuse it.
    return {
        mode: schemathesis.openapi.from_dict(
            answer.json(), config=SchemathesisConfig.from_dict({"generation": {"allow-x00": False, "mode": mode}})
        )
        for mode in MODES
    }


def test_the_served_document_is_that_of_the_table(own_server: RunningServer, schemas: dict[str, Any]) -> None:
    served = schemas["positive"].raw_schema
    made = document(OPERATIONS, ANSWERS, version=served["info"]["version"], endpoint=own_server.url)
    assert served == json.loads(json.dumps(made))
    schemas["positive"].validate()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS])
def test_an_operation_answers_as_the_document_says(
    name: str, mode: str, schemas: dict[str, Any], session: requests.Session, own_server: RunningServer
) -> None:
    known = {
        "subscription": own_server.subscription,
        "group": "rg",
        "vault": "vault1",
        "location": "westus",
        "namespace": "Microsoft.DataProtection",
        "scope": f"subscriptions/{own_server.subscription}",
    }
    described = schemas[mode].find_operation_by_id(name)

    # The seed is the test's name: the same requests at every run.
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        case = data.draw(described.as_strategy())
        for parameter in list(case.path_parameters or {}):
            # What was generated names nothing that there is; the request is to get further than that.
            if parameter in known and data.draw(st.sampled_from((True, True, True, False))):
                case.path_parameters[parameter] = known[parameter]
        answer = case.call(session=session, base_url=own_server.url, verify=own_server.ready["caFile"])
        if answer.content and answer.status_code < 300:
            told = described.definition.raw["responses"].get(str(answer.status_code), {})
            assert "content" in told, f"a body where none is documented: {answer.content[:200]!r}"
        case.validate_response(answer, checks=CHECKS if refused(answer) else [not_a_server_error, *CHECKS])

    ask()


def refused(answer: Any) -> bool:
    """Tell whether an answer says that Azure has this and Strongroom has not: the one 5xx that is documented."""
    return bool(answer.status_code == 501 and answer.json()["error"]["code"] == "NotSupported")
