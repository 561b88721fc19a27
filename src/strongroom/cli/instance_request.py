"""The options that describe a backup instance or a restore, and the requests in Azure's words that they become."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from strongroom.cli.options import Repeatable, pairs
from strongroom.cli.protection import find_cluster, find_instance, find_point, group_id
from strongroom.client.backups import BackupInstance, BackupVault, instance_request, restore_request
from strongroom.client.session import Session
from strongroom.errors import UsageError

Json = dict[str, Any]

_FILE_HELP = "The request as a JSON file: the backup instance as `instance show -o json` prints it, or its properties."
_CLUSTER_HELP = "The connected cluster to protect: its name or its ARM id."
_KIND_HELP = "Only these kinds (`v1/Secret`, `apps/Deployment`, `deployments.apps`). Repeatable."
_RESTORE_FILE_HELP = "The restore request as a JSON file, in the place of all other options of the restore."
_TARGET_HELP = "The connected cluster to restore into: its name or its ARM id. Unsaid: the one that was backed up."

_FILE_BYTES = 4 * 1024 * 1024  # as much as the server takes as a body


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FilterOptions:
    """What to take of a cluster or of a recovery point. With none of these, everything."""

    include_namespace: Repeatable = ()
    """Only these namespaces. Repeatable."""
    exclude_namespace: Repeatable = ()
    """Not these namespaces. Repeatable."""
    include_kind: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, help=_KIND_HELP)] = ()
    exclude_kind: Repeatable = ()
    """Not these kinds. Repeatable."""
    selector: Annotated[tuple[str, ...], Parameter(alias="-l", negative="", show_default=False)] = ()
    """Only objects with matching labels (`env=prod`). Of several, all have to match. Repeatable."""
    cluster_scoped: Annotated[bool | None, Parameter(show_default=False)] = None
    """Cluster-scoped objects too. Unsaid: yes in a backup, and in a restore that names no namespaces."""

    def arm(self, *, cluster_scoped: bool) -> Json:
        """Return the filter in Azure's names; *cluster_scoped* where the option is unsaid."""
        lists = {
            "includedNamespaces": self.include_namespace,
            "excludedNamespaces": self.exclude_namespace,
            "includedResourceTypes": self.include_kind,
            "excludedResourceTypes": self.exclude_kind,
            "labelSelectors": self.selector,
        }
        wanted = cluster_scoped if self.cluster_scoped is None else self.cluster_scoped
        return {"includeClusterScopeResources": wanted, **{name: list(each) for name, each in lists.items() if each}}


EVERYTHING = FilterOptions()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """The backup instance that is asked for."""

    backup_instance: Annotated[Path | None, Parameter(metavar="FILE", help=_FILE_HELP)] = None
    cluster: Annotated[str, Parameter(metavar="CLUSTER", show_default=False, help=_CLUSTER_HELP)] = ""
    policy: Annotated[str, Parameter(metavar="POLICY", show_default=False)] = ""
    """The backup policy of the vault: its name or its ARM id."""
    snapshot_resource_group: Annotated[str, Parameter(metavar="RG", show_default=False)] = ""
    """The resource group of the snapshots: its name or its ARM id. Unsaid: that of the cluster."""
    snapshot_volumes: bool = True
    """Take CSI snapshots of the volumes."""

    def named(self) -> bool:
        """Whether the options say anything of an instance."""
        return bool(self.backup_instance or self.cluster)

    def properties(self, session: Session, vault: BackupVault, filters: FilterOptions, *, policy_needed: bool) -> Json:
        """Return the properties of the instance. Raises `UsageError` for what is not said."""
        if self.backup_instance is not None:
            found = _read(self.backup_instance)
            inner = found.get("backupInstance") or found.get("properties") or found
            return BackupInstance.of({"properties": inner}).request
        if not self.cluster:
            raise UsageError("no cluster is named", hint="Give --cluster, or --backup-instance FILE")
        if policy_needed and not self.policy:
            raise UsageError("no backup policy is named", hint="Give --policy: strongroom policy list")
        cluster = find_cluster(session, self.cluster)
        policy = self.policy if self.policy.startswith("/") else f"{vault.id}/backupPolicies/{self.policy or '-'}"
        # A cluster may be in another subscription than the vault: its own group is named by its own id.
        own_group = cluster.id.partition("/providers/")[0]
        configuration = {"snapshotVolumes": self.snapshot_volumes, **filters.arm(cluster_scoped=True)}
        return instance_request(
            cluster=cluster.id,
            location=cluster.location,
            policy=policy,
            snapshot_group=group_id(session, self.snapshot_resource_group)
            if self.snapshot_resource_group
            else own_group,
            configuration=configuration,
        )

    def of(self, session: Session, vault: BackupVault, name: str, filters: FilterOptions) -> Json:
        """Return the properties of the instance *name* as it is, or those that the options describe."""
        if self.named():
            return self.properties(session, vault, filters, policy_needed=False)
        if not name:
            raise UsageError(
                "no backup instance is named", hint="Give NAME, --backup-instance FILE, or --cluster of a new one"
            )
        return find_instance(session, vault, name).request


NOTHING_ASKED = RequestOptions()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """Which restore."""

    restore_request_object: Annotated[Path | None, Parameter(metavar="FILE", help=_RESTORE_FILE_HELP)] = None
    point: Annotated[str, Parameter(metavar="ID", show_default=False)] = ""
    """The recovery point: its id, a unique beginning of it, or `latest`."""
    target: Annotated[str, Parameter(metavar="CLUSTER", show_default=False, help=_TARGET_HELP)] = ""
    map_namespace: Repeatable = ()
    """SOURCE=TARGET: restore the objects of one namespace into another. Repeatable."""
    conflict: Literal["skip", "patch"] = "skip"
    """What to do with an object that is there already. Nothing is ever deleted."""
    volumes: Literal["data", "none"] = "data"
    """Fill claims from their CSI snapshots, or provision them empty."""

    def request(self, session: Session, instance: BackupInstance, filters: FilterOptions) -> Json:
        """Return the restore request. Raises `UsageError` for what is not said."""
        if self.restore_request_object is not None:
            found = _read(self.restore_request_object)
            inner: Json = found.get("restoreRequestObject") or found
            return inner
        if not self.point:
            raise UsageError(
                "no recovery point is named", hint=f"Give --point: strongroom instance points {instance.name}"
            )
        mapped = pairs("--map-namespace", self.map_namespace)
        narrow = bool(filters.include_namespace or filters.exclude_namespace or mapped)
        criteria = {
            **filters.arm(cluster_scoped=not narrow),
            "persistentVolumeRestoreMode": (
                "RestoreWithVolumeData" if self.volumes == "data" else "RestoreWithoutVolumeData"
            ),
            "conflictPolicy": self.conflict.capitalize(),
            **({"namespaceMappings": mapped} if mapped else {}),
        }
        cluster = find_cluster(session, self.target or instance.cluster)
        point = find_point(session, instance, self.point)
        return restore_request(point=point.name, cluster=cluster.id, location=cluster.location, criteria=criteria)


NO_RESTORE = RestoreOptions()


def _read(path: Path) -> Json:
    """Return the JSON object in a file. Raises `UsageError`."""
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise UsageError(f"{path} is larger than the {_FILE_BYTES // 1024**2} MiB that a request may have")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no JSON object")
    return found
