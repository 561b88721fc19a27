"""Azure's words for what a user is told: the UserFacingError, and the ARM error that carries it.

They stand in answers, in operations, in jobs, and in the protection state of an instance: azure-backup-for-aks.md,
section 3.7.
"""

from strongroom.controlplane.state.resources import Document
from strongroom.protection.errors import UserError


def facing(error: UserError, activity: str) -> Document:
    """Return the UserFacingError for *error*; *activity* is the id of the request, the operation or the job."""
    return {
        "code": error.code,
        "message": error.message,
        "recommendedAction": list(error.recommended_action),
        "details": [facing(d, activity) for d in error.details] or None,
        "target": error.target,
        "innerError": None,
        "isRetryable": error.retryable,
        "isUserError": True,
        "properties": {"ActivityId": activity},
    }


def arm_error(error: UserError, activity: str, *, with_facing: bool = True) -> Document:
    """Return the object below `error` in an answer or an operation."""
    body: Document = {
        "code": error.code,
        "message": error.message,
        "target": error.target or None,
        "details": [{"code": d.code, "message": d.message, "target": d.target or None} for d in error.details] or None,
    }
    if with_facing:
        body["additionalInfo"] = [{"type": "UserFacingError", "info": facing(error, activity)}]
    return body
