"""Compares an object of the recovery point with the one that the target has, and makes the patch between them. Pure.

Three sides: the *source* as it was saved, the *wanted* object (the source after the rules), and the *live* one.

- A field that is wanted is compared with the live one.
- A field that the rules dropped from the source (a clusterIP, a nodePort, a nodeName) is the target's own: it stays.
- A field that only the live object has is set to null. Where it is a default, the server fills it again; the caller
  finds that out with a dry run (`after_dry_run`) and drops it from the difference. The system's part of metadata and
  what controllers write there is never compared.

The patch is a JSON merge patch: one form for built-in kinds and custom resources alike (strategic merge does not exist
for the latter). Its lists are whole lists, which is why list items are matched and completed here.
"""

from collections.abc import Iterator
from typing import Any

from strongroom.dataplane.restore.model import FieldChange

_IGNORED_METADATA = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
    "generateName",
    # Rewritten by their own rule on a create; an existing object keeps its owners and whom it has to wait for.
    "ownerReferences",
    "finalizers",
    "name",
    "namespace",
)
_CONTROLLERS_ANNOTATIONS = (
    "deployment.kubernetes.io/",
    "pv.kubernetes.io/",
    "volume.kubernetes.io/",
    "volume.beta.kubernetes.io/storage-provisioner",
    "kubernetes.io/service-account.uid",
    "endpoints.kubernetes.io/",
    "control-plane.alpha.kubernetes.io/",
    "deprecated.daemonset.template.generation",
    "batch.kubernetes.io/job-tracking",
)
"""Prefixes of annotations by which controllers keep their own books."""
_CONTROLLERS_LABELS = ("kubernetes.io/metadata.name", "controller-uid", "batch.kubernetes.io/controller-uid")

_MERGE_KEYS = (
    ("name",),
    ("port", "protocol"),
    ("containerPort", "protocol"),
    ("mountPath",),
    ("key",),
    ("type",),
    ("uid",),
)
"""By which fields the items of a list are told apart: the first that is unique in both lists.

They are the patchMergeKeys of k8s.io/api/core/v1.
"""

ABSENT: Any = object()


def comparable(obj: dict[str, Any]) -> dict[str, Any]:
    """Return *obj* without what is never compared: status, the server's metadata, the controllers' annotations."""
    kept = {name: value for name, value in obj.items() if name not in ("status", "apiVersion", "kind", "metadata")}
    metadata = {name: value for name, value in (obj.get("metadata") or {}).items() if name not in _IGNORED_METADATA}
    for part, theirs in (("annotations", _CONTROLLERS_ANNOTATIONS), ("labels", _CONTROLLERS_LABELS)):
        if metadata.get(part):
            metadata[part] = {name: value for name, value in metadata[part].items() if not name.startswith(theirs)}
        if not metadata.get(part):
            metadata.pop(part, None)
    if metadata:
        kept["metadata"] = metadata
    return kept


def merged(source: Any, wanted: Any, live: Any, *, take_away: bool = True) -> Any:
    """Return what the live value should become. Without *take_away* nothing that only the target has is removed."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        source = source if isinstance(source, dict) else {}
        result: dict[str, Any] = {}
        for name in [*live, *(name for name in wanted if name not in live)]:
            if name in wanted:
                if name in live:
                    result[name] = merged(source.get(name), wanted[name], live[name], take_away=take_away)
                elif not _empty(wanted[name]):
                    result[name] = wanted[name]
            elif name in source or not take_away or _empty(live[name]):
                result[name] = live[name]
        return result
    if isinstance(wanted, list) and isinstance(live, list):
        return _merged_lists(source if isinstance(source, list) else [], wanted, live, take_away=take_away)
    return wanted


def _merged_lists(source: list[Any], wanted: list[Any], live: list[Any], *, take_away: bool) -> list[Any]:
    keys = _merge_key(wanted, live)
    if keys is None:
        if not take_away:
            return [*live, *(item for item in wanted if item not in live)]
        if len(wanted) == len(live) and all(isinstance(item, dict) for item in [*wanted, *live]):
            sources = source if len(source) == len(wanted) else [None] * len(wanted)
            return [merged(s, w, v) for s, w, v in zip(sources, wanted, live, strict=True)]
        return wanted
    there = {_identity(item, keys): item for item in live}
    was = {_identity(item, keys): item for item in source if isinstance(item, dict)}
    result = []
    for item in wanted:
        identity = _identity(item, keys)
        if identity in there:
            result.append(merged(was.get(identity), item, there[identity], take_away=take_away))
        else:
            result.append(item)
    asked = {_identity(item, keys) for item in wanted}
    # Items that the rules dropped from the source (token volumes) and that the target has of its own stay.
    result.extend(
        item for identity, item in there.items() if identity not in asked and (identity in was or not take_away)
    )
    return result


def _merge_key(wanted: list[Any], live: list[Any]) -> tuple[str, ...] | None:
    if not wanted or not live or not all(isinstance(item, dict) for item in [*wanted, *live]):
        return None
    for keys in _MERGE_KEYS:
        if all(keys[0] in item for item in [*wanted, *live]) and all(
            len({_identity(item, keys) for item in items}) == len(items) for items in (wanted, live)
        ):
            return keys
    return None


def _identity(item: dict[str, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(repr(item.get(key, "TCP" if key == "protocol" else None)) for key in keys)


def _empty(value: Any) -> bool:
    """Say whether the server treats *value* like an absent field: it may serve either."""
    return value is None or value == {} or value == [] or value == ""


def changes(live: Any, target: Any, *, path: str = "") -> Iterator[FieldChange]:
    """Yield the fields in which *target* differs from *live*, as paths like `spec.ports[0].port`."""
    if isinstance(live, dict) and isinstance(target, dict):
        for name in [*live, *(name for name in target if name not in live)]:
            before, after = live.get(name, ABSENT), target.get(name, ABSENT)
            step = f"[{name!r}]" if "." in name or "/" in name else f".{name}" if path else name
            yield from changes(before, after, path=path + step)
        return
    if isinstance(live, list) and isinstance(target, list) and len(live) == len(target):
        for index, (before, after) in enumerate(zip(live, target, strict=True)):
            yield from changes(before, after, path=f"{path}[{index}]")
        return
    before = None if live is ABSENT else live
    after = None if target is ABSENT else target
    if before != after and not (_empty(before) and _empty(after)):
        yield FieldChange(path=path, before=before, after=after)


def merge_patch(live: Any, target: Any) -> Any:
    """Return the JSON merge patch (RFC 7386) that makes *target* of *live*; {} when they are equal."""
    patch: dict[str, Any] = {}
    for name, value in live.items():
        if name not in target:
            patch[name] = None
        elif isinstance(value, dict) and isinstance(target[name], dict):
            inner = merge_patch(value, target[name])
            if inner:
                patch[name] = inner
        elif value != target[name]:
            patch[name] = target[name]
    for name, value in target.items():
        if name not in live:
            patch[name] = value
    return patch


def compare(
    source: dict[str, Any], wanted: dict[str, Any], live: dict[str, Any], *, take_away: bool = True
) -> tuple[tuple[FieldChange, ...], dict[str, Any]]:
    """Return the differences and the merge patch that removes them; both are empty when there is nothing to do."""
    there = comparable(live)
    target = merged(comparable(source), comparable(wanted), there, take_away=take_away)
    found = tuple(changes(there, target))
    return (found, merge_patch(there, target)) if found else ((), {})


def after_dry_run(
    found: tuple[FieldChange, ...], live: dict[str, Any], answer: dict[str, Any]
) -> tuple[FieldChange, ...]:
    """Return the changes of *found* that a dry run of the patch really makes.

    *answer* is the server's object after the dry run: a field that it shows as before is a default that came back.
    """
    real = {change.path for change in changes(comparable(live), comparable(answer))}
    return tuple(
        change
        for change in found
        if any(path == change.path or path.startswith((change.path + ".", change.path + "[")) for path in real)
    )


def hide_values(found: tuple[FieldChange, ...]) -> tuple[FieldChange, ...]:
    """Return the changes of a Secret without the values under data and stringData."""
    return tuple(
        FieldChange(path=change.path, hidden=True)
        if change.path.startswith(("data", "stringData", "metadata.annotations"))
        else change
        for change in found
    )
