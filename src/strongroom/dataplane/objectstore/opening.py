"""Opens the object store that a URL names."""

from collections.abc import Mapping

from strongroom.dataplane.objectstore.cloud import PATIENCE, Patience, open_cloud_store
from strongroom.dataplane.objectstore.errors import StoreMisused
from strongroom.dataplane.objectstore.filesystem import FilesystemStore
from strongroom.dataplane.objectstore.location import (
    FileLocation,
    MemoryLocation,
    parse_location,
)
from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.objectstore.port import ObjectStore


async def open_store(
    url: str,
    *,
    create: bool = False,
    patience: Patience = PATIENCE,
    credentials: Mapping[str, str] | None = None,
) -> ObjectStore:
    """Return the store at *url*, checked to be there and readable; the caller closes it.

    *patience* is for stores behind HTTP. With *create* a missing folder or memory store is made; containers and
    buckets never are. *credentials* (`GIVEN` in credentials.py names them) take the place of the environment's; None,
    and nothing else, means the environment. Azure's and S3's are read again from the same mapping within minutes, so
    that a caller may renew them in it while the store is open. Raises `StoreMisused` for a URL that cannot be or
    credentials that do not fit it, `StoreMissing`, `StoreDenied` also where credentials are missing,
    `StoreUnavailable`.
    """
    match parse_location(url):
        case FileLocation() | MemoryLocation() if credentials:
            raise StoreMisused(f"{url} takes no credentials, and {', '.join(sorted(credentials))} was given")
        case FileLocation(path):
            return FilesystemStore(path, create=create)
        case MemoryLocation(name):
            return MemoryStore(name, create=create)
        case location:
            return await open_cloud_store(location, patience, credentials)
