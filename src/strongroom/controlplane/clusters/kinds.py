"""The Kubernetes kinds that the control plane itself reads and writes in a cluster."""

from typing import Final

from strongroom.dataplane.kube.kinds import Kind

_VERBS: Final = frozenset(("get", "list", "create", "patch", "update", "delete"))
_RBAC: Final = "rbac.authorization.k8s.io"

NAMESPACES: Final = Kind("", "v1", "Namespace", "namespaces", False, _VERBS)
SERVICE_ACCOUNTS: Final = Kind("", "v1", "ServiceAccount", "serviceaccounts", True, _VERBS)
SECRETS: Final = Kind("", "v1", "Secret", "secrets", True, _VERBS)
CONFIG_MAPS: Final = Kind("", "v1", "ConfigMap", "configmaps", True, _VERBS)
ROLES: Final = Kind(_RBAC, "v1", "Role", "roles", True, _VERBS)
ROLE_BINDINGS: Final = Kind(_RBAC, "v1", "RoleBinding", "rolebindings", True, _VERBS)
CLUSTER_ROLES: Final = Kind(_RBAC, "v1", "ClusterRole", "clusterroles", False, _VERBS)
CLUSTER_ROLE_BINDINGS: Final = Kind(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", False, _VERBS)
DEFINITIONS: Final = Kind(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False, _VERBS
)
LEASES: Final = Kind("coordination.k8s.io", "v1", "Lease", "leases", True, _VERBS)
DEPLOYMENTS: Final = Kind("apps", "v1", "Deployment", "deployments", True, _VERBS)
SERVICES: Final = Kind("", "v1", "Service", "services", True, _VERBS)
NETWORK_POLICIES: Final = Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True, _VERBS)
PODS: Final = Kind("", "v1", "Pod", "pods", True, _VERBS)
ACCESS_REVIEWS: Final = Kind(
    "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", False, frozenset(("create",))
)
LOCAL_REVIEWS: Final = Kind(
    "authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", True, frozenset(("create",))
)
RULES_REVIEWS: Final = Kind(
    "authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", False, frozenset(("create",))
)

BY_KIND: Final = {
    kind.kind: kind
    for kind in (
        NAMESPACES,
        SERVICE_ACCOUNTS,
        SECRETS,
        CONFIG_MAPS,
        ROLES,
        ROLE_BINDINGS,
        CLUSTER_ROLES,
        CLUSTER_ROLE_BINDINGS,
        DEFINITIONS,
        DEPLOYMENTS,
        SERVICES,
        NETWORK_POLICIES,
    )
}
"""The kinds of the objects that `manifests.py` and `workload.py` make."""
