"""The server as a process: it says how to reach it, and signs in whoever it told."""

import ssl
import urllib.error
import urllib.request

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.mgmt.dataprotection import DataProtectionMgmtClient

from ..serving import RunningServer


def test_the_ready_file_is_for_its_owner_alone_and_its_secret_signs_in(server: RunningServer) -> None:
    ready = server.home.parent / "ready.json"
    assert ready.stat().st_mode & 0o777 == 0o600
    assert server.token().count(".") == 2


def test_an_official_client_is_served_over_tls(server: RunningServer) -> None:
    client = server.client(DataProtectionMgmtClient)
    with pytest.raises(ResourceNotFoundError) as refused:
        list(client.backup_vaults.get_in_resource_group("nowhere"))
    assert refused.value.error is not None
    assert refused.value.error.code == "ResourceGroupNotFound"


def test_without_a_token_there_is_health_and_nothing_else(server: RunningServer) -> None:
    trust = ssl.create_default_context(cafile=server.ready["caFile"])
    with urllib.request.urlopen(f"{server.url}/healthz", context=trust) as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.url}/subscriptions?api-version=2022-12-01", context=trust)
    assert refused.value.code == 401
    assert refused.value.headers["WWW-Authenticate"].startswith("Bearer authorization_uri=")


@pytest.mark.parametrize("path", ["//metadata/endpoints", "/metadata//endpoints/", "/metadata/endpoints/"])
def test_doubled_and_trailing_slashes_mean_nothing_where_no_token_is_needed(server: RunningServer, path: str) -> None:
    trust = ssl.create_default_context(cafile=server.ready["caFile"])
    with urllib.request.urlopen(f"{server.url}{path}?api-version=2022-09-01", context=trust) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", ["//subscriptions/{}/", "/subscriptions//{}", "/SUBSCRIPTIONS/{}//"])
def test_doubled_and_trailing_slashes_mean_nothing_in_an_id(server: RunningServer, path: str) -> None:
    status, answer = server.request("GET", f"{path.format(server.subscription)}?api-version=2022-12-01")
    assert (status, answer["id"]) == (200, f"/subscriptions/{server.subscription}")
