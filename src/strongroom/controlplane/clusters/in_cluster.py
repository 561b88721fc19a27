"""Runs the extension as a pod of a connected cluster, with the installer's token: makes it, looks at it, removes it."""

import asyncio
import time
from typing import Final

import msgspec

from strongroom.controlplane.clusters.answers import read
from strongroom.controlplane.clusters.errors import ExtensionUnhealthy
from strongroom.controlplane.clusters.kinds import DEPLOYMENTS, NETWORK_POLICIES, PODS, SERVICES
from strongroom.controlplane.clusters.manifests import EXTENSION, NAMESPACE
from strongroom.controlplane.clusters.workload import SELECTOR, Workload, deployment, network_policy, service
from strongroom.controlplane.clusters.writing import put, remove
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeNotFound

READY_SECONDS: Final = 200.0  # an image of 100 MB over a slow line, and the lease of a pod that was killed before
GONE_SECONDS: Final = 60.0  # a pod is given 30 to end (`workload.py`); on a node that is lost it never goes
POLL_SECONDS: Final = 0.5
REASON_CHARACTERS: Final = 500  # of what a kubelet says: registries answer it with pages


class _Metadata(msgspec.Struct, frozen=True):
    generation: int = 0


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0


class _Deployment(msgspec.Struct, frozen=True):
    metadata: _Metadata
    status: _Status = _Status()

    @property
    def ready(self) -> bool:
        status = self.status
        seen = status.observed_generation >= self.metadata.generation
        return seen and status.replicas == status.updated_replicas == status.ready_replicas == 1


class _Reason(msgspec.Struct, frozen=True):
    reason: str = ""
    message: str = ""


class _State(msgspec.Struct, frozen=True):
    waiting: _Reason | None = None


class _Container(msgspec.Struct, frozen=True):
    state: _State = _State()


class _Condition(_Reason, frozen=True):
    status: str = ""


class _PodStatus(msgspec.Struct, frozen=True, rename="camel"):
    conditions: tuple[_Condition, ...] = ()
    container_statuses: tuple[_Container, ...] = ()


class _Pod(msgspec.Struct, frozen=True):
    status: _PodStatus = _PodStatus()


async def run_pod(api: KubeApi, workload: Workload) -> None:
    """Make the pod and what belongs to it, or make them what *workload* says. Raises `ClusterOwned`, `KubeError`."""
    for document in (service(), network_policy(workload), deployment(workload)):
        await put(api, document)


async def wait_for_pod(api: KubeApi, seconds: float = READY_SECONDS) -> None:
    """Return when the pod is the one that was asked for, and ready: it holds the lease and watches.

    Raises `ExtensionUnhealthy` after *seconds*, with what the cluster says of it, and `KubeError`.
    """
    deadline = time.monotonic() + seconds
    while not await pod_is_ready(api):
        if time.monotonic() > deadline:
            raise ExtensionUnhealthy(
                f"the pod of the backup extension is not ready after {seconds:.0f} seconds: {await _why(api)}",
                hint=f"Look at it: kubectl describe pods -n {NAMESPACE}. Does the cluster find the image?",
            )
        await asyncio.sleep(POLL_SECONDS)


async def pod_is_ready(api: KubeApi) -> bool:
    """Say whether the pod is there as it was last asked for, and ready. Raises `KubeError`."""
    try:
        return read(await api.get(DEPLOYMENTS, EXTENSION, NAMESPACE), _Deployment).ready
    except KubeNotFound:
        return False


async def remove_pod(api: KubeApi) -> None:
    """Remove the pod and what belongs to it, and return when it has ended, or should have.

    Raises `ClusterOwned`, `KubeError`.
    """
    await remove(api, DEPLOYMENTS, EXTENSION, NAMESPACE)
    await remove(api, NETWORK_POLICIES, EXTENSION, NAMESPACE)
    await remove(api, SERVICES, EXTENSION, NAMESPACE)
    deadline = time.monotonic() + GONE_SECONDS
    # It releases its lease with the rights that are taken from it next.
    while time.monotonic() < deadline:
        if not await _pods(api):
            return
        await asyncio.sleep(POLL_SECONDS)


async def _pods(api: KubeApi) -> list[_Pod]:
    return [
        read(item, _Pod)
        async for page in api.list_pages(PODS, namespace=NAMESPACE, labels=SELECTOR)
        for item in page.items
    ]


async def _why(api: KubeApi) -> str:
    for pod in await _pods(api):
        for container in pod.status.container_statuses:
            if container.state.waiting is not None:
                return _told(container.state.waiting)
        for condition in pod.status.conditions:
            if condition.status == "False" and condition.message:
                return _told(condition)
        return "it runs, and does not hold the Lease or does not watch"
    return "there is no pod"


def _told(reason: _Reason) -> str:
    return f"{reason.reason}: {reason.message}"[:REASON_CHARACTERS]
