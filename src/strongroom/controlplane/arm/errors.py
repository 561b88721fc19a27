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
        details: tuple[UserError, ...] = (),
    ) -> None:
        super().__init__(message, hint=" ".join(actions))
        self.status = status
        self.error = UserError(code, message, actions, target, details=details)
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
