"""The ways in which one test cluster differs from another."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar


class Level(StrEnum):
    """How much of a cluster is real."""

    CONTROL_PLANE = "control-plane"
    """KWOK plays the node: nothing runs in pods."""
    NODE = "node"
    """Pods run: kubelet, containerd and kube-proxy in a capsule. Needs root and Linux."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestbedOptions:
    """What a test may ask of its cluster. The defaults are a plain cluster with volumes."""

    __test__: ClassVar[bool] = False

    level: Level = Level.CONTROL_PLANE
    volumes: bool = True
    """Start the CSI side: driver, provisioner, snapshotter, snapshot-controller, their CRDs and classes."""
    audit: bool = False
    """Log every request (metadata only) to `Testbed.audit_log`."""
    etcd_servers_overrides: tuple[str, ...] = ()
    """Resources that live in a second etcd, spelled as the API server does: `/configmaps`, `apps/deployments`."""
    etcd_compaction_interval: str | None = None
    """How often the API server compacts etcd, a Go duration; `0` for never. None leaves its default, 5m."""
    min_request_timeout_s: int | None = None
    """Lower bound of a watch's life in seconds. None leaves the API server's default, 1800."""
    apiserver_flags: tuple[str, ...] = ()
    """Further flags of kube-apiserver, as written on its command line; they win over ours."""

    def to_json(self) -> dict[str, Any]:
        """Return the options as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TestbedOptions":
        """Return the options that `to_json` wrote."""
        lists = {name: tuple(value) for name, value in document.items() if isinstance(value, list)}
        return cls(**{**document, **lists, "level": Level(document["level"])})
