"""Makes the repository of a container when it is first used, and lets extensions into it.

Four kinds of secrets, by name: `repository/<id>` are a repository's keys, kept for ever; `container/<ARM id>` says
which repository a container holds, and whether it is made; `repository-of/<id>` is the ARM id of the deleted container
that held a repository, and may again; `recovery/root-seeds` is what the roots are derived from, so
that a recovery kit that was taken once also fits the repositories of later containers (docs/format/recovery-kit.md).
"""

import asyncio
import secrets as randomness
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.controlplane.catalog.errors import CatalogError, RepositoryHeld, RepositoryLost, UnknownRepository
from strongroom.controlplane.catalog.sealed import Secrets
from strongroom.controlplane.identity.keys import Secrets as SealedSecrets
from strongroom.dataplane.objectstore.create import probe_conditional_create
from strongroom.dataplane.objectstore.errors import ObjectNotFound
from strongroom.dataplane.objectstore.port import ObjectStore
from strongroom.dataplane.repository.creation import NewRepository, create_repository, require_empty
from strongroom.dataplane.repository.errors import NoRepository, RepositoryExists
from strongroom.dataplane.repository.info import read_info
from strongroom.dataplane.repository.keyentries import add_recipient, add_writer, recipient_path
from strongroom.dataplane.repository.keyfile import KeyFile

REPOSITORY: Final = "repository/"
CONTAINER: Final = "container/"
LEFT_BY: Final = "repository-of/"
ROOT_SEEDS: Final = "recovery/root-seeds"
SEED_BYTES: Final = 32  # as many as the keys that are derived from it


class Held(msgspec.Struct, frozen=True):
    """Which repository a container holds; not *made*: its creation has begun and may have stopped anywhere."""

    repository: str
    made: bool = False


async def ensure_repository(store: ObjectStore, secrets: Secrets, container: str, recovery_recipient: str) -> KeyFile:
    """Return the keys of the repository in *store*, which is made if the container (ARM id) was never used.

    The recovery recipient (`age1…`) can open it when this returns, also after the recipient was replaced. May run twice
    and in several tasks at once; stopped anywhere, the next call ends it. Raises `RepositoryExists` for a place that
    holds foreign files, `UnknownRepository`, `RepositoryHeld` and `RepositoryLost` where the container is not as it was
    left, and `StoreUnsafe`. Whatever is written to the store, its secrets are kept first.
    """
    name = CONTAINER + container.lower()
    held = await held_by(secrets, container)
    if held is None:
        held = await _claim(store, secrets, name)
    new = await load_secrets(secrets, held.repository)
    if held.made:
        await _require_standing(store, new.keys.repository_id, container)
    else:
        await _make(store, secrets, name, new, recovery_recipient)
    try:
        await store.head(recipient_path(recovery_recipient))
    except ObjectNotFound:
        await add_recipient(store, new.keys, recovery_recipient)
    return new.keys


async def allow_extension(store: ObjectStore, keys: KeyFile, recipient: str, writer_public: bytes) -> None:
    """Let an extension read the repository and make recovery points in it; it can delete none. May run twice.

    *recipient* is its `age1…`, *writer_public* its raw Ed25519 key: both come from a cluster and are not believed to be
    what they should be. Raises `KeyFileInvalid`, `KeyConflict`.
    """
    await add_recipient(store, keys, recipient)
    await add_writer(store, keys.root, writer_public, backup_only=True)


async def repository_keys(secrets: Secrets, container: str) -> KeyFile | None:
    """Return the keys of the repository that a container (ARM id) holds, None where none was made."""
    held = await held_by(secrets, container)
    return (await load_secrets(secrets, held.repository)).keys if held and held.made else None


def forget_container(secrets: SealedSecrets, container: str) -> None:
    """Forget what a deleted container held. The repository's keys stay: made again under its id, it is known again.

    *secrets* are those of the transaction that deletes the container.
    """
    name = CONTAINER + container.lower()
    data = secrets.get(name)
    if data is not None:
        held = msgspec.json.decode(data, type=Held)
        secrets.put(LEFT_BY + held.repository, container.lower().encode())
    secrets.delete(name)


async def held_by(secrets: Secrets, container: str) -> Held | None:
    """Return what a container (ARM id) is known to hold."""
    data = await asyncio.to_thread(secrets.get, CONTAINER + container.lower())
    return None if data is None else msgspec.json.decode(data, type=Held)


async def adopt(secrets: Secrets, container: str, new: NewRepository) -> None:
    """Keep the secrets of a repository that *container* holds already: the next `ensure_repository` does the rest.

    What was kept first counts, so it may run twice. Raises `CatalogError` where the container is known to hold another.
    It is the way of the home's own commands, which may give a repository to another container than it had.
    """
    await asyncio.to_thread(secrets.keep, REPOSITORY + new.keys.repository_id, new.encode())
    mark = msgspec.json.encode(Held(new.keys.repository_id))
    stands = await asyncio.to_thread(secrets.keep, CONTAINER + container.lower(), mark)
    if msgspec.json.decode(stands, type=Held).repository != new.keys.repository_id:
        raise CatalogError(
            f"{container} is known to hold another repository than {new.keys.repository_id}",
            hint="Attach the place as a container of its own",
        )


async def load_secrets(secrets: Secrets, repository_id: str) -> NewRepository:
    """Return the secrets of a repository. Raises `CatalogError` where they are gone."""
    data = await asyncio.to_thread(secrets.get, REPOSITORY + repository_id)
    if data is None:
        raise CatalogError(
            f"the keys of the repository {repository_id} are not in this home",
            hint="Restore the home, or rebuild the vault with the recovery kit: strongroom vault rebuild",
        )
    return NewRepository.decode(data)


async def root_seeds(secrets: Secrets) -> tuple[bytes, ...]:
    """Return what this home derives roots from, the one for new repositories first; made at the first call."""
    kept = await asyncio.to_thread(secrets.keep, ROOT_SEEDS, randomness.token_bytes(SEED_BYTES))
    return tuple(kept[at : at + SEED_BYTES] for at in range(0, len(kept), SEED_BYTES))


async def renew_root_seed(secrets: Secrets) -> None:
    """Derive the roots of new repositories from a new seed: who has the old one then knows none of theirs.

    The old ones stay behind it: a repository may be in the making under one of them this moment.
    """
    kept = b"".join(await root_seeds(secrets))
    await asyncio.to_thread(secrets.put, ROOT_SEEDS, randomness.token_bytes(SEED_BYTES) + kept)


def derive_root(seed: bytes, repository_id: str) -> Ed25519PrivateKey:
    """Return the root key of a repository made under *seed*. Pure; the rule is docs/format/recovery-kit.md's."""
    info = b"strongroom/root/v1\x00" + repository_id.encode()
    return Ed25519PrivateKey.from_private_bytes(HKDF(SHA256(), 32, salt=None, info=info).derive(seed))


async def _claim(store: ObjectStore, secrets: Secrets, name: str) -> Held:
    """Decide which repository the container holds, or is to hold, and write it down; the first to do so has decided."""
    try:
        info, _ = await read_info(store)
    except NoRepository:
        pass
    else:
        if await asyncio.to_thread(secrets.get, REPOSITORY + info.id) is None:
            raise UnknownRepository(
                f"{store.url} holds the repository {info.id}, whose keys this server does not have",
                hint="With its recovery kit: strongroom vault rebuild; or name an empty container",
            )
        if await _held_elsewhere(secrets, info.id, name):
            # An id can be copied. Whoever names a place must not be handed the keys of what is somebody else's.
            raise RepositoryHeld(
                f"{store.url} holds the repository {info.id}, which is that of another container of this server",
                hint="Use that container",
            )
        left_by = await asyncio.to_thread(secrets.get, LEFT_BY + info.id)
        if left_by is not None and left_by.decode() != name.removeprefix(CONTAINER):
            raise RepositoryHeld(
                f"{store.url} holds the repository {info.id}, which a deleted container of this server held",
                hint=f"Make the container again under its ARM id {left_by.decode()}; or, as the administrator of the "
                "server's home: strongroom vault rebuild",
            )
        return await _keep_claim(secrets, name, info.id)
    await require_empty(store)
    # Once, before anything is kept or written: it raises where creates can replace each other.
    await probe_conditional_create(store)
    drawn = NewRepository.generate(now=datetime.now(UTC))
    root = derive_root((await root_seeds(secrets))[0], drawn.keys.repository_id)
    new = replace(drawn, keys=replace(drawn.keys, root=root))
    own = REPOSITORY + new.keys.repository_id
    await asyncio.to_thread(secrets.put, own, new.encode())
    held = await _keep_claim(secrets, name, new.keys.repository_id)
    if held.repository != new.keys.repository_id:
        await asyncio.to_thread(secrets.delete, own)  # another task was first, and nothing was made with these
    return held


async def _keep_claim(secrets: Secrets, name: str, repository_id: str) -> Held:
    mark = msgspec.json.encode(Held(repository_id))
    return msgspec.json.decode(await asyncio.to_thread(secrets.keep, name, mark), type=Held)


async def _held_elsewhere(secrets: Secrets, repository_id: str, name: str) -> bool:
    """Say whether a container other than that of the secret *name* holds the repository."""
    for other in await asyncio.to_thread(secrets.names, CONTAINER):
        data = await asyncio.to_thread(secrets.get, other) if other != name else None
        if data is not None and msgspec.json.decode(data, type=Held).repository == repository_id:
            return True
    return False


async def _make(store: ObjectStore, secrets: Secrets, name: str, new: NewRepository, recovery_recipient: str) -> None:
    """Write the files of the repository that was decided on, and write down that it is made.

    Where it stands already (made before a crash, or by another home), this adds what is missing below `keys/`.
    """
    try:
        if not await _stands(store, new.keys.repository_id):
            await require_empty(store)
        await create_repository(store, new, recipients=(recovery_recipient,))
    except RepositoryExists:
        if not await _stands(store, new.keys.repository_id):
            # Somebody else's: ours never came to be. With the claim gone the next call looks at what is there.
            await asyncio.to_thread(secrets.delete, name)
            raise
        # Another task of ours ended it between our two looks, or another version of Strongroom wrote repository.json.
    mark = Held(new.keys.repository_id, made=True)
    await asyncio.to_thread(secrets.put, name, msgspec.json.encode(mark))


async def _stands(store: ObjectStore, repository_id: str) -> bool:
    try:
        info, _ = await read_info(store)
    except NoRepository:
        return False
    return info.id == repository_id


async def _require_standing(store: ObjectStore, repository_id: str, container: str) -> None:
    try:
        info, _ = await read_info(store)
    except NoRepository as error:
        # A new repository in its place would look like a container that never had a backup.
        raise RepositoryLost(
            f"{container} held the repository {repository_id}, and {store.url} holds none now",
            hint="Put its files back from a copy; to begin anew, delete the container's resource and make it again",
        ) from error
    if info.id != repository_id:
        raise RepositoryLost(
            f"{container} held the repository {repository_id}, and {store.url} holds {info.id} now",
            hint="Find out who wrote there, or attach that place as a container of its own",
        )
