"""Takes a backup of a cluster: what is selected, at one instant, into one recovery point.

The steps are those of design section 5: discover, snapshot volumes, take X, read everything at X, commit, and let the
marker name the new point. Up to the commit there is no recovery point; after it the point is whole.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from strongroom.dataplane.collector import coverage
from strongroom.dataplane.collector.budget import ByteBudget
from strongroom.dataplane.collector.cluster_read import ClusterRead, GroupKind, in_parallel, labelled_out
from strongroom.dataplane.collector.incremental import Stored, whole_because
from strongroom.dataplane.collector.instant import (
    CONFIG_MAPS,
    INSTANTS_AT_MOST,
    NAMESPACES,
    Instant,
    take_instant,
)
from strongroom.dataplane.collector.kindread import SINGLE_READS_AT_ONCE, Reader
from strongroom.dataplane.collector.marker import Named, marker_key, marker_namespace, read_marker, write_marker
from strongroom.dataplane.collector.metadata import Meta, list_metadata
from strongroom.dataplane.collector.quiet import Quiet, plan_quiet
from strongroom.dataplane.collector.selection import (
    Resolved,
    check_namespaces,
    excluded_namespaces,
    in_order,
    resolve,
)
from strongroom.dataplane.collector.snapshotting import (
    VolumeSurvey,
    opted_out,
    survey_volumes,
    without_snapshot,
)
from strongroom.dataplane.hooks.freezing import BackupHooks, Freeze
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery, discover
from strongroom.dataplane.kube.errors import KubeExpired, KubeForbidden
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.memory import return_large_buffers
from strongroom.dataplane.repository import model, objects
from strongroom.dataplane.repository.errors import CommittedTooLate, RunTooLong
from strongroom.dataplane.repository.model import (
    ClusterIdentity,
    Incremental,
    Manifest,
    Reference,
    Selection,
    VolumeEntry,
    VolumeState,
)
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.repository.run import ManifestDraft, Run
from strongroom.dataplane.snapshots.session import SnapshotSession

log = logging.getLogger(__name__)

REFERENCES_CHECKED_AT_MOST: Final = 500  # each costs a request; of more references all are listed, existing or not
CLUSTER_ID_NAMESPACE: Final = "kube-system"  # the field's usual identity of a cluster is this namespace's uid


@dataclass(frozen=True)
class BackupRequest:
    """What to back up and how.

    *snapshot_parameters* are laid over those of the VolumeSnapshotClasses. *marker*: write the marker after the commit.
    *whole*: read everything, whatever an earlier point has. *caller* goes into the manifest as it is.
    *hooks* run around the cut of the volumes. *before_commit* returns when the point may be committed; what it raises
    ends the run without one.
    """

    selection: Selection = field(default_factory=Selection)
    snapshot_volumes: bool = True
    snapshot_parameters: Mapping[str, str] = field(default_factory=dict)
    marker: bool = True
    whole: bool = False
    caller: Mapping[str, str] = field(default_factory=dict)
    hooks: BackupHooks | None = None
    before_commit: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True)
class BackupResult:
    """The recovery point that was committed, and what it took.

    *seconds* is wall time. *bytes_read* are answers of the API server, *bytes_written* went to the store, the manifest
    included. *warnings* are those of the manifest and what came after its commit.
    """

    manifest: Manifest
    seconds: float
    bytes_read: int
    bytes_written: int
    requests: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """Where a backup is: *done* of *total* kinds, *objects* stored so far. *kind* is the one that just changed."""

    phase: str
    kind: str = ""
    done: int = 0
    total: int = 0
    objects: int = 0


async def collect(
    api: KubeApi,
    repo: Repository,
    request: BackupRequest,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> BackupResult:
    """Take one backup and return its recovery point.

    Raises errors of the selection (exit code 2) before anything is written; `KubeUnreachable`, `KubeUnauthorized` and
    errors of the repository end the run without a recovery point; so do `HookFailed` and `FreezeFailed`, before any
    volume is cut. What concerns one kind or one volume never does: it stands in the coverage report, and the point is
    Partial.
    """
    return_large_buffers()
    return await _Backup(api, repo, request, progress or (lambda _: None)).take()


class _Backup:
    """One backup on its way; `take` reads as its steps."""

    def __init__(
        self, api: KubeApi, repo: Repository, request: BackupRequest, progress: Callable[[Progress], None]
    ) -> None:
        self._api = api
        self._repo = repo
        self._request = request
        self._progress = progress
        self._key = marker_key(repo.info.id, request.selection)
        self._warnings: list[str] = []
        self._selected: tuple[str, ...] = ()

    async def take(self) -> BackupResult:
        begun, started = time.monotonic(), datetime.now(UTC)
        read_before, requests_before = self._api.bytes_read, self._api.requests
        self._progress(Progress("discovering"))
        discovery, resolved = await self._survey()
        run = await Run.begin(self._repo)
        session: SnapshotSession | None = None
        committing = False
        try:
            survey = await self._survey_volumes(resolved)
            quiet = await self._plan_quiet(resolved, run, survey)
            session, instant = await self._cut(discovery, resolved, run, survey, quiet)
            cluster, incremental = await self._read(discovery, resolved, run, session, instant)
            if session is not None:
                self._progress(Progress("waiting for volume snapshots"))
                await session.ready()
            self._progress(Progress("committing"))
            draft = await self._draft(started, discovery, cluster, incremental, session, read_before, quiet)
            # A full store fails here, while it is sure that no manifest owns the snapshots.
            await run.packs.close()
            if self._request.before_commit is not None:
                await self._request.before_commit()
            committing = True
            manifest = await run.commit(draft)
        except BaseException as error:
            # What was stored is garbage that prune removes. Snapshots are removed here, unless a manifest may own them:
            # a commit that broke off may have gone through. The sweep knows, once it can read the manifests.
            no_manifest = not committing or isinstance(error, RunTooLong | CommittedTooLate)
            if session is not None:
                await asyncio.shield(session.abandon(no_manifest=no_manifest))
            await run.abandon()
            raise
        after = await self._after_commit(run, manifest, cluster, session)
        self._progress(Progress("done", objects=manifest.objects))
        return BackupResult(
            manifest,
            time.monotonic() - begun,
            self._api.bytes_read - read_before,
            run.bytes_written,
            self._api.requests - requests_before,
            (*manifest.warnings, *after),
        )

    async def _survey(self) -> tuple[Discovery, Resolved]:
        """Find out what the cluster serves and what the selection means there. Leaves nothing behind."""
        discovery, namespaces = await in_parallel(discover(self._api), self._namespaces())
        resolved = resolve(
            self._request.selection,
            discovery.kinds,
            discovery.find,
            discovery.failed,
            [meta.name for meta in namespaces if labelled_out(meta)] if isinstance(namespaces, list) else (),
        )
        if isinstance(namespaces, list):
            names = [meta.name for meta in namespaces]
            self._warnings += check_namespaces(resolved.namespaces, names)
            self._selected = in_order(name for name in names if not resolved.namespaces.rule(name))
        elif resolved.namespaces.names is not None:
            self._selected = resolved.namespaces.names
        else:
            raise namespaces  # nothing else says which namespaces there are
        self._warnings += [*self._api.warnings, *resolved.warnings]
        return discovery, resolved

    async def _namespaces(self) -> list[Meta] | KubeForbidden:
        """Return the namespaces that there are, or the denial where they may not be listed."""
        namespaces: list[Meta] = []
        try:
            async for page in list_metadata(self._api, NAMESPACES, with_labels=False):
                namespaces += page.metas
        except KubeForbidden as error:
            return error
        return namespaces

    async def _survey_volumes(self, resolved: Resolved) -> VolumeSurvey | None:
        if not self._request.snapshot_volumes:
            return None
        named = self._selected if resolved.namespaces.narrows else None
        survey = await survey_volumes(self._api, resolved, named)
        self._warnings += survey.problems
        return survey

    async def _plan_quiet(self, resolved: Resolved, run: Run, survey: VolumeSurvey | None) -> Quiet | None:
        """Find out in which pods hooks are to run. Leaves nothing behind."""
        if self._request.hooks is None or not self._request.hooks.hooks:
            return None
        named = self._selected if resolved.namespaces.narrows else None
        quiet = await plan_quiet(self._api, self._request.hooks, run.id, resolved, survey, named)
        self._warnings += quiet.idle
        return quiet

    async def _cut(
        self, discovery: Discovery, resolved: Resolved, run: Run, survey: VolumeSurvey | None, quiet: Quiet | None
    ) -> tuple[SnapshotSession | None, Instant | None]:
        """Have all volumes cut, with hooks while applications stand still; X is then taken before they go on.

        If it stops here the session's own sweep finds what is left of snapshots, and the intent says what to thaw.
        """
        if quiet is None:
            return await self._snapshot(discovery, run, survey), None
        session: SnapshotSession | None = None
        try:
            try:
                self._progress(Progress("running hooks", total=quiet.freeze.pods))
                await quiet.freeze.begin()
                session = await self._snapshot(discovery, run, survey, quiet.freeze)
                with contextlib.suppress(KubeExpired):  # then it is taken after the thaw
                    return session, await take_instant(self._api, resolved.namespaces.names)
                return session, None
            finally:
                await quiet.freeze.thaw()
        except BaseException:
            if session is not None:
                await asyncio.shield(session.abandon())
            raise

    async def _snapshot(
        self, discovery: Discovery, run: Run, survey: VolumeSurvey | None, freeze: Freeze | None = None
    ) -> SnapshotSession | None:
        """Have all volumes cut before X is taken. If it stops here the session's own sweep finds what is left."""
        if survey is None:
            return None
        if survey.claims:
            self._progress(Progress("snapshotting volumes", total=len(survey.claims)))
        session = await SnapshotSession.start(
            self._api,
            discovery,
            run.id,
            survey.claims,
            survey.volumes,
            self._request.snapshot_parameters,
            repository_id=self._repo.info.id,
        )
        if freeze is not None:
            freeze.watch(lambda: session.cut_claims)
        try:
            await session.cut()
        except BaseException:
            await asyncio.shield(session.abandon())
            raise
        return session

    async def _read(
        self,
        discovery: Discovery,
        resolved: Resolved,
        run: Run,
        session: SnapshotSession | None,
        taken: Instant | None = None,
    ) -> tuple[ClusterRead, Incremental]:
        """Take X and read all kinds at it, at most `INSTANTS_AT_MOST` times; then the rest at revisions of its own.

        *taken* is an X that was taken before.
        """
        reader = Reader(
            self._api,
            run,
            self._repo.files,
            ByteBudget(),
            asyncio.Semaphore(SINGLE_READS_AT_ONCE),
            own_contents=session.contents if session is not None else frozenset(),
        )
        stored: dict[GroupKind, Stored] = {}
        base: RecoveryPoint | None = None
        why = ""
        knows = False
        for attempt in range(1, INSTANTS_AT_MOST + 1):
            last = attempt == INSTANTS_AT_MOST
            try:
                instant = (attempt == 1 and taken) or await take_instant(self._api, resolved.namespaces.names, attempt)
                cluster = await ClusterRead.begin(reader, discovery, resolved, instant, progress=self._reading)
                (base, why), _ = await in_parallel(self._base(run, cluster, base), cluster.list_definitions())
                await cluster.define(base.manifest if base is not None else None)
            except KubeExpired:
                if last:
                    raise
                continue
            usable = base
            if base is not None:
                why = whole_because(
                    base.manifest,
                    revision=instant.revision,
                    server_version=discovery.server_version,
                    rules=objects.RULES,
                    now=run.started,
                )
                usable = None if why else base
            if usable is None and not knows:
                await run.know()  # all is read, but only new bytes are stored
                knows = True
            earlier = usable.manifest if usable is not None else None
            if await cluster.read(earlier, stored):
                break
            stored |= cluster.stored
            log.warning("revision expired while reading", extra={"revision": instant.revision, "attempt": attempt})
            self._warnings.append(f"revision {instant.revision} was compacted away while it was read; read on anew")
            if last:
                await cluster.read(earlier, stored, newest_only=True)
        return cluster, _incremental(cluster, usable, why)

    async def _base(
        self, run: Run, cluster: ClusterRead, base: RecoveryPoint | None
    ) -> tuple[RecoveryPoint | None, str]:
        """Return the earlier point that the marker names at X, or the reason why everything is read whole."""
        if self._request.whole:
            return None, "a whole reading was asked for"
        if not cluster.shared(CONFIG_MAPS):
            # At X its etcd would answer with something else, or wait for a revision that never comes.
            return None, "ConfigMaps, where the marker lies, do not share the core etcd"
        named = await read_marker(self._api, _marker_namespace(cluster), cluster.instant.revision, self._key)
        if isinstance(named, str):
            return None, named
        if base is not None and base.id == named.point and base.sha256 == named.manifest_sha256:
            return base, ""
        found = await run.base(named.point, named.manifest_sha256)
        return (None, found) if isinstance(found, str) else (found, "")

    def _reading(self, kind: str, done: int, total: int, objects_: int) -> None:
        self._progress(Progress("reading", kind, done, total, objects_))

    async def _draft(
        self,
        started: datetime,
        discovery: Discovery,
        cluster: ClusterRead,
        incremental: Incremental,
        session: SnapshotSession | None,
        read_before: int,
        quiet: Quiet | None,
    ) -> ManifestDraft:
        resolved = cluster.resolved
        entries = coverage.kind_entries(resolved, cluster.outcomes, cluster.definitions, cluster.shared)
        failures = coverage.group_failures(discovery.failed, resolved)
        volumes, volume_warnings = self._volumes(cluster, session)
        hook_warnings: list[str] = []
        state = coverage.state_of(entries, failures, volumes)
        if quiet is not None:
            volumes, hook_warnings = quiet.mark(volumes), quiet.freeze.warnings()
            state = coverage.PARTIAL if quiet.freeze.not_thawed else state
        references = await self._references(cluster)
        existing = cluster.namespaces or {}
        return ManifestDraft(
            started=_iso(started),
            finished=_iso(datetime.now(UTC)),
            cluster=ClusterIdentity(
                id=existing[CLUSTER_ID_NAMESPACE].uid if CLUSTER_ID_NAMESPACE in existing else "",
                server=self._api.server,
                version=discovery.server_version,
            ),
            selection=self._request.selection,
            instant=model.Instant(
                revision=cluster.instant.revision,
                taken=_iso(cluster.instant.taken),
                attempts=cluster.instant.attempt,
            ),
            incremental=incremental,
            state=state,
            kinds=entries,
            failed_groups=failures,
            excluded_namespaces=excluded_namespaces(resolved.namespaces, existing),
            references=references,
            volumes=volumes,
            warnings=(
                *hook_warnings,
                *self._warnings,
                *cluster.warnings,
                *coverage.warnings_of(entries, failures),
                *volume_warnings,
            ),
            bytes_read=self._api.bytes_read - read_before,
            hooks=quiet.summary() if quiet is not None else None,
            caller=self._request.caller,
        )

    def _volumes(
        self, cluster: ClusterRead, session: SnapshotSession | None
    ) -> tuple[tuple[VolumeEntry, ...], tuple[str, ...]]:
        """Return every kept claim's volume as it stands at X: cut, failed, opted out, or not asked for."""
        out = {uid: claim for uid, claim in cluster.claims.items() if opted_out(claim)}
        wanted = {uid: claim for uid, claim in cluster.claims.items() if uid not in out}
        opted = [
            without_snapshot(claim, VolumeState.EXCLUDED, "its annotation leaves the data out")
            for claim in out.values()
        ]
        warnings: tuple[str, ...] = ()
        if session is None:
            cut = tuple(
                without_snapshot(claim, VolumeState.NOT_REQUESTED, "volume snapshots were not asked for")
                for claim in wanted.values()
            )
        else:
            cut, warnings = session.entries(wanted, cluster.instant.taken)
        return tuple(
            sorted((*cut, *opted), key=lambda entry: (entry.namespace, entry.claim, entry.claim_uid))
        ), warnings

    async def _references(self, cluster: ClusterRead) -> tuple[Reference, ...]:
        """Return what kept objects refer to and the selection leaves out, as far as it exists at X."""
        references = cluster.needs.references()
        if len(references) > REFERENCES_CHECKED_AT_MOST:
            return references
        kinds = {each.kind.kind: each.kind for each in cluster.resolved.kinds if not each.kind.group}
        gate = asyncio.Semaphore(SINGLE_READS_AT_ONCE)

        async def exists(reference: Reference) -> bool:
            kind = kinds[reference.kind]
            try:
                async with gate:
                    return await self._exists(kind, reference, cluster)
            except (KubeForbidden, KubeExpired):
                return True  # cannot be known: better listed once too often

        found = await asyncio.gather(*(exists(reference) for reference in references))
        return tuple(reference for reference, there in zip(references, found, strict=True) if there)

    async def _exists(self, kind: Kind, reference: Reference, cluster: ClusterRead) -> bool:
        revision = cluster.instant.revision if cluster.shared(kind) else None
        return await self._api.get_at(kind, reference.name, reference.namespace, revision) is not None

    async def _after_commit(
        self, run: Run, manifest: Manifest, cluster: ClusterRead, session: SnapshotSession | None
    ) -> Sequence[str]:
        """Write the marker, hand the snapshots over.

        If it stops here the marker names the point before, so the next backup reads more; contents that are left are
        swept later, and the handles live on in the manifest.
        """
        problems: list[str] = []
        if self._request.marker:
            named = Named(manifest.id, run.manifest_sha256)
            problem = await write_marker(self._api, _marker_namespace(cluster), self._key, named)
            problems += [problem] if problem else []
        if session is not None:
            problems += await session.release()
        return problems


def _incremental(cluster: ClusterRead, base: RecoveryPoint | None, why: str) -> Incremental:
    taken_over = sum(outcome.read.taken_over for outcome in cluster.outcomes.values() if outcome.read is not None)
    if base is None:
        return Incremental(reason=why, taken_over=taken_over, whole_since=_iso(cluster.instant.taken))
    return Incremental(base=base.id, taken_over=taken_over, whole_since=base.manifest.incremental.whole_since)


def _marker_namespace(cluster: ClusterRead) -> str:
    return marker_namespace(cluster.namespaces or ())


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
