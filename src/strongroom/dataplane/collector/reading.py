"""Reads the objects of one kind page by page: one page ahead of the work, all kinds under one budget of bytes."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar

from strongroom.dataplane.collector.budget import PAGE_ESTIMATE_BYTES, ByteBudget
from strongroom.dataplane.kube.errors import KubeForbidden
from strongroom.dataplane.kube.kinds import Kind


class AnyPage(Protocol):
    """What a page of objects and one of metadata have in common."""

    @property
    def revision(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def continue_token(self) -> str: ...


P = TypeVar("P", bound=AnyPage)


class Pages(Generic[P]):
    """A stream of pages of one kind.

    *lister* lists one namespace, or the cluster for None; *namespaces* None is the cluster, else each is listed in the
    order given. `revision` says at which revision the first list was answered. With *skip_denied* a namespace that may
    not be read is noted in `denied`, with the reason, instead of raised.
    """

    def __init__(
        self,
        lister: Callable[[str | None], AsyncGenerator[P, None]],
        budget: ByteBudget,
        kind: Kind,
        *,
        namespaces: Sequence[str] | None = None,
        skip_denied: bool = False,
    ) -> None:
        self._lister = lister
        self._budget = budget
        self._kind = kind
        self._namespaces: Sequence[str | None] = (None,) if namespaces is None else namespaces
        self._skip_denied = skip_denied
        self.revision = ""
        self.denied: dict[str, str] = {}

    async def stream(self) -> AsyncGenerator[P, None]:
        """Yield pages; while the caller works on one, the next is fetched. A page counts until the next is asked for.

        Raises what the lister raises. Close it (`aclosing`) when leaving early.
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
            if left is not None and not isinstance(left, BaseException):
                held += left.size
            self._budget.give(held)
            await pages.aclose()

    async def _pages(self) -> AsyncGenerator[P, None]:
        for namespace in self._namespaces:
            try:
                async with aclosing(self._pages_of(namespace)) as pages:
                    async for page in pages:
                        yield page
            except KubeForbidden as error:
                if namespace is None or not self._skip_denied:
                    raise
                self.denied[namespace] = denial(error, self._kind)

    async def _pages_of(self, namespace: str | None) -> AsyncGenerator[P, None]:
        """Yield one list's pages, each counted in the budget; the receiver gives its bytes back."""
        async with aclosing(self._lister(namespace)) as pages:
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
    """Return the reason of a denied kind, naming the verb and the resource that a role has to grant.

    All that is read is read by lists, single objects too (design: section 8, least privilege).
    """
    return f"not allowed to list {kind.resource}: {error.detail or error.message}"
