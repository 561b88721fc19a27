"""The VolumeSnapshotClasses of our own: which copy of a user's class a snapshot is taken with.

A copy differs from its source in three things: `deletionPolicy: Retain`, so that no deletion of a namespace takes a
backup along; the extra parameters of the backup's configuration; and labels that say whose it is. Its name is
derived from all that it says, so that concurrent runs share it and a changed source gets a new one. The name begins
with the repository's id, because a VolumeSnapshotContent says of its owner no more than its class's name: so it is
known whose a content is, also when the class itself is gone. Pure.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from strongroom.dataplane.repository.model import SecretRef
from strongroom.dataplane.snapshots.claims import MANAGED_BY, MANAGED_BY_LABEL, SnapshotClass

REPOSITORY_LABEL: Final = "strongroom.dev/repository"
RUN_LABEL: Final = "strongroom.dev/run"
COPIED_FROM_ANNOTATION: Final = "strongroom.dev/copied-from"

CSI_PREFIX: Final = "csi.storage.k8s.io/"
"""Parameters with it are for csi-snapshotter, not for the driver (external-snapshotter, pkg/utils/util.go)."""

_NAME_CHARACTERS = 253  # an RFC 1123 subdomain, as Kubernetes allows for class names
_HASH_CHARACTERS = 12  # 48 bits over the few classes of one cluster


@dataclass(frozen=True, slots=True)
class ClassCopy:
    """A VolumeSnapshotClass of our own, as it is to stand in the cluster."""

    name: str
    source: str
    driver: str
    parameters: Mapping[str, str]
    repository_id: str

    def body(self) -> dict[str, object]:
        """Return the object to create."""
        return {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshotClass",
            "metadata": {
                "name": self.name,
                "labels": {MANAGED_BY_LABEL: MANAGED_BY, REPOSITORY_LABEL: self.repository_id},
                "annotations": {COPIED_FROM_ANNOTATION: self.source},
            },
            "driver": self.driver,
            "deletionPolicy": "Retain",
            "parameters": dict(self.parameters),
        }

    def difference(self, stands: SnapshotClass) -> str:
        """Return in words how the class that *stands* under our name differs from this one; "" if it does not."""
        if stands.labels.get(REPOSITORY_LABEL) != self.repository_id:
            return "it is not labelled as a copy of this repository"
        if stands.driver != self.driver:
            return f"its driver is {stands.driver}"
        if stands.deletion_policy != "Retain":
            return f"its deletionPolicy is {stands.deletion_policy}"
        if dict(stands.parameters) != dict(self.parameters):
            return "its parameters were changed"
        return ""


def copy_of(source: SnapshotClass, repository_id: str, extra: Mapping[str, str]) -> ClassCopy:
    """Return our copy of *source* with the *extra* parameters laid over its own.

    A key of *extra* of the form `<driver>/<key>` is for that driver alone (`disk.csi.azure.com/resourceGroup`), any
    other for all drivers; keys that begin with `csi.storage.k8s.io/` are csi-snapshotter's own and for all.
    """
    parameters = dict(source.parameters)
    for key, value in extra.items():
        driver, slash, rest = key.rpartition("/")
        if not slash or key.startswith(CSI_PREFIX):
            parameters[key] = value
        elif driver == source.driver:
            parameters[rest] = value
    said = msgspec.json.encode([repository_id, source.name, source.driver, sorted(parameters.items())])
    digest = hashlib.sha256(said).hexdigest()[:_HASH_CHARACTERS]
    prefix = copy_prefix(repository_id)
    stem = source.name[: _NAME_CHARACTERS - len(prefix) - 1 - _HASH_CHARACTERS].rstrip("-.")
    return ClassCopy(f"{prefix}{stem}-{digest}", source.name, source.driver, parameters, repository_id)


def copy_prefix(repository_id: str) -> str:
    """Return what the names of all copies for a repository begin with, and those of nobody else."""
    return f"strongroom-{repository_id}-"


def list_secret(parameters: Mapping[str, str], content: str) -> SecretRef | None:
    """Return the secret with which the snapshot of the VolumeSnapshotContent named *content* is listed, or None.

    `${volumesnapshotcontent.name}` is the only variable allowed there that we can resolve; csi-snapshotter gives no
    others to the list secret.
    """
    namespace = parameters.get(f"{CSI_PREFIX}snapshotter-list-secret-namespace", "")
    name = parameters.get(f"{CSI_PREFIX}snapshotter-list-secret-name", "")
    if not (namespace and name):
        return None
    variable = "${volumesnapshotcontent.name}"
    return SecretRef(namespace=namespace.replace(variable, content), name=name.replace(variable, content))
