"""What goes into a repository comes out of it, whatever the store, the sizes and the encryption."""

from pathlib import Path

import msgspec
import pytest

from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.repository import Repository
from strongroom.testbed.builders import back_up, config_map, new_repository


@pytest.mark.parametrize("encryption", [True, False])
async def test_every_object_comes_back_as_it_was_served(tmp_path: Path, encryption: bool) -> None:
    store = MemoryStore(f"round-trip-{encryption}", create=True)
    repository = await new_repository(store, tmp_path, encryption=encryption)
    assert (tmp_path / "key.json").stat().st_mode & 0o077 == 0
    objects = [config_map(f"c{n:05}", "x" * (n % 300)) for n in range(3_000)]
    objects[17] = config_map("c00017", "y" * 700_000)
    _, manifest = await back_up(repository, objects, pack_bytes=1_000)
    again = await Repository.open(store, KeyFile.load(tmp_path / "key.json"))
    point = await again.point("latest")
    assert point.manifest == manifest
    seen = 0
    async for rows in point.rows(point.manifest.kinds[0]):
        for row in rows:
            served = msgspec.json.decode(await point.served(row)) if seen % 97 == 0 or seen == 17 else None
            if served is not None:
                assert served == {"apiVersion": "v1", "kind": "ConfigMap"} | msgspec.json.decode(objects[seen])
            seen += 1
    assert seen == len(objects)
    assert len(await point.packs()) > 1


async def test_one_object_costs_one_segment_and_one_row_group(tmp_path: Path) -> None:
    store = MemoryStore("one-object", create=True)
    repository = await new_repository(store, tmp_path)
    await back_up(repository, [config_map(f"c{n:05}", f"{n}" * 200) for n in range(5_000)])
    point = await repository.point("latest")
    before = store.bytes_read
    row = await point.find("", "ConfigMap", "shop", "c04321")
    assert row is not None
    assert b'"value":"43214321' in await point.served(row)
    assert store.bytes_read - before < 600_000
    assert await point.find("", "ConfigMap", "shop", "absent") is None
    assert await point.find("", "Secret", "shop", "c04321") is None


async def test_a_whole_reading_of_unchanged_objects_stores_nothing_but_a_manifest(tmp_path: Path) -> None:
    store = MemoryStore("unchanged", create=True)
    repository = await new_repository(store, tmp_path)
    objects = [config_map(f"c{n:05}", f"{n}" * 50) for n in range(2_000)]
    _, first = await back_up(repository, objects)
    before = store.bytes_written
    _, second = await back_up(repository, objects)
    assert second.bytes_written == store.bytes_written - before
    assert second.kinds[0].segments == first.kinds[0].segments
    assert second.indexes == first.indexes
    assert second.previous
    assert store.bytes_written - before < 5_000


async def test_a_changed_object_stores_one_segment_and_its_own_blob(tmp_path: Path) -> None:
    store = MemoryStore("changed", create=True)
    repository = await new_repository(store, tmp_path)
    objects = [config_map(f"c{n:05}", f"{n}" * 50) for n in range(6_000)]
    _, first = await back_up(repository, objects)
    objects[3_000] = config_map("c03000", "changed")
    objects.insert(100, config_map("c00099x", "inserted"))
    _, second = await back_up(repository, objects)
    kept = set(first.kinds[0].segments) & set(second.kinds[0].segments)
    assert len(second.kinds[0].segments) - len(kept) <= 2
    point = await repository.point(second.id)
    for name, text in [("c03000", b"changed"), ("c00099x", b"inserted"), ("c05999", b"59995999")]:
        row = await point.find("", "ConfigMap", "shop", name)
        assert row is not None
        assert text in await point.served(row)


async def test_many_incremental_points_name_at_most_eight_indexes(tmp_path: Path) -> None:
    store = MemoryStore("indexes", create=True)
    repository = await new_repository(store, tmp_path)
    objects = [config_map(f"c{n:05}", f"{n}" * 50) for n in range(300)]
    for generation in range(12):
        objects[generation] = config_map(f"c{generation:05}", f"generation {generation}")
        _, manifest = await back_up(repository, objects)
        assert len(manifest.indexes) <= 8
    point = await repository.point("latest")
    async for rows in point.rows(point.manifest.kinds[0]):
        blobs = await point.blobs([row.body for row in rows])
        assert len(blobs) == len(rows)
