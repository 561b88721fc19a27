"""Splits a served object into the parts that a repository keeps, and joins them again. Pure.

Body, status and managedFields become three blobs, so that status churn rewrites no body and a restore can give field
ownership back; `uid`, `resourceVersion` and `generation` become columns, because they change without the object's
meaning changing (design: section 5, step 6). Nothing else is touched: values keep the server's own bytes and key order.
"""

from typing import Any

import msgspec

from strongroom.dataplane.repository.errors import MalformedObject
from strongroom.dataplane.repository.model import ObjectRow

RULES = "1"
"""Version of the rules of this module. A point is a base to take objects over from only under the same version."""

_RAW_DICT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODER = msgspec.json.Encoder()
_ENCODE = _ENCODER.encode


class _Head(msgspec.Struct, rename={"resource_version": "resourceVersion"}):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int | None = None


_HEAD = msgspec.json.Decoder(_Head)


class Parts(msgspec.Struct, gc=False):
    """One object as it goes into a repository.

    `labels` is the JSON text of metadata.labels. `metadata` holds the raw values of metadata that stay in the body;
    they are views of the list page they came in, so they must not outlive it. The blobs are copies.
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int | None
    labels: str
    metadata: dict[str, msgspec.Raw]
    body: bytes
    status: bytes | None
    managed_fields: bytes | None


def split(item: msgspec.Raw | bytes, group: str, version: str, kind: str) -> Parts:
    """Split one served object (JSON) of the given kind.

    Raises `MalformedObject` when it is not an object with `metadata.name`: bytes from a cluster are not trusted to be
    what the API promises.
    """
    try:
        fields = _RAW_DICT.decode(item)
        metadata_raw = fields["metadata"]
        head = _HEAD.decode(metadata_raw)
        metadata = _RAW_DICT.decode(metadata_raw)
    except (msgspec.DecodeError, KeyError) as error:
        raise MalformedObject(group, kind, str(error)) from error
    managed = metadata.pop("managedFields", None)
    metadata.pop("uid", None)
    metadata.pop("resourceVersion", None)
    metadata.pop("generation", None)
    status = fields.pop("status", None)
    labels = metadata.get("labels")
    fields.pop("apiVersion", None)
    fields.pop("kind", None)
    fields["metadata"] = msgspec.Raw(_ENCODE(metadata))
    rest = _ENCODE(fields)
    body = b'{"apiVersion":"%b","kind":"%b",%b' % (
        (f"{group}/{version}" if group else version).encode(),
        kind.encode(),
        rest[1:],
    )
    return Parts(
        head.namespace,
        head.name,
        head.uid,
        head.resource_version,
        head.generation,
        bytes(labels).decode() if labels is not None and bytes(labels) != b"null" else "{}",
        metadata,
        body,
        bytes(status) if status is not None else None,
        bytes(managed) if managed is not None else None,
    )


def join(row: ObjectRow, body: bytes, status: bytes | None, managed_fields: bytes | None) -> bytes:
    """Put an object together as it was served: uid, resourceVersion, generation, managedFields and status put back."""
    fields: dict[str, Any] = _RAW_DICT.decode(body)
    metadata: dict[str, Any] = dict(_RAW_DICT.decode(fields["metadata"]))
    if row.uid:
        metadata["uid"] = row.uid
    if row.resource_version:
        metadata["resourceVersion"] = row.resource_version
    if row.generation is not None:
        metadata["generation"] = row.generation
    if managed_fields is not None:
        metadata["managedFields"] = msgspec.Raw(managed_fields)
    fields["metadata"] = metadata
    if status is not None:
        fields["status"] = msgspec.Raw(status)
    return _ENCODE(fields)
