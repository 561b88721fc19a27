"""`strongroom repository allow` lets in whom it names, with the root key alone, and as often as it is said."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.repository.errors import ReadOnly, WrongKey
from strongroom.dataplane.repository.keyfile import HolderKeys, KeyFile
from strongroom.dataplane.repository.repository import Repository


class Place:
    """A repository, and an extension that asks to be let in."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.url = f"file://{folder}/store"
        self.run("init", *options)
        self.identity = pyrage.x25519.Identity.generate()
        self.writer = Ed25519PrivateKey.generate()
        self.recipient = str(self.identity.to_public())
        self.public = base64.b64encode(self.writer.public_key().public_bytes_raw()).decode()

    def run(self, *words: str, expect: int = 0, key: str = "key.json") -> Any:
        where = ["--repository", self.url, "--key-file", str(self.folder / key), "--output", "json"]
        done = subprocess.run(
            [Path(sys.executable).parent / "strongroom", "repository", *words, *where],
            env={"HOME": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout else json.loads(done.stderr.splitlines()[-1])["error"]

    async def open(self) -> Repository:
        root = base64.b64decode(self.run("info")["rootKey"])
        return await Repository.open(await open_store(self.url), HolderKeys(root, str(self.identity), self.writer))


async def test_whoever_is_let_in_may_add_recovery_points_and_delete_none(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for _ in range(2):
        told = place.run("allow", "--recipient", place.recipient, "--writer", place.public)
    repository = await place.open()
    assert repository.require_writer() == told["writer"]
    with pytest.raises(ReadOnly):
        repository.require_pruner()
    assert place.run("check")["sound"]


def test_a_repository_without_encryption_is_refused_because_no_extension_opens_one(tmp_path: Path) -> None:
    place = Place(tmp_path, "--no-encryption")
    refused = place.run("allow", "--recipient", place.recipient, "--writer", place.public, expect=2)
    assert "not encrypted" in refused["message"]


async def test_before_that_it_opens_nothing(tmp_path: Path) -> None:
    with pytest.raises(WrongKey):
        await Place(tmp_path).open()


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for recipient, writer in (
        ("age1x", place.public),
        (place.recipient, "no base64"),
        (place.recipient, "c2hvcnQ="),
        (str(place.identity), place.public),
    ):
        refused = place.run("allow", "--recipient", recipient, "--writer", writer, expect=2)
        assert str(place.identity) not in json.dumps(refused)


async def test_the_key_file_of_another_repository_lets_nobody_in(tmp_path: Path) -> None:
    place = Place(tmp_path)
    KeyFile.generate("0" * 32, encryption=True).save(tmp_path / "other.json")
    place.run("allow", "--recipient", place.recipient, "--writer", place.public, expect=4, key="other.json")
    with pytest.raises(WrongKey):
        await place.open()
