"""Three clusters on one control plane, each with a container of its own: one that is away does not slow the others."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.testbed.cluster import Testbed
from strongroom.testbed.options import TestbedOptions

from .kills_stage import GOOD, Stage, eventually

NAMES = ("east", "north", "west")


@pytest.fixture
def stages(own_testbed: Callable[[TestbedOptions], Testbed], tmp_path: Path) -> Iterator[list[Stage]]:
    """One stage for each cluster; all share the control plane of the first."""
    clusters = [own_testbed(TestbedOptions(volumes=False)) for _ in NAMES]
    first = Stage(tmp_path, "", clusters[0], "shop", cluster_name=NAMES[0])
    others = [
        Stage(tmp_path, "", cluster, "shop", first.port, first.lives, first.answers, name)
        for cluster, name in zip(clusters[1:], NAMES[1:], strict=True)
    ]
    try:
        first.set_up()
        for stage in others:
            stage.protect()
        yield [first, *others]
    finally:
        first.lives.close()


def test_clusters_back_up_at_once_and_one_that_is_away_slows_no_other(stages: list[Stage]) -> None:
    jobs = [stage.begin_backup() for stage in stages]
    for stage, job_id in zip(stages, jobs, strict=True):
        job = stage.job_ended(job_id)
        assert job["status"] in GOOD, job
    for stage, job_id in zip(stages, jobs, strict=True):
        assert [point.caller["job"] for point in stage.points()] == [job_id], "each has its own container"

    *others, away = stages
    pid = away.testbed.pid("kube-apiserver")
    assert pid is not None
    # The worst way to be away: it takes connections, and does not answer.
    os.kill(pid, signal.SIGSTOP)
    hanging = away.begin_backup()
    for _ in range(2):
        for stage, job_id in [(stage, stage.begin_backup()) for stage in others]:
            job = stage.job_ended(job_id)
            assert job["status"] in GOOD, job
    assert away.job(hanging)["status"] == "InProgress", "the others ended while this one had no answer"
    away.testbed.stop("kube-apiserver", kill=True)
    failed = away.job_ended(hanging)
    assert failed["status"] == "Failed", failed
    (why,) = failed["errorDetails"]
    assert why["code"] == "UserErrorKubernetesBackupExtensionUnhealthy", why
    assert why["recommendedAction"], why
    assert why["isRetryable"], why

    away.testbed.start("kube-apiserver")

    def works() -> Any:
        return away.job_ended(away.begin_backup())["status"] in GOOD

    eventually("the cluster is backed up again", works)
    assert {point.caller["job"] for point in away.points()} > {jobs[-1]}
    assert hanging not in {point.caller["job"] for point in away.points()}
