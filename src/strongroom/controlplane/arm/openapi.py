"""Describes the API as an OpenAPI 3.1 document, made from the table of operations that answers it."""

import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final, Protocol

from strongroom.controlplane.arm import bodies
from strongroom.controlplane.arm.shapes import Schema, Shape, shape

Json = dict[str, Any]

_PARAMETER: Final = re.compile(r"\{\+?(\w+)\}")
_PROVIDER: Final = re.compile(r"/providers/([^/{]+)", re.IGNORECASE)
_JSON: Final = "application/json"
_NO_CONTENT: Final = frozenset({202, 204})  # ARM answers both without a body, and clients parse none
_ABOUT: Final = (
    "Backup of Kubernetes clusters, by the REST API of Azure Backup for AKS. Paths and JSON names are taken in any "
    "casing; unknown properties and explicit nulls are ignored; any api-version is accepted."
)
_QUERY: Final[Mapping[str, Schema]] = {"$top": {"type": "integer", "minimum": 1}}
_LONG_RUNNING_HEADERS: Final = {
    "Azure-AsyncOperation": {"description": "Where the operation's state is asked for.", "schema": {"type": "string"}},
    "Location": {"description": "Where its result is asked for.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds until the next question.", "schema": {"type": "string"}},
}


class Described(Protocol):
    """A row of the table of operations, as far as the document tells of it."""

    @property
    def name(self) -> str:
        """Azure's operation id."""

    @property
    def method(self) -> str:
        """GET, PUT and so on."""

    @property
    def path(self) -> str:
        """The path with `{name}` for one segment and `{+name}` for several."""

    @property
    def summary(self) -> str:
        """One sentence, or empty: then the handler's docstring has it."""

    @property
    def handler(self) -> Callable[..., Any]:
        """What answers."""

    @property
    def body(self) -> Shape | None:
        """The request's body."""

    @property
    def optional_body(self) -> bool:
        """Whether the request's body may be absent."""

    @property
    def query(self) -> tuple[str, ...]:
        """Query parameters besides api-version."""

    @property
    def needs_api_version(self) -> bool:
        """Whether a request must have an api-version."""

    @property
    def statuses(self) -> tuple[int, ...]:
        """All statuses besides those of errors."""


def document(
    operations: Iterable[Described], answers: Mapping[str, Shape], *, version: str, endpoint: str = "/"
) -> Json:
    """Return the OpenAPI 3.1 document of *operations*.

    *answers* are the bodies of successful answers by operation name. Errors stand as 4XX and 5XX, not as `default`:
    that would also cover a success that nobody declared. Raises ValueError for what a document cannot say: an operation
    id or a method and path twice, two paths that differ in the names of parameters only, two shapes with one name.
    """
    components: dict[str, Schema] = {}
    error = _reference(shape(bodies.ArmErrorResponse), components)
    paths: dict[str, Json] = {}
    shapes_of_paths: dict[str, str] = {}
    names: set[str] = set()
    tags: set[str] = set()
    for operation in operations:
        path = "/" + _PARAMETER.sub(r"{\1}", operation.path).lstrip("/")
        if operation.name in names:
            raise ValueError(f"two operations are called {operation.name}")
        names.add(operation.name)
        if shapes_of_paths.setdefault(_PARAMETER.sub("{}", path).lower(), path) != path:
            raise ValueError(f"two paths differ in the names of their parameters only: {path}")
        item = paths.setdefault(path, {})
        if operation.method.lower() in item:
            raise ValueError(f"two operations are {operation.method} {path}")
        tag = _tag(path)
        tags.add(tag)
        item[operation.method.lower()] = _operation(operation, answers.get(operation.name), tag, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Strongroom",
            "version": version,
            "description": _ABOUT,
        },
        "servers": [{"url": endpoint}],
        "security": [{"bearer": []}],
        "tags": [{"name": tag} for tag in sorted(tags)],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "parameters": {
                "ApiVersion": {
                    "name": "api-version",
                    "in": "query",
                    "required": True,
                    "schema": {"type": "string", "minLength": 1},
                    "example": "2026-06-01",
                }
            },
            "responses": {
                "Error": {
                    "description": "The request was refused, or failed: why, in a code and in words.",
                    "content": {_JSON: {"schema": error}},
                }
            },
            "schemas": dict(sorted(components.items())),
        },
    }


def _operation(operation: Described, answer: Shape | None, tag: str, components: dict[str, Schema]) -> Json:
    described: Json = {"operationId": operation.name, "tags": [tag]}
    summary, _, rest = (operation.summary or operation.handler.__doc__ or "").strip().partition("\n\n")
    if summary:
        described["summary"] = " ".join(summary.split())
    if rest:
        described["description"] = " ".join(rest.split())
    described["parameters"] = [
        *(
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in _PARAMETER.findall(operation.path)
        ),
        *([{"$ref": "#/components/parameters/ApiVersion"}] if operation.needs_api_version else []),
        *(
            {"name": name, "in": "query", "schema": dict(_QUERY.get(name, {"type": "string"}))}
            for name in operation.query
        ),
    ]
    if operation.body is not None:
        described["requestBody"] = {
            "required": not operation.optional_body,
            "content": {_JSON: {"schema": _reference(operation.body, components)}},
        }
    responses: Json = {}
    for status in sorted(operation.statuses):
        response: Json = {"description": HTTPStatus(status).phrase}
        if answer is not None and status not in _NO_CONTENT:
            response["content"] = {_JSON: {"schema": _reference(answer, components)}}
        if 202 in operation.statuses or (operation.method == "PUT" and status == 201):
            response["headers"] = dict(_LONG_RUNNING_HEADERS)
        responses[str(status)] = response
    for errors in ("4XX", "5XX"):
        responses[errors] = {"$ref": "#/components/responses/Error"}
    described["responses"] = responses
    return described


def _reference(body: Shape, components: dict[str, Schema]) -> Schema:
    schema, found = body.schema()
    for name, component in found.items():
        if components.setdefault(name, component) != component:
            raise ValueError(f"two shapes are called {name}")
    return schema


def _tag(path: str) -> str:
    """Return the namespace of the last provider in *path*: what an operation is grouped by."""
    found: list[str] = _PROVIDER.findall(path)
    return found[-1] if found else "Microsoft.Resources"
