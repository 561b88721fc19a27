"""Lists of resources in pages, in the order of their ids."""

from collections.abc import Callable
from typing import Final

from strongroom.controlplane.arm.call import Call, Reply, listing
from strongroom.controlplane.arm.errors import Json
from strongroom.controlplane.arm.paging import page_size, read_token, skip_token
from strongroom.controlplane.state.resources import Resource

BATCH: Final = 500  # resources read at once while a list is filtered: at most some megabytes


def page_of(
    call: Call,
    fetch: Callable[[str, int], list[Resource]],
    show: Callable[[Resource], Json] = lambda resource: resource.doc,
) -> Reply:
    """Return one page of what *fetch* (after which id, how many) gives, and the link to the next."""
    size = page_size(call.query)
    token = read_token(call.query)
    found = fetch(str(token["after"]) if token else "", size + 1)
    link = call.next_link(**{"$skipToken": skip_token({"after": found[size - 1].id})}) if len(found) > size else None
    return listing([show(r) for r in found[:size]], link)


def filtered(
    fetch: Callable[[str, int], list[Resource]], keep: Callable[[Resource], bool]
) -> Callable[[str, int], list[Resource]]:
    """Return *fetch* without what *keep* drops: it reads on, a bounded number at a time, until a page is full."""

    def inner(after: str, limit: int) -> list[Resource]:
        found: list[Resource] = []
        while len(found) < limit:
            batch = fetch(after, BATCH)
            found += [resource for resource in batch if keep(resource)]
            if len(batch) < BATCH:
                break
            after = batch[-1].id
        return found[:limit]

    return inner
