"""Damage and forgery: each is found by `check` and refused when it is read."""

from pathlib import Path

import pytest

from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.objectstore.port import Key
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.check import check
from strongroom.dataplane.repository.errors import Damaged, NoRepository, NotTrusted, RepositoryError, WrongKey
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.model import Manifest
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.repository.seen import Seen
from strongroom.errors import ExitCode
from strongroom.testbed.builders import back_up, config_map, new_repository


class Stage:
    """A repository with three recovery points, and what a vandal does to its store."""

    def __init__(self, repository: Repository, store: MemoryStore, manifests: list[Manifest]) -> None:
        self.repository = repository
        self.store = store
        self.manifests = manifests

    async def keys(self, prefix: str) -> list[Key]:
        return sorted([i.key async for i in self.store.list(prefix)])

    async def replace(self, key: Key, data: bytes) -> None:
        await self.store.put(key, data, if_absent=False)


@pytest.fixture(params=[True, False], ids=["encrypted", "plain"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    store = MemoryStore(f"damage-{tmp_path}".replace("/", "-"), create=True)
    repository = await new_repository(store, tmp_path, encryption=request.param)
    manifests = []
    objects = [config_map(f"c{n:04}", f"{n} " * 400) for n in range(900)]
    for generation in range(3):
        objects[generation] = config_map(f"c{generation:04}", f"generation {generation}")
        manifests.append((await back_up(repository, objects))[1])
    assert (await check(repository, read_data=True)).sound
    return Stage(repository, store, manifests)


async def flip(stage: Stage, key: Key, at: int) -> None:
    data = bytearray(await stage.store.get(key))
    data[at % len(data)] ^= 0x40
    await stage.replace(key, bytes(data))


async def read_everything(stage: Stage) -> None:
    for manifest in stage.manifests:
        point = await stage.repository.point(manifest.id)
        for entry in point.manifest.kinds:
            async for rows in point.rows(entry):
                await point.blobs([ref for row in rows for ref in (row.body, row.status, row.managed_fields) if ref])


@pytest.mark.parametrize("folder", [paths.PACKS, paths.LISTS, paths.INDEX, paths.POINTS])
@pytest.mark.parametrize("where", [60, 400, -40])
async def test_a_flipped_byte_is_found(stage: Stage, folder: str, where: int) -> None:
    key = (await stage.keys(folder))[0]
    await flip(stage, key, where)
    report = await check(stage.repository, read_data=True)
    assert not report.sound
    assert any(finding.subject == key for finding in report.damage)


@pytest.mark.parametrize("folder", [paths.PACKS, paths.LISTS, paths.POINTS])
async def test_a_truncated_file_is_found_and_refused(stage: Stage, folder: str) -> None:
    key = (await stage.keys(folder))[0]
    await stage.replace(key, (await stage.store.get(key))[:-17])
    report = await check(stage.repository)  # a length needs no reading of data
    assert any(finding.subject == key for finding in report.damage)
    with pytest.raises(RepositoryError) as caught:
        await read_everything(stage)
    assert caught.value.exit_code is ExitCode.DAMAGED


@pytest.mark.parametrize("folder", [paths.PACKS, paths.LISTS, paths.POINTS])
async def test_two_swapped_files_are_found_and_refused(stage: Stage, folder: str) -> None:
    first, second = (await stage.keys(folder))[:2]
    one, two = await stage.store.get(first), await stage.store.get(second)
    await stage.replace(first, two)
    await stage.replace(second, one)
    report = await check(stage.repository, read_data=True)
    assert {first, second} <= {finding.subject for finding in report.damage}
    with pytest.raises(RepositoryError) as caught:
        await read_everything(stage)
    assert caught.value.exit_code is ExitCode.DAMAGED


async def test_a_deleted_file_is_found_and_refused(stage: Stage) -> None:
    for folder in (paths.PACKS, paths.LISTS):
        await stage.store.delete([(await stage.keys(folder))[0]])
    report = await check(stage.repository)
    assert len(report.damage) >= 2
    with pytest.raises(Damaged, match="missing"):
        await read_everything(stage)


async def test_a_lost_manifest_in_the_middle_is_found(stage: Stage) -> None:
    lost = paths.manifest_path(stage.manifests[1].id)
    await stage.store.delete([lost])
    report = await check(stage.repository)
    assert [finding.subject for finding in report.damage] == [lost]


async def test_a_lost_newest_manifest_is_found_by_outside_memory(stage: Stage) -> None:
    seen = Seen()
    for writer, newest in (await check(stage.repository)).newest.items():
        seen.note(writer, newest.sequence, newest.sha256)
    await stage.store.delete([paths.manifest_path(stage.manifests[2].id)])
    assert (await check(stage.repository)).sound  # in itself the rest is consistent, and the report says so
    report = await check(stage.repository, seen=seen)
    assert report.memory
    assert "rolled back" in report.damage[0].problem


async def test_a_replayed_manifest_is_refused(stage: Stage) -> None:
    old = await stage.store.get(paths.manifest_path(stage.manifests[0].id))
    await stage.replace(paths.manifest_path(stage.manifests[2].id), old)
    report = await check(stage.repository)
    assert any(finding.points == (stage.manifests[2].id,) for finding in report.damage)
    with pytest.raises((NotTrusted, Damaged)):
        await stage.repository.point(stage.manifests[2].id)


async def test_a_manifest_of_an_uncertified_writer_is_refused(stage: Stage, tmp_path: Path) -> None:
    """Somebody who can write to the bucket, and has the repository key, but no certificate of the root."""
    forger = KeyFile.generate(stage.repository.info.id, encryption=False)
    key = paths.manifest_path(stage.manifests[2].id)
    stored = stage.repository.files.sealer.open(key, await stage.store.get(key))
    payload = stored[stored.index(b'{"format"') : stored.rindex(b',"keyId"')]
    stage.repository._signing_key = forger.writer
    await stage.replace(key, stage.repository.files.sealer.seal(key, stage.repository.sign(key, payload)).data)
    assert not (await check(stage.repository)).sound
    with pytest.raises(NotTrusted):
        await stage.repository.point(stage.manifests[2].id)


async def test_an_edited_plain_manifest_is_refused(tmp_path: Path) -> None:
    store = MemoryStore(f"edited-{tmp_path}".replace("/", "-"), create=True)
    repository = await new_repository(store, tmp_path, encryption=False)
    _, manifest = await back_up(repository, [config_map("c", "1")])
    key = paths.manifest_path(manifest.id)
    edited = (await store.get(key)).replace(b'"state":"Completed"', b'"state":"Partial"')
    await store.put(key, edited, if_absent=False)
    with pytest.raises(NotTrusted, match="edited"):
        await repository.point(manifest.id)


async def test_a_damaged_newest_point_is_not_passed_over_in_silence(stage: Stage) -> None:
    assert (await stage.repository.point("latest")).id == stage.manifests[2].id
    await flip(stage, paths.manifest_path(stage.manifests[2].id), 400)
    with pytest.raises((NotTrusted, Damaged), match="newest recovery point"):
        await stage.repository.point("latest")


async def test_a_key_file_of_another_repository_is_refused(stage: Stage, tmp_path: Path) -> None:
    other = KeyFile.generate("00" * 16, encryption=True)
    with pytest.raises(WrongKey, match="key file is of repository"):
        await Repository.open(stage.store, other)


async def test_a_replaced_repository_json_is_refused(stage: Stage, tmp_path: Path) -> None:
    config = await stage.store.get(paths.CONFIG)
    await stage.replace(paths.CONFIG, config.replace(b'"maxRunSeconds": 86400', b'"maxRunSeconds": 1'))
    reopened = await Repository.open(stage.store, KeyFile.load(tmp_path / "key.json"))
    with pytest.raises(NotTrusted, match=r"repository\.json"):
        await reopened.point(stage.manifests[0].id)


async def test_an_empty_place_is_no_repository(tmp_path: Path) -> None:
    store = MemoryStore(f"empty-{tmp_path}".replace("/", "-"), create=True)
    with pytest.raises(NoRepository):
        await Repository.open(store, None)


@pytest.mark.parametrize("folder", [paths.PACKS, paths.LISTS, paths.INDEX, paths.POINTS])
async def test_a_flipped_bit_anywhere_is_found_and_never_read_as_data(stage: Stage, folder: str) -> None:
    """Whatever it does to a parser: text that is no UTF-8, a footer that points elsewhere, a length out of bounds."""
    key = (await stage.keys(folder))[0]
    sound = await stage.store.get(key)
    before = await everything(stage)
    # The end of the file is Parquet's footer, where bytes are lengths and places.
    for at in {*range(0, len(sound), len(sound) // 6), *range(len(sound) - 10, len(sound))}:
        await flip(stage, key, at)
        assert key in {finding.subject for finding in (await check(stage.repository, read_data=True)).damage}
        assert await everything_or_refusal(stage) in (before, ExitCode.DAMAGED)
        await stage.replace(key, sound)


@pytest.mark.parametrize("at", [b"strongroom.packs", b'"sha256":"'])
async def test_an_index_that_names_its_packs_in_no_utf8_is_damage(tmp_path: Path, at: bytes) -> None:
    store = MemoryStore(f"utf8-{tmp_path}".replace("/", "-"), create=True)
    repository = await new_repository(store, tmp_path, encryption=False)
    await back_up(repository, [config_map("c", "1")])
    [key] = [info.key async for info in store.list(paths.INDEX)]
    data = bytearray(await store.get(key))
    data[data.index(at) + len(at) + 1] = 0xE1
    await store.put(key, bytes(data), if_absent=False)
    report = await check(repository, read_data=True)
    assert key in {finding.subject for finding in report.damage}


async def everything_or_refusal(stage: Stage) -> list[bytes] | ExitCode:
    try:
        return await everything(stage)
    except RepositoryError as error:
        return error.exit_code


async def everything(stage: Stage) -> list[bytes]:
    found = []
    for manifest in stage.manifests:
        point = await stage.repository.point(manifest.id)
        for entry in point.manifest.kinds:
            async for rows in point.rows(entry):
                blobs = await point.blobs([row.body for row in rows])
                found += [blobs[row.body.digest] for row in rows]
    return found
