"""The commands `strongroom job …`: the backups and restores of a vault, those that run and those that ended."""

from typing import Annotated, Literal

from cyclopts import App, Parameter

from strongroom.cli.output import DEFAULT_OUTPUT, ListWriter, Output
from strongroom.cli.protection import DEFAULT_VAULT, VaultOptions, follow, show_job, vaults
from strongroom.cli.server import DEFAULT_SERVER, ServerOptions
from strongroom.client.backups import BackupVault, Job
from strongroom.client.session import Session
from strongroom.errors import ExitCode, UsageError

app = App(name="job", help="Jobs: backups and restores.")

Name = Annotated[str, Parameter(metavar="ID", help="The job's id, or its ARM id.")]
COLUMNS = ("job", "operation", "status", "backup instance", "started", "duration")


@app.command(name="list")
def list_(
    *,
    vault: VaultOptions = DEFAULT_VAULT,
    status: Annotated[
        Literal["InProgress", "Completed", "CompletedWithWarnings", "Failed", "Cancelled"] | None,
        Parameter(show_default=False),
    ] = None,
    operation: Annotated[Literal["Backup", "Restore"] | None, Parameter(show_default=False)] = None,
    instance: Annotated[str, Parameter(metavar="NAME", show_default=False)] = "",
    limit: Annotated[int, Parameter(metavar="COUNT")] = 100,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """List the jobs of a vault, newest first, or, where none is named, of all vaults.

    Parameters
    ----------
    status
        Only jobs in this state.
    operation
        Only backups, or only restores.
    instance
        Only jobs of this backup instance.
    limit
        At most so many of each vault.
    """
    if limit < 1:
        raise UsageError(f"--limit is {limit}; the least is 1")
    with server.session() as session, ListWriter(output, COLUMNS) as listed:
        for each in [vault.find(session)] if vault.vault_name else vaults(session, vault.resource_group):
            count = 0
            for document in session.items(f"{each.id}/backupJobs"):
                job = Job.of(document)
                name = job.instance.rpartition("/")[2]
                if (status or job.status, operation or job.category) != (job.status, job.category):
                    continue
                if instance and instance.rpartition("/")[2].lower() != name.lower():
                    continue
                started = f"{job.started:%Y-%m-%d %H:%M:%S}Z" if job.started else ""
                row = (job.name, job.category, job.status, name, started, job.duration if job.ended else "")
                listed.add(document, row, job.name)
                count += 1
                if count == limit:
                    break


@app.command
def show(
    name: Name,
    /,
    *,
    vault: VaultOptions = DEFAULT_VAULT,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Show a job. Exit code 0 whole, 3 with warnings or while it runs, 1 failed or cancelled."""
    with server.session() as session:
        return show_job(output, Job.of(session.get(_id(session, vault, name))))


@app.command
def wait(
    name: Name,
    /,
    *,
    vault: VaultOptions = DEFAULT_VAULT,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Wait until a job has ended, show how far it is, then show it. Exit code as of `job show`."""
    with server.session() as session:
        return show_job(output, follow(session, _id(session, vault, name), output))


@app.command
def cancel(
    name: Name,
    /,
    *,
    vault: VaultOptions = DEFAULT_VAULT,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Cancel a job that runs, and wait until it has ended. Exit code 1 if it ended otherwise meanwhile."""
    with server.session() as session:
        path = _id(session, vault, name)
        session.post(f"{path}/cancel")
        job = Job.of(session.get(path))
    show_job(output, job)
    return ExitCode.WHOLE if job.status == "Cancelled" else ExitCode.FAILED


def _id(session: Session, vault: VaultOptions, name: str) -> str:
    """Return the ARM id of a job. Without a vault all vaults are searched: a job's id is unique."""
    if name.startswith("/"):
        return name
    if not name:
        raise UsageError("the id of the job is empty", hint="See them: strongroom job list")
    searched: list[BackupVault] = [vault.find(session)] if vault.vault_name else vaults(session, vault.resource_group)
    for each in searched:
        path = f"{each.id}/backupJobs/{name}"
        if session.find(path) is not None:
            return path
    raise UsageError(f"there is no job {name!r}", hint="See them: strongroom job list")
