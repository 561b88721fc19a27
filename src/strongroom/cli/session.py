"""Opens the repository that a command works on, and closes it whatever happens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from strongroom.cli.options import RepositoryOptions
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.repository.info import read_info
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.repository import Repository


@asynccontextmanager
async def open_repository(options: RepositoryOptions) -> AsyncIterator[Repository]:
    """Open the repository that the options name, with the key file that they or the environment name.

    Raises what `open_store`, `KeyFile.find` and `Repository.open` raise.
    """
    store = await open_store(options.repository)
    try:
        info, _ = await read_info(store)
        yield await Repository.open(store, KeyFile.find(options.key_file, info.id))
    finally:
        await store.close()
