"""The named rules by which kinds, namespaces and objects stay out of a backup.

Pure values. Every rule's name appears in the coverage report beside what it left out, and in
docs/reference/selection.md with its reason.
"""

from collections.abc import Mapping
from typing import Final

OWN_NAMESPACE: Final = "dataprotection-microsoft"
OWN_GROUP: Final = "strongroom.dev"
"""API group of Strongroom's own custom resources; groups below it (`x.strongroom.dev`) count as well."""
OWN_KINDS: Final = frozenset(("Backup", "Restore", "DeleteBackup", "BackupStorageLocation"))
OWN_LABEL: Final = "strongroom.dev/run"
"""Label of the objects that a backup run itself makes in the cluster (VolumeSnapshots and their classes)."""

SYSTEM_NAMESPACES: Final = frozenset(("kube-system", "kube-node-lease", "kube-public"))

EXCLUDE_MARK: Final = "velero.io/exclude-from-backup"
"""With the value "true": as a label it leaves an object out, on a Namespace all that is in it; as an annotation of a
PersistentVolumeClaim it leaves the data out (Azure Backup for AKS documents the annotation, Velero the label)."""

RULE_SYSTEM_NAMESPACE: Final = "system namespace"
RULE_OWN_NAMESPACE: Final = "namespace of Strongroom"
RULE_NAMESPACE_NOT_INCLUDED: Final = "namespace not included"
RULE_NAMESPACE_EXCLUDED: Final = "namespace excluded"
RULE_NAMESPACE_LABEL: Final = f"namespace labelled {EXCLUDE_MARK}"
RULE_KIND_NOT_INCLUDED: Final = "kind not included"
RULE_KIND_EXCLUDED: Final = "kind excluded"
RULE_CLUSTER_SCOPED: Final = "cluster-scoped, not selected"
RULE_NOT_LISTABLE: Final = "cannot be listed"
RULE_OWN_KIND: Final = "kind of Strongroom"
RULE_OWN_OBJECT: Final = "made by a backup"
RULE_OBJECT_LABEL: Final = f"labelled {EXCLUDE_MARK}"
RULE_SELECTOR: Final = "no label selector matches"
RULE_NOT_NEEDED: Final = "not needed by what is selected"

_RECORD = "short-lived record"
_LOCK = "lock of a running process"
_NODE = "bound to a node"
_COMPUTED = "computed when asked for"
_ALLOCATION = "bookkeeping of the control plane"

DEFAULT_EXCLUDED_KINDS: Final[Mapping[tuple[str, str], str]] = {
    ("", "Event"): _RECORD,
    ("events.k8s.io", "Event"): _RECORD,
    ("certificates.k8s.io", "CertificateSigningRequest"): _RECORD,
    ("certificates.k8s.io", "PodCertificateRequest"): _RECORD,
    ("coordination.k8s.io", "Lease"): _LOCK,
    ("coordination.k8s.io", "LeaseCandidate"): _LOCK,
    ("", "Node"): _NODE,
    ("storage.k8s.io", "CSINode"): _NODE,
    ("storage.k8s.io", "CSIStorageCapacity"): _NODE,
    ("storage.k8s.io", "VolumeAttachment"): _NODE,
    ("resource.k8s.io", "ResourceSlice"): _NODE,
    ("", "ComponentStatus"): _COMPUTED,
    ("metrics.k8s.io", "NodeMetrics"): _COMPUTED,
    ("metrics.k8s.io", "PodMetrics"): _COMPUTED,
    ("internal.apiserver.k8s.io", "StorageVersion"): _ALLOCATION,
    ("migration.k8s.io", "StorageVersionMigration"): _ALLOCATION,
    ("storagemigration.k8s.io", "StorageVersionMigration"): _ALLOCATION,
    ("networking.k8s.io", "IPAddress"): _ALLOCATION,
}
"""Kinds left out unless a selection includes them by name. Restored elsewhere they would be wrong (a node's own
objects, locks, addresses handed out) or are gone within the hour."""


def kind_rule(group: str, kind: str) -> str:
    """Return the default rule that leaves a kind out, "" for none."""
    return DEFAULT_EXCLUDED_KINDS.get((group, kind), "")


def is_own_kind(group: str, kind: str) -> bool:
    """Say whether it is one of the kinds through which Strongroom itself is driven: never backed up."""
    return kind in OWN_KINDS and (group == OWN_GROUP or group.endswith("." + OWN_GROUP))
