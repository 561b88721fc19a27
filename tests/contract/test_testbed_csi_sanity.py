"""The test cluster's CSI driver passes the official suite, kubernetes-csi/csi-test."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.testbed.binaries import CSI_SANITY, MODULES, locate, locate_test_program

# Of 103, those for what the driver offers: volumes, clones, snapshots and their lists, publishing without staging.
APPLICABLE = 47


@pytest.fixture
def driver_socket(tmp_path: Path) -> Iterator[Path]:
    """The socket of a driver on an empty folder."""
    binaries = locate(print, [module for module in MODULES if module.folder == "folderdriver"])
    path = tmp_path / "s"
    command = [binaries["folderdriver"], f"-data={tmp_path / 'data'}", f"-socket={path}"]
    with subprocess.Popen(command) as driver:
        deadline = time.monotonic() + 30
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(path)) == 0:
                    break
            assert driver.poll() is None, "the driver ended"
            assert time.monotonic() < deadline, "the driver does not answer"
            time.sleep(0.01)
        yield path
        driver.terminate()


@pytest.mark.skipif(os.geteuid() != 0, reason="publishing a volume is a bind mount, which needs root")
def test_the_driver_passes_the_official_csi_suite(driver_socket: Path, tmp_path: Path) -> None:
    sanity = locate_test_program(CSI_SANITY, print)
    places = [f"--csi.mountdir={tmp_path / 'mount'}", f"--csi.stagingdir={tmp_path / 'staging'}"]
    done = subprocess.run(
        [sanity, f"--csi.endpoint={driver_socket}", *places, "--ginkgo.no-color"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    counted = re.search(r"(\d+) Passed \| (\d+) Failed", done.stdout)
    assert counted is not None
    assert counted.groups() == (str(APPLICABLE), "0")
