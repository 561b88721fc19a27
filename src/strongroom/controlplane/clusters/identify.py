"""Asks a cluster who it is, before anything is written into it."""

from typing import Final

from strongroom.controlplane.clusters.answers import Found, read
from strongroom.controlplane.clusters.errors import translated
from strongroom.controlplane.clusters.kinds import NAMESPACES
from strongroom.controlplane.clusters.kubeconfig import AdminConnection
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeProtocolError
from strongroom.dataplane.kube.transport import RetryPolicy

RETRY: Final = RetryPolicy(attempts=2, total_s=15.0)  # somebody waits for the answer


async def identify(admin: AdminConnection) -> str:
    """Return the uid of the namespace `kube-system`, by which a cluster is known again. Raises `ClusterError`s."""
    with translated("ask the cluster who it is"):
        async with KubeApi(admin.kube_access(), retry=RETRY) as api:
            uid = read(await api.get(NAMESPACES, "kube-system"), Found).metadata.uid
            if not uid:
                raise KubeProtocolError("the namespace kube-system has no uid: is it a Kubernetes API server?")
            return uid
