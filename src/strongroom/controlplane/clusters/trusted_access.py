"""Trusted access: what lets a vault use our custom resources in a cluster, and what takes that away again.

The installer does both. RBAC lets it write a vault's Role, and add an account to the connector's, because it holds the
same rights itself; it has `escalate` on nothing (`manifests.installer`).
"""

import contextlib
from collections.abc import Mapping

from strongroom.controlplane.clusters import manifests
from strongroom.controlplane.clusters.access import ClusterAccess
from strongroom.controlplane.clusters.errors import translated
from strongroom.controlplane.clusters.kinds import ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS
from strongroom.controlplane.clusters.manifests import LISTED_LABEL, NAMESPACE, VAULT_ANNOTATION, Object
from strongroom.controlplane.clusters.rights import Right, wait_for_rights
from strongroom.controlplane.clusters.writing import accounts, put, remove, write_connector_list
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeNotFound


async def bind_trusted_access(access: ClusterAccess, name: str, vault_id: str) -> str:
    """Let the vault *vault_id* use our custom resources under the binding *name*; return its account.

    Tokens for it come from `ClusterAccess.token`. Repeating completes what was left half-way; another vault under the
    same name takes the place of the one before. Raises `ClusterError`s.
    """
    documents = manifests.vault(name, vault_id)
    account = manifests.vault_account(name, vault_id)
    with translated(f"bind trusted access {name}"):
        async with access.api(manifests.INSTALLER) as api:
            for found in await _accounts_of(api, name):
                if found != account:
                    await unbind_account(api, access, found)
            # The RoleBinding goes last: until then the account may do nothing.
            for document in documents:
                await put(api, document)
            await write_connector_list(api)
        rights = [Right("create", manifests.OWN_GROUP, resource, NAMESPACE) for resource in manifests.VAULT_RESOURCES]
        await wait_for_rights(access, account, rights)
    return account


async def unbind_trusted_access(access: ClusterAccess, name: str) -> None:
    """Take the binding *name* away; its vault's tokens end with its account. Raises `ClusterError`s.

    API servers remember a token that they accepted for up to 10 s; the rights are gone before that.
    """
    with translated(f"remove trusted access {name}"):
        async with access.api(manifests.INSTALLER) as api:
            for account in await _accounts_of(api, name):
                await unbind_account(api, access, account)


async def trusted_access_bindings(access: ClusterAccess) -> Mapping[str, str]:
    """Return the vault id of each vault's account in the cluster. Raises `ClusterError`s."""
    with translated("list trusted access"):
        async with access.api(manifests.INSTALLER) as api:
            found = await accounts(api, manifests.BINDING_LABEL)
    return {one.name: one.annotation(VAULT_ANNOTATION) for one in found}


async def _accounts_of(api: KubeApi, binding: str) -> list[str]:
    found = await accounts(api, f"{manifests.BINDING_LABEL}={manifests.binding_key(binding)}")
    return [one.name for one in found]


async def unbind_account(api: KubeApi, access: ClusterAccess, account: str) -> None:
    """Take one vault's account away, as the installer. Raises `ClusterOwned`, `KubeError`.

    The rights go first. The account, by which the rest is found again, goes last.
    """
    access.forget(account)
    await remove(api, ROLE_BINDINGS, account, NAMESPACE)
    await remove(api, ROLES, account, NAMESPACE)
    unlisted: Object = {"metadata": {"labels": {LISTED_LABEL: None}}}
    with contextlib.suppress(KubeNotFound):
        await api.patch(SERVICE_ACCOUNTS, account, NAMESPACE, unlisted, "merge", field_manager=manifests.FIELD_MANAGER)
    await write_connector_list(api)
    await remove(api, SERVICE_ACCOUNTS, account, NAMESPACE)
