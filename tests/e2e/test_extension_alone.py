"""docs/how-to/extension-alone.md runs as it stands: backup and restore by kubectl apply, without a control plane."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "extension-alone.md"


def test_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    script = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL))
    assert script.count("kubectl ") > 15
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        # The cache of programs and nothing else of this machine's.
        "STRONGROOM_CACHE": os.environ.get("STRONGROOM_CACHE", str(Path.home() / ".cache/strongroom")),
    }
    # Whatever fails, the extension ends with the shell that started it.
    script = f"trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n{script}"
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
        if (tmp_path / "lab").exists():
            subprocess.run(
                ["strongroom", "testbed", "down", "--dir", "lab", "--quiet"], cwd=tmp_path, env=environment, check=True
            )
    log = tmp_path / "extension.log"
    assert done.returncode == 0, done.stdout + done.stderr + (log.read_text() if log.exists() else "")
    assert re.search(r"^monday +Completed +[0-9a-f-]+ ", done.stdout, re.MULTILINE)
    assert "hello" in done.stdout
    assert not (tmp_path / "lab").exists()
