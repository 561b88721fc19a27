"""Brings files of Debian packages into the cache without installing them: a C library to link, and nft.

These two are no Go modules. They come from the release that the machine runs, so they fit its other libraries.
"""

import hashlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from strongroom.testbed.errors import BuildFailed

_HINT = "A Debian or a system made from it is needed, whose package sources can be reached."

# apt downloads as a user of its own where that one may write, and warns where not.
_APT = ("apt-get", "--quiet", "-o", "APT::Sandbox::User=root")


def unpacked(packages: Sequence[str], cache: Path, report: Callable[[str], None]) -> Path:
    """Return a folder with the files of *packages* as they would lie in `/`, without what these depend on.

    Raises `BuildFailed` where apt-get cannot download them.
    """
    release = platform.freedesktop_os_release()
    key = f"{release.get('ID')} {release.get('VERSION_ID')} {platform.machine()} {' '.join(packages)}"
    folder = cache / "debian" / f"{packages[0]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if folder.exists():
        return folder
    report(f"{packages[0]}: downloading its Debian package")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{packages[0]}-") as scratch:
        _download(packages, Path(scratch))
        root = Path(scratch, "root")
        for archive in sorted(Path(scratch).glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(archive), str(root)], Path(scratch))
        try:
            root.rename(folder)
        except OSError:
            if not folder.exists():  # two at once both work; one of them wins
                raise
    return folder


def _download(packages: Sequence[str], folder: Path) -> None:
    try:
        _run([*_APT, "download", *packages], folder)
    except BuildFailed:
        # A new machine has no package lists yet, or the version that they name is gone. The system's own stay as
        # they are: these are ours.
        own = ["-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        _run([*_APT, *own, "update"], folder)
        _run([*_APT, *own, "download", *packages], folder)


def library_folders(root: Path) -> list[Path]:
    """Return the folders of an unpacked package that hold libraries for this machine."""
    return sorted(path for path in (root / "usr" / "lib").glob("*-linux-*") if path.is_dir())


def _run(command: Sequence[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise BuildFailed(f"{command[0]} is not on the path", hint=_HINT)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise BuildFailed(f"{' '.join(command)} ended with {done.returncode}: {said}", hint=_HINT)
