"""docs/how-to/damaged-records.md: a record of deletions that cannot be believed is named, and there is a way on."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strongroom.dataplane.objectstore.filesystem import FilesystemStore
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.keyentries import add_writer
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.prune import delete_point
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.repository.signing import public_bytes, sign, writer_id
from strongroom.testbed.builders import back_up, config_map


class Place:
    """A repository with two recovery points, of which the first is deleted: one record in `condemned/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = folder / "key.json"
        self.deleted = ""

    async def make(self) -> None:
        store = FilesystemStore(self.folder / "repository", create=True)
        repository, _ = await Repository.init(store, key_file=self.key, encryption=True, max_run_seconds=60)
        _, first = await back_up(repository, [config_map("a", "1")])
        await back_up(repository, [config_map("a", "2")])
        await delete_point(repository, first.id)
        self.deleted = first.id

    @property
    def record(self) -> Path:
        (found,) = (self.folder / "repository" / "condemned").iterdir()
        return found

    def run(self, *words: str, expect: int = 0) -> Any:
        where = ["--repository", f"file://{self.folder}/repository", "--key-file", str(self.key), "--output", "json"]
        done = subprocess.run(
            [Path(sys.executable).parent / "strongroom", *words, *where],
            env={"HOME": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout else json.loads(done.stderr.splitlines()[-1])["error"]


@pytest.fixture
async def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    await made.make()
    return made


def cut_off(record: Path) -> None:
    record.write_bytes(record.read_bytes()[:50])


def change(record: Path) -> None:
    content = bytearray(record.read_bytes())
    content[60] ^= 1
    record.write_bytes(content)


def empty(record: Path) -> None:
    record.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_off, change, empty])
def test_a_damaged_record_is_named_and_moved_out(place: Place, damage: Callable[[Path], None]) -> None:
    record = place.record
    record.chmod(0o600)
    damage(record)
    error = place.run("repository", "check", expect=4)
    assert f"condemned/{record.name}" in error["message"]
    assert place.run("point", "list", expect=4)
    record.rename(place.folder / "evidence")
    assert place.run("repository", "check")["sound"]
    assert place.deleted in {p["recoveryPointId"] for p in place.run("point", "list")}, "it is listed again"
    place.run("point", "delete", place.deleted)
    place.run("repository", "prune")
    assert place.deleted not in {p["recoveryPointId"] for p in place.run("point", "list")}
    assert place.run("repository", "check", "--read-data")["sound"]


async def test_a_record_by_someone_who_may_not_delete_hides_nothing(place: Place) -> None:
    """A writer that may only make recovery points (an extension that was broken into) forges a record."""
    store = FilesystemStore(place.folder / "repository")
    owner = KeyFile.load(place.key)
    drawn = KeyFile.generate(owner.repository_id, encryption=True)
    assert owner.recipient
    forger = KeyFile(owner.repository_id, owner.root, drawn.writer, owner.recipient)
    await add_writer(store, owner.root, public_bytes(forger.writer), backup_only=True)
    repository = await Repository.open(store, forger)
    alive = next(p.id for p in await repository.points() if p.id != place.deleted)
    path = paths.condemned_path("00000000deadbeef")
    said: dict[str, Any] = {"points": [alive], "files": [], "volumes": []}
    writer = writer_id(public_bytes(forger.writer))
    body = {"id": "00000000deadbeef", "writer": writer, "written": "2026-11-23T12:00:00+00:00", **said}
    signed = sign(path, json.dumps(body).encode(), writer, forger.writer)
    await repository.files.create(path, "00000000deadbeef", signed)
    error = place.run("repository", "check", expect=4)
    assert str(path) in error["message"]
    (place.folder / "repository" / path).rename(place.folder / "evidence")
    assert place.run("repository", "check")["sound"]
    assert alive in {p["recoveryPointId"] for p in place.run("point", "list")}
