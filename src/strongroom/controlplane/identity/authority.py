"""The token authority's HTTP routes: discovery, JWKS and the token endpoint, at the paths Azure's clients ask for.

Which client asks for what: reference/azure-clients.md, section B.2. Nothing here needs a bearer token.
"""

import asyncio
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from math import ceil
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from strongroom.controlplane.identity import credentials, oauth
from strongroom.controlplane.identity.audit import AuditEvent, AuditKind, AuditTrail
from strongroom.controlplane.identity.oauth import OAuthRefused, TokenRequest
from strongroom.controlplane.identity.principals import PrincipalRecord, PrincipalStore
from strongroom.controlplane.identity.signin_limit import SignInLimit
from strongroom.controlplane.identity.tokens import TokenAuthority
from strongroom.controlplane.state.errors import StateUnavailable

_HASHING_THREADS: Final = 2  # a wrong secret costs 40 ms of a core and 16 MiB: guessing must not stop the API
_WAITING_SIGN_INS: Final = 100  # more wait for those threads no longer than four seconds; beyond it: busy

_TENANT_ALIASES: Final = frozenset({"adfs", "organizations", "common"})
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}

ADFS: Final = "adfs"


class AuthorityRoutes:
    """Answers for one tenant. *endpoints* are the `https://HOST:PORT` under which the server is reached, best first."""

    def __init__(
        self,
        *,
        tokens: TokenAuthority,
        principals: PrincipalStore,
        audit: AuditTrail,
        endpoints: Sequence[str],
        now: Callable[[], datetime],
        limit: SignInLimit | None = None,
    ) -> None:
        self._tokens = tokens
        self._principals = principals
        self._audit = audit
        self._endpoints = {urlsplit(endpoint).netloc.lower(): endpoint.rstrip("/") for endpoint in endpoints}
        self._default_endpoint = endpoints[0].rstrip("/")
        self._now = now
        self._limit = limit or SignInLimit()
        # Not the API's thread pool: sign-ins are open to anybody who reaches the port.
        self._hashing = ThreadPoolExecutor(_HASHING_THREADS, thread_name_prefix="sign-in")
        self._waiting = threading.BoundedSemaphore(_WAITING_SIGN_INS)

    def close(self) -> None:
        """Let running sign-ins finish and end their threads."""
        self._hashing.shutdown(wait=True, cancel_futures=True)

    def routes(self) -> list[Route]:
        """Return the routes to mount at the server's root, before those of ARM."""
        well_known = ".well-known/openid-configuration"
        discovery = [
            "/{tenant}/v2.0/" + well_known,
            "/{tenant}/" + well_known,
            # az: an authority that ends in /adfs, with tenant "adfs" appended
            "/{tenant}/adfs/v2.0/" + well_known,
            "/{tenant}/adfs/" + well_known,
        ]
        keys = ["/{tenant}/discovery/v2.0/keys", "/{tenant}/discovery/keys"]
        refused = ["oauth2/v2.0/devicecode", "oauth2/devicecode", "oauth2/v2.0/authorize", "oauth2/authorize"]
        return [
            Route("/common/discovery/instance", self._instance, methods=["GET"]),
            *(Route(path, self._discovery, methods=["GET"]) for path in discovery),
            *(Route(path, self._jwks, methods=["GET"]) for path in keys),
            Route("/{tenant}/oauth2/v2.0/token", self._token_v2, methods=["POST"]),
            Route("/{tenant}/oauth2/token", self._token_v1, methods=["POST"]),
            *(Route("/{tenant}/" + path, self._interactive, methods=["GET", "POST"]) for path in refused),
        ]

    async def _discovery(self, request: Request) -> Response:
        tenant = request.path_params["tenant"].lower()
        try:
            self._check_tenant(tenant)
        except OAuthRefused as refused:
            return self._refusal(refused, request)
        base = self._endpoint(request)
        adfs = tenant == ADFS
        root = f"{base}/adfs" if adfs else f"{base}/{self._tokens.tenant_id}"
        version = "" if adfs else "/v2.0"
        return JSONResponse(
            {
                # az takes the first path segment of the issuer as the tenant (azure-backup-for-aks.md, section 3.9).
                "issuer": root if adfs else self._tokens.issuer,
                "authorization_endpoint": f"{root}/oauth2{version}/authorize",
                "token_endpoint": f"{root}/oauth2{version}/token",
                "device_authorization_endpoint": f"{root}/oauth2{version}/devicecode",
                "jwks_uri": f"{root}/discovery{version}/keys",
                "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
                "grant_types_supported": ["client_credentials"],
                "response_types_supported": ["token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "claims_supported": ["aud", "iss", "iat", "nbf", "exp", "appid", "idtyp", "oid", "sub", "tid", "ver"],
                "tenant_region_scope": None,
                "cloud_instance_name": urlsplit(base).netloc,
            }
        )

    async def _instance(self, request: Request) -> Response:
        base = self._endpoint(request)
        asked = urlsplit(request.query_params.get("authorization_endpoint", "")).netloc.lower()
        if asked not in self._endpoints:
            refused = OAuthRefused("invalid_instance", 50049, "Unknown or invalid instance.")
            return self._refusal(refused, request)
        names = sorted(self._endpoints)
        return JSONResponse(
            {
                "tenant_discovery_endpoint": f"{base}/{self._tokens.tenant_id}/v2.0/.well-known/openid-configuration",
                "api-version": "1.1",
                "metadata": [{"preferred_network": asked, "preferred_cache": asked, "aliases": names}],
            }
        )

    async def _jwks(self, request: Request) -> Response:
        try:
            self._check_tenant(request.path_params["tenant"])
            return JSONResponse(await self._in_turn(self._current_keys))
        except OAuthRefused as refused:
            return self._refusal(refused, request)

    async def _interactive(self, request: Request) -> Response:
        return self._refusal(oauth.not_supported("Interactive sign-in"), request)

    async def _token_v1(self, request: Request) -> Response:
        # AD FS has this path alone, and answers numbers: az adds what it is told to the time.
        version = 2 if request.path_params["tenant"].lower() == ADFS else 1
        return await self._token(request, version=version)

    async def _token_v2(self, request: Request) -> Response:
        return await self._token(request, version=2)

    async def _token(self, request: Request, *, version: int) -> Response:
        address = request.client.host if request.client else ""
        basic = False
        try:
            self._check_tenant(request.path_params["tenant"])
            wanted = oauth.read_token_request(
                await _body(request), request.headers.get("content-type", ""), request.headers.get("authorization")
            )
            basic = wanted.basic
            answer = await self._in_turn(lambda: self._sign_in(wanted, address, version))
        except OAuthRefused as refused:
            return self._refusal(refused, request, basic=basic)
        return JSONResponse(answer, headers=_NO_STORE)

    async def _in_turn(self, work: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        if not self._waiting.acquire(blocking=False):
            raise oauth.busy()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._hashing, work)
        except StateUnavailable as error:
            raise oauth.busy() from error
        finally:
            self._waiting.release()

    def _current_keys(self) -> Mapping[str, Any]:
        now = self._now()
        self._tokens.keys.signing(now)  # makes the key that is due, so that it is published before it is used
        return self._tokens.keys.jwks(now)

    def _sign_in(self, wanted: TokenRequest, address: str, version: int) -> Mapping[str, Any]:
        """Return the token answer for whoever knows the secret. Runs in a thread; raises `OAuthRefused`."""
        now = self._now()
        record = self._principals.get_by_app_id(wanted.client_id)
        # Unknown applications share one count: a stream of invented ids must not push real ones out of the table.
        counted = record.app_id if record else ""
        wait = self._limit.wait(counted, address, now)
        if wait is not None:
            raise oauth.too_many_failures(ceil(wait.total_seconds()))
        try:
            if record is None:
                raise oauth.unknown_client(wanted.client_id, self._tokens.tenant_id)
            _check_secret(record, wanted.client_secret, now)
        except OAuthRefused as refused:
            last = self._limit.failed(counted, address, now)
            self._report(AuditKind.SIGN_IN_REFUSED, record, wanted, f"AADSTS{refused.number}", address, blocked=last)
            raise
        self._limit.succeeded(counted, address)
        audience = self._tokens.audiences.find(wanted.resource)
        if audience is None:
            self._report(AuditKind.SIGN_IN_REFUSED, record, wanted, "AADSTS500011", address)
            raise oauth.unknown_resource(wanted.resource, self._tokens.tenant_id)
        minted = self._tokens.mint(record, audience, now=now)
        self._report(AuditKind.SIGNED_IN, record, wanted, "", address)
        lifetime = int((minted.expires - now).total_seconds())
        if version == 2:
            return {
                "token_type": "Bearer",
                "expires_in": lifetime,
                "ext_expires_in": lifetime,
                "access_token": minted.text,
            }
        expires = int(minted.expires.timestamp())
        return {  # the v1 endpoint writes numbers as text
            "token_type": "Bearer",
            "expires_in": str(lifetime),
            "ext_expires_in": str(lifetime),
            "expires_on": str(expires),
            "not_before": str(int(now.timestamp())),
            "resource": audience,
            "access_token": minted.text,
        }

    def _report(
        self,
        kind: AuditKind,
        record: PrincipalRecord | None,
        wanted: TokenRequest,
        code: str,
        address: str,
        *,
        blocked: bool = False,
    ) -> None:
        parts = [f"address={address}", f"code={code}" if code else "", "blocked" if blocked else ""]
        self._audit.record(
            AuditEvent(
                kind,
                principal=record.object_id if record else wanted.client_id[:200],
                action="signIn",
                scope=wanted.resource[:200],
                detail=" ".join(part for part in parts if part),
            )
        )

    def _check_tenant(self, tenant: str) -> None:
        if tenant.lower() not in {self._tokens.tenant_id, *_TENANT_ALIASES}:
            raise oauth.unknown_tenant(tenant)

    def _endpoint(self, request: Request) -> str:
        """Return the base of the URLs to answer: the endpoint that was called, and never a name somebody made up."""
        return self._endpoints.get(request.headers.get("host", "").lower(), self._default_endpoint)

    def _refusal(self, refused: OAuthRefused, request: Request, *, basic: bool = False) -> Response:
        headers = dict(_NO_STORE)
        if refused.retry_after:
            headers["Retry-After"] = str(refused.retry_after)
        if basic and refused.status == 401:
            headers["WWW-Authenticate"] = f'Basic realm="{self._tokens.tenant_id}"'
        body = refused.body(
            now=self._now(),
            trace_id=str(uuid.uuid4()),
            correlation_id=oauth.correlation_id(request.headers.get("client-request-id")),
            authority=self._endpoint(request),
        )
        return JSONResponse(body, status_code=refused.status, headers=headers)


def _check_secret(record: PrincipalRecord, given: str, now: datetime) -> None:
    """Raise `OAuthRefused` unless *given* is a valid secret of *record*. Every secret is tried, in any case."""
    found = [secret for secret in record.secrets if credentials.matches(given, secret.hash)]
    if not found:
        raise oauth.wrong_secret(record.app_id)
    if not any(secret.valid_at(now) for secret in found):
        raise oauth.secret_expired(record.app_id)


async def _body(request: Request) -> bytes:
    """Return the body, reading no more than the longest that is accepted."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > oauth.MAX_BODY_BYTES:
            break  # read_form refuses it; the rest is not read
    return bytes(body)
