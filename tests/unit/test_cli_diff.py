"""Differences between two states of an object, and between two recovery points."""

from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.dataplane.objectstore.filesystem import FilesystemStore
from strongroom.dataplane.repository.diff import (
    Change,
    FieldChange,
    ObjectChange,
    diff_current,
    diff_points,
    field_changes,
)
from strongroom.dataplane.repository.model import KindEntry, ObjectRow, ReadAs
from strongroom.dataplane.repository.objects import Parts, split
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.repository.run import Run
from strongroom.testbed.builders import draft

SECRETS = [("", "Secret")]


def everything(_: ObjectRow) -> bool:
    return True


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, [FieldChange("a", 1, 2)]),
        ({"a": 1}, {}, [FieldChange("a", 1, None)]),
        ({}, {"a": {"b": 1}}, [FieldChange("a", None, {"b": 1})]),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3, 4]}}, [FieldChange("a.b[1]", 2, 3), FieldChange("a.b[2]", None, 4)]),
        (
            {"containers": [{"name": "web", "image": "a"}, {"name": "log", "image": "x"}]},
            {"containers": [{"name": "log", "image": "x"}, {"name": "web", "image": "b"}]},
            [FieldChange("containers[name=web].image", "a", "b")],
        ),
        ({"a": 1}, {"a": True}, [FieldChange("a", 1, True)]),
        ({"a": "1"}, {"a": 1}, [FieldChange("a", "1", 1)]),
        ({"a": [{"name": "x"}, {"name": "x"}]}, {"a": [{"name": "x"}]}, [FieldChange("a[1]", {"name": "x"}, None)]),
    ],
)
def test_fields_that_differ_are_named_by_their_path(before: Any, after: Any, expected: list[FieldChange]) -> None:
    assert list(field_changes(before, after)) == expected


def secret(name: str, value: str, *, uid: str = "") -> Parts:
    metadata = {"name": name, "namespace": "shop", "uid": uid or f"uid-{name}", "resourceVersion": "1"}
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": f"applied {value}", "version": value}
    item = {"metadata": metadata | {"annotations": annotations}, "data": {"token": value}, "type": "Opaque"}
    return split(msgspec.json.encode(item), "", "v1", "Secret")


async def point_of(repository: Repository, objects: Iterable[Parts]) -> RecoveryPoint:
    run = await Run.begin(repository)
    await run.know()
    writer = run.kind("", "v1", "Secret")
    await writer.add(sorted(objects, key=lambda parts: f"{parts.namespace}/{parts.name}".encode()))
    segments = await writer.finish()
    entry = KindEntry(
        group="",
        version="v1",
        kind="Secret",
        plural="secrets",
        namespaced=True,
        read_as=ReadAs.EXACT,
        objects=writer.objects,
        segments=segments,
    )
    return await repository.point((await run.commit(draft(entry))).id)


@pytest.fixture
async def repository(tmp_path: Path) -> AsyncIterator[Repository]:
    store = FilesystemStore(tmp_path / "repository", create=True)
    made, _ = await Repository.init(store, key_file=tmp_path / "key.json")
    yield made
    await store.close()


def named(changes: Sequence[ObjectChange]) -> list[tuple[str, Change]]:
    return [(change.name, change.change) for change in changes]


async def test_two_points_differ_in_what_was_added_removed_and_changed(repository: Repository) -> None:
    first = await point_of(repository, [secret("a", "1"), secret("b", "1"), secret("d", "1"), secret("e", "1")])
    second = await point_of(repository, [secret("a", "1"), secret("b", "2"), secret("c", "1"), secret("e", "1")])
    found = [change async for change in diff_points(first, second, SECRETS, everything)]
    assert named(found) == [("b", Change.CHANGED), ("c", Change.ADDED), ("d", Change.REMOVED)]
    back = [change async for change in diff_points(second, first, SECRETS, everything)]
    assert named(back) == [("b", Change.CHANGED), ("c", Change.REMOVED), ("d", Change.ADDED)]


async def test_values_of_secrets_are_never_shown(repository: Repository) -> None:
    first = await point_of(repository, [secret("a", "before-value")])
    second = await point_of(repository, [secret("a", "after-value")])
    (found,) = [change async for change in diff_points(first, second, SECRETS, everything)]
    fields = {field.path: field for field in found.fields}
    assert fields["data.token"] == FieldChange("data.token", hidden=True)
    applied = "metadata.annotations.kubectl.kubernetes.io/last-applied-configuration"
    assert fields[applied] == FieldChange(applied, hidden=True)
    assert fields["metadata.annotations.version"].after == "after-value"


async def test_an_object_made_again_with_the_same_content_has_a_changed_uid(repository: Repository) -> None:
    first = await point_of(repository, [secret("a", "1")])
    second = await point_of(repository, [secret("a", "1", uid="another")])
    (found,) = [change async for change in diff_points(first, second, SECRETS, everything)]
    assert found.fields == (FieldChange("metadata.uid", "uid-a", "another"),)


async def test_a_segment_that_both_points_have_is_not_read(repository: Repository, tmp_path: Path) -> None:
    objects = [secret(f"s-{number:05}", "1") for number in range(5_000)]
    first = await point_of(repository, objects)
    changed = [*objects[:4_999], secret("s-04999", "2")]
    second = await point_of(repository, changed)
    one, two = first.manifest.kinds[0].segments, second.manifest.kinds[0].segments
    shared = {segment.content for segment in one} & {segment.content for segment in two}
    assert len(shared) >= 2
    for segment in one:
        if segment.content in shared:
            (tmp_path / "repository" / "lists" / f"{segment.file.id}.parquet").unlink()
    found = [change async for change in diff_points(first, second, SECRETS, everything)]
    assert named(found) == [("s-04999", Change.CHANGED)]


async def test_a_point_is_compared_with_objects_read_now(repository: Repository) -> None:
    point = await point_of(repository, [secret("a", "1"), secret("b", "1"), secret("c", "1")])

    async def now() -> AsyncIterator[Sequence[Parts]]:
        yield [secret("a", "1"), secret("b", "2")]
        yield [secret("new", "1"), secret("not-selected", "1")]

    def selected(row: ObjectRow) -> bool:
        return row.name != "not-selected"

    entry = point.manifest.kinds[0]
    digest = repository.files.sealer.digest
    found = [change async for change in diff_current(point, entry, everything, now(), digest, selected)]
    assert named(found) == [("b", Change.CHANGED), ("new", Change.ADDED), ("c", Change.REMOVED)]
    assert found[0].fields[-1] == FieldChange("data.token", hidden=True)
