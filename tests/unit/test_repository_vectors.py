"""Test vectors of docs/format/repository.md: bytes that every implementation must agree on."""

import base64
import hashlib
import hmac
import re
from pathlib import Path

import duckdb
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.dataplane.objectstore.filesystem import FilesystemStore
from strongroom.dataplane.repository.sealing import Sealing
from strongroom.dataplane.repository.signing import sign, verify, writer_id
from strongroom.dataplane.repository.tables import cuts_after
from strongroom.testbed.builders import back_up, config_map, new_repository

KEY = bytes(range(32))
# Sealed once under KEY and salt 0x07 x 32 at packs/vector.parquet; data: b"strongroom".
SEALED = base64.b64decode("U1JTRUFMAAEHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHB0EckZP1EPE3nV5+Cm3cnzkO/F8nWcOWPYTa")


def document() -> str:
    return (Path(__file__).parents[2] / "docs/format/repository.md").read_text()


def test_a_sealed_file_of_version_1_opens() -> None:
    assert Sealing(KEY).open("packs/vector.parquet", SEALED) == b"strongroom"


def test_the_digest_is_keyed() -> None:
    digest = Sealing(KEY).digest(b"{}")
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"strongroom/digest/v1").derive(KEY)
    assert digest == hmac.digest(derived, b"{}", "sha256")
    assert digest.hex() == "c74e5b73ee61c107ba18a94d2b31798c4948f4e21cf7ce644799a304c32c0fa5"


def test_a_signature_of_version_1_verifies() -> None:
    key = Ed25519PrivateKey.from_private_bytes(KEY)
    public = key.public_key().public_bytes_raw()
    envelope = sign("points/x/manifest.json", b'{"a":1}', writer_id(public), key)
    assert hashlib.sha256(envelope).hexdigest() == "39240662f219f20133076e04c8ca2dbb26e0090c473f13c3dc0142ff11a88e2a"
    assert verify("points/x/manifest.json", envelope, {writer_id(public): public})[0] == b'{"a":1}'


def test_segments_are_cut_where_the_document_says() -> None:
    assert [n for n in range(10_000) if cuts_after(f"shop/c{n:05}".encode())] == [
        127,
        2410,
        4693,
        4915,
        5373,
        7418,
        7644,
        9558,
        9704,
        9882,
    ]


async def test_the_documents_queries_read_an_unencrypted_repository(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    repository = await new_repository(FilesystemStore(folder, create=True), tmp_path, encryption=False)
    _, first = await back_up(repository, [config_map("a", "one"), config_map("b", "two")])
    await back_up(repository, [config_map("a", "changed")])
    queries = re.findall(r"```sql\n(.*?)```", document(), re.DOTALL)
    assert len(queries) == 2
    for query in queries:
        text = query.replace("REPOSITORY", str(folder)).replace("POINT", first.id).replace("'Secret'", "'ConfigMap'")
        rows = duckdb.sql(text).fetchall()
        assert {(ns, name) for ns, name, _ in rows} == {("shop", "a"), ("shop", "b")}
    assert [blob.count('"one"') for _, name, blob in rows if name == "a"] == [1]
