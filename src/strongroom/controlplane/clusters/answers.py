"""Reads what an API server answered: values with types, or a `KubeProtocolError`.

A user chose the server, so an answer may be anything.
"""

from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from strongroom.controlplane.clusters import manifests
from strongroom.dataplane.kube.errors import KubeProtocolError

T = TypeVar("T")


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of an object's metadata."""

    name: str
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None

    def annotation(self, key: str) -> str:
        """Return an annotation, "" where there is none."""
        return (self.annotations or {}).get(key, "")

    @property
    def is_ours(self) -> bool:
        """Whether the object carries our mark of ownership."""
        return (self.labels or {}).get(manifests.MANAGED_BY) == manifests.OWNER


class Found(msgspec.Struct, frozen=True):
    """An object of any kind: *data* of a Secret (base64) or ConfigMap, *rules* of a Role."""

    metadata: Metadata
    data: dict[str, str] | None = None
    rules: list[dict[str, Any]] | None = None


class DefinitionCondition(msgspec.Struct, frozen=True):
    """A condition of a CustomResourceDefinition."""

    type: str
    status: str
    message: str = ""


class DefinitionStatus(msgspec.Struct, frozen=True):
    """The status of a CustomResourceDefinition."""

    conditions: list[DefinitionCondition] | None = None


class Definition(msgspec.Struct, frozen=True):
    """A CustomResourceDefinition."""

    status: DefinitionStatus = DefinitionStatus()

    @property
    def served(self) -> bool:
        """Whether objects of it can be made."""
        return any(each.type == "Established" and each.status == "True" for each in self.status.conditions or [])

    @property
    def why(self) -> str:
        """Why it is not served, as the API server says."""
        return "; ".join(each.message for each in self.status.conditions or [] if each.status != "True")


class LeaseSpec(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of a Lease."""

    holder_identity: str | None = None
    renew_time: datetime | None = None
    lease_transitions: int | None = None


class Lease(msgspec.Struct, frozen=True):
    """A Lease."""

    metadata: Metadata
    spec: LeaseSpec = LeaseSpec()


class Version(msgspec.Struct, frozen=True, rename="camel"):
    """The answer at `/version`."""

    git_version: str


class AccessStatus(msgspec.Struct, frozen=True):
    """The status of a SelfSubjectAccessReview."""

    allowed: bool = False


class AccessReview(msgspec.Struct, frozen=True):
    """A SelfSubjectAccessReview."""

    status: AccessStatus = AccessStatus()


class GrantedRule(msgspec.Struct, frozen=True, rename="camel"):
    """One rule of a SelfSubjectRulesReview; null stands for no entries."""

    verbs: list[str]
    api_groups: list[str] | None = None
    resources: list[str] | None = None
    resource_names: list[str] | None = None


class RulesStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The status of a SelfSubjectRulesReview."""

    resource_rules: list[GrantedRule] | None = None


class RulesReview(msgspec.Struct, frozen=True):
    """A SelfSubjectRulesReview."""

    status: RulesStatus = RulesStatus()


_WHAT: Final = "the server's answer is not what Kubernetes promises: is it a Kubernetes API server?"


def read(answer: bytes | msgspec.Raw, type_: type[T]) -> T:
    """Return *answer* as *type_*. Raises `KubeProtocolError`, which does not quote it."""
    try:
        return msgspec.json.decode(answer, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the text names the field and holds no value
        raise KubeProtocolError(f"{_WHAT} {error}") from error
