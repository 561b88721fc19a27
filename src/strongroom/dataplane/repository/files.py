"""Reads and writes the sealed files of a repository: the one place where keys, sealing and hashes meet."""

import asyncio
import hashlib

from strongroom.dataplane.objectstore.create import create_once
from strongroom.dataplane.objectstore.errors import ObjectNotFound
from strongroom.dataplane.objectstore.port import Key, ObjectStore
from strongroom.dataplane.repository.errors import Damaged
from strongroom.dataplane.repository.model import FileRef
from strongroom.dataplane.repository.sealing import Sealer

THREAD_BYTES = 256 * 1024  # sealing more than this blocks the event loop for over a millisecond: hand it to a thread

MISSING_HINT = "Put it back from a copy of the bucket, or use a recovery point that does not need it"


class Files:
    """The files of one repository."""

    def __init__(self, store: ObjectStore, sealer: Sealer) -> None:
        self.store = store
        self.sealer = sealer

    async def create(self, key: Key, file_id: str, data: bytes | memoryview) -> FileRef:
        """Seal and store *data* under *key*, once; return what a manifest names it by.

        May run twice with the same bytes only through the store's own repetition: a second call seals to other bytes.
        """
        stored = (
            await asyncio.to_thread(self.sealer.seal, key, data)
            if len(data) > THREAD_BYTES
            else self.sealer.seal(key, data)
        )
        await create_once(self.store, key, stored.data)
        return FileRef(id=file_id, sha256=stored.sha256, length=len(stored.data), salt=stored.salt)

    async def read(self, key: Key) -> bytes:
        """Return the data of a file whose hash nobody named (signed or sealed by itself). Raises `ObjectNotFound`."""
        return self.sealer.open(key, await self.store.get(key))

    async def read_named(self, key: Key, ref: FileRef) -> bytes:
        """Return the data of a whole file, checked against *ref* before anything parses it. Raises `Damaged`."""
        try:
            stored = await self.store.get(key)
        except ObjectNotFound as error:
            raise Damaged(f"{key} is missing", hint=MISSING_HINT) from error
        return check_stored(self.sealer, key, ref, stored)

    async def read_range(self, key: Key, ref: FileRef, start: int, end: int) -> tuple[int, bytes]:
        """Return data of the file around start..end and the offset it begins at; segments' tags are checked."""
        first, past = self.sealer.stored_range(start, end, ref.length)
        try:
            stored = await self.store.get_range(key, first, past - first)
        except ObjectNotFound as error:
            raise Damaged(f"{key} is missing", hint=MISSING_HINT) from error
        if len(stored) != past - first:
            raise Damaged(f"{key} is shorter than the {ref.length} bytes it should have", hint=MISSING_HINT)
        return self.sealer.open_range(key, ref.length, ref.salt, first, stored)


def check_stored(sealer: Sealer, key: str, ref: FileRef, stored: bytes) -> bytes:
    """Return the data of a file's stored bytes if they are the ones that *ref* names, else raise `Damaged`."""
    if len(stored) != ref.length:
        raise Damaged(f"{key} has {len(stored)} bytes and should have {ref.length}", hint=MISSING_HINT)
    if hashlib.sha256(stored).hexdigest() != ref.sha256:
        raise Damaged(f"the bytes of {key} are not those that its manifest names", hint=MISSING_HINT)
    return sealer.open(key, stored)
