"""Opens a repository, or makes one, and lists its recovery points."""

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.dataplane.objectstore.create import create_once, probe_conditional_create
from strongroom.dataplane.objectstore.errors import ObjectExists, ObjectNotFound
from strongroom.dataplane.objectstore.port import Key, ObjectStore
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import (
    Damaged,
    KeyMissing,
    NoRepository,
    NoSuchPoint,
    NotTrusted,
    ReadOnly,
    RepositoryError,
    RepositoryExists,
    UnknownFormat,
    WrongKey,
)
from strongroom.dataplane.repository.files import Files
from strongroom.dataplane.repository.keyfile import HolderKeys, KeyFile, default_key_path
from strongroom.dataplane.repository.model import Manifest, PointId
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.records import PruneRecords, read_records
from strongroom.dataplane.repository.sealing import FORMAT_VERSION, KEY_BYTES, Plain, Sealer, Sealing
from strongroom.dataplane.repository.signing import ROOT, public_bytes, sign, verify, writer_id

MAX_RUN_SECONDS = 86_400  # no backup of ours takes a day; prune waits twice as long: design.md, section 6
FORMAT_NAME = "strongroom-repository"
AES_256_GCM = "aes-256-gcm"
NO_ENCRYPTION = "none"
READERS = 16  # manifests read at once: hides a store's latency within a driver's usual pool of connections


class RepositoryInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The content of repository.json. `root_key` is base64 of the raw Ed25519 public key."""

    format: str
    version: int
    id: str
    features: tuple[str, ...] = ()
    encryption: str
    max_run_seconds: int
    root_key: str
    created: str

    @property
    def encrypted(self) -> bool:
        return self.encryption != NO_ENCRYPTION


class _Recipient(msgspec.Struct, rename="camel", kw_only=True, tag="recipient", tag_field="type"):
    """`wrapped` is base64 of the repository key in the age format, for `recipient`."""

    scheme: str
    recipient: str
    wrapped: str


class _Writer(msgspec.Struct, rename="camel", kw_only=True, tag="writer", tag_field="type"):
    """`public_key` is base64 of the raw Ed25519 public key."""

    public_key: str


class PointInfo(msgspec.Struct, frozen=True):
    """A recovery point as a list shows it: its manifest, or the problem that hides it; void ones have both."""

    id: PointId
    manifest: Manifest | None
    problem: str = ""
    void: bool = False


class Repository:
    """An opened repository. `writer` is the id of the key that this process signs with, None when it only reads.

    `strays` are the files below keys/ that are not used, because this repository's root did not sign them: why, by key.
    """

    def __init__(
        self,
        store: ObjectStore,
        info: RepositoryInfo,
        config_sha256: str,
        sealer: Sealer,
        writers: Mapping[str, bytes],
        signing_key: Ed25519PrivateKey | None,
        strays: Mapping[str, str],
    ) -> None:
        self.store = store
        self.info = info
        self.config_sha256 = config_sha256
        self.files = Files(store, sealer)
        self.writers = writers
        self.strays = strays
        self.writer = writer_id(public_bytes(signing_key)) if signing_key else None
        self._signing_key = signing_key

    @classmethod
    async def init(
        cls,
        store: ObjectStore,
        *,
        key_file: Path | None = None,
        encryption: bool = True,
        max_run_seconds: int = MAX_RUN_SECONDS,
    ) -> "tuple[Repository, Path]":
        """Make a repository; return it and the path of its new key file (*key_file*, else the default place).

        Raises `RepositoryExists`, `KeyFileExists`, `StoreUnsafe`. If it stops before `repository.json` is written there
        is no repository: running it again makes another and leaves a few unused files under keys/.
        """
        async for found in store.list(""):
            if found.key == paths.CONFIG:
                raise RepositoryExists(f"{store.url} holds a repository", hint="Open it, or name another place")
            if not found.key.startswith((paths.KEYS, paths.PROBE)):
                raise RepositoryExists(
                    f"{store.url} holds {found.key}, which is not Strongroom's",
                    hint="A repository wants a place of its own: name an empty folder, container or prefix",
                )
        await probe_conditional_create(store)
        repository_id = secrets.token_hex(16)
        keys = KeyFile.generate(repository_id, encryption=encryption)
        path = key_file or default_key_path(repository_id)
        # The key before the repository: a crash between them leaves a key without use, never the other way round.
        await asyncio.to_thread(keys.save, path)
        if encryption:
            identity = pyrage.x25519.Identity.from_str(keys.recipient)
            recipient = identity.to_public()
            wrapped = pyrage.encrypt(secrets.token_bytes(KEY_BYTES), [recipient])
            entry = _Recipient(scheme="age", recipient=str(recipient), wrapped=base64.b64encode(wrapped).decode())
            await _put_signed(store, paths.key_path(_recipient_id(str(recipient))), entry, keys.root)
        public = public_bytes(keys.writer)
        certificate = _Writer(public_key=base64.b64encode(public).decode())
        await _put_signed(store, paths.key_path(writer_id(public)), certificate, keys.root)
        info = RepositoryInfo(
            format=FORMAT_NAME,
            version=FORMAT_VERSION,
            id=repository_id,
            encryption=AES_256_GCM if encryption else NO_ENCRYPTION,
            max_run_seconds=max_run_seconds,
            root_key=base64.b64encode(public_bytes(keys.root)).decode(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        try:
            await create_once(store, paths.CONFIG, msgspec.json.format(msgspec.json.encode(info), indent=2))
        except ObjectExists as error:
            raise RepositoryExists(f"somebody else made a repository in {store.url} at the same time") from error
        return await cls.open(store, keys), path

    @classmethod
    async def open(cls, store: ObjectStore, keys: KeyFile | HolderKeys | None) -> "Repository":
        """Open a repository; without encryption *keys* may be None and the repository is then read only.

        Raises `NoRepository`, `UnknownFormat`, `KeyMissing`, `WrongKey`, and `NotTrusted` or `Damaged` when the files
        below keys/ that belong to *keys* are not as the root signed them.
        """
        info, config_sha256 = await read_info(store)
        root = _root_key(info)
        if keys:
            _require_same(store, info, root, keys)
        if keys is None and info.encrypted:
            raise KeyMissing(
                f"the repository {info.id} in {store.url} is encrypted and its key file was not found",
                hint=f"Name it with --key-file or STRONGROOM_KEY_FILE, or put it at {default_key_path(info.id)}",
            )
        writers: dict[str, bytes] = {}
        repository_key: bytes | None = None
        strays: dict[str, RepositoryError] = {}
        async for found in store.list(paths.KEYS):
            try:
                payload, _ = verify(found.key, await store.get(found.key), {ROOT: root})
            except (Damaged, NotTrusted) as error:
                # An init that was stopped before repository.json leaves files that a root of its own signed. Nothing
                # unsigned is ever used, so these only matter where ours is among them.
                strays[found.key] = error
                continue
            entry = _decode_key(found.key, payload)
            if isinstance(entry, _Writer):
                public = base64.b64decode(entry.public_key)
                writers[writer_id(public)] = public
            elif keys and entry.scheme == "age" and (opened := _unwrap(found.key, entry, keys)) is not None:
                repository_key = opened
        for own in _own_paths(keys) if keys else ():
            if own in strays:
                raise strays[own]
        if not info.encrypted:
            sealer: Sealer = Plain()
        elif repository_key is None:
            raise WrongKey(
                f"no key of the repository {info.id} is wrapped for this recipient",
                hint="Name a key file that was added to this repository; an extension is added by the control plane",
            )
        else:
            sealer = Sealing(repository_key)
        signing_key = keys.writer if keys and writer_id(public_bytes(keys.writer)) in writers else None
        why = {key: error.message for key, error in strays.items()}
        return cls(store, info, config_sha256, sealer, writers, signing_key, why)

    def sign(self, path: Key, payload: bytes) -> bytes:
        """Return the envelope of *payload* by this process's writer. Raises `ReadOnly`."""
        if self._signing_key is None or self.writer is None:
            raise ReadOnly(
                "this repository was opened without a key to sign with", hint="Name its key file with --key-file"
            )
        return sign(path, payload, self.writer, self._signing_key)

    def require_writer(self) -> str:
        """Return this process's writer id. Raises `ReadOnly`."""
        if self.writer is None:
            raise ReadOnly("writing needs the repository's key file", hint="Name it with --key-file")
        return self.writer

    async def records(self) -> PruneRecords:
        """Return what is condemned and what was swept."""
        return await read_records(self.files, self.writers)

    async def point_ids(self) -> list[PointId]:
        """Return the ids of all stored manifests, condemned and void ones included, sorted."""
        found = [PointId(i.key.split("/")[1]) async for i in self.store.list(paths.POINTS)]
        return sorted(set(found))

    async def points(self) -> list[PointInfo]:
        """Return the recovery points, oldest first; condemned ones are left out, untrusted ones say why."""
        records = await self.records()
        gate = asyncio.Semaphore(READERS)

        async def load(point_id: PointId) -> PointInfo:
            async with gate:
                try:
                    manifest = (await self.load(point_id)).manifest
                except RepositoryError as error:
                    return PointInfo(point_id, None, problem=str(error))
            if missing := records.void(manifest):
                return PointInfo(
                    point_id, manifest, f"void: committed too late ({missing} was swept before)", void=True
                )
            return PointInfo(point_id, manifest)

        ids = [i for i in await self.point_ids() if i not in records.condemned_points]
        infos = await asyncio.gather(*(load(i) for i in ids))
        return sorted(infos, key=lambda i: (i.manifest.finished if i.manifest else "", i.id))

    async def point(self, point_id: str) -> RecoveryPoint:
        """Return a trusted recovery point by its id, a unique prefix of it, or `latest`.

        Raises `NoSuchPoint` (condemned ones do not exist), `Damaged`, `NotTrusted`.
        """
        if not point_id:
            # The empty text begins every id: a script's unset variable must not choose a point.
            raise NoSuchPoint("the id of the recovery point is empty", hint="See them: strongroom point list")
        records = await self.records()
        if point_id == "latest":
            return await self._latest(records)
        ids = [i for i in await self.point_ids() if i.startswith(point_id) and i not in records.condemned_points]
        if len(ids) > 1 and point_id not in ids:
            raise NoSuchPoint(f"{len(ids)} recovery points start with {point_id!r}", hint="Give more of the id")
        if not ids:
            raise NoSuchPoint(f"no recovery point is called {point_id!r}", hint="See them: strongroom point list")
        point = await self.load(point_id if point_id in ids else ids[0])
        if missing := records.void(point.manifest):
            raise NoSuchPoint(
                f"the recovery point {point.id} is void: {missing} was swept before it was committed",
                hint="Take another: strongroom point create",
            )
        return point

    async def _latest(self, records: PruneRecords) -> RecoveryPoint:
        """Return the newest point: of each writer's points, numbered in order, only the newest is read.

        A damaged one is not passed over: who asks for the latest must not be given an older one in silence.
        """
        newest: RecoveryPoint | None = None
        done: set[str] = set()
        for point_id in sorted(await self.point_ids(), reverse=True):
            writer = point_id.partition("-")[0]
            if writer in done or point_id in records.condemned_points:
                continue
            try:
                point = await self.load(point_id)
            except (Damaged, NotTrusted) as error:
                message = f"the newest recovery point, {point_id}, cannot be used: {error.message}"
                raise type(error)(message, hint="Name an older one by its id: strongroom point list") from error
            if records.void(point.manifest):
                continue
            done.add(writer)
            if newest is None or point.manifest.finished > newest.manifest.finished:
                newest = point
        if newest is None:
            raise NoSuchPoint(f"{self.store.url} holds no usable recovery point", hint="Make one: point create")
        return newest

    async def load(self, point_id: str) -> RecoveryPoint:
        """Return a recovery point whose manifest is signed by a certified writer, for this place and repository.

        Raises `NoSuchPoint`, `Damaged`, `NotTrusted`.
        """
        key = paths.manifest_path(point_id)
        try:
            stored = await self.store.get(key)
        except ObjectNotFound as error:
            raise NoSuchPoint(f"there is no recovery point {point_id}") from error
        payload, signer = verify(key, self.files.sealer.open(key, stored), self.writers)
        try:
            manifest = msgspec.json.decode(payload, type=Manifest)
        except msgspec.DecodeError as error:
            raise UnknownFormat(
                f"the manifest of {point_id} is not understood: {error}", hint="Upgrade Strongroom"
            ) from error
        if manifest.format != FORMAT_VERSION:
            raise UnknownFormat(
                f"the recovery point {point_id} has format {manifest.format}", hint="Upgrade Strongroom"
            )
        if manifest.id != point_id or manifest.writer != signer or not point_id.startswith(f"{signer}-"):
            raise NotTrusted(f"the manifest of {point_id} is of {manifest.id}, signed by {signer}")
        if manifest.repository != self.config_sha256:
            raise NotTrusted(
                f"the recovery point {point_id} was made with another repository.json",
                hint="Put repository.json back from a copy of the bucket",
            )
        return RecoveryPoint(self.files, manifest, hashlib.sha256(stored).hexdigest())


async def read_info(store: ObjectStore) -> tuple[RepositoryInfo, str]:
    """Return repository.json and the SHA-256 (hex) of its bytes. Raises `NoRepository`, `UnknownFormat`."""
    try:
        config = await store.get(paths.CONFIG)
    except ObjectNotFound as error:
        raise NoRepository(
            f"there is no repository in {store.url}", hint="Make one: strongroom repository init --repository URL"
        ) from error
    try:
        head = msgspec.json.decode(config, type=dict[str, object])
        if head.get("format") != FORMAT_NAME:
            raise UnknownFormat(
                f"repository.json in {store.url} is not of a Strongroom repository", hint="Name another place"
            )
        if head.get("version") != FORMAT_VERSION:
            raise UnknownFormat(
                f"the repository in {store.url} has format version {head.get('version')}; "
                f"this Strongroom understands version {FORMAT_VERSION}",
                hint="Upgrade Strongroom",
            )
        info = msgspec.json.decode(config, type=RepositoryInfo)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"repository.json in {store.url} cannot be read: {error}") from error
    if info.features:
        raise UnknownFormat(
            f"the repository uses {', '.join(info.features)}, which this Strongroom does not know",
            hint="Upgrade Strongroom",
        )
    if info.encryption not in (AES_256_GCM, NO_ENCRYPTION):
        raise UnknownFormat(f"the repository is encrypted by {info.encryption!r}", hint="Upgrade Strongroom")
    return info, hashlib.sha256(config).hexdigest()


def _root_key(info: RepositoryInfo) -> bytes:
    try:
        return base64.b64decode(info.root_key, validate=True)
    except ValueError as error:
        raise Damaged("the root key in repository.json is damaged") from error


def _decode_key(key: str, payload: bytes) -> _Recipient | _Writer:
    try:
        return msgspec.json.decode(payload, type=_Recipient | _Writer)
    except msgspec.DecodeError as error:
        raise UnknownFormat(f"{key} is not understood: {error}", hint="Upgrade Strongroom") from error


def _require_same(store: ObjectStore, info: RepositoryInfo, root: bytes, keys: KeyFile | HolderKeys) -> None:
    """Raise `WrongKey` unless *keys* are of this repository; nobody signs repository.json, so it proves nothing."""
    if isinstance(keys, KeyFile) and (keys.repository_id != info.id or keys.root_public != root):
        raise WrongKey(
            f"the key file is of repository {keys.repository_id}, and {store.url} holds {info.id}",
            hint="Name the key file of this repository; if that is the one, repository.json was replaced",
        )
    if keys.root_public != root:
        raise WrongKey(
            f"the repository {info.id} in {store.url} has another root key than the one that is trusted here",
            hint="Find out who wrote there, and put repository.json back from a copy",
        )
    if keys.recipient and not info.encrypted:
        # Who can replace repository.json could otherwise make the next backup be stored in the clear.
        raise WrongKey(
            f"repository.json in {store.url} says that nothing is encrypted, and the keys are of an encrypted one",
            hint="Find out who wrote there, and put repository.json back from a copy",
        )


def _unwrap(key: str, entry: _Recipient, keys: KeyFile | HolderKeys) -> bytes | None:
    if not keys.recipient:
        return None
    identity = pyrage.x25519.Identity.from_str(keys.recipient)
    if str(identity.to_public()) != entry.recipient:
        return None
    try:
        return bytes(pyrage.decrypt(base64.b64decode(entry.wrapped), [identity]))
    except (pyrage.DecryptError, ValueError) as error:
        raise Damaged(f"the repository key in {key} does not open") from error


def _own_paths(keys: KeyFile | HolderKeys) -> list[Key]:
    """Return where the repository keeps what belongs to these keys."""
    own = [paths.key_path(writer_id(public_bytes(keys.writer)))]
    if keys.recipient:
        recipient = pyrage.x25519.Identity.from_str(keys.recipient).to_public()
        own.append(paths.key_path(_recipient_id(str(recipient))))
    return own


def _recipient_id(recipient: str) -> str:
    return hashlib.sha256(recipient.encode()).hexdigest()[:16]


async def _put_signed(store: ObjectStore, key: Key, entry: _Recipient | _Writer, root: Ed25519PrivateKey) -> None:
    await create_once(store, key, sign(key, msgspec.json.encode(entry), ROOT, root))
