"""A command whose work is done ends with the code of its work, also where its store lies in a cloud."""

import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.testbed.stores import azurite, moto

COMMAND = Path(sys.executable).with_name("strongroom")
TIMES = 25  # without `strongroom.process.leave` one in eight was aborted: fewer than one test in 25 would not see it


@pytest.fixture(params=["azure", "s3"])
def store(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The environment that names a new store and how to reach it."""
    with contextlib.ExitStack() as running:
        if request.param == "azure":
            azure = running.enter_context(azurite())
            yield {**azure.environment, "STRONGROOM_REPOSITORY": azure.make_container("exits")}
        else:
            s3 = running.enter_context(moto())
            yield {**s3.environment, "STRONGROOM_REPOSITORY": s3.make_bucket("exits")}


def test_no_command_is_aborted_after_its_work(store: dict[str, str], tmp_path: Path) -> None:
    environment = {**os.environ, **store, "HOME": str(tmp_path)}
    subprocess.run([COMMAND, "repository", "init"], env=environment, check=True, capture_output=True)
    command = [COMMAND, "point", "list", "--quiet"]
    ended = Counter(
        subprocess.run(command, env=environment, check=False, capture_output=True).returncode for _ in range(TIMES)
    )
    assert ended == {0: TIMES}
