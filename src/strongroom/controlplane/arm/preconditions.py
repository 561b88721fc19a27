"""`If-Match` and `If-None-Match`: a write happens only to what the caller has seen."""

from strongroom.controlplane.arm.call import Call
from strongroom.controlplane.arm.errors import ArmError
from strongroom.controlplane.state.resources import Resource


def check_preconditions(call: Call, old: Resource | None) -> None:
    """Check the request's conditions against the stored resource (None: there is none). Raises 412."""
    wanted = call.headers.get("if-match", "").strip()
    unwanted = call.headers.get("if-none-match", "").strip()
    if wanted and (old is None or (wanted != "*" and _bare(wanted) != old.etag)):
        found = f'its etag is now "{old.etag}"' if old else "it does not exist"
        raise _failed(f"If-Match asks for {wanted[:80]}, but {found}.")
    if unwanted and old is not None and (unwanted == "*" or _bare(unwanted) == old.etag):
        raise _failed(f"If-None-Match asks that the resource is not {unwanted[:80]}, but it is.")


def _failed(message: str) -> ArmError:
    return ArmError(412, "PreconditionFailed", message, actions=("Read the resource again and repeat the change.",))


def _bare(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')
