"""Splits a served object into the parts that a repository keeps, and joins them again. Pure.

Body, status and managedFields become three blobs, so that status churn rewrites no body and a restore can give field
ownership back; `uid`, `resourceVersion` and `generation` become columns, because they change without the object's
meaning changing (design: section 5, step 6). Nothing else is touched: values keep the server's own bytes and key order.
"""

from functools import cache
from typing import Any

import msgspec

from strongroom.dataplane.repository.errors import MalformedObject
from strongroom.dataplane.repository.model import ObjectRow

RULES = "1"
"""Version of the rules of this module. A point is a base to take objects over from only under the same version."""

_RAW_DICT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODER = msgspec.json.Encoder()
_ENCODE = _ENCODER.encode
_TEXT = msgspec.json.Decoder(str).decode
_NUMBER = msgspec.json.Decoder(int | None).decode
_NO_TEXT = msgspec.Raw(b'""')
_NULL = msgspec.Raw(b"null")


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


@cache
def _opening(group: str, version: str, kind: str) -> dict[str, str]:
    return {"apiVersion": f"{group}/{version}" if group else version, "kind": kind}


def split(item: msgspec.Raw | bytes, group: str, version: str, kind: str) -> Parts:
    """Split one served object (JSON) of the given kind.

    Raises `MalformedObject` when it is not an object with `metadata.name`: bytes from a cluster are not trusted to be
    what the API promises.
    """
    try:
        fields = _RAW_DICT.decode(item)
        metadata = _RAW_DICT.decode(fields["metadata"])
        managed = metadata.pop("managedFields", None)
        # Their own few bytes are decoded, not metadata as a whole once more.
        name = _TEXT(metadata["name"])
        namespace = _TEXT(metadata.get("namespace", _NO_TEXT))
        uid = _TEXT(metadata.pop("uid", _NO_TEXT))
        resource_version = _TEXT(metadata.pop("resourceVersion", _NO_TEXT))
        generation = _NUMBER(metadata.pop("generation", _NULL))
        labels = bytes(metadata.get("labels", _NULL)).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
        raise MalformedObject(group, kind, str(error)) from error
    status = fields.pop("status", None)
    fields.pop("apiVersion", None)
    fields.pop("kind", None)
    # One encoding of all: a body is copied once, the values in it are the server's bytes.
    body = _ENCODE({**_opening(group, version, kind), **fields, "metadata": metadata})
    return Parts(
        namespace,
        name,
        uid,
        resource_version,
        generation,
        labels if labels != "null" else "{}",
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
