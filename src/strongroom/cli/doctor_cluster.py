"""The checks of `strongroom doctor` on a bare kubeconfig and a repository: no service is asked.

In the cluster nothing is changed. In the store one small object is written and deleted again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from strongroom.cli.connection import api_of
from strongroom.cli.findings import Finding, Status, age_text, fail, of_error, ok, warn
from strongroom.cli.options import ClusterOptions
from strongroom.dataplane.collector.instant import probe_kinds, take_instant
from strongroom.dataplane.collector.selection import Resolved, resolve
from strongroom.dataplane.collector.snapshotting import survey_volumes
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery, discover
from strongroom.dataplane.kube.errors import KubeError
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.kube.transport import RetryPolicy
from strongroom.dataplane.objectstore.create import probe_conditional_create
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.objectstore.port import ObjectStore
from strongroom.dataplane.repository.info import read_info
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.model import Selection
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.snapshots.kinds import (
    SNAPSHOTS,
    SnapshotApiMissing,
    SnapshotKinds,
    VolumeSnapshot,
    find_kinds,
    objects,
)
from strongroom.errors import StrongroomError
from strongroom.extension.api.status import StatusWarning
from strongroom.extension.runs.checks import check_volumes

RETRY: Final = RetryPolicy(attempts=3, total_s=20.0)  # a person waits, and an outage is what is to be found
STUCK: Final = timedelta(minutes=2)  # a snapshot-controller that runs binds a VolumeSnapshot within a second
NAMED: Final = 5  # kinds or objects that a finding names; the rest are counted

_REVIEWS: Final = Kind(
    "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", False, frozenset({"create"})
)
_DRIVERS: Final = Kind("storage.k8s.io", "v1", "CSIDriver", "csidrivers", False, frozenset({"list"}))
_SNAPSHOT_GROUP: Final = "snapshot.storage.k8s.io"

# docs/reference/kubernetes-access.md, "Accounts of a connected cluster": what a backup and a restore ask for.
_Right = tuple[str, str, str]  # group, resource, verb
READ: Final[tuple[_Right, ...]] = (("*", "*", "list"),)
SNAPSHOT: Final[tuple[_Right, ...]] = (
    *((_SNAPSHOT_GROUP, "volumesnapshots", verb) for verb in ("get", "list", "create", "delete")),
    *((_SNAPSHOT_GROUP, "volumesnapshotcontents", verb) for verb in ("get", "list", "create", "delete", "patch")),
    *((_SNAPSHOT_GROUP, "volumesnapshotclasses", verb) for verb in ("get", "list", "create")),
    ("storage.k8s.io", "csidrivers", "get"),
)
RESTORE: Final[tuple[_Right, ...]] = (("*", "*", "create"), ("*", "*", "patch"))


async def check_cluster(
    options: ClusterOptions, repository: str, key_file: Path | None, max_age_seconds: int, now: datetime
) -> list[Finding]:
    """Return what is found in the cluster, then in the store at the URL *repository* ("": none is looked at)."""
    found = [each async for each in _cluster(options, now)]
    if repository:
        found += [each async for each in _store(repository, key_file, timedelta(seconds=max_age_seconds), now)]
    return found


async def _cluster(options: ClusterOptions, now: datetime) -> AsyncIterator[Finding]:
    try:
        api = api_of(options, retry=RETRY)
    except StrongroomError as error:
        yield of_error("kubeconfig", str(options.kubeconfig or ""), error)
        return
    async with api:
        for text in api.warnings:
            yield warn("connection", api.server, text)
        try:
            discovery = await discover(api)
        except KubeError as error:
            yield of_error("API server", api.server, error)
            return
        yield ok("API server", api.server, f"answers; Kubernetes {discovery.server_version}")
        checks: Sequence[tuple[str, Callable[[], AsyncIterator[Finding]]]] = (
            ("API groups", lambda: _groups(discovery)),
            ("rights", lambda: _rights(api)),
            ("kinds", lambda: _kinds(api, discovery)),
            ("volumes", lambda: _volumes(api, discovery, now)),
        )
        for check, findings in checks:
            try:
                async for each in findings():
                    yield each
            except KubeError as error:
                yield of_error(check, api.server, error)


async def _groups(discovery: Discovery) -> AsyncIterator[Finding]:
    for group, reason in sorted(discovery.failed.items()):
        name, _, version = group.rpartition("/")
        service = f"{version}.{name}" if name else group
        yield fail(
            "API group",
            group,
            f"it does not answer: {reason}; backups are Partial without its objects",
            f"kubectl get apiservice {service}; mend what is behind it, or delete it if nothing uses it any more",
        )
    if not discovery.failed:
        yield ok("API groups", "", f"all answer; {len(discovery.kinds)} kinds")


async def _rights(api: KubeApi) -> AsyncIterator[Finding]:
    """Ask the server what these credentials may do, as `kubectl auth can-i` does."""
    for what, rights, lacking in (
        ("read", READ, "backups are Partial, or need namespaces that are named"),
        ("snapshot", SNAPSHOT, "volumes are not snapshotted"),
        ("restore", RESTORE, "restores are not possible with these credentials; backups are"),
    ):
        answers = await asyncio.gather(*(_may(api, *right) for right in rights))
        denied = [right for right, allowed in zip(rights, answers, strict=True) if not allowed]
        if not denied:
            yield ok("rights", what, f"{len(rights)} rights, all granted")
            continue
        status = Status.FAIL if what == "read" else Status.WARN
        words = ", ".join(f"{verb} {resource}{'.' + group if group != '*' else ''}" for group, resource, verb in denied)
        yield Finding("rights", what, status, f"missing: {words}. Without: {lacking}", (_grant(what, denied),))


async def _may(api: KubeApi, group: str, resource: str, verb: str) -> bool:
    attributes = {"group": group, "resource": resource, "verb": verb}
    body = {
        "apiVersion": _REVIEWS.api_version,
        "kind": _REVIEWS.kind,
        "spec": {"resourceAttributes": attributes},
    }
    answer: dict[str, Any] = msgspec.json.decode(await api.create(_REVIEWS, body))
    return bool(answer.get("status", {}).get("allowed"))


def _grant(what: str, denied: Sequence[_Right]) -> str:
    """Return commands that give the rights to a user or an account, which only the reader can name."""
    verbs = ",".join(dict.fromkeys(verb for _, _, verb in denied))
    resources = ",".join(
        dict.fromkeys("*.*" if resource == "*" else f"{resource}.{group}" for group, resource, _ in denied)
    )
    name = f"strongroom-{what}-by-hand"
    return (
        f"kubectl create clusterrole {name} --verb={verbs} --resource='{resources}' && "
        f"kubectl create clusterrolebinding {name} --clusterrole={name} --user=USER"
    )


async def _kinds(api: KubeApi, discovery: Discovery) -> AsyncIterator[Finding]:
    """Test for each kind whether it can be listed, and whether it can be read at the one instant of a backup."""
    kinds = [choice.kind for choice in _everything(discovery).kinds if not choice.rule]
    probes = await probe_kinds(api, kinds, await take_instant(api, None), None)
    failed = {kind.resource: probe.failed for kind, probe in probes.items() if probe.failed}
    apart = [kind.resource for kind, probe in probes.items() if not probe.failed and not probe.shared]
    if failed:
        reason = next(iter(failed.values()))
        found = f"{_names(failed)} cannot be listed: {reason}"
        yield fail("kinds", "readable", found, "Grant `list` on them, or leave them out: --exclude-kind")
    else:
        yield ok("kinds", "readable", f"{len(probes)} kinds can be listed")
    if apart:
        found = (
            f"{_names(apart)} are kept apart (an etcd of their own, or another API server): they are read as they stand"
            " during the backup, not at its instant"
        )
        yield warn("kinds", "one instant", found)
    else:
        yield ok("kinds", "one instant", "all share one etcd: a backup reads them at one instant")


def _everything(discovery: Discovery) -> Resolved:
    return resolve(Selection(), discovery.kinds, discovery.find, discovery.failed)


async def _volumes(api: KubeApi, discovery: Discovery, now: datetime) -> AsyncIterator[Finding]:
    """Look whether each claim's volume can be snapshotted: driver, class, the snapshot API, its controller."""
    resolved = _everything(discovery)
    survey = await survey_volumes(api, resolved, None)
    drivers = {volume.driver for volume in survey.volumes.values() if volume.driver}
    used = {survey.volumes[claim.volume].driver for claim in survey.claims if claim.volume in survey.volumes} - {""}
    try:
        kinds = find_kinds(discovery)
    except SnapshotApiMissing as missing:
        finding = fail if used else warn
        yield finding("snapshot API", _SNAPSHOT_GROUP, missing.message, missing.hint)
        kinds = None
    if kinds is not None:
        async for each in _controller(api, kinds, now):
            yield each
    registered = await _names_of(api, _DRIVERS)
    for driver in sorted(used - registered):
        mend = "Install the CSI driver, or label the claims velero.io/exclude-from-backup=true"
        yield warn("CSI driver", driver, "volumes name it, and it is not in the cluster", mend)
    for driver in sorted(used & registered):
        yield ok("CSI driver", driver, "in the cluster, and used by claims")
    if not drivers and not survey.claims:
        yield ok("volumes", "", "there is no claim")
    if not survey.claims or kinds is None:
        return
    warnings: list[StatusWarning] = []
    problems = await check_volumes(api, discovery, resolved, warnings)
    for problem in problems:
        yield Finding("volume", problem.target, Status.FAIL, problem.message, problem.recommended_action, problem.code)
    for each_warning in warnings:
        yield Finding("volume", each_warning.resource, Status.WARN, each_warning.message, (), each_warning.code)
    good = len(survey.claims) - len({each.target for each in problems} | {each.resource for each in warnings})
    yield ok("volumes", "", f"{max(0, good)} of {len(survey.claims)} claims can be snapshotted")


async def _controller(api: KubeApi, kinds: SnapshotKinds, now: datetime) -> AsyncIterator[Finding]:
    """Say whether VolumeSnapshots wait for a snapshot-controller; that one runs shows only where it had work."""
    waiting: list[str] = []
    bound = 0
    async for snapshot in objects(api, kinds.snapshot, SNAPSHOTS):
        if snapshot.status.bound_volume_snapshot_content_name:
            bound += 1
        elif _stuck(snapshot, now):
            waiting.append(f"{snapshot.metadata.namespace}/{snapshot.metadata.name}")
    if waiting:
        yield fail(
            "snapshot-controller",
            "",
            f"{_names(waiting)} wait for longer than {age_text(STUCK)}: it does not run, or cannot work",
            "kubectl get pods -A -l app.kubernetes.io/name=snapshot-controller; see its log, or install it",
        )
    else:
        said = f"{bound} VolumeSnapshots are bound" if bound else "no VolumeSnapshot waits, and none would show it"
        yield ok("snapshot API", _SNAPSHOT_GROUP, f"served; {said}")


def _stuck(snapshot: VolumeSnapshot, now: datetime) -> bool:
    # One with an error was seen by the controller, which says in it what is wrong.
    created = snapshot.metadata.creation_timestamp
    return snapshot.status.error is None and now - created > STUCK


async def _names_of(api: KubeApi, kind: Kind) -> set[str]:
    names: set[str] = set()
    async for page in api.list_pages(kind, metadata_only=True):
        names |= {str(msgspec.json.decode(item)["metadata"]["name"]) for item in page.items}
    return names


async def _store(url: str, key_file: Path | None, max_age: timedelta, now: datetime) -> AsyncIterator[Finding]:
    try:
        store = await open_store(url)
    except StrongroomError as error:
        yield of_error("store", url, error)
        return
    try:
        try:
            await probe_conditional_create(store)
            yield ok("store", store.url, "written and deleted; it replaces nothing that is there")
        except StrongroomError as error:
            yield of_error("store", store.url, error)
        async for each in _repository(store, key_file, max_age, now):
            yield each
    except StrongroomError as error:
        yield of_error("repository", store.url, error)
    finally:
        await store.close()


async def _repository(
    store: ObjectStore, key_file: Path | None, max_age: timedelta, now: datetime
) -> AsyncIterator[Finding]:
    info, _ = await read_info(store)
    keys = KeyFile.find(key_file, info.id)
    repository = await Repository.open(store, keys)
    points = await repository.points()
    damaged = [point.id for point in points if point.problem and not point.void]
    usable = [point.manifest for point in points if point.manifest and not point.void]
    if repository.writer is None:
        yield warn("repository", info.id, "it can be read and not written", "Name its key file with --key-file")
    else:
        yield ok("repository", info.id, f"opened; {len(usable)} recovery points")
    if damaged:
        mend = f"strongroom repository check --repository {store.url}"
        yield fail("recovery points", info.id, f"{_names(damaged)} cannot be used", mend)
    mend = f"strongroom point create --repository {store.url}"
    if not usable:
        yield warn("last backup", info.id, "there is no recovery point yet", mend)
        return
    age = now - datetime.fromisoformat(usable[-1].instant.taken).astimezone(UTC)
    told = f"the newest recovery point, {usable[-1].id}, is {age_text(age)} old"
    if usable[-1].state != "Completed":
        told += f" and {usable[-1].state}"
        yield warn("last backup", info.id, told, f"strongroom point coverage {usable[-1].id}")
    elif age > max_age:
        yield fail("last backup", info.id, f"{told}; {age_text(max_age)} are allowed", mend)
    else:
        yield ok("last backup", info.id, told)


def _names(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
