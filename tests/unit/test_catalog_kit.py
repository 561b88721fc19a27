"""The home is lost: the recovery kit and the container are enough, and the kit gives nothing else away."""

from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest

from strongroom.controlplane.catalog.errors import KitExists, KitInvalid, KitTaken
from strongroom.controlplane.catalog.keys import ensure_repository, repository_keys
from strongroom.controlplane.catalog.recovery_kit import (
    IDENTITY_FILE,
    PUBLIC_FILE,
    KitContainer,
    adopt_with_kit,
    kit_is_taken,
    make_key_file,
    open_with_kit,
    read_kit,
    recovery_recipient,
    write_kit,
)
from strongroom.controlplane.catalog.sealed import StateSecrets
from strongroom.controlplane.state.database import Database
from strongroom.dataplane.objectstore.errors import StoreUnavailable
from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.objectstore.port import ObjectStore
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.check import check
from strongroom.dataplane.repository.creation import NewRepository, create_repository
from strongroom.dataplane.repository.errors import WrongKey
from strongroom.dataplane.repository.repository import Repository
from strongroom.testbed.builders import back_up, config_map
from strongroom.testbed.unreliable import Killed, Lost, UnreliableStore

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TENANT = "11111111-2222-3333-4444-555555555555"
CONTAINER = "/subscriptions/s/containers/one"
SECOND = "/subscriptions/s/containers/two"


class Home:
    """A home of the server: a folder with a database, as far as recovery needs it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.secrets = StateSecrets(Database.open(f"sqlite:///{folder}/state.sqlite", b"k" * 32))

    async def use(self, store: ObjectStore, container: str) -> Repository:
        keys = await ensure_repository(store, self.secrets, container, recovery_recipient(self.folder))
        return await Repository.open(store, keys)

    async def hand_over(self, path: Path, *containers: str) -> None:
        refs = [KitContainer(id=each, url=f"az://account/{each[-3:]}") for each in containers]
        await write_kit(path, self.folder, self.secrets, tenant_id=TENANT, containers=refs, now=NOW)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def memory(tmp_path: Path, name: str = "one") -> UnreliableStore:
    return UnreliableStore(f"{name}-{tmp_path}".replace("/", "-"), create=True)


async def test_a_lost_home_is_replaced_by_the_kit_and_the_container(tmp_path: Path, home: Home) -> None:
    store, kit_file = memory(tmp_path), tmp_path / "kit.json"
    _, first = await back_up(await home.use(store, CONTAINER), [config_map("a", "before")])
    await home.hand_over(kit_file, CONTAINER)
    del home
    other = Home(tmp_path / "other")
    kit = read_kit(kit_file)
    for _ in range(2):  # it may be begun again
        await adopt_with_kit(store, other.secrets, CONTAINER, kit)
    repository = await other.use(store, CONTAINER)
    _, second = await back_up(repository, [config_map("a", "after")])
    assert {p.id for p in await repository.points()} == {first.id, second.id}
    assert first.writer != second.writer
    assert (await check(repository, read_data=True)).sound
    repository.require_pruner()
    await other.hand_over(tmp_path / "kit-of-other.json", CONTAINER)
    again = await Repository.open(store, await open_with_kit(store, read_kit(tmp_path / "kit-of-other.json")))
    assert {p.id for p in await again.points()} == {first.id, second.id}


async def test_a_kit_taken_at_first_start_opens_containers_that_were_used_later(tmp_path: Path, home: Home) -> None:
    kit_file = tmp_path / "kit.json"
    await home.hand_over(kit_file)
    store = memory(tmp_path)
    _, point = await back_up(await home.use(store, CONTAINER), [config_map("a", "1")])
    opened = await Repository.open(store, await open_with_kit(store, read_kit(kit_file)))
    assert [p.id for p in await opened.points()] == [point.id]
    assert opened.writer is None  # opening writes nothing, so nobody certified a new writer


async def test_the_plain_command_line_gets_a_key_file_of_its_own(tmp_path: Path, home: Home) -> None:
    store, kit_file = memory(tmp_path), tmp_path / "kit.json"
    _, first = await back_up(await home.use(store, CONTAINER), [config_map("a", "1")])
    await home.hand_over(kit_file)
    kit = read_kit(kit_file)
    keys = await make_key_file(store, kit)
    assert keys.recipient != kit.identity
    repository = await Repository.open(store, keys)
    _, second = await back_up(repository, [config_map("a", "2")])
    assert {p.id for p in await repository.points()} == {first.id, second.id}


@pytest.mark.parametrize("lost", Lost)
async def test_an_adoption_killed_at_any_write_is_ended_by_the_next(tmp_path: Path, home: Home, lost: Lost) -> None:
    store, kit_file = memory(tmp_path), tmp_path / "kit.json"
    _, first = await back_up(await home.use(store, CONTAINER), [config_map("a", "1")])
    await home.hand_over(kit_file)
    kit = read_kit(kit_file)
    for write in range(3):  # own recipient, recovery recipient, writer
        other = Home(tmp_path / f"other-{write}-{lost.name}")
        dying = memory(tmp_path)
        dying.lose(write, lost, then_dead=True)
        await adopt_with_kit(dying, other.secrets, CONTAINER, kit)
        with pytest.raises(Killed):
            await other.use(dying, CONTAINER)
        repository = await other.use(memory(tmp_path), CONTAINER)
        repository.require_pruner()
        assert first.id in [p.id for p in await repository.points()]


async def test_the_secret_leaves_the_home_with_the_kit_and_only_once(tmp_path: Path, home: Home) -> None:
    recipient = recovery_recipient(home.folder)
    assert not kit_is_taken(home.folder)
    assert (home.folder / IDENTITY_FILE).stat().st_mode & 0o777 == 0o600
    secret = (home.folder / IDENTITY_FILE).read_text().strip()
    kit_file = tmp_path / "kit.json"
    await home.hand_over(kit_file)
    assert kit_file.stat().st_mode & 0o777 == 0o600
    assert read_kit(kit_file).identity == secret
    assert secret not in repr(read_kit(kit_file))
    assert kit_is_taken(home.folder)
    assert recovery_recipient(home.folder) == recipient
    assert not [f for f in home.folder.rglob("*") if f.is_file() and secret.encode() in f.read_bytes()]
    with pytest.raises(KitTaken, match="--new"):
        await home.hand_over(tmp_path / "second.json")
    with pytest.raises(KitExists):
        await home.hand_over(kit_file)


async def test_a_kit_that_cannot_be_written_leaves_the_secret_in_the_home(tmp_path: Path, home: Home) -> None:
    taken = tmp_path / "taken.json"
    taken.write_text("something of somebody's")
    with pytest.raises(KitExists):
        await home.hand_over(taken)
    with pytest.raises(Exception, match="cannot be written"):
        await home.hand_over(tmp_path / "no such folder" / "kit.json")
    assert taken.read_text() == "something of somebody's"
    assert not kit_is_taken(home.folder)
    await home.hand_over(tmp_path / "kit.json")


async def test_a_second_kit_has_another_identity_and_shuts_out_the_first_from_new_containers(
    tmp_path: Path, home: Home
) -> None:
    one, two, three = (memory(tmp_path, name) for name in ("one", "two", "three"))
    await home.use(one, CONTAINER)
    await home.use(two, SECOND)
    await home.hand_over(tmp_path / "old.json", CONTAINER)

    async def open_container(container: str) -> ObjectStore:
        if container == SECOND:
            raise StoreUnavailable("nobody answers")
        return MemoryStore(one.url.removeprefix("memory://"))

    refs = [KitContainer(id=each, url="az://account/x") for each in (CONTAINER, SECOND)]
    written = await write_kit(
        tmp_path / "new.json",
        home.folder,
        home.secrets,
        tenant_id=TENANT,
        containers=refs,
        now=NOW,
        open_container=open_container,
    )
    assert written.not_wrapped == {SECOND: "nobody answers"}
    assert written.repositories == 2
    assert kit_is_taken(home.folder)
    await home.use(three, "/subscriptions/s/containers/three")
    old, new = read_kit(tmp_path / "old.json"), read_kit(tmp_path / "new.json")
    assert old.identity != new.identity
    for kit in (old, new):
        await Repository.open(one, await open_with_kit(one, kit))
    await Repository.open(three, await open_with_kit(three, new))
    with pytest.raises(KitInvalid, match="no root key that fits"):
        await open_with_kit(three, old)
    with pytest.raises(WrongKey):
        await Repository.open(two, await open_with_kit(two, new))
    await home.use(two, SECOND)  # the next use lets the new identity in
    await Repository.open(two, await open_with_kit(two, new))


async def test_a_renewal_stopped_after_any_step_loses_no_repository(tmp_path: Path, home: Home) -> None:
    """Killed between the secret and the public half: what is used next is wrapped for the secret that is there."""
    recovery_recipient(home.folder)
    identity = pyrage.x25519.Identity.generate()
    (home.folder / IDENTITY_FILE).write_text(str(identity))
    store = memory(tmp_path)
    await home.use(store, CONTAINER)
    assert (home.folder / PUBLIC_FILE).read_text().strip() == str(identity.to_public())
    await home.hand_over(tmp_path / "kit.json", CONTAINER)
    await Repository.open(store, await open_with_kit(store, read_kit(tmp_path / "kit.json")))


async def test_a_repository_that_somebody_put_in_the_place_is_refused(tmp_path: Path, home: Home) -> None:
    """Its key can be wrapped for the kit by anybody, since recipients are public; its root cannot be the home's."""
    store, kit_file = memory(tmp_path), tmp_path / "kit.json"
    repository = await home.use(store, CONTAINER)
    await home.hand_over(kit_file, CONTAINER)
    recipient = recovery_recipient(home.folder)
    await store.delete([i.key async for i in store.list("")])
    forged = NewRepository.generate(now=NOW)
    await create_repository(store, forged, recipients=[recipient])
    config = (await store.get(paths.CONFIG)).replace(forged.keys.repository_id.encode(), repository.info.id.encode())
    await store.put(paths.CONFIG, config, if_absent=False)
    with pytest.raises(KitInvalid, match=r"repository\.json was replaced"):
        await open_with_kit(store, read_kit(kit_file))
    other = Home(tmp_path / "other")
    with pytest.raises(KitInvalid):
        await adopt_with_kit(store, other.secrets, CONTAINER, read_kit(kit_file))
    assert await repository_keys(other.secrets, CONTAINER) is None


@pytest.mark.parametrize(
    "damage",
    [
        (b"strongroom-recovery-kit", b"strongroom-key-file"),
        (b'"version": 1', b'"version": 2'),
        (b"AGE-SECRET-KEY-1", b"AGE-SECRET-KEY-9"),
        (b'"rootSeeds": [', b'"rootSeeds": ["c2hvcnQ=",'),
        (b"{", b"["),
    ],
)
async def test_a_damaged_kit_is_refused_and_not_repeated(
    tmp_path: Path, home: Home, damage: tuple[bytes, bytes]
) -> None:
    kit_file = tmp_path / "kit.json"
    await home.hand_over(kit_file)
    content = kit_file.read_bytes()
    assert damage[0] in content
    secret = read_kit(kit_file).identity
    kit_file.write_bytes(content.replace(damage[0], damage[1], 1))
    with pytest.raises(KitInvalid) as caught:
        read_kit(kit_file)
    assert secret[16:] not in str(caught.value)
