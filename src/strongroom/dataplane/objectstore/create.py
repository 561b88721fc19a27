"""Conditional create as the repository needs it: repeatable after a lost reply, and refused where it is not real."""

import asyncio
import random
import secrets

from strongroom.dataplane.objectstore.errors import ObjectExists, ObjectNotFound, StoreUnavailable, StoreUnsafe
from strongroom.dataplane.objectstore.port import Key, ObjectStore, parse_key

# Before the second and third attempt, ± half. Drivers have waited already where no connection came about.
_WAITS = (0.2, 2.0)  # seconds


async def create_once(store: ObjectStore, key: Key, data: bytes | memoryview) -> None:
    """Create the object; if the key is taken, succeed if and only if the stored bytes are *data*.

    That makes the create repeatable: it is repeated here after `StoreUnavailable`, as the lost reply of a create that
    happened looks like that, and drivers do not repeat a create by themselves. Raises `ObjectExists` if others' bytes
    are there, and what `ObjectStore.put` and `get` raise.
    """
    for wait in (*_WAITS, None):
        try:
            await _create(store, key, data)
        except StoreUnavailable:
            if wait is None:
                raise
            await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
        else:
            return


async def _create(store: ObjectStore, key: Key, data: bytes | memoryview) -> None:
    try:
        await store.put(key, data)
    except ObjectExists:
        if not await _holds(store, key, data):
            raise


async def _holds(store: ObjectStore, key: Key, data: bytes | memoryview) -> bool:
    try:
        # The size first: a foreign object may be large, and then need not be read.
        return (await store.head(key)).size == len(data) and await store.get(key) == data
    except ObjectNotFound:
        return False  # deleted since: whosever it was, ours is not there


async def probe_conditional_create(store: ObjectStore) -> None:
    """Create one probe key twice, remove it, and raise `StoreUnsafe` if the store let the second replace the first.

    Some stores that speak S3 ignore `If-None-Match` and answer success. Left behind by a crash: one small object
    under `probe/`, which nothing reads.
    """
    key = parse_key(f"probe/{secrets.token_hex(16)}")
    await store.put(key, b"first")
    try:
        try:
            await store.put(key, b"second")
        except ObjectExists:
            # A store may refuse and yet have replaced, or show old bytes: what counts is what is read back.
            kept = await store.get(key) == b"first"
        else:
            kept = False
    finally:
        await store.delete([key])
    if not kept:
        raise StoreUnsafe(
            f"{store.url} ignores conditional creates: two writers could silently overwrite each other",
            hint="Use a store that honours If-None-Match: * on writes, or a folder (file:///…)",
            store=store.url,
            key=key,
        )
