"""Makes images of the Python that this runs on, with distributions that are installed beside it.

So the image holds the very versions that the tests run with, and making it asks no registry. What the extension's image
holds is said here alone: `python -m strongroom.testbed.python_images deploy/Containerfile` writes it down for whoever
has a registry.
"""

import compileall
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import py_compile
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import strongroom
from strongroom.controlplane.clusters.workload import IMAGE, NOBODY
from strongroom.testbed.binaries import cache_folder
from strongroom.testbed.errors import BuildFailed
from strongroom.testbed.images import Layer, make_base, write_image

PYTHON = "localhost/python:1"
"""Python and its standard library, nothing else."""

EXTENSION = IMAGE
"""The extension with what it stands on."""

_PREFIX = Path("usr/local")  # Python finds its library from where its program lies
_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_LIBRARIES = _PREFIX / "lib" / _VERSION / "site-packages"
_USER = f"{NOBODY}:{NOBODY}"
_EXTENSION_ENTRYPOINT = ("python3", "-m", "strongroom.extension.main")
# The extension stands below these (see the import contracts), and one of them is larger than all the rest.
_ABOVE_EXTENSION = ("cli", "testbed")

# Of the standard library and of distributions: what nothing that runs in a pod reads.
_LEFT_OUT = shutil.ignore_patterns(
    "site-packages", "test", "tests", "idlelib", "turtledemo", "tkinter", "ensurepip", "lib2to3", "config-*", "include",
    "*.opt-?.pyc", "*.a",
)  # fmt: skip


def python_image() -> Path:
    """Return the archive of `PYTHON`, making it if the cache has it not: about 3 s, 60 MB. Raises `BuildFailed`."""
    return _cached(PYTHON, (), [], ["python3"])


def extension_image() -> Path:
    """Return the archive of `EXTENSION`, making it if it is not of the code as it is now. Raises `BuildFailed`.

    It holds this package without its test tools and command line, and the distributions that it needs with no extra.
    """
    own = Path(strongroom.__file__).parent
    return _cached(EXTENSION, required("strongroom"), [own], _EXTENSION_ENTRYPOINT)


_CONTAINERFILE = """\
# Made by `python -m strongroom.testbed.python_images deploy/Containerfile`. From the checkout:
#   podman build -f deploy/Containerfile -t REGISTRY/strongroom-extension:{version} .
ARG PYTHON=docker.io/library/python:3.11-slim

FROM ${{PYTHON}} AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src/strongroom src/strongroom
RUN python3 -m pip install --no-cache-dir --no-compile --ignore-installed --prefix /made \\
      --constraint constraints.txt . \\
 && rm -r /made/bin {left_out} \\
 && python3 -m compileall -q --invalidation-mode unchecked-hash /made/lib

FROM ${{PYTHON}}
RUN python3 -m pip uninstall --yes --quiet pip
COPY --from=build /made /usr/local
USER {user}
ENTRYPOINT {entrypoint}
"""


def containerfile() -> str:
    """Return the container file of an image with the contents of `EXTENSION`, at the versions of constraints.txt."""
    return _CONTAINERFILE.format(
        version=strongroom.__version__,
        left_out=" ".join(f"/made/lib/python3*/site-packages/strongroom/{name}" for name in _ABOVE_EXTENSION),
        user=_USER,
        entrypoint=json.dumps(_EXTENSION_ENTRYPOINT),
    )


def required(distribution: str) -> tuple[str, ...]:
    """Return the names of all installed distributions that *distribution* needs without extras, itself left out."""
    found: dict[str, None] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(distribution, "")]
    while waiting:
        of, wanted_extra = waiting.pop()
        for requirement in importlib.metadata.distribution(of).requires or ():
            only_for = re.search(r"extra == ['\"]([^'\"]+)", requirement)
            if only_for and only_for[1] != wanted_extra:
                continue
            written = re.match(r"([A-Za-z0-9._-]+) *(?:\[([^\]]*)\])?", requirement)
            assert written is not None
            name = re.sub(r"[-_.]+", "-", written[1]).lower()  # several spellings are one name
            # One that is for another Python or system is not installed here.
            if not _installed(name):
                continue
            found[name] = None
            extras = ("", *re.findall(r"[^, ]+", written[2] or ""))
            waiting += [(name, extra) for extra in extras if (name, extra) not in seen]
            seen.update((name, extra) for extra in extras)
    return tuple(found)


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _cached(name: str, distributions: Sequence[str], packages: Sequence[Path], entrypoint: Sequence[str]) -> Path:
    """Return the archive of an image of Python and *distributions*, and in a layer above the folders *packages*."""
    folder = cache_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    stem = name.rpartition("/")[2].partition(":")[0]
    base = f"{stem}-base-{_digest(distributions, [])}.tar"
    archive = folder / f"{stem}-{_digest(distributions, packages)}.tar"
    if archive.exists():
        return archive
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        layers = [Layer.read(folder / base) if (folder / base).exists() else _base(distributions, folder / base)]
        if packages:
            own = Path(scratch, "own")
            for package in packages:
                target = own / _LIBRARIES / package.name
                shutil.copytree(package, target, ignore=_own_left_out)
            # A pod's files are read-only: it would compile them at each start.
            compileall.compile_dir(own, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
            layers.append(Layer.make(own, Path(scratch, "layer")))
        write_image(archive, name, layers, entrypoint, user=_USER)
    for older in folder.glob(f"{stem}-*.tar"):
        if older not in (archive, folder / base) and older.stat().st_mtime < time.time() - _KEPT_SECONDS:
            older.unlink(missing_ok=True)
    return archive


def _base(distributions: Sequence[str], file: Path) -> Layer:
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        root = Path(scratch, "root")
        make_base(root)
        _copy_authorities(root)
        _copy_python(root)
        (root / _LIBRARIES).mkdir()
        for distribution in distributions:
            _copy_distribution(distribution, root / _LIBRARIES)
        _copy_shared_libraries(root)
        return Layer.make(root, file)


_KEPT_SECONDS = 600  # of an image of other code: somebody may be loading it; 300 MB an edit would fill the disk


def _own_left_out(folder: str, names: list[str]) -> Iterable[str]:
    above = _ABOVE_EXTENSION if Path(folder).name == "strongroom" else ()
    return {name for name in names if name in above or name == "__pycache__"}


def _digest(distributions: Sequence[str], packages: Sequence[Path]) -> str:
    digest = hashlib.sha256(f"{sys.version} {Path(__file__).read_text()}".encode())
    for name in distributions:
        digest.update(f"{name} {importlib.metadata.version(name)}\n".encode())
    for package in packages:
        for file in sorted(package.rglob("*.py")):
            digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


# Of Debian, and so of the container file; of Red Hat; of Alpine and the BSDs.
_BUNDLES = tuple(
    map(Path, ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"))
)


def _copy_authorities(root: Path) -> None:
    """Copy this machine's certificates of authorities: without any no client of an object store can be made."""
    named = ssl.get_default_verify_paths().cafile
    bundle = next((path for path in (*([Path(named)] if named else []), *_BUNDLES) if path.exists()), None)
    if bundle is None:
        raise BuildFailed("this machine has no certificates of authorities", hint="Install ca-certificates.")
    target = root / _BUNDLES[0].relative_to("/")
    target.parent.mkdir(parents=True)
    shutil.copyfile(bundle, target)


def _copy_python(root: Path) -> None:
    shutil.copytree(sysconfig.get_path("stdlib"), root / _PREFIX / "lib" / _VERSION, ignore=_LEFT_OUT)
    programs = root / _PREFIX / "bin"
    programs.mkdir()
    # The program behind the virtual environment that this may run in.
    base = Path(sys.base_prefix, "bin", _VERSION)
    shutil.copy2(base if base.exists() else sys.executable, programs / _VERSION)
    for alias in ("python", "python3"):
        (programs / alias).symlink_to(_VERSION)


def _copy_distribution(name: str, libraries: Path) -> None:
    files = importlib.metadata.files(name)
    if files is None:
        raise BuildFailed(f"{name} does not say which files it has", hint="Install it with pip or uv.")
    for file in files:
        # What lies outside (programs) and what only tests and compilers read stays out.
        if file.parts[0] == ".." or {"tests", "include"} & set(file.parts):
            continue
        source = Path(str(file.locate()))
        for path in (source, *_compiled(source)):
            target = libraries / path.relative_to(source.parents[len(file.parts) - 1])
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                shutil.copy2(path, target)


def _compiled(source: Path) -> list[Path]:
    return [Path(importlib.util.cache_from_source(str(source)))] if source.suffix == ".py" else []


def _copy_shared_libraries(root: Path) -> None:
    """Copy the system's libraries that programs and modules in *root* are linked with to where the loader looks."""
    linked = [str(root / _PREFIX / "bin" / _VERSION)]
    linked += [str(path) for path in root.rglob("*.so*") if path.is_file() and not path.is_symlink()]
    answer = subprocess.run(["ldd", *linked], capture_output=True, text=True, check=False).stdout
    for found in sorted(set(re.findall(r"(?:=> )?(/\S+) \(0x", answer))):
        library = Path(found)
        if library.is_relative_to(root):
            continue  # brought along by a distribution, found from there
        # Those of a Python in a folder of its own lie where no loader looks by itself.
        own = library.is_relative_to(sys.base_prefix) and sys.base_prefix != "/usr"
        target = root / "usr" / "lib" / library.name if own else root / found[1:]
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(os.path.realpath(library), target)
            target.chmod(0o755)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(containerfile(), encoding="utf-8")
