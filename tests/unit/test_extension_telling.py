"""What the extension tells: the newest status of each document, errors under the codes that scripts know."""

import pytest

from strongroom.dataplane.collector.selection import UnknownNamespace
from strongroom.dataplane.kube.errors import KubeForbidden, KubeUnreachable, UnknownKind
from strongroom.dataplane.objectstore.errors import StoreDenied, StoreMissing, StoreUnavailable
from strongroom.dataplane.repository.errors import Damaged, NoRepository, NoSuchPoint, ReadOnly, WrongKey
from strongroom.errors import StrongroomError
from strongroom.extension.api.documents import Backup, BackupSpec, DocumentInvalid, ObjectMeta, Selection
from strongroom.extension.api.status import BackupStatus, Failure, Phase
from strongroom.extension.runs.failures import failure_of, together
from strongroom.extension.runs.feed import Feed


def backup(name: str) -> Backup:
    selection = Selection(snapshot_volumes=True, include_cluster_scope_resources=True)
    return Backup(metadata=ObjectMeta(name=name), spec=BackupSpec(storage_location="l", selection=selection))


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
