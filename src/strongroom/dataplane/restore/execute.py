"""Carries a restore plan out: wave by wave, many objects at once, with a journal that makes it resumable.

If the process stops anywhere, the journal says what was intended and what was done; `resume` goes on from there and
does nothing twice. What is left behind until then: the objects created so far, and the imports of their volumes.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeError, KubeUnauthorized, KubeUnreachable
from strongroom.dataplane.objectstore.errors import StoreUnavailable
from strongroom.dataplane.repository.model import BlobRef, Digest
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.restore.errors import PlanMismatch, RestoreInterrupted
from strongroom.dataplane.restore.gather import CLUSTER_NAMESPACE, refusal_of
from strongroom.dataplane.restore.imports import finish_imports, import_name, import_snapshot, sweep_imports
from strongroom.dataplane.restore.journal import Journal, Outcome, finished
from strongroom.dataplane.restore.model import (
    Action,
    Done,
    ObjectResult,
    PlannedObject,
    Progress,
    RestorePlan,
    RestoreResult,
    RestoreState,
    Wave,
)
from strongroom.dataplane.restore.plan import CRD, SERVICE_NEED
from strongroom.dataplane.restore.waits import NAMESPACE_KIND, crd_established, namespace_gone, service_ready
from strongroom.dataplane.restore.writing import ObjectWriter, TryLater

CONCURRENCY = 16  # the rate of bare creates on two cores is flat from 8 to 32: docs/reference/restore.md
BATCH_OBJECTS = 256  # objects of one intent: one small write of the journal for each
BATCH_BYTES = 4 * 1024 * 1024  # of bodies; at most three batches are in memory
RECORD_EVERY = 256  # outcomes of one journal entry
RETRY_PAUSES_SECONDS = (0.25, 0.5, 1.0, 2.0, 4.0)  # a webhook restarts within seconds; KubeApi retried each call before

ProgressFn = Callable[[Progress], None]


def new_restore_id() -> str:
    """Return the id for a new restore: 16 hex digits, part of the names of its imports."""
    return secrets.token_hex(8)


async def load_plan(repo: Repository, restore_id: str) -> RestorePlan:
    """Return the plan of a restore from its journal. Raises `NoSuchRestore`, `Damaged`."""
    _, plan = await Journal.resume(repo, restore_id)
    return plan


async def execute(
    api: KubeApi,
    repo: Repository,
    point: RecoveryPoint,
    plan: RestorePlan,
    *,
    restore_id: str | None = None,
    resume: bool = False,
    progress: ProgressFn | None = None,
    concurrency: int = CONCURRENCY,
) -> RestoreResult:
    """Carry *plan* out and return what became of each object.

    With *resume* the restore *restore_id* is continued by its own journal and plan (*plan* is what `load_plan` gave);
    one that is over just returns its result. What goes wrong with one object is in the result. Raises `PlanMismatch`
    for a plan of another point or cluster, `RestoreInterrupted` when target or repository stop answering (resume it),
    `Damaged` for a recovery point that cannot be read.
    """
    began = time.monotonic()
    restore_id = restore_id or new_restore_id()
    await _check(api, point, plan)
    if resume:
        result = await finished(repo, restore_id)
        if result is not None:
            return result
        journal, plan = await Journal.resume(repo, restore_id)
    else:
        journal = await Journal.begin(repo, restore_id, plan)
    execution = _Execution(api, point, plan, journal, progress, concurrency)
    try:
        await execution.run()
    except (KubeUnreachable, KubeUnauthorized, StoreUnavailable) as error:
        raise RestoreInterrupted(
            f"the restore {restore_id} was broken off: {error.message}",
            hint=f"Mend that, then go on with `strongroom restore apply --resume {restore_id}`",
        ) from error
    result = execution.result(time.monotonic() - began)
    await journal.close(result)
    return result


async def _check(api: KubeApi, point: RecoveryPoint, plan: RestorePlan) -> None:
    if plan.point != point.id:
        raise PlanMismatch(
            f"the plan is for the recovery point {plan.point}, not for {point.id}", hint="Make a plan for this point"
        )
    raw = await api.get_at(NAMESPACE_KIND, CLUSTER_NAMESPACE, None)
    uid = msgspec.json.decode(raw)["metadata"]["uid"] if raw is not None else ""
    if uid != plan.target.id:
        raise PlanMismatch(
            f"the plan is for the cluster {plan.target.id} ({plan.target.server}); {api.server} is {uid or 'unknown'}",
            hint="Make a plan for this cluster, or use the other one's kubeconfig",
        )


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A planned object with its blobs."""

    planned: PlannedObject
    body: bytes
    status: bytes | None
    managed: bytes | None


@dataclass(frozen=True, slots=True)
class _Feed:
    """Objects being loaded, in their order, and None after the last; *objects* says how many there will be."""

    queue: "asyncio.Queue[_Loaded | None]"
    task: asyncio.Task[None]
    objects: int


class _Execution:
    """One run of `execute`."""

    def __init__(
        self,
        api: KubeApi,
        point: RecoveryPoint,
        plan: RestorePlan,
        journal: Journal,
        progress: ProgressFn | None,
        concurrency: int,
    ) -> None:
        self._api = api
        self._point = point
        self._plan = plan
        self._journal = journal
        self._progress = progress
        self._concurrency = concurrency
        self._outcomes: dict[int, Outcome] = dict(journal.outcomes)
        self._unrecorded: list[Outcome] = []
        self._warnings = list(plan.warnings)
        self._new_uids = {p.source_uid: p.existing_uid for p in plan.objects() if p.source_uid and p.existing_uid}
        self._total = sum(len(wave.objects) for wave in plan.waves)
        self._failed = sum(outcome.done is Done.FAILED for outcome in self._outcomes.values())
        self._broken_namespaces: dict[str, str] = {}
        self._broken_kinds: dict[tuple[str, str], str] = {}
        self._feeding: list[asyncio.Task[None]] = []
        self._recording: list[asyncio.Task[None]] = []
        self._service_waits: dict[str, asyncio.Task[str]] = {}
        self._writer = ObjectWriter(api, plan.request, self._new_uids, journal.intended)
        for planned in plan.objects():
            if (outcome := self._outcomes.get(planned.number)) is not None:
                self._learn(planned, outcome)

    async def run(self) -> None:
        if any(planned.volume for wave in self._plan.waves for planned in wave.objects):
            await self._swept()
        try:
            feed = self._feed(self._due(0))
            for number, wave in enumerate(self._plan.waves):
                # The next wave's first batch is read and journaled meanwhile: a wave starts without a round trip.
                ahead = self._feed(self._due(number + 1))
                await self._wave(wave, feed)
                await self._await_definitions(wave)
                feed = ahead
            await self._deferred_owners()
            await self._imports()
            await asyncio.gather(*self._recording)
        finally:
            tasks = [*self._service_waits.values(), *self._feeding, *self._recording]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # One wave

    def _due(self, number: int) -> list[PlannedObject]:
        """Return the objects of a wave that have no outcome yet; none for a wave that does not exist."""
        waves = self._plan.waves[number : number + 1]
        return [planned for wave in waves for planned in wave.objects if planned.number not in self._outcomes]

    async def _wave(self, wave: Wave, feed: "_Feed") -> None:
        """Restore the objects of *feed*, those that failed for a moment again."""
        later: dict[int, tuple[PlannedObject, str]] = {}
        await self._pass(wave, feed, later)
        for pause in RETRY_PAUSES_SECONDS:
            if not later:
                break
            await asyncio.sleep(pause)
            again = [planned for planned, _ in later.values()]
            later.clear()
            await self._pass(wave, self._feed(again), later)
        for planned, reason in later.values():
            self._settle(wave, planned, Outcome(planned.number, Done.FAILED, "", reason))
        self._record()
        for task in [task for task in self._recording if task.done()]:
            self._recording.remove(task)
            task.result()  # a journal that cannot be written ends the restore

    def _feed(self, due: Sequence[PlannedObject]) -> "_Feed":
        """Begin to load *due*; what is loaded and not taken yet is bounded."""
        queue: asyncio.Queue[_Loaded | None] = asyncio.Queue(maxsize=BATCH_OBJECTS)

        async def load() -> None:
            async for loaded in self._loaded(due):
                await queue.put(loaded)
            await queue.put(None)

        task = asyncio.create_task(load())
        self._feeding.append(task)
        return _Feed(queue, task, len(due))

    async def _pass(self, wave: Wave, feed: "_Feed", later: dict[int, tuple[PlannedObject, str]]) -> None:
        """Try each object of *feed* once, many at a time; what should be tried again goes to *later*."""

        async def work() -> None:
            while (loaded := await feed.queue.get()) is not None:
                try:
                    outcome = await self._restore(loaded)
                except TryLater as turn:
                    later[loaded.planned.number] = (loaded.planned, turn.reason)
                    continue
                self._settle(wave, loaded.planned, outcome)
                if len(self._unrecorded) >= RECORD_EVERY:
                    self._record()
            feed.queue.put_nowait(None)  # for the next worker: the end was taken out, so there is room for it

        workers = min(self._concurrency, feed.objects)
        tasks = [feed.task, *(asyncio.create_task(work()) for _ in range(workers))]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _loaded(self, due: Sequence[PlannedObject]) -> AsyncIterator[_Loaded]:
        """Yield the objects with their blobs, each batch after its intent is in the journal."""
        for batch in _batches(due):
            blobs = await self._point.blobs([ref for planned in batch for ref in _refs(planned)])
            await self._journal.intend(planned.number for planned in batch if planned.action is not Action.CONFLICT)
            for planned in batch:
                yield _load(planned, blobs)

    async def _restore(self, loaded: _Loaded) -> Outcome:
        planned = loaded.planned
        if planned.action is Action.CONFLICT:
            return Outcome(planned.number, Done.FAILED, "", planned.reason)
        if why := self._broken_namespaces.get(planned.namespace) if planned.namespace else None:
            return Outcome(planned.number, Done.FAILED, "", f"its namespace was not restored: {why}")
        if why := self._broken_kinds.get((planned.group, planned.plural)):
            return Outcome(planned.number, Done.FAILED, "", f"its CRD was not restored: {why}")
        if planned.action is Action.PATCH:
            return await self._writer.patch(planned, loaded.body, loaded.managed)
        if why := await self._wait_for_needs(planned):
            return Outcome(planned.number, Done.FAILED, "", why)
        name = ""
        if planned.volume is not None:
            name = import_name(self._journal.restore_id, planned)
            try:
                why = await import_snapshot(self._api, self._journal.restore_id, planned, planned.volume)
            except (KubeUnreachable, KubeUnauthorized):
                raise
            except KubeError as error:
                why = refusal_of(error)
            if why:
                return Outcome(planned.number, Done.FAILED, "", f"its data cannot be imported: {why}")
        return await self._writer.create(planned, loaded.body, loaded.status, loaded.managed, name)

    async def _wait_for_needs(self, planned: PlannedObject) -> str:
        if (planned.group, planned.kind) == ("", "Namespace") and planned.needs:
            return await namespace_gone(self._api, planned.name)
        for need in planned.needs:
            if need.startswith(SERVICE_NEED):
                # Shared: hundreds of custom resources may wait for one conversion webhook.
                wait = self._service_waits.get(need)
                if wait is None:
                    namespace, _, name = need.removeprefix(SERVICE_NEED).partition("/")
                    wait = asyncio.create_task(service_ready(self._api, namespace, name))
                    self._service_waits[need] = wait
                if why := await asyncio.shield(wait):
                    return why
        return ""

    def _settle(self, wave: Wave, planned: PlannedObject, outcome: Outcome) -> None:
        self._outcomes[planned.number] = outcome
        self._unrecorded.append(outcome)
        self._learn(planned, outcome)
        self._failed += outcome.done is Done.FAILED
        if self._progress is not None:
            self._progress(Progress(wave.name, len(self._outcomes), self._total, self._failed))

    def _learn(self, planned: PlannedObject, outcome: Outcome) -> None:
        """Keep what later objects depend on: new uids, namespaces and CRDs that are missing."""
        if outcome.uid and planned.source_uid:
            self._new_uids[planned.source_uid] = outcome.uid
        if outcome.done is Done.FAILED and planned.action is Action.CREATE:
            if (planned.group, planned.kind) == ("", "Namespace"):
                self._broken_namespaces[planned.name] = outcome.reason
            if (planned.group, planned.kind) == CRD:
                plural, _, group = planned.name.partition(".")
                self._broken_kinds[group, plural] = outcome.reason

    def _record(self) -> None:
        """Write the outcomes so far into the journal, without waiting: until then they stand as intended."""
        outcomes, self._unrecorded = self._unrecorded, []
        if outcomes:
            self._recording.append(asyncio.create_task(self._journal.record(outcomes)))

    # After the waves

    async def _await_definitions(self, wave: Wave) -> None:
        """Wait until the CRDs of this wave are served; the custom resources of one that is not will say why."""
        names = [
            planned.name
            for planned in wave.objects
            if (planned.group, planned.kind) == CRD
            and planned.action is Action.CREATE
            and self._outcomes[planned.number].done is not Done.FAILED
        ]
        reasons = await asyncio.gather(*(crd_established(self._api, name) for name in names))
        for name, why in zip(names, reasons, strict=True):
            if why:
                plural, _, group = name.partition(".")
                self._broken_kinds[group, plural] = why
                self._warnings.append(f"CustomResourceDefinition {name} is not established: {why}")

    async def _deferred_owners(self) -> None:
        """Add the ownerReferences whose owners were restored after what they own."""
        due = [
            planned
            for wave in self._plan.waves
            for planned in wave.objects
            if any(owner.deferred for owner in planned.owners) and self._outcomes[planned.number].done is Done.CREATED
        ]
        for batch in _batches(due):
            blobs = await self._point.blobs([planned.body for planned in batch if planned.body])
            for planned in batch:
                why = await self._writer.add_owners(planned, _load(planned, blobs).body)
                if why:
                    outcome = self._outcomes[planned.number]
                    note = f"its ownerReferences could not be added: {why}"
                    self._outcomes[planned.number] = msgspec.structs.replace(outcome, reason=note)

    async def _imports(self) -> None:
        claims = [
            planned
            for wave in self._plan.waves
            for planned in wave.objects
            if planned.volume and self._outcomes[planned.number].done is not Done.FAILED
        ]
        if claims:
            try:
                self._warnings += await finish_imports(self._api, self._journal.restore_id, claims)
            except (KubeUnreachable, KubeUnauthorized):
                raise
            except KubeError as error:
                self._warnings.append(str(error))

    async def _swept(self) -> None:
        """Remove what earlier restores had to leave behind; that it fails must not stop this one."""
        try:
            await sweep_imports(self._api)
        except (KubeUnreachable, KubeUnauthorized):
            raise
        except KubeError as error:
            self._warnings.append(str(error))

    def result(self, seconds: float) -> RestoreResult:
        """Return what became of everything in the plan."""
        objects = []
        counts: Counter[Done] = Counter()
        for planned in self._plan.objects():
            outcome = self._outcomes.get(planned.number)
            done = outcome.done if outcome else Done.SKIPPED
            reason = outcome.reason if outcome else planned.reason
            counts[done] += 1
            objects.append(
                ObjectResult(
                    group=planned.group,
                    kind=planned.kind,
                    namespace=planned.namespace,
                    name=planned.name,
                    action=done,
                    reason="; ".join((*filter(None, (reason,)), *planned.notes)),
                )
            )
        state = RestoreState.COMPLETED
        if counts[Done.FAILED]:
            some = counts[Done.CREATED] + counts[Done.PATCHED]
            state = RestoreState.PARTIAL if some else RestoreState.FAILED
        return RestoreResult(
            restore_id=self._journal.restore_id,
            state=state,
            created=counts[Done.CREATED],
            patched=counts[Done.PATCHED],
            skipped=counts[Done.SKIPPED],
            failed=counts[Done.FAILED],
            objects=tuple(objects),
            warnings=tuple(self._warnings),
            seconds=round(seconds, 3),
        )


def _refs(planned: PlannedObject) -> Iterable[BlobRef]:
    for blob in (planned.body, planned.status, planned.managed_fields):
        if blob is not None:
            yield blob


def _load(planned: PlannedObject, blobs: dict[Digest, bytes]) -> _Loaded:
    def blob(ref: BlobRef | None) -> bytes | None:
        return blobs.get(ref.digest) if ref is not None else None

    if planned.body is None:
        bare = {"apiVersion": planned.version, "kind": planned.kind, "metadata": {"name": planned.name}}
        return _Loaded(planned, msgspec.json.encode(bare), None, None)
    return _Loaded(
        planned,
        blobs[planned.body.digest],
        blob(planned.status),
        blob(planned.managed_fields),
    )


def _batches(due: Sequence[PlannedObject]) -> Iterable[list[PlannedObject]]:
    batch: list[PlannedObject] = []
    size = 0
    for planned in due:
        bytes_of = sum(ref.bytes for ref in _refs(planned))
        if batch and (len(batch) >= BATCH_OBJECTS or size + bytes_of > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(planned)
        size += bytes_of
    if batch:
        yield batch
