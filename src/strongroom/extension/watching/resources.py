"""The custom resources as the API server has them: their kinds, and what is read of them at first sight."""

from typing import Final

import msgspec

from strongroom.dataplane.kube.errors import KubeProtocolError
from strongroom.dataplane.kube.kinds import Kind as KubeKind
from strongroom.extension.api.definitions import PLURALS
from strongroom.extension.api.documents import (
    API_VERSION,
    GROUP,
    VERSION,
    Document,
    DocumentInvalid,
    Kind,
    parse_document,
)
from strongroom.extension.api.status import Phase

_NO_VERBS: Final[frozenset[str]] = frozenset()
KINDS: Final = {kind: KubeKind(GROUP, VERSION, str(kind), plural, True, _NO_VERBS) for kind, plural in PLURALS.items()}
SECRETS: Final = KubeKind("", "v1", "Secret", "secrets", True, _NO_VERBS)
EVENTS: Final = KubeKind("", "v1", "Event", "events", True, _NO_VERBS)
LEASES: Final = KubeKind("coordination.k8s.io", "v1", "Lease", "leases", True, _NO_VERBS)

WORK_KINDS: Final = (Kind.BACKUP, Kind.RESTORE, Kind.DELETE_BACKUP)


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of an object's metadata."""

    name: str
    uid: str
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    storage_location: str = ""
    dry_run: bool = False


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    phase: str = ""
    completion_time: str = ""


class Head(msgspec.Struct, frozen=True):
    """What of an object says whether there is something to do, and what became of it."""

    metadata: Meta
    spec: _Spec = _Spec()
    status: _Status = _Status()

    @property
    def identity(self) -> str:
        """As `identity` of a document."""
        return f"{self.metadata.name}/{self.metadata.uid}"

    @property
    def finished(self) -> bool:
        """Whether nothing comes after its phase."""
        return self.status.phase in FINAL_PHASES


FINAL_PHASES: Final = frozenset(str(phase) for phase in Phase if phase.final)


def head_of(raw: bytes | msgspec.Raw) -> Head:
    """Return what is read of an object at first sight. Raises `KubeProtocolError`."""
    try:
        return msgspec.json.decode(raw, type=Head)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KubeProtocolError(f"the API server sent what is none of our custom resources: {error}") from error


def document_of(kind: Kind, raw: bytes | msgspec.Raw) -> Document:
    """Return an object of the API server as a document. Raises `DocumentInvalid`."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DocumentInvalid(f"the {kind} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise DocumentInvalid(f"the {kind} is no object")
    # The items of a list need not say their kind.
    return parse_document({**value, "apiVersion": API_VERSION, "kind": str(kind)})
