"""Reads the objects of one kind page by page: one page ahead of the work, all kinds under one budget of bytes."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import msgspec

from strongroom.dataplane.collector.budget import PAGE_ESTIMATE_BYTES, ByteBudget
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeForbidden, KubeProtocolError
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.kube.pages import AdaptiveLimit, Page

METADATA_PAGE_ITEMS: Final = 500  # first page of metadata: these cannot be large, a whole object can (1.5 MiB)


class Meta(msgspec.Struct, gc=False, frozen=True, rename={"resource_version": "resourceVersion"}):
    """What identifies an object in a list: decoded alone, the rest of its bytes is skipped. `labels` is undecoded."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def key(self) -> bytes:
        """Its place in the one order within a kind: the bytes of `namespace/name`, or of `name`."""
        return f"{self.namespace}/{self.name}".encode() if self.namespace else self.name.encode()


class _Item(msgspec.Struct, gc=False):
    metadata: Meta


_decode_item = msgspec.json.Decoder(_Item).decode


def metas(page: Page, kind: Kind) -> list[Meta]:
    """Decode the metadata of a page's items. Raises `KubeProtocolError` for what has none."""
    try:
        return [_decode_item(item).metadata for item in page.items]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KubeProtocolError(
            f"a list of {kind.resource} holds an object without metadata: {error}", verb="list", resource=kind.resource
        ) from error


class Pages:
    """A stream of pages of one kind.

    *namespaces* None lists the whole cluster, else each namespace in the order given. *revision* None reads the newest
    state, and `revision` then says which it was (of the first list; several namespaces have several).
    With *skip_denied* a namespace that may not be read is noted in `denied`, with the reason, instead of raised.
    """

    def __init__(
        self,
        api: KubeApi,
        budget: ByteBudget,
        kind: Kind,
        *,
        revision: str | None,
        namespaces: Sequence[str] | None = None,
        labels: str | None = None,
        metadata_only: bool = False,
        skip_denied: bool = False,
    ) -> None:
        self._api = api
        self._budget = budget
        self._kind = kind
        self._asked = revision
        self._namespaces: Sequence[str | None] = (None,) if namespaces is None else namespaces
        self._labels = labels
        self._metadata_only = metadata_only
        self._skip_denied = skip_denied
        self.revision = revision or ""
        self.denied: dict[str, str] = {}

    async def stream(self) -> AsyncGenerator[Page, None]:
        """Yield pages; while the caller works on one, the next is fetched. A page counts until the next is asked for.

        Raises what `KubeApi.list_pages` raises. Close it (`aclosing`) when leaving early.
        """
        pages = self._pages()
        coming = asyncio.ensure_future(anext(pages, None))
        held = 0
        try:
            while (page := await coming) is not None:
                coming = asyncio.ensure_future(anext(pages, None))
                held = page.size
                self.revision = self.revision or page.revision
                yield page
                del page
                self._budget.give(held)
                held = 0
        finally:
            coming.cancel()
            (left,) = await asyncio.gather(coming, return_exceptions=True)
            self._budget.give(held + (left.size if isinstance(left, Page) else 0))
            await pages.aclose()

    async def _pages(self) -> AsyncGenerator[Page, None]:
        for namespace in self._namespaces:
            try:
                async with aclosing(self._pages_of(namespace)) as pages:
                    async for page in pages:
                        yield page
            except KubeForbidden as error:
                if namespace is None or not self._skip_denied:
                    raise
                self.denied[namespace] = denial(error, self._kind)

    async def _pages_of(self, namespace: str | None) -> AsyncGenerator[Page, None]:
        """Yield one list's pages, each counted in the budget; the receiver gives its bytes back."""
        pages = self._api.list_pages(
            self._kind,
            namespace=namespace,
            revision=self._asked,
            limit=AdaptiveLimit(start=METADATA_PAGE_ITEMS) if self._metadata_only else None,
            labels=self._labels,
            metadata_only=self._metadata_only,
        )
        async with aclosing(pages):
            more = True
            while more:
                await self._budget.take(PAGE_ESTIMATE_BYTES)
                try:
                    page = await anext(pages)
                except BaseException:
                    self._budget.give(PAGE_ESTIMATE_BYTES)
                    raise
                self._budget.settle(PAGE_ESTIMATE_BYTES, page.size)
                more = bool(page.continue_token)
                yield page
                del page


def denial(error: KubeForbidden, kind: Kind) -> str:
    """Return the reason of a denied kind, naming the verb and the resource that a role has to grant."""
    return f"not allowed to {error.verb or 'list'} {error.resource or kind.resource}: {error.detail or error.message}"
