"""The slice of Microsoft Graph that Azure's clients need to resolve the principals of role assignments.

Pure: takes the directory, returns (HTTP status, JSON). Who asks what: reference/azure-clients.md B.4, requirement 8.
Writing to the directory is not served.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard
from urllib.parse import quote

from strongroom.controlplane.identity.errors import IdentityError
from strongroom.controlplane.identity.principals import PrincipalKind, PrincipalRecord, PrincipalStore

PREFIXES: Final = ("/v1.0/", "/beta/")
DEFAULT_PAGE: Final = 100  # Graph's own
MAX_PAGE: Final = 999  # Graph's own
MAX_IDS: Final = 1000  # of one getByIds, Graph's own
MAX_FILTER_CHARACTERS: Final = 2000

Answer = tuple[int, dict[str, Any]]
_Test = Callable[[PrincipalRecord], bool]


class GraphRefused(IdentityError):
    """A request that Graph refuses."""


@dataclass(frozen=True, slots=True)
class Directory:
    """What answers need: who is in the directory, its tenant, and the URL that they are reached at."""

    store: PrincipalStore
    tenant_id: str
    endpoint: str


def answer(
    directory: Directory, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None = None
) -> Answer:
    """Answer *method* *path* (`/v1.0/servicePrincipals…`, decoded); *query* by name without regard to case.

    Never raises `IdentityError`: refusals are answers with Graph's error body.
    """
    try:
        return 200, _route(directory, method.upper(), path, {k.lower(): v for k, v in query.items()}, body or {})
    except GraphRefused as refused:
        return refused.status, {"error": {"code": refused.code, "message": refused.message}}


def _route(
    directory: Directory, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any]
) -> dict[str, Any]:
    prefix = next((one for one in PREFIXES if path.lower().startswith(one)), None)
    parts = path[len(prefix) :].rstrip("/").split("/") if prefix else []
    match (method, *(part.lower() for part in parts)):
        case ("GET", "serviceprincipals"):
            return _service_principals(directory, query)
        case ("GET", "serviceprincipals", object_id):
            return _service_principal(_found(directory, object_id), directory)
        case ("GET", "applications"):
            return _applications(directory, query)
        case ("POST", "directoryobjects", "getbyids" | "microsoft.graph.getbyids"):
            return _get_by_ids(directory, body)
        case ("GET", "directoryobjects", object_id):
            return _typed(_found(directory, object_id), directory)
        case ("GET", key) if alternate := _ALTERNATE.fullmatch(key):
            record = directory.store.get_by_app_id(alternate["app"])
            if record is None:
                raise _missing(alternate["app"])
            return _service_principal(record, directory)
        case ("GET", "users" | "groups") if _filter(query):
            # az looks for a user or group of that name before it gives up; there are none.
            return _page(directory, parts[0], [], query)
        case _:
            raise GraphRefused(
                "Request_BadRequest", f"{method} {path[:200]} is not served by this directory.", status=400
            )


_ALTERNATE: Final = re.compile(r"serviceprincipals\(appid='(?P<app>[0-9a-f-]{36})'\)")


def _service_principals(directory: Directory, query: Mapping[str, str]) -> dict[str, Any]:
    test = _parse_filter(_filter(query))
    found = [_service_principal(record, directory) for record in directory.store.list() if test(record)]
    return _page(directory, "servicePrincipals", found, query)


def _applications(directory: Directory, query: Mapping[str, str]) -> dict[str, Any]:
    """Managed identities are service principals without an application."""
    test = _parse_filter(_filter(query))
    found = [
        {
            "id": record.object_id,
            "appId": record.app_id,
            "displayName": record.name,
            "identifierUris": [],
            "createdDateTime": _instant(record),
            "signInAudience": "AzureADMyOrg",
            "passwordCredentials": [
                {
                    "keyId": secret.key_id,
                    "hint": secret.hint,
                    "secretText": None,
                    "startDateTime": f"{secret.created:%Y-%m-%dT%H:%M:%SZ}",
                    "endDateTime": f"{secret.expires:%Y-%m-%dT%H:%M:%SZ}" if secret.expires else None,
                }
                for secret in record.secrets
            ],
        }
        for record in directory.store.list()
        if record.kind is PrincipalKind.SERVICE_PRINCIPAL and test(record)
    ]
    return _page(directory, "applications", found, query)


def _get_by_ids(directory: Directory, body: Mapping[str, Any]) -> dict[str, Any]:
    ids, types = body.get("ids"), body.get("types") or ["directoryObject"]
    if not _texts(ids) or not _texts(types) or len(ids) > MAX_IDS:
        raise GraphRefused("Request_BadRequest", f"'ids' must be a list of at most {MAX_IDS} ids.", status=400)
    if not {"directoryobject", "serviceprincipal"} & {one.lower() for one in types}:
        return {"@odata.context": f"{directory.endpoint}/v1.0/$metadata#directoryObjects", "value": []}
    records = [directory.store.get_by_object_id(one) for one in dict.fromkeys(one.lower() for one in ids)]
    return {
        "@odata.context": f"{directory.endpoint}/v1.0/$metadata#directoryObjects",
        "value": [_typed(record, directory) for record in records if record is not None],
    }


def _found(directory: Directory, object_id: str) -> PrincipalRecord:
    record = directory.store.get_by_object_id(object_id)
    if record is None:
        raise _missing(object_id)
    return record


def _missing(id: str) -> GraphRefused:
    return GraphRefused(
        "Request_ResourceNotFound",
        f"Resource '{id[:200]}' does not exist or one of its queried reference-property objects are not present.",
        status=404,
    )


def _service_principal(record: PrincipalRecord, directory: Directory) -> dict[str, Any]:
    managed = record.kind is PrincipalKind.MANAGED_IDENTITY
    return {
        "id": record.object_id,
        "appId": record.app_id,
        "displayName": record.name,
        "appDisplayName": None if managed else record.name,
        "servicePrincipalNames": _names(record),
        "servicePrincipalType": "ManagedIdentity" if managed else "Application",
        "accountEnabled": True,
        "alternativeNames": ["isExplicit=False", record.resource_id] if managed else [],
        "appOwnerOrganizationId": None if managed else directory.tenant_id,
        "createdDateTime": _instant(record),
    }


def _typed(record: PrincipalRecord, directory: Directory) -> dict[str, Any]:
    return {"@odata.type": "#microsoft.graph.servicePrincipal", **_service_principal(record, directory)}


def _names(record: PrincipalRecord) -> list[str]:
    return [record.app_id]


def _instant(record: PrincipalRecord) -> str:
    return f"{record.created:%Y-%m-%dT%H:%M:%SZ}"


def _page(
    directory: Directory, collection: str, found: Sequence[dict[str, Any]], query: Mapping[str, str]
) -> dict[str, Any]:
    """Return one page, in the order of ids; the link to the next names the last id seen."""
    after = query.get("$skiptoken", "").lower()
    rest = [one for one in found if one["id"] > after]
    size = _size(query.get("$top", ""))
    page: dict[str, Any] = {
        "@odata.context": f"{directory.endpoint}/v1.0/$metadata#{collection}",
        "value": list(rest[:size]),
    }
    if len(rest) > size:
        link = f"{directory.endpoint}/v1.0/{collection}?$top={size}&$skiptoken={rest[size - 1]['id']}"
        page["@odata.nextLink"] = link + (f"&$filter={quote(_filter(query))}" if _filter(query) else "")
    return page


def _size(text: str) -> int:
    if not text:
        return DEFAULT_PAGE
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_PAGE:
        raise GraphRefused("Request_BadRequest", f"'$top' must be a number from 1 to {MAX_PAGE}.", status=400)
    return int(text)


def _filter(query: Mapping[str, str]) -> str:
    return query.get("$filter", "").strip()


def _texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


_VALUE: Final = r"'(?P<value>(?:[^']|'')*)'"
_CLAUSES: Final = (
    re.compile(rf"servicePrincipalNames/any\(\s*(?P<v>\w+)\s*:\s*(?P=v)\s+eq\s+{_VALUE}\s*\)", re.IGNORECASE),
    re.compile(rf"(?P<field>id|appId|displayName|servicePrincipalType)\s+eq\s+{_VALUE}", re.IGNORECASE),
    re.compile(rf"(?P<starts>startswith)\(\s*displayName\s*,\s*{_VALUE}\s*\)", re.IGNORECASE),
)
_JOIN: Final = re.compile(r"\s+(and|or)\s+", re.IGNORECASE)


def _parse_filter(text: str) -> _Test:
    """Return the test that *text* says: clauses joined by `and` (binds closer) and `or`; "" lets everybody through."""
    if len(text) > MAX_FILTER_CHARACTERS:
        raise _bad_filter(text)
    if not text:
        return lambda record: True
    alternatives: list[list[_Test]] = [[]]
    position = 0
    while True:
        matched = next((m for clause in _CLAUSES if (m := clause.match(text, position))), None)
        if matched is None:
            raise _bad_filter(text)
        alternatives[-1].append(_clause(matched.groupdict()))
        position = matched.end()
        if position == len(text):
            return lambda record: any(all(test(record) for test in tests) for tests in alternatives)
        join = _JOIN.match(text, position)
        if join is None:
            raise _bad_filter(text)
        if join[1].lower() == "or":
            alternatives.append([])
        position = join.end()


def _clause(groups: Mapping[str, str | None]) -> _Test:
    value = (groups.get("value") or "").replace("''", "'").lower()
    if groups.get("v"):
        return lambda record: value in [name.lower() for name in _names(record)]
    if groups.get("starts"):
        return lambda record: record.name.lower().startswith(value)
    match (groups.get("field") or "").lower():
        case "id":
            return lambda record: record.object_id == value
        case "appid":
            return lambda record: record.app_id == value
        case "displayname":
            return lambda record: record.name.lower() == value
        case _:
            return lambda record: value == ("managedidentity" if record.resource_id else "application")


def _bad_filter(text: str) -> GraphRefused:
    return GraphRefused("Request_UnsupportedQuery", f"Invalid filter clause: {text[:200]}", status=400)
