"""Brings azure-cli into the cache, in an environment of its own: it pins dependencies to other versions than ours.

Run as a module it installs, for `make compat`; tests only look whether it is there.
"""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from strongroom.testbed.binaries import cache_folder
from strongroom.testbed.errors import BuildFailed

VERSION = "2.91.0"  # the one whose requests reference/azure-clients.md records
_MARK = "complete"  # written last: a folder without it is what an interrupted installation left


def installed() -> Path | None:
    """Return the Python that has azure-cli, None if the cache has none."""
    folder = _folder()
    return folder / "bin" / "python" if (folder / _MARK).exists() else None


def install(say: Callable[[str], None]) -> Path:
    """Return the Python that has azure-cli, installing it first if need be: 370 MB, from seconds to minutes.

    A second caller waits for the first. Raises `BuildFailed`.
    """
    folder = _folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / "install.lock"):
        if found := installed():
            return found
        say(f"installing azure-cli {VERSION} into the cache (370 MB)")
        shutil.rmtree(folder, ignore_errors=True)
        uv = _uv()
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
        python = folder / "bin" / "python"
        package = f"azure-cli=={VERSION}"
        _run([uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), package])
        (folder / _MARK).touch()
        say(f"azure-cli {VERSION} is installed")
    return python


def _folder() -> Path:
    return cache_folder() / "azure-cli" / VERSION


def _uv() -> str:
    own = cache_folder() / "uv" / "bin" / "uv"
    found = str(own) if own.exists() else shutil.which("uv")
    if found is None:
        raise BuildFailed("azure-cli is installed with uv, which is not there", hint="Run: make setup")
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise BuildFailed(
            f"{' '.join(command)} ended with {done.returncode}: {said}", hint="Check uv's index settings."
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock *path*; the system lets it go when its holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        install(lambda line: print(line, flush=True))
    except BuildFailed as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
