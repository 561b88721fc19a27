"""The bodies of other resource providers: as az and the SDKs send them, with our two own properties."""

import enum
from typing import Any, is_typeddict

import pytest
from azure.mgmt.dataprotection import models

from strongroom.controlplane.arm import bodies
from strongroom.controlplane.arm.shapes import Schema, shape
from strongroom.protection.errors import Refused

# Observed: reference/azure-clients.md section B.4 and azure-backup-for-aks.md section 4.
EXTENSION = {
    "properties": {
        "extensionType": "microsoft.dataprotection.kubernetes",
        "autoUpgradeMinorVersion": True,
        "releaseTrain": "stable",
        "scope": {"cluster": {}},
        "configurationSettings": {
            "configuration.backupStorageLocation.bucket": "cont",
            "configuration.backupStorageLocation.config.useAAD": "true",
            "credentials.tenantId": "T",
        },
    }
}
SENT: list[tuple[type, dict[str, Any]]] = [
    (bodies.ResourceGroupBody, {"location": "westus", "tags": {"AKSAzureBackup": "westus"}}),
    (
        bodies.RoleAssignmentBody,
        {"properties": {"roleDefinitionId": "/r", "principalType": "ServicePrincipal", "principalId": "p"}},
    ),
    (
        bodies.TrustedAccessRoleBindingBody,
        {
            "properties": {
                "sourceResourceId": "/v",
                "roles": ["Microsoft.DataProtection/backupVaults/backup-operator"],
            }
        },
    ),
    (bodies.ExtensionBody, EXTENSION),
    (
        bodies.ExtensionPatch,
        {"properties": {"autoUpgradeMinorVersion": True, "configurationSettings": {"resources.limits.cpu": "1"}}},
    ),
    (bodies.StorageNameCheck, {}),
    (bodies.BlobContainerBody, {}),
    (
        bodies.ResourceGraphQuery,
        {
            "subscriptions": ["S"],
            "query": "resources",
            "options": {"$top": 1000, "$skip": 0, "resultFormat": "objectArray", "allowPartialScopes": False},
        },
    ),
    (
        bodies.ManagedClusterBody,
        {"location": "westus", "properties": {"strongroomConnection": {"kubeconfig": "e30=", "context": "c"}}},
    ),
    (
        bodies.StorageAccountBody,
        {
            "sku": {"name": "Standard_LRS"},
            "kind": "StorageV2",
            "location": "westus",
            "properties": {
                "allowSharedKeyAccess": False,
                "strongroomLocation": {"url": "s3://bucket/prefix", "credentials": {"AccessKeyId": "A"}},
            },
        },
    ),
    (bodies.DirectoryObjectsByIds, {"ids": ["p"], "types": ["user", "group", "servicePrincipal"]}),
]
OURS = [value for name, value in vars(bodies).items() if is_typeddict(value) and value.__module__ == bodies.__name__]


@pytest.mark.parametrize(("kind", "body"), [pytest.param(kind, body, id=kind.__name__) for kind, body in SENT])
def test_what_clients_send_is_read_unchanged(kind: type, body: dict[str, Any]) -> None:
    assert shape(kind).read(body) == body


def test_a_kubeconfig_of_the_wrong_type_is_refused_without_repeating_it() -> None:
    body = {"location": "w", "properties": {"strongroomConnection": {"kubeconfig": {"token": "hunter2"}}}}
    with pytest.raises(Refused) as caught:
        shape(bodies.ManagedClusterBody).read(body)
    error = caught.value.error
    assert (error.code, error.target) == ("InvalidRequestContent", "properties.strongroomConnection.kubeconfig")
    assert "hunter2" not in str(caught.value)


def test_credentials_stand_in_no_answer_of_the_schema() -> None:
    components: dict[str, Schema] = {}
    for kind in (bodies.ManagedClusterBody, bodies.StorageAccountBody, bodies.ExtensionBody):
        components |= shape(kind).schema()[1]
    for component, name in [
        ("ManagedClusterProperties", "strongroomConnection"),
        ("StorageAccountProperties", "strongroomLocation"),
        ("ExtensionProperties", "configurationProtectedSettings"),
    ]:
        assert components[component]["properties"][name]["writeOnly"] is True


def test_no_two_kinds_share_a_name() -> None:
    azure = [getattr(models, name) for name in models.__all__]
    components: dict[str, Schema] = {}
    for kind in [*OURS, *(kind for kind in azure if not issubclass(kind, enum.Enum))]:
        for name, schema in shape(kind).schema()[1].items():
            assert components.setdefault(name, schema) == schema, name
