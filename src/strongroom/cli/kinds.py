"""Finds, in a recovery point, the kinds and objects that a user names or selects. Pure.

Spellings are read as against a cluster; a recovery point records no short names, so those of Kubernetes' own kinds
stand here.
"""

from collections.abc import Callable

from strongroom.cli.documents import kind_name
from strongroom.dataplane.kube.discovery import Discovery
from strongroom.dataplane.kube.errors import AmbiguousKind, UnknownKind
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.model import KindEntry, Manifest, ObjectRow, ReadAs, Selection
from strongroom.dataplane.restore.selection import ChosenObjects

# `kubectl api-resources` of Kubernetes 1.37, kinds with a short name; (group, kind) to short names.
SHORT_NAMES: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "ConfigMap"): ("cm",),
    ("", "Endpoints"): ("ep",),
    ("", "LimitRange"): ("limits",),
    ("", "Namespace"): ("ns",),
    ("", "Node"): ("no",),
    ("", "PersistentVolume"): ("pv",),
    ("", "PersistentVolumeClaim"): ("pvc",),
    ("", "Pod"): ("po",),
    ("", "ReplicationController"): ("rc",),
    ("", "ResourceQuota"): ("quota",),
    ("", "Service"): ("svc",),
    ("", "ServiceAccount"): ("sa",),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): ("crd", "crds"),
    ("apps", "DaemonSet"): ("ds",),
    ("apps", "Deployment"): ("deploy",),
    ("apps", "ReplicaSet"): ("rs",),
    ("apps", "StatefulSet"): ("sts",),
    ("autoscaling", "HorizontalPodAutoscaler"): ("hpa",),
    ("batch", "CronJob"): ("cj",),
    ("certificates.k8s.io", "CertificateSigningRequest"): ("csr",),
    ("networking.k8s.io", "Ingress"): ("ing",),
    ("networking.k8s.io", "NetworkPolicy"): ("netpol",),
    ("policy", "PodDisruptionBudget"): ("pdb",),
    ("scheduling.k8s.io", "PriorityClass"): ("pc",),
    ("snapshot.storage.k8s.io", "VolumeSnapshot"): ("vs",),
    ("snapshot.storage.k8s.io", "VolumeSnapshotClass"): ("vsclass", "vsclasses"),
    ("snapshot.storage.k8s.io", "VolumeSnapshotContent"): ("vsc", "vscs"),
    ("storage.k8s.io", "StorageClass"): ("sc",),
}


def served_kinds(manifest: Manifest) -> Discovery:
    """Return what the cluster served when the point was made, as far as the point knows it."""
    kinds = [_kind(entry) for entry in manifest.kinds]
    failed = {failure.group: failure.reason for failure in manifest.failed_groups}
    return Discovery(kinds=tuple(sorted(kinds)), failed=failed, server_version=manifest.cluster.version)


def find_entry(manifest: Manifest, spelling: str) -> KindEntry:
    """Return the kind that *spelling* names. Raises `UnknownKind`, `AmbiguousKind`."""
    try:
        found = served_kinds(manifest).find(spelling)
    except AmbiguousKind:
        raise
    except UnknownKind as error:
        hint = f"Did you mean {', '.join(error.near)}?" if error.near else "See them: strongroom point coverage"
        message = f"the recovery point {manifest.id} knows no kind {spelling!r}"
        raise UnknownKind(message, hint=hint, near=error.near) from error
    return next(entry for entry in manifest.kinds if (entry.group, entry.kind) == (found.group, found.kind))


def select(
    manifest: Manifest, selection: Selection, *, empty: bool = False
) -> tuple[list[KindEntry], Callable[[ObjectRow], bool]]:
    """Return the kinds of the point that *selection* keeps, and the test that its rows have to pass.

    It is what a restore with this selection takes, without what comes along as needed. With *empty* kinds come too that
    were read and had no objects. Raises `SelectionInvalid`.
    """
    short_names = {short: key for key, shorts in SHORT_NAMES.items() for short in shorts}
    chosen = ChosenObjects(selection, manifest.kinds, short_names)
    entries = [
        entry
        for entry in manifest.kinds
        if chosen.kind(entry) and (entry.segments or (empty and entry.read_as in (ReadAs.EXACT, ReadAs.AT_REVISION)))
    ]
    return entries, chosen.object


def _kind(entry: KindEntry) -> Kind:
    return Kind(
        group=entry.group,
        version=entry.version,
        kind=entry.kind,
        plural=entry.plural,
        namespaced=entry.namespaced,
        verbs=frozenset({"list"}),
        short_names=SHORT_NAMES.get((entry.group, entry.kind), ()),
        singular=entry.kind.lower(),
    )


def object_name(row: ObjectRow) -> str:
    """Return one object's name in the form that `point cat` takes: `KIND[.GROUP] [NAMESPACE/]NAME`."""
    where = f"{row.namespace}/{row.name}" if row.namespace else row.name
    return f"{kind_name(row.group, row.kind)} {where}"
