"""Who may open a repository: what a holder without the root private key can do, and what it refuses."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.objectstore.port import Key
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.check import check
from strongroom.dataplane.repository.creation import NewRepository, create_repository, require_empty
from strongroom.dataplane.repository.errors import (
    KeyConflict,
    KeyFileInvalid,
    NoRepository,
    NotTrusted,
    ReadOnly,
    RepositoryExists,
    WrongKey,
)
from strongroom.dataplane.repository.keyentries import add_recipient, add_writer, recipient_path
from strongroom.dataplane.repository.keyfile import HolderKeys, KeyFile
from strongroom.dataplane.repository.prune import delete_point
from strongroom.dataplane.repository.records import CondemnedRecord
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.repository.signing import public_bytes, writer_id
from strongroom.testbed.builders import back_up, config_map, new_repository
from strongroom.testbed.unreliable import Killed, Lost, UnreliableStore

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def memory(tmp_path: Path, *, create: bool = True) -> MemoryStore:
    return MemoryStore(f"keys-{tmp_path}".replace("/", "-"), create=create)


def holder(root_public: bytes) -> HolderKeys:
    return HolderKeys(root_public, str(pyrage.x25519.Identity.generate()), Ed25519PrivateKey.generate())


async def test_a_holder_refuses_a_repository_with_another_root(tmp_path: Path) -> None:
    store = memory(tmp_path)
    await new_repository(store, tmp_path)
    other = KeyFile.generate("00" * 16, encryption=True)
    with pytest.raises(WrongKey, match="another root key"):
        await Repository.open(store, holder(other.root_public))


async def test_a_holder_whom_nobody_added_cannot_open_the_repository(tmp_path: Path) -> None:
    store = memory(tmp_path)
    await new_repository(store, tmp_path)
    keys = KeyFile.load(tmp_path / "key.json")
    with pytest.raises(WrongKey, match="wrapped for this recipient"):
        await Repository.open(store, holder(keys.root_public))


async def test_an_encrypted_repository_that_suddenly_says_it_is_not_is_refused(tmp_path: Path) -> None:
    """Else who can write repository.json would have the next backup stored in the clear."""
    store = memory(tmp_path)
    await new_repository(store, tmp_path)
    keys = KeyFile.load(tmp_path / "key.json")
    config = await store.get(paths.CONFIG)
    await store.put(paths.CONFIG, config.replace(b"aes-256-gcm", b"none"), if_absent=False)
    for opener in (keys, holder(keys.root_public)):
        with pytest.raises(WrongKey, match="nothing is encrypted"):
            await Repository.open(store, opener)


@pytest.mark.parametrize(("root", "recipient"), [(b"short", None), (None, "AGE-SECRET-KEY-1NOT"), (None, "")])
def test_what_cannot_be_keys_is_refused_without_being_repeated(root: bytes | None, recipient: str | None) -> None:
    good_root = KeyFile.generate("00" * 16, encryption=True).root_public
    with pytest.raises(KeyFileInvalid) as caught:
        HolderKeys(
            good_root if root is None else root,
            str(pyrage.x25519.Identity.generate()) if recipient is None else recipient,
            Ed25519PrivateKey.generate(),
        )
    assert "1NOT" not in str(caught.value)


def public_recipient(keys: KeyFile | HolderKeys) -> str:
    return str(pyrage.x25519.Identity.from_str(keys.recipient).to_public())


async def allow(store: MemoryStore, keys: KeyFile, whom: HolderKeys) -> None:
    await add_recipient(store, keys, public_recipient(whom))
    await add_writer(store, keys.root, public_bytes(whom.writer), backup_only=True)


async def test_a_holder_who_was_added_backs_up_and_reads_what_others_wrote(tmp_path: Path) -> None:
    store = memory(tmp_path)
    owner = await new_repository(store, tmp_path)
    _, first = await back_up(owner, [config_map("a", "of the owner")])
    keys = KeyFile.load(tmp_path / "key.json")
    extension = holder(keys.root_public)
    for _ in range(2):  # it may be added again
        await allow(store, keys, extension)
    opened = await Repository.open(store, extension)
    _, second = await back_up(opened, [config_map("a", "of the extension")])
    owner = await Repository.open(store, keys)
    for reader in (owner, opened):
        assert {p.id for p in await reader.points()} == {first.id, second.id}
    assert second.writer == writer_id(public_bytes(extension.writer))
    assert (await check(owner, read_data=True)).sound


async def test_a_holder_can_delete_no_point_and_forge_no_record_of_it(tmp_path: Path) -> None:
    """A cluster that was broken into can create files; the control plane's next prune must not carry out its wishes."""
    store = memory(tmp_path)
    owner = await new_repository(store, tmp_path)
    _, point = await back_up(owner, [config_map("a", "1")])
    keys = KeyFile.load(tmp_path / "key.json")
    extension = holder(keys.root_public)
    await allow(store, keys, extension)
    opened = await Repository.open(store, extension)
    with pytest.raises(ReadOnly, match="not delete"):
        await delete_point(opened, point.id)
    key = paths.condemned_path("00" * 8)
    record = CondemnedRecord(id="00" * 8, writer=opened.require_writer(), written="", points=(point.id,))
    await opened.files.create(key, record.id, opened.sign(key, msgspec.json.encode(record)))
    with pytest.raises(NotTrusted, match="root key did not certify"):
        await (await Repository.open(store, keys)).points()


async def test_a_key_that_may_delete_does_not_lose_that_right_in_silence(tmp_path: Path) -> None:
    store = memory(tmp_path)
    await new_repository(store, tmp_path)
    keys = KeyFile.load(tmp_path / "key.json")
    with pytest.raises(KeyConflict):
        await add_writer(store, keys.root, public_bytes(keys.writer), backup_only=True)
    assert (await Repository.open(store, keys)).require_pruner()


async def test_what_another_root_signed_for_a_recipient_gives_way_to_the_own_root(tmp_path: Path) -> None:
    """As an init leaves it that came to nothing: the recipient is the same, the root was another."""
    store = memory(tmp_path)
    extension = holder(KeyFile.generate("00" * 16, encryption=True).root_public)
    new = NewRepository.generate(now=NOW)
    await create_repository(store, new)
    foreign = NewRepository.generate(now=NOW)
    elsewhere = MemoryStore(f"{tmp_path}-foreign".replace("/", "-"), create=True)
    await create_repository(elsewhere, foreign, recipients=[public_recipient(extension)])
    key = recipient_path(public_recipient(extension))
    await store.put(key, await elsewhere.get(key))
    await allow(store, new.keys, extension)
    pinned = HolderKeys(new.keys.root_public, extension.recipient, extension.writer)
    assert (await Repository.open(store, pinned)).writer is not None


@pytest.mark.parametrize("recipient", ["", "age1short", "AGE-SECRET-KEY-1X", "ssh-ed25519 AAAA"])
async def test_what_is_no_recipient_is_refused(tmp_path: Path, recipient: str) -> None:
    store = memory(tmp_path)
    await new_repository(store, tmp_path)
    with pytest.raises(KeyFileInvalid, match="not an age recipient"):
        await add_recipient(store, KeyFile.load(tmp_path / "key.json"), recipient)


def unreliable(tmp_path: Path, *, create: bool = False) -> UnreliableStore:
    return UnreliableStore(f"creation-{tmp_path}".replace("/", "-"), create=create)


@pytest.mark.parametrize("lost", Lost)
async def test_a_creation_killed_at_any_write_is_completed_with_the_same_secrets(tmp_path: Path, lost: Lost) -> None:
    recovery = holder(KeyFile.generate("00" * 16, encryption=True).root_public)
    store = UnreliableStore(f"{tmp_path}-whole".replace("/", "-"), create=True)
    await create_repository(store, NewRepository.generate(now=NOW), recipients=[public_recipient(recovery)])
    writes = store.writes
    assert writes == 4  # own recipient, recovery recipient, writer, repository.json
    for write in range(writes):
        store = unreliable(tmp_path, create=True)
        new = NewRepository.decode(NewRepository.generate(now=NOW).encode())
        store.lose(write, lost, then_dead=True)
        with pytest.raises(Killed):
            await create_repository(store, new, recipients=[public_recipient(recovery)])
        store = unreliable(tmp_path)
        if write < writes - 1 or lost is Lost.REQUEST:
            with pytest.raises(NoRepository):
                await Repository.open(store, new.keys)
            await require_empty(store)
        for _ in range(2):
            await create_repository(store, new, recipients=[public_recipient(recovery)])
        _, manifest = await back_up(await Repository.open(store, new.keys), [config_map("a", "1")])
        reader = HolderKeys(new.keys.root_public, recovery.recipient, recovery.writer)
        assert [p.id for p in await (await Repository.open(store, reader)).points()] == [manifest.id]
        await store.delete([info.key async for info in store.list("")])


async def test_two_creations_at_once_with_the_same_secrets_make_one_repository(tmp_path: Path) -> None:
    new = NewRepository.generate(now=NOW)
    store = unreliable(tmp_path, create=True)

    async def give_way(_: Key) -> None:
        await asyncio.sleep(0)

    store.before_put = give_way  # so that they take turns, write by write
    await asyncio.gather(create_repository(store, new), create_repository(store, new))
    assert (await Repository.open(store, new.keys)).require_pruner()


async def test_two_creations_at_once_with_different_secrets_leave_one_winner(tmp_path: Path) -> None:
    store = memory(tmp_path)
    both = [NewRepository.generate(now=NOW) for _ in range(2)]
    results = await asyncio.gather(*(create_repository(store, new) for new in both), return_exceptions=True)
    assert [type(r) for r in results if r is not None] == [RepositoryExists]
    winner = both[results.index(None)]
    assert (await Repository.open(store, winner.keys)).require_pruner()


def test_kept_secrets_come_back_whole_and_are_never_shown() -> None:
    new = NewRepository.generate(now=NOW)
    again = NewRepository.decode(new.encode())
    assert again.config == new.config
    assert (again.keys.encode(), again.repository_key) == (new.keys.encode(), new.repository_key)
    assert new.keys.recipient not in f"{new!r} {new.keys!r}"
    with pytest.raises(KeyFileInvalid) as caught:
        NewRepository.decode(new.encode().replace(b"AGE-SECRET-KEY-1", b"AGE-SECRET-KEY-9"))
    assert new.keys.recipient[16:] not in str(caught.value)
