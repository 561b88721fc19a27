"""A backup's job tells what became of its hooks."""

from strongroom.controlplane.workflows.jobdetails import sub_tasks
from strongroom.dataplane.repository.model import (
    ClusterIdentity,
    HookFailure,
    HookSummary,
    Incremental,
    Instant,
    Manifest,
    PointId,
    RunId,
    Selection,
)


def manifest(hooks: HookSummary | None) -> Manifest:
    return Manifest(
        format=1,
        id=PointId("0" * 16 + "-" + "0" * 16),
        run=RunId("r"),
        writer="0" * 16,
        sequence=0,
        previous="",
        repository="",
        started="",
        finished="",
        cluster=ClusterIdentity(id="", server="", version=""),
        selection=Selection(),
        instant=Instant(revision="1", taken=""),
        incremental=Incremental(),
        state="Completed",
        kinds=(),
        hooks=hooks,
    )


def test_a_job_with_hooks_has_a_sub_task_that_says_what_failed() -> None:
    failure = HookFailure(hook="database of shop/hooks", pod="shop/db-0", container="main", reason="exit code 1: full")
    hooks = HookSummary(pods=2, commands=4, failed=1, failures=(failure,), frozen="a", thawed="b")
    (task,) = sub_tasks(manifest(hooks), {}, "activity")
    assert (task["taskName"], task["taskStatus"]) == ("Hooks", "CompletedWithWarnings")
    assert task["additionalDetails"]["Failures"] == "shop/db-0: database of shop/hooks: exit code 1: full"
    assert sub_tasks(manifest(None), {}, "activity") == []
