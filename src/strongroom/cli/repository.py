"""`strongroom repository`: makes a repository, describes, checks and prunes it."""

from typing import Annotated

from cyclopts import App, Parameter

from strongroom.cli.documents import document
from strongroom.cli.options import RepositoryOptions, duration_seconds
from strongroom.cli.output import DEFAULT_OUTPUT, Facts, Output, emit, note
from strongroom.cli.session import open_repository
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.repository.repository import MAX_RUN_SECONDS, Repository
from strongroom.errors import ExitCode

app = App(name="repository", help="Make, inspect, check and prune a repository.")

KEEP_A_COPY = (
    "Keep a copy of the key file somewhere else: without it nobody, Strongroom included, can read or extend this"
    " repository."
)


@app.command
async def init(
    *,
    repository: RepositoryOptions,
    encryption: Annotated[bool, Parameter(negative="--no-encryption")] = True,
    max_run: Annotated[str, Parameter(metavar="DURATION")] = f"{MAX_RUN_SECONDS}s",
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Make a repository and its key file.

    Refuses a place that holds one, or files of somebody else, and a store that replaces what it must not.

    Parameters
    ----------
    encryption
        Encrypt everything that is stored. Chosen once, for all of the repository.
    max_run
        The longest that one backup may take (5s, 30m, 12h, 7d). Prune waits twice as long before it deletes.
    """
    seconds = duration_seconds("--max-run", max_run)
    store = await open_store(repository.repository, create=True)
    try:
        made, key_file = await Repository.init(
            store, key_file=repository.key_file, encryption=encryption, max_run_seconds=seconds
        )
    finally:
        await store.close()
    found = {
        "repositoryId": made.info.id,
        "repository": store.url,
        "keyFile": str(key_file),
        "encryption": made.info.encryption,
        "maxRunSeconds": made.info.max_run_seconds,
    }
    view = {
        "repository": store.url,
        "id": made.info.id,
        "encryption": made.info.encryption,
        "key file": key_file,
    }
    emit(output, found, Facts(view, ids=[made.info.id]))
    note(output, KEEP_A_COPY)
    return ExitCode.WHOLE


@app.command
async def info(*, repository: RepositoryOptions, output: Output = DEFAULT_OUTPUT) -> ExitCode:
    """Describe a repository: its id, how it is sealed, its recovery points."""
    async with open_repository(repository) as opened:
        points = await opened.points()
        usable = [point for point in points if point.manifest and not point.void]
        damaged = [point for point in points if point.problem and not point.void]
        newest = usable[-1] if usable else None
        found = {
            "repositoryId": opened.info.id,
            "repository": opened.store.url,
            **document(opened.info, without=frozenset({"id", "root_key"})),
            "writer": opened.writer,
            "writers": sorted(opened.writers),
            "points": len(usable),
            "damagedPoints": len(damaged),
            "voidPoints": sum(point.void for point in points),
            "latest": newest.id if newest else None,
        }
        view = {
            "repository": opened.store.url,
            "id": opened.info.id,
            "format version": opened.info.version,
            "encryption": opened.info.encryption,
            "created": opened.info.created,
            "longest run": f"{opened.info.max_run_seconds} s",
            "signing as": opened.writer or "nobody (read only)",
            "recovery points": len(usable),
            "damaged points": len(damaged) or None,
            "latest": f"{newest.id} ({newest.manifest.finished})" if newest and newest.manifest else None,
        }
    shown = {name: value for name, value in view.items() if value is not None}
    emit(output, found, Facts(shown, ids=[opened.info.id]))
    return ExitCode.DAMAGED if damaged else ExitCode.WHOLE
