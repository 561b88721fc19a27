"""Asks a cluster what a credential may do, and waits until what was just granted counts."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from strongroom.controlplane.clusters.access import ClusterAccess
from strongroom.controlplane.clusters.answers import AccessReview, read
from strongroom.controlplane.clusters.errors import ClusterError, ClusterForbidden
from strongroom.controlplane.clusters.kinds import ACCESS_REVIEWS, LOCAL_REVIEWS
from strongroom.controlplane.clusters.manifests import NAMESPACE
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeForbidden, KubeNotFound, KubeUnauthorized

RULES_SECONDS: Final = 15.0  # until every API server has seen a new role or token; one informer's delay is below 1 s
POLL_SECONDS: Final = 0.2

T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One thing that a credential may do: *verb* on *resource* of *group*, in *namespace* ("" everywhere)."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        target = f"{self.resource}.{self.group}" if self.group else self.resource
        place = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {target}{f' {self.name}' if self.name else ''}{place}"


async def allowed(api: KubeApi, rights: Iterable[Right]) -> set[Right]:
    """Return those of *rights* that *api*'s own credential has, as the API server says. Raises `KubeError`."""

    async def ask(right: Right) -> Right | None:
        body = _review("SelfSubjectAccessReview", {"resourceAttributes": _attributes(right)})
        answer = read(await api.create(ACCESS_REVIEWS, body), AccessReview)
        return right if answer.status.allowed else None

    return {right for right in await asyncio.gather(*map(ask, rights)) if right is not None}


async def allowed_to(api: KubeApi, account: str, rights: Iterable[Right]) -> set[Right]:
    """Return those of *rights* that an *account* of our namespace has there: what counts everywhere does so there.

    Raises `KubeError`.
    """

    async def ask(right: Right) -> Right | None:
        attributes = {**_attributes(right), "namespace": NAMESPACE}
        spec = {"user": f"system:serviceaccount:{NAMESPACE}:{account}", "resourceAttributes": attributes}
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]
        body = _review("LocalSubjectAccessReview", {**spec, "groups": groups})
        body["metadata"] = {"namespace": NAMESPACE}
        answer = read(await api.create(LOCAL_REVIEWS, body, NAMESPACE), AccessReview)
        return right if answer.status.allowed else None

    return {right for right in await asyncio.gather(*map(ask, rights)) if right is not None}


def _review(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}


def _attributes(right: Right) -> dict[str, str]:
    resource, _, subresource = right.resource.partition("/")
    attributes = {
        "verb": right.verb,
        "group": right.group,
        "resource": resource,
        "subresource": subresource,
        "namespace": right.namespace,
        "name": right.name,
    }
    return {key: value for key, value in attributes.items() if value}


async def settled(call: Callable[[], Awaitable[T]]) -> T:
    """Return *call*'s answer once the API server has seen what was just written: a role takes a moment."""
    deadline = time.monotonic() + RULES_SECONDS
    while True:
        try:
            return await call()
        except (KubeForbidden, KubeUnauthorized, KubeNotFound, ClusterForbidden):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(POLL_SECONDS)


async def wait_for_rights(access: ClusterAccess, account: str, rights: Iterable[Right]) -> None:
    """Return when *account* gets a token and has all of *rights*: a Role counts a moment after it was written.

    Raises `ClusterError`s; where the time of a healthy cluster is over, one that names what is still missing.
    """
    wanted = set(rights)
    await settled(lambda: access.token(account))
    async with access.api(account) as api:
        await _wait(account, wanted, lambda: allowed(api, wanted))


async def wait_for_pods_rights(api: KubeApi, account: str, rights: Iterable[Right]) -> None:
    """As `wait_for_rights`, for an *account* whose tokens only its pod has; asked as the installer."""
    wanted = set(rights)
    await _wait(account, wanted, lambda: allowed_to(api, account, wanted))


async def _wait(account: str, wanted: set[Right], ask: Callable[[], Awaitable[set[Right]]]) -> None:
    deadline = time.monotonic() + RULES_SECONDS
    while missing := wanted - await settled(ask):
        if time.monotonic() > deadline:
            told = ", ".join(map(str, sorted(missing)))
            message = f"{account} was given rights and {RULES_SECONDS:.0f} s later still may not: {told}"
            raise ClusterError(message, hint="Does another authorizer of the cluster deny it?")
        await asyncio.sleep(POLL_SECONDS)
