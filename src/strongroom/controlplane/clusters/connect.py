"""Connects a cluster: with an administrator's credential, once and in memory, makes our namespace, roles and accounts.

Every step may run again: `connect` finds what is there and makes it as this version wants it. Left half-way, the next
run completes it; the connector keeps its token.
"""

import asyncio
import base64
import time
from dataclasses import dataclass, field
from typing import Final

from strongroom.controlplane.clusters import manifests
from strongroom.controlplane.clusters.access import RETRY, ClusterAccess, request_token
from strongroom.controlplane.clusters.answers import Definition, Found, GrantedRule, RulesReview, Version, read
from strongroom.controlplane.clusters.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterOwned,
    ConnectorUnfit,
    translated,
)
from strongroom.controlplane.clusters.kinds import (
    DEFINITIONS,
    NAMESPACES,
    ROLES,
    RULES_REVIEWS,
    SECRETS,
)
from strongroom.controlplane.clusters.kubeconfig import TOKEN, AdminConnection
from strongroom.controlplane.clusters.manifests import NAMESPACE
from strongroom.controlplane.clusters.rights import POLL_SECONDS, Right, allowed, settled
from strongroom.controlplane.clusters.writing import put, refuse_foreign, write_connector_list
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeForbidden, KubeNotFound, KubeProtocolError, KubeUnauthorized

SERVED_SECONDS: Final = 30.0  # a CRD is served within a second; an API server that starts takes a moment longer
TOKEN_SECONDS: Final = 30.0  # the token controller takes 1 s; one that restarts waits 15 s for its lease

_RBAC: Final = "rbac.authorization.k8s.io"
_AZURE_GROUP: Final = "dataprotection.microsoft.com"  # of the CRDs of Azure's own extension, and groups below it
_OWN_GROUP: Final = "strongroom.dev"


@dataclass(frozen=True, slots=True)
class ConnectedCluster:
    """What is kept of a cluster after connecting.

    *uid* is that of the namespace `kube-system`, by which a cluster is known again; *version* is as `v1.37.2`.
    *connector_token* is a secret: what it is worth, docs/reference/kubernetes-access.md says. *warnings* are for the
    user: what every ServiceAccount of this cluster, and so the connector, may do besides.
    """

    server: str
    ca: bytes = field(repr=False)
    uid: str
    version: str
    connector_token: str = field(repr=False)
    allow_loopback: bool = False
    warnings: tuple[str, ...] = ()

    def access(self) -> ClusterAccess:
        """Return the access through the connector."""
        return ClusterAccess(self.server, self.ca, self.connector_token, allow_loopback=self.allow_loopback)


EVERYTHING: Final = Right("*", "*", "*")
NEEDED: Final = (
    Right("get", "", "namespaces"),
    Right("list", "apiextensions.k8s.io", "customresourcedefinitions"),
    *[
        Right(verb, group, resource, where)
        for group, resource, where in (
            ("", "namespaces", ""),
            (_RBAC, "clusterroles", ""),
            (_RBAC, "clusterrolebindings", ""),
            (_RBAC, "roles", NAMESPACE),
            (_RBAC, "rolebindings", NAMESPACE),
            ("", "serviceaccounts", NAMESPACE),
            ("", "secrets", NAMESPACE),
        )
        for verb in ("get", "create", "patch")
    ],
    Right("list", "", "serviceaccounts", NAMESPACE),
    *[Right(verb, "apiextensions.k8s.io", "customresourcedefinitions") for verb in ("get", "create", "patch")],
    Right("update", _RBAC, "roles", NAMESPACE),
    # The four roles hold everything, and nobody may write a role with more than he holds without this.
    Right("escalate", _RBAC, "clusterroles"),
    Right("escalate", _RBAC, "roles", NAMESPACE),
    Right("bind", _RBAC, "clusterroles"),
    Right("bind", _RBAC, "roles", NAMESPACE),
)
"""What an administrator's credential needs to connect a cluster."""

FORBIDDEN_TO_CONNECTOR: Final = (
    EVERYTHING,
    Right("get", "", "secrets", NAMESPACE, manifests.CONNECTOR),
    Right("list", "", "secrets"),
    Right("create", "", "pods", NAMESPACE),
    Right("create", "", "pods", "kube-system"),
    Right("patch", "", "serviceaccounts", NAMESPACE, manifests.INSTALLER),
    Right("create", "", "serviceaccounts/token", NAMESPACE, "strongroom-nobody"),
    Right("create", "", "serviceaccounts/token", "kube-system", "default"),
    Right("patch", _RBAC, "roles", NAMESPACE, manifests.CONNECTOR),
    Right("create", _RBAC, "clusterrolebindings"),
    Right("impersonate", "", "users"),
)
"""A connector that may do one of these is a way to more than TokenRequest on what is listed."""


async def connect(admin: AdminConnection) -> ConnectedCluster:
    """Put our namespace, the four roles, the connector and the installer into a cluster; return what is kept of it.

    *admin* is used for this call alone. Raises `KubeconfigRefused` (an address that may not be connected to),
    `ClusterUnreachable`, `ClusterUnauthorized`, `ClusterForbidden` (with all that is missing, before anything is
    written), `ClusterOwned` (Azure's own extension or somebody else has our names), `ConnectorUnfit`, `ClusterError`.
    """
    with translated("connect to the cluster"):
        async with KubeApi(admin.kube_access(), retry=RETRY) as api:
            version = read(await api.get_path("/version"), Version).git_version
            await _require_rights(api)
            uid = read(await api.get(NAMESPACES, "kube-system"), Found).metadata.uid
            if not uid:
                raise KubeProtocolError("the namespace kube-system has no uid: is it a Kubernetes API server?")
            await _refuse_owned(api)
            await _write(api)
            await _established(api)
            token = await _connector_token(api)
    connected = ConnectedCluster(admin.server, admin.ca, uid, version, token, admin.allow_loopback)
    warnings = await check_connector(connected)
    return ConnectedCluster(admin.server, admin.ca, uid, version, token, admin.allow_loopback, warnings)


async def check_connector(cluster: ConnectedCluster) -> tuple[str, ...]:
    """Try the connector's token: it must get a token of the installer, and must not be able to do harm itself.

    Returns what else it may do because every ServiceAccount of the cluster may. Raises `ConnectorUnfit`,
    `ClusterUnreachable`.
    """
    admin = AdminConnection(
        cluster.server, cluster.ca, token=cluster.connector_token, allow_loopback=cluster.allow_loopback
    )
    with translated("check the connector"):
        async with KubeApi(admin.kube_access(), retry=RETRY) as api:
            try:
                await settled(lambda: request_token(api, manifests.INSTALLER, 600))
            except (KubeForbidden, KubeUnauthorized, KubeNotFound) as error:
                message = f"the connector gets no token of {manifests.INSTALLER}: {error.message}"
                raise ConnectorUnfit(message, hint="Connect the cluster again") from error
            found = await allowed(api, FORBIDDEN_TO_CONNECTOR)
            if found:
                message = f"the connector may do more than ask for tokens: {', '.join(map(str, sorted(found)))}"
                hint = (
                    "Some binding gives it to every ServiceAccount, or to those of our namespace: remove that binding"
                )
                raise ConnectorUnfit(message, hint=hint)
            extra = {line for place in (NAMESPACE, "default", "kube-system") for line in await _unexplained(api, place)}
    return tuple(sorted(extra))


async def _require_rights(api: KubeApi) -> None:
    if await allowed(api, [EVERYTHING]):
        return
    missing = sorted(set(NEEDED) - await allowed(api, NEEDED))
    if missing:
        lines = [str(right) for right in missing]
        raise ClusterForbidden(
            f"the credential may not connect a cluster; it lacks: {', '.join(lines)}",
            missing=lines,
            hint="Connect with a credential that has the ClusterRole cluster-admin",
        )


async def _refuse_owned(api: KubeApi) -> None:
    """Raise `ClusterOwned` where Azure's own extension, or anybody else, has what we would write."""
    try:
        await refuse_foreign(api, NAMESPACES, NAMESPACE)
    except ClusterOwned as error:
        hint = (
            "Is it that of Azure's own backup extension? Remove that extension first. "
            f"If the namespace may be taken over, label it {manifests.MANAGED_BY}={manifests.OWNER}"
        )
        raise ClusterOwned(error.message, owned=error.owned, hint=hint) from error
    async for page in api.list_pages(DEFINITIONS, metadata_only=True):
        for item in page.items:
            metadata = read(item, Found).metadata
            name = metadata.name
            group = name.partition(".")[2]
            if _below(group, _AZURE_GROUP, _OWN_GROUP) and not metadata.is_ours:
                raise ClusterOwned(
                    f"the custom resource definition {name} belongs to somebody else",
                    owned=f"customresourcedefinitions.apiextensions.k8s.io/{name}",
                    hint="Remove Azure's own backup extension first"
                    if _below(group, _AZURE_GROUP)
                    else "Remove it: the group is Strongroom's",
                )


def _below(group: str, *parents: str) -> bool:
    return any(group == parent or group.endswith(f".{parent}") for parent in parents)


async def _write(api: KubeApi) -> None:
    """Write all objects. Wherever it stops, nobody has more than was meant, and the next run goes on."""
    await refuse_foreign(api, ROLES, manifests.CONNECTOR, NAMESPACE)
    await put(api, manifests.namespace())
    for document in manifests.resource_definitions():
        await put(api, document)
    for document in (*manifests.cluster_roles(), *manifests.installer(), *manifests.connector()):
        await put(api, document)
    await write_connector_list(api)


async def _established(api: KubeApi) -> None:
    """Return when the API server serves our custom resources. Raises `ClusterError` where it does not."""
    deadline = time.monotonic() + SERVED_SECONDS
    for document in manifests.resource_definitions():
        name = document["metadata"]["name"]
        while not (state := read(await api.get(DEFINITIONS, name), Definition)).served:
            if time.monotonic() > deadline:
                message = (
                    f"the API server does not serve {name} after {SERVED_SECONDS:.0f} s: {state.why or 'no reason'}"
                )
                raise ClusterError(message)
            await asyncio.sleep(POLL_SECONDS)


def _decoded(token: str) -> str:
    try:
        text = base64.b64decode(token, validate=True).decode("ascii")
    except ValueError:  # its text may quote the token
        text = ""
    if not TOKEN.fullmatch(text):
        raise KubeProtocolError(f"the Secret {manifests.CONNECTOR} holds no token")
    return text


async def _connector_token(api: KubeApi) -> str:
    """Return the token that Kubernetes puts into the connector's Secret. Raises `ConnectorUnfit` if it does not."""
    deadline = time.monotonic() + TOKEN_SECONDS
    while True:
        data = read(await api.get(SECRETS, manifests.CONNECTOR, NAMESPACE), Found).data or {}
        if token := data.get("token"):
            return _decoded(token)
        if time.monotonic() > deadline:
            message = f"the Secret {manifests.CONNECTOR} has no token after {TOKEN_SECONDS:.0f} s"
            raise ConnectorUnfit(message, hint="Does the cluster's controller manager run? Then connect again")
        await asyncio.sleep(POLL_SECONDS)


_REVIEWS: Final = {
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
}
"""What every user may create to learn who he is and what he may (ClusterRole system:basic-user)."""
_PUBLISHED: Final = {("certificates.k8s.io", "clustertrustbundles")}
"""What every ServiceAccount may read: public certificates (ClusterRole system:cluster-trust-bundle-discovery)."""


async def _unexplained(api: KubeApi, place: str) -> list[str]:
    """Return the rules for *api*'s credential in a namespace that neither our Role nor Kubernetes' defaults give."""
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": place},
    }
    rules = read(await api.create(RULES_REVIEWS, body), RulesReview).status.resource_rules or []
    return [_told(one) for one in rules if not _explained(one, place)]


def _explained(one: GrantedRule, place: str) -> bool:
    pairs = {(group, resource) for group in one.api_groups or [] for resource in one.resources or []}
    if place == NAMESPACE and pairs == {("", "serviceaccounts/token")}:
        return one.verbs == ["create"] and bool(one.resource_names)
    if pairs <= _PUBLISHED:
        return set(one.verbs) <= {"get", "list", "watch"}
    return pairs <= _REVIEWS and one.verbs == ["create"]


def _told(one: GrantedRule) -> str:
    groups, resources = one.api_groups or [], one.resources or []
    targets = ", ".join(f"{resource}.{group}" if group else resource for group in groups for resource in resources)
    names = f" ({', '.join(one.resource_names)})" if one.resource_names else ""
    return f"every ServiceAccount may {', '.join(one.verbs)} {targets}{names}"
