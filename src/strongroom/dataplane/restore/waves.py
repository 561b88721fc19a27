"""In which order kinds are restored. Pure.

A wave starts when all objects of the waves before it are done: a CRD before its custom resources, a claim before the
StatefulSet that would make an empty one in its place, a quota after its users (checklist row 28), a webhook last, when
the service behind it can answer (row 21).
"""

from enum import IntEnum


class Stage(IntEnum):
    """The waves, in their order."""

    DEFINITIONS = 0
    NAMESPACES = 1
    CLASSES = 2
    VOLUMES = 3
    ACCOUNTS = 4
    """Before their tokens: the token controller deletes a token Secret whose ServiceAccount is not there."""
    CONFIGURATION = 5
    RBAC = 6
    CUSTOM_RESOURCES = 7
    SERVICES = 8
    WORKLOADS = 9
    CONVERTED = 10
    """Custom resources whose CRD converts by a webhook: it has to run first."""
    POLICIES = 11
    WEBHOOKS = 12

    @property
    def title(self) -> str:
        """The wave's name in a plan."""
        return _TITLES[self]


_TITLES = {
    Stage.DEFINITIONS: "custom resource definitions",
    Stage.NAMESPACES: "namespaces",
    Stage.CLASSES: "classes",
    Stage.VOLUMES: "volumes",
    Stage.ACCOUNTS: "service accounts",
    Stage.CONFIGURATION: "configuration",
    Stage.RBAC: "roles and bindings",
    Stage.CUSTOM_RESOURCES: "custom resources",
    Stage.SERVICES: "services",
    Stage.WORKLOADS: "workloads",
    Stage.CONVERTED: "custom resources converted by a webhook",
    Stage.POLICIES: "policies",
    Stage.WEBHOOKS: "webhooks and API services",
}

_STAGES: dict[tuple[str, str], Stage] = {
    ("apiextensions.k8s.io", "CustomResourceDefinition"): Stage.DEFINITIONS,
    ("", "Namespace"): Stage.NAMESPACES,
    ("storage.k8s.io", "StorageClass"): Stage.CLASSES,
    ("storage.k8s.io", "VolumeAttributesClass"): Stage.CLASSES,
    ("storage.k8s.io", "CSIDriver"): Stage.CLASSES,
    ("snapshot.storage.k8s.io", "VolumeSnapshotClass"): Stage.CLASSES,
    ("groupsnapshot.storage.k8s.io", "VolumeGroupSnapshotClass"): Stage.CLASSES,
    ("scheduling.k8s.io", "PriorityClass"): Stage.CLASSES,
    ("node.k8s.io", "RuntimeClass"): Stage.CLASSES,
    ("networking.k8s.io", "IngressClass"): Stage.CLASSES,
    ("resource.k8s.io", "DeviceClass"): Stage.CLASSES,
    ("", "PersistentVolume"): Stage.VOLUMES,
    ("", "PersistentVolumeClaim"): Stage.VOLUMES,
    ("", "ConfigMap"): Stage.CONFIGURATION,
    ("", "Secret"): Stage.CONFIGURATION,
    ("", "ServiceAccount"): Stage.ACCOUNTS,
    ("", "Service"): Stage.SERVICES,
    ("", "Endpoints"): Stage.SERVICES,
    ("discovery.k8s.io", "EndpointSlice"): Stage.SERVICES,
    ("networking.k8s.io", "Ingress"): Stage.SERVICES,
    ("", "Pod"): Stage.WORKLOADS,
    ("", "PodTemplate"): Stage.WORKLOADS,
    ("", "ReplicationController"): Stage.WORKLOADS,
    ("resource.k8s.io", "ResourceClaim"): Stage.SERVICES,
    ("resource.k8s.io", "ResourceClaimTemplate"): Stage.SERVICES,
    ("", "ResourceQuota"): Stage.POLICIES,
    ("", "LimitRange"): Stage.POLICIES,
    ("networking.k8s.io", "NetworkPolicy"): Stage.POLICIES,
    ("policy", "PodDisruptionBudget"): Stage.POLICIES,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): Stage.WEBHOOKS,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): Stage.WEBHOOKS,
    ("apiregistration.k8s.io", "APIService"): Stage.WEBHOOKS,
}
_GROUPS: dict[str, Stage] = {
    "rbac.authorization.k8s.io": Stage.RBAC,
    "apps": Stage.WORKLOADS,
    "batch": Stage.WORKLOADS,
    "autoscaling": Stage.POLICIES,
    "admissionregistration.k8s.io": Stage.POLICIES,
    "flowcontrol.apiserver.k8s.io": Stage.POLICIES,
}


def stage_of(group: str, kind: str, *, converted: bool = False) -> Stage:
    """Return the wave of a kind. *converted*: its CRD converts by a webhook."""
    stage = _STAGES.get((group, kind))
    if stage is None:
        stage = _GROUPS.get(group, Stage.CONVERTED if converted else Stage.CUSTOM_RESOURCES)
    return stage
