"""The barest client of an API server: what is done here is the floor that Strongroom is measured against.

It shares nothing with `strongroom.dataplane.kube`: lists are read from the socket and dropped, creates are posted and
their answers dropped. Only the continue token is looked for, in the first and the last bytes of a page.
"""

import asyncio
import base64
import json
import re
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from content import MANAGER, Made

EDGE_BYTES = 4096  # a list's metadata stands within so many bytes of its start or of its end
PAGE_START_ITEMS = 50  # the page limits of a backup: strongroom.dataplane.kube.pages
PAGE_TARGET_BYTES = 4 * 1024 * 1024
PAGE_MAX_ITEMS = 10_000
PAGE_GROWTH = 8
CREATED, CONFLICT = 201, 409

_CONTINUE = re.compile(rb'"continue":"([^"]+)"')
_REVISION = re.compile(rb'"resourceVersion":"(\d+)"')


class Refused(Exception):
    """The API server answered something else than asked for."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What a bare listing read: *size* in bytes."""

    size: int
    pages: int


@asynccontextmanager
async def connect(kubeconfig: Path, connections: int) -> AsyncIterator[aiohttp.ClientSession]:
    """Open connections to the API server that a testbed's *kubeconfig* (JSON, everything inline) names."""
    document = json.loads(kubeconfig.read_text())
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    with tempfile.NamedTemporaryFile() as pair:  # of mode 0600; OpenSSL reads a certificate from files only
        pair.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
        pair.flush()
        context.load_cert_chain(pair.name)
    connector = aiohttp.TCPConnector(limit=connections, ssl=context)
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(
        cluster["server"], connector=connector, headers=headers, read_bufsize=1024 * 1024
    ) as session:
        yield session


async def newest_revision(session: aiohttp.ClientSession) -> str:
    """Return the revision of the cluster now."""
    async with session.get("/api/v1/namespaces", params={"limit": "1"}) as answer:
        found = _REVISION.search(await answer.read())
    if found is None:
        raise Refused("a list without a resourceVersion")
    return found.group(1).decode()


async def list_and_drop(
    session: aiohttp.ClientSession, paths: Sequence[str], *, at_once: int, exact: bool = True
) -> Listed:
    """Read every object of the collections *paths* and drop it, *at_once* collections side by side.

    With *exact* all are read at one revision, taken first, as a backup does.
    """
    revision = await newest_revision(session) if exact else ""
    gate = asyncio.Semaphore(at_once)

    async def one(path: str) -> Listed:
        async with gate:
            return await _pages(session, path, revision)

    listed = await asyncio.gather(*(one(path) for path in paths))
    return Listed(sum(each.size for each in listed), sum(each.pages for each in listed))


async def _pages(session: aiohttp.ClientSession, path: str, revision: str) -> Listed:
    params = {"resourceVersion": revision, "resourceVersionMatch": "Exact"} if revision else {}
    limit, pages, total, token = PAGE_START_ITEMS, 0, 0, ""
    while True:
        query = {"limit": str(limit), **({"continue": token} if token else params)}
        async with session.get(path, params=query) as answer:
            if answer.status != 200:
                raise Refused(f"GET {path}: {answer.status} {(await answer.text())[:300]}")
            size, head, tail = 0, b"", b""
            async for chunk in answer.content.iter_any():
                if size < EDGE_BYTES:
                    head += chunk[:EDGE_BYTES]
                size += len(chunk)
                tail = chunk[-EDGE_BYTES:] if len(chunk) >= EDGE_BYTES else (tail + chunk)[-EDGE_BYTES:]
        pages += 1
        total += size
        found = _CONTINUE.search(head) or _CONTINUE.search(tail)
        if found is None:
            return Listed(total, pages)
        token = found.group(1).decode()
        limit = max(1, min(PAGE_TARGET_BYTES * limit // size, limit * PAGE_GROWTH, PAGE_MAX_ITEMS))


async def create_all(session: aiohttp.ClientSession, objects: Sequence[Made], *, at_once: int) -> None:
    """Create *objects*, *at_once* at a time; raises `Refused` at the first that is not created."""
    waiting = iter(objects)

    async def work() -> None:
        for made in waiting:
            await create(session, made)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())


async def create(session: aiohttp.ClientSession, made: Made) -> None:
    """Create one object. Raises `Refused`."""
    headers = {"Content-Type": "application/json"}
    async with session.post(made.path, params={"fieldManager": MANAGER}, data=made.body, headers=headers) as answer:
        said = await answer.read()
        if answer.status != CREATED:
            raise Refused(f"POST {made.path} {made.name}: {answer.status} {said[:300]!r}")
