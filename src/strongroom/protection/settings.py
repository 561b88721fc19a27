"""A backup instance's document as a value: which cluster, by which policy, with which selection, snapshots where.

`parse_instance` reads the `properties` of the instance's PUT, or the `backupInstance` of a validation.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from strongroom.protection.errors import ErrorCode, UserError, invalid, refuse_if_any, shown
from strongroom.protection.fields import Fields
from strongroom.protection.job import Limits
from strongroom.protection.policy import DATASOURCE_TYPE
from strongroom.protection.retention import DataStore
from strongroom.protection.selection import BackupConfiguration, read_backup_configuration

_CLUSTER_ID = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.ContainerService/managedClusters/[^/]+", re.I
)
_POLICY_ID = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.DataProtection/backupVaults/[^/]+"
    r"/backupPolicies/[^/]+",
    re.I,
)
_GROUP_ID = re.compile(r"/subscriptions/[^/]+/resourceGroups/[^/]+", re.I)


@dataclass(frozen=True, slots=True)
class Datasource:
    """A cluster: its ARM *id* as given but for blanks, and its *location* (empty if not said)."""

    id: str
    location: str = ""

    @property
    def name(self) -> str:
        """The cluster's name, the last part of its id."""
        return self.id.rpartition("/")[2]

    def is_same(self, other: "Datasource") -> bool:
        """Say whether both are one cluster; ARM ids don't heed casing."""
        return self.id.lower() == other.id.lower()


@dataclass(frozen=True, slots=True)
class InstanceSettings:
    """What an instance protects and how; ids are ARM ids."""

    friendly_name: str
    datasource: Datasource
    policy_id: str
    snapshot_group_id: str
    configuration: BackupConfiguration


def parse_instance(
    properties: Mapping[str, object], path: str = "properties", limits: Limits | None = None, *, vault: str = ""
) -> InstanceSettings:
    """Return the settings of an ARM BackupInstance document at *path*, whose policy is one of *vault* (its ARM id).

    Raises `Refused` with every problem. A missing datasource set, which Azure finds out after it has created the
    instance, is refused at once with Azure's code for it.
    """
    problems: list[UserError] = []
    document = Fields(properties, path, problems)
    document.object_type(["BackupInstance"])
    datasource = read_datasource(document, "dataSourceInfo")
    read_datasource_set(document, "dataSourceSetInfo", datasource)
    policy = document.child("policyInfo")
    policy_id, group_id, configuration = "", "", None
    if policy is not None:
        policy_id = read_arm_id(policy, "policyId", _POLICY_ID, "a backup policy of a backup vault")
        if vault and policy_id and not policy_id.lower().startswith(f"{vault.lower()}/backuppolicies/"):
            policy.wrong(
                "policyId",
                f"{shown(policy_id)} is not a backup policy of the vault {vault}",
                "Give the id of a policy of the same vault.",
            )
        parameters = policy.child("policyParameters")
        if parameters is not None:
            group_id = _snapshot_group(parameters)
            configuration = _configuration(parameters, limits or Limits())
    refuse_if_any(problems, "The backup instance")
    assert datasource is not None, "without a problem there is a datasource"
    assert configuration is not None, "without a problem there is a configuration"
    friendly_name = document.text("friendlyName", required=False) or datasource.name
    return InstanceSettings(friendly_name, datasource, policy_id, group_id, configuration)


def check_update(stored: InstanceSettings, wanted: InstanceSettings, path: str = "properties") -> None:
    """Raise `Refused` if an update changes what is fixed at creation: the cluster and the snapshot resource group."""
    problems = []
    if not stored.datasource.is_same(wanted.datasource):
        problems.append(
            invalid(
                f"{path}.dataSourceInfo.resourceID",
                f"the backup instance protects {stored.datasource.id}, and that cannot change",
                "Create another backup instance for the other cluster.",
            )
        )
    if stored.snapshot_group_id.lower() != wanted.snapshot_group_id.lower():
        problems.append(
            invalid(
                f"{path}.policyInfo.policyParameters.dataStoreParametersList",
                f"the snapshot resource group is {stored.snapshot_group_id}, and that cannot change",
                "Create another backup instance for another snapshot resource group.",
            )
        )
    refuse_if_any(problems, "The update of the backup instance")


def read_datasource(document: Fields, name: str) -> Datasource | None:
    """Return the cluster in the field *name*; what is wrong is noted in *document*."""
    fields = document.child(name)
    if fields is None:
        return None
    kind = fields.text("datasourceType", required=False)
    if kind and kind.casefold() != DATASOURCE_TYPE.casefold():
        fields.wrong("datasourceType", f"{shown(kind)} is not accepted; accepted is {DATASOURCE_TYPE}")
    resource_id = read_arm_id(fields, "resourceID", _CLUSTER_ID, "a managed cluster")
    location = fields.text("resourceLocation", required=False)
    return Datasource(resource_id, location) if resource_id else None


def read_datasource_set(document: Fields, name: str, datasource: Datasource | None, *, required: bool = True) -> None:
    """Check that the datasource set in the field *name* is there, if *required*, and is the same cluster."""
    if not document.has(name) and not required:
        return
    if not document.has(name):
        document.problems.append(
            UserError(
                str(ErrorCode.DATASOURCE_SET_MISSING),
                f"{name} is missing",
                recommended_action=("Send the cluster as the datasource set too, with objectType DatasourceSet.",),
                target=document.at(name),
            )
        )
        return
    whole = read_datasource(document, name)
    if whole is not None and datasource is not None and not whole.is_same(datasource):
        document.wrong(
            f"{name}.resourceID",
            f"{shown(whole.id)} is another cluster than the datasource",
            "For a Kubernetes cluster the datasource set is the cluster itself.",
        )


def read_arm_id(fields: Fields, name: str, pattern: re.Pattern[str], what: str) -> str:
    """Return the ARM id in the field *name*, without the blanks that the how-to's ids have around their strokes."""
    text = re.sub(r"\s*/\s*", "/", fields.text(name)).rstrip("/")
    if text and not pattern.fullmatch(text):
        fields.wrong(name, f"{shown(text)} is not the ARM id of {what}")
        return ""
    return text


def _snapshot_group(parameters: Fields) -> str:
    """Return the snapshot resource group. An entry for the vault store, which newer clients add, says nothing to us."""
    found = []
    for entry in parameters.children("dataStoreParametersList"):
        entry.object_type(["AzureOperationalStoreParameters"])
        if entry.choice("dataStoreType", DataStore) is DataStore.OPERATIONAL:
            found.append(read_arm_id(entry, "resourceGroupId", _GROUP_ID, "a resource group"))
    if len(found) != 1:
        parameters.wrong(
            "dataStoreParametersList",
            f"there are {len(found)} entries for the OperationalStore; exactly one is needed",
            "Name the snapshot resource group in AzureOperationalStoreParameters.resourceGroupId.",
        )
        return ""
    return found[0]


def _configuration(parameters: Fields, limits: Limits) -> BackupConfiguration | None:
    entries = parameters.children("backupDatasourceParametersList")
    if len(entries) != 1:
        parameters.wrong(
            "backupDatasourceParametersList",
            f"there are {len(entries)} entries; exactly one is needed",
            "Give one KubernetesClusterBackupDatasourceParameters.",
        )
        return None
    return read_backup_configuration(entries[0], limits)
