"""Whether an instance can be protected, from what the control plane knows: every problem at once, each with its remedy.

What only the cluster knows (drivers, snapshot classes, a writable store) is asked of its extension by a dry run.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from strongroom.controlplane.identity.rbac import Access
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.workflows.containers import account_of_extension, missing_place
from strongroom.controlplane.workflows.roles import Identity, Parties, identity_problems, role_problems
from strongroom.protection.errors import ErrorCode, Refused, UserError, refuse_if_any
from strongroom.protection.job import Limits, check_count
from strongroom.protection.settings import parse_instance

DATASOURCE_TYPE: Final = "Microsoft.ContainerService/managedClusters"
INSTANCES: Final = "Microsoft.DataProtection/backupVaults/backupInstances"
EXTENSIONS: Final = "Microsoft.KubernetesConfiguration/extensions"
EXTENSION_TYPE: Final = "microsoft.dataprotection.kubernetes"
BINDINGS: Final = "Microsoft.ContainerService/managedClusters/trustedAccessRoleBindings"
ORPHANED: Final = "orphaned"  # of a binding: its vault was deleted, and one of the same name is not let in by it
OPERATOR_ROLE: Final = "Microsoft.DataProtection/backupVaults/backup-operator"
BINDING_NAME: Final = 24  # characters: AKS's REST API takes no longer names of bindings
GROUP_NOT_FOUND: Final = "ResourceGroupNotFound"
PROVIDERS: Final = ("Microsoft.DataProtection", "Microsoft.ContainerService", "Microsoft.KubernetesConfiguration")


@dataclass(frozen=True)
class InstanceRequest:
    """What a backup instance asks for: ARM ids (trimmed of the how-to's blanks), and the backup configuration."""

    cluster: str
    policy: str
    snapshot_group: str
    configuration: Mapping[str, Any]


def read_instance(
    properties: Mapping[str, Any], vault: str, *, path: str = "properties", limits: Limits | None = None
) -> InstanceRequest:
    """Return what the properties of an instance of *vault*, which stand at *path*, ask for.

    Raises `Refused` with every problem. The configuration stays ARM's: the extension gets it as it is.
    """
    settings = parse_instance(properties, path, limits, vault=vault)
    entry = properties["policyInfo"]["policyParameters"]["backupDatasourceParametersList"][0]
    return InstanceRequest(settings.datasource.id, settings.policy_id, settings.snapshot_group_id, entry)


def problems_of_instance(
    tx: Tx, vault: Resource, request: InstanceRequest, limits: Limits, access: Access, *, exists: Resource | None
) -> list[UserError]:
    """Return everything that keeps *request* from being protected by *vault*, as far as the database knows."""
    return [
        *_policy_problems(tx, request),
        *target_problems(tx, vault, request.cluster, request.snapshot_group, access),
        *_other_instances(tx, vault, request, exists),
    ]


def target_problems(tx: Tx, vault: Resource, cluster: str, group: str, access: Access) -> list[UserError]:
    """Return everything that keeps *vault* from working in *cluster* with the snapshot resource group *group*.

    It is the same for the cluster that a backup reads and for the one that a restore writes to.
    """
    return [
        *provider_problems(tx, vault, cluster),
        *cluster_problems(tx, vault, cluster),
        *_location_problems(tx, cluster),
        *_group_problems(tx, group, _region(tx, vault, cluster)),
        *role_problems(access, parties_of(tx, vault, cluster, group)),
    ]


def _policy_problems(tx: Tx, request: InstanceRequest) -> Iterator[UserError]:
    if tx.resources.get(request.policy) is None:
        *_, vault, _, name = request.policy.split("/")
        named = f"{_place(request.policy)} --vault-name {vault}"
        yield UserError(
            str(ErrorCode.INVALID_INPUT),
            f"The backup policy {request.policy} does not exist.",
            (
                f"strongroom policy create {name} {named}",
                f"Or, with rules of your own: az dataprotection backup-policy create {named} --name {name} "
                "--policy FILE",
            ),
            "properties.policyInfo.policyId",
        )


def provider_problems(tx: Tx, vault: Resource, cluster: str) -> Iterator[UserError]:
    """The how-to: three providers are registered before backups are configured."""
    for subscription in dict.fromkeys((subscription_of(vault.id), subscription_of(cluster))):
        for namespace in PROVIDERS:
            provider = tx.resources.get(f"/subscriptions/{subscription}/providers/{namespace}")
            if provider is None or provider.doc.get("registrationState") != "Registered":
                yield UserError(
                    "MissingSubscriptionRegistration",
                    f"The subscription {subscription} is not registered to use the namespace '{namespace}'.",
                    (f"az provider register --namespace {namespace} --subscription {subscription}",),
                    f"/subscriptions/{subscription}/providers/{namespace}",
                )


def cluster_problems(tx: Tx, vault: Resource, cluster_id: str) -> Iterator[UserError]:
    """What is missing at a cluster that *vault* is to work in: connection, region, extension, trusted access."""
    cluster = tx.resources.get(cluster_id)
    if cluster is None:
        yield UserError(
            str(ErrorCode.RESOURCE_NOT_FOUND),
            f"The cluster {cluster_id} does not exist.",
            (
                f"strongroom cluster connect {cluster_id.rpartition('/')[2]} {_place(cluster_id)} "
                f"--location {vault.doc.get('location')} --kubeconfig FILE",
            ),
            "properties.dataSourceInfo.resourceID",
        )
        return
    if cluster.doc.get("location") != vault.doc.get("location"):
        yield UserError(
            str(ErrorCode.INVALID_INPUT),
            f"The cluster is in '{cluster.doc.get('location')}' and the vault in '{vault.doc.get('location')}'; "
            "both must be in one region.",
            (
                f"strongroom vault create NAME {_place(vault.id)} --location {cluster.doc.get('location')}",
                "Then use that vault.",
            ),
            "properties.dataSourceInfo.resourceLocation",
        )
    extension = extension_of(tx, cluster.id)
    if extension is None:
        yield UserError(
            str(ErrorCode.EXTENSION_NOT_FOUND),
            f"The backup extension is not installed in the cluster {cluster.name}.",
            (
                f"az k8s-extension create {_place(cluster.id)} --cluster-type managedClusters --cluster-name "
                f"{cluster.name} --name azure-aks-backup --extension-type microsoft.dataprotection.kubernetes --scope "
                "cluster --release-train stable --configuration-settings blobContainer=CONTAINER "
                "storageAccount=ACCOUNT storageAccountResourceGroup=GROUP "
                f"storageAccountSubscriptionId={subscription_of(cluster.id)}",
            ),
            cluster.id,
        )
    elif extension.properties.get("provisioningState") != "Succeeded":
        yield UserError(
            str(ErrorCode.EXTENSION_HAS_ERRORS),
            f"The backup extension of the cluster {cluster.name} is '{extension.properties.get('provisioningState')}'.",
            ("Look at its statuses (az k8s-extension show); delete it and install it again.",),
            extension.id,
        )
    if binding_of(tx, vault.id, cluster.id) is None:
        yield no_access(vault.id, cluster.id)


def binding_of(tx: Tx, vault: str, cluster: str) -> Resource | None:
    """Return the trusted access binding by which *vault* may work in *cluster*, if there is one."""
    for binding in tx.resources.children(cluster, BINDINGS):
        properties = binding.properties
        if binding.private.get(ORPHANED):
            continue  # it was another vault's, of the same name
        if same_id(properties.get("sourceResourceId", ""), vault) and OPERATOR_ROLE in properties.get("roles", ()):
            return binding
    return None


def no_access(vault: str, cluster: str) -> UserError:
    """Return the error that *vault* has no trusted access to *cluster*."""
    vault_name, cluster_name = vault.rpartition("/")[2], cluster.rpartition("/")[2]
    return UserError(
        "UserErrorTrustedAccessGatewayReturnedForbidden",
        f"The vault {vault_name} has no trusted access to the cluster {cluster_name}.",
        (
            f"az aks trustedaccess rolebinding create {_place(cluster)} --cluster-name {cluster_name} --name "
            f"{vault_name[:BINDING_NAME]} --source-resource-id {vault} --roles {OPERATOR_ROLE}",
        ),
        cluster,
    )


def _location_problems(tx: Tx, cluster_id: str) -> Iterator[UserError]:
    """What is wrong with the storage location of a cluster's extension: existence, region, subscription."""
    cluster = tx.resources.get(cluster_id)
    extension = extension_of(tx, cluster_id)
    if cluster is None or extension is None:
        return
    try:
        account_id, _ = account_of_extension(extension)
    except Refused as error:
        yield error.error
        return
    if problem := missing_place(tx, extension):
        yield problem
    if subscription_of(account_id).lower() != subscription_of(cluster.id).lower():
        yield UserError(
            str(ErrorCode.INVALID_INPUT),
            f"The storage account {account_id} is in the subscription {subscription_of(account_id)} and the cluster in "
            f"{subscription_of(cluster.id)}; both must be in one subscription.",
            _another_account(cluster),
            account_id,
        )
    account = tx.resources.get(account_id)
    if account is not None and account.doc.get("location") != cluster.doc.get("location"):
        yield UserError(
            str(ErrorCode.INVALID_INPUT),
            f"The storage account {account.name} is in '{account.doc.get('location')}' and the cluster in "
            f"'{cluster.doc.get('location')}'; both must be in one region.",
            _another_account(cluster),
            account_id,
        )


def _another_account(cluster: Resource) -> tuple[str, ...]:
    return (
        f"az storage account create {_place(cluster.id)} --name NAME --location {cluster.doc.get('location')}",
        "Then install the extension with it.",
    )


def _region(tx: Tx, vault: Resource, cluster_id: str) -> str:
    """Return where the resources of a cluster belong, which is where its vault is."""
    return str((tx.resources.get(cluster_id) or vault).doc.get("location"))


def _group_problems(tx: Tx, group: str, region: str) -> Iterator[UserError]:
    if tx.resources.get(group) is None:
        yield UserError(
            GROUP_NOT_FOUND,
            f"The snapshot resource group {group} does not exist.",
            (f"az group create {_place(group, '--name')} --location {region}",),
            "properties.policyInfo.policyParameters.dataStoreParametersList",
        )


def require_parties(tx: Tx, vault: Resource, cluster: str, group: str) -> Parties:
    """Return whom roles can be given to for a backup or restore in *cluster*. Raises `Refused` for all that is absent.

    Nothing is asked for that roles do not depend on, such as trusted access or the state of the extension.
    """
    parties = parties_of(tx, vault, cluster, group)
    problems = (
        *cluster_problems(tx, vault, cluster),
        *_location_problems(tx, cluster),
        *_group_problems(tx, group, _region(tx, vault, cluster)),
    )
    absent = [problem for problem in problems if problem.code in _ABSENT]
    refuse_if_any([*absent, *identity_problems(parties)], "The request for permissions")
    return parties


_ABSENT: Final = (
    str(ErrorCode.RESOURCE_NOT_FOUND),
    str(ErrorCode.EXTENSION_NOT_FOUND),
    str(ErrorCode.NO_DEFAULT_LOCATION),
    GROUP_NOT_FOUND,
)


def parties_of(tx: Tx, vault: Resource, cluster_id: str, group: str) -> Parties:
    """Return the identities that a backup or restore in *cluster_id* needs, and the storage account."""
    cluster = tx.resources.get(cluster_id)
    extension = extension_of(tx, cluster_id) if cluster else None
    account = ""
    if extension is not None:
        with contextlib.suppress(Refused):  # told by _location_problems
            account, _ = account_of_extension(extension)
    return Parties(
        vault=Identity(vault.id, _principal(vault)),
        snapshot_group=group,
        cluster=Identity(cluster.id, _principal(cluster)) if cluster else None,
        extension=Identity(extension.id, _extension_principal(extension)) if extension else None,
        account=account,
    )


def _principal(resource: Resource) -> str:
    return str((resource.doc.get("identity") or {}).get("principalId") or "")


def _extension_principal(extension: Resource) -> str:
    # az and the guides give roles to this one; the identity of the extension itself is the older way.
    assigned = (extension.properties.get("aksAssignedIdentity") or {}).get("principalId")
    return str(assigned or "") or _principal(extension)


def _other_instances(tx: Tx, vault: Resource, request: InstanceRequest, exists: Resource | None) -> Iterator[UserError]:
    # Every backup asks this, and a vault has up to 5,000 instances. A cluster's name is ASCII.
    mentioning = f'/{request.cluster.rpartition("/")[2]}"'
    for other in tx.resources.children(vault.id, INSTANCES, mentioning=mentioning):
        if exists is not None and other.id.lower() == exists.id.lower():
            continue
        if same_id(other.properties["dataSourceInfo"]["resourceID"], request.cluster) and same_id(
            other.properties["policyInfo"]["policyId"], request.policy
        ):
            yield UserError(
                str(ErrorCode.ALREADY_PROTECTED),
                f"The backup instance '{other.name}' of this vault protects the cluster with this policy already.",
                ("Use another policy or another vault, or change that instance.",),
                "properties.dataSourceInfo.resourceID",
            )


def problems_of_return(tx: Tx, vault: Resource, deleted: Resource, limits: Limits) -> list[UserError]:
    """Return everything that keeps a soft-deleted instance from coming back as a stopped one, all of it of the vault.

    What it needs to be protected again, a cluster and rights, is asked for when protection is resumed.
    """
    properties = deleted.properties
    cluster = str(properties["dataSourceInfo"]["resourceID"])
    request = InstanceRequest(cluster, str(properties["policyInfo"]["policyId"]), "", {})
    count = tx.resources.count(vault.id, INSTANCES)
    try:
        check_count(count, limits.instances_per_vault, "backup instances in the vault", vault.id)
    except Refused as error:
        return [error.error]
    return [*_policy_problems(tx, request), *_other_instances(tx, vault, request, None)]


def extension_of(tx: Tx, cluster: str) -> Resource | None:
    """Return the backup extension of *cluster*, if one is installed."""
    for extension in tx.resources.children(cluster, EXTENSIONS):
        if str(extension.properties.get("extensionType", "")).lower() == EXTENSION_TYPE:
            return extension
    return None


def _place(id: str, group: str = "--resource-group") -> str:
    """Return the options of a command that name subscription and resource group of *id*."""
    return f"--subscription {subscription_of(id)} {group} {id.split('/')[4]}"


def subscription_of(id: str) -> str:
    return id.split("/")[2]


def vault_of(instance: str) -> str:
    """Return the ARM id of the vault of a backup instance; a vault's own id is returned as it is."""
    return instance.partition("/backupInstances/")[0]


def trimmed(id: str) -> str:
    """Return an ARM id without blanks around its segments: the how-to's ids have them."""
    return "/".join(segment.strip() for segment in str(id).strip().rstrip("/").split("/"))


def same_id(one: str, other: str) -> bool:
    return trimmed(one).lower() == trimmed(other).lower()
