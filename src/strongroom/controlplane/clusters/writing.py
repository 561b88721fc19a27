"""Puts objects of `manifests.py` into a cluster, leaves others alone, and keeps the connector's list right."""

from typing import Final

from strongroom.controlplane.clusters import manifests
from strongroom.controlplane.clusters.answers import Found, Metadata, read
from strongroom.controlplane.clusters.errors import ClusterOwned
from strongroom.controlplane.clusters.kinds import BY_KIND, ROLES, SERVICE_ACCOUNTS
from strongroom.controlplane.clusters.manifests import FIELD_MANAGER, NAMESPACE, Object
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeAlreadyExists, KubeConflict, KubeNotFound
from strongroom.dataplane.kube.kinds import Kind

_ATTEMPTS: Final = 10  # of writers who change the connector's list at the same time: each loser reads once more


async def put(api: KubeApi, document: Object) -> None:
    """Make the object, or make it what *document* says. Raises `ClusterOwned` if it is somebody else's, `KubeError`."""
    kind, name, in_namespace = _place(document)
    await refuse_foreign(api, kind, name, in_namespace)
    await api.apply(kind, name, in_namespace, document, field_manager=FIELD_MANAGER, force=True)


async def refuse_foreign(api: KubeApi, kind: Kind, name: str, in_namespace: str | None = None) -> bool:
    """Tell whether the object is there. Raises `ClusterOwned` where it is and has not our label, `KubeError`."""
    try:
        found = read(await api.get(kind, name, in_namespace), Found)
    except KubeNotFound:
        return False
    if not found.metadata.is_ours:
        raise ClusterOwned(
            f"{kind.name} {name} belongs to somebody else: it has no label {manifests.MANAGED_BY}={manifests.OWNER}",
            owned=f"{kind.resource}/{name}",
            hint="Remove it, or give it that label if it may be taken over",
        )
    return True


async def remove(api: KubeApi, kind: Kind, name: str, in_namespace: str | None = None) -> None:
    """Delete an object of ours if it is there. Raises `ClusterOwned`, `KubeError`."""
    if await refuse_foreign(api, kind, name, in_namespace):
        try:
            await api.delete(kind, name, in_namespace)
        except KubeNotFound:
            return


async def accounts(api: KubeApi, labels: str) -> list[Metadata]:
    """Return the metadata of our namespace's ServiceAccounts under a label selector. Raises `KubeError`."""
    return [
        read(item, Found).metadata
        async for page in api.list_pages(SERVICE_ACCOUNTS, namespace=NAMESPACE, labels=labels)
        for item in page.items
    ]


async def write_connector_list(api: KubeApi) -> None:
    """Let the connector's Role list exactly the accounts that carry the label, whoever else writes meanwhile.

    Raises `ClusterOwned`, `KubeError`; `KubeConflict` where others keep writing.
    """
    for attempt in range(_ATTEMPTS):
        # The Role is read before the accounts: an account that comes in between changes the Role, and we conflict.
        try:
            current: Found | None = read(await api.get(ROLES, manifests.CONNECTOR, NAMESPACE), Found)
        except KubeNotFound:
            current = None
        listed = await accounts(api, f"{manifests.LISTED_LABEL}=listed")
        wanted = manifests.connector_role(one.name for one in listed)
        try:
            if current is None:
                await api.create(ROLES, wanted, NAMESPACE, field_manager=FIELD_MANAGER)
            elif (current.rules or []) != wanted["rules"]:
                wanted["metadata"]["resourceVersion"] = current.metadata.resource_version
                await api.replace(ROLES, manifests.CONNECTOR, NAMESPACE, wanted, field_manager=FIELD_MANAGER)
        except (KubeConflict, KubeAlreadyExists):
            if attempt + 1 == _ATTEMPTS:
                raise
        else:
            return


def _place(document: Object) -> tuple[Kind, str, str | None]:
    metadata = document["metadata"]
    return BY_KIND[document["kind"]], metadata["name"], metadata.get("namespace")
