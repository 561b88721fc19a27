"""Each thing that a backup needs, broken alone: it is named with its code and remedy, and nothing else is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from strongroom.controlplane.identity.rbac import RoleDefinition
from strongroom.controlplane.identity.roles import (
    CONTRIBUTOR,
    OWNER,
    READER,
    STORAGE_ACCOUNT_CONTRIBUTOR,
    STORAGE_BLOB_DATA_READER,
)
from strongroom.controlplane.state.database import Database

from .readiness_stage import (
    ACCOUNT,
    BINDING,
    CLUSTER,
    CLUSTER_IDENTITY,
    CONTAINER,
    EXTENSION,
    EXTENSION_IDENTITY,
    POLICY,
    ROLES,
    SNAPSHOTS,
    SUBSCRIPTION,
    VAULT,
    VAULT_IDENTITY,
    World,
    problems,
)

LISTING = "KubernetesBackupListExtensionsError"
ROLE = "UserErrorMissingRoleAssignment"
STORAGE = "UserErrorExtensionMSIMissingPermissionsOnBackupStorageLocation"
LOCATION = "UserErrorNoDefaultBackupStorageLocationFound"
INVALID = "BMSUserErrorInvalidInput"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path}/state.sqlite", b"k" * 32)
    yield opened
    opened.close()


def found(db: Database, world: World) -> list[tuple[str, str]]:
    """Return code and first remedy of every problem of *world*."""
    world.write(db)
    with db.read() as tx:
        return [(p.code, p.recommended_action[0]) for p in problems(tx)]


def command(principal: str, role: str, scope: str) -> str:
    return (
        f"az role assignment create --assignee-object-id {principal} --assignee-principal-type ServicePrincipal "
        f'--role "{role}" --scope "{scope}"'
    )


def test_nothing_is_wrong_with_what_the_guides_set_up(db: Database) -> None:
    assert found(db, World()) == []


MISSING_ROLES = {
    "vault reads cluster": (LISTING, command(VAULT_IDENTITY, "Reader", CLUSTER)),
    "vault reads snapshots": (ROLE, command(VAULT_IDENTITY, "Reader", SNAPSHOTS)),
    "cluster writes snapshots": (ROLE, command(CLUSTER_IDENTITY, "Contributor", SNAPSHOTS)),
    "extension writes blobs": (STORAGE, command(EXTENSION_IDENTITY, "Storage Blob Data Contributor", ACCOUNT)),
}


@pytest.mark.parametrize("role", ROLES)
def test_a_single_missing_role_is_named_alone_with_the_command_that_gives_it(db: Database, role: str) -> None:
    world = World()
    del world.roles[role]
    assert found(db, world) == [MISSING_ROLES[role]]


def test_all_missing_roles_are_named_together(db: Database) -> None:
    assert found(db, World(roles={})) == list(MISSING_ROLES.values())


@pytest.mark.parametrize(
    ("given", "still"),
    [
        ({"extension writes blobs": (STORAGE_ACCOUNT_CONTRIBUTOR, ACCOUNT, EXTENSION_IDENTITY)}, []),
        ({"extension writes blobs": (OWNER, SUBSCRIPTION, EXTENSION_IDENTITY)}, []),
        ({"vault reads cluster": (READER, SUBSCRIPTION, VAULT_IDENTITY)}, []),
        ({"cluster writes snapshots": (CONTRIBUTOR, SNAPSHOTS.upper(), CLUSTER_IDENTITY.upper())}, []),
        ({"extension writes blobs": (STORAGE_BLOB_DATA_READER, ACCOUNT, EXTENSION_IDENTITY)}, [STORAGE]),
        ({"extension writes blobs": (STORAGE_ACCOUNT_CONTRIBUTOR, CONTAINER, EXTENSION_IDENTITY)}, [STORAGE]),
        ({"cluster writes snapshots": (READER, SNAPSHOTS, CLUSTER_IDENTITY)}, [ROLE]),
        ({"cluster writes snapshots": (CONTRIBUTOR, SNAPSHOTS + "2", CLUSTER_IDENTITY)}, [ROLE]),
        ({"vault reads cluster": (READER, CLUSTER, CLUSTER_IDENTITY)}, [LISTING]),
    ],
    ids=[
        "the how-to's role on the account",
        "a greater role above",
        "the role at the subscription",
        "another casing",
        "a lesser role",
        "too narrow a scope",
        "a role that only reads",
        "a scope whose name begins alike",
        "another's identity",
    ],
)
def test_what_counts_is_what_the_identity_may_do_there(
    db: Database, given: dict[str, tuple[RoleDefinition, str, str]], still: list[str]
) -> None:
    world = World(roles={**ROLES, **given})
    assert [code for code, _ in found(db, world)] == still


def _no_identity(id: str) -> Callable[[World], None]:
    return lambda world: world.document(id, identity={"type": "None"})


def _without(id: str) -> Callable[[World], None]:
    return lambda world: world.resources.pop(id) and None


BROKEN: dict[str, tuple[Callable[[World], None], str, str]] = {
    "DataProtection is not registered": (
        _without(f"{SUBSCRIPTION}/providers/Microsoft.DataProtection"),
        "MissingSubscriptionRegistration",
        "az provider register --namespace Microsoft.DataProtection",
    ),
    "ContainerService is not registered": (
        _without(f"{SUBSCRIPTION}/providers/Microsoft.ContainerService"),
        "MissingSubscriptionRegistration",
        "az provider register --namespace Microsoft.ContainerService",
    ),
    "KubernetesConfiguration is not registered": (
        _without(f"{SUBSCRIPTION}/providers/Microsoft.KubernetesConfiguration"),
        "MissingSubscriptionRegistration",
        "az provider register --namespace Microsoft.KubernetesConfiguration",
    ),
    "no policy": (_without(POLICY), INVALID, "strongroom policy create daily"),
    "no vault identity": (
        _no_identity(VAULT),
        "UserErrorVaultIdentityNotFound",
        "az dataprotection backup-vault update",
    ),
    "no cluster identity": (_no_identity(CLUSTER), "UserErrorClusterIdentityNotFound", "az aks update"),
    "no extension identity": (
        lambda world: world.change(EXTENSION, aksAssignedIdentity=None),
        "UserErrorKubernetesBackupExtensionIdentityNotFound",
        "az k8s-extension delete",
    ),
    "no extension": (
        _without(EXTENSION),
        "UserErrorKubernetesBackupExtensionNotFoundError",
        "az k8s-extension create",
    ),
    "a failed extension": (
        lambda world: world.change(EXTENSION, provisioningState="Failed"),
        "UserErrorKubernetesBackupExtensionHasErrors",
        "az k8s-extension show",
    ),
    "no trusted access": (
        _without(BINDING),
        "UserErrorTrustedAccessGatewayReturnedForbidden",
        "az aks trustedaccess rolebinding create",
    ),
    "trusted access of another vault": (
        lambda world: world.change(BINDING, sourceResourceId=VAULT + "2"),
        "UserErrorTrustedAccessGatewayReturnedForbidden",
        f"--source-resource-id {VAULT} ",
    ),
    "no snapshot resource group": (
        _without(SNAPSHOTS),
        "ResourceGroupNotFound",
        f"az group create --subscription {SUBSCRIPTION.rpartition('/')[2]} --name snapshots",
    ),
    "no storage account": (_without(ACCOUNT), LOCATION, "az storage account create"),
    "no container": (
        _without(CONTAINER),
        LOCATION,
        f"az storage container-rm create --subscription {SUBSCRIPTION.rpartition('/')[2]} --resource-group apps "
        "--storage-account shopbackups --name backups",
    ),
    "an extension without a location": (
        lambda world: world.change(EXTENSION, configurationSettings={}),
        LOCATION,
        "Install it with the configuration settings",
    ),
    "a vault of another region": (
        lambda world: world.document(VAULT, location="east"),
        INVALID,
        "strongroom vault create NAME",
    ),
    "an account of another region": (
        lambda world: world.document(ACCOUNT, location="east"),
        INVALID,
        "az storage account create",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_single_broken_precondition_is_named_alone_with_its_remedy(db: Database, case: str) -> None:
    breaks, code, remedy = BROKEN[case]
    world = World()
    breaks(world)
    [(found_code, found_remedy)] = found(db, world)
    assert found_code == code
    assert remedy in found_remedy


def test_a_cluster_that_does_not_exist_is_named_alone(db: Database) -> None:
    world = World()
    for id in (CLUSTER, EXTENSION, BINDING):
        del world.resources[id]
    assert [code for code, _ in found(db, world)] == ["ResourceNotFound"]


def test_an_account_of_another_subscription_is_refused_though_it_exists(db: Database) -> None:
    world = World()
    elsewhere = ACCOUNT.replace(SUBSCRIPTION, VAULT.partition("/resourceGroups/")[0])
    for id in (ACCOUNT, CONTAINER):
        old = world.resources.pop(id)
        moved = id.replace(ACCOUNT, elsewhere)
        world.resources[moved] = type(old)(moved, old.type, {**old.doc, "id": moved}, old.parent)
    settings = world.resources[EXTENSION].properties["configurationSettings"]
    key = "configuration.backupStorageLocation.config.subscriptionId"
    world.change(EXTENSION, configurationSettings={**settings, key: elsewhere.split("/")[2]})
    world.roles["extension writes blobs"] = (STORAGE_ACCOUNT_CONTRIBUTOR, elsewhere, EXTENSION_IDENTITY)
    [(code, remedy)] = found(db, world)
    assert code == INVALID
    assert remedy.startswith(f"az storage account create --subscription {SUBSCRIPTION.rpartition('/')[2]}")


def test_everything_broken_at_once_is_named_at_once(db: Database) -> None:
    """All that can be broken together: an absent extension hides what is wrong with its location."""
    world = World(roles={})
    hidden = {"no extension", "no storage account", "an extension without a location", "no extension identity"}
    hidden |= {"no vault identity", "no cluster identity", "trusted access of another vault"}
    expected = [code for code, _ in MISSING_ROLES.values()]
    for case, (breaks, code, _) in BROKEN.items():
        if case not in hidden:
            breaks(world)
            expected.append(code)
    assert sorted(code for code, _ in found(db, world)) == sorted(expected)
