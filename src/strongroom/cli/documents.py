"""The documents that commands print: field names as in the repository's own JSON, every field always there. Pure."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from strongroom.dataplane.repository.model import KindEntry, Manifest, ObjectRow, ReadAs
from strongroom.dataplane.repository.repository import PointInfo

Document = dict[str, Any]


def document(value: object, *, without: frozenset[str] = frozenset()) -> Any:
    """Return *value* as JSON-able data: structs by their JSON names with defaults written out, bytes as hex.

    Fields of structs whose Python name is in *without* are left out.
    """
    if isinstance(value, msgspec.Struct):
        return {
            each.encode_name: document(getattr(value, each.name), without=without)
            for each in msgspec.structs.fields(value)
            if each.name not in without
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): document(item, without=without) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [document(item, without=without) for item in value]
    return value


def point_summary(info: PointInfo) -> Document:
    """Return a recovery point as `point list` prints it; of a damaged one only the id and the problem are known."""
    manifest = info.manifest
    state = "Void" if info.void else manifest.state if manifest else "Damaged"
    head: Document = {"recoveryPointId": info.id, "state": state, "problem": info.problem}
    if manifest is None:
        return head
    return head | {
        "started": manifest.started,
        "finished": manifest.finished,
        "revision": manifest.instant.revision,
        "cluster": document(manifest.cluster),
        "selection": document(manifest.selection),
        "base": manifest.incremental.base,
        "takenOver": manifest.incremental.taken_over,
        "objects": manifest.objects,
        "objectBytes": manifest.object_bytes,
        "bytesRead": manifest.bytes_read,
        "bytesWritten": manifest.bytes_written,
        "volumes": len(manifest.volumes),
        "warnings": len(manifest.warnings),
    }


def point_document(manifest: Manifest) -> Document:
    """Return a recovery point as `point show` prints it: its manifest without the files that it names."""
    head: Document = {
        "recoveryPointId": manifest.id,
        "state": manifest.state,
        "started": manifest.started,
        "finished": manifest.finished,
        "revision": manifest.instant.revision,
        "instant": document(manifest.instant),
        "cluster": document(manifest.cluster),
        "selection": document(manifest.selection),
        "incremental": document(manifest.incremental),
        "objects": manifest.objects,
        "objectBytes": manifest.object_bytes,
        "bytesRead": manifest.bytes_read,
        "bytesWritten": manifest.bytes_written,
        "writer": manifest.writer,
        "sequence": manifest.sequence,
        "run": manifest.run,
        "rules": manifest.rules,
        "caller": dict(manifest.caller),
    }
    return head | {
        "volumes": document(manifest.volumes),
        "warnings": list(manifest.warnings),
        "coverage": coverage_document(manifest),
    }


def coverage_document(manifest: Manifest) -> Document:
    """Return what became of every served kind, group and namespace, and of what kept objects refer to."""
    return {
        "kinds": [document(kind, without=frozenset({"segments"})) for kind in manifest.kinds],
        "failedGroups": document(manifest.failed_groups),
        "excludedNamespaces": dict(manifest.excluded_namespaces),
        "references": document(manifest.references),
    }


def kind_name(group: str, kind: str) -> str:
    """Return a kind with its group as kubectl prints it: `Secret`, `Deployment.apps`."""
    return f"{kind}.{group}" if group else kind


def coverage_remark(kind: KindEntry) -> str:
    """Return in words why a kind is not simply there, "" if it is."""
    remarks = [kind.rule, kind.reason]
    if kind.needed_by_only:
        remarks.append("only what the selection needs")
    remarks += [f"{namespace}: {reason}" for namespace, reason in sorted(kind.failed_namespaces.items())]
    remarks += [f"{count} left out: {rule}" for rule, count in sorted(kind.skipped.items())]
    return "; ".join(remark for remark in remarks if remark)


def read_as_text(kind: KindEntry) -> str:
    """Return how a kind was read, as coverage tables say it."""
    return f"at revision {kind.revision}" if kind.read_as is ReadAs.AT_REVISION else kind.read_as.value


def object_document(row: ObjectRow) -> Document:
    """Return one object of a point as `point objects` prints it; digest and bytes are those of the body."""
    return {
        "group": row.group,
        "version": row.version,
        "kind": row.kind,
        "namespace": row.namespace,
        "name": row.name,
        "uid": row.uid,
        "resourceVersion": row.resource_version,
        "generation": row.generation,
        "labels": msgspec.json.decode(row.labels),
        "digest": row.body.digest.hex(),
        "bytes": row.body.bytes,
    }
