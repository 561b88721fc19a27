"""The journal of a restore: create-only entries under `restores/<id>/`, and the result that ends it."""

from typing import Any

import msgspec

from strongroom.dataplane.objectstore.errors import ObjectNotFound
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import Damaged
from strongroom.dataplane.repository.repository import Repository

Entry = dict[str, Any]


async def write_restore_entry(repository: Repository, restore_id: str, number: int, entry: Entry) -> None:
    """Store entry *number* of a restore's journal. Raises `ObjectExists` if another process wrote that number."""
    key = paths.journal_path(restore_id, number)
    await repository.files.create(key, restore_id, msgspec.json.encode(entry))


async def read_restore_journal(repository: Repository, restore_id: str) -> list[Entry]:
    """Return the entries of a restore in order, [] for a restore that wrote none. Raises `Damaged`."""
    prefix = f"{paths.restore_folder(restore_id)}journal/"
    keys = sorted([info.key async for info in repository.store.list(prefix)])
    return [_decode(key, await repository.files.read(key)) for key in keys]


async def restored_point(repository: Repository, restore_id: str) -> str:
    """Return the id of the recovery point that a restore reads: `plan.point` of its first entry; "" if it says none."""
    key = paths.journal_path(restore_id, 0)
    try:
        plan = _decode(key, await repository.files.read(key)).get("plan")
    except ObjectNotFound:
        return ""
    return str(plan.get("point", "")) if isinstance(plan, dict) else ""


async def write_restore_result(repository: Repository, restore_id: str, result: Entry) -> None:
    """Store the result of a restore: it is over. Raises `ObjectExists` if it has one."""
    await repository.files.create(paths.result_path(restore_id), restore_id, msgspec.json.encode(result))


async def restore_result(repository: Repository, restore_id: str) -> Entry | None:
    """Return the result of a restore, None while it has none. Raises `Damaged`."""
    key = paths.result_path(restore_id)
    try:
        return _decode(key, await repository.files.read(key))
    except ObjectNotFound:
        return None


async def open_restores(repository: Repository) -> list[str]:
    """Return the ids of restores that have a journal and no result."""
    begun: set[str] = set()
    ended: set[str] = set()
    async for info in repository.store.list(paths.RESTORES):
        _, restore_id, rest = info.key.split("/", 2)
        (ended if rest == "result" else begun).add(restore_id)
    return sorted(begun - ended)


def _decode(key: str, data: bytes) -> Entry:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"{key} is not understood: {error}") from error
