"""Resources of a control plane as the command line shows them: typed values, read from ARM documents.

*document* is the resource as the server sent it, for output as JSON.
"""

from dataclasses import dataclass, field
from typing import Any, Self

Json = dict[str, Any]

CLUSTERS = "Microsoft.ContainerService/managedClusters"
ACCOUNTS = "Microsoft.Storage/storageAccounts"


@dataclass(frozen=True)
class Cluster:
    """A connected cluster."""

    id: str
    name: str
    group: str
    location: str
    state: str
    version: str
    document: Json = field(repr=False)

    @classmethod
    def of(cls, document: Json) -> Self:
        """Read a managedClusters document; what it lacks is ""."""
        properties = _properties(document)
        return cls(
            id=_text(document, "id"),
            name=_text(document, "name"),
            group=group_of(_text(document, "id")),
            location=_text(document, "location"),
            state=_text(properties, "provisioningState"),
            version=_text(properties, "currentKubernetesVersion") or _text(properties, "kubernetesVersion"),
            document=document,
        )


@dataclass(frozen=True)
class StorageAccount:
    """A storage account; *endpoint* is where it lies, as the server shows it."""

    id: str
    name: str
    group: str
    location: str
    state: str
    endpoint: str
    document: Json = field(repr=False)

    @classmethod
    def of(cls, document: Json) -> Self:
        """Read a storageAccounts document; what it lacks is ""."""
        properties = _properties(document)
        endpoints = properties.get("primaryEndpoints")
        return cls(
            id=_text(document, "id"),
            name=_text(document, "name"),
            group=group_of(_text(document, "id")),
            location=_text(document, "location"),
            state=_text(properties, "provisioningState"),
            endpoint=_text(endpoints, "blob") if isinstance(endpoints, dict) else "",
            document=document,
        )


def group_of(id: str) -> str:
    """Return the resource group in an ARM id, "" if there is none."""
    segments = id.strip("/").split("/")
    return segments[3] if len(segments) > 3 and segments[2].lower() == "resourcegroups" else ""


def _properties(document: Json) -> Json:
    found = document.get("properties")
    return found if isinstance(found, dict) else {}


def _text(document: Json, key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""
