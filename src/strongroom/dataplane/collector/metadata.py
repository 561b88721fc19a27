"""Lists the metadata of objects in the server's binary encoding, which costs it half of what JSON does.

Measured on 20,000 objects at an exact revision: 0.15 s of API-server CPU as protobuf, 0.27 s as JSON, 0.55 s for whole
objects. Only the fields that identify an object are decoded. A server that answers in JSON all the same is understood.
Field numbers: k8s.io/apimachinery, pkg/apis/meta/v1/generated.proto and pkg/runtime/generated.proto.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

import msgspec

from strongroom.dataplane.collector import rules
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeProtocolError
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.kube.pages import PAGE_GROWTH, PAGE_MAX_ITEMS, PAGE_TARGET_BYTES, Page, decode_page

ACCEPT: Final = ",".join(
    f"application/{encoding};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    for encoding in ("vnd.kubernetes.protobuf", "json")
)
FIRST_PAGE_ITEMS: Final = 500  # metadata can be large too (annotations, 256 KiB): the first page is asked for blindly
_MAGIC: Final = b"k8s\x00"
_NO_LABELS: Final = msgspec.Raw(b"{}")


class Meta(msgspec.Struct, gc=False, frozen=True, rename={"resource_version": "resourceVersion"}):
    """What identifies an object in a list. `labels` is their JSON text, undecoded."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: msgspec.Raw = _NO_LABELS

    @property
    def key(self) -> bytes:
        """Its place in the one order within a kind: the bytes of `namespace/name`, or of `name`."""
        return f"{self.namespace}/{self.name}".encode() if self.namespace else self.name.encode()


class _Item(msgspec.Struct, gc=False):
    metadata: Meta


_decode_item = msgspec.json.Decoder(_Item).decode


def name_of(item: msgspec.Raw) -> str:
    """Return the name of a listed object. Raises `msgspec.DecodeError` for what has none."""
    return _decode_item(item).metadata.name


@dataclass(frozen=True, slots=True)
class MetaPage:
    """One answer to a list of metadata; the fields are those of `kube.pages.Page`, with *metas* for items."""

    revision: str
    metas: list[Meta]
    remaining: int | None
    size: int
    continue_token: str


async def list_metadata(
    api: KubeApi,
    kind: Kind,
    *,
    namespace: str | None = None,
    revision: str | None = None,
    labels: str | None = None,
    first: int = FIRST_PAGE_ITEMS,
    with_labels: bool = True,
) -> AsyncGenerator[MetaPage, None]:
    """Yield the metadata of all objects of *kind*, page by page, as `KubeApi.list_pages` does and with its errors.

    *first* is the limit of the first page (0 for none); later ones aim at `PAGE_TARGET_BYTES` an answer. Without
    *with_labels* these are left out, unless an object of the page has the mark to exclude it (`rules.EXCLUDE_MARK`).
    """
    path = kind.path(namespace)
    selection = {"labelSelector": labels} if labels is not None else {}
    exact = {"resourceVersion": revision, "resourceVersionMatch": "Exact"} if revision is not None else {}
    limit, expected, token = first, revision, ""
    while True:
        place = {"continue": token} if token else exact
        size = {"limit": str(limit)} if limit else {}
        body = await api.get_path(path, {**selection, **place, **size}, accept=ACCEPT)
        page = decode_metadata(body, kind, path, labels=with_labels)
        del body
        if expected is not None and page.revision != expected:
            message = f"a list of {kind.resource} at revision {expected} was answered at {page.revision or 'none'}"
            raise KubeProtocolError(message, verb="list", path=path, resource=kind.resource)
        if token and page.continue_token == token:
            message = f"a list of {kind.resource} does not advance: the same continue token came twice"
            raise KubeProtocolError(message, verb="list", path=path, resource=kind.resource)
        expected, token = page.revision, page.continue_token
        if page.metas:
            mean = max(1, page.size // len(page.metas))
            limit = max(1, min(PAGE_TARGET_BYTES // mean, limit * PAGE_GROWTH, PAGE_MAX_ITEMS))
        yield page
        if not token:
            return
        del page


def decode_metadata(body: bytes, kind: Kind, path: str, *, labels: bool = True) -> MetaPage:
    """Decode one answer, binary or JSON. Raises `KubeProtocolError` for what is neither or no list of metadata.

    Without *labels* those may be left out, except where the page has a mark to exclude an object somewhere.
    """
    try:
        if body[:4] == _MAGIC:
            return _decode_binary(body, labels or rules.EXCLUDE_MARK.encode() in body)
        page: Page = decode_page(body, path=path)
        metas = [_decode_item(item.copy()).metadata for item in page.items]
        return MetaPage(page.revision, metas, page.remaining, page.size, page.continue_token)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError, ValueError) as error:
        raise KubeProtocolError(
            f"a list of {kind.resource} holds an object without metadata: {error}", verb="list", resource=kind.resource
        ) from error


def _decode_binary(body: bytes, labels: bool) -> MetaPage:
    at, end = _field(body, len(_MAGIC), len(body), 2)  # runtime.Unknown.raw
    revision, token, remaining = "", "", None
    metas: list[Meta] = []
    append = metas.append
    while at < end:
        tag = body[at]
        size = body[at + 1]
        at += 2
        if size > 127:
            size, at = _rest(body, at, size)
        following = at + size
        if tag == 0x12:  # items: PartialObjectMetadata
            if body[at] != 0x0A:
                raise ValueError("an object without metadata")
            size = body[at + 1]
            at += 2
            if size > 127:
                size, at = _rest(body, at, size)
            meta, at = _decode_head(body, at)
            if labels:
                meta = _with_labels(meta, body, at, following)
            append(meta)
        elif tag == 0x0A:  # metadata: ListMeta
            revision, token, remaining = _decode_list_meta(body, at, following)
        else:
            raise ValueError(f"unknown field {tag >> 3} in a list")
        at = following
    if at != end:
        raise ValueError("the list is cut off")
    return MetaPage(revision, metas, remaining, len(body), token)


def _decode_head(body: bytes, at: int) -> tuple[Meta, int]:
    """Decode the first six fields of ObjectMeta, all of them texts that the server always writes, in their order.

    Straight on, because it is done for every object of a cluster: 2 us instead of 10 for a loop over fields.
    """
    size = body[at + 1]
    if body[at] != 0x0A or size > 127:
        return _decode_head_slowly(body, at)
    start = at + 2
    at = start + size
    name = body[start:at].decode()
    size = body[at + 1]
    if body[at] != 0x12 or size > 127:  # generateName
        return _decode_head_slowly(body, start - 2)
    at += 2 + size
    size = body[at + 1]
    if body[at] != 0x1A or size > 127:
        return _decode_head_slowly(body, start - 2)
    namespace = body[at + 2 : at + 2 + size].decode()
    at += 2 + size
    if body[at] != 0x22 or body[at + 1]:  # selfLink
        return _decode_head_slowly(body, start - 2)
    size = body[at + 3]
    if body[at + 2] != 0x2A or size > 127:
        return _decode_head_slowly(body, start - 2)
    at += 4
    uid = body[at : at + size].decode()
    at += size
    size = body[at + 1]
    if body[at] != 0x32 or size > 127:
        return _decode_head_slowly(body, start - 2)
    at += 2
    return Meta(name, namespace, uid, body[at : at + size].decode()), at + size


def _decode_head_slowly(body: bytes, at: int) -> tuple[Meta, int]:
    """Decode the same fields where one is long or absent; returns where what follows them stands."""
    texts = {0x0A: "", 0x1A: "", 0x2A: "", 0x32: ""}
    while at < len(body) and body[at] <= 0x32:
        tag, size = body[at], body[at + 1]
        at += 2
        if size > 127:
            size, at = _rest(body, at, size)
        texts[tag] = str(body[at : at + size], "utf-8")
        at += size
    if not texts[0x0A]:
        raise ValueError("an object without a name")
    return Meta(texts[0x0A], texts[0x1A], texts[0x2A], texts[0x32]), at


def _with_labels(meta: Meta, body: bytes, at: int, end: int) -> Meta:
    """Decode the labels, which stand behind the fields 7 to 10 of ObjectMeta."""
    labels: dict[str, str] = {}
    while at < end and body[at] <= 0x5A:
        tag, size = body[at], body[at + 1]
        at += 2
        if size > 127:
            size, at = _rest(body, at, size)
        if tag in (0x38, 0x50):  # generation, deletionGracePeriodSeconds: numbers, no sizes
            continue
        if tag == 0x5A:
            key, value = _decode_entry(body, at, at + size)
            labels[key] = value
        at += size
    return msgspec.structs.replace(meta, labels=msgspec.Raw(msgspec.json.encode(labels))) if labels else meta


def _decode_entry(body: bytes, at: int, end: int) -> tuple[str, str]:
    texts = {0x0A: "", 0x12: ""}
    while at < end:
        tag, size = body[at], body[at + 1]
        at += 2
        if size > 127:
            size, at = _rest(body, at, size)
        texts[tag] = str(body[at : at + size], "utf-8")
        at += size
    return texts[0x0A], texts[0x12]


def _decode_list_meta(body: bytes, at: int, end: int) -> tuple[str, str, int | None]:
    revision, token, remaining = "", "", None
    while at < end:
        tag, size = body[at], body[at + 1]
        at += 2
        if size > 127:
            size, at = _rest(body, at, size)
        if tag == 0x20:  # remainingItemCount, a number
            remaining = size
            continue
        if tag == 0x12:
            revision = str(body[at : at + size], "ascii")
        elif tag == 0x1A:
            token = str(body[at : at + size], "ascii")
        at += size
    return revision, token, remaining


def _field(body: bytes, at: int, end: int, number: int) -> tuple[int, int]:
    """Return where the length-delimited field *number* of a message stands."""
    while at < end:
        tag, size = body[at], body[at + 1]
        at += 2
        if size > 127:
            size, at = _rest(body, at, size)
        if tag == number << 3 | 2:
            return at, at + size
        at += size
    raise ValueError(f"a message without field {number}")


def _rest(body: bytes, at: int, low: int) -> tuple[int, int]:
    """Return the number whose lowest seven bits are in *low*, and where it ends."""
    value, shift = low & 127, 7
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
