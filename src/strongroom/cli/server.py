"""The options of the commands that talk to a control plane, and the values they stand for."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from strongroom.client.errors import RequestRefused
from strongroom.client.readyfile import ReadyFile
from strongroom.client.session import Session
from strongroom.errors import UsageError

_READY_HELP = "What `strongroom serve --ready-file` wrote. Unsaid: STRONGROOM_READY_FILE."

ResourceGroup = Annotated[str, Parameter(alias="-g", metavar="RG")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Which control plane, and in which subscription."""

    ready_file: Annotated[Path | None, Parameter(metavar="FILE", help=_READY_HELP)] = None
    subscription: Annotated[str, Parameter(metavar="ID", show_default=False)] = ""
    """Unsaid: the one that the ready file names."""

    def session(self) -> Session:
        """Open a session. Raises `ReadyFileInvalid`."""
        return Session(ReadyFile.read(self.ready_file), subscription=self.subscription)


DEFAULT_SERVER = ServerOptions()


def group_location(session: Session, group: str) -> str:
    """Return the location of a resource group, which is that of what is made in it unless said otherwise.

    Raises `RequestRefused` with the command that makes a group that does not exist.
    """
    try:
        return str(session.get(session.group(group)).get("location", ""))
    except RequestRefused as error:
        if error.status != 404:
            raise
        hint = f"az group create --name {group} --location LOCATION"
        raise RequestRefused(error.message, code=error.code, status=404, target=error.target, hint=hint) from error


def credentials(texts: Sequence[str]) -> dict[str, str]:
    """Return `KEY=@FILE`, `KEY=@-` (stdin) and `KEY=env:VARIABLE` with what stands there; a line end is dropped.

    Raises `UsageError`, which never repeats a value: a secret may have been put where a file's name belongs.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, source = text.partition("=")
        if not (key and equals):
            raise UsageError("--credential takes KEY=@FILE, KEY=@- or KEY=env:VARIABLE")
        if key in found:
            raise UsageError(f"--credential names {key!r} twice")
        found[key] = _secret(key, source)
    return found


def _secret(key: str, source: str) -> str:
    if source == "@-":
        value = sys.stdin.read()
    elif source.startswith("@"):
        try:
            value = Path(source[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise UsageError(f"the file of --credential {key} cannot be read: {reason}") from error
    elif source.startswith("env:"):
        value = os.environ.get(source.removeprefix("env:"), "")
    else:
        raise UsageError(
            f"--credential {key} takes @FILE, @- or env:VARIABLE",
            hint="Every user of the machine can read a command line: no secret stands there",
        )
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise UsageError(f"there is nothing where --credential {key} points")
    return value
