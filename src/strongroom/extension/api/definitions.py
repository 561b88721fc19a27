"""The CustomResourceDefinitions: our four kinds, made from their Structs, and the two hook kinds of Azure. Pure.

`python -m strongroom.extension.api.definitions FOLDER` writes them as the files of deploy/crds.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from strongroom.extension.api import documents, status
from strongroom.extension.api.documents import GROUP, VERSION, Kind
from strongroom.extension.api.schemas import Changes, Schema, schema_of

Definition = dict[str, Any]
"""A CustomResourceDefinition, as JSON has it."""

HOOK_GROUP: Final = "clusterbackup.dataprotection.microsoft.com"
SCHEMA_ANNOTATION: Final = "strongroom.dev/schema"
"""A hash of the definition, by which one shows that is older than the version which looks."""
LABELS: Final = {"app.kubernetes.io/managed-by": "strongroom", "app.kubernetes.io/part-of": "strongroom"}

PLURALS: Final[Mapping[Kind, str]] = {
    Kind.BACKUP_STORAGE_LOCATION: "backupstoragelocations",
    Kind.BACKUP: "backups",
    Kind.RESTORE: "restores",
    Kind.DELETE_BACKUP: "deletebackups",
}

_NEVER_CHANGES: Final = {
    "rule": "self == oldSelf",
    "message": "a spec does not change: delete the object, or make one of another name",
}
_PINNED: Final = {"rule": "self == oldSelf", "message": "it is pinned: make a BackupStorageLocation of another name"}
_LOCATION: Final = {"minLength": 1, "maxLength": 253, "description": "The BackupStorageLocation's name."}
_INCLUDED: Final = "Only these namespaces; without it all."
_EXCLUDED: Final = "Not these namespaces, also where included."
_TYPES: Final = "Kinds: v1/Secret, apps/Deployment, apps/v1/Deployment, or as kubectl spells them."
_SELECTORS: Final = "Label selectors in Kubernetes' syntax; all must hold."
_HOOK_REFERENCES: Final = "Hooks to run, by name and namespace."
_WITHDRAWN: Final = "Do nothing, and be Cancelled once what ran under this name has stopped."
_CALLER: Final = "Opaque data, kept with the recovery point. Of one caller.instance one Backup runs at a time."

_CHANGES: Final[Changes] = {
    ("StorageLocationSpec", "url"): {
        "pattern": "^(file|az|s3|gs)://",
        "x-kubernetes-validations": [_PINNED],
        "description": "Where the repository lies: az://account/container, s3://bucket/prefix, gs://…, file:///…",
    },
    ("StorageLocationSpec", "root"): {
        "pattern": "^[A-Za-z0-9+/]{43}=$",
        "x-kubernetes-validations": [_PINNED],
        "description": "The repository's public root key, base64 of 32 bytes: `strongroom repository info` shows it.",
    },
    ("StorageLocationSpec", "clusterEndpoint"): {
        "pattern": "^https?://",
        "description": "The store's address as the cluster sees it, where that is another one.",
    },
    ("StorageLocationSpec", "repositoryId"): {
        "x-kubernetes-validations": [_PINNED],
        "description": "If given, the repository must have this id.",
    },
    ("Selection", "snapshotVolumes"): {"description": "Whether the selected claims get CSI snapshots."},
    ("Selection", "includeClusterScopeResources"): {
        "description": "All cluster-scoped objects, or those alone that the selected ones need."
    },
    ("Selection", "includedNamespaces"): {"description": _INCLUDED},
    ("Selection", "excludedNamespaces"): {"description": _EXCLUDED},
    ("Selection", "includedResourceTypes"): {"description": _TYPES},
    ("Selection", "excludedResourceTypes"): {"description": _TYPES},
    ("Selection", "labelSelectors"): {"description": _SELECTORS},
    ("Selection", "includedVolumeTypes"): {"description": "Not supported: a Backup that names any fails."},
    ("Selection", "backupHookReferences"): {"description": _HOOK_REFERENCES},
    ("RestoreCriteria", "includeClusterScopeResources"): {"description": "Whether cluster-scoped objects come back."},
    ("RestoreCriteria", "includedNamespaces"): {"description": _INCLUDED},
    ("RestoreCriteria", "excludedNamespaces"): {"description": _EXCLUDED},
    ("RestoreCriteria", "includedResourceTypes"): {"description": _TYPES},
    ("RestoreCriteria", "excludedResourceTypes"): {"description": _TYPES},
    ("RestoreCriteria", "labelSelectors"): {"description": _SELECTORS},
    ("RestoreCriteria", "persistentVolumeRestoreMode"): {
        "enum": ["RestoreWithVolumeData", "RestoreWithoutVolumeData"],
        "description": "Whether claims get their files back. RestoreWithVolumeData if not said.",
    },
    ("RestoreCriteria", "conflictPolicy"): {
        "enum": ["Skip", "Patch"],
        "description": "What becomes of objects that are there. Skip if not said.",
    },
    ("RestoreCriteria", "namespaceMappings"): {"description": "Source namespace to target; a missing target is made."},
    ("RestoreCriteria", "restoreHookReferences"): {"description": _HOOK_REFERENCES},
    ("RestoreCriteria", "resourceModifierReference"): {
        "description": "Not supported yet: a Restore that names it fails."
    },
    ("SnapshotSettings", "parameters"): {"description": "Laid over those of the VolumeSnapshotClasses."},
    ("BackupSpec", "storageLocation"): _LOCATION,
    ("BackupSpec", "caller"): {"description": _CALLER},
    ("BackupSpec", "dryRun"): {"description": "Check what only the cluster knows, and take no backup."},
    ("BackupSpec", "withdrawn"): {"description": _WITHDRAWN},
    ("RestoreSpec", "storageLocation"): _LOCATION,
    ("RestoreSpec", "recoveryPointId"): {
        "minLength": 1,
        "description": "What to restore: status.recoveryPointId of a Backup.",
    },
    ("RestoreSpec", "caller"): {"description": "Opaque data. Of one caller.instance one Restore runs at a time."},
    ("RestoreSpec", "dryRun"): {"description": "Plan, and change nothing."},
    ("RestoreSpec", "withdrawn"): {"description": _WITHDRAWN},
    ("DeleteBackupSpec", "storageLocation"): _LOCATION,
    ("DeleteBackupSpec", "recoveryPointId"): {
        "minLength": 1,
        "description": "A recovery point that is condemned already.",
    },
}

_STATUS_CHANGES: Final[Changes] = {
    (struct, "conditions"): {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    for struct in ("BackupStatus", "RestoreStatus", "DeleteBackupStatus", "LocationStatus")
} | {
    (struct, "warnings"): {
        "maxItems": status.WARNINGS_AT_MOST,
        "description": "The first warnings; warningCount counts all.",
    }
    for struct in ("BackupStatus", "RestoreStatus", "DeleteBackupStatus")
}


def _column(name: str, path: str, description: str, *, wide: bool = False, kind: str = "string") -> Schema:
    return {
        "name": name,
        "type": kind,
        "jsonPath": path,
        "description": description,
        **({"priority": 1} if wide else {}),
    }


_PHASE: Final = _column("Phase", ".status.phase", "How far it is.")
_AGE: Final = _column("Age", ".metadata.creationTimestamp", "Since when it is there.", kind="date")
_DOING: Final = _column("Doing", ".status.progress.phase", "What the run is at.", wide=True)
_WANTED_POINT: Final = _column("Point", ".spec.recoveryPointId", "The recovery point.")
_PLACE: Final = _column("Location", ".spec.storageLocation", "Where it goes to or comes from.", wide=True)

_COLUMNS: Final[Mapping[Kind, Sequence[Schema]]] = {
    Kind.BACKUP_STORAGE_LOCATION: (
        _PHASE,
        _column("URL", ".spec.url", "Where the repository lies."),
        _column("Reason", ".status.conditions[?(@.type=='Available')].reason", "Why it can or cannot be used."),
        _AGE,
    ),
    Kind.BACKUP: (_PHASE, _column("Point", ".status.recoveryPointId", "The recovery point."), _AGE, _DOING, _PLACE),
    Kind.RESTORE: (_PHASE, _WANTED_POINT, _AGE, _DOING, _PLACE),
    Kind.DELETE_BACKUP: (
        _PHASE,
        _WANTED_POINT,
        _column("Left", ".status.notDeletedCount", "Snapshots that are still there.", kind="integer"),
        _AGE,
        _PLACE,
    ),
}

_STRUCTS: Final[Mapping[Kind, tuple[type[msgspec.Struct], type[msgspec.Struct], type[msgspec.Struct]]]] = {
    Kind.BACKUP_STORAGE_LOCATION: (
        documents.BackupStorageLocation,
        documents.StorageLocationSpec,
        status.LocationStatus,
    ),
    Kind.BACKUP: (documents.Backup, documents.BackupSpec, status.BackupStatus),
    Kind.RESTORE: (documents.Restore, documents.RestoreSpec, status.RestoreStatus),
    Kind.DELETE_BACKUP: (documents.DeleteBackup, documents.DeleteBackupSpec, status.DeleteBackupStatus),
}


def definitions() -> list[Definition]:
    """Return all CustomResourceDefinitions, ours first."""
    return [_own(kind) for kind in Kind] + [_hooks("BackupHook"), _hooks("RestoreHook")]


def _own(kind: Kind) -> Definition:
    document, spec, status_struct = _STRUCTS[kind]
    spec_schema = schema_of(spec, _CHANGES, bounded=True)
    if kind is not Kind.BACKUP_STORAGE_LOCATION:
        spec_schema["x-kubernetes-validations"] = [_NEVER_CHANGES]
    schema = {
        "type": "object",
        "description": document.__doc__,
        "required": ["spec"],
        "properties": {
            **_TYPE_META,
            "spec": spec_schema,
            "status": schema_of(status_struct, _STATUS_CHANGES, bounded=False),
        },
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": list(_COLUMNS[kind]),
        "schema": {"openAPIV3Schema": schema},
    }
    return _definition(GROUP, str(kind), PLURALS[kind], version)


_TYPE_META: Final[Schema] = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {"type": "object"},
}

# Azure's example leaves keys empty that it does not need (`labelSelector:`), which is null in YAML.
_NAMES: Final[Schema] = {"type": "array", "nullable": True, "items": {"type": "string"}}
_LABEL_SELECTOR: Final[Schema] = {
    "type": "object",
    "nullable": True,
    "description": "Which pods, as everywhere in Kubernetes.",
    "properties": {
        "matchLabels": {"type": "object", "nullable": True, "additionalProperties": {"type": "string"}},
        "matchExpressions": {
            "type": "array",
            "nullable": True,
            "items": {
                "type": "object",
                "required": ["key", "operator"],
                "properties": {"key": {"type": "string"}, "operator": {"type": "string"}, "values": _NAMES},
            },
        },
    },
}


def _exec(on_error: Schema, **times: str) -> Schema:
    """Return the schema of a list of commands; *times* are its durations and what they mean."""
    execute: Schema = {
        "type": "object",
        "required": ["command"],
        "properties": {
            "container": {"type": "string", "nullable": True, "description": "Which container; without it the first."},
            "command": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "string"},
                "description": "The command and its arguments. No shell runs it.",
            },
            "onError": {
                "type": "string",
                "enum": ["Continue", "Fail"],
                "description": "What becomes of the job where the command fails.",
                **on_error,
            },
            **{
                name: {"type": "string", "nullable": True, "description": meaning, "pattern": r"^([0-9.]+(ms|s|m|h))+$"}
                for name, meaning in times.items()
            },
        },
    }
    return {
        "type": "array",
        "nullable": True,
        "items": {"type": "object", "required": ["exec"], "properties": {"exec": execute}},
    }


def _hooks(kind: str) -> Definition:
    """Return the definition of BackupHook or RestoreHook as Azure's extension has it (azure-backup-for-aks.md, 1.4)."""
    hook: Schema = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "description": "The hook's name."},
            "includedNamespaces": {**_NAMES, "description": "In these namespaces."},
            "excludedNamespaces": {**_NAMES, "description": "Not in these."},
            "labelSelector": _LABEL_SELECTOR,
        },
    }
    if kind == "BackupHook":
        times = {"timeout": "How long the command may take: 30s."}
        hook["properties"] |= {"preHooks": _exec({}, **times), "postHooks": _exec({}, **times)}
        field = "backupHook"
    else:
        times = {
            "execTimeout": "How long the command may take: 30s.",
            "waitTimeout": "How long to wait for the container: 5m.",
        }
        hook["properties"] |= {"postHooks": _exec({"default": "Continue"}, **times)}
        field = "restoreHook"
    spec = {"type": "object", "required": [field], "properties": {field: {"type": "array", "items": hook}}}
    schema = {
        "type": "object",
        "description": "Commands that run in pods around a backup or after a restore.",
        "required": ["spec"],
        "properties": {**_TYPE_META, "spec": spec},
    }
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_AGE],
        "schema": {"openAPIV3Schema": schema},
    }
    return _definition(HOOK_GROUP, kind, f"{kind.lower()}s", version)


def _definition(group: str, kind: str, plural: str, version: Schema) -> Definition:
    spec = {
        "group": group,
        "scope": "Namespaced",
        "names": {
            "kind": kind,
            "listKind": f"{kind}List",
            "plural": plural,
            "singular": kind.lower(),
            "categories": ["strongroom"],
        },
        "versions": [version],
    }
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "labels": dict(LABELS),
            "annotations": {SCHEMA_ANNOTATION: digest},
        },
        "spec": spec,
    }


class PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        """Write everything out: not every reader of manifests follows aliases."""
        return True


def files() -> dict[str, str]:
    """Return the content of each file in deploy/crds by its name."""
    return {
        f"{found['metadata']['name']}.yaml": "# Made by `python -m strongroom.extension.api.definitions deploy/crds`.\n"
        + yaml.dump(found, Dumper=PlainDumper, sort_keys=False, width=120)
        for found in definitions()
    }


if __name__ == "__main__":
    for name, content in files().items():
        (Path(sys.argv[1]) / name).write_text(content, encoding="utf-8")
