"""Reads the directory: the questions by which az and the SDKs resolve the principals of role assignments."""

from typing import Any, Final

from strongroom.controlplane.arm.bodies import DirectoryObjectsByIds
from strongroom.controlplane.arm.call import Call, Reply
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.identity.graph import Directory, answer
from strongroom.controlplane.identity.stored import TxPrincipals

V1: Final = "/v1.0"


def ask(call: Call) -> Reply:
    """Answer a question about the directory."""
    return Reply(*_answer(call, call.id, dict(call.query), call.body))


def get_application(call: Call) -> Reply:
    """Answer one application."""
    id = call.path["id"].replace("'", "''")
    _, page = _answer(call, f"{V1}/applications", {"$filter": f"id eq '{id}'"}, {})
    if not page.get("value"):
        raise missing(call.path["id"])
    return Reply(200, page["value"][0])


def missing(id: str) -> ArmError:
    return ArmError(404, "Request_ResourceNotFound", f"Resource '{id[:200]}' does not exist in the directory.")


def _answer(call: Call, path: str, query: dict[str, str], body: Json) -> tuple[int, dict[str, Any]]:
    with call.db.read() as tx:
        directory = Directory(TxPrincipals(tx), call.plane.tenant, call.plane.endpoint)
        return answer(directory, call.operation.method, path, query, body)


_PAGE: Final = ("$filter", "$top", "$skiptoken", "$select")


def _get(name: str, path: str, *query: str) -> Operation:
    return Operation(f"Graph_{name}", "GET", f"{V1}{path}", "", ask, query=query, needs_api_version=False)


OPERATIONS: Final = (
    _get("ListServicePrincipals", "/servicePrincipals", *_PAGE),
    _get("GetServicePrincipal", "/servicePrincipals/{id}"),
    _get("GetByAlternateKey", "/{key}"),
    _get("ListApplications", "/applications", *_PAGE),
    _get("ListUsers", "/users", *_PAGE),
    _get("ListGroups", "/groups", *_PAGE),
    _get("GetDirectoryObject", "/directoryObjects/{id}"),
    Operation("Graph_GetApplication", "GET", f"{V1}/applications/{{id}}", "", get_application, needs_api_version=False),
    Operation(
        "Graph_GetByIds",
        "POST",
        f"{V1}/directoryObjects/getByIds",
        "",
        ask,
        shape(DirectoryObjectsByIds),
        safe=True,
        needs_api_version=False,
    ),
)
