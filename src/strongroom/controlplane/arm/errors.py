"""Answers that are errors: Azure's envelope, with Azure's codes, and no detail of our inside."""

from typing import Any

from strongroom.errors import StrongroomError
from strongroom.protection.errors import UserError

Json = dict[str, Any]


class ArmError(StrongroomError):
    """A request that is answered with an error: *status* and ARM's *code*, message and details."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        target: str = "",
        actions: tuple[str, ...] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=" ".join(actions))
        self.status = status
        self.error = UserError(code, message, actions, target)
        self.headers = headers or {}


def not_found(id: str) -> ArmError:
    """Return ARM's answer to a resource that does not exist."""
    segments = id.strip("/").split("/")
    group = segments[3] if len(segments) > 3 and segments[2].lower() == "resourcegroups" else ""
    last = segments.index("providers") if "providers" in segments else -1
    shown = "/".join(segments[last + 1 :]) if last >= 0 else id
    place = f" under resource group '{group}'" if group else ""
    return ArmError(404, "ResourceNotFound", f"The Resource '{shown}'{place} was not found.")


def not_supported(what: str, instead: str = "") -> ArmError:
    """Return the answer for a part of Azure's API that Strongroom does not carry out."""
    return ArmError(501, "NotSupported", f"Strongroom does not support {what}.", actions=(instead,) if instead else ())


def user_facing(error: UserError, activity: str) -> Json:
    """Return Azure's UserFacingError for *error*; *activity* is the request's or the job's id."""
    return {
        "code": error.code,
        "message": error.message,
        "recommendedAction": list(error.recommended_action),
        "details": [user_facing(d, activity) for d in error.details] or None,
        "target": error.target,
        "innerError": None,
        "isRetryable": error.retryable,
        "isUserError": True,
        "properties": {"ActivityId": activity},
    }


def arm_error(error: UserError, activity: str, *, facing: bool) -> Json:
    """Return the object below `error` in an answer; with *facing* it carries `additionalInfo[UserFacingError]`.

    Shape: azure-backup-for-aks.md, section 3.7.
    """
    body: Json = {
        "code": error.code,
        "message": error.message,
        "target": error.target or None,
        "details": [{"code": d.code, "message": d.message, "target": d.target or None} for d in error.details] or None,
    }
    if facing:
        body["additionalInfo"] = [{"type": "UserFacingError", "info": user_facing(error, activity)}]
    return body
