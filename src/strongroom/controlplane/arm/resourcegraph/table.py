"""The operation of Resource Graph: reads a query, runs it over what the caller may read, answers a page."""

import time
from typing import Any, Final

from strongroom.controlplane.arm.bodies import ResourceGraphQuery
from strongroom.controlplane.arm.call import Call, Reply, listing
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.arm.kql import KqlError, KqlTooCostly, Query, parse
from strongroom.controlplane.arm.paging import MAX_PAGE, read_token, skip_token
from strongroom.controlplane.arm.resourcegraph.sources import Reader
from strongroom.controlplane.arm.resources.subscriptions import SUBSCRIPTIONS, visible
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.times import now
from strongroom.protection.errors import Refused, UserError

NAMESPACE: Final = "Microsoft.ResourceGraph"
MAX_SUBSCRIPTIONS: Final = 1000  # of one request, Azure's own limit


def search(call: Call) -> Reply:
    """Search resources, backup instances, policies and jobs across vaults and subscriptions, by a query in KQL.

    Tables: Resources (vaults, clusters, storage accounts, CSI snapshots) and RecoveryServicesResources (backup
    instances, soft-deleted ones, policies, jobs).
    """
    options = call.body.get("options", {})
    size, skip = _window(options)
    query = _parsed(call.body["query"])
    plane = call.plane
    with call.db.read() as tx:
        reader = Reader(
            tx,
            plane.authorizer.access(),
            call.principal.object_id,
            plane.tenant,
            _subscriptions(call, tx),
            query.conditions(),
            query.since(),
        )
        try:
            page, total = query.page(reader.rows(query.table), now=now(), skip=skip, size=size, clock=time.monotonic)
        except KqlError as error:
            raise _refused(error) from error
    more = skip + len(page) < total
    body: Json = {
        "totalRecords": total,
        "count": len(page),
        "data": _table(page) if options.get("resultFormat") == "table" else page,
        "facets": [],
        "resultTruncated": "true" if more else "false",
    }
    if more:
        body["$skipToken"] = skip_token({"skip": str(skip + len(page))})
    return Reply(200, body)


def _parsed(text: str) -> Query:
    try:
        return parse(text)
    except KqlError as error:
        raise _refused(error) from error


def _window(options: Json) -> tuple[int, int]:
    """Return how many rows a page has and how many come before it."""
    size, skip = options.get("$top", MAX_PAGE), options.get("$skip", 0)
    if not 1 <= size <= MAX_PAGE or skip < 0:
        raise ArmError(
            400,
            "BadRequest",
            f"options.$top must be from 1 to {MAX_PAGE}, options.$skip at least 0.",
            target="options",
        )
    token = read_token({"$skiptoken": options.get("$skipToken", "")})
    if token:
        before = token["skip"]
        if not (before.isascii() and before.isdigit() and len(before) <= 18):
            raise ArmError(400, "BadRequest", "options.$skipToken is none of this list's.", target="options.$skipToken")
        skip = int(before)
    return size, skip


def _subscriptions(call: Call, tx: Tx) -> tuple[str, ...]:
    """Return which subscriptions to search, in lower case: those asked for, or all; only what the caller may see."""
    asked = call.body.get("subscriptions", [])
    groups = call.body.get("managementGroups", [])
    if len(asked) > MAX_SUBSCRIPTIONS:
        raise ArmError(400, "BadRequest", f"At most {MAX_SUBSCRIPTIONS} subscriptions are searched at once.")
    if any(group.lower() != call.plane.tenant.lower() for group in groups):
        raise ArmError(400, "BadRequest", f"The only management group here is the tenant's own, {call.plane.tenant}.")
    seen = [r.name.lower() for r in tx.resources.of_type(SUBSCRIPTIONS) if visible(call, r)]
    if not asked:
        return tuple(seen)
    wanted = {one.strip().lower() for one in asked}
    found = tuple(one for one in seen if one in wanted)
    if not found:
        details = UserError(
            "NoValidSubscriptionsInQueryRequest",
            "There must be at least one subscription that is eligible to contain resources. Given: "
            f"'{', '.join(sorted(wanted))[:400]}'.",
        )
        raise Refused(UserError("BadRequest", "No given subscription can be searched.", details=(details,)))
    return found


def _refused(error: KqlError) -> Refused:
    """Return Azure's answer to a query that is refused: the last detail points at the token."""
    place = f"line {error.line}, column {error.column}"
    expected = f"; expected {', '.join(error.expected)}" if error.expected else ""
    if isinstance(error, KqlTooCostly):
        # No 5xx: the clients would send the same query again at once, three times.
        detail = UserError("QueryTooCostly", f"{place}: {error.problem}{expected}", target=error.token)
        message = f"The query was ended, since {error.problem}. Ask for {error.expected[0]}."
        return Refused(UserError("BadRequest", message, target="query", details=(detail,)))
    return Refused(
        UserError(
            "BadRequest",
            f"The query is not understood at {place}: {error.problem}{expected}.",
            target="query",
            details=(
                UserError("InvalidQuery", "Query is invalid: correct it and search again."),
                UserError("ParserFailure", f"{place}: {error.problem}{expected}", target=error.token or "end of query"),
            ),
        )
    )


def _table(page: list[dict[str, Any]]) -> Json:
    """Return rows in the form of `resultFormat: table`."""
    names = list(dict.fromkeys(name for one in page for name in one))
    columns = [{"name": name, "type": _kind([one.get(name) for one in page])} for name in names]
    return {"columns": columns, "rows": [[one.get(name) for name in names] for one in page]}


def _kind(values: list[Any]) -> str:
    found = next((value for value in values if value is not None), None)
    match found:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case dict() | list():
            return "object"
        case _:
            return "string"


def list_operations(call: Call) -> Reply:
    """List what role definitions can name of this provider."""
    display = {"provider": NAMESPACE, "resource": "resources", "operation": "Query", "description": "Search resources."}
    return listing([{"name": f"{NAMESPACE}/resources/read", "isDataAction": False, "display": display}])


OPERATIONS: Final = (
    Operation(
        "Resources",
        "POST",
        f"/providers/{NAMESPACE}/resources",
        "",
        search,
        shape(ResourceGraphQuery),
        safe=True,
        searches=True,
    ),
    Operation("ResourceGraphOperations_List", "GET", f"/providers/{NAMESPACE}/operations", "", list_operations),
)
