"""Several processes use one cluster; whoever is killed does not keep it alive."""

import signal
import subprocess
import sys
from pathlib import Path

from strongroom.testbed.cluster import Testbed
from strongroom.testbed.sharing import sweep

USER = """
import sys
from pathlib import Path
from strongroom.testbed.options import TestbedOptions
from strongroom.testbed.sharing import shared_testbed
with shared_testbed(Path(sys.argv[1]), TestbedOptions(volumes=False)) as testbed:
    print(testbed.server, flush=True)
    sys.stdin.read()
"""


def user(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", USER, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def server_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_one_cluster_serves_all_users_and_does_not_outlive_the_last_living_one(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    with user(folder) as first, user(folder) as second:
        servers = {server_of(first), server_of(second)}
        assert len(servers) == 1
        first.communicate()
        sweep(folder)
        cluster = Testbed.open(folder / "cluster")
        assert {cluster.server} == servers
        assert cluster.status().ready
        second.send_signal(signal.SIGKILL)
        second.communicate()
        assert cluster.status().ready
    sweep(folder)
    assert not folder.exists()
    assert cluster.pid("etcd") is None
    sweep(folder)
