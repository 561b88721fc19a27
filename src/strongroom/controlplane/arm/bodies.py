"""The bodies of Azure's other resource providers, as far as clients of the backup service send and read them.

One TypedDict serves request and answer: what only the service writes is `READ_ONLY`, a credential is `WRITE_ONLY`.
Properties that are not listed are ignored in requests, as everywhere. What clients send was observed
(reference/azure-clients.md section B.4, azure-backup-for-aks.md section 4); names are Azure's, except for the two
properties that begin with `strongroom`.
"""

from typing import Annotated, Any, Literal, Required, TypedDict

from .shapes import READ_ONLY, WRITE_ONLY


class ArmErrorAdditionalInfo(TypedDict, total=False):
    """More about an error, in the form that its type names."""

    type: str
    info: Any


class ArmErrorDetail(TypedDict, total=False):
    """What went wrong: a code for scripts, a message for people."""

    code: Required[str]
    message: Required[str]
    target: str
    details: "list[ArmErrorDetail]"
    additionalInfo: list[ArmErrorAdditionalInfo]


class ArmErrorResponse(TypedDict, total=False):
    """The body of every answer that is a refusal or a failure."""

    error: Required[ArmErrorDetail]


class OperationResult(TypedDict, total=False):
    """What a finished operation leaves: the job that goes on, or the resource (all its own properties, too)."""

    objectType: str
    jobId: str


class ResourceIdentity(TypedDict, total=False):
    """The managed identity of a resource."""

    type: str
    principalId: Annotated[str, READ_ONLY]
    tenantId: Annotated[str, READ_ONLY]
    userAssignedIdentities: dict[str, "AssignedIdentity"]


class AssignedIdentity(TypedDict, total=False):
    """A user-assigned identity that a resource carries."""

    principalId: Annotated[str, READ_ONLY]
    clientId: Annotated[str, READ_ONLY]


# Microsoft.Resources


class ResourceGroupProperties(TypedDict, total=False):
    """The state of a resource group."""

    provisioningState: Annotated[str, READ_ONLY]


class ResourceGroupBody(TypedDict, total=False):
    """A resource group."""

    id: Annotated[str, READ_ONLY]
    name: Annotated[str, READ_ONLY]
    type: Annotated[str, READ_ONLY]
    location: Required[str]
    managedBy: str
    tags: dict[str, str]
    properties: Annotated[ResourceGroupProperties, READ_ONLY]


class ResourceGroupPatch(TypedDict, total=False):
    """What may change of a resource group."""

    managedBy: str
    tags: dict[str, str]


class ProviderConsent(TypedDict, total=False):
    """The optional body of a provider's registration; its content means nothing here."""


# Microsoft.Authorization


class RoleAssignmentProperties(TypedDict, total=False):
    """Who may do what, where."""

    roleDefinitionId: Required[str]
    principalId: Required[str]
    principalType: Literal["User", "Group", "ServicePrincipal", "ForeignGroup", "Device"]
    scope: Annotated[str, READ_ONLY]
    description: str
    condition: str
    conditionVersion: str
    delegatedManagedIdentityResourceId: str
    createdOn: Annotated[str, READ_ONLY]
    updatedOn: Annotated[str, READ_ONLY]
    createdBy: Annotated[str, READ_ONLY]
    updatedBy: Annotated[str, READ_ONLY]


class RoleAssignmentBody(TypedDict, total=False):
    """A role assignment."""

    id: Annotated[str, READ_ONLY]
    name: Annotated[str, READ_ONLY]
    type: Annotated[str, READ_ONLY]
    properties: Required[RoleAssignmentProperties]


class GrantedPermissions(TypedDict, total=False):
    """The role assignments that the request made; none if nothing was missing."""

    permissionsScope: str
    roleAssignments: list[RoleAssignmentBody]


class RolePermission(TypedDict, total=False):
    """What a role allows and what it takes out again; names with `*`."""

    actions: list[str]
    notActions: list[str]
    dataActions: list[str]
    notDataActions: list[str]


class RoleDefinitionProperties(TypedDict, total=False):
    """A role: its name and what it allows."""

    roleName: Required[str]
    type: str
    description: str
    permissions: Required[list[RolePermission]]
    assignableScopes: Required[list[str]]


class RoleDefinitionBody(TypedDict, total=False):
    """A role definition."""

    id: Annotated[str, READ_ONLY]
    name: Annotated[str, READ_ONLY]
    type: Annotated[str, READ_ONLY]
    properties: Required[RoleDefinitionProperties]


# Microsoft.ContainerService


class StrongroomConnection(TypedDict, total=False):
    """How to reach a real cluster: a kubeconfig in base64 (used in memory, never stored) and which context of it."""

    kubeconfig: Required[str]
    context: str


class PowerState(TypedDict, total=False):
    """Whether the cluster was reached when it was last connected."""

    code: str


class IdentityOfCluster(TypedDict, total=False):
    """An identity of a cluster, as Azure's clients look for it."""

    objectId: str
    clientId: str


class ManagedClusterProperties(TypedDict, total=False):
    """A connected cluster. Version and state are read from it.

    `strongroomWarnings` say what every ServiceAccount of the cluster, and so Strongroom's, may do besides.
    """

    provisioningState: Annotated[str, READ_ONLY]
    kubernetesVersion: str
    currentKubernetesVersion: Annotated[str, READ_ONLY]
    dnsPrefix: str
    fqdn: Annotated[str, READ_ONLY]
    nodeResourceGroup: str
    powerState: Annotated[PowerState, READ_ONLY]
    enableRBAC: Annotated[bool, READ_ONLY]
    identityProfile: Annotated[dict[str, IdentityOfCluster], READ_ONLY]
    strongroomWarnings: Annotated[list[str], READ_ONLY]
    strongroomConnection: Annotated[StrongroomConnection, WRITE_ONLY]


class ManagedClusterBody(TypedDict, total=False):
    """A managed cluster: here, a Kubernetes cluster that was connected."""

    id: Annotated[str, READ_ONLY]
    name: Annotated[str, READ_ONLY]
    type: Annotated[str, READ_ONLY]
    location: Required[str]
    tags: dict[str, str]
    identity: ResourceIdentity
    properties: ManagedClusterProperties


class TagsPatch(TypedDict, total=False):
    """New tags in the place of all that a resource has."""

    tags: dict[str, str]


class TrustedAccessRoleBindingProperties(TypedDict, total=False):
    """Which resource (a Backup vault) may act in the cluster, and as what."""

    provisioningState: Annotated[str, READ_ONLY]
    sourceResourceId: Required[str]
    roles: Required[list[str]]


class TrustedAccessRoleBindingBody(TypedDict, total=False):
    """A trusted access role binding."""

    id: Annotated[str, READ_ONLY]
    name: Annotated[str, READ_ONLY]
    type: Annotated[str, READ_ONLY]
    properties: Required[TrustedAccessRoleBindingProperties]


class TrustedAccessRule(TypedDict, total=False):
    """What a trusted access role allows, in Kubernetes' own terms."""

    verbs: list[str]
    apiGroups: list[str]
    resources: list[str]
    resourceNames: list[str]
    nonResourceURLs: list[str]


class TrustedAccessRoleBody(TypedDict, total=False):
    """A role that resources of a type may be given in a cluster."""

    sourceResourceType: str
    name: str
    rules: list[TrustedAccessRule]


# Microsoft.KubernetesConfiguration


class ExtensionScopeCluster(TypedDict, total=False):
    """An extension for the whole cluster, and the namespace of its release."""

    releaseNamespace: str


class ExtensionScopeNamespace(TypedDict, total=False):
    """An extension for one namespace."""

    targetNamespace: str


class ExtensionScope(TypedDict, total=False):
    """Where an extension acts."""

    cluster: ExtensionScopeCluster
    namespace: ExtensionScopeNamespace


class ExtensionStatus(TypedDict, total=False):
    """What the cluster has of an extension, at a time."""

    code: Required[str]
    displayStatus: str
    level: Literal["Information", "Warning", "Error"]
    message: str
    time: str


class ExtensionProperties(TypedDict, total=False):
    """Which extension, which release of it, and its settings."""

    extensionType: Required[str]
    autoUpgradeMinorVersion: bool
    releaseTrain: str
    version: str
    currentVersion: Annotated[str, READ_ONLY]
    scope: ExtensionScope
    configurationSettings: dict[str, str]
    configurationProtectedSettings: Annotated[dict[str, str], WRITE_ONLY]
    provisioningState: Annotated[str, READ_ONLY]
    statuses: Annotated[list[ExtensionStatus], READ_ONLY]
    errorInfo: Annotated[ArmErrorDetail, READ_ONLY]
    isSystemExtension: Annotated[bool, READ_ONLY]
    aksAssignedIdentity: Annotated[ResourceIdentity, READ_ONLY]


class ExtensionBody(TypedDict, total=False):
    """A cluster extension."""

    id: Annotated[str, READ_ONLY]
    name: Annotated[str, READ_ONLY]
    type: Annotated[str, READ_ONLY]
    identity: ResourceIdentity
    properties: Required[ExtensionProperties]


class ExtensionPatchProperties(TypedDict, total=False):
    """What may change of an extension."""

    autoUpgradeMinorVersion: bool
    releaseTrain: str
    version: str
    configurationSettings: dict[str, str]
    configurationProtectedSettings: Annotated[dict[str, str], WRITE_ONLY]


class ExtensionPatch(TypedDict, total=False):
    """A change to an extension: settings are merged, key by key."""

    properties: ExtensionPatchProperties


# Microsoft.Storage


class StrongroomLocation(TypedDict, total=False):
    """Where an attached account really lies (`az://`, `s3://`, `gs://` or `file://`), and what opens it."""

    url: Required[str]
    credentials: dict[str, str]


class StorageSku(TypedDict, total=False):
    """The redundancy that a caller asks for; kept, not acted on."""

    name: Required[str]
    tier: Annotated[str, READ_ONLY]


class StorageEndpoints(TypedDict, total=False):
    """The addresses of an account."""

    blob: str


class StorageAccountProperties(TypedDict, total=False):
    """A storage account: served from the home folder, unless it says where it lies."""

    provisioningState: Annotated[str, READ_ONLY]
    creationTime: Annotated[str, READ_ONLY]
    primaryLocation: Annotated[str, READ_ONLY]
    primaryEndpoints: Annotated[StorageEndpoints, READ_ONLY]
    accessTier: str
    allowBlobPublicAccess: bool
    allowSharedKeyAccess: bool
    isHnsEnabled: bool
    minimumTlsVersion: str
    supportsHttpsTrafficOnly: bool
    strongroomLocation: Annotated[StrongroomLocation, WRITE_ONLY]


class StorageAccountBody(TypedDict, total=False):
    """A storage account."""

    id: Annotated[str, READ_ONLY]
    name: Annotated[str, READ_ONLY]
    type: Annotated[str, READ_ONLY]
    location: Required[str]
    sku: Required[StorageSku]
    kind: Required[str]
    tags: dict[str, str]
    identity: ResourceIdentity
    properties: StorageAccountProperties


class StorageAccountPatch(TypedDict, total=False):
    """What may change of a storage account."""

    sku: StorageSku
    kind: str
    tags: dict[str, str]
    identity: ResourceIdentity
    properties: StorageAccountProperties


class BlobContainerProperties(TypedDict, total=False):
    """A container's settings."""

    publicAccess: Literal["None", "Container", "Blob"]
    metadata: dict[str, str]
    lastModifiedTime: Annotated[str, READ_ONLY]


class BlobContainerBody(TypedDict, total=False):
    """A container of a storage account."""

    id: Annotated[str, READ_ONLY]
    name: Annotated[str, READ_ONLY]
    type: Annotated[str, READ_ONLY]
    properties: BlobContainerProperties


class StorageNameCheck(TypedDict, total=False):
    """A question whether an account name is free; az was seen to send it without one."""

    name: str
    type: str


# Microsoft.ResourceGraph


# `$top` and its like are no Python names: the functional form.
ResourceGraphOptions = TypedDict(
    "ResourceGraphOptions",
    {
        "$skipToken": str,
        "$top": int,
        "$skip": int,
        "resultFormat": Literal["objectArray", "table"],
        "allowPartialScopes": bool,
        "authorizationScopeFilter": Literal[
            "AtScopeAndBelow", "AtScopeAndAbove", "AtScopeExact", "AtScopeAboveAndBelow"
        ],
    },
    total=False,
)


class ResourceGraphQuery(TypedDict, total=False):
    """A query of Azure Resource Graph."""

    subscriptions: list[str]
    managementGroups: list[str]
    query: Required[str]
    options: ResourceGraphOptions


class ResourceGraphResult(TypedDict, total=False):
    """A page of what a query found; `resultTruncated` is a text, as Azure has it."""

    totalRecords: Required[int]
    count: Required[int]
    data: Required[Any]
    facets: list[Any]
    resultTruncated: Required[Literal["true", "false"]]


# Microsoft Graph, the part that az needs


class DirectoryObjectsByIds(TypedDict, total=False):
    """A question for the principals with these ids."""

    ids: Required[list[str]]
    types: list[str]
