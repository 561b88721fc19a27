"""What a restore waits for: CRDs to be established, namespaces to be gone or there, services to be ready.

Conditions are polled with lists of one object, so the `list` permission is enough. Every wait ends with a reason.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeForbidden, KubeNotFound
from strongroom.dataplane.kube.kinds import Kind

CRD_SECONDS = 60  # a CRD is established in well under a second; a name conflict never is
NAMESPACE_GONE_SECONDS = 120  # the namespace controller needs seconds; finalizers without a controller never end
SERVICE_SECONDS = 120  # images are pulled before the first Pod behind a webhook is ready
FIRST_POLL_SECONDS = 0.05
SLOWEST_POLL_SECONDS = 1.0

CRD_KIND = Kind(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False, frozenset()
)
NAMESPACE_KIND = Kind("", "v1", "Namespace", "namespaces", False, frozenset())
SLICE_KIND = Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", True, frozenset())


async def until(condition: Callable[[], Awaitable[str]], seconds: float) -> str:
    """Poll *condition* until it returns "" or *seconds* have passed; return its last answer, the reason why not."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    pause = FIRST_POLL_SECONDS
    while True:
        reason = await condition()
        if not reason or clock() >= deadline:
            return reason
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, SLOWEST_POLL_SECONDS)


async def crd_established(api: KubeApi, name: str) -> str:
    """Wait until a CRD is Established with its names accepted and its kind is served; return "" or why not."""

    async def condition() -> str:
        raw = await api.get_at(CRD_KIND, name, None)
        if raw is None:
            return "it is gone"
        crd = msgspec.json.decode(raw)
        conditions = {c["type"]: c for c in (crd.get("status") or {}).get("conditions") or ()}
        for wanted in ("NamesAccepted", "Established"):
            found = conditions.get(wanted)
            if found is None or found.get("status") != "True":
                return f"not {wanted}: {found.get('message', '') if found else 'no condition yet'}"
        spec = crd["spec"]
        version = next((v["name"] for v in spec["versions"] if v.get("served")), "")
        kind = Kind(spec["group"], version, spec["names"]["kind"], spec["names"]["plural"], False, frozenset())
        try:
            await api.get_path(kind.path(), {"limit": "1"})
        except KubeNotFound:
            return "established, but not served yet"
        except KubeForbidden:
            return ""
        return ""

    return await until(condition, CRD_SECONDS)


async def namespace_gone(api: KubeApi, name: str) -> str:
    """Wait until a Terminating namespace is gone; return "" (also where it never was Terminating) or why not."""

    async def condition() -> str:
        raw = await api.get_at(NAMESPACE_KIND, name, None)
        if raw is None:
            return ""
        namespace = msgspec.json.decode(raw)
        if (namespace.get("status") or {}).get("phase") != "Terminating":
            return ""
        said = "; ".join(
            c.get("message", "")
            for c in (namespace["status"].get("conditions") or ())
            if c.get("status") == "True" and c.get("message")
        )
        return f"the namespace is still Terminating{': ' + said if said else ''}"

    return await until(condition, NAMESPACE_GONE_SECONDS)


async def service_ready(api: KubeApi, namespace: str, name: str, seconds: float = SERVICE_SECONDS) -> str:
    """Wait until an endpoint of the Service is ready; return "" or why not."""

    async def condition() -> str:
        async for page in api.list_pages(SLICE_KIND, namespace=namespace, labels=f"kubernetes.io/service-name={name}"):
            for item in page.items:
                if _has_ready_endpoint(msgspec.json.decode(item)):
                    return ""
        return f"the Service {namespace}/{name} behind it has no ready endpoint"

    return await until(condition, seconds)


def _has_ready_endpoint(endpoint_slice: dict[str, Any]) -> bool:
    # A condition that is absent counts as ready (k8s.io/api/discovery/v1, EndpointConditions).
    return any(
        endpoint.get("addresses") and (endpoint.get("conditions") or {}).get("ready") is not False
        for endpoint in endpoint_slice.get("endpoints") or ()
    )
