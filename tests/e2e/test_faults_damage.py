"""Damage to what real backups stored, and forgery of it: `repository check` finds each, `restore plan` refuses each.

The repository is made of a real namespace by the command line, once sealed and once plain; every test harms a copy.
"""

import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from strongroom.errors import ExitCode
from strongroom.testbed.cluster import Testbed

from .faults_stage import Ended, Stage, expect_refused, folder_stage


@dataclass(frozen=True)
class Gallery:
    """A repository with three recovery points of a namespace, what each holds, and a folder with a copy to harm."""

    stage: Stage
    folder: Path
    points: tuple[str, ...]
    saved: dict[str, dict[str, Any]]

    def largest(self, folder: str) -> list[Path]:
        """Return the files of one folder, the largest first."""
        return sorted((self.folder / folder).iterdir(), key=lambda path: path.stat().st_size, reverse=True)

    def manifest(self, number: int) -> Path:
        return self.folder / "points" / self.points[number] / "manifest.json"

    def check(self, *arguments: str) -> Ended:
        return self.stage.ask("repository", "check", *arguments)

    def plan(self, point: str) -> Ended:
        """Plan a restore of one point into a namespace that is not there, so that every body is read."""
        mapping = f"{self.stage.namespace}={self.stage.namespace[:50]}-elsewhere"
        cluster = ("--kubeconfig", str(self.stage.testbed.kubeconfig))
        selected = ("--include-namespace", self.stage.namespace, "--map-namespace", mapping)
        return self.stage.ask("restore", "plan", "--point", point, *selected, *cluster)

    def expect_right_or_refused(self, point: str) -> None:
        """Read every object of a point: what comes is what was saved, and what does not is refused as damaged."""
        for name, served in self.saved[point].items():
            kind, _, bare = name.partition("/")
            printed = self.stage.ask("point", "cat", point, kind, f"{self.stage.namespace}/{bare}")
            if printed.code == ExitCode.WHOLE:
                assert printed.json == served
            else:
                expect_refused(printed, "Damaged")


@pytest.fixture(scope="module")
def crowd(testbed: Testbed) -> Iterator[str]:
    """A namespace that all tests of this module back up."""
    name = f"damage-{uuid.uuid4().hex[:8]}"
    testbed.kubectl("create", "namespace", name)
    yield name
    testbed.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module", params=["sealed", "plain"])
def original(
    testbed: Testbed, crowd: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Gallery:
    folder = tmp_path_factory.mktemp(request.param)
    stage = folder_stage(testbed, crowd, folder)
    made = stage.ask("repository", "init", *([] if request.param == "sealed" else ["--no-encryption"]))
    assert made.code == 0, made.err
    stage.set_up()
    points = []
    for generation in range(3):
        stage.change(generation)
        created = stage.ask("point", "create", *stage.selection)
        assert created.code == 0, created.err
        points.append(created.json["recoveryPointId"])
    saved = {point: stage.saved(point) for point in points}
    gallery = Gallery(stage, folder / "repository", tuple(points), saved)
    # This check is the memory against which a vanished newest manifest shows later.
    checked = gallery.check("--read-data")
    assert checked.json["sound"]
    assert all(gallery.plan(point).code == 0 for point in points)
    return gallery


@pytest.fixture
def gallery(original: Gallery, tmp_path: Path) -> Gallery:
    folder = tmp_path / "repository"
    shutil.copytree(original.folder, folder, copy_function=shutil.copy2)
    return replace(
        original, folder=folder, stage=replace(original.stage, url=f"file://{folder}", direct=f"file://{folder}")
    )


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-17])


def delete(path: Path) -> None:
    path.unlink()


def expect_found(checked: Ended, *harmed: Path) -> set[str]:
    """Expect exit code 4 and a finding about each of the *harmed* files; return the points that are hurt."""
    assert checked.code == ExitCode.DAMAGED, checked
    assert not checked.json["sound"]
    subjects = [finding["subject"] for finding in checked.json["damage"]]
    for path in harmed:
        assert any(str(path).endswith(subject) for subject in subjects), (path, subjects)
    return {point for finding in checked.json["damage"] for point in finding["recoveryPoints"]}


@pytest.mark.parametrize("harm", [flip, truncate, delete])
@pytest.mark.parametrize("folder", ["packs", "lists"])
def test_a_harmed_file_is_found_and_the_points_that_it_hurts_are_not_restored(
    gallery: Gallery, folder: str, harm: Callable[[Path], None]
) -> None:
    """Whatever `check` says of a point comes true in a restore: of those that it calls hurt, and of the others."""
    refused = 0
    for harmed in sorted((gallery.folder / folder).iterdir()):
        before = harmed.read_bytes()
        harm(harmed)
        # Lengths and absence need no reading of data.
        hurt = expect_found(gallery.check(*(["--read-data"] if harm is flip else [])), harmed)
        for point in gallery.points:
            planned = gallery.plan(point)
            if planned.code != ExitCode.WHOLE:
                assert point in hurt
                expect_refused(planned, "Damaged", f"{folder}/{harmed.name}")
                refused += 1
            elif point in hurt:
                # One byte of a plain pack may lie in what a plan needs not: a name, or field managers.
                assert (folder, harm) == ("packs", flip)
                gallery.expect_right_or_refused(point)
        harmed.write_bytes(before)
    assert refused >= 3, "all three points need the first run's files"
    gallery.stage.expect_sound()


@pytest.mark.parametrize("harm", [flip, truncate, delete])
def test_a_harmed_index_is_found_and_never_lets_a_restore_take_wrong_bytes(
    gallery: Gallery, harm: Callable[[Path], None]
) -> None:
    """Of an index a restore reads the end only; what that leads to is held against its digest."""
    harmed = sorted((gallery.folder / "index").iterdir())[0]
    harm(harmed)
    expect_found(gallery.check(), harmed)
    for point in gallery.points:
        planned = gallery.plan(point)
        if planned.code == ExitCode.WHOLE:
            gallery.expect_right_or_refused(point)
        else:
            expect_refused(planned, "Damaged", f"index/{harmed.name}")


@pytest.mark.parametrize("harm", [flip, truncate])
def test_a_harmed_manifest_is_found_and_its_point_refused(gallery: Gallery, harm: Callable[[Path], None]) -> None:
    harm(gallery.manifest(1))
    expect_found(gallery.check(), gallery.manifest(1))
    refused = gallery.plan(gallery.points[1])
    assert refused.code == ExitCode.DAMAGED, refused
    expect_refused(refused, refused.error["type"])
    listed = gallery.stage.ask("point", "list")
    assert listed.code == ExitCode.DAMAGED
    states = {point["recoveryPointId"]: point["state"] for point in listed.json}
    assert states == {**dict.fromkeys(gallery.points, "Completed"), gallery.points[1]: "Damaged"}
    assert gallery.plan(gallery.points[2]).code == ExitCode.WHOLE  # the others are as good as before


@pytest.mark.parametrize("folder", ["packs", "lists"])
def test_two_swapped_files_are_found_and_refused(gallery: Gallery, folder: str) -> None:
    first, second = gallery.largest(folder)[:2]
    swap(first, second)
    hurt = expect_found(gallery.check("--read-data"), first, second)
    assert hurt
    for point in hurt:
        expect_refused(gallery.plan(point), "Damaged", f"{folder}/")


def test_two_swapped_manifests_are_found_and_both_refused(gallery: Gallery) -> None:
    swap(gallery.manifest(0), gallery.manifest(2))
    expect_found(gallery.check(), gallery.manifest(0), gallery.manifest(2))
    for number in (0, 2):
        assert gallery.plan(gallery.points[number]).code == ExitCode.DAMAGED


def test_an_edited_manifest_is_found_and_refused(gallery: Gallery) -> None:
    """Of a sealed one nobody without the key can edit the text: a byte of it stands for that."""
    path = gallery.manifest(2)
    text = path.read_bytes()
    edited = text.replace(b'"state":"Completed"', b'"state":"Partial"')
    if edited == text:
        flip(path)
    else:
        path.write_bytes(edited)
    expect_found(gallery.check(), path)
    refused = gallery.plan(gallery.points[2])
    expect_refused(refused, "Damaged" if edited == text else "NotTrusted")
    assert refused.code == ExitCode.DAMAGED


def test_a_manifest_deleted_in_the_middle_is_found(gallery: Gallery) -> None:
    gallery.manifest(1).unlink()
    expect_found(gallery.check(), gallery.manifest(1))
    expect_refused(gallery.plan(gallery.points[1]), "NoSuchPoint")


def test_a_deleted_newest_manifest_is_found_by_the_memory_of_the_last_check(gallery: Gallery) -> None:
    gallery.manifest(2).unlink()
    checked = gallery.check()
    assert checked.code == ExitCode.DAMAGED, checked
    assert gallery.points[2] in str(checked.json["damage"])
    assert "rolled back" in str(checked.json["damage"])
    expect_refused(gallery.plan(gallery.points[2]), "NoSuchPoint")


def test_an_earlier_manifest_replayed_as_the_newest_is_found_and_refused(gallery: Gallery) -> None:
    shutil.copy(gallery.manifest(0), gallery.manifest(2))
    expect_found(gallery.check(), gallery.manifest(2))
    assert gallery.plan(gallery.points[2]).code == ExitCode.DAMAGED
    # An older one in silence would be what the forger wants.
    latest = gallery.stage.ask("point", "show", "latest")
    assert latest.code == ExitCode.DAMAGED
    expect_refused(latest, latest.error["type"], gallery.points[2])


def test_the_exit_code_of_damage_is_that_of_a_real_process(gallery: Gallery) -> None:
    harmed = gallery.largest("packs")[0]
    flip(harmed)
    checked = gallery.stage.run("repository", "check", "--read-data")
    expect_found(checked, harmed)
    harmed_point = gallery.stage.run("point", "cat", "latest", "Secret", f"{gallery.stage.namespace}/bulky")
    expect_refused(harmed_point, "Damaged", harmed.name)


def swap(first: Path, second: Path) -> None:
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)


@pytest.mark.parametrize("harm", [flip, truncate])
def test_a_harmed_record_of_what_was_deleted_is_named_and_nothing_goes_on_without_it(
    gallery: Gallery, harm: Callable[[Path], None]
) -> None:
    """Without it nobody knows which points and files may still be relied on."""
    deleted = gallery.stage.ask("point", "delete", gallery.points[0])
    assert deleted.code == ExitCode.WHOLE
    (record,) = (gallery.folder / "condemned").iterdir()
    sound = record.read_bytes()
    harm(record)
    backup = gallery.stage.ask("point", "create", *gallery.stage.selection)
    for ended in (gallery.check(), gallery.plan(gallery.points[2]), gallery.stage.ask("repository", "prune"), backup):
        assert ended.code == ExitCode.DAMAGED
        expect_refused(ended, ended.error["type"], f"condemned/{record.name}")
    record.write_bytes(sound)
    assert gallery.plan(gallery.points[2]).code == ExitCode.WHOLE
    assert gallery.points[0] not in gallery.stage.points()
