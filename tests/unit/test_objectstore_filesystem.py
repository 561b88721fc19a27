"""What the filesystem store promises beyond the contract: modes, crash leftovers, full disks, lost mounts."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from strongroom.dataplane.objectstore import (
    Key,
    ObjectExists,
    StoreDenied,
    StoreMissing,
    StoreMisused,
    StoreUnavailable,
    open_store,
    parse_key,
)
from strongroom.dataplane.objectstore.filesystem import LEFTOVER_SECONDS, TEMPORARY, FilesystemStore

KEY = parse_key("packs/one")

# Runs in a process of its own, whose limit or mount makes the disk full: argv[1] is the root.
FILL = """
import asyncio, os, sys
from strongroom.dataplane.objectstore import StoreFull, open_store, parse_key

async def main(root):
    store = await open_store(f"file://{root}", create=True)
    await store.put(parse_key("packs/small"), b"x")
    try:
        await store.put(parse_key("packs/large"), bytes(3 << 20))
    except StoreFull as error:
        assert error.hint and os.listdir(f"{root}/.tmp") == [] and os.listdir(f"{root}/packs") == ["small"]
        await store.put(parse_key("packs/next"), b"fits")
        print("full, clean, usable")

asyncio.run(main(sys.argv[1]))
"""

# Writes objects of 400,000 bytes for ever and tells each one's number when it is durable.
WRITER = """
import asyncio, sys
from strongroom.dataplane.objectstore import open_store, parse_key

async def main(root):
    store = await open_store(f"file://{root}", create=True)
    for n in range(10**6):
        await store.put(parse_key(f"packs/{n}"), b"x" * 400_000)
        print(n, flush=True)

asyncio.run(main(sys.argv[1]))
"""


def modes(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}


async def names(store: FilesystemStore) -> list[Key]:
    return sorted([info.key async for info in store.list("")])


async def test_folders_and_files_are_the_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = FilesystemStore(tmp_path / "new" / "root", create=True)
        await store.put(parse_key("a/b/c"), b"x")
    finally:
        os.umask(before)
    assert modes(tmp_path) == {
        "new": 0o700,
        "new/root": 0o700,
        "new/root/.tmp": 0o700,
        "new/root/a": 0o700,
        "new/root/a/b": 0o700,
        "new/root/a/b/c": 0o600,
    }


async def test_a_missing_folder_is_an_error_unless_it_may_be_made(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/absent"
    with pytest.raises(StoreMissing) as raised:
        await open_store(url)
    assert raised.value.hint
    assert not (tmp_path / "absent").exists()
    await open_store(url, create=True)
    await open_store(url)


@pytest.mark.parametrize("create", [False, True])
async def test_a_file_in_place_of_the_folder_is_a_usage_error(tmp_path: Path, create: bool) -> None:
    (tmp_path / "file").write_text("x")
    for path in ("file", "file/below"):
        with pytest.raises(StoreMisused):
            await open_store(f"file://{tmp_path}/{path}", create=create)


async def test_opening_and_reading_write_nothing(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)
    assert await names(store) == []
    assert list(tmp_path.iterdir()) == []


async def test_what_a_crash_left_is_invisible_and_swept_after_a_day(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)
    await store.put(KEY, b"x")
    old, young = tmp_path / TEMPORARY / "old", tmp_path / TEMPORARY / "young"
    for path, age in ((old, LEFTOVER_SECONDS + 60), (young, LEFTOVER_SECONDS - 3600)):
        path.write_bytes(b"half an obj")
        os.utime(path, (time.time() - age, time.time() - age))
    assert await names(store) == [KEY]
    later = FilesystemStore(tmp_path)
    assert await names(later) == [KEY]
    await later.put(parse_key("packs/two"), b"y")
    assert not old.exists()
    assert young.exists()


def kill_writer_after(objects: int, root: Path) -> int:
    """Let a process write to *root* until it has told of *objects* objects, kill it, return the last number told."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(objects)]
        process.kill()
        return told[-1]


@pytest.mark.parametrize("objects", [1, 7, 15])
async def test_a_process_killed_while_it_writes_leaves_whole_objects_only(tmp_path: Path, objects: int) -> None:
    root = tmp_path / "root"
    last = kill_writer_after(objects, root)
    infos = [info async for info in FilesystemStore(root).list("")]
    assert {info.size for info in infos} == {400_000}
    assert {parse_key(f"packs/{n}") for n in range(last + 1)} <= {info.key for info in infos}


def test_an_object_that_exceeds_the_file_size_limit_leaves_nothing(tmp_path: Path) -> None:
    script = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n" + FILL
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "root"], capture_output=True, text=True, check=False
    )
    assert done.stdout == "full, clean, usable\n", done.stderr


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    mount = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], check=False).returncode:
        pytest.skip("this machine allows no mounts in namespaces")
    shell = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1/root"'
    command = [*mount, "sh", "-c", shell, "sh", str(tmp_path), sys.executable, FILL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "full, clean, usable\n", done.stderr


async def test_a_lost_mount_is_unavailable_and_never_written_below(tmp_path: Path) -> None:
    root = tmp_path / "mounted"
    store = FilesystemStore(root, create=True)
    await store.put(KEY, b"x")
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreMissing):
        await store.put(parse_key("packs/two"), b"y")
    root.mkdir()
    with pytest.raises(StoreUnavailable):
        await store.put(parse_key("packs/two"), b"y")
    with pytest.raises(StoreUnavailable):
        await names(store)
    assert list(root.iterdir()) == []


async def test_a_write_survives_the_removal_of_its_empty_folder_by_another_program(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)
    await store.put(KEY, b"x")
    await store.delete([KEY])
    (tmp_path / "packs").rmdir()
    with pytest.raises(StoreUnavailable):
        await store.put(KEY, b"y")
    await store.put(KEY, b"y")
    assert await store.get(KEY) == b"y"


async def test_foreign_files_and_folders_are_no_objects(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir(0)
    (tmp_path / "notes ~").write_text("x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    store = FilesystemStore(tmp_path)
    await store.put(KEY, b"x")
    assert await names(store) == [KEY]


async def test_a_key_that_never_was_checked_cannot_leave_the_folder(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "root", create=True)
    for escape in ("../outside", "/outside", "a/../../outside"):
        with pytest.raises(StoreMisused):
            await store.put(Key(escape), b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


async def test_a_key_below_an_object_is_misuse_when_written(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)
    await store.put(parse_key("file"), b"x")
    with pytest.raises(StoreMisused):
        await store.put(parse_key("file/below"), b"x")


async def test_filesystems_without_hard_links_create_conditionally_by_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    store = FilesystemStore(tmp_path)
    await store.put(KEY, b"first")
    with pytest.raises(ObjectExists):
        await store.put(KEY, b"second")
    assert await store.get(KEY) == b"first"
    assert list((tmp_path / TEMPORARY).iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_of_somebody_else_is_denied(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)
    tmp_path.chmod(0o500)
    with pytest.raises(StoreDenied) as raised:
        await store.put(KEY, b"x")
    tmp_path.chmod(0o700)
    assert raised.value.hint


async def test_a_read_only_filesystem_is_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The system's answer is made here because only root can mount.
    def read_only(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    store = FilesystemStore(tmp_path)
    await store.put(KEY, b"x")
    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StoreDenied):
        await store.put(parse_key("packs/two"), b"y")
