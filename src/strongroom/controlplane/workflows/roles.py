"""Which roles the identities of vault, cluster and extension need for a backup or a restore, and which are missing.

Pure. The list is that of azure-backup-for-aks.md section 5, the rows of the operational tier.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from strongroom.controlplane.identity.rbac import Access, Need, RoleDefinition
from strongroom.controlplane.identity.roles import (
    CLUSTER_WRITES_SNAPSHOT_GROUP,
    EXTENSION_WRITES_BLOBS,
    EXTENSION_WRITES_BLOBS_BY_KEY,
    VAULT_READS_CLUSTER,
    VAULT_READS_SNAPSHOT_GROUP,
)
from strongroom.protection.errors import ErrorCode, UserError


class Holder(StrEnum):
    """Whose identity it is, as messages name it."""

    VAULT = "vault"
    CLUSTER = "cluster"
    EXTENSION = "backup extension"


@dataclass(frozen=True, slots=True)
class Identity:
    """The managed identity of *resource* (an ARM id); *principal* is its object id, "" when it has none."""

    resource: str
    principal: str

    @property
    def name(self) -> str:
        return self.resource.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Parties:
    """Who takes part in a backup or restore, and at what; ids are ARM ids.

    *cluster* and *extension* are None when they do not exist, *account* is "" when the extension names none: what hangs
    on them is then not asked for, since their absence is a problem of its own.
    """

    vault: Identity
    snapshot_group: str
    cluster: Identity | None
    extension: Identity | None
    account: str


@dataclass(frozen=True, slots=True)
class Requirement:
    """*identity* must meet one of *needs* at *scope*; the first is the one whose role is recommended."""

    holder: Holder
    identity: Identity
    needs: tuple[Need, ...]
    scope: str
    code: ErrorCode = ErrorCode.ROLE_ASSIGNMENT_MISSING

    @property
    def role(self) -> RoleDefinition:
        return self.needs[0].role

    def met(self, access: Access) -> bool:
        return any(access.meets(self.identity.principal, need, self.scope) for need in self.needs)


_NO_IDENTITY: Final = {
    Holder.VAULT: ErrorCode.VAULT_IDENTITY_NOT_FOUND,
    Holder.CLUSTER: ErrorCode.CLUSTER_IDENTITY_NOT_FOUND,
    Holder.EXTENSION: ErrorCode.EXTENSION_IDENTITY_NOT_FOUND,
}


def requirements(parties: Parties) -> Iterator[Requirement]:
    """Yield what has to hold, whether or not the identities exist."""
    cluster, extension, group = parties.cluster, parties.extension, parties.snapshot_group
    if cluster is not None:
        at, code = cluster.resource, ErrorCode.LIST_EXTENSIONS
        yield Requirement(Holder.VAULT, parties.vault, (VAULT_READS_CLUSTER,), at, code)
    yield Requirement(Holder.VAULT, parties.vault, (VAULT_READS_SNAPSHOT_GROUP,), group)
    if cluster is not None:
        yield Requirement(Holder.CLUSTER, cluster, (CLUSTER_WRITES_SNAPSHOT_GROUP,), group)
    if extension is not None and parties.account:
        # The how-to gives Storage Account Contributor, today's guides Storage Blob Data Contributor: both serve.
        needs = (EXTENSION_WRITES_BLOBS, EXTENSION_WRITES_BLOBS_BY_KEY)
        code = ErrorCode.LOCATION_PERMISSION_MISSING
        yield Requirement(Holder.EXTENSION, extension, needs, parties.account, code)


def missing(access: Access, parties: Parties) -> list[Requirement]:
    """Return the requirements that do not hold and that a role assignment would mend."""
    return [one for one in requirements(parties) if one.identity.principal and not one.met(access)]


def role_problems(access: Access, parties: Parties) -> list[UserError]:
    """Return an error for each identity that does not exist and for each role that is missing, with its remedy."""
    return [*identity_problems(parties), *(_missing_role(one) for one in missing(access, parties))]


def identity_problems(parties: Parties) -> Iterator[UserError]:
    """Yield an error for each identity that does not exist."""
    identities = {
        Holder.VAULT: parties.vault,
        Holder.CLUSTER: parties.cluster,
        Holder.EXTENSION: parties.extension,
    }
    for holder, identity in identities.items():
        if identity is not None and not identity.principal:
            yield UserError(
                str(_NO_IDENTITY[holder]),
                f"The {holder} '{identity.name}' has no managed identity, so no role can be given to it.",
                _identity_commands(holder, identity.resource),
                identity.resource,
            )


def _identity_commands(holder: Holder, resource: str) -> tuple[str, ...]:
    segments = resource.split("/")
    place = f"--subscription {segments[2]} --resource-group {segments[4]}"
    match holder:
        case Holder.VAULT:
            return (f"az dataprotection backup-vault update {place} --vault-name {segments[-1]} --type SystemAssigned",)
        case Holder.CLUSTER:
            return (f"az aks update {place} --name {segments[-1]} --enable-managed-identity",)
        case Holder.EXTENSION:
            return (
                f"az k8s-extension delete {place} --cluster-type managedClusters --cluster-name {segments[8]} "
                f"--name {segments[-1]}",
                "Then install it again, as before: az k8s-extension create.",
            )


def _missing_role(required: Requirement) -> UserError:
    roles = " or ".join(f"'{need.role.name}'" for need in required.needs)
    return UserError(
        str(required.code),
        f"The identity of the {required.holder} '{required.identity.name}' (object id {required.identity.principal}) "
        f"has no role that lets it do what {roles} allows at {required.scope}.",
        (assign_command(required),),
        required.scope,
    )


def assign_command(required: Requirement) -> str:
    """Return the command that gives the recommended role."""
    return (
        f"az role assignment create --assignee-object-id {required.identity.principal} "
        f'--assignee-principal-type ServicePrincipal --role "{required.role.name}" --scope "{required.scope}"'
    )
