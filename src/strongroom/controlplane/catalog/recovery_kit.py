"""Hands over what is needed to use the containers when this home is lost, and opens repositories with it.

The recovery identity is made at first start and stays in the home (`recovery.key`, 0600) until a kit takes it out;
its public half (`recovery.pub`) stays for ever. The kit's format is docs/format/recovery-kit.md. Nothing here prints a
secret.
"""

import asyncio
import base64
import errno
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.controlplane.catalog.errors import CatalogError, KitExists, KitInvalid, KitTaken
from strongroom.controlplane.catalog.keys import (
    REPOSITORY,
    SEED_BYTES,
    adopt,
    derive_root,
    held_by,
    load_secrets,
    renew_root_seed,
    root_seeds,
)
from strongroom.controlplane.catalog.sealed import Secrets
from strongroom.controlplane.state.private_file import sync_folder, write_draft, write_private
from strongroom.dataplane.objectstore.port import ObjectStore
from strongroom.dataplane.repository.creation import NewRepository
from strongroom.dataplane.repository.info import RepositoryInfo, read_info
from strongroom.dataplane.repository.keyentries import add_recipient, add_writer, read_entries, unwrap
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.signing import public_bytes
from strongroom.errors import StrongroomError

IDENTITY_FILE: Final = "recovery.key"
PUBLIC_FILE: Final = "recovery.pub"
FORMAT: Final = "strongroom-recovery-kit"
VERSION: Final = 1

OpenContainer = Callable[[str], Awaitable[ObjectStore]]
"""Opens the store of a container by its ARM id; `write_kit` closes it."""


class KitRepository(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A repository and its root: `root_key` is base64 of the raw Ed25519 private key."""

    id: str
    root_key: str


class KitContainer(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """A container (ARM id) and where it lies; `repository` is "" if it was never used."""

    id: str
    url: str
    repository: str = ""
    credentials: Mapping[str, str] = {}


class RecoveryKit(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The content of a recovery kit. `root_seeds` are base64; `made` is ISO 8601 UTC."""

    format: str
    version: int
    made: str
    tenant_id: str
    identity: str
    root_seeds: tuple[str, ...]
    repositories: tuple[KitRepository, ...] = ()
    containers: tuple[KitContainer, ...] = ()

    def __repr__(self) -> str:
        return f"RecoveryKit(tenant_id={self.tenant_id!r}, made={self.made!r}, …)"

    def root_of(self, info: RepositoryInfo) -> Ed25519PrivateKey:
        """Return the root key of a repository. Raises `KitInvalid` if the kit has none that fits its repository.json.

        That is also what tells a repository from one that somebody put in its place.
        """
        named = [_private(each.root_key) for each in self.repositories if each.id == info.id]
        derived = [derive_root(base64.b64decode(seed), info.id) for seed in self.root_seeds]
        for root in (*named, *derived):
            if public_bytes(root) == info.root_public:
                return root
        raise KitInvalid(
            f"the recovery kit of {self.made} has no root key that fits the repository {info.id}",
            hint="Use the kit of the home that made the repository; if this is it, repository.json was replaced",
        )


@dataclass(frozen=True)
class KitWritten:
    """What a kit holds, in numbers, and the containers (ARM id to reason) that its new identity does not open yet."""

    path: Path
    repositories: int
    containers: int
    not_wrapped: Mapping[str, str] = field(default_factory=dict)


def recovery_recipient(home: Path) -> str:
    """Return the recipient (`age1…`) that every repository is wrapped for; makes it at first start. May run twice."""
    public, secret = home / PUBLIC_FILE, home / IDENTITY_FILE
    if not public.exists() and not secret.exists():
        _write_secret(secret, str(pyrage.x25519.Identity.generate()))
    if secret.exists():
        recipient = str(_identity(secret).to_public())
        if not public.exists() or public.read_text().strip() != recipient:  # stopped between the two
            _write_secret(public, recipient)
        return recipient
    return public.read_text().strip()


def kit_is_taken(home: Path) -> bool:
    """Return whether the recovery secret has left the home; until then `serve` warns."""
    return (home / PUBLIC_FILE).exists() and not (home / IDENTITY_FILE).exists()


async def write_kit(
    path: Path,
    home: Path,
    secrets: Secrets,
    *,
    tenant_id: str,
    containers: Sequence[KitContainer],
    now: datetime,
    open_container: OpenContainer | None = None,
) -> KitWritten:
    """Write the recovery kit to the new file *path* (0600) and take the recovery secret out of *home*.

    With *open_container* another identity is made first, every repository that can be reached is wrapped for it, and
    new repositories get roots that older kits do not know; those that cannot be reached are named in the answer and
    follow at the next `ensure_repository`. If it stops before the kit is whole, the secret is still in the home and it
    can be repeated; after it, the secret may be in both. Raises `KitTaken`, `KitExists`.
    """
    if path.exists():
        raise KitExists(f"{path} exists", hint="Name a new file for the recovery kit")
    recovery_recipient(home)
    not_wrapped: Mapping[str, str] = {}
    if open_container is not None:
        not_wrapped = await _renew(home, secrets, [each.id for each in containers], open_container)
    secret = home / IDENTITY_FILE
    if not secret.exists():
        raise KitTaken(
            "the recovery kit was handed over before and the secret has left this home",
            hint="Make another: strongroom recovery-kit --new FILE",
        )
    ids = [name.removeprefix(REPOSITORY) for name in await asyncio.to_thread(secrets.names, REPOSITORY)]
    roots = [(each, (await load_secrets(secrets, each)).keys.root) for each in ids]
    known = {each.id: await held_by(secrets, each.id) for each in containers}
    kit = RecoveryKit(
        format=FORMAT,
        version=VERSION,
        made=now.isoformat(timespec="seconds"),
        tenant_id=tenant_id,
        identity=str(_identity(secret)),
        root_seeds=tuple(base64.b64encode(seed).decode() for seed in await root_seeds(secrets)),
        repositories=tuple(
            KitRepository(id=each, root_key=base64.b64encode(root.private_bytes_raw()).decode()) for each, root in roots
        ),
        containers=tuple(
            msgspec.structs.replace(each, repository=held.repository if (held := known[each.id]) else "")
            for each in containers
        ),
    )
    await asyncio.to_thread(_write_kit, path, msgspec.json.format(msgspec.json.encode(kit), indent=2) + b"\n")
    # Only now: until the kit is on the disk, the home is the one place that has the secret.
    secret.unlink()
    sync_folder(home)
    return KitWritten(path, len(roots), len(kit.containers), not_wrapped)


def read_kit(path: Path) -> RecoveryKit:
    """Read a recovery kit. Raises `KitInvalid`, which names the file and never its content."""
    try:
        kit = msgspec.json.decode(path.read_bytes(), type=RecoveryKit)
        if kit.format != FORMAT or kit.version != VERSION:
            raise KitInvalid(
                f"{path} is of format {kit.format!r} version {kit.version}; {FORMAT} version {VERSION} is understood",
                hint="Upgrade Strongroom, or name the right file",
            )
        pyrage.x25519.Identity.from_str(kit.identity)
        for each in kit.repositories:
            _private(each.root_key)
        if any(len(base64.b64decode(seed, validate=True)) != SEED_BYTES for seed in kit.root_seeds):
            raise ValueError("a seed is short")
    except OSError as error:
        raise KitInvalid(f"the recovery kit {path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, pyrage.IdentityError) as error:
        raise KitInvalid(f"{path} is not a recovery kit", hint="Name the file that recovery-kit wrote") from error
    return kit


async def open_with_kit(store: ObjectStore, kit: RecoveryKit) -> KeyFile:
    """Return keys that open the repository in *store* for reading; nothing is written.

    Their writer is certified by nobody yet. Raises `KitInvalid` for a repository of another home, `NoRepository`.
    """
    info, _ = await read_info(store)
    return KeyFile(info.id, kit.root_of(info), Ed25519PrivateKey.generate(), kit.identity)


async def make_key_file(store: ObjectStore, kit: RecoveryKit) -> KeyFile:
    """Return the keys of a new owner of the repository in *store*, admitted by the kit: for the plain command line.

    They hold a recipient and a writer of their own, and not the kit's. Raises as `open_with_kit` does, and `WrongKey`
    where the repository was never wrapped for the kit. Each call admits another owner.
    """
    by_kit = await open_with_kit(store, kit)
    drawn = KeyFile.generate(by_kit.repository_id, encryption=True)
    own = KeyFile(drawn.repository_id, by_kit.root, drawn.writer, drawn.recipient)
    await add_recipient(store, by_kit, _public(own.recipient))
    await add_writer(store, own.root, public_bytes(own.writer), backup_only=False)
    return own


async def adopt_with_kit(store: ObjectStore, secrets: Secrets, container: str, kit: RecoveryKit) -> None:
    """Let this home own the repository in *store* as that of *container* (ARM id), with keys of its own.

    The next `ensure_repository` admits them, so that nothing is in the store before its secrets are kept. May run
    twice. Raises as `make_key_file` does, and `CatalogError` where the container is known to hold another repository.
    """
    by_kit = await open_with_kit(store, kit)
    info, _ = await read_info(store)
    entries = await read_entries(store, by_kit.root_public)
    repository_key = unwrap(entries.recipients, kit.identity)
    if repository_key is None:
        raise KitInvalid(
            f"the repository {info.id} in {store.url} was never wrapped for the recovery kit of {kit.made}",
            hint="Use the newest kit of the home that made it, or one from before --new",
        )
    drawn = KeyFile.generate(info.id, encryption=True)
    new = NewRepository(
        keys=KeyFile(info.id, by_kit.root, drawn.writer, drawn.recipient),
        repository_key=repository_key,
        created=info.created,
        max_run_seconds=info.max_run_seconds,
    )
    await adopt(secrets, container, new)


async def _renew(
    home: Path, secrets: Secrets, containers: Sequence[str], open_container: OpenContainer
) -> Mapping[str, str]:
    """Put another identity in the place of the home's, and wrap for it; return what could not be reached and why.

    The secret lies in the home before anything is wrapped for it, so whatever is wrapped can be opened by the kit that
    this call or the next one writes.
    """
    identity = pyrage.x25519.Identity.generate()
    _write_secret(home / IDENTITY_FILE, str(identity))
    _write_secret(home / PUBLIC_FILE, str(identity.to_public()))
    await renew_root_seed(secrets)
    failed: dict[str, str] = {}
    for container in containers:
        held = await held_by(secrets, container)
        if held is None or not held.made:
            continue
        try:
            new = await load_secrets(secrets, held.repository)
            store = await open_container(container)
            try:
                await add_recipient(store, new.keys, str(identity.to_public()))
            finally:
                await store.close()
        except StrongroomError as error:
            failed[container] = error.message
    return failed


def _identity(path: Path) -> pyrage.x25519.Identity:
    try:
        return pyrage.x25519.Identity.from_str(path.read_text().strip())
    except (pyrage.IdentityError, ValueError) as error:
        raise CatalogError(
            f"{path} is damaged", hint="Make another recovery identity: strongroom recovery-kit --new FILE"
        ) from error


def _public(identity: str) -> str:
    return str(pyrage.x25519.Identity.from_str(identity).to_public())


def _private(text: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=True))


def _write_secret(path: Path, text: str) -> None:
    write_private(path, text.encode() + b"\n")


def _write_kit(path: Path, content: bytes) -> None:
    """Make the new file *path* (0600), whole or not at all, durable when this returns. Raises `KitExists`."""
    try:
        temporary = write_draft(path, content)
        try:
            os.link(temporary, path)
        except FileExistsError as error:
            raise KitExists(f"{path} exists", hint="Name a new file for the recovery kit") from error
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            temporary.replace(path)  # a USB stick with FAT: that *path* is new was looked at
        temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise CatalogError(f"the recovery kit {path} cannot be written: {error.strerror}") from error


# link(2) on filesystems without hard links.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
