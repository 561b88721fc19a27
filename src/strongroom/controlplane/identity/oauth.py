"""Reads a token request and words its refusal, as OAuth 2.0 and Azure's token endpoint do.

Pure: takes the request's parts. Error numbers (AADSTS…) are those of Azure for the same case; scripts compare them.
"""

import base64
import binascii
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

from strongroom.controlplane.identity.credentials import MAX_SECRET_CHARACTERS
from strongroom.errors import ExitCode, StrongroomError

MAX_BODY_BYTES: Final = 16 * 1024  # MSAL sends 0.5 KiB; a client assertion, which we refuse, would have 2 KiB
_MAX_FIELDS: Final = 50
_DEFAULT: Final = "/.default"
_RETRY_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A client-credentials grant: who, and for which resource (the audience, as it was spelled)."""

    client_id: str
    client_secret: str = field(repr=False)
    resource: str
    basic: bool
    """The secret came in the Authorization header, not in the form."""


class OAuthRefused(StrongroomError):
    """A token request that is refused: *error* is OAuth's code, *number* Azure's, *status* the HTTP status."""

    exit_code = ExitCode.UNREACHABLE

    def __init__(self, error: str, number: int, text: str, *, status: int = 400, retry_after: int = 0) -> None:
        super().__init__(text)
        self.error = error
        self.number = number
        self.status = status
        self.retry_after = retry_after
        """Seconds after which to try again; 0: trying again will not help."""

    def body(self, *, now: datetime, trace_id: str, correlation_id: str, authority: str) -> dict[str, Any]:
        """Return the JSON of the answer, with the fields of Azure's."""
        stamp = now.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        return {
            "error": self.error,
            "error_description": f"AADSTS{self.number}: {self.message} Trace ID: {trace_id} "
            f"Correlation ID: {correlation_id} Timestamp: {stamp}",
            "error_codes": [self.number],
            "timestamp": stamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": f"{authority}/error?code={self.number}",
        }


def read_token_request(body: bytes, content_type: str, authorization: str | None) -> TokenRequest:
    """Return what is asked for. Raises `OAuthRefused`; texts never hold the secret."""
    form = read_form(body, content_type)
    grant = _required(form, "grant_type")
    if grant != "client_credentials":
        raise OAuthRefused(
            "unsupported_grant_type",
            70003,
            f"The app requested an unsupported grant type '{_shown(grant)}'. This authority grants "
            "'client_credentials' only.",
        )
    client_id, secret, basic = _client(form, authorization)
    return TokenRequest(client_id, secret, _resource(form), basic)


def read_form(body: bytes, content_type: str) -> Mapping[str, str]:
    """Return the fields of a form body. Raises `OAuthRefused` for another type, a bad one, or a repeated field."""
    if len(body) > MAX_BODY_BYTES:
        raise OAuthRefused("invalid_request", 90015, "The request is too long.")
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise _missing("grant_type")  # as Azure: what it cannot read has no fields
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict", separator="&"
        )
    except ValueError as error:  # UnicodeDecodeError too
        raise OAuthRefused("invalid_request", 900144, "The request body is not a form.") from error
    form: dict[str, str] = {}
    for name, value in pairs:
        if name in form:  # RFC 6749 section 3.2
            raise OAuthRefused("invalid_request", 90014, f"The field '{_shown(name)}' is given more than once.")
        form[name] = value
    return form


def audience_of(scope: str) -> str:
    """Return the resource that *scope* names: `X/.default` asks for `X`, `X//.default` for `X/`.

    Raises `OAuthRefused` for a scope without `/.default`, or with two resources.
    """
    wanted = [one for one in scope.split() if one not in ("openid", "profile", "offline_access", "email")]
    for one in wanted:
        if not one.lower().endswith(_DEFAULT) or len(one) == len(_DEFAULT):
            raise OAuthRefused(
                "invalid_scope",
                1002012,
                f"The provided value for scope {_shown(one)} is not valid. Client credential flows must have a scope "
                "value with /.default suffixed to the resource identifier (application ID URI).",
            )
    resources = {one[: -len(_DEFAULT)] for one in wanted}
    if len(resources) > 1:
        raise OAuthRefused(
            "invalid_scope",
            28000,
            "Provided value for the input parameter scope is not valid because it contains more than one resource.",
        )
    if not resources:
        raise _missing("scope")
    return resources.pop()


def unknown_resource(resource: str, tenant_id: str) -> OAuthRefused:
    return OAuthRefused(
        "invalid_resource",
        500011,
        f"The resource principal named {_shown(resource)} was not found in the tenant named {tenant_id}. "
        "Ask for the endpoint of this server, or for https://management.azure.com.",
    )


def unknown_tenant(tenant: str) -> OAuthRefused:
    return OAuthRefused(
        "invalid_request",
        90002,
        f"Tenant '{_shown(tenant)}' not found. Check to make sure you have the correct tenant ID and are signing into "
        "the correct cloud.",
    )


def unknown_client(client_id: str, tenant_id: str) -> OAuthRefused:
    return OAuthRefused(
        "unauthorized_client",
        700016,
        f"Application with identifier '{_shown(client_id)}' was not found in the directory '{tenant_id}'. This can "
        "happen if the application has not been installed by the administrator of the tenant.",
    )


def wrong_secret(client_id: str) -> OAuthRefused:
    return OAuthRefused(
        "invalid_client",
        7000215,
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not "
        f"the client secret ID, for a secret added to app '{_shown(client_id)}'.",
        status=401,
    )


def secret_expired(client_id: str) -> OAuthRefused:
    return OAuthRefused(
        "invalid_client",
        7000222,
        f"The provided client secret keys for app '{_shown(client_id)}' are expired. Make a new secret.",
        status=401,
    )


def too_many_failures(seconds: int) -> OAuthRefused:
    return OAuthRefused(
        "temporarily_unavailable",
        50053,
        f"Sign-in was blocked because of too many failed attempts. Try again in {seconds} seconds.",
        status=429,
        retry_after=seconds,
    )


def busy() -> OAuthRefused:
    return OAuthRefused(
        "temporarily_unavailable",
        90033,
        "A transient error has occurred. Please try again.",
        status=503,
        retry_after=_RETRY_SECONDS,
    )


def not_supported(what: str) -> OAuthRefused:
    return OAuthRefused(
        "unsupported_response_type",
        700054,
        f"{what} is not supported by this authority. Sign in with a client id and a client secret.",
    )


def correlation_id(given: str | None) -> str:
    """Return the caller's correlation id if it is a GUID, else a new one."""
    try:
        return str(uuid.UUID(given or ""))
    except ValueError:
        return str(uuid.uuid4())


def _client(form: Mapping[str, str], authorization: str | None) -> tuple[str, str, bool]:
    basic = _basic(authorization)
    if basic is not None:
        client_id, secret = basic
        # Two ways at once, and two identities at once: RFC 6749 section 2.3.
        if "client_secret" in form or form.get("client_id", client_id).lower() != client_id.lower():
            raise OAuthRefused("invalid_request", 90023, "The client authenticates in more than one way.")
    else:
        client_id = _required(form, "client_id")
        if "client_assertion" in form:
            raise OAuthRefused(
                "invalid_client",
                700027,
                "Client assertions are not supported by this authority. Use a client secret.",
                status=401,
            )
        secret = form.get("client_secret", "")
    if not secret:
        raise OAuthRefused(
            "invalid_client",
            7000218,
            "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
            status=401,
        )
    if len(secret) > MAX_SECRET_CHARACTERS:
        raise wrong_secret(client_id)
    return client_id, secret, basic is not None


def _basic(authorization: str | None) -> tuple[str, str] | None:
    """Return client id and secret of HTTP Basic (RFC 6749 section 2.3.1: both form-encoded), None without it."""
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, colon, secret = base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise OAuthRefused("invalid_client", 7000218, "The Basic credentials are malformed.", status=401) from error
    if not colon or not client_id:
        raise OAuthRefused("invalid_client", 7000218, "The Basic credentials are malformed.", status=401)
    return unquote_plus(client_id), unquote_plus(secret)


def _resource(form: Mapping[str, str]) -> str:
    if form.get("scope"):
        return audience_of(form["scope"])
    if form.get("resource"):
        return form["resource"]
    raise _missing("scope")


def _required(form: Mapping[str, str], name: str) -> str:
    value = form.get(name, "")
    if not value:
        raise _missing(name)
    return value


def _missing(name: str) -> OAuthRefused:
    return OAuthRefused("invalid_request", 900144, f"The request body must contain the following parameter: '{name}'.")


def _shown(text: str) -> str:
    """What a caller sent, fit for a message: printable, and short."""
    return "".join(c if c.isprintable() else "?" for c in text[:200])
