"""What of a cluster an instance protects, and what of a point a restore brings back: names, kinds and labels, checked.

Spelled as the API spells it. Which objects a selection takes is the data plane's answer (docs/reference/selection.md).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from strongroom.protection.errors import ErrorCode, UserError, refuse_if_any, shown
from strongroom.protection.fields import Fields
from strongroom.protection.job import Limits

SYSTEM_NAMESPACES = ("kube-system", "kube-node-lease", "kube-public")  # always skipped: reference section 1.1

_DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
# `Secret`, `v1/Secret`, `apps/Deployment`, `apps/v1/Deployment`, `deployments.apps`
_RESOURCE_TYPE = re.compile(r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/){0,2}[A-Za-z][-A-Za-z0-9.]*")
_RESOURCE_TYPE_CHARACTERS = 317  # a group of 253, a kind of 63, and the stroke between them

_SELECTOR_CHARACTERS = 4096  # far beyond any selector in use; splitting takes time by the square of the length

# One requirement of a label selector, as kubectl takes it.
_LABEL_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = rf"(?:[a-z0-9](?:[-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_LABEL_NAME}"
_LABEL_VALUE = rf"(?:{_LABEL_NAME})?"
_REQUIREMENT = re.compile(
    rf"(?P<key>{_LABEL_KEY})\s*(?P<operator>==|=|!=)\s*(?P<value>{_LABEL_VALUE})"
    rf"|{_LABEL_KEY}\s+(?:in|notin)\s*\(\s*{_LABEL_VALUE}(?:\s*,\s*{_LABEL_VALUE})*\s*\)"
    rf"|!?\s*{_LABEL_KEY}"
)
_SELECTOR_FORMS = "env=prod, tier!=db, app in (a, b), app notin (a, b), app, !app"


class VolumeType(StrEnum):
    """Kinds of volumes, by Azure's names."""

    AZURE_DISK = "AzureDisk"
    AZURE_FILE_SHARE = "AzureFileShareSMB"


class ConflictPolicy(StrEnum):
    """What a restore does where an object exists already."""

    SKIP = "Skip"
    PATCH = "Patch"


class VolumeRestoreMode(StrEnum):
    """Whether a restored claim gets its data back."""

    WITH_DATA = "RestoreWithVolumeData"
    WITHOUT_DATA = "RestoreWithoutVolumeData"


@dataclass(frozen=True, slots=True)
class Reference:
    """A namespaced object of the cluster: a BackupHook, a RestoreHook, a ConfigMap of resource modifiers."""

    name: str
    namespace: str


@dataclass(frozen=True, slots=True)
class ObjectFilter:
    """The filters that backups and restores share. Empty means everything; an exclusion wins over an inclusion.

    Types are spelled as they were given (`apps/Deployment`, `v1/Secret`); the extension turns them into the cluster's.
    *label_selectors* are in Kubernetes' syntax, each one's requirements joined by commas; all of all must hold
    (docs/reference/extension.md).
    """

    include_cluster_scope: bool
    included_namespaces: tuple[str, ...] = ()
    excluded_namespaces: tuple[str, ...] = ()
    included_types: tuple[str, ...] = ()
    excluded_types: tuple[str, ...] = ()
    label_selectors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackupConfiguration:
    """A KubernetesClusterBackupDatasourceParameters: what an instance protects."""

    filter: ObjectFilter
    snapshot_volumes: bool
    volume_types: tuple[VolumeType, ...] = ()
    hooks: tuple[Reference, ...] = ()

    @property
    def notes(self) -> tuple[UserError, ...]:
        """What a user should know of this configuration: system namespaces are skipped even where they are named."""
        named = [name for name in self.filter.included_namespaces if name in SYSTEM_NAMESPACES]
        if not named:
            return ()
        return (
            UserError(
                str(ErrorCode.GENERIC_WARNING),
                f"{', '.join(named)} belong to the cluster and are never backed up",
                recommended_action=("Leave them out of includedNamespaces.",),
                target="includedNamespaces",
            ),
        )


@dataclass(frozen=True, slots=True)
class RestoreCriteria:
    """A KubernetesClusterRestoreCriteria: what of a point is restored, where to, and how."""

    filter: ObjectFilter
    namespace_mappings: Mapping[str, str]
    conflict_policy: ConflictPolicy = ConflictPolicy.SKIP
    volume_mode: VolumeRestoreMode = VolumeRestoreMode.WITH_DATA
    hooks: tuple[Reference, ...] = ()
    resource_modifier: Reference | None = None


def parse_backup_configuration(
    document: Mapping[str, object], path: str, limits: Limits | None = None
) -> BackupConfiguration:
    """Return the configuration in a `backupDatasourceParametersList` entry at *path*.

    Raises `Refused` with every problem, each with the JSON path of its field.
    """
    problems: list[UserError] = []
    configuration = read_backup_configuration(Fields(document, path, problems), limits or Limits())
    refuse_if_any(problems, "The backup configuration")
    return configuration


def read_backup_configuration(fields: Fields, limits: Limits) -> BackupConfiguration:
    """Do as `parse_backup_configuration`, but leave the problems in *fields*; the result is void if there are any."""
    fields.object_type(["KubernetesClusterBackupDatasourceParameters"])
    return BackupConfiguration(
        filter=_filter(fields, limits),
        snapshot_volumes=fields.flag("snapshotVolumes"),
        volume_types=fields.choices("includedVolumeTypes", VolumeType),
        hooks=_references(fields, "backupHookReferences"),
    )


def read_restore_criteria(fields: Fields, limits: Limits) -> RestoreCriteria:
    """Return the criteria in *fields*, an ItemLevelRestoreCriteria; the result is void if there are problems."""
    found = fields.text("objectType")
    if found.casefold() == "KubernetesClusterVaultTierRestoreCriteria".casefold():
        fields.wrong("objectType", f"{found} is not supported: there is no vault tier", _CRITERIA_REMEDY)
    else:
        fields.object_type(["KubernetesClusterRestoreCriteria"], _CRITERIA_REMEDY)
    modifier = fields.child("resourceModifierReference", required=False)
    selected = _filter(fields, limits)
    return RestoreCriteria(
        filter=selected,
        namespace_mappings=_mappings(fields, selected),
        conflict_policy=fields.choice("conflictPolicy", ConflictPolicy, default=ConflictPolicy.SKIP)
        or ConflictPolicy.SKIP,
        volume_mode=fields.choice("persistentVolumeRestoreMode", VolumeRestoreMode, default=VolumeRestoreMode.WITH_DATA)
        or VolumeRestoreMode.WITH_DATA,
        hooks=_references(fields, "restoreHookReferences"),
        resource_modifier=_reference(modifier) if modifier is not None else None,
    )


_CRITERIA_REMEDY = "Use KubernetesClusterRestoreCriteria."


def _filter(fields: Fields, limits: Limits) -> ObjectFilter:
    included = _namespaces(fields, "includedNamespaces", limits)
    excluded = _namespaces(fields, "excludedNamespaces", limits)
    both = [name for name in included if name in excluded]
    if both:
        fields.wrong("excludedNamespaces", f"{', '.join(both)} also stand in includedNamespaces")
    return ObjectFilter(
        include_cluster_scope=fields.flag("includeClusterScopeResources"),
        included_namespaces=included,
        excluded_namespaces=excluded,
        included_types=_types(fields, "includedResourceTypes"),
        excluded_types=_types(fields, "excludedResourceTypes"),
        label_selectors=_selectors(fields),
    )


def _namespaces(fields: Fields, name: str, limits: Limits) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(fields.texts(name)))
    for number, namespace in enumerate(names):
        if not _DNS_LABEL.fullmatch(namespace):
            fields.wrong(
                f"{name}[{number}]",
                f"{shown(namespace)} is no name of a namespace: lower-case letters, digits and -, at most 63",
                *(("Leave the list out to take all current and future namespaces.",) if namespace == "*" else ()),
            )
    if len(names) > limits.namespaces_per_instance:
        fields.wrong(
            name,
            f"there are {len(names)} namespaces; {limits.namespaces_per_instance} are allowed",
            "Leave the list out to take all namespaces, or make several backup instances.",
        )
    return names


def _types(fields: Fields, name: str) -> tuple[str, ...]:
    types = tuple(dict.fromkeys(fields.texts(name)))
    for number, text in enumerate(types):
        if len(text) > _RESOURCE_TYPE_CHARACTERS or not _RESOURCE_TYPE.fullmatch(text):
            fields.wrong(
                f"{name}[{number}]",
                f"{shown(text)} is no resource type; accepted are forms such as v1/Secret, apps/Deployment, "
                "apps/v1/Deployment, deployments.apps",
            )
    return types


def _selectors(fields: Fields) -> tuple[str, ...]:
    selectors = []
    for number, text in enumerate(fields.texts("labelSelectors")):
        if len(text) > _SELECTOR_CHARACTERS:
            fields.wrong(
                f"labelSelectors[{number}]", f"it has {len(text)} characters; {_SELECTOR_CHARACTERS} are allowed"
            )
            continue
        requirements = list(_requirements(text))
        wrong = [part for part in requirements if not _REQUIREMENT.fullmatch(part)]
        if wrong or not requirements:
            fields.wrong(
                f"labelSelectors[{number}]",
                f"{shown(wrong[0] if wrong else text)} is no label requirement; accepted are forms such as "
                f"{_SELECTOR_FORMS}",
                "Join requirements that must all hold with ; or a comma.",
            )
        selectors.append(",".join(requirements))
    return tuple(dict.fromkeys(selectors))


def _requirements(selector: str) -> Iterator[str]:
    """Yield the requirements of a selector: split at `;`, as the portal joins them, and at commas outside brackets."""
    for part in re.split(r"[;,](?![^(]*\))", selector):
        if part.strip():
            yield part.strip()


def _references(fields: Fields, name: str) -> tuple[Reference, ...]:
    return tuple(_reference(each) for each in fields.children(name))


def _reference(fields: Fields) -> Reference:
    namespace = fields.text("namespace")
    if namespace and not _DNS_LABEL.fullmatch(namespace):
        fields.wrong("namespace", f"{shown(namespace)} is no name of a namespace")
    return Reference(fields.text("name"), namespace)


def _mappings(fields: Fields, selected: ObjectFilter) -> dict[str, str]:
    mappings = fields.text_map("namespaceMappings")
    for source, target in mappings.items():
        place = f"namespaceMappings.{source}"
        if not _DNS_LABEL.fullmatch(source) or not _DNS_LABEL.fullmatch(target):
            fields.wrong(place, f"{shown(source)} to {shown(target)}: both must be names of namespaces")
        elif target in SYSTEM_NAMESPACES:
            fields.wrong(place, f"{target} belongs to the cluster; nothing is restored into it")
        elif source in selected.excluded_namespaces or (
            selected.included_namespaces and source not in selected.included_namespaces
        ):
            fields.wrong(
                place,
                f"{source} is mapped but not selected, so the mapping would do nothing",
                f"Add {source} to includedNamespaces, or leave the mapping out.",
            )
    return mappings
