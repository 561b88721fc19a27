"""Opens the cluster that a command works on, and closes the connection whatever happens.

Apart from `session.py`, because commands that need no cluster should not pay for the HTTP client at their start.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from strongroom.cli.options import ClusterOptions
from strongroom.cli.output import Output, note
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.transport import RetryPolicy


@asynccontextmanager
async def connect(options: ClusterOptions, output: Output) -> AsyncIterator[KubeApi]:
    """Open the cluster that the options name; what is unsafe about the connection is told on stderr.

    Raises `KubeconfigInvalid`; a server that does not answer shows at the first request.
    """
    async with api_of(options) as api:
        for warning in api.warnings:
            note(output, f"warning: {warning}")
        yield api


def api_of(options: ClusterOptions, *, retry: RetryPolicy | None = None) -> KubeApi:
    """Return the API of the cluster that the options name, not yet connected to. Raises `KubeconfigInvalid`."""
    named = options.kubeconfig or options.context or os.environ.get("KUBECONFIG")
    if not named and os.environ.get("KUBERNETES_SERVICE_HOST") and not (Path.home() / ".kube" / "config").exists():
        return KubeApi.in_cluster(retry=retry)
    return KubeApi.from_kubeconfig(options.kubeconfig, options.context, retry=retry)
