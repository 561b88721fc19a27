"""Checks what only the cluster knows before a backup: the store, the kinds, the volumes. Answers everything at once.

Nothing is changed but one small object an hour under `probe/` of the container.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from strongroom.dataplane.collector.instant import NAMESPACES
from strongroom.dataplane.collector.metadata import list_metadata
from strongroom.dataplane.collector.selection import Resolved, UnknownNamespace, resolve
from strongroom.dataplane.collector.snapshotting import survey_volumes
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery, discover
from strongroom.dataplane.kube.errors import KubeError, KubeForbidden
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.objectstore.create import create_once
from strongroom.dataplane.objectstore.port import parse_key
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.model import Selection
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.snapshots.claims import (
    Claim,
    PersistentVolume,
    SnapshotClass,
    choose_class,
    class_from_object,
)
from strongroom.dataplane.snapshots.kinds import SnapshotApiMissing, find_kinds
from strongroom.errors import StrongroomError
from strongroom.extension.api.documents import Backup
from strongroom.extension.api.status import BackupStatus, Failure, Phase, StatusWarning, bounded
from strongroom.extension.runs.context import RunContext
from strongroom.extension.runs.failures import failure_of, together
from strongroom.extension.runs.hooks import backup_hooks, check_backup_hooks
from strongroom.extension.runs.mapping import backup_selection, unsupported_of_backup
from strongroom.protection.errors import ErrorCode

CHECKS_AT_ONCE: Final = 8  # small lists; a job may run beside it
NO_SNAPSHOT_CLASS: Final = "UserErrorVolumeSnapshotClassNotFound"
"""Ours: Azure installs the class with the cluster and has no code for its absence."""
CANNOT_LIST: Final = "UserErrorExtensionMissingPermissionsOnCluster"
"""Ours: Azure's extension is cluster-admin."""


async def check_backup(context: RunContext, backup: Backup) -> BackupStatus:
    """Return the findings about *backup*: failures as details of one error, and warnings; raise for none."""
    problems = unsupported_of_backup(backup.spec.selection)
    warnings: list[StatusWarning] = []
    store, cluster = await asyncio.gather(_check_store(context, backup), _check_cluster(context, backup, warnings))
    problems += [*store, *cluster]
    kept, count = bounded(warnings)
    return BackupStatus(
        phase=Phase.FAILED if problems else Phase.COMPLETED,
        error=together(problems) if problems else None,
        warnings=kept,
        warning_count=count,
    )


async def existing_only(api: KubeApi, selection: Selection) -> tuple[Selection, list[StatusWarning]]:
    """Return *selection* without namespaces that do not exist, and a warning for each.

    A namespace that went away must not stop the backups of the others. Raises `UnknownNamespace` where none is left.
    """
    named = [each for each in selection.include_namespaces if not set(each) & set("*?[")]
    if not named:
        return selection, []
    try:
        existing = {
            meta.name async for page in list_metadata(api, NAMESPACES, with_labels=False) for meta in page.metas
        }
    except KubeForbidden:
        return selection, []  # then each is read by its name, and what cannot be read says so
    missing = [each for each in named if each not in existing]
    left = tuple(each for each in selection.include_namespaces if each not in missing)
    if missing and not left:
        raise UnknownNamespace(
            f"none of the selected namespaces exists: {', '.join(missing)}",
            hint="Correct includedNamespaces of the backup configuration",
        )
    warnings = [
        StatusWarning(
            resource=each, code=str(ErrorCode.NAMESPACE_NOT_FOUND), message=f"the namespace {each} does not exist"
        )
        for each in missing
    ]
    return msgspec.structs.replace(selection, include_namespaces=left), warnings


async def _check_store(context: RunContext, backup: Backup) -> list[Failure]:
    """Open the repository with the extension's own keys and create an object in its container."""
    target = "spec.storageLocation"
    try:
        async with context.repository(backup.spec.storage_location) as repo:
            await _probe(repo, repo.require_writer())
    except StrongroomError as error:
        return [failure_of(error, target=target)]
    return []


async def _probe(repo: Repository, writer: str) -> None:
    # The extension may not delete what it creates, so the checks of an hour share one object. They cannot share one
    # for ever: where it is there, a store may say so though it would refuse the next create.
    hour = datetime.now(UTC).strftime("%Y%m%d%H")
    await create_once(
        repo.store, parse_key(f"{paths.PROBE}extension-{writer}-{hour}"), b"an extension may write here\n"
    )


async def _check_cluster(context: RunContext, backup: Backup, warnings: list[StatusWarning]) -> list[Failure]:
    """Look at kinds, namespaces and volumes of the selection."""
    try:
        wanted = backup_selection(backup.spec.selection)
        async with context.connect() as api:
            selection, missing = await existing_only(api, wanted)
            warnings += missing
            discovery = await discover(api)
            resolved = resolve(selection, discovery.kinds, discovery.find, discovery.failed)
            warnings += [_generic("", text) for text in resolved.warnings]
            if not resolved.skipped_groups:
                warnings += [
                    _generic(group, f"API group {group} could not be discovered: {reason}")
                    for group, reason in sorted(discovery.failed.items())
                ]
            problems = await _check_kinds(api, resolved)
            hooks, wrong = await backup_hooks(api, backup.spec.selection.backup_hook_references)
            problems += wrong
            if hooks:
                problems += await check_backup_hooks(api, hooks, resolved)
            if backup.spec.selection.snapshot_volumes:
                problems += await check_volumes(api, discovery, resolved, warnings)
    except StrongroomError as error:
        return [failure_of(error)]
    return problems


async def _check_kinds(api: KubeApi, resolved: Resolved) -> list[Failure]:
    """List one object of each selected kind."""
    gate = asyncio.Semaphore(CHECKS_AT_ONCE)
    names = resolved.namespaces.names

    async def check(kind: Kind) -> Failure | None:
        async with gate:
            try:
                await _list_one(api, kind, None)
            except KubeForbidden as error:
                # Where all namespaces are named a backup lists each of them instead.
                if not (kind.namespaced and names):
                    return _cannot_list(kind, error)
                try:
                    for namespace in names:
                        await _list_one(api, kind, namespace)
                except KubeForbidden as denied:
                    return _cannot_list(kind, denied)
            return None

    found = await asyncio.gather(*(check(choice.kind) for choice in resolved.kinds if not choice.rule))
    return [each for each in found if each is not None]


async def _list_one(api: KubeApi, kind: Kind, namespace: str | None) -> None:
    async for _ in api.list_pages(kind, namespace=namespace, limit=1, metadata_only=True):
        return


def _cannot_list(kind: Kind, error: KubeError) -> Failure:
    return Failure(
        code=CANNOT_LIST,
        message=f"the extension may not list {kind.resource}: {error.detail or error.message}",
        recommended_action=("Connect the cluster again so that the extension gets its ClusterRole for reading",),
        target=kind.resource,
    )


async def check_volumes(
    api: KubeApi, discovery: Discovery, resolved: Resolved, warnings: list[StatusWarning]
) -> list[Failure]:
    """Look whether each selected claim's volume has a CSI driver and a VolumeSnapshotClass that serves it."""
    survey = await survey_volumes(api, resolved, resolved.namespaces.names)
    warnings += [_generic("", text) for text in survey.problems]
    if not survey.claims:
        return []
    try:
        kinds = find_kinds(discovery)
        classes = [
            class_from_object(item) async for page in api.list_pages(kinds.snapshot_class) for item in page.items
        ]
    except SnapshotApiMissing as missing:
        return [
            Failure(
                code=NO_SNAPSHOT_CLASS,
                message=missing.message,
                recommended_action=(
                    "Install the CSI snapshot controller and its CRDs, or set snapshotVolumes to false",
                ),
                target="snapshot.storage.k8s.io",
            )
        ]
    problems = []
    for claim in survey.claims:
        found = _check_claim(claim, survey.volumes.get(claim.volume), classes)
        if isinstance(found, Failure):
            problems.append(found)
        elif found is not None:
            warnings.append(found)
    return problems


def _check_claim(
    claim: Claim, volume: PersistentVolume | None, classes: Sequence[SnapshotClass]
) -> Failure | StatusWarning | None:
    """Say what is in the way of a snapshot of *claim*: a failure where a class is missing, else a warning."""
    if not claim.volume:
        code, message = ErrorCode.PVC_NOT_BOUND, "the claim is not bound to a volume"
        return StatusWarning(resource=claim.key, code=str(code), message=f"{claim.key}: {message}")
    if volume is None:
        message = f"the PersistentVolume {claim.volume} does not exist"
        return StatusWarning(resource=claim.key, code=str(ErrorCode.PV_NOT_FOUND), message=f"{claim.key}: {message}")
    if volume.source != "csi":
        return _generic(claim.key, f"{claim.key}: a {volume.source or 'volume without a source'} has no CSI snapshots")
    chosen = choose_class(classes, volume.driver, claim)
    if isinstance(chosen, SnapshotClass):
        return None
    return Failure(
        code=NO_SNAPSHOT_CLASS,
        message=f"{claim.key}: {chosen}",
        recommended_action=(
            f"Make or label a VolumeSnapshotClass for {volume.driver}, or annotate the claim "
            "velero.io/exclude-from-backup=true",
        ),
        target=claim.key,
    )


def _generic(resource: str, text: str) -> StatusWarning:
    return StatusWarning(resource=resource, code=str(ErrorCode.GENERIC_WARNING), message=text)
