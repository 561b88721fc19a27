"""Puts documents into a cluster with a vault's trusted access, and follows what the extension says of them.

A document is a custom resource: made once, followed by watch, cancelled by deletion. Nothing else passes between the
control plane and an extension that works in a cluster.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any, Final

import msgspec

from strongroom.controlplane.clusters.access import ClusterAccess
from strongroom.controlplane.clusters.answers import Metadata, read
from strongroom.controlplane.clusters.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterUnauthorized,
    ClusterUnreachable,
    DocumentGone,
    DocumentTaken,
    TrustedAccessRefused,
    translated,
)
from strongroom.controlplane.clusters.manifests import FIELD_MANAGER, MANAGED_BY, NAMESPACE, OWNER
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import (
    KubeAlreadyExists,
    KubeConflict,
    KubeError,
    KubeExpired,
    KubeNotFound,
    KubeServerError,
    KubeTooManyRequests,
    KubeUnauthorized,
    KubeUnreachable,
)
from strongroom.dataplane.kube.kinds import Kind as KubeKind
from strongroom.dataplane.kube.transport import RetryPolicy
from strongroom.extension.api.definitions import PLURALS
from strongroom.extension.api.documents import (
    API_VERSION,
    GROUP,
    VERSION,
    Backup,
    BackupSpec,
    DeleteBackup,
    DocumentInvalid,
    Kind,
    ObjectMeta,
    Restore,
    RestoreCriteria,
    RestoreSpec,
    Selection,
    Work,
    parse_work,
)
from strongroom.extension.api.status import STATUS_TYPES, Phase, Status, parse_status

log = logging.getLogger(__name__)

RETRY: Final = RetryPolicy(attempts=4, total_s=20.0)  # whoever needs more patience has it above
WATCH_SECONDS: Final = 120.0  # a dead connection is found by then; a watch anew costs two requests
PAUSE_SECONDS: Final = 0.5  # after a watch that broke off; doubles
LONGEST_PAUSE_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 10.0  # for the answer to a request whose sender does not want it any more
AWAY_SECONDS: Final = 900.0  # without an answer: upgrades of an API server take minutes, and the extension works on

INSTANCE_LABEL: Final = "strongroom.dev/instance"
LABEL_CHARACTERS: Final = 40  # of a digest: a label's value has 63 at most

OnStatus = Callable[[Status], Awaitable[None]]

_VERBS: Final = frozenset(("create", "get", "list", "watch", "delete"))
KINDS: Final = {kind: KubeKind(GROUP, VERSION, str(kind), plural, True, _VERBS) for kind, plural in PLURALS.items()}


class _Object(msgspec.Struct, frozen=True):
    metadata: Metadata
    status: dict[str, Any] | None = None


def as_vault(access: ClusterAccess, account: str) -> KubeApi:
    """Return the cluster's API with the token of a vault's account, which was admitted."""
    return access.api(account, retry=RETRY)


async def admit(access: ClusterAccess, account: str) -> None:
    """Have the cluster give a token of a vault's account. Raises `TrustedAccessRefused` where it does not."""
    try:
        await access.token(account)
    except (ClusterUnreachable, ClusterUnauthorized):
        raise
    except ClusterError as error:
        raise _refused(error) from error


async def submit(api: KubeApi, document: Work) -> str:
    """Make *document* in the cluster, or find it made; return its uid.

    Raises `DocumentTaken` where the name stands for something else, `TrustedAccessRefused`, `ClusterError`s. Cancelled,
    it ends once the API server has answered: a request that is left behind could still be carried out.
    """
    making = asyncio.create_task(_submit(api, document))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        await asyncio.wait([making], timeout=SETTLE_SECONDS)
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
        raise


async def _submit(api: KubeApi, document: Work) -> str:
    sent = document.to_json()
    labels = {MANAGED_BY: OWNER, **_instance_label(document)}
    metadata = {"name": document.name, "namespace": NAMESPACE, "labels": labels}
    while True:
        with _as_vault_says(f"make the {document.kind} {document.name}"):
            try:
                made = await api.create(
                    KINDS[document.kind], {**sent, "metadata": metadata}, NAMESPACE, field_manager=FIELD_MANAGER
                )
                return read(made, _Object).metadata.uid
            except KubeAlreadyExists:
                try:
                    found = await api.get(KINDS[document.kind], document.name, NAMESPACE)
                except KubeNotFound:
                    continue  # deleted between the two
        _require_same(document, found)
        return read(found, _Object).metadata.uid


def _instance_label(document: Work) -> dict[str, str]:
    """Return the label by which the documents of one instance are found; none for those that do not wait in turn."""
    if isinstance(document, DeleteBackup) or document.spec.dry_run or "instance" not in document.spec.caller:
        return {}
    digest = hashlib.sha256(document.spec.caller["instance"].lower().encode()).hexdigest()
    return {INSTANCE_LABEL: digest[:LABEL_CHARACTERS]}


async def withdraw_others(api: KubeApi, document: Work) -> None:
    """Withdraw what else of the kind and the instance of *document* has not ended: a cluster that was away kept it.

    A control plane has one backup and one restore of an instance at a time. Raises as `withdraw`.
    """
    if not (labels := _instance_label(document)):
        return
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    with _as_vault_says(f"look for a {document.kind} of before"):
        found = [
            read(item, _Object)
            async for page in api.list_pages(KINDS[document.kind], namespace=NAMESPACE, labels=selector)
            for item in page.items
        ]
    for each in found:
        if each.metadata.name != document.name and not _status_of(document.kind, each).phase.final:
            log.warning("a document of before is withdrawn", extra={"document": each.metadata.name})
            await withdraw(api, document.kind, each.metadata.name)


def _require_same(document: Work, found: bytes) -> None:
    """Raise `DocumentTaken` unless *found* asks for the same work; what its caller remembers with it may differ."""
    try:
        there = parse_work({**msgspec.json.decode(found), "apiVersion": API_VERSION, "kind": str(document.kind)})
    except (DocumentInvalid, msgspec.DecodeError):
        there = None
    if there is None or _asked(there) != _asked(document):
        raise DocumentTaken(
            f"the {document.kind} {document.name} is in the cluster and says something else",
            hint=f"kubectl describe {PLURALS[document.kind]} {document.name} -n {NAMESPACE}",
        )


def _asked(document: Work) -> Any:
    spec = document.spec
    return msgspec.structs.replace(spec, caller={}) if hasattr(spec, "caller") else spec


async def withdraw(api: KubeApi, kind: Kind, name: str) -> str:
    """Delete a Backup or Restore and put a withdrawn one in its place, whose uid is returned.

    From then on nothing can begin under the name; when it is final, nothing runs. Repeating it changes nothing. Raises
    `TrustedAccessRefused`, `ClusterError`s.
    """
    stone = _withdrawn(kind, name)
    while True:
        try:
            return await submit(api, stone)
        except DocumentTaken:
            with _as_vault_says(f"delete the {kind} {name}"), contextlib.suppress(KubeNotFound, KubeConflict):
                await api.delete(KINDS[kind], name, NAMESPACE)


def _withdrawn(kind: Kind, name: str) -> Work:
    metadata = ObjectMeta(name=name)
    if kind is Kind.BACKUP:
        nothing = Selection(snapshot_volumes=False, include_cluster_scope_resources=False)
        return Backup(
            metadata=metadata, spec=BackupSpec(storage_location="withdrawn", selection=nothing, withdrawn=True)
        )
    assert kind is Kind.RESTORE, "a DeleteBackup does no harm where nobody waits for it"
    criteria = RestoreCriteria(include_cluster_scope_resources=False)
    spec = RestoreSpec(storage_location="withdrawn", recovery_point_id="none", criteria=criteria, withdrawn=True)
    return Restore(metadata=metadata, spec=spec)


async def discard(api: KubeApi, kind: Kind, name: str) -> None:
    """Delete a document that nobody will look at again. Raises `TrustedAccessRefused`, `ClusterError`s."""
    with _as_vault_says(f"delete the {kind} {name}"), contextlib.suppress(KubeNotFound):
        await api.delete(KINDS[kind], name, NAMESPACE)


async def follow(api: KubeApi, kind: Kind, name: str, uid: str, on_status: OnStatus) -> Status:
    """Return the final status of a document; *on_status* sees each one before, the last included.

    An API server that is away is waited for, `AWAY_SECONDS` at the most. Raises `DocumentGone`,
    `TrustedAccessRefused`, `ClusterError`s, and what *on_status* raises.
    """
    seen: Status | None = None
    answered = time.monotonic()
    failures = 0
    while True:
        try:
            async with contextlib.aclosing(_changes(api, kind, name)) as changes:
                async for found in changes:
                    answered, failures = time.monotonic(), 0
                    if found is None or found.metadata.uid != uid:
                        raise DocumentGone(f"the {kind} {name} was deleted in the cluster")
                    status = _status_of(kind, found)
                    if status != seen:
                        await on_status(status)
                        seen = status
                    if status.phase.final:
                        return status
        except KubeExpired:
            log.info("list anew: the watched revision is gone", extra={"document": name})
        except (KubeUnreachable, KubeServerError, KubeTooManyRequests, ClusterUnreachable) as error:
            failures += 1
            if time.monotonic() - answered > AWAY_SECONDS:
                message = f"the cluster gave no answer for {AWAY_SECONDS / 60:.0f} minutes: {error.message}"
                raise ClusterUnreachable(message, hint="Look at its API server, then repeat") from error
            if failures == 1:
                log.warning("watch broken off", extra={"document": name, "reason": error.message})
            await asyncio.sleep(min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** (failures - 1)))
        except (KubeError, ClusterError) as error:
            with _as_vault_says(f"follow the {kind} {name}"):
                raise error


async def _changes(api: KubeApi, kind: Kind, name: str) -> AsyncGenerator[_Object | None, None]:
    """Yield a document as it stands, then after each change, until the watch's time is over; None: it is not there."""
    only = f"metadata.name={name}"
    revision, raw = "", None
    async for page in api.list_pages(KINDS[kind], namespace=NAMESPACE, fields=only, limit=1):
        revision, raw = page.revision, page.items[0] if page.items else None
    yield None if raw is None else read(raw, _Object)
    events = api.watch(KINDS[kind], namespace=NAMESPACE, revision=revision, fields=only, timeout=WATCH_SECONDS)
    async with contextlib.aclosing(events):
        async for event in events:
            if event.type != "BOOKMARK":
                yield None if event.type == "DELETED" else read(event.raw, _Object)


def _status_of(kind: Kind, found: _Object) -> Status:
    if not found.status or "phase" not in found.status:
        return STATUS_TYPES[kind](phase=Phase.NEW)
    try:
        return parse_status(kind, found.status)
    except DocumentInvalid as error:
        raise ClusterError(error.message) from error


@contextlib.contextmanager
def _as_vault_says(what: str) -> Iterator[None]:
    """Translate errors of a request with a vault's token: a refusal is one of its trusted access."""
    try:
        with translated(what):
            yield
    except ClusterForbidden as error:
        raise _refused(error) from error
    except ClusterUnauthorized as error:
        if isinstance(error.__cause__, KubeUnauthorized):
            raise _refused(error) from error
        raise


def _refused(error: ClusterError) -> TrustedAccessRefused:
    return TrustedAccessRefused(
        f"the cluster does not let the vault in: {error.message}",
        hint="Repeat its trusted access: az aks trustedaccess rolebinding create …",
    )
