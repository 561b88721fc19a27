"""Images are what container runtimes expect, and depend on nothing but their files."""

import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest

from strongroom.testbed.images import Layer, write_image
from strongroom.testbed.python_images import containerfile, required


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "tool").write_text("#!/bin/sh\n")
    (folder / "bin" / "tool").chmod(0o700)
    (folder / "bin" / "alias").symlink_to("tool")
    os.utime(folder / "bin" / "tool", (1_000_000_000.75, 1_000_000_000.75))
    return folder


def test_a_layer_belongs_to_root_and_any_user_can_read_it(root: Path, tmp_path: Path) -> None:
    layer = Layer.make(root, tmp_path / "layer")
    assert layer.digest == hashlib.sha256((tmp_path / "layer").read_bytes()).hexdigest()
    with tarfile.open(layer.file) as files:
        tool, folder = files.getmember("./bin/tool"), files.getmember("./bin")
        assert (tool.uid, tool.gid, tool.uname, tool.mtime) == (0, 0, "", 1_000_000_000)
        assert tool.mode & 0o777 == 0o744
        assert folder.mode & 0o755 == 0o755
        assert files.getmember("./bin/alias").linkname == "tool"


def test_the_same_files_make_the_same_layer_whenever_their_folders_were_made(root: Path, tmp_path: Path) -> None:
    first = Layer.make(root, tmp_path / "first")
    os.utime(root / "bin", (1, 1))
    assert Layer.make(root, tmp_path / "second").digest == first.digest
    assert Layer.read(tmp_path / "first") == first


def test_an_archive_names_its_image_and_the_digest_of_each_layer_in_order(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    layers = [Layer.make(root, tmp_path / "lower"), Layer.make(tmp_path / "other", tmp_path / "upper")]
    archive = tmp_path / "image.tar"
    write_image(archive, "localhost/tool:1", layers, ["/bin/tool"], user="65534", variables={"LANG": "C"})
    with tarfile.open(archive) as image:

        def content(name: str) -> bytes:
            file = image.extractfile(name)
            assert file is not None
            return file.read()

        [manifest] = json.loads(content("manifest.json"))
        assert manifest["RepoTags"] == ["localhost/tool:1"]
        configuration = content(manifest["Config"])
        assert manifest["Config"] == f"{hashlib.sha256(configuration).hexdigest()}.json"
        document = json.loads(configuration)
        digests = [f"sha256:{hashlib.sha256(content(name)).hexdigest()}" for name in manifest["Layers"]]
        assert document["rootfs"] == {"type": "layers", "diff_ids": digests}
        assert digests == [f"sha256:{layer.digest}" for layer in layers]
        assert document["config"]["Entrypoint"] == ["/bin/tool"]
        assert document["config"]["User"] == "65534"
        assert "LANG=C" in document["config"]["Env"]


def test_what_the_extension_needs_is_found_without_what_only_extras_need() -> None:
    found = required("strongroom")
    assert {"aiohttp", "pyarrow", "yarl", "h2"} <= set(found)  # the last by an extra of what we need
    assert not {"strongroom", "dbos", "cyclopts", "pytest"} & set(found)
    assert len(found) == len(set(found))


def test_the_container_file_is_the_one_that_the_code_makes() -> None:
    made = Path(__file__).parents[2] / "deploy" / "Containerfile"
    assert made.read_text() == containerfile(), (
        "make it anew: python -m strongroom.testbed.python_images deploy/Containerfile"
    )
