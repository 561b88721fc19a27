"""Makes container images from folders, without a registry, in the archive format that `docker save` writes.

An image has one layer. The same files give the same bytes, whoever owns them and whenever they were made.
"""

import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

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


def write_image(
    archive: Path, name: str, root: Path, entrypoint: Sequence[str], *, variables: Mapping[str, str] | None = None
) -> None:
    """Write an image of the files in *root* to *archive*, whole or not at all.

    *name* is `host/repository:tag`. Everything in it belongs to root, with the modes that it has.
    """
    unfinished = archive.with_name(f".{archive.name}.{os.getpid()}")
    with tempfile.TemporaryFile(dir=archive.parent) as layer:
        with tarfile.open(fileobj=layer, mode="w", format=tarfile.PAX_FORMAT) as files:
            files.add(root, arcname=".", filter=_owned_by_root)
        layer.seek(0)
        digest = hashlib.file_digest(layer, "sha256").hexdigest()
        document = {
            "architecture": _MACHINES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {
                "Entrypoint": list(entrypoint),
                "Env": [_PATH, *(f"{key}={value}" for key, value in (variables or {}).items())],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
        configuration = json.dumps(document).encode()
        configuration_name = f"{hashlib.sha256(configuration).hexdigest()}.json"
        layer_name = f"{digest}/layer.tar"
        manifest = [{"Config": configuration_name, "RepoTags": [name], "Layers": [layer_name]}]
        with tarfile.open(unfinished, "w") as image:
            for entry, data in ((configuration_name, configuration), ("manifest.json", json.dumps(manifest).encode())):
                header = tarfile.TarInfo(entry)
                header.size = len(data)
                image.addfile(header, io.BytesIO(data))
            header = tarfile.TarInfo(layer_name)
            header.size = layer.seek(0, io.SEEK_END)
            layer.seek(0)
            image.addfile(header, layer)
    unfinished.rename(archive)


def node_images(binaries: Binaries) -> list[Path]:
    """Return the archives of the images that every node has, making those that are not in the cache."""
    pause, busybox = binaries.paths["pause"], binaries.paths["busybox"]
    folder = cache_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    pause_archive = folder / f"pause-{_digest(pause)}.tar"
    if not pause_archive.exists():
        with tempfile.TemporaryDirectory() as scratch:
            _place(pause, Path(scratch, "pause"))
            write_image(pause_archive, PAUSE, Path(scratch), ["/pause"])
    busybox_archive = folder / f"busybox-{_digest(busybox)}.tar"
    if not busybox_archive.exists():
        with tempfile.TemporaryDirectory() as scratch:
            _busybox_files(busybox, Path(scratch))
            write_image(busybox_archive, BUSYBOX, Path(scratch), ["/bin/sh"])
    return [pause_archive, busybox_archive]


def _busybox_files(busybox: Path, root: Path) -> None:
    _place(busybox, root / "bin" / "busybox")
    for applet in _APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    for folder, mode in (("tmp", 0o1777), ("etc", 0o755)):
        (root / folder).mkdir()
        (root / folder).chmod(mode)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    root.chmod(0o755)  # a temporary folder is its maker's alone; this one becomes `/`


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.parent.chmod(0o755)
    shutil.copyfile(source, target)
    target.chmod(0o755)


def _digest(file: Path) -> str:
    # With this module's own text: what it makes of the file is part of the image.
    text = Path(__file__).read_bytes()
    return hashlib.sha256(file.read_bytes() + text).hexdigest()[:16]


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry
