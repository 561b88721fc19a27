"""`strongroom serve backup` and `strongroom serve restore`: the home of a server as one file."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from strongroom import __version__
from strongroom.cli.home import require_own
from strongroom.cli.output import DEFAULT_OUTPUT, Facts, Output, emit, note, size_text
from strongroom.controlplane.home_copy import STATE, Copied, copy_home, put_home_back
from strongroom.controlplane.state.times import now
from strongroom.errors import ExitCode

NO_STORAGE = (
    "The containers of local storage accounts are not in it: they are the backups themselves. --with-storage takes them"
    " along; better is storage that does not lie on this machine."
)
NO_DATABASE = (
    "The database of this server is PostgreSQL, and it is not in it: copy it with pg_dump, at a time when the server is"
    " stopped."
)
AS_THE_HOME = "Whoever has this file has the server's secrets and can open its backups: keep it as you keep the home."


def backup(
    file: Annotated[Path, Parameter(metavar="FILE")],
    /,
    *,
    home: Annotated[Path, Parameter(metavar="DIR")],
    with_storage: Annotated[bool, Parameter(negative="")] = False,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Copy a server's home into the new file FILE (0600). The server may be running.

    Both databases are copied as they are at one instant. Not in it: recovery points (unless --with-storage), and a
    PostgreSQL database.

    Parameters
    ----------
    file
        A new file, on another machine's disk if you can.
    home
        The folder that `strongroom serve` was given.
    with_storage
        Take the containers of local storage accounts along: all recovery points that they hold.
    """
    require_own(home)
    done = copy_home(home, file, with_storage=with_storage, now=now(), version=__version__)
    _show(done, output, "written")
    if not with_storage and (home / "storage").exists():
        note(output, NO_STORAGE)
    if STATE not in done.header.databases:
        note(output, NO_DATABASE)
    note(output, AS_THE_HOME)
    return ExitCode.WHOLE


def restore(
    file: Annotated[Path, Parameter(metavar="FILE")],
    /,
    *,
    home: Annotated[Path, Parameter(metavar="DIR")],
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Put a server's home back from FILE. Never run two servers from copies of one home.

    Recovery points made since the copy are not known to it: `strongroom vault rebuild` makes them known.

    Parameters
    ----------
    file
        What `strongroom serve backup` wrote.
    home
        An absent or empty folder.
    """
    done = put_home_back(home, file)
    _show(done, output, "put back")
    if STATE not in done.header.databases:
        note(output, NO_DATABASE)
    return ExitCode.WHOLE


def _show(done: Copied, output: Output, word: str) -> None:
    header = done.header
    found = {
        "file": str(done.path),
        "made": header.made,
        "strongroom": header.strongroom,
        "databases": list(header.databases),
        "storage": header.storage,
        "files": done.files,
        "bytes": done.bytes,
    }
    view = {
        "file": done.path,
        "made": header.made,
        "databases": ", ".join(header.databases) or "none",
        "local storage": "in it" if header.storage else "not in it",
        word: f"{done.files} files, {size_text(done.bytes)}",
    }
    emit(output, found, Facts(view, ids=[str(done.path)]))
