"""The Kubernetes objects that Strongroom puts into a cluster: its namespace, roles and accounts, as values. Pure.

Who may do what, and why no more, is told in docs/reference/kubernetes-access.md, "Accounts of a connected cluster".
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from strongroom.extension.api import definitions
from strongroom.extension.api.lease import LEASE_NAME

Object = dict[str, Any]
"""A Kubernetes object, as JSON has it."""

NAMESPACE: Final = (
    "dataprotection-microsoft"  # Azure's name: its own extension lies there too (dataplane: OWN_NAMESPACE)
)
FIELD_MANAGER: Final = "strongroom"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
OWNER: Final = "strongroom"
LISTED_LABEL: Final = "strongroom.dev/connector"
"""On a ServiceAccount, with the value "listed": the connector may ask for its tokens. What the connector's Role lists
is made from these, so that two writers at once, or a crash between two steps, cannot lose one for good."""
BINDING_LABEL: Final = "strongroom.dev/trusted-access"
"""On the objects of a trusted access binding: `binding_key` of its name."""
VAULT_ANNOTATION: Final = "strongroom.dev/vault"
RULES_ANNOTATION: Final = "strongroom.dev/rules"
"""On each of the four ClusterRoles: a hash of its rules, by which an extension that is newer than they are shows."""

CONNECTOR: Final = "strongroom-connector"
INSTALLER: Final = "strongroom-installer"
EXTENSION: Final = "strongroom-extension"

READ: Final = "strongroom-read"
SNAPSHOTS: Final = "strongroom-snapshots"
HOOKS: Final = "strongroom-hooks"
RESTORE: Final = "strongroom-restore"
FOUR_ROLES: Final = (READ, SNAPSHOTS, HOOKS, RESTORE)

EXTENSION_KEYS_SECRET: Final = "strongroom-extension"  # noqa: S105 - the name of a Secret
STORAGE_SECRET_PREFIX: Final = "storage-"  # noqa: S105 - of the names of Secrets
SETTINGS_MAP: Final = "strongroom-settings"

OWN_GROUP: Final = "backup.strongroom.dev"
VAULT_RESOURCES: Final = ("backups", "restores", "deletebackups")
VAULT_VERBS: Final = ("create", "get", "list", "watch", "delete")
LOCATIONS: Final = "backupstoragelocations"
_STATUSES: Final = tuple(f"{plural}/status" for plural in (*VAULT_RESOURCES, LOCATIONS))
SCHEMA_ANNOTATION: Final = definitions.SCHEMA_ANNOTATION
EXTENSION_LEASE: Final = LEASE_NAME
OWN_DEFINITIONS: Final = tuple(
    f"{plural}.{OWN_GROUP}" for plural in ("backups", "backupstoragelocations", "deletebackups", "restores")
)
HOOK_GROUP: Final = "clusterbackup.dataprotection.microsoft.com"  # Microsoft's: hooks written for Azure work unchanged
HOOK_DEFINITIONS: Final = tuple(f"{plural}.{HOOK_GROUP}" for plural in ("backuphooks", "restorehooks"))

_RBAC: Final = "rbac.authorization.k8s.io"


def rule(
    groups: str | Sequence[str], resources: Sequence[str], verbs: Sequence[str], names: Sequence[str] = ()
) -> Object:
    """Return an RBAC rule; without *names* it counts for objects of any name."""
    found: Object = {
        "apiGroups": [groups] if isinstance(groups, str) else list(groups),
        "resources": list(resources),
        "verbs": list(verbs),
    }
    return {**found, "resourceNames": list(names)} if names else found


_FOUR: Final[Mapping[str, Sequence[Object]]] = {
    # `get` on everything would also allow exec (a WebSocket is a GET), nodes/proxy and services/proxy.
    READ: [rule("*", ["*"], ["list"])],
    SNAPSHOTS: [
        rule("snapshot.storage.k8s.io", ["volumesnapshots"], ["get", "list", "create", "delete"]),
        rule("snapshot.storage.k8s.io", ["volumesnapshotcontents"], ["get", "list", "create", "patch", "delete"]),
        rule("snapshot.storage.k8s.io", ["volumesnapshotcontents/status"], ["patch"]),
        rule("snapshot.storage.k8s.io", ["volumesnapshotclasses"], ["get", "list", "create"]),
        rule("storage.k8s.io", ["csidrivers"], ["get"]),  # is the driver of a snapshot still installed?
    ],
    # exec over WebSocket is a GET, over SPDY a POST.
    HOOKS: [rule("", ["pods/exec"], ["get", "create"])],
    RESTORE: [
        rule("*", ["*"], ["create", "patch"]),
        rule(_RBAC, ["roles", "clusterroles"], ["escalate", "bind"]),  # a restored role may grant anything
    ],
}


def cluster_roles() -> list[Object]:
    """Return the four ClusterRoles: *read*, *snapshots*, *hooks*, *restore*."""
    return [
        _object(_RBAC, "ClusterRole", name, None, rules=list(rules), annotations={RULES_ANNOTATION: rules_hash(name)})
        for name, rules in _FOUR.items()
    ]


def rules_hash(name: str) -> str:
    """Return the hash that stands on one of the four ClusterRoles in this version."""
    return hashlib.sha256(json.dumps(_FOUR[name], sort_keys=True).encode()).hexdigest()[:16]


def resource_definitions() -> list[Object]:
    """Return the definitions of our custom resources, and of Azure's hooks."""
    return definitions.definitions()


def namespace() -> Object:
    """Return our namespace."""
    return _object("", "Namespace", NAMESPACE, None)


def connector() -> list[Object]:
    """Return the connector without its Role (`connector_role`), and the Secret that Kubernetes fills with its token."""
    secret = _object("", "Secret", CONNECTOR, NAMESPACE, annotations={"kubernetes.io/service-account.name": CONNECTOR})
    return [
        account(CONNECTOR),
        {**secret, "type": "kubernetes.io/service-account-token"},
        role_binding(CONNECTOR, NAMESPACE, ("Role", CONNECTOR), CONNECTOR),
    ]


def connector_role(accounts: Iterable[str]) -> Object:
    """Return the connector's Role: it may ask for tokens of *accounts*, and nothing else."""
    names = sorted(set(accounts))
    # Without names the rule would count for every account.
    rules = [rule("", ["serviceaccounts/token"], ["create"], names)] if names else []
    return _object(_RBAC, "Role", CONNECTOR, NAMESPACE, rules=rules)


def installer() -> list[Object]:
    """Return the installer: all of our namespace that it writes, and the four roles, which it may bind.

    RBAC lets nobody write a Role with more than he holds himself. So the installer holds what it hands out: tokens of
    accounts (in the connector's Role), our custom resources (in a vault's), the extension's Secrets, ConfigMaps and
    leases, and what the extension does with our custom resources. It has `escalate` on nothing and writes no
    ClusterRole. A Deployment may ask for a node's disk: no more than `bind` on *restore* is worth.
    """
    write = ["get", "list", "create", "patch", "delete"]
    own = [
        rule("", ["serviceaccounts"], write),
        rule("", ["serviceaccounts/token"], ["create"]),
        rule("", ["secrets"], ["get", "create", "patch", "delete"]),
        rule("", ["configmaps"], ["get", "create", "patch", "delete"]),
        rule("coordination.k8s.io", ["leases"], ["get", "create", "update", "patch", "delete"]),
        rule(_RBAC, ["roles", "rolebindings"], [*write, "update"]),
        rule(OWN_GROUP, VAULT_RESOURCES, VAULT_VERBS),
        rule(OWN_GROUP, [LOCATIONS], ["get", "list", "watch", "create", "patch", "delete"]),
        rule(OWN_GROUP, _STATUSES, ["patch"]),
        rule("", ["events"], ["create"]),
        rule("apps", ["deployments"], ["get", "create", "patch", "delete"]),
        rule("", ["services"], ["get", "create", "patch", "delete"]),
        rule("networking.k8s.io", ["networkpolicies"], ["get", "create", "patch", "delete"]),
        rule("", ["pods"], ["list"]),  # why the extension's does not begin
        rule("authorization.k8s.io", ["localsubjectaccessreviews"], ["create"]),  # does what it was given count yet?
    ]
    wide = [
        rule(_RBAC, ["clusterroles"], ["get", "bind"], FOUR_ROLES),
        # A create by POST has no name to be compared with; what is bound is held by `bind` above.
        rule(_RBAC, ["clusterrolebindings"], ["create"]),
        rule(_RBAC, ["clusterrolebindings"], ["get", "patch", "delete"], (READ, SNAPSHOTS, RESTORE)),
        rule(_RBAC, ["rolebindings"], ["create"]),
        rule(_RBAC, ["rolebindings"], ["get", "patch", "delete"], (HOOKS,)),
        rule("", ["namespaces"], ["get", "patch"], (NAMESPACE,)),
        rule(
            "apiextensions.k8s.io",
            ["customresourcedefinitions"],
            ["get", "update", "patch"],
            (*OWN_DEFINITIONS, *HOOK_DEFINITIONS),
        ),
    ]
    return [
        account(INSTALLER, listed=True),
        _object(_RBAC, "Role", INSTALLER, NAMESPACE, rules=own),
        role_binding(INSTALLER, NAMESPACE, ("Role", INSTALLER), INSTALLER),
        _object(_RBAC, "ClusterRole", INSTALLER, None, rules=wide),
        cluster_role_binding(INSTALLER, INSTALLER),
    ]


def extension(storage_locations: Sequence[str], *, listed: bool) -> list[Object]:
    """Return the extension's account and what it may do in our namespace, without the bindings of the four roles.

    It reads the Secret `storage-<location>` of each of *storage_locations*, and makes and keeps its own keys in
    `EXTENSION_KEYS_SECRET`: RBAC knows a name at creation only for a server-side apply. With *listed* the connector may
    ask for its tokens. It creates none of our custom resources, and writes their statuses alone.
    """
    rules = [
        rule("", ["secrets"], ["get", "create", "patch"], (EXTENSION_KEYS_SECRET,)),
        rule("", ["configmaps"], ["get", "create", "patch", "delete"]),  # the marker, and the intents to freeze
        rule("coordination.k8s.io", ["leases"], ["get", "create", "update", "patch"]),
        rule(OWN_GROUP, VAULT_RESOURCES, ["get", "list", "watch", "delete"]),  # deletes them 7 days after their end
        rule(OWN_GROUP, [LOCATIONS], ["get", "list", "watch"]),
        rule(OWN_GROUP, _STATUSES, ["patch"]),
        rule("", ["events"], ["create"]),
    ]
    if storage_locations:
        rules.append(rule("", ["secrets"], ["get"], [STORAGE_SECRET_PREFIX + name for name in storage_locations]))
    return [
        account(EXTENSION, listed=listed),
        _object(_RBAC, "Role", EXTENSION, NAMESPACE, rules=rules),
        role_binding(EXTENSION, NAMESPACE, ("Role", EXTENSION), EXTENSION),
    ]


def extension_cluster_bindings() -> list[Object]:
    """Return what gives the extension *read* and *snapshots* in the whole cluster."""
    return [cluster_role_binding(name, EXTENSION) for name in (READ, SNAPSHOTS)]


def restore_binding() -> Object:
    """Return what gives the extension *restore*: as much as cluster-admin."""
    return cluster_role_binding(RESTORE, EXTENSION)


def hooks_binding(in_namespace: str) -> Object:
    """Return what gives the extension *hooks* in one namespace of the user's."""
    return role_binding(HOOKS, in_namespace, ("ClusterRole", HOOKS), EXTENSION)


def settings_map(settings: str) -> Object:
    """Return the ConfigMap with the extension's settings, a JSON document."""
    return {**_object("", "ConfigMap", SETTINGS_MAP, NAMESPACE), "data": {"settings.json": settings}}


def storage_secret(location: str, credentials: Mapping[str, str]) -> Object:
    """Return the Secret with the credentials of a storage location."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in credentials.items()}
    return {**_object("", "Secret", STORAGE_SECRET_PREFIX + location, NAMESPACE), "type": "Opaque", "data": data}


def vault(binding: str, vault_id: str) -> list[Object]:
    """Return the objects of the trusted access *binding* of a vault: account, Role and RoleBinding of one name."""
    name = vault_account(binding, vault_id)
    labels = {BINDING_LABEL: binding_key(binding)}
    rules = [rule(OWN_GROUP, VAULT_RESOURCES, VAULT_VERBS)]
    found = [
        account(name, listed=True),
        _object(_RBAC, "Role", name, NAMESPACE, rules=rules),
        role_binding(name, NAMESPACE, ("Role", name), name),
    ]
    for one in found:
        one["metadata"]["labels"] |= labels
        one["metadata"]["annotations"] = {VAULT_ANNOTATION: vault_id}
    return found


def vault_account(binding: str, vault_id: str) -> str:
    """Return the ServiceAccount of a vault's trusted access *binding*; ARM names do not tell case apart.

    Another vault under the same binding gets another account: no token of the one before opens it.
    """
    digest = hashlib.sha256(json.dumps([binding.lower(), vault_id.lower()]).encode()).hexdigest()[:12]
    readable = re.sub("[^a-z0-9]+", "-", binding.lower())[:24].strip("-")
    return "-".join(part for part in ("vault", readable, digest) if part)


def binding_key(binding: str) -> str:
    """Return the label value that stands for a trusted access binding's name."""
    return hashlib.sha256(binding.lower().encode()).hexdigest()[:24]


def account(name: str, *, listed: bool = False) -> Object:
    """Return a ServiceAccount of our namespace; *listed* ones the connector may ask tokens of."""
    found = _object("", "ServiceAccount", name, NAMESPACE)
    found["automountServiceAccountToken"] = False
    if listed:
        found["metadata"]["labels"][LISTED_LABEL] = "listed"
    return found


def role_binding(name: str, in_namespace: str, role: tuple[str, str], to: str) -> Object:
    """Return a RoleBinding of *role* (its kind and name) to an account of our namespace."""
    found = _object(_RBAC, "RoleBinding", name, in_namespace)
    return {**found, **_binds(role, to)}


def cluster_role_binding(role: str, to: str) -> Object:
    """Return the ClusterRoleBinding of *role*, by the same name, to an account of our namespace."""
    return {**_object(_RBAC, "ClusterRoleBinding", role, None), **_binds(("ClusterRole", role), to)}


def _binds(role: tuple[str, str], to: str) -> Object:
    kind, name = role
    return {
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": to, "namespace": NAMESPACE}],
    }


def _object(
    group: str,
    kind: str,
    name: str,
    in_namespace: str | None,
    *,
    rules: list[Object] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Object:
    metadata: Object = {"name": name, "labels": {MANAGED_BY: OWNER, "app.kubernetes.io/part-of": OWNER}}
    if in_namespace is not None:
        metadata["namespace"] = in_namespace
    if annotations:
        metadata["annotations"] = dict(annotations)
    found: Object = {"apiVersion": f"{group}/v1" if group else "v1", "kind": kind, "metadata": metadata}
    return found if rules is None else {**found, "rules": rules}
