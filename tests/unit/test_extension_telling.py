"""What the extension tells: the newest status of each document, errors under the codes that scripts know."""

import asyncio
import json

import pytest

from strongroom.dataplane.collector.selection import UnknownNamespace
from strongroom.dataplane.kube.errors import KubeForbidden, KubeUnreachable, UnknownKind
from strongroom.dataplane.objectstore.errors import StoreDenied, StoreMissing, StoreUnavailable
from strongroom.dataplane.repository.errors import Damaged, NoRepository, NoSuchPoint, ReadOnly, WrongKey
from strongroom.errors import StrongroomError
from strongroom.extension.api import pipe as wire
from strongroom.extension.api.documents import Backup, BackupSpec, DocumentInvalid, ObjectMeta, Selection
from strongroom.extension.api.status import BackupStatus, Failure, Phase, Progress
from strongroom.extension.pipe import Outbox
from strongroom.extension.runs.failures import failure_of, together
from strongroom.extension.runs.feed import Feed


def backup(name: str) -> Backup:
    selection = Selection(snapshot_volumes=True, include_cluster_scope_resources=True)
    return Backup(metadata=ObjectMeta(name=name), spec=BackupSpec(storage_location="l", selection=selection))


def running(done: int) -> BackupStatus:
    return BackupStatus(phase=Phase.IN_PROGRESS, progress=Progress(phase="reading", done=done))


async def test_a_slow_reader_is_told_the_newest_status_of_each_document_and_every_answer() -> None:
    outbox = Outbox()
    lines: list[dict[str, object]] = []
    may_read, all_told = asyncio.Event(), asyncio.Event()

    async def write(line: bytes) -> None:
        await may_read.wait()
        lines.append(json.loads(line))
        if len(lines) == 4:
            all_told.set()

    sending = asyncio.create_task(outbox.send(write))
    outbox.answer(wire.Pong(seq=1))
    await asyncio.sleep(0)
    for done in range(1000):
        outbox.status(backup("one"), running(done))
        outbox.status(backup("two"), running(done))
    outbox.answer(wire.Done(seq=2))
    may_read.set()
    async with asyncio.timeout(5):
        await all_told.wait()
    sending.cancel()
    assert [line["event"] for line in lines] == ["pong", "done", "status", "status"]
    assert [(line["name"], line["status"]["progress"]["done"]) for line in lines[2:]] == [  # type: ignore[index]
        ("one", 999),
        ("two", 999),
    ]


async def test_progress_is_told_now_and_then_and_the_end_at_once() -> None:
    told: list[Phase] = []
    feed = Feed(backup("one"), lambda _, status: told.append(status.phase))
    feed.begin()
    for done in range(1000):
        feed.progress("reading", done, 1000)
    ended = feed.end(BackupStatus(phase=Phase.FAILED, error=Failure(code="c", message="m")))
    feed.progress("reading", 1, 1)
    assert told[-1] is Phase.FAILED
    assert len(told) <= 4
    assert ended.start_time
    assert ended.completion_time
    assert [(each.status, each.reason, each.message) for each in ended.conditions] == [("False", "Failed", "m")]


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (StoreDenied("x"), "UserErrorExtensionMSIMissingPermissionsOnBackupStorageLocation", False),
        (StoreMissing("x"), "UserErrorNoDefaultBackupStorageLocationFound", False),
        (NoRepository("x"), "UserErrorNoDefaultBackupStorageLocationFound", False),
        (StoreUnavailable("x"), "UserErrorBackupStorageLocationNotReady", True),
        (ReadOnly("x"), "UserErrorBackupStorageLocationNotReady", True),
        (WrongKey("x"), "UserErrorBackupStorageLocationNotReady", False),
        (NoSuchPoint("x"), "UserErrorGenericResourceNotFound", False),
        (Damaged("x"), "UserErrorKubernetesBackupOperationFailed", False),
        (UnknownNamespace("x"), "UserErrorNamespaceNotFound", False),
        (UnknownKind("x"), "BMSUserErrorInvalidInput", False),
        (DocumentInvalid("x", field="spec"), "BMSUserErrorInvalidInput", False),
        (KubeUnreachable("x"), "UserErrorKubernetesBackupExtensionUnhealthy", True),
        (KubeForbidden("x"), "UserErrorKubernetesBackupExtensionHasErrors", False),
    ],
)
def test_errors_have_the_codes_that_scripts_know(error: StrongroomError, code: str, retryable: bool) -> None:
    failure = failure_of(error)
    assert (failure.code, failure.retryable) == (code, retryable)


def test_several_problems_are_one_error_that_holds_all_of_them() -> None:
    problems = [
        Failure(code="A", message="a", recommended_action=("do a",), retryable=True),
        Failure(code="B", message="b", recommended_action=("do b", "do a")),
    ]
    error = together(problems)
    assert (error.code, error.details, error.retryable) == ("A", tuple(problems), False)
    assert error.recommended_action == ("do a", "do b")
    assert together(problems[:1]) == problems[0]
