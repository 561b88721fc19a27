"""A home is copied whole while it is written to, and put back whole or not at all."""

import os
import sqlite3
import tarfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from strongroom.controlplane.home import Home, HomeError
from strongroom.controlplane.home_copy import HEADER, INCOMING, CopyRefused, copy_home, put_home_back
from strongroom.controlplane.state.database import Database

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    opened = Home.open(folder)
    Database.open(opened.database_url, opened.secret_key).close()
    pair = sqlite3.connect(folder / "workflows.sqlite")
    pair.execute("PRAGMA journal_mode=WAL")
    pair.execute("CREATE TABLE turns (n INTEGER)")
    pair.close()
    for name in (
        "tls/ca.key",
        "recovery.pub",
        "clusters/abc/token",
        ".ready.json.12",
        "storage/acc/con/packs/p.parquet",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "storage/acc/con/points/one").mkdir(parents=True)
    (folder / "storage/acc/con/points/one/manifest.json").write_text("{}")
    (folder / "storage/acc/con/.tmp").mkdir()
    (folder / "storage/acc/con/.tmp/half").write_text("half")
    return folder


def copy(home: Path, path: Path, *, storage: bool = False) -> list[str]:
    copy_home(home, path, with_storage=storage, now=NOW, version="1")
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_the_copy_has_everything_but_storage_and_temporary_files(home: Path, tmp_path: Path) -> None:
    names = copy(home, tmp_path / "copy.tar")
    assert set(names) == {
        HEADER,
        "state.sqlite",
        "workflows.sqlite",
        "config.json",
        "secret.key",
        "tls/ca.key",
        "recovery.pub",
        "clusters/abc/token",
    }
    assert (tmp_path / "copy.tar").stat().st_mode & 0o777 == 0o600
    assert [f.name for f in tmp_path.iterdir() if f.name.startswith(".")] == []


def test_with_storage_manifests_come_before_what_they_name(home: Path, tmp_path: Path) -> None:
    names = copy(home, tmp_path / "copy.tar", storage=True)
    manifest = names.index("storage/acc/con/points/one/manifest.json")
    assert manifest < names.index("storage/acc/con/packs/p.parquet")
    assert not [name for name in names if ".tmp" in name]


def test_what_was_put_back_is_the_same_home(home: Path, tmp_path: Path) -> None:
    before = Home.open(home)
    with_secret = Database.open(before.database_url, before.secret_key)
    with with_secret.write() as tx:
        tx.secrets.put("a", b"b")
    copy(home, tmp_path / "copy.tar", storage=True)  # the database is open, and its -wal holds the secret
    with_secret.close()
    back = tmp_path / "back"
    put_home_back(back, tmp_path / "copy.tar")
    after = Home.open(back)
    assert after.config == before.config
    reopened = Database.open(after.database_url, after.secret_key)
    with reopened.read() as tx:
        assert tx.secrets.get("a") == b"b"
    reopened.close()
    assert (back / "storage/acc/con/packs/p.parquet").read_text() == "storage/acc/con/packs/p.parquet"
    assert {oct(p.stat().st_mode & 0o077) for p in back.rglob("*")} == {"0o0"}


def test_both_databases_are_of_one_instant(home: Path, tmp_path: Path) -> None:
    """A writer counts up in both, the workflows' first: the copy never has the state ahead of the workflows."""
    stop = threading.Event()
    begun = threading.Event()

    def count() -> None:
        state = sqlite3.connect(home / "state.sqlite", isolation_level=None, timeout=20)
        workflows = sqlite3.connect(home / "workflows.sqlite", isolation_level=None, timeout=20)
        state.execute("CREATE TABLE turns (n INTEGER)")
        n = 0
        while not stop.is_set():
            n += 1
            workflows.execute("INSERT INTO turns VALUES (?)", (n,))
            state.execute("INSERT INTO turns VALUES (?)", (n,))
            begun.set()
        state.close()
        workflows.close()

    writer = threading.Thread(target=count)
    writer.start()
    try:
        assert begun.wait(20)
        for turn in range(5):
            copy(home, tmp_path / f"{turn}.tar")
    finally:
        stop.set()
        writer.join()
    for turn in range(5):
        put_home_back(tmp_path / f"home-{turn}", tmp_path / f"{turn}.tar")
        newest = [
            sqlite3.connect(tmp_path / f"home-{turn}" / name).execute("SELECT max(n) FROM turns").fetchone()[0]
            for name in ("state.sqlite", "workflows.sqlite")
        ]
        assert newest[1] - 1 <= newest[0] <= newest[1]


def test_a_home_is_put_back_into_an_empty_folder_only(home: Path, tmp_path: Path) -> None:
    copy(home, tmp_path / "copy.tar")
    with pytest.raises(CopyRefused, match="not empty"):
        put_home_back(home, tmp_path / "copy.tar")
    (tmp_path / "empty").mkdir()
    put_home_back(tmp_path / "empty", tmp_path / "copy.tar")
    assert Home.open(tmp_path / "empty").config == Home.open(home).config


def test_a_stopped_restore_is_no_home_and_can_be_repeated(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(home, tmp_path / "copy.tar")
    back = tmp_path / "back"
    renamed = 0
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        nonlocal renamed
        renamed += 1
        if renamed == 4:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            put_home_back(back, tmp_path / "copy.tar")
    assert not (back / "config.json").exists()
    with pytest.raises(HomeError):
        Home.open(back)
    put_home_back(back, tmp_path / "copy.tar")
    assert Home.open(back).config == Home.open(home).config
    assert not (back / INCOMING).exists()


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out"])
def test_a_file_that_would_land_elsewhere_is_refused(home: Path, tmp_path: Path, name: str) -> None:
    copy(home, tmp_path / "copy.tar")
    with tarfile.open(tmp_path / "copy.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(CopyRefused, match="which no home has"):
        put_home_back(tmp_path / "back", tmp_path / "copy.tar")
    assert not (tmp_path / "out").exists()


def test_a_link_is_refused(home: Path, tmp_path: Path) -> None:
    copy(home, tmp_path / "copy.tar")
    link = tarfile.TarInfo("clusters/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "copy.tar", "a") as tar:
        tar.addfile(link)
    with pytest.raises(CopyRefused, match="which no home has"):
        put_home_back(tmp_path / "back", tmp_path / "copy.tar")


def test_a_copy_that_was_cut_off_is_refused(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.tar"
    copy(home, path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(CopyRefused):
        put_home_back(tmp_path / "back", path)
    assert not (tmp_path / "back" / "config.json").exists()


def test_nothing_is_overwritten_and_nothing_else_is_taken_for_a_home(home: Path, tmp_path: Path) -> None:
    (tmp_path / "there.tar").write_text("precious")
    with pytest.raises(CopyRefused, match="exists"):
        copy(home, tmp_path / "there.tar")
    assert (tmp_path / "there.tar").read_text() == "precious"
    with pytest.raises(CopyRefused, match="not a home"):
        copy(tmp_path, tmp_path / "copy.tar")
    with pytest.raises(CopyRefused):
        put_home_back(tmp_path / "back", tmp_path / "there.tar")


def test_a_home_whose_database_is_elsewhere_is_copied_and_says_so(home: Path, tmp_path: Path) -> None:
    for name in ("state.sqlite", "workflows.sqlite"):
        (home / name).unlink()
    done = copy_home(home, tmp_path / "copy.tar", with_storage=False, now=NOW, version="1")
    assert done.header.databases == ()
    put_home_back(tmp_path / "back", tmp_path / "copy.tar")
    assert Home.open(tmp_path / "back").config == Home.open(home).config
