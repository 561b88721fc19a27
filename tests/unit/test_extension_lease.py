"""A holder of the lease whose death is certain is not waited for; everybody else is."""

import os
import subprocess
import sys

import pytest

from strongroom.extension.watching.lease import is_dead, scope

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc")


def test_a_process_that_lives_is_not_dead() -> None:
    assert not is_dead(f"{scope()}/abc")


@linux
def test_a_process_of_this_machine_that_ended_is_dead() -> None:
    code = "from strongroom.extension.watching.lease import scope; print(scope())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert is_dead(f"{ended}/abc")


@linux
def test_another_process_under_the_same_number_is_not_the_holder() -> None:
    kind, machine, process, started = scope().split(":")
    assert process == str(os.getpid())
    assert is_dead(f"{kind}:{machine}:{process}:{int(started) - 1}/abc")


@pytest.mark.parametrize(
    "identity", ["", "x", "process:another-machine:1:1/abc", "process::1:1/abc", "pod:another/abc", "pod:/abc", "a/b/c"]
)
def test_of_other_machines_and_pods_nothing_is_known(identity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_dead(identity)
    monkeypatch.setenv("POD_UID", "mine")
    assert not is_dead(identity)


def test_an_earlier_container_of_the_same_pod_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_UID", "1234")
    assert scope() == "pod:1234"
    assert is_dead(f"{scope()}/abc")
