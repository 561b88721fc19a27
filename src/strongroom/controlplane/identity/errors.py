"""What identity refuses, with the codes and the wording of Azure, so that clients and scripts recognise it.

Azure answers these as plain ARM errors (`{"error": {"code", "message"}}`), without a UserFacingError. Texts were taken
from answers of the real service that users published.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from strongroom.errors import ExitCode, StrongroomError


class IdentityError(StrongroomError):
    """A request that identity refuses: the API answers HTTP *status* with *code* and the message."""

    exit_code = ExitCode.UNREACHABLE

    def __init__(self, code: str, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.status = status


class TokenRefused(IdentityError):
    """The bearer token is missing or does not identify a caller of this tenant; always HTTP 401."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(code, message, status=401, hint=hint)

    def challenge(self, authority: str) -> str:
        """Return the `WWW-Authenticate` header of the answer; *authority* is `https://HOST/TENANT`."""
        error = "" if self.code.startswith("AuthenticationFailed") else ', error="invalid_token"'
        # Parts of a refused token can be in the message, and quotes would end the header's string.
        text = "".join(c for c in self.message if " " <= c <= "~" and c not in '"\\')
        return f'Bearer authorization_uri="{authority}"{error}, error_description="{text}"'


class AccessDenied(IdentityError):
    """The caller is known and has no role that allows *action* at *scope*; always HTTP 403."""

    def __init__(self, code: str, message: str, *, action: str, scope: str) -> None:
        super().__init__(code, message, status=403)
        self.action = action
        self.scope = scope


class AssignmentRefused(IdentityError):
    """A role assignment that cannot be made."""


class ScopeInvalid(IdentityError):
    """A text that is no ARM scope."""

    def __init__(self, scope: str) -> None:
        super().__init__("InvalidScope", f"The scope '{scope[:200]}' is not valid.", status=400)


def header_missing() -> TokenRefused:
    return TokenRefused("AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")


def header_invalid() -> TokenRefused:
    return TokenRefused(
        "AuthenticationFailedInvalidHeader",
        "Authentication failed. The 'Authorization' header is provided in an invalid format.",
    )


def token_invalid(reason: str) -> TokenRefused:
    """*reason* says what is wrong with the token in our own words, and holds no part of it."""
    return TokenRefused("InvalidAuthenticationToken", f"The received access token is not valid: {reason}.")


def token_expired(expiry: datetime, now: datetime) -> TokenRefused:
    return TokenRefused(
        "ExpiredAuthenticationToken",
        f"The access token expiry UTC time '{_clock(expiry)}' is earlier than current UTC time '{_clock(now)}'.",
    )


def wrong_tenant(found: str, tenant_id: str, authority: str) -> TokenRefused:
    """*found* is the issuer in the token, *authority* where a token of this tenant is to be had."""
    return TokenRefused(
        "InvalidAuthenticationTokenTenant",
        f"The access token is from the wrong issuer '{found}'. It must match the tenant "
        f"'https://sts.windows.net/{tenant_id}/' associated with this subscription. "
        f"Please use the authority (URL) '{authority}' to get the token.",
    )


def wrong_audience(found: str, accepted: Sequence[str]) -> TokenRefused:
    named = ",".join(f"'{audience}'" for audience in accepted)
    return TokenRefused(
        "InvalidAuthenticationTokenAudience",
        f"The access token has been obtained for wrong audience or resource '{found[:200]}'. "
        f"It should exactly match with one of the allowed audiences {named}.",
    )


def authorization_failed(client_id: str, object_id: str, action: str, scope: str) -> AccessDenied:
    return AccessDenied(
        "AuthorizationFailed",
        f"The client '{client_id}' with object id '{object_id}' does not have authorization to perform action "
        f"'{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh "
        "your credentials.",
        action=action,
        scope=scope,
    )


def linked_authorization_failed(
    client_id: str, object_id: str, action: str, scope: str, linked: Sequence[tuple[str, str]]
) -> AccessDenied:
    """*linked* lists (action, scope) pairs that the caller lacks on resources the request refers to."""
    actions = ",".join(action for action, _ in linked)
    scopes = ",".join(scope for _, scope in linked)
    return AccessDenied(
        "LinkedAuthorizationFailed",
        f"The client '{client_id}' with object id '{object_id}' has permission to perform action '{action}' on scope "
        f"'{scope}'; however, it does not have permission to perform action(s) '{actions}' on the linked scope(s) "
        f"'{scopes}' (respectively) or the linked scope(s) are invalid.",
        action=actions,
        scope=scopes,
    )


def role_assignment_exists(name: str) -> AssignmentRefused:
    """*name* is the GUID of the assignment that already says the same."""
    return AssignmentRefused(
        "RoleAssignmentExists",
        f"The role assignment already exists. The ID of the existing role assignment is {name.replace('-', '')}.",
        status=409,
    )


def role_assignment_update_not_permitted() -> AssignmentRefused:
    return AssignmentRefused(
        "RoleAssignmentUpdateNotPermitted",
        "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
        status=409,
    )


def principal_not_found(principal_id: str, tenant_id: str) -> AssignmentRefused:
    # az retries while the text holds "does not exist in the directory".
    return AssignmentRefused(
        "PrincipalNotFound",
        f"Principal {principal_id.replace('-', '')} does not exist in the directory {tenant_id}. Check that you have "
        "the correct principal ID.",
        status=400,
    )


def principal_type_unmatched(principal_id: str, actual: str, given: str) -> AssignmentRefused:
    return AssignmentRefused(
        "UnmatchedPrincipalType",
        f"The PrincipalId '{principal_id.replace('-', '')}' has type '{actual}', which is different from specified "
        f"PrincipalType '{given}'.",
        status=400,
    )


def role_definition_missing(role_id: str) -> AssignmentRefused:
    return AssignmentRefused(
        "RoleDefinitionDoesNotExist",
        f"The specified role definition with ID '{role_id.replace('-', '')}' does not exist.",
        status=400,
    )


def role_not_assignable(role_name: str, scope: str) -> AssignmentRefused:
    return AssignmentRefused(
        "RoleDefinitionNotAssignable",  # ours: Azure's wording for the case was never observed
        f"The role '{role_name}' cannot be assigned at scope '{scope}': the scope is not among its assignable scopes.",
        status=400,
    )


def _clock(instant: datetime) -> str:
    """Azure writes instants in these texts as `11/23/2026 4:05:09 PM`."""
    utc = instant.astimezone(UTC)
    return f"{utc.month}/{utc.day}/{utc.year} {utc.hour % 12 or 12}:{utc:%M:%S %p}"
