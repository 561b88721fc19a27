"""The files below `keys/`: for whom the repository key is wrapped, and who may sign. Only the root makes them.

Each is a conditional create of a signed file, so adding somebody twice, or from two processes, ends as adding once.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.dataplane.objectstore.create import create_once
from strongroom.dataplane.objectstore.errors import ObjectExists, ObjectNotFound
from strongroom.dataplane.objectstore.port import Key, ObjectStore
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import (
    Damaged,
    KeyConflict,
    KeyFileInvalid,
    NotTrusted,
    RepositoryError,
    UnknownFormat,
    WrongKey,
)
from strongroom.dataplane.repository.keyfile import HolderKeys, KeyFile
from strongroom.dataplane.repository.signing import ROOT, public_bytes, sign, verify, writer_id

WRITER_KEY_BYTES = 32  # a raw Ed25519 public key


class Recipient(msgspec.Struct, rename="camel", kw_only=True, tag="recipient", tag_field="type"):
    """`wrapped` is base64 of the repository key in the age format, for `recipient`."""

    scheme: str
    recipient: str
    wrapped: str


class Writer(msgspec.Struct, rename="camel", kw_only=True, tag="writer", tag_field="type", omit_defaults=True):
    """`public_key` is base64 of the raw Ed25519 public key. With `backup_only` it may sign no record of a prune."""

    public_key: str
    backup_only: bool = False


@dataclass(frozen=True)
class KeyEntries:
    """What stands below `keys/`: public keys by writer id, all and those that may prune, and the recipients by key.

    `strays` are the files that this repository's root did not sign: why, by key. Nothing of them is ever used.
    """

    writers: dict[str, bytes] = field(default_factory=dict)
    pruners: dict[str, bytes] = field(default_factory=dict)
    recipients: dict[Key, Recipient] = field(default_factory=dict)
    strays: dict[Key, RepositoryError] = field(default_factory=dict)


async def read_entries(store: ObjectStore, root_public: bytes) -> KeyEntries:
    """Read everything below `keys/`. Raises `UnknownFormat` for what the root signed and this version cannot read."""
    entries = KeyEntries()
    async for found in store.list(paths.KEYS):
        try:
            payload, _ = verify(found.key, await store.get(found.key), {ROOT: root_public})
        except (Damaged, NotTrusted) as error:
            # An init that was stopped before repository.json leaves files that a root of its own signed. Nothing
            # unsigned is ever used, so these only matter where ours is among them.
            entries.strays[found.key] = error
            continue
        entry = _decode(found.key, payload)
        if isinstance(entry, Writer):
            public = base64.b64decode(entry.public_key)
            entries.writers[writer_id(public)] = public
            if not entry.backup_only:
                entries.pruners[writer_id(public)] = public
        else:
            entries.recipients[found.key] = entry
    return entries


def unwrap(recipients: Mapping[Key, Recipient], identity_text: str) -> bytes | None:
    """Return the repository key as wrapped for the age identity, None if it is for nobody with it. Raises `Damaged`."""
    identity = pyrage.x25519.Identity.from_str(identity_text)
    public = str(identity.to_public())
    for key, entry in recipients.items():
        if entry.scheme == "age" and entry.recipient == public:
            try:
                return bytes(pyrage.decrypt(base64.b64decode(entry.wrapped), [identity]))
            except (pyrage.DecryptError, ValueError) as error:
                raise Damaged(f"the repository key in {key} does not open") from error
    return None


def own_paths(keys: KeyFile | HolderKeys) -> list[Key]:
    """Return where the repository keeps what belongs to these keys."""
    own = [paths.key_path(writer_id(public_bytes(keys.writer)))]
    if keys.recipient:
        recipient = pyrage.x25519.Identity.from_str(keys.recipient).to_public()
        own.append(recipient_path(str(recipient)))
    return own


def recipient_path(recipient: str) -> Key:
    """Return where the repository key lies that is wrapped for *recipient* (`age1…`)."""
    return paths.key_path(hashlib.sha256(recipient.encode()).hexdigest()[:16])


async def add_recipient(store: ObjectStore, keys: KeyFile, recipient: str) -> None:
    """Wrap the repository key for *recipient* (`age1…`): its identity can read this repository from now on.

    Opens the key with that of *keys* and signs with their root. Raises `KeyFileInvalid` for what is no recipient,
    `WrongKey` where *keys* open nothing. May run twice; if it stops, nothing or all of it is done.
    """
    entries = await read_entries(store, keys.root_public)
    repository_key = unwrap(entries.recipients, keys.recipient) if keys.recipient else None
    if repository_key is None:
        raise WrongKey(
            f"no key in {store.url} is wrapped for this key file", hint="Name a key file that opens the repository"
        )
    if recipient_path(recipient) not in entries.recipients:
        await put_recipient(store, keys.root, recipient, repository_key)


async def put_recipient(store: ObjectStore, root: Ed25519PrivateKey, recipient: str, repository_key: bytes) -> None:
    """Store *repository_key* wrapped for *recipient*, unless this root has done so before."""
    try:
        wrapped = pyrage.encrypt(repository_key, [pyrage.x25519.Recipient.from_str(recipient)])
    except (pyrage.RecipientError, ValueError) as error:
        raise KeyFileInvalid("the recipient is not an age recipient", hint="Give its public half, age1…") from error
    entry = Recipient(scheme="age", recipient=recipient, wrapped=base64.b64encode(wrapped).decode())
    await _put(store, recipient_path(recipient), entry, root)


async def add_writer(store: ObjectStore, root: Ed25519PrivateKey, public: bytes, *, backup_only: bool) -> None:
    """Certify a writer's raw Ed25519 *public* key: what it signs is believed from now on.

    With *backup_only* that goes for recovery points only: a cluster that was broken into must not be able to condemn
    other points and have the next prune delete them. Raises `KeyFileInvalid` for what is no key and `KeyConflict`
    where it has other rights already. May run twice.
    """
    if len(public) != WRITER_KEY_BYTES:
        raise KeyFileInvalid(f"a writer's key has {WRITER_KEY_BYTES} bytes, and this has {len(public)}")
    entry = Writer(public_key=base64.b64encode(public).decode(), backup_only=backup_only)
    await _put(store, paths.key_path(writer_id(public)), entry, root)


async def _put(store: ObjectStore, key: Key, entry: Recipient | Writer, root: Ed25519PrivateKey) -> None:
    envelope = sign(key, msgspec.json.encode(entry), ROOT, root)
    try:
        await create_once(store, key, envelope)
    except ObjectExists:
        found = await _signed(store, key, root)
        if found is None:
            # Of an init that came to nothing, or damaged: nobody uses it. One that our root signed never goes.
            await store.delete([key])
            await create_once(store, key, envelope)
        elif not _same(found, entry):
            raise KeyConflict(
                f"{key} in {store.url} was signed before, and says something else",
                hint="Use another key: what the root has signed is never changed",
            ) from None


async def _signed(store: ObjectStore, key: Key, root: Ed25519PrivateKey) -> Recipient | Writer | None:
    try:
        payload, _ = verify(key, await store.get(key), {ROOT: public_bytes(root)})
    except (ObjectNotFound, Damaged, NotTrusted):
        return None
    return _decode(key, payload)


def _same(found: Recipient | Writer, wanted: Recipient | Writer) -> bool:
    """Say whether both mean the same; a wrapped key is other bytes each time, and a root wraps one key only."""
    if isinstance(found, Recipient) and isinstance(wanted, Recipient):
        return (found.scheme, found.recipient) == (wanted.scheme, wanted.recipient)
    return found == wanted


def _decode(key: str, payload: bytes) -> Recipient | Writer:
    try:
        return msgspec.json.decode(payload, type=Recipient | Writer)
    except msgspec.DecodeError as error:
        raise UnknownFormat(f"{key} is not understood: {error}", hint="Upgrade Strongroom") from error
