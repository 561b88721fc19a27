"""`strongroom recovery-kit`, and `strongroom repository key-file`, which opens a repository with a kit."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from strongroom.cli.home import HomeOptions, opened_home
from strongroom.cli.output import DEFAULT_OUTPUT, Facts, Output, Table, emit, note
from strongroom.controlplane.catalog.recovery_kit import KitContainer, make_key_file, read_kit, write_kit
from strongroom.controlplane.state.times import now
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.repository.info import read_info
from strongroom.dataplane.repository.keyfile import default_key_path
from strongroom.errors import ExitCode, UsageError

KEEP_OFFLINE = (
    "Whoever has this file and can read a container can read its backups: keep it offline, in two places. The home has"
    " the recovery secret no more."
)


async def recovery_kit(
    file: Annotated[Path, Parameter(metavar="FILE")],
    /,
    *,
    home: HomeOptions,
    new: Annotated[bool, Parameter(negative="")] = False,
    with_credentials: Annotated[bool, Parameter(negative="")] = False,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Hand over what opens the backups when server and cluster are lost: the text for people is in main.py.

    Parameters
    ----------
    file
        Where the kit goes: best a medium that is then taken away.
    new
        Make another recovery secret and let it open all repositories: when a kit is lost, or has been seen.
    with_credentials
        Put the credentials of attached storage into the kit too.
    """
    with opened_home(home) as opened:
        places = {place.id: place for place in opened.places()}
        containers = [
            KitContainer(
                id=place.id,
                url=opened.containers.url(place),
                credentials=dict(place.account.credentials) if with_credentials else {},
            )
            for place in places.values()
        ]
        done = await write_kit(
            file,
            opened.home.folder,
            opened.secrets,
            tenant_id=opened.home.config.tenant_id,
            containers=containers,
            now=now(),
            open_container=(lambda id: opened.open(places[id])) if new else None,
        )
    found = {
        "file": str(done.path),
        "repositories": done.repositories,
        "containers": [container.id for container in containers],
        "notReached": [{"container": id, "reason": reason} for id, reason in done.not_wrapped.items()],
    }
    view = {"recovery kit": done.path, "repositories": done.repositories, "containers": done.containers}
    tables = [Table(("not reached", "why"), list(done.not_wrapped.items()))] if done.not_wrapped else []
    emit(output, found, Facts(view, ids=[str(done.path)], tables=tables))
    note(output, KEEP_OFFLINE)
    return ExitCode.INCOMPLETE if done.not_wrapped else ExitCode.WHOLE


async def key_file(
    *,
    kit: Annotated[Path, Parameter(metavar="FILE")],
    repository: Annotated[str, Parameter(env_var="STRONGROOM_REPOSITORY", metavar="URL")],
    key_file: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Make a key file for a container of a server: the text for people is in repository.py.

    Parameters
    ----------
    kit
        The file that `strongroom recovery-kit` wrote.
    repository
        Where the container lies. Credentials come from the provider's environment variables.
    key_file
        The new key file (0600). Unsaid: where all commands look for it, ~/.config/strongroom/keys/<repository id>.json.
    """
    read = read_kit(kit)
    store = await open_store(repository)
    try:
        info, _ = await read_info(store)
        path = key_file or default_key_path(info.id)
        if path.exists():
            raise UsageError(f"{path} exists", hint="Use it, or name a new file for the key")
        keys = await make_key_file(store, read)
        keys.save(path)
        found = {"keyFile": str(path), "repositoryId": keys.repository_id, "repository": store.url}
    finally:
        await store.close()
    emit(output, found, Facts({"key file": path, "repository": keys.repository_id}, ids=[str(path)]))
    return ExitCode.WHOLE
