"""Compares the application before and after: object by object, volume file by file, through kubectl and the disk.

It shares no code with backup and restore: what they lose together would not be seen otherwise.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom.cli.demo.application import CLUSTER_KINDS, MARK, NAMESPACES, volume_folders
from strongroom.testbed.cluster import Testbed

Json = dict[str, Any]
ObjectKey = tuple[str, str, str]
"""Kind with its API group, namespace, name."""

# Kinds that controllers keep for others: their objects come and go with what they describe.
_DERIVED = ("events", "endpoints", "endpointslices", "leases", "controllerrevisions")


@dataclass(frozen=True)
class State:
    """The application at one moment: its objects, and for each volume the files in it with what they are."""

    objects: dict[ObjectKey, Json]
    volumes: dict[str, dict[str, str]]


def read_state(testbed: Testbed) -> State:
    """Return the application's objects, those of its controllers left out, and its volumes' files."""
    found: dict[ObjectKey, Json] = {}
    for item in _get(testbed, _kinds(testbed), "--all-namespaces"):
        if item["metadata"].get("namespace") in NAMESPACES and not _made_by_the_cluster(item):
            found[_key(item)] = item
    for item in _get(testbed, ",".join((*CLUSTER_KINDS, "namespaces")), "-l", MARK):
        found[_key(item)] = item
    return State(found, {claim: read_files(folder) for claim, folder in volume_folders(testbed).items()})


def _kinds(testbed: Testbed) -> str:
    listed = testbed.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    return ",".join(name for name in listed if name.partition(".")[0] not in _DERIVED)


def read_files(folder: Path) -> dict[str, str]:
    """Return every path below *folder* with its type, mode and content (a hash)."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_dir():
            found[name] = f"folder, mode {path.stat().st_mode & 0o777:o}"
        else:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            found[name] = f"file, mode {path.stat().st_mode & 0o777:o}, {len(content)} bytes, sha256 {digest}"
    return found


def differences(before: State, after: State) -> list[str]:
    """Return in words everything that is not as it was, [] when nothing is."""
    return [*_object_differences(before, after), *_volume_differences(before, after)]


def _object_differences(before: State, after: State) -> Iterator[str]:
    old_names, new_names = _names_by_uid(before), _names_by_uid(after)
    for key in sorted(before.objects.keys() | after.objects.keys()):
        name = " ".join(part for part in key if part)
        if key not in after.objects:
            yield f"{name}: missing"
        elif key not in before.objects:
            yield f"{name}: was not there"
        else:
            old, new = before.objects[key], after.objects[key]
            for path, was, now in _fields(_comparable(old, old_names), _comparable(new, new_names)):
                yield f"{name}: {path}: was {was!r}, is {now!r}"


def _volume_differences(before: State, after: State) -> Iterator[str]:
    for claim in sorted(before.volumes.keys() | after.volumes.keys()):
        was, now = before.volumes.get(claim, {}), after.volumes.get(claim, {})
        for path in sorted(was.keys() | now.keys()):
            if was.get(path) != now.get(path):
                yield f"volume of {claim}: {path}: was {was.get(path)}, is {now.get(path)}"


def _get(testbed: Testbed, *arguments: str) -> list[Json]:
    answer = json.loads(testbed.kubectl("get", *arguments, "-o", "json", "--show-managed-fields"))
    items: list[Json] = answer["items"] if answer["kind"] == "List" else [answer]
    return items


def _key(item: Json) -> ObjectKey:
    group = item["apiVersion"].rpartition("/")[0]
    kind = f"{item['kind']}.{group}" if group else item["kind"]
    return kind, item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _made_by_the_cluster(item: Json) -> bool:
    """Tell whether controllers make this object anew by themselves: it need not be the same one after a restore."""
    owners = item["metadata"].get("ownerReferences", [])
    name, kind = item["metadata"]["name"], item["kind"]
    return any(owner.get("controller") for owner in owners) or (kind, name) == ("ConfigMap", "kube-root-ca.crt")


def _names_by_uid(state: State) -> dict[str, str]:
    return {item["metadata"]["uid"]: " ".join(key) for key, item in state.objects.items()}


def _comparable(item: Json, names: dict[str, str]) -> Json:
    """Return what must be the same: all but identity and history, which the server gives, and controllers' status.

    Owners are compared by the object that their uid means, so a reference to a uid of before the disaster differs. Who
    applies an object (server-side) must still own the same fields.
    """
    copy: Json = json.loads(json.dumps(item))
    metadata = {k: v for k, v in copy["metadata"].items() if k not in _OF_THE_SERVER}
    annotations = {k: v for k, v in metadata.get("annotations", {}).items() if k not in _OF_CONTROLLERS}
    if "annotations" in metadata:
        metadata["annotations"] = annotations
    for owner in metadata.get("ownerReferences", []):
        owner["uid"] = names.get(owner["uid"], f"unknown uid {owner['uid']}")
    managed = item["metadata"].get("managedFields", [])
    metadata["appliers"] = {each["manager"]: each["fieldsV1"] for each in managed if each["operation"] == "Apply"}
    kept = {k: v for k, v in copy.items() if k != "status" or copy["kind"] == "Order"}
    result = kept | {"metadata": metadata}
    special = _SPECIAL.get(item["kind"])
    return special(result) if special else result


_OF_THE_SERVER = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")
_OF_CONTROLLERS = (
    "deployment.kubernetes.io/revision",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
)


def _claim(item: Json) -> Json:
    # Another volume, made from a snapshot: its bytes are compared, its name cannot be.
    spec = {k: v for k, v in item["spec"].items() if k not in ("volumeName", "dataSource", "dataSourceRef")}
    return item | {"spec": spec}


def _service(item: Json) -> Json:
    # The cluster gives out addresses; that there is none (a headless Service) must stay.
    addresses = ("clusterIP", "clusterIPs")
    if item["spec"].get("clusterIP") == "None":
        return item
    return item | {"spec": {k: v for k, v in item["spec"].items() if k not in addresses}}


_SPECIAL: dict[str, Callable[[Json], Json]] = {"PersistentVolumeClaim": _claim, "Service": _service}


def _fields(was: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        for name in sorted(was.keys() | now.keys()):
            yield from _fields(was.get(name), now.get(name), f"{path}.{name}" if path else name)
    elif was != now:
        yield path, was, now
