"""Which rules apply to which kind, and which kinds are never restored (checklist row 26). Pure."""

from collections.abc import Callable

from strongroom.dataplane.restore.rules.accounts import prepare_binding, prepare_secret, prepare_service_account
from strongroom.dataplane.restore.rules.cluster import (
    prepare_api_service,
    prepare_crd,
    prepare_namespace,
    prepare_policy_binding,
    prepare_webhooks,
)
from strongroom.dataplane.restore.rules.draft import Draft, Rule
from strongroom.dataplane.restore.rules.metadata import clean_metadata
from strongroom.dataplane.restore.rules.pods import prepare_cronjob, prepare_job, prepare_pod
from strongroom.dataplane.restore.rules.services import prepare_service
from strongroom.dataplane.restore.rules.volumes import prepare_claim, prepare_stateful_set, prepare_volume

RBAC = "rbac.authorization.k8s.io"
ADMISSION = "admissionregistration.k8s.io"
SNAPSHOTS = "snapshot.storage.k8s.io"

_RULES: dict[tuple[str, str], Callable[[Draft, Rule], None]] = {
    ("", "Namespace"): prepare_namespace,
    ("", "Pod"): prepare_pod,
    ("", "Service"): prepare_service,
    ("", "Secret"): prepare_secret,
    ("", "ServiceAccount"): prepare_service_account,
    ("", "PersistentVolumeClaim"): prepare_claim,
    ("", "PersistentVolume"): prepare_volume,
    ("apps", "StatefulSet"): prepare_stateful_set,
    ("batch", "Job"): prepare_job,
    ("batch", "CronJob"): prepare_cronjob,
    (RBAC, "RoleBinding"): prepare_binding,
    (RBAC, "ClusterRoleBinding"): prepare_binding,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): prepare_crd,
    ("apiregistration.k8s.io", "APIService"): prepare_api_service,
    (ADMISSION, "ValidatingWebhookConfiguration"): prepare_webhooks,
    (ADMISSION, "MutatingWebhookConfiguration"): prepare_webhooks,
    (ADMISSION, "ValidatingAdmissionPolicyBinding"): prepare_policy_binding,
    (ADMISSION, "MutatingAdmissionPolicyBinding"): prepare_policy_binding,
}

_NODE_BOUND = "belongs to the source's nodes"
_EPHEMERAL = "is a message or a question of the moment"
_DERIVED = "is made by the target's own controllers"
_OWN_SNAPSHOT = "volumes are restored from the recovery point's own snapshots"

NEVER_RESTORED: dict[tuple[str, str], str] = {
    ("", "Node"): _NODE_BOUND,
    ("storage.k8s.io", "CSINode"): _NODE_BOUND,
    ("storage.k8s.io", "VolumeAttachment"): _NODE_BOUND,
    ("storage.k8s.io", "CSIStorageCapacity"): _NODE_BOUND,
    ("resource.k8s.io", "ResourceSlice"): _NODE_BOUND,
    ("node.k8s.io", "RuntimeHandler"): _NODE_BOUND,
    ("coordination.k8s.io", "Lease"): _EPHEMERAL,
    ("coordination.k8s.io", "LeaseCandidate"): _EPHEMERAL,
    ("", "Event"): _EPHEMERAL,
    ("events.k8s.io", "Event"): _EPHEMERAL,
    ("", "ComponentStatus"): _EPHEMERAL,
    ("", "Binding"): _EPHEMERAL,
    ("certificates.k8s.io", "CertificateSigningRequest"): _EPHEMERAL,
    ("certificates.k8s.io", "PodCertificateRequest"): _EPHEMERAL,
    ("apps", "ControllerRevision"): _DERIVED,
    ("networking.k8s.io", "IPAddress"): _DERIVED,
    ("networking.k8s.io", "ServiceCIDR"): "belongs to the target's own network",
    ("internal.apiserver.k8s.io", "StorageVersion"): _DERIVED,
    (SNAPSHOTS, "VolumeSnapshot"): _OWN_SNAPSHOT,
    (SNAPSHOTS, "VolumeSnapshotContent"): _OWN_SNAPSHOT,
    ("groupsnapshot.storage.k8s.io", "VolumeGroupSnapshot"): _OWN_SNAPSHOT,
    ("groupsnapshot.storage.k8s.io", "VolumeGroupSnapshotContent"): _OWN_SNAPSHOT,
}
_REVIEW_GROUPS = ("authentication.k8s.io", "authorization.k8s.io", "metrics.k8s.io")


def never_restored(group: str, kind: str) -> str:
    """Say why no object of this kind is restored, or ""."""
    if group in _REVIEW_GROUPS:
        return f"{kind} {_EPHEMERAL}"
    reason = NEVER_RESTORED.get((group, kind))
    if reason is None:
        return ""
    return reason if reason is _OWN_SNAPSHOT else f"{kind} {reason}"


def transform(body: bytes, rule: Rule) -> Draft:
    """Return the object of *body* as it is to be sent to the target."""
    planned = rule.planned
    draft = Draft(body, planned.kind, planned.namespace, planned.name)
    special = _RULES.get((planned.group, planned.kind))
    if special is not None:
        special(draft, rule)
    clean_metadata(draft, rule)
    draft.top.pop("status", None)
    if planned.source_api_version:
        draft.top["apiVersion"] = f"{planned.group}/{planned.version}" if planned.group else planned.version
    return draft
