"""Runs the extension by itself, without a control plane: custom resources say what to do."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.config import ClusterAccess, load_in_cluster, load_kubeconfig
from strongroom.errors import UsageError
from strongroom.extension.keys import ExtensionKeys, ensure_keys
from strongroom.extension.pipe import cluster_access
from strongroom.extension.runs.context import AWAY, RunContext
from strongroom.extension.watching.monitor import Monitor
from strongroom.extension.watching.serving import Listen, serving
from strongroom.extension.watching.watcher import Watcher

log = logging.getLogger(__name__)

START_AGAIN_SECONDS: Final = 5.0  # an API server that is away at our start: a pod that ends is only started again later


@dataclass(frozen=True)
class Target:
    """Which cluster: a kubeconfig's, that of *server* with *ca* (PEM) and *token_file*, or that of this pod."""

    kubeconfig: Path | None
    context: str | None
    server: str | None
    ca: Path | None
    token_file: Path | None
    namespace: str

    def access(self) -> ClusterAccess:
        """Return how to reach it. Raises `UsageError`, `DocumentInvalid`, `KubeconfigInvalid`."""
        if self.server is not None:
            if self.ca is None or self.token_file is None or self.kubeconfig or self.context:
                raise UsageError(
                    "--server takes --ca and --token-file beside it, and neither --kubeconfig nor --context"
                )
            try:
                ca = self.ca.read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"the CA file {self.ca} cannot be read: {error}") from error
            return cluster_access(self.server, ca, self.token_file, self.namespace, allow_loopback=True)
        if self.ca or self.token_file:
            raise UsageError("--ca and --token-file go with --server")
        if self.kubeconfig or self.context:
            return load_kubeconfig(self.kubeconfig, self.context)
        return load_in_cluster()


async def watch(target: Target, listen: Listen | None = None) -> None:
    """Carry out the custom resources of *target*, until cancelled, and show metrics and health at *listen*.

    Raises what `Target.access`, `ensure_keys` and `serving` raise, but waits for an API server that is away.
    """
    access = target.access()
    for warning in access.warnings:
        log.warning(warning)
    monitor = Monitor()
    if listen is None:
        await _carry_out(access, target.namespace, monitor)
        return
    async with serving(monitor, listen) as port:
        log.info("metrics and health are served", extra={"port": port})
        await _carry_out(access, target.namespace, monitor)


async def _carry_out(access: ClusterAccess, namespace: str, monitor: Monitor) -> None:
    context = RunContext(access, await _keys(access, namespace), namespace)
    await Watcher(context, hosted=False, monitor=monitor).run()


async def _keys(access: ClusterAccess, namespace: str) -> ExtensionKeys:
    while True:
        try:
            async with KubeApi(access, user_agent="strongroom-extension") as api:
                return await ensure_keys(api, namespace)
        except AWAY as error:
            log.warning("the API server does not answer yet", extra={"reason": error.message})
            await asyncio.sleep(START_AGAIN_SECONDS)
