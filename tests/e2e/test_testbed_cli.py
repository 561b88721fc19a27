"""`strongroom testbed` as a script uses it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from strongroom.errors import ExitCode
from strongroom.testbed.cluster import Testbed


def strongroom(*arguments: str) -> tuple[int, Any]:
    """Run `strongroom testbed …` and return its exit code and the JSON document that it printed."""
    command = [sys.executable, "-m", "strongroom.cli.main", "testbed", *arguments, "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else json.loads(done.stderr.splitlines()[-1])


def test_a_cluster_is_brought_up_beside_another_asked_for_its_status_and_brought_down(
    testbed: Testbed, tmp_path: Path
) -> None:
    folder = tmp_path / "second"
    code, found = strongroom("up", "--dir", str(folder))
    try:
        assert code == ExitCode.WHOLE
        assert found["kubeconfig"] == str(folder / "kubeconfig")
        assert found["version"] == "v1.37.2"
        assert Path(found["volumes"]).is_dir()
        assert found["server"] != testbed.server
        second = Testbed.open(folder)
        assert "node-0" in second.kubectl("get", "nodes", kubeconfig=Path(found["kubeconfig"]))
        code, status = strongroom("status", "--dir", str(folder))
        assert (code, status["ready"]) == (ExitCode.WHOLE, True)
        assert all(component["running"] for component in status["components"])
        code, refused = strongroom("up", "--dir", str(folder))
        assert code == ExitCode.USAGE
        assert "testbed down" in refused["error"]["hint"]
        second.stop("kube-scheduler")
        code, status = strongroom("status", "--dir", str(folder))
        assert (code, status["ready"]) == (ExitCode.UNREACHABLE, False)
        assert [part["name"] for part in status["components"] if not part["running"]] == ["kube-scheduler"]
    finally:
        code, document = strongroom("down", "--dir", str(folder))
    assert (code, document) == (ExitCode.WHOLE, {"removed": True})
    assert not folder.exists()
    assert strongroom("down", "--dir", str(folder)) == (ExitCode.WHOLE, {"removed": False})
    assert testbed.status().ready


def test_a_folder_that_holds_no_cluster_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("mine")
    for command in ("status", "down"):
        code, document = strongroom(command, "--dir", str(tmp_path))
        assert code == ExitCode.USAGE
        assert "holds no test cluster" in document["error"]["message"]
    assert (tmp_path / "letter").exists()
