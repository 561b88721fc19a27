"""The commands `strongroom testbed …`: a real Kubernetes control plane on loopback, for trying out and for tests."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from strongroom.cli.output import Facts, Output, Table, emit, note
from strongroom.errors import ExitCode
from strongroom.testbed.binaries import MODULES, cache_folder, locate
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.options import TestbedOptions

app = App(name="testbed", help="A real Kubernetes control plane on loopback, without Docker. Nothing runs in its pods.")

Folder = Annotated[Path, Parameter(name="--dir")]


@app.command
def up(*, dir_: Folder, volumes: bool = True, audit: bool = False, options: Output = Output()) -> None:  # noqa: B008
    """Start a cluster in a folder; return when all of it is ready. Missing programs are built first.

    Parameters
    ----------
    dir_
        An absent or empty folder. `down` removes it.
    volumes
        Start the CSI driver, provisioner, snapshotter and snapshot-controller too.
    audit
        Log every request in logs/audit.log of the folder.
    """
    chosen = TestbedOptions(volumes=volumes, audit=audit)
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
def build(*, options: Output = Output()) -> None:  # noqa: B008
    """Build the programs that are missing into the cache, without starting a cluster: about ten minutes, once."""
    binaries = locate(lambda text: note(options, text), MODULES)
    document = {name: str(path) for name, path in sorted(binaries.paths.items())}
    emit(options, document, Facts(document, ids=list(document.values()), notes=[f"cache: {cache_folder()}"]))


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
