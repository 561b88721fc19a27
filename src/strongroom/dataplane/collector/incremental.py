"""Decides whether objects may be taken over from an earlier point instead of being read again. Pure.

An object with the uid and resourceVersion of the earlier point is the same object only while all of this holds; each
function names the first condition that does not (design: section 5, step 7).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from strongroom.dataplane.collector.kindread import Base, KindRead
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.model import KindEntry, Manifest, ReadAs

WHOLE_EVERY: Final = timedelta(days=7)
"""Everything is read whole at least this often: a bound on how long an unknown fault of taking over could live."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A CustomResourceDefinition as far as taking over needs it: `uid/resourceVersion`, and whether it converts by
    webhook (then what is served is not what is stored, and may change without a new resourceVersion)."""

    identity: str
    conversion_webhook: bool


Definitions = Mapping[tuple[str, str], Definition]
"""By (group, plural)."""


class _Conversion(msgspec.Struct):
    strategy: str = "None"


class _Names(msgspec.Struct):
    plural: str


class _Spec(msgspec.Struct):
    group: str
    names: _Names
    conversion: _Conversion = msgspec.field(default_factory=_Conversion)


class _Definition(msgspec.Struct):
    spec: _Spec


_decode_definition = msgspec.json.Decoder(_Definition).decode


def converts_by_webhook(definition: msgspec.Raw) -> bool:
    """Say whether a CustomResourceDefinition converts by webhook. Raises `msgspec.DecodeError`."""
    return _decode_definition(definition).spec.conversion.strategy == "Webhook"


def whole_because(earlier: Manifest, *, revision: str, server_version: str, rules: str, now: datetime) -> str:
    """Return why nothing at all may be taken over from *earlier* by a reading at *revision*, "" if something may."""
    if not earlier.cluster.version or earlier.cluster.version != server_version:
        return f"the API server was {earlier.cluster.version} and is {server_version}"
    if earlier.rules != rules:
        return "another version of Strongroom, which splits objects otherwise, wrote the earlier point"
    if int(revision) <= int(earlier.instant.revision):
        return f"the cluster's revision {revision} is not above the earlier point's {earlier.instant.revision}"
    config_maps = next((each for each in earlier.kinds if (each.group, each.kind) == ("", "ConfigMap")), None)
    if config_maps is None or not config_maps.etcd_shared:
        return "ConfigMaps, where the marker lies, did not share the core etcd at the earlier point"
    try:
        age = now - datetime.fromisoformat(earlier.incremental.whole_since)
    except ValueError:
        return "the earlier point does not say when everything was read last"
    if age >= WHOLE_EVERY:
        return f"everything was read last {age.days} days ago"
    return ""


def read_because(
    entry: KindEntry | None, kind: Kind, *, shared: bool, definitions: Definitions | None, revision: str
) -> str:
    """Return why the objects of *kind* must all be read although the earlier point may be built upon, "" if not.

    *definitions* is None where CustomResourceDefinitions may not be listed.
    """
    if entry is None or entry.read_as is not ReadAs.EXACT or entry.failed_namespaces:
        return "the earlier point does not have the whole kind"
    if entry.version != kind.version:
        return f"it was kept as {entry.version} and is now read as {kind.version}"
    if not (shared and entry.etcd_shared):
        return "it does not share the core etcd"
    return _definition_changed(kind, entry.crd, entry.conversion_webhook, definitions)


def base_of(
    kind: Kind,
    entry: KindEntry | None,
    stored: "Stored | None",
    *,
    shared: bool,
    definitions: Definitions | None,
    revision: str,
    bodies_needed: bool,
) -> Base | None:
    """Return what a kind's reading can build upon: what this run stored of it, then the earlier point's *entry*.

    *bodies_needed*: every object must be read whole, because what it refers to matters.
    """
    earlier = None
    if entry is not None and entry.segments:
        free = not read_because(entry, kind, shared=shared, definitions=definitions, revision=revision)
        earlier = Base(entry.segments, free and not bodies_needed)
    if stored is None or not stored.read.segments:
        return earlier
    segments = stored.read.segments
    free = (
        stored.read.exact
        and shared
        and stored.shared
        and int(revision) > int(stored.read.revision)
        and not _definition_changed(kind, stored.crd, stored.webhook, definitions)
        and not bodies_needed
    )
    if earlier is not None and earlier.take_over == free and not stored.read.complete:
        last = segments[-1].last.encode()
        segments += tuple(segment for segment in earlier.segments if segment.last.encode() > last)
    return Base(segments, free)


@dataclass(frozen=True)
class Stored:
    """What a run stored of one kind at an instant that expired before all kinds were read."""

    read: KindRead
    shared: bool
    crd: str
    webhook: bool


def crd_of(kind: Kind, definitions: Definitions | None) -> tuple[str, bool]:
    """Return a definition's `uid/resourceVersion` ("" for built-in kinds) and whether it converts by webhook."""
    found = (definitions or {}).get((kind.group, kind.plural))
    return (found.identity, found.conversion_webhook) if found is not None else ("", False)


def _definition_changed(kind: Kind, crd: str, webhook: bool, definitions: Definitions | None) -> str:
    if definitions is None and "." in kind.group:
        return "CustomResourceDefinitions cannot be read, so it may be a changed custom resource"
    identity, converts = crd_of(kind, definitions)
    if identity != crd:
        return "its CustomResourceDefinition changed"
    if converts or webhook:
        return "it is converted by a webhook"
    return ""
