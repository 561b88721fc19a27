"""Makes a repository from given secrets, so that whoever keeps them may stop at any moment and begin again.

The order is: the secrets are kept (the caller's), then the files below `keys/`, then `repository.json`. Repeated with
the same secrets, each step finds its own result; before the last there is no repository.
"""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import pyrage

from strongroom.dataplane.objectstore.create import create_once
from strongroom.dataplane.objectstore.errors import ObjectExists
from strongroom.dataplane.objectstore.port import ObjectStore
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import KeyFileInvalid, RepositoryExists
from strongroom.dataplane.repository.info import (
    AES_256_GCM,
    FORMAT_NAME,
    MAX_RUN_SECONDS,
    NO_ENCRYPTION,
    RepositoryInfo,
)
from strongroom.dataplane.repository.keyentries import add_writer, put_recipient
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.sealing import FORMAT_VERSION, KEY_BYTES
from strongroom.dataplane.repository.signing import public_bytes


@dataclass(frozen=True)
class NewRepository:
    """The secrets of a repository that is being made, and what its repository.json says.

    `repository_key` is the 32 bytes that everything is sealed with, b"" without encryption. `created` is ISO 8601 UTC:
    kept, so that a repetition writes the same bytes.
    """

    keys: KeyFile
    repository_key: bytes
    created: str
    max_run_seconds: int = MAX_RUN_SECONDS

    def __repr__(self) -> str:
        return f"NewRepository(repository_id={self.keys.repository_id!r}, …)"

    @staticmethod
    def generate(*, now: datetime, encryption: bool = True, max_run_seconds: int = MAX_RUN_SECONDS) -> "NewRepository":
        """Make new secrets and an id from the system's randomness. *now* is aware and in UTC."""
        return NewRepository(
            keys=KeyFile.generate(secrets.token_hex(16), encryption=encryption),
            repository_key=secrets.token_bytes(KEY_BYTES) if encryption else b"",
            created=now.isoformat(timespec="seconds"),
            max_run_seconds=max_run_seconds,
        )

    def encode(self) -> bytes:
        """Return the secrets as JSON: to be sealed before it is stored anywhere."""
        return msgspec.json.encode(
            _Kept(
                keys=msgspec.Raw(self.keys.encode()),
                repository_key=base64.b64encode(self.repository_key).decode(),
                created=self.created,
                max_run_seconds=self.max_run_seconds,
            )
        )

    @staticmethod
    def decode(data: bytes) -> "NewRepository":
        """Return what `encode` made. Raises `KeyFileInvalid`, which does not repeat it."""
        try:
            kept = msgspec.json.decode(data, type=_Kept)
            repository_key = base64.b64decode(kept.repository_key, validate=True)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise KeyFileInvalid("the kept secrets of a repository are damaged") from error
        keys = KeyFile.decode(bytes(kept.keys), "the kept secrets of a repository")
        return NewRepository(keys, repository_key, kept.created, kept.max_run_seconds)

    @property
    def config(self) -> bytes:
        """The bytes of its repository.json."""
        info = RepositoryInfo(
            format=FORMAT_NAME,
            version=FORMAT_VERSION,
            id=self.keys.repository_id,
            encryption=AES_256_GCM if self.repository_key else NO_ENCRYPTION,
            max_run_seconds=self.max_run_seconds,
            root_key=base64.b64encode(self.keys.root_public).decode(),
            created=self.created,
        )
        return msgspec.json.format(msgspec.json.encode(info), indent=2)


class _Kept(msgspec.Struct, rename="camel", kw_only=True):
    keys: msgspec.Raw
    repository_key: str
    created: str
    max_run_seconds: int


async def require_empty(store: ObjectStore) -> None:
    """Raise `RepositoryExists` where the place holds a repository or files of somebody else.

    What an unfinished creation leaves (`keys/`, `probe/`) counts as nothing.
    """
    async for found in store.list(""):
        if found.key == paths.CONFIG:
            raise RepositoryExists(f"{store.url} holds a repository", hint="Open it, or name another place")
        if not found.key.startswith((paths.KEYS, paths.PROBE)):
            raise RepositoryExists(
                f"{store.url} holds {found.key}, which is not Strongroom's",
                hint="A repository wants a place of its own: name an empty folder, container or prefix",
            )


async def create_repository(store: ObjectStore, new: NewRepository, *, recipients: Sequence[str] = ()) -> None:
    """Write the files of *new* into an empty place: it can be opened with its keys, and by *recipients* (`age1…`).

    Raises `RepositoryExists` where another repository came first. May run twice, also in two processes at once with
    the same *new*. If it stops, there is no repository but for the files below `keys/`, and running it again ends it.
    """
    if new.repository_key:
        own = str(pyrage.x25519.Identity.from_str(new.keys.recipient).to_public())
        for recipient in (own, *recipients):
            await put_recipient(store, new.keys.root, recipient, new.repository_key)
    await add_writer(store, new.keys.root, public_bytes(new.keys.writer), backup_only=False)
    try:
        await create_once(store, paths.CONFIG, new.config)
    except ObjectExists as error:
        raise RepositoryExists(f"somebody else made a repository in {store.url} at the same time") from error
