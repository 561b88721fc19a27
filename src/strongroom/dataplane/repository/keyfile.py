"""The keys that open a repository: its owner's key file, kept 0600, and what a holder without the root has."""

import base64
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from strongroom.dataplane.repository.errors import KeyFileExists, KeyFileInvalid, KeyMissing
from strongroom.dataplane.repository.signing import public_bytes

ENVIRONMENT = "STRONGROOM_KEY_FILE"
_FORMAT = "strongroom-key-file"


class _File(msgspec.Struct, rename="camel", kw_only=True):
    format: str
    version: int
    repository_id: str
    root_key: str
    writer_key: str
    recipient: str = ""


@dataclass(frozen=True)
class KeyFile:
    """The secrets of a repository: root and writer signing keys, and the age identity that opens its repository key.

    `recipient` is an `AGE-SECRET-KEY-1…` text, "" for a repository without encryption.
    """

    repository_id: str
    root: Ed25519PrivateKey
    writer: Ed25519PrivateKey
    recipient: str

    def __repr__(self) -> str:
        return f"KeyFile(repository_id={self.repository_id!r}, …)"

    @property
    def root_public(self) -> bytes:
        """The raw public half of the root key (32 bytes)."""
        return public_bytes(self.root)

    @staticmethod
    def generate(repository_id: str, *, encryption: bool) -> "KeyFile":
        """Make new secrets from the system's randomness."""
        recipient = str(pyrage.x25519.Identity.generate()) if encryption else ""
        return KeyFile(repository_id, Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate(), recipient)

    @staticmethod
    def load(path: Path) -> "KeyFile":
        """Read a key file. Raises `KeyMissing` or `KeyFileInvalid`, which name the path and never the content."""
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise KeyMissing(f"there is no key file {path}", hint=_HOW_TO_NAME) from error
        except OSError as error:
            raise KeyFileInvalid(
                f"the key file {path} cannot be read: {error.strerror}", hint="Let this user read it, or name another"
            ) from error
        return KeyFile.decode(content, str(path))

    @staticmethod
    def decode(content: bytes, name: str) -> "KeyFile":
        """Return the keys in a key file's *content*; *name* is what errors call it. Raises `KeyFileInvalid`."""
        try:
            parsed = msgspec.json.decode(content, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise KeyFileInvalid(f"{name} is not a key file of Strongroom", hint=_HOW_TO_NAME) from error
        if parsed.format != _FORMAT or parsed.version != 1:
            raise KeyFileInvalid(
                f"{name} is a key file of format {parsed.format!r} version {parsed.version}; version 1 is understood",
                hint="Upgrade Strongroom, or name the right file",
            )
        try:
            if parsed.recipient:
                pyrage.x25519.Identity.from_str(parsed.recipient)
            return KeyFile(
                parsed.repository_id, _private(parsed.root_key), _private(parsed.writer_key), parsed.recipient
            )
        except (ValueError, pyrage.IdentityError) as error:
            raise KeyFileInvalid(f"the keys in {name} are damaged", hint="Use a copy of the key file") from error

    @staticmethod
    def find(explicit: Path | None, repository_id: str) -> "KeyFile | None":
        """Load the key file of *repository_id*: *explicit*, else STRONGROOM_KEY_FILE, else the default place.

        Returns None when only the default place is left and has none; a file that was named must exist.
        """
        named = explicit or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
        if named is not None:
            return KeyFile.load(named)
        path = default_key_path(repository_id)
        return KeyFile.load(path) if path.exists() else None

    def encode(self) -> bytes:
        """Return the content of a key file: secrets."""
        content = _File(
            format=_FORMAT,
            version=1,
            repository_id=self.repository_id,
            root_key=base64.b64encode(self.root.private_bytes_raw()).decode(),
            writer_key=base64.b64encode(self.writer.private_bytes_raw()).decode(),
            recipient=self.recipient,
        )
        return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"

    def save(self, path: Path) -> None:
        """Write the file, 0600 in a folder of 0700, durable when this returns. Raises `KeyFileExists`."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise KeyFileExists(
                f"the key file {path} exists",
                hint="It may be the only key of another repository: move it away or name another with --key-file",
            ) from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(self.encode())
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class HolderKeys:
    """The keys of an extension: it may read and sign once the root certified it, and cannot certify anybody.

    `root_public` is the raw Ed25519 key (32 bytes) that the extension was told to trust: a repository with another root
    is not opened, whatever stands in the store. `recipient` is an `AGE-SECRET-KEY-1…` text and never empty, so a
    repository that says it is not encrypted is refused. `writer` signs manifests; until its `keys/` file is there the
    repository opens for reading only. Raises `KeyFileInvalid` where one of them cannot be a key.
    """

    root_public: bytes
    recipient: str
    writer: Ed25519PrivateKey

    def __post_init__(self) -> None:
        try:
            Ed25519PublicKey.from_public_bytes(self.root_public)
            pyrage.x25519.Identity.from_str(self.recipient)
        except (ValueError, pyrage.IdentityError) as error:
            raise KeyFileInvalid(
                "the pinned root key or the recipient is not a key", hint="Give 32 raw bytes and an AGE-SECRET-KEY-1…"
            ) from error

    def __repr__(self) -> str:
        return f"HolderKeys(root_public={self.root_public.hex()}, …)"


_HOW_TO_NAME = f"Name it with --key-file or {ENVIRONMENT}"


def default_key_path(repository_id: str) -> Path:
    """Return where `init` puts a key file: ${XDG_CONFIG_HOME:-~/.config}/strongroom/keys/<repository id>.json."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return config / "strongroom" / "keys" / f"{repository_id}.json"


def _private(text: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=True))
