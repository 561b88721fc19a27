"""The folder of one control plane: who it is, the key of its secrets, and where its parts keep their files.

    config.json      tenant, subscription, administrator, names     state.sqlite      what the control plane remembers
    secret.key       seals secrets at rest                          workflows.sqlite  durable jobs
    tls/             private CA and server certificate              storage/          containers of local accounts
    clusters/        token files of hosted extensions               recovery.*        the recovery recipient

Everything is readable by its owner alone. One process uses a home at a time.
"""

import contextlib
import fcntl
import os
import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from strongroom.controlplane.state.private_file import write_private
from strongroom.controlplane.state.sealing import KEY_BYTES
from strongroom.errors import StrongroomError, UsageError

FORMAT: Final = 1
CONFIG: Final = "config.json"
SECRET_KEY: Final = "secret.key"  # noqa: S105 - the name of a file


class HomeError(StrongroomError):
    """The folder cannot be used as a home."""


class HomeInUse(HomeError, UsageError):
    """Another process serves from this home."""


class HomeConfig(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """What `config.json` holds; ids are GUIDs made at the first start."""

    version: int = FORMAT
    tenant_id: str
    subscription_id: str
    administrator: str
    """The client id of the administrator's service principal."""
    names: tuple[str, ...] = ()
    """Further names and addresses of the server's certificate."""


class Home:
    """An opened home. Made by `Home.open`, which creates what is missing."""

    def __init__(self, folder: Path, config: HomeConfig, secret_key: bytes) -> None:
        self.folder = folder
        self.config = config
        self.secret_key = secret_key

    @classmethod
    def open(cls, folder: Path) -> "Home":
        """Open the home in *folder*, and make what it lacks; may be stopped and run again at any point.

        Raises `HomeError` for a folder that cannot be one.
        """
        folder = folder.absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            config = _read_config(folder / CONFIG)
            if config is None:
                if any(folder.glob("*.sqlite")) or (folder / SECRET_KEY).exists():
                    raise HomeError(
                        f"{folder} has no {CONFIG}, but other files of a home",
                        hint="Put the whole folder back from one copy: strongroom serve restore",
                    )
                config = HomeConfig(
                    tenant_id=str(uuid.uuid4()), subscription_id=str(uuid.uuid4()), administrator=str(uuid.uuid4())
                )
                # The key first: with the configuration the home counts as made.
                write_private(folder / SECRET_KEY, secrets.token_bytes(KEY_BYTES))
                write_private(folder / CONFIG, msgspec.json.format(msgspec.json.encode(config), indent=2))
            key = (folder / SECRET_KEY).read_bytes()
        except FileNotFoundError as error:
            raise HomeError(
                f"{folder} lacks {Path(str(error.filename)).name}", hint="Put the whole folder back from one copy"
            ) from error
        except OSError as error:
            raise HomeError(f"the home {folder} cannot be used: {error.strerror}") from error
        return cls(folder, config, key)

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @property
    def clusters(self) -> Path:
        return self.folder / "clusters"

    @property
    def tls(self) -> Path:
        return self.folder / "tls"

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.folder / 'state.sqlite'}"

    @property
    def workflows_file(self) -> Path:
        return self.folder / "workflows.sqlite"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home for this process. Raises `HomeInUse`. The lock ends with the process, however it ends."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise HomeInUse(
                    f"another process uses the home {self.folder}", hint="Stop it first, or name another folder"
                ) from error
            yield
        finally:
            os.close(descriptor)


def _read_config(path: Path) -> HomeConfig | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        config = msgspec.json.decode(content, type=HomeConfig)
    except msgspec.DecodeError as error:
        raise HomeError(f"{path} is damaged: {error}", hint="Put it back from a copy") from error
    if config.version != FORMAT:
        raise HomeError(
            f"{path} has version {config.version}; this Strongroom knows {FORMAT}",
            hint="Run the Strongroom that wrote it",
        )
    return config
