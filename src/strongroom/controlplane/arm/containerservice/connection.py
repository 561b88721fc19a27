"""Connects a cluster inside the request: the kubeconfig is read, used and gone when the answer is sent."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable
from typing import Final, TypeVar

from strongroom.controlplane.arm.call import Call
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.clusters.connect import ConnectedCluster, connect
from strongroom.controlplane.clusters.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterOwned,
    ClusterUnauthorized,
    ClusterUnreachable,
    ConnectorUnfit,
    KubeconfigRefused,
)
from strongroom.controlplane.clusters.identify import identify
from strongroom.controlplane.clusters.kubeconfig import AdminConnection, parse_kubeconfig

T = TypeVar("T")

FIELD: Final = "properties.strongroomConnection"
CONNECT_SECONDS: Final = 120.0  # a healthy cluster takes 2; clients wait 5 minutes for an answer

# Status and code by kind of error; 5xx would have clients send the kubeconfig again and again.
_ANSWERS: Final[tuple[tuple[type[ClusterError], int, str], ...]] = (
    (KubeconfigRefused, 400, "KubeconfigRefused"),
    (ClusterUnreachable, 400, "ClusterUnreachable"),
    (ClusterUnauthorized, 400, "ClusterUnauthorized"),
    (ClusterForbidden, 400, "ClusterForbidden"),
    (ClusterOwned, 409, "ClusterOwned"),
    (ConnectorUnfit, 409, "ConnectorUnfit"),
)


def read_connection(call: Call, asked: Json) -> AdminConnection:
    """Return the connection that `strongroomConnection` holds. Raises `ArmError` naming the field, never its value."""
    text = "".join(str(asked["kubeconfig"]).split())  # `base64` breaks lines
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ArmError(
            400,
            "KubeconfigRefused",
            f"{FIELD}.kubeconfig is not base64.",
            target=f"{FIELD}.kubeconfig",
            actions=("Send the kubeconfig as base64: `kubectl config view --minify --flatten --raw | base64`.",),
        ) from None
    try:
        return parse_kubeconfig(raw, asked.get("context"), allow_loopback=call.plane.loopback_only)
    except KubeconfigRefused as error:
        raise answered(error) from error


def uid_of(call: Call, admin: AdminConnection) -> str:
    """Return by what the cluster is known again; nothing is written. Raises `ArmError`."""
    try:
        return call.plane.run(_within(identify(admin)))
    except ClusterError as error:
        raise answered(error) from error


def connected(call: Call, admin: AdminConnection) -> ConnectedCluster:
    """Put Strongroom's namespace, roles and accounts into the cluster. Raises `ArmError`."""
    try:
        return call.plane.run(_within(connect(admin)))
    except ClusterError as error:
        raise answered(error) from error


async def _within(work: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await work
    except TimeoutError as error:
        raise ClusterUnreachable(
            f"the cluster was not connected within {CONNECT_SECONDS:.0f} seconds", hint="Repeat the request"
        ) from error


def answered(error: ClusterError) -> ArmError:
    """Return what a caller is told about *error*."""
    status, code = next(((s, c) for kind, s, c in _ANSWERS if isinstance(error, kind)), (400, "ClusterError"))
    text = error.message[:1].upper() + error.message[1:]
    return ArmError(
        status,
        code,
        text if text.endswith(".") else f"{text}.",
        target=f"{FIELD}.kubeconfig",
        actions=(error.hint,) if error.hint else (),
    )
