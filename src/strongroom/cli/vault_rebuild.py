"""`strongroom vault rebuild`: makes vaults and their recovery points anew after a server's home was lost."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from strongroom.cli.home import HomeOptions, opened_home
from strongroom.cli.output import DEFAULT_OUTPUT, Facts, Output, Table, emit
from strongroom.cli.server import credentials
from strongroom.controlplane.catalog.recovery_kit import read_kit
from strongroom.controlplane.rebuilding import Rebuilding, Source
from strongroom.controlplane.state.times import now
from strongroom.errors import ExitCode

_FROM_HELP = (
    "The container: its ARM id, where the kit or this home knows where it lies, or its URL (az://account/container, "
    "s3://bucket/prefix/container, gs://bucket/prefix/container, file:///folder/container)."
)
_CREDENTIAL_HELP = (
    "KEY=@FILE, KEY=@- (stdin) or KEY=env:VARIABLE, as for `storage attach`; unsaid: those in the kit. The home keeps "
    "them encrypted. Repeatable."
)


async def rebuild(
    *,
    home: HomeOptions,
    from_: Annotated[str, Parameter(name="--from", metavar="CONTAINER", help=_FROM_HELP)],
    kit: Annotated[Path, Parameter(metavar="FILE")],
    container: Annotated[str, Parameter(metavar="ID", show_default=False)] = "",
    credential: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, help=_CREDENTIAL_HELP)] = (),
    vault: Annotated[tuple[str, ...], Parameter(metavar="ID", negative="", show_default=False)] = (),
    location: Annotated[str, Parameter(show_default=False)] = "",
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Make vaults, policies, backup instances and recovery points anew from what a container holds.

    Everything gets the ARM id that it had. Backup instances come back stopped; clusters, extensions, trusted access and
    role assignments are made again by you. What stands in the home already is left as it is: the command can be
    repeated, and given one container after the other. A home is made where there is none; the server may be running.
    Exit code 3 when something could not be made as it was.

    Parameters
    ----------
    kit
        The recovery kit of the lost home.
    container
        The ARM id that the container had, where --from is a URL and neither kit nor recovery points tell it.
    vault
        Only this vault (its ARM id). Repeatable. Unsaid: all that the container has points of.
    location
        For vaults whose recovery points do not tell theirs.
    """
    read = read_kit(kit)
    source = Source(from_, container, credentials(credential))
    with opened_home(home, create=True) as opened:
        rebuilding = Rebuilding(opened.db, opened.containers, opened.home.config.tenant_id)
        done = await rebuilding.rebuild(source, read, vaults=vault, location=location, now=now())
    found = {
        "container": done.container,
        "url": done.url,
        "repositoryId": done.repository,
        "made": list(done.made),
        "stood": list(done.stood),
        "recoveryPoints": done.points,
        "withoutInstance": done.strangers,
        "unreadable": dict(done.unreadable),
        "doubts": list(done.doubts),
    }
    view = {
        "container": done.container,
        "lies at": done.url,
        "made": len(done.made),
        "stood already": len(done.stood),
        "recovery points made known": done.points,
        "points of no instance": done.strangers,
    }
    tables = [Table(("made",), [(id,) for id in done.made])] if done.made else []
    if done.doubts:
        tables.append(Table(("look at",), [(doubt,) for doubt in done.doubts]))
    if done.unreadable:
        tables.append(Table(("unreadable point", "why"), list(done.unreadable.items())))
    emit(output, found, Facts(view, ids=list(done.made), tables=tables))
    return ExitCode.INCOMPLETE if done.doubts or done.unreadable else ExitCode.WHOLE
