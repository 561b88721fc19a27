"""The commands `strongroom testbed …`: a real Kubernetes control plane on loopback, for trying out and for tests."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from strongroom.cli.output import Facts, Output, Table, emit, note
from strongroom.errors import ExitCode
from strongroom.testbed.binaries import MODULES, cache_folder, locate, locate_node
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.options import Level, TestbedOptions
from strongroom.testbed.python_images import EXTENSION, extension_image

app = App(
    name="testbed",
    help="A real Kubernetes on loopback, without Docker: the control plane alone, or with a node that runs pods.",
)

Folder = Annotated[Path, Parameter(name="--dir")]


@app.command
def up(
    *,
    dir_: Folder,
    level: Level = Level.CONTROL_PLANE,
    volumes: bool = True,
    audit: bool = False,
    options: Output = Output(),  # noqa: B008
) -> None:
    """Start a cluster in a folder; return when all of it is ready. Missing programs are built first.

    Parameters
    ----------
    dir_
        An absent or empty folder. `down` removes it.
    level
        With `control-plane` pods only seem to run. `node` adds a real node, which needs root and Linux.
    volumes
        Start the CSI driver, provisioner, snapshotter and snapshot-controller too.
    audit
        Log every request in logs/audit.log of the folder.
    """
    chosen = TestbedOptions(level=level, volumes=volumes, audit=audit)
    testbed = Testbed.up(dir_, chosen, lambda text: note(options, text))
    document = {
        "kubeconfig": str(testbed.kubeconfig),
        "server": testbed.server,
        "version": testbed.version,
        "volumes": str(testbed.volumes) if volumes else None,
    }
    emit(options, document, Facts(document, ids=[str(testbed.kubeconfig)]))


@app.command
def status(*, dir_: Folder, options: Output = Output()) -> ExitCode:  # noqa: B008
    """Show which programs of a cluster run. Exit code 5 if not all of them do, or the API server is not ready.

    Parameters
    ----------
    dir_
        The folder that `up` was given.
    """
    testbed = Testbed.open(dir_)
    found = testbed.status()
    document = {
        "ready": found.ready,
        "kubeconfig": str(testbed.kubeconfig),
        "server": found.server,
        "version": found.version,
        "components": [
            {"name": part.name, "running": part.pid is not None, "pid": part.pid} for part in found.components
        ],
    }
    rows = [(part.name, "running" if part.pid else "stopped", part.pid) for part in found.components]
    notes = [] if found.ready else [f"Not ready. The logs are in {testbed.folder / 'logs'}."]
    emit(options, document, Table(["component", "state", "pid"], rows, [row[0] for row in rows], notes))
    return ExitCode.WHOLE if found.ready else ExitCode.UNREACHABLE


@app.command
def down(*, dir_: Folder, options: Output = Output()) -> None:  # noqa: B008
    """End every program of a cluster and remove its folder, also after a crash of `up`.

    Parameters
    ----------
    dir_
        The folder that `up` was given. One that does not exist is no error.
    """
    removed = Testbed.remove(dir_)
    emit(options, {"removed": removed}, f"{dir_}: {'removed' if removed else 'nothing there'}")


@app.command
def build(*, level: Level = Level.CONTROL_PLANE, options: Output = Output()) -> None:  # noqa: B008
    """Build the programs that are missing into the cache, without starting a cluster: about ten minutes, once.

    Parameters
    ----------
    level
        `node` builds what a real node is made of too: about four minutes more.
    """

    def report(text: str) -> None:
        note(options, text)

    binaries = locate_node(report) if level is Level.NODE else locate(report, MODULES)
    document = {name: str(path) for name, path in sorted(binaries.paths.items())}
    emit(options, document, Facts(document, ids=list(document.values()), notes=[f"cache: {cache_folder()}"]))


@app.command
def expose(port: int, *, dir_: Folder, options: Output = Output()) -> None:  # noqa: B008
    """Let pods of a real node reach a port of this machine's loopback; print the address at which they do.

    Parameters
    ----------
    port
        On which something listens, or will.
    dir_
        The folder that `up --level node` was given.
    """
    address = Testbed.open(dir_).expose(port)
    emit(options, {"address": address}, address)


@app.command
def load_image(archive: Path, *, dir_: Folder, options: Output = Output()) -> None:  # noqa: B008
    """Give a real node the images of an archive, as `docker save` writes it.

    Parameters
    ----------
    archive
        A tar file. Pods that use its images must not have the pull policy `Always`.
    dir_
        The folder that `up --level node` was given.
    """
    Testbed.open(dir_).load_image(archive)
    emit(options, {"loaded": str(archive)}, f"{archive}: loaded")


@app.command
def load_extension(*, dir_: Folder, options: Output = Output()) -> None:  # noqa: B008
    """Make an image of the extension as it is installed here, give it to a real node, and print its name.

    Parameters
    ----------
    dir_
        The folder that `up --level node` was given.
    """
    testbed = Testbed.open(dir_)
    note(options, "making the image: about 20 seconds for new versions of what it stands on")
    testbed.load_image(extension_image())
    emit(options, {"image": EXTENSION}, EXTENSION)


@app.command
def kubectl(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)], dir_: Folder) -> None:
    """Run the kubectl that belongs to a cluster, as its administrator; its exit code is kubectl's.

    Parameters
    ----------
    arguments
        kubectl's own, after `--`.
    dir_
        The folder that `up` was given.
    """
    testbed = Testbed.open(dir_)
    program = locate(lambda _: None, MODULES).paths["kubectl"]
    os.execve(program, [str(program), *arguments], {**os.environ, "KUBECONFIG": str(testbed.kubeconfig)})  # noqa: S606
