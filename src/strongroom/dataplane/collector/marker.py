"""The marker: the cluster's own memory of which recovery point its objects were last saved in.

After a restore of etcd the same uid and resourceVersion can stand for other content. The marker lives in that same
etcd, so it goes back together with the objects: the point it names, read at X, is one that this very history of the
cluster went through (design: section 5, step 7).
"""

import hashlib
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

import msgspec

from strongroom.dataplane.collector import rules
from strongroom.dataplane.collector.instant import CONFIG_MAPS
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeAlreadyExists, KubeError, KubeForbidden, KubeNotFound
from strongroom.dataplane.repository.model import Selection

NAME: Final = "strongroom-marker"
FALLBACK_NAMESPACE: Final = "kube-system"  # where Strongroom has no namespace; neither is ever backed up itself
FIELD_MANAGER: Final = "strongroom"
KEY_LENGTH: Final = 32  # hex digits: 128 bits tell selections apart, and a ConfigMap holds thousands of such keys


@dataclass(frozen=True, slots=True)
class Named:
    """The recovery point that the marker names: its id and the SHA-256 (hex) of its stored manifest."""

    point: str
    manifest_sha256: str


class _ConfigMap(msgspec.Struct):
    data: dict[str, str] = {}


def marker_key(repository_id: str, selection: Selection) -> str:
    """Return the marker's key for one selection in one repository: other selections have other points."""
    return hashlib.sha256(msgspec.json.encode([repository_id, selection])).hexdigest()[:KEY_LENGTH]


def marker_namespace(existing: Container[str]) -> str:
    """Return where the marker lies in a cluster with these namespaces: in ours, else in `kube-system`."""
    return rules.OWN_NAMESPACE if rules.OWN_NAMESPACE in existing else FALLBACK_NAMESPACE


async def read_marker(api: KubeApi, namespace: str, revision: str, key: str) -> Named | str:
    """Return what the marker named at *revision*, or the reason why nothing may be taken over. Raises `KubeExpired`."""
    try:
        raw = await api.get_at(CONFIG_MAPS, NAME, namespace, revision)
    except KubeForbidden as error:
        return f"the marker cannot be read: {error.message}"
    if raw is None:
        return "there is no marker in the cluster yet"
    try:
        value = msgspec.json.decode(raw, type=_ConfigMap).data.get(key, "")
    except msgspec.DecodeError as error:
        return f"the marker is not readable: {error}"
    point, _, sha256 = value.partition(" ")
    if not point or not sha256:
        return "the marker names no point of this repository and selection"
    return Named(point, sha256)


async def write_marker(api: KubeApi, namespace: str, key: str, named: Named) -> str:
    """Let the marker name a point that was committed. Returns "" or the reason why that did not succeed.

    Never raises a `KubeError`: the point exists, and without a marker the next backup only reads everything. If it
    stops half-way the marker names the point before, which stays true.
    """
    data = {"data": {key: f"{named.point} {named.manifest_sha256}"}}
    try:
        try:
            await api.patch(CONFIG_MAPS, NAME, namespace, data, "merge", field_manager=FIELD_MANAGER)
        except KubeNotFound:
            metadata = {"name": NAME, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "strongroom"}}
            document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **data}
            try:
                await api.create(CONFIG_MAPS, document, namespace, field_manager=FIELD_MANAGER)
            except KubeAlreadyExists:  # another run made it in between
                await api.patch(CONFIG_MAPS, NAME, namespace, data, "merge", field_manager=FIELD_MANAGER)
    except KubeError as error:
        return f"the marker could not be written, so the next backup reads everything: {error.message}"
    return ""
