"""Opens a repository, or makes one, and lists its recovery points."""

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.dataplane.objectstore.create import probe_conditional_create
from strongroom.dataplane.objectstore.errors import ObjectNotFound
from strongroom.dataplane.objectstore.port import Key, ObjectStore
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.creation import NewRepository, create_repository, require_empty
from strongroom.dataplane.repository.errors import (
    Damaged,
    KeyMissing,
    NoSuchPoint,
    NotTrusted,
    ReadOnly,
    RepositoryError,
    UnknownFormat,
    WrongKey,
)
from strongroom.dataplane.repository.files import Files
from strongroom.dataplane.repository.info import MAX_RUN_SECONDS, RepositoryInfo, read_info
from strongroom.dataplane.repository.keyentries import KeyEntries, own_paths, read_entries, unwrap
from strongroom.dataplane.repository.keyfile import HolderKeys, KeyFile, default_key_path
from strongroom.dataplane.repository.model import Manifest, PointId
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.records import PruneRecords, read_records
from strongroom.dataplane.repository.sealing import FORMAT_VERSION, Plain, Sealer, Sealing
from strongroom.dataplane.repository.signing import public_bytes, sign, verify, writer_id

READERS = 16  # manifests read at once: hides a store's latency within a driver's usual pool of connections


class PointInfo(msgspec.Struct, frozen=True):
    """A recovery point as a list shows it: its manifest, or the problem that hides it; void ones have both."""

    id: PointId
    manifest: Manifest | None
    problem: str = ""
    void: bool = False


class Repository:
    """An opened repository. `writer` is the id of the key that this process signs with, None when it only reads.

    `writers` are the public keys, by id, of all whose recovery points are believed; `pruners` of those among them whose
    records of deletion are.
    `strays` are the files below keys/ that are not used, because this repository's root did not sign them: why, by key.
    """

    def __init__(
        self,
        store: ObjectStore,
        info: RepositoryInfo,
        config_sha256: str,
        sealer: Sealer,
        entries: KeyEntries,
        signing_key: Ed25519PrivateKey | None,
    ) -> None:
        self.store = store
        self.info = info
        self.config_sha256 = config_sha256
        self.files = Files(store, sealer)
        self.writers: Mapping[str, bytes] = entries.writers
        self.pruners: Mapping[str, bytes] = entries.pruners
        self.strays: Mapping[str, str] = {key: error.message for key, error in entries.strays.items()}
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
        await require_empty(store)
        await probe_conditional_create(store)
        new = NewRepository.generate(now=datetime.now(UTC), encryption=encryption, max_run_seconds=max_run_seconds)
        path = key_file or default_key_path(new.keys.repository_id)
        # The key before the repository: a crash between them leaves a key without use, never the other way round.
        await asyncio.to_thread(new.keys.save, path)
        await create_repository(store, new)
        return await cls.open(store, new.keys), path

    @classmethod
    async def open(cls, store: ObjectStore, keys: KeyFile | HolderKeys | None) -> "Repository":
        """Open a repository; without encryption *keys* may be None and the repository is then read only.

        Raises `NoRepository`, `UnknownFormat`, `KeyMissing`, `WrongKey`, and `NotTrusted` or `Damaged` when the files
        below keys/ that belong to *keys* are not as the root signed them.
        """
        info, config_sha256 = await read_info(store)
        if keys:
            _require_same(store, info, keys)
        if keys is None and info.encrypted:
            raise KeyMissing(
                f"the repository {info.id} in {store.url} is encrypted and its key file was not found",
                hint=f"Name it with --key-file or STRONGROOM_KEY_FILE, or put it at {default_key_path(info.id)}",
            )
        entries = await read_entries(store, info.root_public)
        for own in own_paths(keys) if keys else ():
            if own in entries.strays:
                raise entries.strays[own]
        repository_key = unwrap(entries.recipients, keys.recipient) if keys and keys.recipient else None
        if not info.encrypted:
            sealer: Sealer = Plain()
        elif repository_key is None:
            raise WrongKey(
                f"no key of the repository {info.id} is wrapped for this recipient",
                hint="Name a key file that was added to this repository; an extension is added by the control plane",
            )
        else:
            sealer = Sealing(repository_key)
        signing_key = keys.writer if keys and writer_id(public_bytes(keys.writer)) in entries.writers else None
        return cls(store, info, config_sha256, sealer, entries, signing_key)

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

    def require_pruner(self) -> str:
        """Return this process's writer id if it may condemn and sweep. Raises `ReadOnly`."""
        writer = self.require_writer()
        if writer not in self.pruners:
            raise ReadOnly(
                "this key may make recovery points and not delete any", hint="Delete with the control plane's key"
            )
        return writer

    async def records(self) -> PruneRecords:
        """Return what is condemned and what was swept."""
        return await read_records(self.files, self.pruners)

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


def _require_same(store: ObjectStore, info: RepositoryInfo, keys: KeyFile | HolderKeys) -> None:
    """Raise `WrongKey` unless *keys* are of this repository; nobody signs repository.json, so it proves nothing."""
    if isinstance(keys, KeyFile) and (keys.repository_id != info.id or keys.root_public != info.root_public):
        raise WrongKey(
            f"the key file is of repository {keys.repository_id}, and {store.url} holds {info.id}",
            hint="Name the key file of this repository; if that is the one, repository.json was replaced",
        )
    if keys.root_public != info.root_public:
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
