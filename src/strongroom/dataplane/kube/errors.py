"""What can go wrong between us and an API server, grouped by what the caller should do next.

An answer of the server becomes one of these in `error_of_answer`, and nowhere else; connection failures become
`KubeUnreachable` in `transport.py`. The mapping follows the reasons of a `metav1.Status`
(k8s.io/apimachinery, pkg/apis/meta/v1/types.go) and falls back to the HTTP status where a proxy answered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from strongroom.errors import ExitCode, StrongroomError

MESSAGE_LIMIT = 2000  # characters kept of an answer that is no Status: a proxy may send a whole web page


@dataclass(frozen=True, slots=True)
class Cause:
    """One entry of a Status' `details.causes`: a machine-readable *reason*, the *field* it is about, a *message*."""

    reason: str
    field: str
    message: str


class KubeError(StrongroomError):
    """A request to a Kubernetes API server failed.

    *verb* is the API verb (`list`, `create`, …), *path* the request's path without its query, *status* the HTTP
    status or None where none came. *reason*, *detail* and *causes* are the server's own words (Status.reason,
    Status.message, Status.details.causes), empty where it gave none. *after_retry* says that an earlier attempt of
    the same call was sent and got no clear answer: the server may have carried it out already.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        verb: str = "",
        path: str = "",
        status: int | None = None,
        reason: str = "",
        detail: str = "",
        causes: Sequence[Cause] = (),
        resource: str = "",
        after_retry: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.verb = verb
        self.path = path
        self.status = status
        self.reason = reason
        self.detail = detail
        self.causes = tuple(causes)
        self.resource = resource
        self.after_retry = after_retry
        self.retry_after_s = retry_after_s


class KubeUnreachable(KubeError):
    """No answer came, or it broke off, also after retries; the same call may succeed later.

    With *after_retry* the request was sent at least once: a write may have happened.
    """

    exit_code = ExitCode.UNREACHABLE


class KubeAddressRefused(KubeError):
    """We may not connect to the address that the server's name stands for: nothing was sent."""

    exit_code = ExitCode.USAGE


class KubeUnauthorized(KubeError):
    """The server does not accept our credentials (401)."""

    exit_code = ExitCode.UNREACHABLE


class KubeForbidden(KubeError):
    """The credentials are good and the permission is missing (403): *verb* on *resource* (`deployments.apps`)."""

    exit_code = ExitCode.UNREACHABLE


class KubeNotFound(KubeError):
    """The object, or the kind itself, is not there (404)."""


class KubeConflict(KubeError):
    """The object changed since it was read, or another field manager owns a field (409 Conflict): read, then decide."""


class KubeAlreadyExists(KubeError):
    """An object of that name is there (409 AlreadyExists). With *after_retry* it may be the one we just created."""


class KubeInvalid(KubeError):
    """The server refuses the object's content (422); *causes* name the fields."""


class KubeBadRequest(KubeError):
    """The server refuses the request itself (400, 405, 406, 413, 415 and other 4xx): repeating it will not help."""


class KubeExpired(KubeError):
    """The revision is compacted away, or a continue token is too old (410): take a new revision."""


class KubeTooLargeResourceVersion(KubeError):
    """The replica has not yet seen the revision asked for (504 ResourceVersionTooLarge): ask for the same again."""


class KubeTooManyRequests(KubeError):
    """The server was too busy for us (429), also after retries."""

    exit_code = ExitCode.UNREACHABLE


class KubeServerError(KubeError):
    """The server, or an API server or webhook behind it, failed (5xx), also after retries."""


class KubeProtocolError(KubeError):
    """The answer is not what the API promises: no JSON, no list, pages of different revisions."""


class KubeExecFailed(KubeError):
    """A command could not be run in its container: no such program, or the container has ended."""


class KubeExecTimeout(KubeError):
    """A command in a container did not end in its time. With *after_retry* it was begun, and may still run."""


class KubeconfigInvalid(KubeError):
    """The kubeconfig cannot be used; *field* names what is wrong in it (`users[admin].user.exec`)."""

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class UnknownKind(KubeError):
    """No served kind has that spelling; *near* lists the closest ones."""

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, hint: str = "", near: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.near = tuple(near)


class AmbiguousKind(UnknownKind):
    """Several API groups serve a kind of that spelling; *near* lists the full spellings to choose from."""


class _StatusCause(msgspec.Struct, frozen=True):
    reason: str = ""
    field: str = ""
    message: str = ""


class _StatusDetails(msgspec.Struct, frozen=True, rename="camel"):
    causes: list[_StatusCause] | None = None
    retry_after_seconds: float | None = None


class _Status(msgspec.Struct, frozen=True):
    kind: str = ""
    message: str = ""
    reason: str = ""
    details: _StatusDetails | None = None
    code: int = 0


_decode_status = msgspec.json.Decoder(_Status).decode

_HINTS: dict[type[KubeError], str] = {
    KubeUnauthorized: "Renew the credentials in the kubeconfig, or choose another context",
    KubeForbidden: "Grant the permission with a ClusterRole or Role, or use credentials that have it",
    KubeExpired: "Read again at a newer revision",
    KubeTooLargeResourceVersion: "An API server replica lags behind; try again",
    KubeTooManyRequests: "Try again later, or with less concurrency",
    KubeConflict: "Read the object again before changing it",
}


def error_of_answer(
    status: int,
    body: bytes,
    *,
    verb: str,
    path: str,
    resource: str = "",
    retry_after_s: float | None = None,
    after_retry: bool = False,
) -> KubeError:
    """Return the error that an answer of HTTP *status* (not 2xx) with *body* stands for.

    *body* is a `metav1.Status` where the API server itself answered, and anything where a proxy did.
    """
    try:
        answer = _decode_status(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = _Status()
    if answer.kind != "Status":
        answer = _Status(message=body[:MESSAGE_LIMIT].decode("utf-8", "replace").strip())
    causes = tuple(
        Cause(cause.reason, cause.field, cause.message) for cause in (answer.details and answer.details.causes) or ()
    )
    if retry_after_s is None and answer.details is not None:
        retry_after_s = answer.details.retry_after_seconds
    kind = _error_type(status, answer.reason, causes)
    said = answer.message or answer.reason or "no message"
    target = resource or path
    if kind is KubeForbidden:
        message = f"not allowed to {verb} {target}: {said}"
    else:
        message = f"could not {verb} {target}: {said} (HTTP {status})"
    return kind(
        message,
        hint=_HINTS.get(kind, ""),
        verb=verb,
        path=path,
        status=status,
        reason=answer.reason,
        detail=answer.message,
        causes=causes,
        resource=resource,
        after_retry=after_retry,
        retry_after_s=retry_after_s,
    )


def _error_type(status: int, reason: str, causes: Sequence[Cause]) -> type[KubeError]:
    if any(cause.reason == "ResourceVersionTooLarge" for cause in causes):
        return KubeTooLargeResourceVersion
    if status == 409:
        return KubeAlreadyExists if reason == "AlreadyExists" else KubeConflict
    by_status: dict[int, type[KubeError]] = {
        401: KubeUnauthorized,
        403: KubeForbidden,
        404: KubeNotFound,
        410: KubeExpired,
        422: KubeInvalid,
        429: KubeTooManyRequests,
    }
    if status in by_status:
        return by_status[status]
    if 400 <= status < 500:
        return KubeBadRequest
    return KubeServerError if status >= 500 else KubeProtocolError
