"""Object stores: one port, and its drivers for folders, memory, Azure Blob Storage, S3 and Google Cloud Storage."""

from strongroom.dataplane.objectstore.cloud import Patience
from strongroom.dataplane.objectstore.create import create_once, probe_conditional_create
from strongroom.dataplane.objectstore.errors import (
    ObjectExists,
    ObjectNotFound,
    ObjectStoreError,
    StoreDenied,
    StoreFull,
    StoreMissing,
    StoreMisused,
    StoreUnavailable,
    StoreUnsafe,
)
from strongroom.dataplane.objectstore.location import Location, parse_location
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.objectstore.port import Key, ObjectInfo, ObjectStore, parse_key

__all__ = [
    "Key",
    "Location",
    "ObjectExists",
    "ObjectInfo",
    "ObjectNotFound",
    "ObjectStore",
    "ObjectStoreError",
    "Patience",
    "StoreDenied",
    "StoreFull",
    "StoreMissing",
    "StoreMisused",
    "StoreUnavailable",
    "StoreUnsafe",
    "create_once",
    "open_store",
    "parse_key",
    "parse_location",
    "probe_conditional_create",
]
