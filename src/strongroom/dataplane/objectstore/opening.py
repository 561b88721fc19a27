"""Opens the object store that a URL names."""

from strongroom.dataplane.objectstore.cloud import PATIENCE, Patience, open_cloud_store
from strongroom.dataplane.objectstore.filesystem import FilesystemStore
from strongroom.dataplane.objectstore.location import (
    FileLocation,
    MemoryLocation,
    parse_location,
)
from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.objectstore.port import ObjectStore


async def open_store(url: str, *, create: bool = False, patience: Patience = PATIENCE) -> ObjectStore:
    """Return the store at *url*, checked to be there and readable; the caller closes it.

    *patience* is for stores behind HTTP. With *create* a missing folder or memory store is made; containers and
    buckets never are. Raises `StoreMisused` for a URL that cannot be, `StoreMissing`, `StoreDenied` also where
    credentials are missing, `StoreUnavailable`.
    """
    match parse_location(url):
        case FileLocation(path):
            return FilesystemStore(path, create=create)
        case MemoryLocation(name):
            return MemoryStore(name, create=create)
        case location:
            return await open_cloud_store(location, patience)
