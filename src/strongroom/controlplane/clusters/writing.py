"""Puts objects of `manifests.py` into a cluster, leaves others alone, and keeps the connector's list right."""

import json
from collections.abc import Iterable
from typing import Final

from strongroom.controlplane.clusters import manifests
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
        found = json.loads(await api.get(kind, name, in_namespace))
    except KubeNotFound:
        return False
    if not manifests.is_ours(found):
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


async def accounts(api: KubeApi, labels: str) -> list[Object]:
    """Return the ServiceAccounts of our namespace under the label selector *labels*. Raises `KubeError`."""
    return [
        json.loads(bytes(item))
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
            current: Object | None = json.loads(await api.get(ROLES, manifests.CONNECTOR, NAMESPACE))
        except KubeNotFound:
            current = None
        listed = _names(await accounts(api, f"{manifests.LISTED_LABEL}=listed"))
        wanted = manifests.connector_role(listed)
        try:
            if current is None:
                await api.create(ROLES, wanted, NAMESPACE, field_manager=FIELD_MANAGER)
            elif current.get("rules") != wanted["rules"]:
                wanted["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
                await api.replace(ROLES, manifests.CONNECTOR, NAMESPACE, wanted, field_manager=FIELD_MANAGER)
        except (KubeConflict, KubeAlreadyExists):
            if attempt + 1 == _ATTEMPTS:
                raise
        else:
            return


def _names(documents: Iterable[Object]) -> list[str]:
    return [document["metadata"]["name"] for document in documents]


def _place(document: Object) -> tuple[Kind, str, str | None]:
    metadata = document["metadata"]
    return BY_KIND[document["kind"]], metadata["name"], metadata.get("namespace")
