"""Fills a test cluster with what the benchmarks back up, and changes a part of it between two backups."""

import asyncio
import random
from collections.abc import Sequence

import aiohttp
import content
import plain_client
from content import Made

AT_ONCE = 32  # creates in flight: the best of 8, 16, 32, 64 on two cores, within a few per cent
CHANGE = b'{"metadata":{"annotations":{"example.com/checksum":"%032x"}}}'
_POLL_SECONDS = 0.3  # between two looks at a cluster whose controllers may still work
# The kinds that controllers make out of ours.
_FOLLOWING = (
    "/apis/apps/v1/replicasets",
    "/apis/apps/v1/deployments",
    "/apis/discovery.k8s.io/v1/endpointslices",
    "/api/v1/endpoints",
    "/api/v1/serviceaccounts",
    "/api/v1/configmaps",
)
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


async def populate(session: aiohttp.ClientSession, namespaces: int) -> list[Made]:
    """Create the definition, the namespaces and 500 objects in each; return these when the controllers are done."""
    await plain_client.create(session, content.definition())
    await served(session)
    names = [content.namespace_name(number) for number in range(namespaces)]
    await plain_client.create_all(session, [content.namespace(name) for name in names], at_once=AT_ONCE)
    made = [each for number, name in enumerate(names) for each in content.namespace_objects(number, name)]
    await plain_client.create_all(session, made, at_once=AT_ONCE)
    await settled(session)
    return made


async def served(session: aiohttp.ClientSession) -> None:
    """Wait until Widgets are served."""
    while True:
        async with session.get(f"/apis/{content.GROUP}/v1/widgets", params={"limit": "1"}) as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(_POLL_SECONDS)


async def settled(session: aiohttp.ClientSession) -> None:
    """Wait until controllers change nothing more: two looks at what they make show the same."""
    before: list[bytes] = []
    while True:
        now = [await _state(session, path) for path in _FOLLOWING]
        if now == before:
            return
        before = now
        await asyncio.sleep(_POLL_SECONDS)


async def _state(session: aiohttp.ClientSession, path: str) -> bytes:
    async with session.get(path, headers={"Accept": _METADATA}) as answer:
        body = await answer.read()
    return body[body.index(b'"items"') :]  # without the revision of the list, which leases move


async def change(session: aiohttp.ClientSession, objects: Sequence[Made], seed: int) -> None:
    """Change one annotation of each of *objects*."""
    draw = random.Random(seed)
    waiting = iter([(made, CHANGE % draw.getrandbits(128)) for made in objects])
    headers = {"Content-Type": "application/merge-patch+json"}

    async def work() -> None:
        for made, body in waiting:
            async with session.patch(f"{made.path}/{made.name}", data=body, headers=headers) as answer:
                said = await answer.read()
                if answer.status != 200:
                    raise plain_client.Refused(f"PATCH {made.path}/{made.name}: {answer.status} {said[:300]!r}")

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())


def one_place(objects: Sequence[Made], count: int) -> list[Made]:
    """Choose *count* objects of one kind in one namespace, none of the large ones (the first is)."""
    first = [made for made in objects if made.kind == "ConfigMap" and made.namespace == content.namespace_name(1)]
    return first[1 : count + 1]


def spread(objects: Sequence[Made], count: int, seed: int) -> list[Made]:
    """Choose *count* objects at random over all kinds and namespaces."""
    return random.Random(seed).sample(list(objects), count)
