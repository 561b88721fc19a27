"""Takes Strongroom's way into a cluster away again: what a connected cluster's deletion does, as far as it answers."""

from strongroom.controlplane.clusters import manifests
from strongroom.controlplane.clusters.access import ClusterAccess
from strongroom.controlplane.clusters.errors import translated
from strongroom.controlplane.clusters.installer import remove_extension
from strongroom.controlplane.clusters.kinds import ROLE_BINDINGS, SECRETS, SERVICE_ACCOUNTS
from strongroom.controlplane.clusters.manifests import NAMESPACE
from strongroom.controlplane.clusters.trusted_access import unbind_account
from strongroom.controlplane.clusters.writing import accounts, remove


async def disconnect(access: ClusterAccess) -> None:
    """Remove the extension and all trusted access, and end the connector: its token and the installer's open nothing.

    The namespace, the ClusterRoles and the installer's binding stay: the installer may not remove them. An
    administrator does it with `kubectl delete clusterrole,clusterrolebinding -l
    app.kubernetes.io/managed-by=strongroom` and `kubectl delete namespace dataprotection-microsoft`. Raises
    `ClusterError`s. Cut off half-way it can be repeated, until the connector's own binding is gone.
    """
    await remove_extension(access)
    with translated("disconnect the cluster"):
        async with access.api(manifests.INSTALLER) as api:
            for one in await accounts(api, manifests.BINDING_LABEL):
                await unbind_account(api, access, one.name)
            await remove(api, ROLE_BINDINGS, manifests.CONNECTOR, NAMESPACE)
            await remove(api, SECRETS, manifests.CONNECTOR, NAMESPACE)
            # The installer's account goes with its own token, so it is the very last.
            await remove(api, SERVICE_ACCOUNTS, manifests.CONNECTOR, NAMESPACE)
            await remove(api, SERVICE_ACCOUNTS, manifests.INSTALLER, NAMESPACE)
    access.forget(manifests.INSTALLER)
