"""Pages of a list: decoding one without touching its items, and choosing how many items the next one holds."""

from dataclasses import dataclass
from typing import Final

import msgspec

from strongroom.dataplane.kube.errors import KubeProtocolError

KIB: Final = 1024
MIB: Final = 1024 * KIB

PAGE_TARGET_BYTES: Final = 4 * MIB  # large enough that a page's fixed cost vanishes; not 8: docs/design/0009
PAGE_START_ITEMS: Final = (
    50  # the first page is asked for blindly: 50 objects of 1 MB are still below the 64 MiB budget
)
PAGE_MAX_ITEMS: Final = 10_000  # an API server reads at most this many from etcd at once (apiserver, etcd3 maxLimit)
PAGE_GROWTH: Final = 8  # a page of small objects may be followed by large ones: never trust one page's mean further


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to a list request.

    *items* are views into the answer: each keeps the whole answer (*size* bytes) alive, so `copy()` what outlives the
    page. Items of built-in kinds carry no `apiVersion` and `kind` of their own; those of custom resources do.
    *revision* is the list's resourceVersion, empty where an aggregated API gives none. *remaining* is the server's
    count of what follows, None where it gives none. *continue_token* is empty on the last page.
    """

    revision: str
    items: list[msgspec.Raw]
    remaining: int | None
    size: int
    continue_token: str


class AdaptiveLimit:
    """Chooses each page's limit from the page before: starts small, aims at *target_bytes* an answer.

    One instance belongs to one list. Call it with the last page, or with None before the first.
    """

    def __init__(self, *, start: int = PAGE_START_ITEMS, target_bytes: int = PAGE_TARGET_BYTES) -> None:
        self._limit = start
        self._target_bytes = target_bytes

    def __call__(self, last: Page | None) -> int:
        if last is not None and last.items:
            mean = max(1, last.size // len(last.items))
            wanted = self._target_bytes // mean
            self._limit = max(1, min(wanted, self._limit * PAGE_GROWTH, PAGE_MAX_ITEMS))
        return self._limit


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    # `continue` stands before the items in lists of built-in kinds and after them in those of custom resources.
    continue_: str = msgspec.field(default="", name="continue")
    remaining_item_count: int | None = None


class _List(msgspec.Struct, frozen=True):
    kind: str = ""
    metadata: _ListMeta = _ListMeta()
    items: list[msgspec.Raw] | None = None


_decode_list = msgspec.json.Decoder(_List).decode


def decode_page(body: bytes | bytearray, *, path: str) -> Page:
    """Return the page that *body* holds, its items undecoded.

    Raises `KubeProtocolError` where it is no JSON or no list (a Status or an object under status 200, for example).
    """
    try:
        answer = _decode_list(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KubeProtocolError(
            f"the answer to a list of {path} is no list: {error}", verb="list", path=path
        ) from error
    if not answer.kind.endswith("List"):
        kind = answer.kind or "something without a kind"
        raise KubeProtocolError(f"the answer to a list of {path} is {kind}, not a list", verb="list", path=path)
    meta = answer.metadata
    return Page(meta.resource_version, answer.items or [], meta.remaining_item_count, len(body), meta.continue_)
