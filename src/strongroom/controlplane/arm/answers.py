"""What each operation answers with, for the OpenAPI document: operation id (Azure's) to shape.

An operation that is not here answers without a body. The shapes are those by which the official SDK reads our answers,
so a test against the document is a test against the SDK.
"""

from collections.abc import Mapping
from typing import Final

from azure.mgmt.dataprotection import models

from strongroom.controlplane.arm import bodies
from strongroom.controlplane.arm.compute.bodies import SnapshotBody
from strongroom.controlplane.arm.graph import bodies as graph
from strongroom.controlplane.arm.resources import bodies as resources
from strongroom.controlplane.arm.shapes import Shape, shape

_VAULT: Final = shape(models.BackupVaultResource)
_POLICY: Final = shape(models.BaseBackupPolicyResource)
_INSTANCE: Final = shape(models.BackupInstanceResource)
_DELETED_INSTANCE: Final = shape(models.DeletedBackupInstanceResource)
_DELETED_VAULT: Final = shape(models.DeletedBackupVaultResource)
_JOB: Final = shape(models.AzureBackupJobResource)
_POINT: Final = shape(models.AzureBackupRecoveryPointResource)
_STATUS: Final = shape(models.OperationResource)
_RESULT: Final = shape(bodies.OperationResult)

ANSWERS: Final[Mapping[str, Shape]] = {
    "BackupVaults_CreateOrUpdate": _VAULT,
    "BackupVaults_Update": _VAULT,
    "BackupVaults_Get": _VAULT,
    "BackupVaults_GetInResourceGroup": _VAULT.page,
    "BackupVaults_GetInSubscription": _VAULT.page,
    "BackupVaults_CheckNameAvailability": shape(models.CheckNameAvailabilityResult),
    "BackupPolicies_CreateOrUpdate": _POLICY,
    "BackupPolicies_Get": _POLICY,
    "BackupPolicies_List": _POLICY.page,
    "BackupInstances_CreateOrUpdate": _INSTANCE,
    "BackupInstances_Get": _INSTANCE,
    "BackupInstances_List": _INSTANCE.page,
    "BackupInstancesExtensionRouting_List": _INSTANCE.page,
    "BackupInstances_GetBackupInstanceOperationResult": _RESULT,
    "BackupVaultOperationResults_Get": _RESULT,
    "BackupVaults_GrantPermissions": shape(bodies.GrantedPermissions),
    "BackupInstances_GrantPermissions": shape(bodies.GrantedPermissions),
    "DataProtection_CheckFeatureSupport": shape(models.FeatureValidationResponseBase),
    "DataProtectionOperations_List": shape(models.Operation).page,
    "DeletedBackupInstances_Get": _DELETED_INSTANCE,
    "DeletedBackupInstances_List": _DELETED_INSTANCE.page,
    "DeletedBackupVaults_Get": _DELETED_VAULT,
    "DeletedBackupVaults_ListByLocation": _DELETED_VAULT.page,
    "DppResourceGuardProxy_List": shape(models.ResourceGuardProxyBaseResource).page,
    "ResourceGuards_GetResourcesInResourceGroup": shape(models.ResourceGuardResource).page,
    "ResourceGuards_GetResourcesInSubscription": shape(models.ResourceGuardResource).page,
    "Jobs_Get": _JOB,
    "Jobs_List": _JOB.page,
    "RecoveryPoints_Get": _POINT,
    "RecoveryPoints_List": _POINT.page,
    "OperationResult_Get": _RESULT,
    "OperationStatus_Get": _STATUS,
    "OperationStatus_GetInGroupLocation": _STATUS,
    "OperationStatusBackupVaultContext_Get": _STATUS,
    "OperationStatusResourceGroupContext_Get": _STATUS,
    "ResourceGroups_CreateOrUpdate": shape(bodies.ResourceGroupBody),
    "ResourceGroups_Update": shape(bodies.ResourceGroupBody),
    "ResourceGroups_Get": shape(bodies.ResourceGroupBody),
    "ResourceGroups_List": shape(bodies.ResourceGroupBody).page,
    "RoleAssignments_Create": shape(bodies.RoleAssignmentBody),
    "RoleAssignments_Get": shape(bodies.RoleAssignmentBody),
    "RoleAssignments_Delete": shape(bodies.RoleAssignmentBody),
    "RoleAssignments_ListForScope": shape(bodies.RoleAssignmentBody).page,
    "RoleDefinitions_CreateOrUpdate": shape(bodies.RoleDefinitionBody),
    "RoleDefinitions_Get": shape(bodies.RoleDefinitionBody),
    "RoleDefinitions_List": shape(bodies.RoleDefinitionBody).page,
    "ManagedClusters_CreateOrUpdate": shape(bodies.ManagedClusterBody),
    "ManagedClusters_UpdateTags": shape(bodies.ManagedClusterBody),
    "ManagedClusters_Get": shape(bodies.ManagedClusterBody),
    "ManagedClusters_List": shape(bodies.ManagedClusterBody).page,
    "ManagedClusters_ListByResourceGroup": shape(bodies.ManagedClusterBody).page,
    "ContainerServiceOperations_Get": _STATUS,
    "TrustedAccessRoles_List": shape(bodies.TrustedAccessRoleBody).page,
    "TrustedAccessRoleBindings_CreateOrUpdate": shape(bodies.TrustedAccessRoleBindingBody),
    "TrustedAccessRoleBindings_Get": shape(bodies.TrustedAccessRoleBindingBody),
    "TrustedAccessRoleBindings_List": shape(bodies.TrustedAccessRoleBindingBody).page,
    "Extensions_Create": shape(bodies.ExtensionBody),
    "Extensions_Update": shape(bodies.ExtensionBody),
    "Extensions_Get": shape(bodies.ExtensionBody),
    "Extensions_List": shape(bodies.ExtensionBody).page,
    "OperationStatusExtensions_Get": _STATUS,
    "StorageAccounts_Create": shape(bodies.StorageAccountBody),
    "StorageAccounts_Update": shape(bodies.StorageAccountBody),
    "StorageAccounts_GetProperties": shape(bodies.StorageAccountBody),
    "StorageAccounts_List": shape(bodies.StorageAccountBody).page,
    "StorageAccounts_ListByResourceGroup": shape(bodies.StorageAccountBody).page,
    "StorageAccounts_CheckNameAvailability": shape(models.CheckNameAvailabilityResult),
    "BlobContainers_Create": shape(bodies.BlobContainerBody),
    "BlobContainers_Update": shape(bodies.BlobContainerBody),
    "BlobContainers_Get": shape(bodies.BlobContainerBody),
    "BlobContainers_List": shape(bodies.BlobContainerBody).page,
    "Resources": shape(bodies.ResourceGraphResult),
    "ResourceGraphOperations_List": shape(models.Operation).page,
    "Subscriptions_Get": shape(resources.SubscriptionBody),
    "Subscriptions_List": shape(resources.SubscriptionBody).page,
    "Subscriptions_ListLocations": shape(resources.RegionBody).page,
    "Tenants_List": shape(resources.TenantBody).page,
    "Alias_Create": shape(resources.SubscriptionAliasBody),
    "Alias_Get": shape(resources.SubscriptionAliasBody),
    "Resources_List": shape(resources.GenericResourceBody).page,
    "Resources_ListByResourceGroup": shape(resources.GenericResourceBody).page,
    "ProviderResourceTypes_List": shape(resources.ResourceTypeBody).page,
    "Providers_Get": shape(resources.ProviderBody),
    "Providers_List": shape(resources.ProviderBody).page,
    "Providers_GetAtTenantScope": shape(resources.ProviderBody),
    "Providers_ListAtTenantScope": shape(resources.ProviderBody).page,
    "Providers_Register": shape(resources.ProviderBody),
    "Providers_Unregister": shape(resources.ProviderBody),
    "Permissions_List": shape(bodies.RolePermission).page,
    "Snapshots_Get": shape(SnapshotBody),
    "Snapshots_List": shape(SnapshotBody).page,
    "Snapshots_ListByResourceGroup": shape(SnapshotBody).page,
    "Graph_GetServicePrincipal": shape(graph.DirectoryObjectBody),
    "Graph_GetByAlternateKey": shape(graph.DirectoryObjectBody),
    "Graph_GetApplication": shape(graph.DirectoryObjectBody),
    "Graph_GetDirectoryObject": shape(graph.DirectoryObjectBody),
    "Graph_CreateApplication": shape(graph.DirectoryObjectBody),
    "Graph_CreateServicePrincipal": shape(graph.DirectoryObjectBody),
    "Graph_ListServicePrincipals": shape(graph.DirectoryObjectBody).page,
    "Graph_ListApplications": shape(graph.DirectoryObjectBody).page,
    "Graph_ListUsers": shape(graph.DirectoryObjectBody).page,
    "Graph_ListGroups": shape(graph.DirectoryObjectBody).page,
    "Graph_GetByIds": shape(graph.DirectoryObjectBody).page,
    "Graph_AddApplicationPassword": shape(graph.PasswordBody),
    "Graph_AddServicePrincipalPassword": shape(graph.PasswordBody),
}
