"""The edge of HTTP: what clients, proxies and PowerShell put around a request, and what they read around an answer."""

import gzip
import http.client
import json
import ssl
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from ..serving import RunningServer

POWERSHELL = "AzurePowershell/v15.0.0 (Linux 6.1.0) Az.DataProtection/3.0.1"
VAULT = {
    "location": "westus",
    "identity": {"type": "SystemAssigned"},
    "properties": {"storageSettings": [{"datastoreType": "OperationalStore", "type": "LocallyRedundant"}]},
}


@pytest.fixture
def connection(server: RunningServer) -> Iterator[http.client.HTTPSConnection]:
    address = urlsplit(server.url)
    trust = ssl.create_default_context(cafile=server.ready["caFile"])
    opened = http.client.HTTPSConnection(address.hostname or "", address.port, context=trust, timeout=20)
    yield opened
    opened.close()


@pytest.fixture
def group(server: RunningServer) -> str:
    path = f"/subscriptions/{server.subscription}/resourcegroups/http-{uuid.uuid4().hex[:8]}?api-version=2024-11-01"
    assert server.request("PUT", path, {"location": "westus"})[0] == 201
    return path


def asked(
    server: RunningServer,
    connection: http.client.HTTPSConnection,
    method: str,
    path: str,
    body: Any = None,
    **more: Any,
) -> tuple[http.client.HTTPResponse, Any]:
    """Send on *connection*; *more* are headers. Return the answer and its document, "" for an empty one."""
    headers = {
        "Authorization": f"Bearer {server.token()}",
        "Content-Type": "application/json",
        **more.pop("headers", {}),
    }
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, content, headers, **more)
    answer = connection.getresponse()
    text = answer.read()
    return answer, json.loads(text) if text else ""


@pytest.mark.parametrize(
    "accept", ["application/json; charset=utf-8", "application/json;odata=verbose, */*", "text/xml"]
)
def test_whatever_a_client_accepts_it_gets_json(
    server: RunningServer, connection: http.client.HTTPSConnection, group: str, accept: str
) -> None:
    answer, document = asked(server, connection, "GET", group, headers={"Accept": accept})
    assert (answer.status, document["location"]) == (200, "westus")
    assert answer.getheader("Content-Type") == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "text/json"},
        {"x-ms-authorization-auxiliary": "Bearer a.b.c; EncryptedBearer d.e.f"},
        {
            "x-ms-date": "Mon, 23 Nov 2026 18:00:00 GMT",
            "x-ms-return-client-request-id": "true",
            "Accept-Language": "en-US",
        },
    ],
)
def test_headers_that_say_nothing_to_us_are_no_reason_to_refuse(
    server: RunningServer, connection: http.client.HTTPSConnection, group: str, headers: dict[str, str]
) -> None:
    assert asked(server, connection, "PUT", group, {"location": "westus"}, headers=headers)[0].status == 200


def test_a_byte_order_mark_before_the_document_is_read_over(
    server: RunningServer, connection: http.client.HTTPSConnection, group: str
) -> None:
    body = b"\xef\xbb\xbf" + json.dumps({"location": "westus"}).encode()
    assert asked(server, connection, "PUT", group, body)[0].status == 200


def test_a_body_may_come_in_chunks(server: RunningServer, connection: http.client.HTTPSConnection, group: str) -> None:
    headers = {"Authorization": f"Bearer {server.token()}", "Transfer-Encoding": "chunked"}
    connection.request("PUT", group, iter([b'{"locat', b'ion": "westus"}']), headers, encode_chunked=True)
    assert connection.getresponse().status == 200


def test_an_encoded_body_is_refused_by_name(
    server: RunningServer, connection: http.client.HTTPSConnection, group: str
) -> None:
    body = gzip.compress(json.dumps({"location": "westus"}).encode())
    answer, document = asked(server, connection, "PUT", group, body, headers={"Content-Encoding": "gzip"})
    assert (answer.status, document["error"]["code"]) == (415, "UnsupportedMediaType")
    assert "gzip" in document["error"]["message"]


def test_who_waits_to_be_told_to_continue_is_told(server: RunningServer, group: str) -> None:
    address = urlsplit(server.url)
    trust = ssl.create_default_context(cafile=server.ready["caFile"])
    body = b'{"location": "westus"}'
    head = (
        f"PUT {group} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {server.token()}\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    waiting = http.client.HTTPSConnection(address.hostname or "", address.port, context=trust, timeout=20)
    waiting.connect()
    waiting.sock.sendall(head.encode())
    assert waiting.sock.recv(100).startswith(b"HTTP/1.1 100 ")
    waiting.sock.sendall(body)
    assert waiting.sock.recv(100).startswith(b"HTTP/1.1 200 ")
    waiting.close()


def test_one_connection_serves_every_kind_of_answer_in_turn(
    server: RunningServer, connection: http.client.HTTPSConnection, group: str
) -> None:
    """No answer leaves bytes behind that the next one would begin with; nor does a body that nobody read."""
    missing = group.replace("http-", "gone-")
    nowhere = f"/subscriptions/{uuid.uuid4()}/resourcegroups/x?api-version=2024-11-01"
    expected = [
        ("HEAD", group, None, 204),
        ("HEAD", missing, None, 404),
        ("HEAD", nowhere, None, 404),
        ("OPTIONS", group, None, 405),
        ("GET", group, {"ignored": "body"}, 200),
        ("PUT", missing, {"location": 7}, 400),
        ("POST", nowhere, {"unread": "x" * 100_000}, 405),
        ("DELETE", missing, {"ignored": "body"}, 404),
        ("GET", group, None, 200),
    ]
    asked(server, connection, *expected[0][:3])
    socket = connection.sock
    for method, path, body, status in expected:
        assert asked(server, connection, method, path, body)[0].status == status, (method, path)
    assert connection.sock is socket, "the connection was kept"


def test_a_refused_token_keeps_the_connection_usable(
    server: RunningServer, connection: http.client.HTTPSConnection, group: str
) -> None:
    refused = asked(server, connection, "PUT", group, {"location": "westus"}, headers={"Authorization": "Bearer x.y.z"})
    assert refused[0].status == 401
    assert asked(server, connection, "GET", group)[0].status == 200


def test_powershell_reads_whole_seconds_and_returns_what_it_was_given(
    server: RunningServer, connection: http.client.HTTPSConnection, group: str
) -> None:
    """Its cmdlets parse Retry-After as an integer, and hand signature parameters in a URL back untouched."""
    path = group.partition("?")[0] + "/providers/Microsoft.DataProtection/backupVaults/vault1?api-version=2026-06-01"
    register = (
        f"/subscriptions/{server.subscription}/providers/Microsoft.DataProtection/register?api-version=2024-11-01"
    )
    headers = {"User-Agent": POWERSHELL}
    asked(server, connection, "POST", register, headers=headers)
    answer, _ = asked(server, connection, "PUT", path, VAULT, headers=headers)
    assert (answer.status, answer.getheader("Retry-After")) == (201, "1")
    poll = (answer.getheader("Azure-AsyncOperation") or "").removeprefix(server.url)
    polled, status = asked(server, connection, "GET", f"{poll}&t=638&c=MIIHpTCC&s=a_b-c&h=d", headers=headers)
    assert (polled.status, status["status"]) == (200, "Succeeded")
    assert (polled.getheader("Retry-After") or "0").isdigit()
    deleted, _ = asked(server, connection, "DELETE", path, headers=headers)
    assert (deleted.status, deleted.getheader("Retry-After")) == (202, "1")
    location = (deleted.getheader("Location") or "").removeprefix(server.url)
    assert asked(server, connection, "GET", location, headers=headers)[0].status == 200


def test_powershell_finds_a_vault_by_its_name_alone_in_the_subscription(
    server: RunningServer, connection: http.client.HTTPSConnection, group: str
) -> None:
    base = group.partition("?")[0]
    name = f"vault-{uuid.uuid4().hex[:8]}"
    register = (
        f"/subscriptions/{server.subscription}/providers/Microsoft.DataProtection/register?api-version=2024-11-01"
    )
    asked(server, connection, "POST", register)
    path = f"{base}/providers/Microsoft.DataProtection/backupVaults/{name}?api-version=2026-06-01"
    assert asked(server, connection, "PUT", path, VAULT)[0].status == 201
    listing = (
        f"/subscriptions/{server.subscription}/providers/Microsoft.DataProtection/backupVaults?api-version=2026-06-01"
    )
    found = [vault for vault in asked(server, connection, "GET", listing)[1]["value"] if vault["name"] == name]
    assert [vault["location"] for vault in found] == ["westus"]
    assert found[0]["id"].split("/")[4] == base.split("/")[4], "the group is the fifth part of its id"


@pytest.mark.parametrize(
    "query",
    [
        # Search-AzDataProtectionJobInAzGraph: as the CLI's, but an end time is an upper bound.
        "RecoveryServicesResources | where type =~ 'microsoft.dataprotection/backupvaults/backupjobs'"
        "| extend vaultName = properties.vaultName| extend status = properties.status| extend operation = case( "
        "tolower(properties.operationCategory) startswith 'backup' and properties.isUserTriggered == 'true', "
        "strcat('OnDemand',properties.operationCategory), tolower(properties.operationCategory) startswith 'backup' "
        "and properties.isUserTriggered == 'false', strcat('Scheduled', properties.operationCategory), "
        "type =~ 'microsoft.dataprotection/backupVaults/backupJobs', properties.operationCategory, 'Invalid')"
        "| extend datasourceId = properties.dataSourceId"
        " | where properties.dataSourceType in~ ('Microsoft.ContainerService/managedClusters')"
        " | where resourceGroup in~ ('rg') | where vaultName in~ ('v') | where operation in~ ('OnDemandBackup')"
        " | where status in~ ('Completed') | where properties.startTime > datetime(2023-06-16T01:00:00.0000000Z)"
        " | where properties.endTime < datetime(2099-06-16T01:00:00.0000000Z)",
        # Search-AzDataProtectionBackupInstanceInAzGraph
        "RecoveryServicesResources | where type =~ 'microsoft.dataprotection/backupvaults/backupinstances'"
        "| extend vaultName = split(split(id, '/Microsoft.DataProtection/backupVaults/')[1],'/')[0]"
        "| extend protectionState = properties.currentProtectionState"
        " | where properties.dataSourceInfo.datasourceType in~ ('Microsoft.ContainerService/managedClusters')"
        " | where protectionState in~ ('ProtectionConfigured','ProtectionStopped')"
        " | where id in~ ('a') | where name in~ ('b')",
        # Search-AzDataProtectionBackupVaultInAzGraph
        "Resources | where type =~ 'microsoft.dataprotection/backupvaults' | where resourceGroup in~ ('rg')",
        # Soft-deleted backup instances
        "RecoveryServicesResources "
        "| where type =~ 'Microsoft.DataProtection/locations/deletedvaults/deletedbackupinstances'"
        "| extend dataSourceType = strcat(properties.dataSourceSetInfo.datasourceType)"
        "| project id, type, name, location, resourceGroup, subscriptionId, dataSourceType, properties",
    ],
    ids=["jobs", "instances", "vaults", "soft-deleted"],
)
def test_the_queries_of_powershell_are_understood(
    server: RunningServer, connection: http.client.HTTPSConnection, query: str
) -> None:
    path = "/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01"
    body = {"subscriptions": [server.subscription], "query": query, "options": {"resultFormat": "objectArray"}}
    answer, found = asked(server, connection, "POST", path, body, headers={"User-Agent": POWERSHELL})
    assert (answer.status, found["data"]) == (200, []), found
