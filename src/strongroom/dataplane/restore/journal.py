"""The journal of one restore: what is about to be done, and what was done. It makes a killed restore resumable.

Entries are create-only objects of the repository, numbered: the plan first, in parts, the last of them marked; then,
before objects are sent, an `intent` with their numbers; and, after a while, a `result` with what became of them and
their new uids. An object with an intent and no result may or may not have been created: the restorer finds out by the
server's 409. Without a whole plan in its journal a restore sent nothing.
"""

import asyncio
import secrets
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from strongroom.dataplane.objectstore.errors import ObjectExists
from strongroom.dataplane.repository.journal import (
    read_restore_journal,
    restore_result,
    write_restore_entry,
    write_restore_result,
)
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.restore.errors import NoSuchRestore, RestoreTakenOver
from strongroom.dataplane.restore.model import Done, PlannedObject, RestorePlan, RestoreResult, Wave

PART_OBJECTS = 2_000  # of a plan in one entry, 1 MiB of JSON: a large plan is never one document in memory


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What became of the object `number`: its uid in the target ("" where it is not there) and the reason in words."""

    number: int
    done: Done
    uid: str = ""
    reason: str = ""


class _Entry(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """`process` tells writers apart: equal entries of two processes must not pass for one."""

    process: str
    plan: RestorePlan | None = None
    """The plan, in the first entry; a large one without its objects, which follow in parts."""
    wave: Wave | None = None
    """Objects of one wave; consecutive entries of one name belong together."""
    skipped: tuple[PlannedObject, ...] = ()
    planned: bool = False
    """The plan is whole with this entry."""
    intent: tuple[int, ...] = ()
    result: tuple[Outcome, ...] = ()


class Journal:
    """The journal of the restore `restore_id`. One process writes it at a time; a second one is found out."""

    def __init__(self, repository: Repository, restore_id: str, entries: Iterable[_Entry] = ()) -> None:
        self.restore_id = restore_id
        self.outcomes: dict[int, Outcome] = {}
        self.intended: set[int] = set()
        """Numbers that an earlier process meant to send and left without a result."""
        self._repository = repository
        self._number = 0
        self._process = secrets.token_hex(8)
        self._lock = asyncio.Lock()
        for entry in entries:
            self._number += 1
            self.intended.update(entry.intent)
            self.outcomes.update((outcome.number, outcome) for outcome in entry.result)
        self.intended -= set(self.outcomes)

    @classmethod
    async def begin(cls, repository: Repository, restore_id: str, plan: RestorePlan) -> "Journal":
        """Begin a journal with the plan as its first entries. Raises `RestoreTakenOver` when the id has one."""
        journal = cls(repository, restore_id)
        process = journal._process
        if sum(1 for _ in plan.objects()) <= PART_OBJECTS:
            await journal._append(_Entry(process=process, plan=plan, planned=True))
            return journal
        await journal._append(_Entry(process=process, plan=msgspec.structs.replace(plan, waves=(), skipped=())))
        for wave in plan.waves:
            for part in _parts(wave.objects):
                await journal._append(_Entry(process=process, wave=Wave(name=wave.name, objects=part)))
        for part in _parts(plan.skipped):
            await journal._append(_Entry(process=process, skipped=part))
        await journal._append(_Entry(process=process, planned=True))
        return journal

    @classmethod
    async def resume(cls, repository: Repository, restore_id: str) -> "tuple[Journal, RestorePlan]":
        """Open the journal of a restore that was broken off. Raises `NoSuchRestore`, `Damaged`."""
        raw = await read_restore_journal(repository, restore_id)
        entries = [msgspec.convert(entry, _Entry) for entry in raw]
        if not any(entry.planned for entry in entries) or entries[0].plan is None:
            raise NoSuchRestore(
                f"the repository holds no restore {restore_id} that began to send objects",
                hint="`strongroom restore apply` prints the id of a restore first",
            )
        return cls(repository, restore_id, entries), _assembled(entries[0].plan, entries)

    async def intend(self, numbers: Iterable[int]) -> None:
        """Say that these objects are about to be sent. Afterwards they may be."""
        await self._append(_Entry(process=self._process, intent=tuple(numbers)))

    async def record(self, outcomes: Iterable[Outcome]) -> None:
        """Say what became of objects."""
        settled = tuple(outcomes)
        if settled:
            await self._append(_Entry(process=self._process, result=settled))
            self.outcomes.update((outcome.number, outcome) for outcome in settled)

    async def close(self, result: RestoreResult) -> None:
        """Store the result: the restore is over."""
        await write_restore_result(self._repository, self.restore_id, msgspec.to_builtins(result))

    async def _append(self, entry: _Entry) -> None:
        # One entry after the other: the numbers have no gap, so a reader misses none.
        async with self._lock:
            try:
                await write_restore_entry(self._repository, self.restore_id, self._number, msgspec.to_builtins(entry))
            except ObjectExists as error:
                raise RestoreTakenOver(
                    f"another process carries out the restore {self.restore_id}",
                    hint="Let it finish, or stop it and resume the restore",
                ) from error
            self._number += 1


def _parts(objects: tuple[PlannedObject, ...]) -> Iterator[tuple[PlannedObject, ...]]:
    for start in range(0, len(objects), PART_OBJECTS):
        yield objects[start : start + PART_OBJECTS]


def _assembled(plan: RestorePlan, entries: Iterable[_Entry]) -> RestorePlan:
    waves: list[Wave] = list(plan.waves)
    skipped: list[PlannedObject] = list(plan.skipped)
    for entry in entries:
        skipped += entry.skipped
        if entry.wave is None:
            continue
        if waves and waves[-1].name == entry.wave.name:
            waves[-1] = Wave(name=entry.wave.name, objects=waves[-1].objects + entry.wave.objects)
        else:
            waves.append(entry.wave)
    return msgspec.structs.replace(plan, waves=tuple(waves), skipped=tuple(skipped))


async def finished(repository: Repository, restore_id: str) -> RestoreResult | None:
    """Return the result of a restore that is over, else None."""
    result: Mapping[str, object] | None = await restore_result(repository, restore_id)
    return msgspec.convert(result, RestoreResult) if result is not None else None
