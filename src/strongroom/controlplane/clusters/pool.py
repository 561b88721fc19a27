"""The connected clusters of one control plane: how each is reached, and its hosted extension while it runs."""

import asyncio
import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from strongroom.controlplane.clusters.access import ClusterAccess
from strongroom.controlplane.clusters.connect import ConnectedCluster
from strongroom.controlplane.clusters.errors import ClusterError
from strongroom.controlplane.clusters.hosted import ExtensionGone, ExtensionKeys, HostedExtension
from strongroom.controlplane.clusters.hosting import ExtensionKeeper
from strongroom.controlplane.state.database import Database
from strongroom.extension.api.documents import BackupStorageLocation

log = logging.getLogger(__name__)

STARTS_AT_ONCE: Final = 4  # each is 2 s of a processor; a server with a hundred clusters must answer meanwhile
CONNECTION: Final = "cluster/"  # the sealed connection of a cluster, by its ARM id


class ClusterUnknown(ClusterError):
    """No connection of this cluster is kept: it was never connected, or was disconnected."""


@dataclass
class _Member:
    """One cluster: its access, and what keeps its hosted extension running, once that is wanted."""

    access: ClusterAccess
    cluster: ConnectedCluster
    keeper: ExtensionKeeper | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class ClusterPool:
    """Hands out accesses and extensions by the cluster's ARM id. Used from one event loop."""

    def __init__(self, db: Database, folder: Path) -> None:
        self._db = db
        self._folder = folder
        self._members: dict[str, _Member] = {}
        self._starts = asyncio.Semaphore(STARTS_AT_ONCE)

    async def remember(self, cluster_id: str, cluster: ConnectedCluster) -> None:
        """Keep a connected cluster: sealed, without the credential that connected it."""
        kept = {
            "server": cluster.server,
            "ca": cluster.ca.decode(),
            "uid": cluster.uid,
            "version": cluster.version,
            "connectorToken": cluster.connector_token,
            "allowLoopback": cluster.allow_loopback,
        }

        def write() -> None:
            with self._db.write() as tx:
                tx.secrets.put(CONNECTION + cluster_id.lower(), json.dumps(kept).encode())

        await asyncio.to_thread(write)
        # A running extension belongs to the old connection.
        hosted = await self._stop(cluster_id)
        self._members.pop(cluster_id.lower(), None)
        if hosted is not None:
            await self.host(cluster_id, *hosted.extension.folders.values())

    async def forget(self, cluster_id: str) -> None:
        """Forget how a cluster is reached; what was installed in it stays."""
        await self.stop_extension(cluster_id)
        self._members.pop(cluster_id.lower(), None)

        def write() -> None:
            with self._db.write() as tx:
                tx.secrets.delete(CONNECTION + cluster_id.lower())

        await asyncio.to_thread(write)

    async def access(self, cluster_id: str) -> ClusterAccess:
        """Return the access to a cluster through its connector. Raises `ClusterUnknown`."""
        return (await self._member(cluster_id)).access

    async def host(self, cluster_id: str, *locations: BackupStorageLocation) -> None:
        """Keep the hosted extension of a cluster running from now on.

        It knows *locations*, which are folders of this server, before it looks at its custom resources. Raises
        `ClusterUnknown`.
        """
        member = await self._member(cluster_id)
        async with member.lock:
            if member.keeper is None:
                # ARM ids hold characters and lengths that no file name takes.
                folder = self._folder / hashlib.sha256(cluster_id.lower().encode()).hexdigest()[:32]
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                member.keeper = ExtensionKeeper(member.cluster, member.access, folder, self._starts)
            for location in locations:
                member.keeper.extension.remember(location)

    async def hosted(self, cluster_id: str, *locations: BackupStorageLocation) -> tuple[HostedExtension, ExtensionKeys]:
        """Return the hosted extension of a cluster, started if it is not running; *locations* as for `host`.

        Raises `ClusterUnknown`, and what its start raises: `ExtensionGone`, `ExtensionRefused`, errors of the access.
        """
        await self.host(cluster_id, *locations)
        keeper = (await self._member(cluster_id)).keeper
        if keeper is None:
            raise ExtensionGone("the hosted extension was stopped meanwhile")
        return await keeper.ready()

    async def stop_extension(self, cluster_id: str) -> None:
        """End the child process of a cluster, if one runs, and start none."""
        await self._stop(cluster_id)

    async def _stop(self, cluster_id: str) -> ExtensionKeeper | None:
        member = self._members.get(cluster_id.lower())
        if member is None:
            return None
        async with member.lock:
            keeper, member.keeper = member.keeper, None
            if keeper is not None:
                await keeper.stop()
            return keeper

    async def close(self) -> None:
        """End all child processes; what they were at goes on when their documents are applied again."""
        results = await asyncio.gather(*(self.stop_extension(c) for c in list(self._members)), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                log.error("an extension did not stop cleanly", exc_info=result)

    async def _member(self, cluster_id: str) -> _Member:
        key = cluster_id.lower()
        if key not in self._members:

            def read() -> bytes | None:
                with self._db.read() as tx:
                    return tx.secrets.get(CONNECTION + key)

            sealed = await asyncio.to_thread(read)
            if sealed is None:
                raise ClusterUnknown(
                    f"no connection to the cluster {cluster_id} is kept",
                    hint="Connect it: strongroom cluster connect NAME --resource-group GROUP --kubeconfig FILE",
                )
            kept = json.loads(sealed)
            cluster = ConnectedCluster(
                server=kept["server"],
                ca=kept["ca"].encode(),
                uid=kept["uid"],
                version=kept["version"],
                connector_token=kept["connectorToken"],
                allow_loopback=kept["allowLoopback"],
            )
            # Somebody else may have come first while this waited: one access, one extension for each cluster.
            self._members.setdefault(key, _Member(cluster.access(), cluster))
        return self._members[key]
