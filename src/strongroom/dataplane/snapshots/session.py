"""One run's CSI snapshots: started all together, cut before X, ready before the commit, handed over after it.

The order is start, cut, (the collector takes X), ready, entries, (the commit), release; abandon instead where the run
fails. Until the commit the Retain contents in the cluster are the record of what lies on the storage; from the commit
on the manifest is, and it owns the handles. Killed at any request: what is left is found by `delete.sweep_orphans`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, Self

import msgspec

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery
from strongroom.dataplane.kube.errors import (
    KubeAlreadyExists,
    KubeError,
    KubeServerError,
    KubeTooManyRequests,
    KubeUnreachable,
)
from strongroom.dataplane.repository.model import SecretRef, VolumeEntry, VolumeState
from strongroom.dataplane.snapshots.claims import (
    MANAGED_BY,
    MANAGED_BY_LABEL,
    Claim,
    PersistentVolume,
    SnapshotClass,
    choose_class,
    class_from_object,
)
from strongroom.dataplane.snapshots.classes import REPOSITORY_LABEL, RUN_LABEL, ClassCopy, copy_of, list_secret
from strongroom.dataplane.snapshots.kinds import (
    DELETION_SECRET_NAME_ANNOTATION,
    DELETION_SECRET_NAMESPACE_ANNOTATION,
    FIELD_MANAGER,
    SNAPSHOTS,
    SnapshotApiMissing,
    SnapshotKinds,
    VolumeSnapshot,
    VolumeSnapshotContent,
    find_kinds,
    objects,
    snapshot_name,
)
from strongroom.dataplane.snapshots.removal import (
    StoredData,
    Target,
    deadline_for,
    pauses,
    read_content,
    remove,
    together,
)

log = logging.getLogger(__name__)

CUT_SECONDS: Final = 120.0  # design.md section 5 step 2: the cap on how long applications may stand still
READY_SECONDS: Final = 600.0  # design.md section 5, CSI snapshots: ten minutes, after the thaw
CUT_ERROR_SECONDS: Final = 10.0  # csi-snapshotter retries after 1, 2, 4 s: an error that outlives three tries is final
READY_ERROR_SECONDS: Final = 60.0  # nobody stands still any more: let a throttled storage recover
CUT_PAUSE_SECONDS: Final = 0.25  # longest pause between two looks while applications stand still
SOURCE_STORAGE: Final = "snapshot on the source's own storage"

_NANOSECONDS = 1_000_000_000
_UNCLEAR = (KubeUnreachable, KubeServerError, KubeTooManyRequests)  # may pass, and a write may have happened


class _Stage(Enum):
    NOT_SNAPSHOTTABLE = 0
    STARTED = 1
    CUT = 2
    READY = 3
    FAILED = 4


@dataclass
class _Cut:
    """One claim's way through the session. Times are the loop's; *created* is in nanoseconds since 1970."""

    claim: Claim
    volume: PersistentVolume | None
    name: str
    stage: _Stage = _Stage.STARTED
    reason: str = ""
    copy: ClassCopy | None = None
    uid: str = ""
    content: str = ""
    handle: str = ""
    group_handle: str = ""
    created: int | None = None
    restore_size: int | None = None
    deletion_secret: SecretRef | None = None
    list_secret: SecretRef | None = None
    error_since: float | None = None
    last_error: str = ""
    lost: bool = False  # its claim is not part of the point

    def fail(self, reason: str) -> None:
        self.stage, self.reason = _Stage.FAILED, reason
        log.warning("volume snapshot failed", extra={"claim": self.claim.key, "reason": reason})

    def refuse(self, reason: str) -> None:
        self.stage, self.reason = _Stage.NOT_SNAPSHOTTABLE, reason

    @property
    def target(self) -> Target:
        return Target(self.claim.namespace, self.name, self.uid, self.content)


class SnapshotSession:
    """The snapshots of one run. Made by `start`; no method raises for what concerns one volume alone."""

    def __init__(self, api: KubeApi, kinds: SnapshotKinds | None, run_id: str, cuts: Sequence[_Cut]) -> None:
        self._api = api
        self._kinds = kinds
        self._run_id = run_id
        self._cuts = tuple(cuts)
        self._named = False  # whether a manifest may name the handles

    @classmethod
    async def start(
        cls,
        api: KubeApi,
        discovery: Discovery,
        run_id: str,
        claims: Sequence[Claim],
        volumes: Mapping[str, PersistentVolume],
        parameters: Mapping[str, str],
        *,
        repository_id: str,
    ) -> Self:
        """Create our classes and then the VolumeSnapshots `strongroom-<run>-<n>` of all *claims* together.

        *claims* are those selected and not opted out; *volumes* maps a PersistentVolume's name to it; *parameters* are
        laid over those of each class (`copy_of`). A volume that cannot be snapshotted, or whose VolumeSnapshot was
        refused, keeps the reason. Raises nothing but what cancels it; it then removes what it made, if it can.
        """
        cuts = [_Cut(claim, volumes.get(claim.volume), snapshot_name(run_id, n)) for n, claim in enumerate(claims)]
        try:
            kinds = find_kinds(discovery)
        except SnapshotApiMissing as missing:
            for cut in cuts:
                failed = missing.failed and _driver(cut)
                (cut.fail if failed else cut.refuse)(_unsnapshottable(cut) or missing.message)
            return cls(api, None, run_id, cuts)
        session = cls(api, kinds, run_id, cuts)
        try:
            await session._choose_classes(kinds, parameters, repository_id)
            await together(session._create(kinds, cut, repository_id) for cut in session._in(_Stage.STARTED))
        except BaseException:
            # Killed here the sweep does it; cancelled or failed, nobody else has the session to abandon.
            await asyncio.shield(session.abandon())
            raise
        return session

    async def cut(self, timeout: float = CUT_SECONDS) -> None:
        """Return when every snapshot has handle and creation time, or failed; after *timeout* seconds the rest has.

        An error that a snapshot reports counts once it has stood for `CUT_ERROR_SECONDS`: the controllers retry.
        """

        async def look(cut: _Cut, snapshot: VolumeSnapshot | None) -> None:
            if snapshot is None:
                cut.fail("its VolumeSnapshot was deleted by somebody else before it was cut")
                return
            name = snapshot.status.bound_volume_snapshot_content_name
            if not (name and snapshot.status.creation_time):
                self._weigh_error(cut, snapshot, CUT_ERROR_SECONDS)
                return
            content = await self._content(name)
            if content is not None and content.handle and content.status.creation_time is not None:
                _take(cut, content)
                cut.stage = _Stage.READY if content.status.ready_to_use else _Stage.CUT

        await self._until(_Stage.STARTED, look, timeout, CUT_PAUSE_SECONDS, "was not cut")

    async def ready(self, timeout: float = READY_SECONDS) -> None:
        """Return when every snapshot that was cut is ready to use, or failed; after *timeout* seconds the rest has.

        A VolumeSnapshot that somebody deleted meanwhile does no harm: its content, which we keep, is asked instead.
        """

        async def look(cut: _Cut, snapshot: VolumeSnapshot | None) -> None:
            if snapshot is not None and not snapshot.status.ready_to_use:
                self._weigh_error(cut, snapshot, READY_ERROR_SECONDS)
                return
            content = await self._content(cut.content)
            if content is None:
                cut.fail(f"VolumeSnapshotContent {cut.content} was deleted by somebody else")
            elif content.status.ready_to_use:
                _take(cut, content)
                cut.stage = _Stage.READY

        await self._until(_Stage.CUT, look, timeout, None, "was not ready to use")

    def entries(
        self, claims_at_x: Mapping[str, Claim], x_taken: datetime
    ) -> tuple[tuple[VolumeEntry, ...], tuple[str, ...]]:
        """Return what the manifest says of the volumes, and the warnings; to be called before the commit.

        *claims_at_x* maps uid to claim, those selected and not opted out as they stood at X; *x_taken* is when that
        was. A claim gone at X loses its snapshot (`release` deletes it), a claim new at X has none; both stand among
        the entries, each with a warning.
        """
        self._named = True
        entries: list[VolumeEntry] = []
        warnings: list[str] = []
        for cut in self._cuts:
            cut.lost = cut.claim.uid not in claims_at_x
            entry = _lost(cut) if cut.lost else _entry(cut, x_taken)
            entries.append(entry)
            if entry.state is VolumeState.NOT_SNAPSHOTTABLE:
                warnings.append(f"volume {cut.claim.key} is not in the recovery point: {entry.reason}")
            elif entry.state is not VolumeState.SNAPSHOT_READY:
                warnings.append(f"snapshot of volume {cut.claim.key} is not in the recovery point: {entry.reason}")
        known = {cut.claim.uid for cut in self._cuts}
        for uid, claim in claims_at_x.items():
            if uid not in known:
                reason = "the claim is newer than the volume snapshots of this run"
                entries.append(_describe(claim, VolumeState.NOT_SNAPSHOTTABLE, reason))
                warnings.append(f"volume {claim.key} is not in the recovery point: {reason}")
        entries.sort(key=lambda entry: (entry.namespace, entry.claim, entry.claim_uid))
        return tuple(entries), tuple(warnings)

    @property
    def contents(self) -> frozenset[str]:
        """The names of this run's VolumeSnapshotContents: snapshot-controller makes them, without a label of ours."""
        return frozenset(cut.content for cut in self._cuts if cut.content)

    @property
    def cut_claims(self) -> frozenset[tuple[str, str, str]]:
        """Namespace, name and uid of each claim whose volume is known to be cut by now."""
        return frozenset(
            (cut.claim.namespace, cut.claim.name, cut.claim.uid)
            for cut in self._cuts
            if cut.stage in (_Stage.CUT, _Stage.READY)
        )

    async def release(self) -> tuple[str, ...]:
        """After the commit: remove VolumeSnapshots and contents. The storage keeps what the manifest owns.

        Snapshots that `entries` gave the manifest no handle of are deleted on the storage too. Returns in words what
        could not be removed; the sweep does it later. Killed in the middle, the same holds.
        """
        return await self._remove(lambda cut: StoredData.KEEP if _owned(cut) else StoredData.DELETE)

    async def abandon(self, *, no_manifest: bool = False) -> tuple[str, ...]:
        """The run failed: delete everything, on the storage too. Returns in words what could not be removed.

        Once `entries` was called a manifest may have been stored, though its writer was told nothing or was stopped.
        What `entries` named is then left for the sweep, which reads the manifests, unless the caller knows that there
        is *no_manifest*.
        """
        if not self._named or no_manifest:
            return await self._remove(lambda cut: StoredData.DELETE)
        left = await self._remove(lambda cut: None if _owned(cut) else StoredData.DELETE)
        untouched = [cut for cut in self._cuts if _owned(cut)]
        return left + tuple(
            f"VolumeSnapshot {cut.claim.namespace}/{cut.name}: left, because a recovery point may name its snapshot"
            for cut in untouched
        )

    async def _remove(self, fate: Callable[[_Cut], StoredData | None]) -> tuple[str, ...]:
        """Remove each snapshot as *fate* says of it; None leaves it alone."""
        kinds = self._kinds
        if kinds is None:
            return ()
        # A cut without a class was never asked for. One that failed may have been created all the same.
        deadline = deadline_for(len(self._cuts))
        asked = [(cut, fate(cut)) for cut in self._cuts if cut.copy is not None]
        stays = await together(
            remove(self._api, kinds, cut.target, data, deadline) for cut, data in asked if data is not None
        )
        left = tuple(text for text in stays if text)
        for text in left:
            log.warning("volume snapshot not removed", extra={"run": self._run_id, "reason": text})
        return left

    async def _choose_classes(self, kinds: SnapshotKinds, parameters: Mapping[str, str], repository_id: str) -> None:
        try:
            classes = await _classes(self._api, kinds)
        except KubeError as error:
            for cut in self._cuts:
                (cut.fail if _driver(cut) else cut.refuse)(_unsnapshottable(cut) or str(error))
            return
        for cut in self._cuts:
            if reason := _unsnapshottable(cut):
                cut.refuse(reason)
                continue
            chosen = choose_class(classes, _driver(cut), cut.claim)
            if isinstance(chosen, str):
                cut.refuse(chosen)
            else:
                cut.copy = copy_of(chosen, repository_id, parameters)
        copies = {cut.copy.name: cut.copy for cut in self._cuts if cut.copy is not None}
        problems = await together(self._ensure_class(kinds, copy, classes) for copy in copies.values())
        problem_of = dict(zip(copies, problems, strict=True))
        for cut in self._in(_Stage.STARTED):
            if cut.copy is not None and (problem := problem_of[cut.copy.name]):
                cut.copy = None
                cut.fail(problem)

    async def _ensure_class(self, kinds: SnapshotKinds, copy: ClassCopy, classes: Sequence[SnapshotClass]) -> str:
        """Create the class *copy* unless it stands; return in words why it cannot be used, or ""."""
        stands = next((one for one in classes if one.name == copy.name), None)
        try:
            if stands is None:
                try:
                    await self._api.create(kinds.snapshot_class, copy.body(), field_manager=FIELD_MANAGER)
                except KubeAlreadyExists:  # a concurrent run of the same repository shares it
                    stands = class_from_object(await self._api.get(kinds.snapshot_class, copy.name))
        except KubeError as error:
            return str(error)
        if stands is not None and (difference := copy.difference(stands)):
            # A class changed to Delete would lose backups: never use it, and never change what others may use.
            return f"VolumeSnapshotClass {copy.name} is not as Strongroom made it ({difference}): delete it"
        return ""

    async def _create(self, kinds: SnapshotKinds, cut: _Cut, repository_id: str) -> None:
        assert cut.copy is not None
        labels = {MANAGED_BY_LABEL: MANAGED_BY, REPOSITORY_LABEL: repository_id, RUN_LABEL: self._run_id}
        body = {
            "apiVersion": kinds.snapshot.api_version,
            "kind": kinds.snapshot.kind,
            "metadata": {"name": cut.name, "namespace": cut.claim.namespace, "labels": labels},
            "spec": {
                "volumeSnapshotClassName": cut.copy.name,
                "source": {"persistentVolumeClaimName": cut.claim.name},
            },
        }
        try:
            try:
                answer = await self._api.create(kinds.snapshot, body, cut.claim.namespace, field_manager=FIELD_MANAGER)
            except KubeAlreadyExists as error:
                if not error.after_retry:
                    raise
                answer = await self._api.get(kinds.snapshot, cut.name, cut.claim.namespace)
        except KubeError as error:
            cut.fail(str(error))
            if not (error.after_retry or isinstance(error, _UNCLEAR)):
                cut.copy = None  # refused: there is nothing to remove
        else:
            cut.uid = SNAPSHOTS.decode(answer).metadata.uid

    async def _until(
        self,
        stage: _Stage,
        look: Callable[[_Cut, VolumeSnapshot | None], Awaitable[None]],
        timeout: float,
        longest_pause: float | None,
        failure: str,
    ) -> None:
        """Look at all that are in *stage* until none is; whoever still is after *timeout* seconds failed."""
        clock = asyncio.get_running_loop().time
        started = clock()

        async def glance(cut: _Cut, seen: Mapping[tuple[str, str], VolumeSnapshot]) -> None:
            try:
                await look(cut, seen.get((cut.claim.namespace, cut.uid)))
            except _UNCLEAR as error:
                cut.last_error = str(error)
            except KubeError as error:
                cut.fail(str(error))

        for cut in self._in(stage):
            cut.error_since = None
        kinds = self._kinds
        if kinds is None:
            return
        for pause in pauses() if longest_pause is None else pauses(longest_pause):
            waiting = self._in(stage)
            if not waiting:
                return
            try:
                seen = await self._snapshots(kinds)
            except _UNCLEAR as error:
                for cut in waiting:
                    cut.last_error = str(error)
            except KubeError as error:
                for cut in waiting:
                    cut.fail(str(error))
            else:
                await together(glance(cut, seen) for cut in waiting)
            waiting = self._in(stage)
            if waiting and clock() + pause > started + timeout:
                for cut in waiting:
                    cut.fail(f"{failure} after {timeout:.0f} s" + (f": {cut.last_error}" if cut.last_error else ""))
            elif waiting:
                await asyncio.sleep(pause)

    async def _snapshots(self, kinds: SnapshotKinds) -> dict[tuple[str, str], VolumeSnapshot]:
        labels = f"{RUN_LABEL}={self._run_id}"
        return {
            (one.metadata.namespace, one.metadata.uid): one
            async for one in objects(self._api, kinds.snapshot, SNAPSHOTS, labels)
        }

    async def _content(self, name: str) -> VolumeSnapshotContent | None:
        assert self._kinds is not None
        return await read_content(self._api, self._kinds, name)

    def _weigh_error(self, cut: _Cut, snapshot: VolumeSnapshot, grace: float) -> None:
        error = snapshot.status.error.message if snapshot.status.error else None
        now = asyncio.get_running_loop().time()
        if not error:
            cut.error_since = None
            return
        cut.last_error = error
        if cut.error_since is None:
            cut.error_since = now
        elif now - cut.error_since >= grace:
            cut.fail(error)

    def _in(self, stage: _Stage) -> list[_Cut]:
        return [cut for cut in self._cuts if cut.stage is stage]


async def _classes(api: KubeApi, kinds: SnapshotKinds) -> list[SnapshotClass]:
    return [class_from_object(item) async for page in api.list_pages(kinds.snapshot_class) for item in page.items]


def _owned(cut: _Cut) -> bool:
    """Whether `entries` gives the manifest the snapshot's handle."""
    return cut.stage is _Stage.READY and not cut.lost


def _driver(cut: _Cut) -> str:
    return cut.volume.driver if cut.volume is not None and cut.claim.bound else ""


def _unsnapshottable(cut: _Cut) -> str:
    """Return in words why no CSI driver can snapshot this volume, "" where one may."""
    if not cut.claim.bound:
        return "the claim is not bound to a volume"
    if cut.volume is None:
        return f"its PersistentVolume {cut.claim.volume} does not exist"
    if not cut.volume.driver:
        source = cut.volume.source or "unknown"
        return f"its PersistentVolume {cut.volume.name} is of type {source}, which no CSI driver serves"
    return ""


def _take(cut: _Cut, content: VolumeSnapshotContent) -> None:
    """Write down what *content* says of the snapshot on the storage."""
    assert cut.copy is not None
    annotations = content.metadata.annotations or {}
    cut.content = content.metadata.name
    cut.handle = content.handle
    cut.group_handle = content.status.volume_group_snapshot_handle or ""
    cut.created = content.status.creation_time
    cut.restore_size = content.status.restore_size
    if name := annotations.get(DELETION_SECRET_NAME_ANNOTATION):
        namespace = annotations.get(DELETION_SECRET_NAMESPACE_ANNOTATION, "")
        cut.deletion_secret = SecretRef(namespace=namespace, name=name)
    cut.list_secret = list_secret(cut.copy.parameters, content.metadata.name)


def _describe(claim: Claim, state: VolumeState, reason: str, volume: PersistentVolume | None = None) -> VolumeEntry:
    return VolumeEntry(
        namespace=claim.namespace,
        claim=claim.name,
        claim_uid=claim.uid,
        volume=claim.volume,
        driver=volume.driver if volume else "",
        storage_class=claim.storage_class,
        volume_mode=claim.volume_mode,
        capacity=claim.capacity,
        state=state,
        reason=reason,
    )


def _lost(cut: _Cut) -> VolumeEntry:
    reason = "the claim was gone when the objects were read; its snapshot is deleted"
    return _describe(cut.claim, VolumeState.EXCLUDED, reason, cut.volume)


def _entry(cut: _Cut, x_taken: datetime) -> VolumeEntry:
    if cut.stage is _Stage.NOT_SNAPSHOTTABLE:
        return _describe(cut.claim, VolumeState.NOT_SNAPSHOTTABLE, cut.reason, cut.volume)
    if not _owned(cut) or cut.copy is None or cut.created is None:
        reason = cut.reason or "the run did not wait until it was ready to use"
        return _describe(cut.claim, VolumeState.SNAPSHOT_FAILED, reason, cut.volume)
    created = datetime.fromtimestamp(cut.created // _NANOSECONDS, UTC) + timedelta(
        microseconds=cut.created % _NANOSECONDS // 1000
    )
    return msgspec.structs.replace(
        _describe(cut.claim, VolumeState.SNAPSHOT_READY, "", cut.volume),
        handle=cut.handle,
        group_handle=cut.group_handle,
        snapshot_class=cut.copy.source,
        class_parameters=dict(cut.copy.parameters),
        deletion_secret=cut.deletion_secret,
        list_secret=cut.list_secret,
        restore_size_bytes=cut.restore_size,
        created=created.isoformat(),
        skew_ms=round((created - x_taken) / timedelta(milliseconds=1)),
        location=SOURCE_STORAGE,
    )
