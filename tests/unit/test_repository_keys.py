"""Who may open a repository: what a holder without the root private key can do, and what it refuses."""

from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import KeyFileInvalid, WrongKey
from strongroom.dataplane.repository.keyfile import HolderKeys, KeyFile
from strongroom.dataplane.repository.repository import Repository
from strongroom.testbed.builders import new_repository


def memory(tmp_path: Path, *, create: bool = True) -> MemoryStore:
    return MemoryStore(f"keys-{tmp_path}".replace("/", "-"), create=create)


def holder(root_public: bytes) -> HolderKeys:
    return HolderKeys(root_public, str(pyrage.x25519.Identity.generate()), Ed25519PrivateKey.generate())


async def test_a_holder_refuses_a_repository_with_another_root(tmp_path: Path) -> None:
    store = memory(tmp_path)
    await new_repository(store, tmp_path)
    other = KeyFile.generate("00" * 16, encryption=True)
    with pytest.raises(WrongKey, match="another root key"):
        await Repository.open(store, holder(other.root_public))


async def test_a_holder_whom_nobody_added_cannot_open_the_repository(tmp_path: Path) -> None:
    store = memory(tmp_path)
    await new_repository(store, tmp_path)
    keys = KeyFile.load(tmp_path / "key.json")
    with pytest.raises(WrongKey, match="wrapped for this recipient"):
        await Repository.open(store, holder(keys.root_public))


async def test_an_encrypted_repository_that_suddenly_says_it_is_not_is_refused(tmp_path: Path) -> None:
    """Else who can write repository.json would have the next backup stored in the clear."""
    store = memory(tmp_path)
    await new_repository(store, tmp_path)
    keys = KeyFile.load(tmp_path / "key.json")
    config = await store.get(paths.CONFIG)
    await store.put(paths.CONFIG, config.replace(b"aes-256-gcm", b"none"), if_absent=False)
    for opener in (keys, holder(keys.root_public)):
        with pytest.raises(WrongKey, match="nothing is encrypted"):
            await Repository.open(store, opener)


@pytest.mark.parametrize(("root", "recipient"), [(b"short", None), (None, "AGE-SECRET-KEY-1NOT"), (None, "")])
def test_what_cannot_be_keys_is_refused_without_being_repeated(root: bytes | None, recipient: str | None) -> None:
    good_root = KeyFile.generate("00" * 16, encryption=True).root_public
    with pytest.raises(KeyFileInvalid) as caught:
        HolderKeys(
            good_root if root is None else root,
            str(pyrage.x25519.Identity.generate()) if recipient is None else recipient,
            Ed25519PrivateKey.generate(),
        )
    assert "1NOT" not in str(caught.value)
