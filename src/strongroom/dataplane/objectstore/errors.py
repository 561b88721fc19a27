"""What can go wrong with an object store, grouped by what the caller should do about it.

Drivers translate foreign errors into these at their edge and chain them; no vendor's error crosses the port.
Messages name the store by a URL without credentials.
"""

from strongroom.errors import ExitCode, StrongroomError


class ObjectStoreError(StrongroomError):
    """The root of the tree. *store* is the store's URL without credentials, *key* the object meant, or both empty."""

    def __init__(self, message: str, *, hint: str = "", store: str = "", key: str = "") -> None:
        super().__init__(message, hint=hint)
        self.store = store
        self.key = key


class ObjectExists(ObjectStoreError):
    """The key is taken: a conditional create did not happen, or its lost first attempt did.

    A driver may repeat a create whose reply was lost and then meet its own object. So this error is success if
    and only if the stored bytes are the caller's: `create_once` decides that.
    """


class ObjectNotFound(ObjectStoreError):
    """No object has that key."""


class StoreUnavailable(ObjectStoreError):
    """The store did not answer, or answered with a failure of its own; the same call may succeed later."""

    exit_code = ExitCode.UNREACHABLE


class StoreDenied(ObjectStoreError):
    """Credentials are missing, wrong or not sufficient; the same call fails until somebody changes them."""

    exit_code = ExitCode.UNREACHABLE


class StoreFull(ObjectStoreError):
    """The disk or its quota is full; nothing of the refused object is left behind."""


class StoreMisused(ObjectStoreError):
    """The caller asked for what no store can do: a malformed URL or key, a negative range."""

    exit_code = ExitCode.USAGE


class StoreMissing(StoreMisused):
    """The URL names a folder, container or bucket that does not exist."""


class StoreUnsafe(ObjectStoreError):
    """The store replaces an object that a conditional create must not touch; a repository cannot live there."""
