"""What clients read of a cloud before they sign in."""

import json
import ssl
import urllib.request
from typing import Any

import pytest

from strongroom.controlplane.arm.metadata.endpoints import document

from ..serving import RunningServer

B = "https://backup.example:8443"
T = "11111111-1111-1111-1111-111111111111"


def metadata(server: RunningServer, version: str) -> Any:
    trust = ssl.create_default_context(cafile=server.ready["caFile"])
    with urllib.request.urlopen(f"{server.url}/metadata/endpoints?api-version={version}", context=trust) as answer:
        return json.load(answer)


@pytest.mark.parametrize(("version", "kind"), [("2019-05-01", list), ("2022-09-01", dict), ("2024-01-01", dict)])
def test_az_finds_where_to_sign_in_without_a_token(server: RunningServer, version: str, kind: type) -> None:
    found = metadata(server, version)
    assert isinstance(found, kind)
    cloud = found[0] if isinstance(found, list) else found
    assert cloud["resourceManager"] == f"{server.url}/"
    assert cloud["authentication"]["loginEndpoint"] == f"{server.url}/"
    assert cloud["authentication"]["tenant"] == server.ready["tenantId"]
    assert f"{server.url}/" in cloud["authentication"]["audiences"]


def test_azure_stacks_powershell_gets_the_form_of_2015(server: RunningServer) -> None:
    found = metadata(server, "2015-01-01")
    assert set(found) == {"galleryEndpoint", "graphEndpoint", "portalEndpoint", "authentication"}
    assert found["authentication"]["audiences"][0] == server.url


def test_audiences_have_no_double_slash_when_a_scope_is_made_of_the_first() -> None:
    assert document(B, T, "2022-09-01")["authentication"]["audiences"][0] + "/.default" == f"{B}/.default"
