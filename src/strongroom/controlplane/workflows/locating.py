"""Gives the extension of a cluster its storage location, and lets it into the repository there.

A location in a cloud is a custom resource with a Secret beside it. A folder of this server is told over the pipe to the
extension that this server hosts: who may write custom resources must not name the server's files.
"""

import logging
from typing import Final

from strongroom.controlplane.clusters.hosted import ExtensionKeys
from strongroom.controlplane.clusters.installer import Mode
from strongroom.controlplane.clusters.locations import write_location
from strongroom.controlplane.clusters.pool import ClusterUnknown
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.workflows.containers import Place, find_place
from strongroom.controlplane.workflows.extension_settings import mode_of
from strongroom.controlplane.workflows.readiness import EXTENSION_TYPE, EXTENSIONS, extension_of
from strongroom.controlplane.workflows.services import Services
from strongroom.controlplane.workflows.writers import is_known, remember_writer
from strongroom.errors import StrongroomError
from strongroom.protection.errors import ErrorCode, Refused, UserError

log = logging.getLogger(__name__)

NOT_THERE: Final = ("Creating", "Deleting")


async def locate(services: Services, cluster: str, place: Place) -> None:
    """Have the extension of *cluster* able to use the container *place* for the next hour, wherever it runs.

    Raises `Refused` for a folder of this server where the extension runs in the cluster; errors of the cluster, of the
    hosted extension's start, and of the store.
    """
    mode = await services.read(lambda tx: _mode(tx, cluster))
    require_reach(mode, place)
    located = await services.containers.location(place)
    if not place.account.is_folder:
        if mode is Mode.HOSTED:
            await services.pool.hosted(cluster)  # one that cannot start says why, here
        keys = await write_location(await services.pool.access(cluster), located.document, located.credentials)
        await _let_in(services, cluster, place, keys)
        return
    extension, keys = await services.pool.hosted(cluster, located.document)
    await _let_in(services, cluster, place, keys)
    await extension.location(located.document)


def require_reach(mode: Mode, place: Place) -> None:
    """Raise `Refused` where the extension runs in a cluster and *place* is a folder of this server."""
    if mode is Mode.HOSTED or not place.account.is_folder:
        return
    raise Refused(
        UserError(
            str(ErrorCode.NO_DEFAULT_LOCATION),
            f"The storage account {place.account.name} is a folder of this server, and the extension runs in the "
            "cluster, which does not reach it.",
            (
                "Install the extension with a storage account that is attached from a cloud (strongroom storage "
                "attach), or in the mode hosted.",
            ),
            place.account_id,
        )
    )


async def host_extensions(services: Services) -> None:
    """Have the hosted extension of each connected cluster run. Returns before they have started.

    What stands in their clusters goes on with them: so each is told its folder before it looks there. What lies in a
    cloud its cluster has, and a cloud that does not answer holds no start up.
    """
    for cluster, place in await services.read(_hosted):
        locations = []
        if place is not None and place.account.is_folder:
            try:
                locations = [(await services.containers.location(place)).document]
            except StrongroomError as error:
                log.warning("a container does not open", extra={"container": place.id, "reason": str(error)})
        try:
            await services.pool.host(cluster, *locations)
        except ClusterUnknown as error:
            log.warning("an extension is not hosted", extra={"cluster": cluster, "reason": error.message})


async def _let_in(services: Services, cluster: str, place: Place, keys: ExtensionKeys) -> None:
    """Let the extension of *cluster* into the container's repository, and remember that its signature is that one's."""
    if not await services.read(lambda tx: is_known(tx, cluster, keys.writer)):
        await services.write(lambda tx: remember_writer(tx, cluster, keys.writer))
    await services.containers.allow(place, keys)


def _mode(tx: Tx, cluster: str) -> Mode:
    extension = extension_of(tx, cluster)
    return mode_of(extension) if extension is not None else Mode.HOSTED


def _hosted(tx: Tx) -> list[tuple[str, Place | None]]:
    """Return the clusters whose extension this server hosts, each with its container, None where that is gone."""
    found: list[tuple[str, Place | None]] = []
    for extension in tx.resources.of_type(EXTENSIONS):
        properties = extension.properties
        if str(properties.get("extensionType", "")).lower() != EXTENSION_TYPE or mode_of(extension) is not Mode.HOSTED:
            continue
        # One that was never installed is started by its installation.
        if properties.get("provisioningState") in NOT_THERE or not properties.get("currentVersion"):
            continue
        try:
            found.append((extension.parent, find_place(tx, extension)))
        except Refused:
            found.append((extension.parent, None))
    return found
