"""The long work on connected clusters: install and remove the extension, bind and unbind vaults, disconnect.

Each id is that of a long-running operation on the resource that is worked for. Every step may run twice: what it does
in the cluster it finds done the second time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from strongroom import __version__
from strongroom.controlplane.clusters.disconnect import disconnect
from strongroom.controlplane.clusters.errors import ClusterError
from strongroom.controlplane.clusters.installer import (
    ExtensionSettings,
    Mode,
    install_extension,
    remove_extension,
    wait_for_heartbeat,
)
from strongroom.controlplane.clusters.pool import ClusterUnknown
from strongroom.controlplane.clusters.trusted_access import bind_trusted_access, unbind_trusted_access
from strongroom.controlplane.identity.assignments import forget_resource
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.errors import StateUnavailable
from strongroom.controlplane.state.operations import LongOperation
from strongroom.controlplane.state.resources import Document, Resource
from strongroom.controlplane.state.times import stamp
from strongroom.controlplane.workflows.containers import find_place
from strongroom.controlplane.workflows.engine import Body, Steps
from strongroom.controlplane.workflows.extension_settings import (
    cluster_endpoint_of,
    hook_namespaces_of,
    mode_of,
    workload_of,
)
from strongroom.controlplane.workflows.locating import locate, require_reach
from strongroom.controlplane.workflows.readiness import EXTENSIONS
from strongroom.controlplane.workflows.services import Services, as_user_error, error_json, error_of
from strongroom.protection.errors import ErrorCode, Refused, UserError

log = logging.getLogger(__name__)

WORK_SECONDS: Final = 300.0  # a healthy cluster takes 3; one that gives no answer is given up after some 30 per request
HEARTBEAT_SECONDS: Final = 120.0  # one that was killed a moment ago, on another machine, holds its lease as long
OPERATION_FAILED: Final = "ExtensionOperationFailed"  # Azure's code for an extension that could not be installed
CLUSTER_FAILED: Final = "ClusterOperationFailed"


class ClusterWork:
    """The bodies of the work on clusters."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def bodies(self) -> dict[str, Body]:
        """Return the bodies by kind of work."""
        return {
            "install-extension": self.install_extension,
            "remove-extension": self.remove_extension,
            "bind-access": self.bind_access,
            "unbind-access": self.unbind_access,
            "disconnect-cluster": self.disconnect_cluster,
        }

    async def install_extension(self, steps: Steps, operation_id: str) -> None:
        """Install or update the extension, start it, and give it its storage location.

        Stopped anywhere, it goes on from the beginning; the extension stands as `Creating` or `Updating` until then.
        """
        found = await steps.run("install", lambda: self._tried(operation_id, self._install, OPERATION_FAILED))
        await steps.run("finish", lambda: self._finish(operation_id, found))

    async def _install(self, operation: LongOperation) -> Document:
        extension = await self._require(operation)
        cluster = extension.parent
        # Account and container may have gone since the request.
        place = await self._services.read(lambda tx: find_place(tx, extension))
        mode = mode_of(extension)
        require_reach(mode, place)  # before anything is changed in the cluster
        configuration = extension.properties.get("configurationSettings") or {}
        settings = ExtensionSettings(
            mode=mode,
            version=__version__,
            configuration=configuration,
            storage_locations=(place.location_name,),
            hook_namespaces=hook_namespaces_of(extension),
            cluster_endpoint=cluster_endpoint_of(extension),
        )
        access = await self._services.pool.access(cluster)
        if settings.mode is not Mode.HOSTED:
            await self._services.pool.stop_extension(cluster)
        await install_extension(access, settings, workload_of(extension))
        if settings.mode is Mode.HOSTED:
            await self._services.pool.hosted(cluster)
        beat = await wait_for_heartbeat(access, HEARTBEAT_SECONDS)
        await locate(self._services, cluster, place)
        return {"currentVersion": beat.version}

    async def remove_extension(self, steps: Steps, operation_id: str) -> None:
        """Stop the extension and take it out of the cluster; forced, also when the cluster does not answer."""
        found = await steps.run("remove", lambda: self._tried(operation_id, self._remove, OPERATION_FAILED))
        await steps.run("finish", lambda: self._finish(operation_id, found, gone=True))

    async def _remove(self, operation: LongOperation) -> Document:
        extension = await self._services.read(lambda tx: tx.resources.get(operation.resource))
        if extension is None:
            return {}
        await self._services.pool.stop_extension(extension.parent)
        try:
            await remove_extension(await self._services.pool.access(extension.parent))
        except ClusterError as error:
            if not operation.request["force"]:
                raise
            log.warning("an extension was given up in its cluster", extra={"reason": error.message})
        return {}

    async def bind_access(self, steps: Steps, operation_id: str) -> None:
        """Let a vault into the cluster. The binding stands as `Updating` until then."""
        found = await steps.run("bind", lambda: self._tried(operation_id, self._bind, CLUSTER_FAILED))
        await steps.run("finish", lambda: self._finish(operation_id, found))

    async def _bind(self, operation: LongOperation) -> Document:
        binding = await self._require(operation)
        access = await self._services.pool.access(binding.parent)
        await bind_trusted_access(access, binding.name, str(binding.properties["sourceResourceId"]))
        return {}

    async def unbind_access(self, steps: Steps, operation_id: str) -> None:
        """Take a vault's access away. The binding stands as `Deleting` until then."""
        found = await steps.run("unbind", lambda: self._tried(operation_id, self._unbind, CLUSTER_FAILED))
        await steps.run("finish", lambda: self._finish(operation_id, found, gone=True))

    async def _unbind(self, operation: LongOperation) -> Document:
        binding = await self._services.read(lambda tx: tx.resources.get(operation.resource))
        if binding is not None:
            await unbind_trusted_access(await self._services.pool.access(binding.parent), binding.name)
        return {}

    async def disconnect_cluster(self, steps: Steps, operation_id: str) -> None:
        """Take Strongroom out of a cluster as far as it answers, and forget how it is reached, last of all."""
        await steps.run("disconnect", lambda: self._tried(operation_id, self._disconnect, CLUSTER_FAILED))
        await steps.run("forget", lambda: self._forget(operation_id))

    async def _disconnect(self, operation: LongOperation) -> Document:
        await self._services.pool.stop_extension(operation.resource)
        try:
            await disconnect(await self._services.pool.access(operation.resource))
        except ClusterUnknown:
            return {}
        except ClusterError as error:
            # The cluster may be gone for good: its resource must go all the same.
            log.warning("a cluster was forgotten without its answer", extra={"reason": error.message})
        return {}

    async def _forget(self, operation_id: str) -> Any:
        operation = await self._services.operation(operation_id)
        await self._services.pool.forget(operation.resource)

        def write(tx: Tx) -> None:
            forget_resource(tx, operation.resource)
            tx.resources.delete_tree(operation.resource)

        await self._services.write(write)
        await self._services.end_operation(operation)
        return None

    async def _require(self, operation: LongOperation) -> Resource:
        found = await self._services.read(lambda tx: tx.resources.get(operation.resource))
        if found is None:
            message = f"{operation.resource} was deleted meanwhile."
            raise Refused(UserError(str(ErrorCode.RESOURCE_NOT_FOUND), message))
        return found

    async def _tried(self, operation_id: str, work: Callable[[LongOperation], Awaitable[Document]], code: str) -> Any:
        """Return what *work* changed in the resource's properties, or {"error": …}."""
        operation = await self._services.operation(operation_id)
        if operation.ended is not None:
            return {"ended": True}
        try:
            async with asyncio.timeout(WORK_SECONDS):
                return {"changes": await work(operation)}
        except TimeoutError:
            message = f"The cluster did not answer within {WORK_SECONDS:.0f} seconds."
            return {"error": error_json(UserError(code, message, ("Repeat the request.",), retryable=True))}
        except StateUnavailable:
            raise
        except Exception as error:
            log.warning("work on a cluster failed", exc_info=error, extra={"operation": operation_id})
            told = as_user_error(error)
            if told.code == ErrorCode.GENERIC_WARNING:
                told = replace(told, code=code)
            return {"error": error_json(told)}

    async def _finish(self, operation_id: str, found: Any, *, gone: bool = False) -> Any:
        """Write how it ended, into the resource and the operation; with *gone* a success deletes the resource."""
        if found.get("ended"):
            return None
        operation = await self._services.operation(operation_id)
        error = error_of(found["error"]) if "error" in found else None
        at = stamp(self._services.clock())

        def write(tx: Tx) -> None:
            resource = tx.resources.get(operation.resource)
            if resource is None:
                return
            if gone and error is None:
                forget_resource(tx, resource.id)
                tx.resources.delete_tree(resource.id)
                return
            changes: Document = {"provisioningState": "Failed" if error else "Succeeded", **found.get("changes", {})}
            if resource.type == EXTENSIONS:
                changes["statuses"] = [_status(error, at)]
                changes["errorInfo"] = {"code": error.code, "message": error.message} if error else None
            tx.resources.put(resource.with_properties(changes))

        await self._services.write(write)
        await self._services.end_operation(operation, error=error)
        return None


def _status(error: UserError | None, at: str) -> Document:
    """Return an entry of an extension's `statuses`."""
    if error is None:
        return extension_status("Installed", "Information", "The extension is installed and has its location.", at)
    return extension_status(error.code, "Error", error.message, at)


def extension_status(code: str, level: str, message: str, at: str) -> Document:
    """Return one `ExtensionStatus`; *level* is Information, Warning or Error."""
    return {"code": code, "displayStatus": code, "level": level, "message": message, "time": at}
