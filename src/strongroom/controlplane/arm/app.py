"""The HTTP side: takes a request apart, signs it in, authorises it, hands it to its operation, and answers.

Nothing past this module sees a request that is not authenticated and authorised. Handlers are synchronous and run in a
pool of threads; an unforeseen failure is logged with the request's id and answered without a word of our inside.
"""

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from strongroom.controlplane.arm.call import Call, Reply, encode
from strongroom.controlplane.arm.errors import ArmError
from strongroom.controlplane.arm.plane import Plane
from strongroom.controlplane.arm.routing import Found, Router, decode, scope_of
from strongroom.controlplane.arm.slashes import SingleSlashes
from strongroom.controlplane.arm.turns import SearchTurns
from strongroom.controlplane.identity.audit import AuditEvent, AuditKind
from strongroom.controlplane.identity.errors import (
    AccessDenied,
    IdentityError,
    TokenRefused,
    header_invalid,
    header_missing,
)
from strongroom.controlplane.identity.principals import Principal
from strongroom.controlplane.identity.refusals import Refusals
from strongroom.controlplane.identity.stored import DatabaseAudit
from strongroom.controlplane.state.errors import Conflict, StateUnavailable
from strongroom.controlplane.state.times import now
from strongroom.controlplane.workflows.facing import arm_error
from strongroom.errors import StrongroomError
from strongroom.protection.errors import Refused, UserError

log = logging.getLogger(__name__)

MAX_BODY: Final = 4 * 1024 * 1024  # ARM's own limit for a request
MAX_NOTED: Final = 1000  # characters of an action or a scope in the audit trail; ids end at about that
UNAVAILABLE_SECONDS: Final = 5  # a restarted database is back within seconds
WAITING: Final = 8  # requests at once that may wait for a cluster or a store; they hold no thread of the others
WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "DELETE"})


class ArmApp:
    """An ASGI application of the operations of *router*, below every path that no route of its own has."""

    def __init__(self, plane: Plane, router: Router) -> None:
        self._plane = plane
        self._router = router
        self._refusals = Refusals()
        self._audit = DatabaseAudit(plane.db)
        self._waiting = anyio.CapacityLimiter(WAITING)
        self._searches = SearchTurns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        request_id = str(uuid.uuid4())
        began = time.monotonic()
        try:
            reply = await self._answer(request, request_id)
        except ClientDisconnect:
            return
        headers = {
            "x-ms-request-id": request_id,
            "x-ms-correlation-request-id": _header(request, "x-ms-correlation-request-id") or request_id,
            "Cache-Control": "no-cache",
            **reply.headers,
        }
        if client_id := _header(request, "x-ms-client-request-id"):
            headers["x-ms-client-request-id"] = client_id
        log.info(
            "request method=%s path=%r status=%d request=%s ms=%.1f",
            request.method,
            request.url.path,
            reply.status,
            request_id,
            (time.monotonic() - began) * 1000,
        )
        empty = reply.body is None or reply.status == 204
        media = None if empty else "application/json; charset=utf-8"
        content = b"" if empty else encode(reply.body)
        await Response(content, reply.status, headers, media)(scope, receive, send)

    async def _answer(self, request: Request, request_id: str) -> Reply:
        always = "microsoft.dataprotection" in request.url.path.lower()
        principal = None
        try:
            # The token first: without one nobody learns which paths exist.
            principal = await anyio.to_thread.run_sync(self._sign_in, request)
            found = self._find(request)
            raw = b"" if request.method in WITHOUT_BODY else await _read(request)
            work = partial(self._carry_out, request, request_id, principal, found, raw)
            if found.operation.searches:
                async with self._searches.of(principal.object_id) as limiter:
                    return await anyio.to_thread.run_sync(work, limiter=limiter)
            return await anyio.to_thread.run_sync(work, limiter=self._waiting if found.operation.waits else None)
        except TokenRefused as error:
            address = request.client.host if request.client else ""
            await self._note(AuditEvent(AuditKind.TOKEN_REFUSED, "", "", "", f"{error.code} from {address}"))
            return self._unauthorised(error)
        except ClientDisconnect:
            raise
        except Exception as error:
            if isinstance(error, AccessDenied) and principal is not None:
                action, scope = error.action[:MAX_NOTED], error.scope[:MAX_NOTED]
                denied = AuditEvent(AuditKind.ACCESS_DENIED, principal.object_id, action, scope, error.code)
                await self._note(denied)
            status, user_error, headers = _described(error)
            if isinstance(error, StateUnavailable):
                # Every request meets it while the database is away: no trace for each.
                log.warning("the database did not answer request=%s reason=%r", request_id, error.reason)
            elif status >= 500 and not isinstance(error, ArmError):
                log.error("request failed request=%s", request_id, exc_info=error)
            # What mends it stands in no other field: elsewhere than in this namespace Azure has it where there is any.
            facing = always or bool(user_error.recommended_action)
            return Reply(status, {"error": arm_error(user_error, request_id, with_facing=facing)}, headers)

    def _sign_in(self, request: Request) -> Principal:
        header = _header(request, "authorization")
        kind, _, token = header.partition(" ")
        if not header:
            raise header_missing()
        if kind.lower() != "bearer" or not token.strip():
            raise header_invalid()
        return self._plane.tokens.verify(token.strip(), now=now())

    def _find(self, request: Request) -> Found:
        try:
            path = decode(request.scope.get("raw_path") or request.url.path.encode())
        except ValueError as error:
            raise ArmError(400, "InvalidRequestUri", f"The request's path is not acceptable: {error}.") from error
        found = self._router.find(request.method, path)
        if isinstance(found, set):
            methods = ", ".join(sorted(found))
            message = f"The HTTP method '{request.method}' is not supported at this path; it takes {methods}."
            raise ArmError(405, "HttpMethodNotSupported", message, headers={"Allow": methods})
        if found is None:
            raise ArmError(404, "InvalidResourceType", f"No resource or operation is known at the path '{path}'.")
        return found

    def _carry_out(self, request: Request, request_id: str, principal: Principal, found: Found, raw: bytes) -> Reply:
        operation = found.operation
        query = {k.lower(): v for k, v in request.query_params.items()}
        if operation.needs_api_version and not query.get("api-version"):
            raise ArmError(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.",
            )
        scope = scope_of(operation, found.path)
        self._authorise(principal, found, scope)
        headers = {k.lower(): v for k, v in request.headers.items()}
        key = None
        if operation.is_action:
            client_request = headers.get("x-ms-client-request-id", "")
            key = self._plane.replays.key(principal.object_id, request.method, request.url.path, raw, client_request)
        if key is not None and (known := self._replayed(key)):
            return known
        body = operation.body.read(raw, may_be_empty=operation.optional_body) if operation.body else {}
        call = Call(self._plane, operation, principal, found.path, query, headers, body, request_id, key)
        try:
            reply = operation.handler(call)
        except Conflict as error:
            # Another thread may have answered the very same request; else somebody changed the resource.
            if key is not None and (known := self._replayed(key)):
                return known
            raise ArmError(409, "Conflict", f"Another request changed this resource first: {error}") from error
        if request.method == "DELETE":
            # Role assignments at what was deleted went with it: they must not hold for what is made there anew.
            self._plane.authorizer.forget()
        if request.method not in {"GET", "HEAD"}:
            self._plane.poke()
        return reply

    def _authorise(self, principal: Principal, found: Found, scope: str) -> None:
        if not found.operation.action:
            return
        try:
            self._plane.authorizer.demand(principal, found.operation.action, scope)
        except AccessDenied:
            # Operations are polled at the location, where somebody with a role on one vault has none.
            if not (found.operation.polls and self._began(principal, found.path["operation"])):
                raise

    def _began(self, principal: Principal, operation: str) -> bool:
        with self._plane.db.read() as tx:
            found = tx.operations.get(operation)
        return found is not None and found.caller == principal.object_id

    def _replayed(self, key: str) -> Reply | None:
        with self._plane.db.read() as tx:
            return self._plane.replays.find(tx, key)

    async def _note(self, event: AuditEvent) -> None:
        """Write a refusal to the audit trail, or count it. That this fails makes no refusal a success."""
        if row := self._refusals.note(event, now()):
            try:
                await anyio.to_thread.run_sync(self._audit.record, row)
            except StateUnavailable as error:
                log.error("a refusal is missing in the audit trail: %s", event.detail, exc_info=error)

    def _unauthorised(self, error: TokenRefused) -> Reply:
        body = {"error": {"code": error.code, "message": error.message}}
        challenge = error.challenge(f"{self._plane.endpoint}/{self._plane.tenant}")
        return Reply(401, body, {"WWW-Authenticate": challenge})


def _described(error: Exception) -> tuple[int, UserError, Mapping[str, str]]:
    """Return status, error and headers for whatever went wrong."""
    if isinstance(error, ArmError):
        return error.status, error.error, error.headers
    if isinstance(error, Refused):
        return error.status, error.error, {}
    if isinstance(error, IdentityError):
        return error.status, UserError(error.code, error.message), {}
    if isinstance(error, StateUnavailable):
        unavailable = UserError(
            "ServiceUnavailable", "The service's database does not answer.", ("Repeat the request.",)
        )
        return 503, unavailable, {"Retry-After": str(UNAVAILABLE_SECONDS)}
    if isinstance(error, StrongroomError):
        # Typed, and worded for users; but no handler foresaw it here.
        return 500, UserError("InternalServerError", error.message, (error.hint,) if error.hint else ()), {}
    return 500, UserError("InternalServerError", "Strongroom met an error of its own; its log has the details."), {}


def _header(request: Request, name: str) -> str:
    """Return a header that goes back to the client or into the log: bounded, one line."""
    value = request.headers.get(name, "")
    if name == "authorization":
        return value
    return "".join(c for c in value[:128] if c.isprintable() and ord(c) < 127)


async def _read(request: Request) -> bytes:
    if (encoding := _header(request, "content-encoding").lower()) not in ("", "identity"):
        message = f"The request's content is encoded as '{encoding}'; send it without Content-Encoding."
        raise ArmError(415, "UnsupportedMediaType", message)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            message = f"The request's content is larger than {MAX_BODY} bytes."
            raise ArmError(413, "RequestEntityTooLarge", message)
        parts.append(part)
    return b"".join(parts)


def application(plane: Plane, router: Router, public: Sequence[BaseRoute]) -> Starlette:
    """Return the whole application: *public* routes (sign-in, metadata) that need no token, and ARM below all else."""

    async def healthy(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    app = Starlette(routes=[*public, Route("/healthz", healthy)])
    app.router.default = ArmApp(plane, router)
    # Clients do not follow redirects of POSTs.
    app.router.redirect_slashes = False
    app.add_middleware(SingleSlashes)
    return app
