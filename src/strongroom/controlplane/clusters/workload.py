"""The extension as a pod of the cluster: its Deployment and the network around it, as values. Pure.

`packaging.py` makes the Helm chart and the plain manifests from these, the installer writes them for a control plane.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from strongroom.controlplane.clusters.manifests import EXTENSION, MANAGED_BY, NAMESPACE, OWNER, Object

IMAGE: Final = "localhost/strongroom-extension:1"
"""What `deploy/Containerfile` is built as, and what the testbed loads into its nodes. No registry has it."""

PORT: Final = 8080  # of metrics and probes; above 1023, because the pod has no capability to listen below
PORT_NAME: Final = "metrics"
NOBODY: Final = 65534  # user and group of the image, by number: a name would not prove to a kubelet that it is not root

_NAME: Final = "app.kubernetes.io/name"
_SELECTED: Final = {_NAME: EXTENSION}
SELECTOR: Final = f"{_NAME}={EXTENSION}"
"""The label selector of the extension's pods."""
_LABELS: Final = {MANAGED_BY: OWNER, "app.kubernetes.io/part-of": OWNER, **_SELECTED}

# Azure's extension is given the same (docs: `cpuLimit`, `memoryLimit`): four runs at once fit (RUNS_AT_ONCE).
_RESOURCES: Final = {
    "requests": {"cpu": "500m", "memory": "256Mi"},
    "limits": {"cpu": "1000m", "memory": "1280Mi"},
}
# The pod's environment says which pod it is: a container that is started again need not wait for its own lease.
_ENVIRONMENT: Final = [{"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]
# Names, the API server (443 on most clusters, 6443 behind the Service of others), and stores, which speak HTTPS.
_EGRESS: Final = [
    {
        "ports": [
            {"protocol": "UDP", "port": 53},
            {"protocol": "TCP", "port": 53},
            {"protocol": "TCP", "port": 443},
            {"protocol": "TCP", "port": 6443},
        ]
    }
]


@dataclass(frozen=True, slots=True)
class Workload:
    """What a user may say of the pod; the names of the fields in camelCase are those of the chart's values.

    All are as Kubernetes has them. *extra_env* comes after our own variables, *pod_labels* give way to our own.
    """

    image: str = IMAGE
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: Sequence[Object] = ()
    resources: Mapping[str, Any] = field(default_factory=lambda: dict(_RESOURCES))
    extra_env: Sequence[Object] = ()
    node_selector: Mapping[str, str] = field(default_factory=lambda: {"kubernetes.io/os": "linux"})
    tolerations: Sequence[Object] = ()
    affinity: Mapping[str, Any] = field(default_factory=dict)
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    pod_annotations: Mapping[str, str] = field(default_factory=dict)
    egress: Sequence[Object] = field(default_factory=lambda: list(_EGRESS))


def deployment(workload: Workload) -> Object:
    """Return the Deployment. It is never two pods: the new one begins when the old one has released the lease."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 3,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": dict(_SELECTED)},
            "template": {
                "metadata": {
                    "labels": {**workload.pod_labels, **_LABELS},
                    "annotations": dict(workload.pod_annotations),
                },
                "spec": _pod(workload),
            },
        },
    }


def _pod(workload: Workload) -> Object:
    return {
        "serviceAccountName": EXTENSION,
        "automountServiceAccountToken": True,  # of this pod alone: the account says no
        "enableServiceLinks": False,
        # Runs get 10 s to clear away (CLOSE_SECONDS), the lease 10 s to be released.
        "terminationGracePeriodSeconds": 30,
        "imagePullSecrets": list(workload.image_pull_secrets),
        "nodeSelector": dict(workload.node_selector),
        "tolerations": list(workload.tolerations),
        "affinity": dict(workload.affinity),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "extension",
                "image": workload.image,
                "imagePullPolicy": workload.image_pull_policy,
                "args": ["--watch", "--listen", f":{PORT}"],
                "env": [*_ENVIRONMENT, *workload.extra_env],
                "ports": [{"name": PORT_NAME, "containerPort": PORT, "protocol": "TCP"}],
                # A cold start on a slow node; then two minutes without an answer: packing a large object takes seconds.
                "startupProbe": _probe("/healthz", every=2, failures=60),
                "livenessProbe": _probe("/healthz", every=20, failures=6),
                "readinessProbe": _probe("/readyz", every=5, failures=2),
                "resources": dict(workload.resources),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }


def _probe(path: str, *, every: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": PORT_NAME},
        "periodSeconds": every,
        "timeoutSeconds": 10,
        "failureThreshold": failures,
    }


def service() -> Object:
    """Return the Service at which metrics are read, also while the pod is not ready: that is when they matter."""
    metadata = _metadata()
    metadata["annotations"] = {"prometheus.io/scrape": "true", "prometheus.io/port": str(PORT)}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": "ClusterIP",
            "publishNotReadyAddresses": True,
            "selector": dict(_SELECTED),
            "ports": [{"name": PORT_NAME, "port": PORT, "targetPort": PORT_NAME, "protocol": "TCP"}],
        },
    }


def network_policy(workload: Workload) -> Object:
    """Return the NetworkPolicy: in for metrics and probes alone, out to names, the API server and stores."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(),
        "spec": {
            "podSelector": {"matchLabels": dict(_SELECTED)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": PORT}]}],
            "egress": list(workload.egress),
        },
    }


def _metadata() -> Object:
    return {"name": EXTENSION, "namespace": NAMESPACE, "labels": dict(_LABELS)}
