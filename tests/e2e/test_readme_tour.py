"""The README's five-minute tour is what a user would type: it runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_tour_runs_as_it_stands(tmp_path: Path) -> None:
    script = "\n".join(re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL))
    assert script.count("strongroom ") > 10
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        # The cache of programs and nothing else of this machine's.
        "STRONGROOM_CACHE": os.environ.get("STRONGROOM_CACHE", str(Path.home() / ".cache/strongroom")),
    }
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
    finally:
        subprocess.run(
            ["strongroom", "testbed", "down", "--dir", "lab", "--quiet"], cwd=tmp_path, env=environment, check=True
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Closed" in done.stdout
    assert "sound:           yes" in done.stdout
