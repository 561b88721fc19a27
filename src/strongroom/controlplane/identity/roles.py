"""The built-in roles, with Azure's names and ids, and what each identity of a backup needs.

Ids and actions are those that Microsoft publishes (https://learn.microsoft.com/azure/role-based-access-control/
built-in-roles, pages "privileged", "storage", "compute", "containers"), kept to the resource providers that are served
here. Descriptions are ours.
"""

from collections.abc import Mapping
from typing import Final

from strongroom.controlplane.identity.rbac import Need, Permission, RoleDefinition

_DP: Final = "Microsoft.DataProtection"
_BLOBS: Final = "Microsoft.Storage/storageAccounts/blobServices"
_FILES: Final = "Microsoft.Storage/storageAccounts/fileServices/fileshares/files"
_AKS: Final = "Microsoft.ContainerService/managedClusters"


def _role(
    id: str,
    name: str,
    description: str,
    actions: tuple[str, ...] = (),
    *,
    without: tuple[str, ...] = (),
    data: tuple[str, ...] = (),
) -> RoleDefinition:
    return RoleDefinition(id, name, description, (Permission(actions, without, data),))


OWNER: Final = _role(
    "8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
    "Owner",
    "Full access to everything, and may give access to others.",
    ("*",),
)
CONTRIBUTOR: Final = _role(
    "b24988ac-6180-42a0-ab88-20f7382dd24c",
    "Contributor",
    "Full access to all resources; may not give access to others.",
    ("*",),
    without=(
        "Microsoft.Authorization/*/Delete",
        "Microsoft.Authorization/*/Write",
        "Microsoft.Authorization/elevateAccess/Action",
        "Microsoft.Blueprint/blueprintAssignments/write",
        "Microsoft.Blueprint/blueprintAssignments/delete",
        "Microsoft.Compute/galleries/share/action",
        "Microsoft.Purview/consents/write",
        "Microsoft.Purview/consents/delete",
        "Microsoft.Resources/deploymentStacks/manageDenySetting/action",
        "Microsoft.Subscription/cancel/action",
        "Microsoft.Subscription/enable/action",
    ),
)
READER: Final = _role(
    "acdd72a7-3385-48ef-bd42-f606fba81ae7",
    "Reader",
    "May look at all resources and change none.",
    ("*/read",),
)
USER_ACCESS_ADMINISTRATOR: Final = _role(
    "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9",
    "User Access Administrator",
    "Gives access to others, and may look at all resources.",
    ("*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"),
)
RBAC_ADMINISTRATOR: Final = _role(
    "f58310d9-a9f6-439a-9e8d-f62e7b41a168",
    "Role Based Access Control Administrator",
    "Makes and removes role assignments, and may look at all resources.",
    (
        "Microsoft.Authorization/roleAssignments/write",
        "Microsoft.Authorization/roleAssignments/delete",
        "*/read",
        "Microsoft.Support/*",
    ),
)

_COMMON: Final = (
    "Microsoft.Authorization/*/read",
    "Microsoft.Resources/deployments/*",
    "Microsoft.Resources/subscriptions/resourceGroups/read",
)

# What all three backup roles may read. The last group is ours: the published roles name no action of these
# operations, and a role for backups that cannot see a job would be of no use.
_BACKUP_READS: Final = (
    f"{_DP}/locations/getBackupStatus/action",
    f"{_DP}/backupVaults/backupInstances/read",
    f"{_DP}/backupVaults/deletedBackupInstances/read",
    f"{_DP}/backupVaults/backupPolicies/read",
    f"{_DP}/backupVaults/backupInstances/recoveryPoints/read",
    f"{_DP}/backupVaults/backupInstances/operationResults/read",
    f"{_DP}/backupVaults/backupInstances/findRestorableTimeRanges/action",
    f"{_DP}/backupVaults/read",
    f"{_DP}/backupVaults/operationResults/read",
    f"{_DP}/backupVaults/operationStatus/read",
    f"{_DP}/locations/operationStatus/read",
    f"{_DP}/locations/operationResults/read",
    f"{_DP}/operations/read",
    f"{_DP}/subscriptions/resourceGroups/providers/locations/fetchCrossRegionRestoreJobs/action",
    f"{_DP}/subscriptions/resourceGroups/providers/locations/fetchCrossRegionRestoreJob/action",
    f"{_DP}/subscriptions/resourceGroups/providers/locations/fetchSecondaryRecoveryPoints/action",
    f"{_DP}/locations/checkFeatureSupport/action",
    f"{_DP}/backupVaults/backupJobs/read",
    f"{_DP}/backupVaults/exportBackupJobs/action",
    f"{_DP}/locations/deletedVaults/read",
    "Microsoft.ResourceGraph/resources/read",
)
_BACKUP_OPERATIONS: Final = (
    f"{_DP}/backupVaults/validateForBackup/action",
    f"{_DP}/backupVaults/backupInstances/write",
    f"{_DP}/backupVaults/backupInstances/backup/action",
    f"{_DP}/backupVaults/backupInstances/validateRestore/action",
    f"{_DP}/backupVaults/backupInstances/restore/action",
    f"{_DP}/backupVaults/backupInstances/validateForModifyBackup/action",
    f"{_DP}/subscriptions/resourceGroups/providers/locations/crossRegionRestore/action",
    f"{_DP}/subscriptions/resourceGroups/providers/locations/validateCrossRegionRestore/action",
    f"{_DP}/backupVaults/backupResourceGuardProxies/read",
    f"{_DP}/backupVaults/backupResourceGuardProxies/write",
    f"{_DP}/backupVaults/backupResourceGuardProxies/delete",
    f"{_DP}/backupVaults/backupResourceGuardProxies/unlockDelete/action",
    "Microsoft.Storage/storageAccounts/read",
    "Microsoft.Network/virtualNetworks/read",
    "Microsoft.Support/*",
    # ours: cancelling what one may start, and reading an instance anew
    f"{_DP}/backupVaults/backupJobs/cancel/action",
    f"{_DP}/backupVaults/backupInstances/sync/action",
)

BACKUP_READER: Final = _role(
    "a795c7a0-d4a2-40c1-ae25-d81f01202912",
    "Backup Reader",
    "May look at vaults, policies, instances, recovery points and jobs.",
    ("Microsoft.Authorization/*/read", *_BACKUP_READS),
)
BACKUP_OPERATOR: Final = _role(
    "00c29273-979b-4161-815c-10b084fb9324",
    "Backup Operator",
    "Configures, backs up and restores; may not stop or remove protection, nor make vaults or policies.",
    (*_COMMON, *_BACKUP_READS, *_BACKUP_OPERATIONS),
)
BACKUP_CONTRIBUTOR: Final = _role(
    "5e467623-bb1f-42f4-a55d-6e525e11384b",
    "Backup Contributor",
    "Manages vaults, policies, instances and their backups; may not delete vaults or give access to others.",
    (
        *_COMMON,
        *_BACKUP_READS,
        *_BACKUP_OPERATIONS,
        f"{_DP}/backupVaults/write",
        f"{_DP}/backupVaults/backupInstances/delete",
        f"{_DP}/backupVaults/deletedBackupInstances/undelete/action",
        f"{_DP}/backupVaults/backupPolicies/write",
        f"{_DP}/backupVaults/backupPolicies/delete",
        f"{_DP}/backupVaults/backupInstances/SuspendBackups/action",
        f"{_DP}/backupVaults/backupInstances/resumeProtection/action",
        f"{_DP}/locations/checkNameAvailability/action",
        # ours: the other two of the four switches of protection
        f"{_DP}/backupVaults/backupInstances/stopProtection/action",
        f"{_DP}/backupVaults/backupInstances/resumeBackups/action",
    ),
)

STORAGE_ACCOUNT_CONTRIBUTOR: Final = _role(
    "17d1049b-9a84-46fb-8f53-869881c3d3ab",
    "Storage Account Contributor",
    "Manages storage accounts, their keys included.",
    (
        *_COMMON,
        "Microsoft.Insights/alertRules/*",
        "Microsoft.Insights/diagnosticSettings/*",
        "Microsoft.Network/virtualNetworks/subnets/joinViaServiceEndpoint/action",
        "Microsoft.ResourceHealth/availabilityStatuses/read",
        "Microsoft.Storage/storageAccounts/*",
        "Microsoft.Support/*",
    ),
)
STORAGE_BLOB_DATA_OWNER: Final = _role(
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",
    "Storage Blob Data Owner",
    "Full access to containers and their blobs.",
    (f"{_BLOBS}/containers/*", f"{_BLOBS}/generateUserDelegationKey/action"),
    data=(f"{_BLOBS}/containers/blobs/*",),
)
STORAGE_BLOB_DATA_CONTRIBUTOR: Final = _role(
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
    "Storage Blob Data Contributor",
    "Reads, writes and deletes containers and their blobs.",
    (
        f"{_BLOBS}/containers/delete",
        f"{_BLOBS}/containers/read",
        f"{_BLOBS}/containers/write",
        f"{_BLOBS}/generateUserDelegationKey/action",
    ),
    data=(
        f"{_BLOBS}/containers/blobs/delete",
        f"{_BLOBS}/containers/blobs/read",
        f"{_BLOBS}/containers/blobs/write",
        f"{_BLOBS}/containers/blobs/move/action",
        f"{_BLOBS}/containers/blobs/add/action",
    ),
)
STORAGE_BLOB_DATA_READER: Final = _role(
    "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1",
    "Storage Blob Data Reader",
    "Reads containers and their blobs.",
    (f"{_BLOBS}/containers/read", f"{_BLOBS}/generateUserDelegationKey/action"),
    data=(f"{_BLOBS}/containers/blobs/read",),
)
STORAGE_FILE_DATA_PRIVILEGED_CONTRIBUTOR: Final = _role(
    "69566ab7-960f-475b-8e7c-b3118f30c6bd",
    "Storage File Data Privileged Contributor",
    "Reads, writes and deletes files of shares, and changes their permissions, whatever these say.",
    data=(
        f"{_FILES}/read",
        f"{_FILES}/write",
        f"{_FILES}/delete",
        f"{_FILES}/modifypermissions/action",
        "Microsoft.Storage/storageAccounts/fileServices/readFileBackupSemantics/action",
        "Microsoft.Storage/storageAccounts/fileServices/writeFileBackupSemantics/action",
    ),
)

DISK_SNAPSHOT_CONTRIBUTOR: Final = _role(
    "7efff54f-a5b4-42b5-a1c5-5411624893ce",
    "Disk Snapshot Contributor",
    "Lets a vault manage snapshots of disks.",
    (
        "Microsoft.Authorization/*/read",
        "Microsoft.Resources/subscriptions/resourceGroups/read",
        "Microsoft.Compute/snapshots/delete",
        "Microsoft.Compute/snapshots/write",
        "Microsoft.Compute/snapshots/read",
        "Microsoft.Compute/snapshots/beginGetAccess/action",
        "Microsoft.Compute/snapshots/endGetAccess/action",
        "Microsoft.Compute/disks/beginGetAccess/action",
        "Microsoft.Storage/storageAccounts/listkeys/action",
        "Microsoft.Storage/storageAccounts/write",
        "Microsoft.Storage/storageAccounts/read",
        "Microsoft.Storage/storageAccounts/delete",
    ),
)
DATA_OPERATOR_FOR_MANAGED_DISKS: Final = _role(
    "959f8984-c045-4866-89c7-12bf9737be2e",
    "Data Operator for Managed Disks",
    "Reads and writes the content of disks and snapshots.",
    data=(
        "Microsoft.Compute/disks/download/action",
        "Microsoft.Compute/disks/upload/action",
        "Microsoft.Compute/snapshots/download/action",
        "Microsoft.Compute/snapshots/upload/action",
    ),
)

AKS_CONTRIBUTOR: Final = _role(
    "ed7f3fbd-7b88-4dd4-9017-9adb7ce333f8",
    "Azure Kubernetes Service Contributor Role",
    "Reads and writes clusters.",
    (f"{_AKS}/read", f"{_AKS}/write", "Microsoft.Resources/deployments/*"),
)
AKS_CLUSTER_ADMIN: Final = _role(
    "0ab0b1a8-8aac-4efd-b8c2-3ee1fb270be8",
    "Azure Kubernetes Service Cluster Admin Role",
    "Lists the admin credential of a cluster.",
    (
        f"{_AKS}/listClusterAdminCredential/action",
        f"{_AKS}/accessProfiles/listCredential/action",
        f"{_AKS}/read",
        f"{_AKS}/runcommand/action",
    ),
)
AKS_CLUSTER_USER: Final = _role(
    "4abbcc35-e782-43d8-92c5-2d3f1bd2253f",
    "Azure Kubernetes Service Cluster User Role",
    "Lists the user credential of a cluster.",
    (f"{_AKS}/listClusterUserCredential/action", f"{_AKS}/read"),
)
KUBERNETES_EXTENSION_CONTRIBUTOR: Final = _role(
    "85cb6faf-e071-4c9b-8136-154b5a04f717",
    "Kubernetes Extension Contributor",
    "Manages extensions of clusters.",
    (
        *_COMMON,
        "Microsoft.Insights/alertRules/*",
        "Microsoft.Support/*",
        "Microsoft.KubernetesConfiguration/extensions/write",
        "Microsoft.KubernetesConfiguration/extensions/read",
        "Microsoft.KubernetesConfiguration/extensions/delete",
        "Microsoft.KubernetesConfiguration/extensions/operations/read",
    ),
)

BUILT_IN: Final[tuple[RoleDefinition, ...]] = (
    OWNER,
    CONTRIBUTOR,
    READER,
    USER_ACCESS_ADMINISTRATOR,
    RBAC_ADMINISTRATOR,
    BACKUP_CONTRIBUTOR,
    BACKUP_OPERATOR,
    BACKUP_READER,
    STORAGE_ACCOUNT_CONTRIBUTOR,
    STORAGE_BLOB_DATA_OWNER,
    STORAGE_BLOB_DATA_CONTRIBUTOR,
    STORAGE_BLOB_DATA_READER,
    STORAGE_FILE_DATA_PRIVILEGED_CONTRIBUTOR,
    DISK_SNAPSHOT_CONTRIBUTOR,
    DATA_OPERATOR_FOR_MANAGED_DISKS,
    AKS_CONTRIBUTOR,
    AKS_CLUSTER_ADMIN,
    AKS_CLUSTER_USER,
    KUBERNETES_EXTENSION_CONTRIBUTOR,
)

BY_ID: Final[Mapping[str, RoleDefinition]] = {role.id: role for role in BUILT_IN}

# What validation asks for: azure-backup-for-aks.md section 5, "Actions actually used per role".
VAULT_READS_CLUSTER: Final = Need(READER, (f"{_AKS}/read", "Microsoft.KubernetesConfiguration/extensions/read"))
VAULT_READS_SNAPSHOT_GROUP: Final = Need(
    READER, ("Microsoft.Resources/subscriptions/resourceGroups/read", "Microsoft.Compute/snapshots/read")
)
CLUSTER_WRITES_SNAPSHOT_GROUP: Final = Need(
    CONTRIBUTOR,
    ("Microsoft.Compute/snapshots/read", "Microsoft.Compute/snapshots/write", "Microsoft.Compute/snapshots/delete"),
)
EXTENSION_WRITES_BLOBS: Final = Need(
    STORAGE_BLOB_DATA_CONTRIBUTOR,
    (f"{_BLOBS}/containers/read",),
    (
        f"{_BLOBS}/containers/blobs/read",
        f"{_BLOBS}/containers/blobs/write",
        f"{_BLOBS}/containers/blobs/add/action",
        f"{_BLOBS}/containers/blobs/delete",
    ),
)
EXTENSION_WRITES_BLOBS_BY_KEY: Final = Need(
    # Older extensions took the account's key; Azure still accepts the role they were given (section 5).
    STORAGE_ACCOUNT_CONTRIBUTOR,
    ("Microsoft.Storage/storageAccounts/read", "Microsoft.Storage/storageAccounts/listKeys/action"),
)


def find_by_name(name: str) -> RoleDefinition | None:
    """Return the built-in role called *name*, without regard to case."""
    wanted = name.strip().lower()
    return next((role for role in BUILT_IN if role.name.lower() == wanted), None)
