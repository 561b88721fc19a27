"""What the tests of connected clusters stand on: an administrator's connection, and the API under a token."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from strongroom.controlplane.clusters import manifests
from strongroom.controlplane.clusters.kubeconfig import AdminConnection, kube_access, parse_kubeconfig
from strongroom.controlplane.clusters.rights import Right, allowed
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.credentials import StaticCredentials
from strongroom.testbed.cluster import Testbed

VAULT = "/subscriptions/s/resourceGroups/g/providers/Microsoft.DataProtection/backupVaults/vault"


def admin_of(testbed: Testbed, kubeconfig: Path | None = None) -> AdminConnection:
    return parse_kubeconfig((kubeconfig or testbed.kubeconfig).read_bytes(), allow_loopback=True)


def clean(testbed: Testbed) -> None:
    """Take everything of ours out of a cluster."""
    ours = f"{manifests.MANAGED_BY}={manifests.OWNER}"
    for kind in ("clusterrolebindings", "clusterroles", "customresourcedefinitions"):
        testbed.kubectl("delete", kind, "-l", ours, "--ignore-not-found")
    testbed.kubectl("delete", "namespace", manifests.NAMESPACE, "--ignore-not-found")


def as_token(testbed: Testbed, token: str) -> KubeApi:
    server, ca = testbed.server, testbed.ca_file.read_bytes()
    return KubeApi(kube_access(server, ca, StaticCredentials(f"Bearer {token}"), allow_loopback=True))


def got(testbed: Testbed, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(testbed.kubectl("get", *arguments, "-o", "json"))
    return found


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.1)


async def until_allowed(api: KubeApi, *rights: Right) -> None:
    """Wait until the API server has seen the bindings that give *api* these rights."""

    async def seen() -> bool:
        return await allowed(api, rights) == set(rights)

    await until(seen)
