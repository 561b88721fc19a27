"""An object on its way into the target: only the fields that a rule touches are ever decoded. Pure.

A generic object costs one decode of two levels; its spec stays the bytes that the source's server wrote.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from strongroom.dataplane.restore.model import PlannedObject, RestoreRequest

_RAW_DICT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY = msgspec.json.Decoder()
_ENCODE = msgspec.json.Encoder().encode


class Draft:
    """One object, decoded lazily: `top` and `metadata` map a field to its raw JSON, or to a value once a rule asked."""

    __slots__ = ("kind", "metadata", "name", "namespace", "notes", "top")

    def __init__(self, body: bytes, kind: str, namespace: str, name: str) -> None:
        """Open *body*; *namespace* and *name* are those in the target."""
        self.top: dict[str, Any] = dict(_RAW_DICT.decode(body))
        self.metadata: dict[str, Any] = dict(_RAW_DICT.decode(self.top["metadata"]))
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.notes: list[str] = []

    def get(self, name: str) -> Any:
        """Return the decoded top-level field *name*, to be changed in place; None when absent."""
        return _opened(self.top, name)

    def meta(self, name: str) -> Any:
        """Return the decoded field *name* of metadata, to be changed in place; None when absent."""
        return _opened(self.metadata, name)

    def mentions(self, name: str, text: bytes) -> bool:
        """Say whether the top-level field *name* may contain *text*: cheap, and True where it is decoded already."""
        value = self.top.get(name)
        return value is not None and (not isinstance(value, msgspec.Raw) or text in bytes(value))

    def spec(self) -> dict[str, Any]:
        """Return the spec, to be changed in place (an empty one where there is none)."""
        spec = self.get("spec")
        if not isinstance(spec, dict):
            spec = {}
            self.top["spec"] = spec
        return spec

    def drop_annotations(self, *names: str) -> None:
        """Remove annotations; costs nothing where the object has none of them."""
        self._drop_pairs("annotations", names)

    def drop_labels(self, *names: str) -> None:
        """Remove labels; costs nothing where the object has none of them."""
        self._drop_pairs("labels", names)

    def _drop_pairs(self, part: str, names: tuple[str, ...]) -> None:
        raw = self.metadata.get(part)
        if raw is None:
            return
        # Looking for the bytes first spares most objects the decoding of a large last-applied annotation.
        if isinstance(raw, msgspec.Raw):
            text = bytes(raw)
            if not any(name.encode() in text for name in names):
                return
        pairs = self.meta(part)
        if not isinstance(pairs, dict):
            return
        for name in names:
            pairs.pop(name, None)
        if not pairs:
            del self.metadata[part]

    def encode(self) -> bytes:
        """Return the object as JSON, its fields in the order in which they came."""
        self.top["metadata"] = msgspec.Raw(_ENCODE(self.metadata))
        return _ENCODE(self.top)

    def value(self) -> dict[str, Any]:
        """Return the object as plain values, for comparing."""
        decoded = _ANY.decode(self.encode())
        assert isinstance(decoded, dict)
        return decoded


def _opened(fields: dict[str, Any], name: str) -> Any:
    value = fields.get(name)
    if isinstance(value, msgspec.Raw):
        value = _ANY.decode(value)
        fields[name] = value
    return value


@dataclass(frozen=True, slots=True)
class Rule:
    """What the rules need to know beside the object itself."""

    request: RestoreRequest
    planned: PlannedObject
    managed_fields: bytes | None = None
    new_uids: dict[str, str] = field(default_factory=dict)
    """Source uid to target uid, of everything restored so far."""
    import_name: str = ""
    """Name of the VolumeSnapshot from which a claim is filled; "" where it is provisioned empty."""

    def namespace(self, source: str) -> str:
        """Return the namespace in the target of something that stood in *source*."""
        return self.request.target_namespace(source)
