"""What the compatibility tests share: a cluster that nobody else connects."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.testbed.cluster import Testbed
from strongroom.testbed.options import TestbedOptions
from strongroom.testbed.sharing import shared_testbed


@pytest.fixture(scope="session")
def compat_cluster(testbeds_folder: Path) -> Iterator[Testbed]:
    """A cluster of this worker's own, without volumes. Leave no extension in it: the next server brings its own."""
    with shared_testbed(testbeds_folder / f"compat-{os.getpid()}", TestbedOptions(volumes=False)) as cluster:
        yield cluster
