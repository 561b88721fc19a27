"""A container's repository is made once, whatever is killed, whoever else tries, and its keys are kept first."""

import asyncio
from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.controlplane.catalog.errors import RepositoryHeld, RepositoryLost, UnknownRepository
from strongroom.controlplane.catalog.keys import (
    CONTAINER,
    REPOSITORY,
    adopt,
    allow_extension,
    derive_root,
    ensure_repository,
    forget_container,
    load_secrets,
    repository_keys,
    root_seeds,
)
from strongroom.controlplane.catalog.sealed import StateSecrets
from strongroom.controlplane.catalog.stores import StorageAccount, open_container
from strongroom.controlplane.state.database import Database
from strongroom.dataplane.objectstore.port import Key, parse_key
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.check import check
from strongroom.dataplane.repository.errors import RepositoryExists
from strongroom.dataplane.repository.keyentries import recipient_path
from strongroom.dataplane.repository.keyfile import HolderKeys
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.repository.signing import public_bytes
from strongroom.testbed.builders import back_up, config_map, new_repository
from strongroom.testbed.unreliable import Killed, Lost, UnreliableStore

CONTAINER_ID = (
    "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts/acc/blobServices/default"
    "/containers/Backups"
)
RECOVERY = pyrage.x25519.Identity.generate()
RECIPIENT = str(RECOVERY.to_public())
VECTOR = "f2074bac800380add6939be531c8d54392c7805e894688d69a861d4174a630eb"


@pytest.fixture
def secrets(tmp_path: Path) -> StateSecrets:
    return StateSecrets(Database.open(f"sqlite:///{tmp_path}/state.sqlite", b"k" * 32))


def open_again(tmp_path: Path, *, create: bool = False) -> UnreliableStore:
    return UnreliableStore(f"catalog-{tmp_path}".replace("/", "-"), create=create)


async def expect_one_repository(store: UnreliableStore, secrets: StateSecrets) -> None:
    """The keys that are kept open it, so does the recovery identity, a backup works, and no other keys are kept."""
    keys = await repository_keys(secrets, CONTAINER_ID)
    assert keys is not None
    assert secrets.names(REPOSITORY) == [REPOSITORY + keys.repository_id]
    assert secrets.names(CONTAINER) == [CONTAINER + CONTAINER_ID.lower()]
    owner = await Repository.open(store, keys)
    _, manifest = await back_up(owner, [config_map("a", "1")])
    recovery = HolderKeys(keys.root_public, str(RECOVERY), Ed25519PrivateKey.generate())
    assert manifest.id in [p.id for p in await (await Repository.open(store, recovery)).points()]
    assert (await check(owner, read_data=True)).sound
    assert not [i.key async for i in store.list(paths.PROBE)]


async def test_a_container_gets_its_repository_at_first_use_and_keeps_it(tmp_path: Path, secrets: StateSecrets) -> None:
    store = open_again(tmp_path, create=True)
    first = await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
    writes = store.writes
    again = await ensure_repository(store, secrets, CONTAINER_ID.upper(), RECIPIENT)
    assert again.encode() == first.encode()
    assert store.writes == writes
    await expect_one_repository(store, secrets)


@pytest.mark.parametrize("lost", Lost)
async def test_a_first_use_killed_at_any_write_is_ended_by_the_next(
    tmp_path: Path, secrets: StateSecrets, lost: Lost
) -> None:
    counting = UnreliableStore(f"{tmp_path}-counting".replace("/", "-"), create=True)
    await ensure_repository(counting, secrets, "/another", RECIPIENT)
    secrets.delete(secrets.names(REPOSITORY)[0])
    secrets.delete(CONTAINER + "/another")
    assert counting.writes >= 5  # the probe, twice; two recipients, a writer, repository.json
    for write in range(counting.writes):
        store = open_again(tmp_path, create=True)
        store.lose(write, lost, then_dead=True)
        with pytest.raises(Killed):
            await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
        store = open_again(tmp_path)
        await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
        for left in [i.key async for i in store.list(paths.PROBE)]:
            await store.delete([left])  # a crash may leave one: docs/format/repository.md
        await expect_one_repository(store, secrets)
        for name in (*secrets.names(REPOSITORY), *secrets.names(CONTAINER)):
            secrets.delete(name)
        await store.delete([info.key async for info in store.list("")])


async def test_a_first_use_killed_at_any_secret_is_ended_by_the_next(tmp_path: Path, secrets: StateSecrets) -> None:
    """What is kept and never used is the only thing that a kill between two secrets leaves."""

    class Dying(StateSecrets):
        def __init__(self, whole: StateSecrets, at: int) -> None:
            super().__init__(whole.database)
            self.left = at

        def _count(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise Killed("secrets")

        def put(self, name: str, data: bytes) -> None:
            self._count()
            super().put(name, data)

        def keep(self, name: str, data: bytes) -> bytes:
            self._count()
            return super().keep(name, data)

    for at in range(4):  # the seed, the keys, the claim, the mark that it is made
        store = open_again(tmp_path, create=True)
        with pytest.raises(Killed):
            await ensure_repository(store, Dying(secrets, at), CONTAINER_ID, RECIPIENT)
        keys = await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
        assert (await Repository.open(store, keys)).require_pruner()
        for name in (*secrets.names(REPOSITORY), *secrets.names(CONTAINER)):
            secrets.delete(name)
        await store.delete([info.key async for info in store.list("")])


@pytest.mark.parametrize("tasks", [2, 5])
async def test_tasks_that_race_on_one_container_end_with_one_repository(
    tmp_path: Path, secrets: StateSecrets, tasks: int
) -> None:
    store = open_again(tmp_path, create=True)

    async def give_way(_: Key) -> None:
        await asyncio.sleep(0)

    store.before_put = give_way
    found = await asyncio.gather(*(ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT) for _ in range(tasks)))
    assert len({keys.encode() for keys in found}) == 1
    await expect_one_repository(store, secrets)


async def test_a_task_whose_sibling_ends_the_creation_between_its_looks_takes_the_siblings(
    tmp_path: Path, secrets: StateSecrets
) -> None:
    store = open_again(tmp_path, create=True)

    async def overtake(key: Key) -> None:
        if not key.startswith(paths.PROBE):
            store.before_put = None
            await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)

    store.before_put = overtake
    await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
    await expect_one_repository(store, secrets)


async def test_a_container_with_files_of_somebody_else_is_refused_and_nothing_is_kept(
    tmp_path: Path, secrets: StateSecrets
) -> None:
    store = open_again(tmp_path, create=True)
    await store.put(parse_key("holiday.jpg"), b"jpeg")
    with pytest.raises(RepositoryExists, match=r"holiday\.jpg"):
        await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
    assert [i.key async for i in store.list("")] == ["holiday.jpg"]
    assert secrets.names(REPOSITORY) == secrets.names(CONTAINER) == []


async def test_a_repository_of_another_home_is_refused_and_left_alone(tmp_path: Path, secrets: StateSecrets) -> None:
    store = open_again(tmp_path, create=True)
    await new_repository(store, tmp_path)
    before = store.writes
    with pytest.raises(UnknownRepository, match="does not have"):
        await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
    assert store.writes == before


async def test_somebody_elses_repository_that_came_first_is_not_taken_over(
    tmp_path: Path, secrets: StateSecrets
) -> None:
    store = open_again(tmp_path, create=True)

    async def overtake(key: Key) -> None:
        if key == paths.CONFIG:
            store.before_put = None
            await new_repository(store, tmp_path)

    store.before_put = overtake
    with pytest.raises(RepositoryExists):
        await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
    with pytest.raises(UnknownRepository):
        await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)


async def test_a_container_that_was_emptied_is_not_begun_anew_in_silence(tmp_path: Path, secrets: StateSecrets) -> None:
    store = open_again(tmp_path, create=True)
    await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
    kept = [(i.key, await store.get(i.key)) async for i in store.list("")]
    await store.delete([key for key, _ in kept])
    with pytest.raises(RepositoryLost):
        await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
    assert not [i async for i in store.list("")]
    for key, data in kept:
        await store.put(key, data)
    await expect_one_repository(store, secrets)
    await store.delete([i.key async for i in store.list("")])
    forget_container(secrets, CONTAINER_ID)
    await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)


async def test_the_repository_of_a_deleted_container_is_for_the_container_of_the_same_id_alone(
    tmp_path: Path, secrets: StateSecrets
) -> None:
    store = open_again(tmp_path, create=True)
    first = await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
    forget_container(secrets, CONTAINER_ID)
    # Whoever copied the id into a store of his own would be let into the backups by another container's claim.
    with pytest.raises(RepositoryHeld, match="deleted container"):
        await ensure_repository(store, secrets, "/another/name", RECIPIENT)
    again = await ensure_repository(store, secrets, CONTAINER_ID.upper(), RECIPIENT)
    assert again.encode() == first.encode()
    forget_container(secrets, CONTAINER_ID)
    await adopt(secrets, "/another/name", await load_secrets(secrets, first.repository_id))
    adopted = await ensure_repository(store, secrets, "/another/name", RECIPIENT)
    assert adopted.encode() == first.encode(), "the operator may move it"


async def test_a_copied_id_does_not_open_the_repository_of_another_container(
    tmp_path: Path, secrets: StateSecrets
) -> None:
    store = open_again(tmp_path, create=True)
    first = await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
    with pytest.raises(RepositoryHeld):
        await ensure_repository(store, secrets, "/of/somebody/else", RECIPIENT)
    assert await repository_keys(secrets, "/of/somebody/else") is None
    assert (await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)).encode() == first.encode()


async def test_a_new_recovery_recipient_is_let_in_at_the_next_use(tmp_path: Path, secrets: StateSecrets) -> None:
    store = open_again(tmp_path, create=True)
    keys = await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
    fresh = pyrage.x25519.Identity.generate()
    await ensure_repository(store, secrets, CONTAINER_ID, str(fresh.to_public()))
    await store.head(recipient_path(str(fresh.to_public())))
    holder = HolderKeys(keys.root_public, str(fresh), Ed25519PrivateKey.generate())
    await Repository.open(store, holder)


async def test_an_extension_that_was_allowed_backs_up_and_may_not_prune(tmp_path: Path, secrets: StateSecrets) -> None:
    store = open_again(tmp_path, create=True)
    keys = await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
    identity, writer = pyrage.x25519.Identity.generate(), Ed25519PrivateKey.generate()
    for _ in range(2):
        await allow_extension(store, keys, str(identity.to_public()), public_bytes(writer))
    extension = await Repository.open(store, HolderKeys(keys.root_public, str(identity), writer))
    _, manifest = await back_up(extension, [config_map("a", "1")])
    owner = await Repository.open(store, keys)
    assert (await owner.point("latest")).id == manifest.id
    assert extension.writer in owner.writers
    assert extension.writer not in owner.pruners


async def test_a_local_account_gets_its_repository_in_the_home(tmp_path: Path, secrets: StateSecrets) -> None:
    account = StorageAccount("account1")
    for _ in range(2):
        store = await open_container(account, "backups", storage=tmp_path / "storage", refuse_address=lambda _: "no")
        keys = await ensure_repository(store, secrets, CONTAINER_ID, RECIPIENT)
    _, manifest = await back_up(await Repository.open(store, keys), [config_map("a", "1")])
    assert (tmp_path / "storage" / "account1" / "backups" / paths.manifest_path(manifest.id)).is_file()


async def test_roots_follow_from_the_seed_and_the_repository_alone(tmp_path: Path, secrets: StateSecrets) -> None:
    """So that a kit that was taken before a container was first used has its root all the same."""
    keys = await ensure_repository(open_again(tmp_path, create=True), secrets, CONTAINER_ID, RECIPIENT)
    (seed,) = await root_seeds(secrets)
    assert public_bytes(derive_root(seed, keys.repository_id)) == keys.root_public
    # A vector of docs/format/recovery-kit.md.
    assert public_bytes(derive_root(bytes(32), "00" * 16)).hex() == VECTOR
