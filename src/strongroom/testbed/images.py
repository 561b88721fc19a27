"""Makes container images from folders, without a registry, in the archive format that `docker save` writes."""

import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from strongroom.testbed.binaries import Binaries, cache_folder

PAUSE = "localhost/pause:1"
"""The image of pod sandboxes."""

BUSYBOX = "localhost/busybox:1"
"""A shell and the usual small programs, statically linked. On every real node."""

_PATH = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_APPLETS = """
    sh cat echo ls cp mv rm ln mkdir touch sleep sync date env id head tail wc grep sed dd md5sum sha256sum stat true
    false test printf sort find chmod chown du df mount ps kill hostname httpd wget seq
""".split()  # noqa: SIM905, one a line would be a page


@dataclass(frozen=True, slots=True)
class Layer:
    """A tar file of files and its SHA-256."""

    file: Path
    digest: str

    @classmethod
    def make(cls, root: Path, file: Path) -> Self:
        """Write the files of the folder *root* to *file*, whole or not at all.

        All belong to root there; modes are kept, and the times of files (Python compares them with those of its
        compiled ones).
        """
        unfinished = file.with_name(f".{file.name}.{os.getpid()}")
        with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as files:
            files.add(root, arcname=".", filter=_as_in_an_image)
        unfinished.rename(file)
        return cls.read(file)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Return the layer that `make` wrote to *file*."""
        with file.open("rb") as content:
            return cls(file, hashlib.file_digest(content, "sha256").hexdigest())


def write_image(
    archive: Path,
    name: str,
    layers: Sequence[Layer],
    entrypoint: Sequence[str],
    *,
    user: str = "",
    variables: Mapping[str, str] | None = None,
) -> None:
    """Write an image of *layers*, the lowest first, to *archive*, whole or not at all.

    *name* is `host/repository:tag`, *user* a number or `user:group`, empty for root.
    """
    unfinished = archive.with_name(f".{archive.name}.{os.getpid()}")
    document = {
        "architecture": _MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "User": user,
            "Entrypoint": list(entrypoint),
            "Env": [_PATH, *(f"{key}={value}" for key, value in (variables or {}).items())],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in layers]},
    }
    configuration = json.dumps(document).encode()
    configuration_name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    names = [f"{layer.digest}/layer.tar" for layer in layers]
    manifest = json.dumps([{"Config": configuration_name, "RepoTags": [name], "Layers": names}]).encode()
    with tarfile.open(unfinished, "w") as image:
        for entry, data in ((configuration_name, configuration), ("manifest.json", manifest)):
            header = tarfile.TarInfo(entry)
            header.size = len(data)
            image.addfile(header, io.BytesIO(data))
        for entry, layer in zip(names, layers, strict=True):
            header = tarfile.TarInfo(entry)
            header.size = layer.file.stat().st_size
            with layer.file.open("rb") as content:
                image.addfile(header, content)
    unfinished.rename(archive)


def node_images(binaries: Binaries) -> list[Path]:
    """Return the archives of the images that every node has, making those that are not in the cache."""
    pause, busybox = binaries.paths["pause"], binaries.paths["busybox"]
    folder = cache_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    pause_archive = folder / f"pause-{_digest(pause)}.tar"
    if not pause_archive.exists():
        with tempfile.TemporaryDirectory() as scratch:
            _place(pause, Path(scratch, "root", "pause"))
            layer = Layer.make(Path(scratch, "root"), Path(scratch, "layer"))
            write_image(pause_archive, PAUSE, [layer], ["/pause"])
    busybox_archive = folder / f"busybox-{_digest(busybox)}.tar"
    if not busybox_archive.exists():
        with tempfile.TemporaryDirectory() as scratch:
            _busybox_files(busybox, Path(scratch, "root"))
            layer = Layer.make(Path(scratch, "root"), Path(scratch, "layer"))
            write_image(busybox_archive, BUSYBOX, [layer], [])
    return [pause_archive, busybox_archive]


def make_base(root: Path) -> None:
    """Make in *root* what any program expects of a root folder."""
    root.mkdir(mode=0o755, exist_ok=True)
    for folder, mode in (("tmp", 0o1777), ("etc", 0o755)):
        (root / folder).mkdir()
        (root / folder).chmod(mode)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n")


def _busybox_files(busybox: Path, root: Path) -> None:
    _place(busybox, root / "bin" / "busybox")
    for applet in _APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    make_base(root)


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.parent.chmod(0o755)
    shutil.copyfile(source, target)
    target.chmod(0o755)


def _digest(file: Path) -> str:
    # With this module's own text: what it makes of the file is part of the image.
    text = Path(__file__).read_bytes()
    return hashlib.sha256(file.read_bytes() + text).hexdigest()[:16]


def _as_in_an_image(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode |= 0o755 if entry.isdir() else 0o444  # whatever the umask of their maker: any user may run in a pod
    entry.mtime = int(entry.mtime) if entry.isfile() else 0
    return entry
