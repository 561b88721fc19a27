"""Names work that no operation and no job stands for: the id alone says what is to be done to which resource."""

from datetime import datetime

from strongroom.controlplane.state.times import stamp

EXPIRE = "expire"
PURGE = "purge-instance"
PRUNE = "prune"


def work_id(kind: str, resource: str, at: datetime) -> str:
    """Return the id of work of *kind* on *resource* (an ARM id) asked for at *at*: the same for the same three."""
    return f"{kind}@{stamp(at)}@{resource}"


def resource_of(work: str) -> str:
    """Return the resource of a `work_id`."""
    return work.split("@", 2)[2]
