"""Seals what a repository stores, and opens it again, whole or any range of it. Pure.

The bytes are described in docs/format/repository.md, "Sealed files". `Sealing` is the sealed form, `Plain` the form of
a repository made without encryption; both give digests of blobs.
"""

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.dataplane.repository.errors import Damaged
from strongroom.dataplane.repository.model import Digest

FORMAT_VERSION = 1
KEY_BYTES = 32
SALT_BYTES = 32
TAG_BYTES = 16
SEGMENT_BYTES = 65_536  # any range opens alone at 75 % of whole-file speed: design.md, section 6
LOCK_BYTES = 2_048
"""hashlib lets go of the interpreter's lock from this many bytes on. Beside a working thread, getting it back costs
more than the hash: 8.0 us for a blob of 2.6 KB, 3.0 us in pieces below this."""
WHOLE_BYTES = 65_536  # larger ones are worth letting others work
MAGIC = b"SRSEAL\x00\x01"
HEADER_BYTES = len(MAGIC) + SALT_BYTES


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """What goes to the store for one file, and the salt (hex, "" when not sealed) it was sealed under."""

    data: bytes
    salt: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the stored bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()


class Sealer(Protocol):
    """How a repository's files become stored bytes. All methods are pure but for the salt's randomness."""

    encrypted: bool

    def seal(self, path: str, data: bytes | memoryview) -> StoredBytes:
        """Return the bytes to store for *data* under *path*."""

    def open(self, path: str, stored: bytes) -> bytes:
        """Return the data of a whole stored file. Raises `Damaged`."""

    def plain_length(self, stored_length: int) -> int:
        """Return the length of the data of a file of *stored_length* bytes. Raises `Damaged` if no file has it."""

    def stored_range(self, start: int, end: int, stored_length: int) -> tuple[int, int]:
        """Return the range (start, end) of stored bytes that `open_range` needs for data bytes start..end."""

    def open_range(self, path: str, stored_length: int, salt: str, at: int, stored: bytes) -> tuple[int, bytes]:
        """Open *stored*, read at *at* for a `stored_range`; return the data and its own offset. Raises `Damaged`."""

    def digest(self, blob: bytes) -> Digest:
        """Return the digest by which a blob is known."""


class Plain:
    """Files as they are; digests are bare SHA-256. For repositories made with `--no-encryption`."""

    encrypted = False

    def seal(self, path: str, data: bytes | memoryview) -> StoredBytes:
        return StoredBytes(bytes(data), "")

    def open(self, path: str, stored: bytes) -> bytes:
        return stored

    def plain_length(self, stored_length: int) -> int:
        return stored_length

    def stored_range(self, start: int, end: int, stored_length: int) -> tuple[int, int]:
        return start, min(end, stored_length)

    def open_range(self, path: str, stored_length: int, salt: str, at: int, stored: bytes) -> tuple[int, bytes]:
        return at, stored

    def digest(self, blob: bytes) -> Digest:
        return Digest(hashlib.sha256(blob).digest())


class Sealing:
    """AES-256-GCM in segments under one key a file, all derived from the repository key."""

    encrypted = True

    def __init__(self, repository_key: bytes) -> None:
        if len(repository_key) != KEY_BYTES:
            raise ValueError(f"a repository key has {KEY_BYTES} bytes, not {len(repository_key)}")
        self._key = repository_key
        block = _derive(repository_key, b"", b"strongroom/digest/v1").ljust(hashlib.sha256().block_size, b"\0")
        # HMAC by two prepared states: 0.8 to 2.2 us a blob where hmac.digest takes 1.8 to 3.2 (same bytes).
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def seal(self, path: str, data: bytes | memoryview) -> StoredBytes:
        salt = os.urandom(SALT_BYTES)
        cipher = self._cipher(salt, path)
        associated = _associated(path)
        view = memoryview(data)
        count = _segments(len(view))
        parts = [MAGIC, salt]
        for number in range(count):
            piece = view[number * SEGMENT_BYTES : (number + 1) * SEGMENT_BYTES]
            parts.append(cipher.encrypt(_nonce(number, last=number == count - 1), piece, associated))
        return StoredBytes(b"".join(parts), salt.hex())

    def open(self, path: str, stored: bytes) -> bytes:
        if stored[: len(MAGIC)] != MAGIC:
            raise Damaged(f"{path} is not a sealed file", hint=_RESTORE_COPY)
        try:
            self.plain_length(len(stored))
        except Damaged as error:
            # A person has to find the file.
            raise Damaged(f"{path} was cut off: its {error.message}", hint=error.hint) from error
        salt = stored[len(MAGIC) : HEADER_BYTES]
        _, data = self.open_range(path, len(stored), salt.hex(), HEADER_BYTES, stored[HEADER_BYTES:])
        return data

    def plain_length(self, stored_length: int) -> int:
        body = stored_length - HEADER_BYTES
        count = -(-body // (SEGMENT_BYTES + TAG_BYTES))
        if body < TAG_BYTES or body - (count - 1) * (SEGMENT_BYTES + TAG_BYTES) < TAG_BYTES:
            raise Damaged(f"{stored_length} bytes are no whole sealed file", hint=_RESTORE_COPY)
        return body - count * TAG_BYTES

    def stored_range(self, start: int, end: int, stored_length: int) -> tuple[int, int]:
        first = start // SEGMENT_BYTES
        past = -(-end // SEGMENT_BYTES)
        step = SEGMENT_BYTES + TAG_BYTES
        return HEADER_BYTES + first * step, min(HEADER_BYTES + past * step, stored_length)

    def open_range(self, path: str, stored_length: int, salt: str, at: int, stored: bytes) -> tuple[int, bytes]:
        step = SEGMENT_BYTES + TAG_BYTES
        first, odd = divmod(at - HEADER_BYTES, step)
        count = _segments(self.plain_length(stored_length))
        if odd or first < 0:
            raise ValueError("a range of a sealed file starts at a segment")
        cipher = self._cipher(bytes.fromhex(salt), path)
        associated = _associated(path)
        view = memoryview(stored)
        out = []
        try:
            for index, offset in enumerate(range(0, len(view), step)):
                number = first + index
                nonce = _nonce(number, last=number == count - 1)
                out.append(cipher.decrypt(nonce, view[offset : offset + step], associated))
        except InvalidTag as error:
            raise Damaged(
                f"{path} does not open: its bytes were changed, belong to another file, or to another repository",
                hint=_RESTORE_COPY,
            ) from error
        return first * SEGMENT_BYTES, b"".join(out)

    def digest(self, blob: bytes) -> Digest:
        inner = self._inner.copy()
        if LOCK_BYTES <= len(blob) <= WHOLE_BYTES:
            view = memoryview(blob)
            for at in range(0, len(view), LOCK_BYTES - 1):
                inner.update(view[at : at + LOCK_BYTES - 1])
        else:
            inner.update(blob)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return Digest(outer.digest())

    def _cipher(self, salt: bytes, path: str) -> AESGCM:
        return AESGCM(_derive(self._key, salt, b"strongroom/file/v1\x00" + path.encode()))


_RESTORE_COPY = "Put the file back from a copy of the bucket, or use a recovery point that does not need it"


def _derive(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt or None, info=info).derive(key)


def _segments(plain_length: int) -> int:
    return max(1, -(-plain_length // SEGMENT_BYTES))


def _nonce(number: int, *, last: bool) -> bytes:
    return struct.pack(">Q3xB", number, last)


def _associated(path: str) -> bytes:
    kind = path.partition("/")[0]
    return struct.pack(">I", FORMAT_VERSION) + kind.encode() + b"\x00" + path.encode()
