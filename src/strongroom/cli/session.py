"""Opens what a command works on, a repository or a cluster, and closes it whatever happens."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from strongroom.cli.options import ClusterOptions, RepositoryOptions
from strongroom.cli.output import Output, note
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.repository import Repository, read_info


@asynccontextmanager
async def open_repository(options: RepositoryOptions) -> AsyncIterator[Repository]:
    """Open the repository that the options name, with the key file that they or the environment name.

    Raises what `open_store`, `KeyFile.find` and `Repository.open` raise.
    """
    store = await open_store(options.repository)
    try:
        info, _ = await read_info(store)
        yield await Repository.open(store, KeyFile.find(options.key_file, info.id))
    finally:
        await store.close()


@asynccontextmanager
async def connect(options: ClusterOptions, output: Output) -> AsyncIterator[KubeApi]:
    """Open the cluster that the options name; what is unsafe about the connection is told on stderr.

    Raises `KubeconfigInvalid`; a server that does not answer shows at the first request.
    """
    async with _api(options) as api:
        for warning in api.warnings:
            note(output, f"warning: {warning}")
        yield api


def _api(options: ClusterOptions) -> KubeApi:
    named = options.kubeconfig or options.context or os.environ.get("KUBECONFIG")
    if not named and os.environ.get("KUBERNETES_SERVICE_HOST") and not (Path.home() / ".kube" / "config").exists():
        return KubeApi.in_cluster()
    return KubeApi.from_kubeconfig(options.kubeconfig, options.context)
