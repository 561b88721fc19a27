"""What a repository says of itself in `repository.json`: the one file that is neither signed nor sealed."""

import base64
import hashlib

import msgspec

from strongroom.dataplane.objectstore.errors import ObjectNotFound
from strongroom.dataplane.objectstore.port import ObjectStore
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import Damaged, NoRepository, UnknownFormat
from strongroom.dataplane.repository.sealing import FORMAT_VERSION

MAX_RUN_SECONDS = 86_400  # no backup of ours takes a day; prune waits twice as long: design.md, section 6
FORMAT_NAME = "strongroom-repository"
AES_256_GCM = "aes-256-gcm"
NO_ENCRYPTION = "none"


class RepositoryInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The content of repository.json. `root_key` is base64 of the raw Ed25519 public key."""

    format: str
    version: int
    id: str
    features: tuple[str, ...] = ()
    encryption: str
    max_run_seconds: int
    root_key: str
    created: str

    @property
    def encrypted(self) -> bool:
        return self.encryption != NO_ENCRYPTION

    @property
    def root_public(self) -> bytes:
        """The raw public half of the root key. Raises `Damaged`."""
        try:
            return base64.b64decode(self.root_key, validate=True)
        except ValueError as error:
            raise Damaged("the root key in repository.json is damaged") from error


async def read_info(store: ObjectStore) -> tuple[RepositoryInfo, str]:
    """Return repository.json and the SHA-256 (hex) of its bytes. Raises `NoRepository`, `UnknownFormat`, `Damaged`."""
    try:
        config = await store.get(paths.CONFIG)
    except ObjectNotFound as error:
        raise NoRepository(
            f"there is no repository in {store.url}", hint="Make one: strongroom repository init --repository URL"
        ) from error
    try:
        head = msgspec.json.decode(config, type=dict[str, object])
        if head.get("format") != FORMAT_NAME:
            raise UnknownFormat(
                f"repository.json in {store.url} is not of a Strongroom repository", hint="Name another place"
            )
        if head.get("version") != FORMAT_VERSION:
            raise UnknownFormat(
                f"the repository in {store.url} has format version {head.get('version')}; "
                f"this Strongroom understands version {FORMAT_VERSION}",
                hint="Upgrade Strongroom",
            )
        info = msgspec.json.decode(config, type=RepositoryInfo)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"repository.json in {store.url} cannot be read: {error}") from error
    if info.features:
        raise UnknownFormat(
            f"the repository uses {', '.join(info.features)}, which this Strongroom does not know",
            hint="Upgrade Strongroom",
        )
    if info.encryption not in (AES_256_GCM, NO_ENCRYPTION):
        raise UnknownFormat(f"the repository is encrypted by {info.encryption!r}", hint="Upgrade Strongroom")
    return info, hashlib.sha256(config).hexdigest()
