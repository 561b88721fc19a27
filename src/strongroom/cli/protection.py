"""What the commands on vaults, backup instances and jobs share: which one is meant, and how a job is followed."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from cyclopts import Parameter

from strongroom.cli.output import Facts, Output, Table, emit, note
from strongroom.cli.progress import progress
from strongroom.client.backups import JOB_WARNED, JOB_WHOLE, VAULTS, BackupInstance, BackupVault, Job, RecoveryPoint
from strongroom.client.problems import Problem
from strongroom.client.resources import CLUSTERS, Cluster
from strongroom.client.session import Session
from strongroom.errors import ExitCode, UsageError

Json = dict[str, Any]

POLL_SECONDS: Final = 1.0  # a backup of a small cluster takes about as long

_VAULT_HELP = "The backup vault: its name or its ARM id. Unsaid: the only one of the subscription."


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class VaultOptions:
    """Which vault."""

    vault_name: Annotated[str, Parameter(alias="-v", metavar="VAULT", show_default=False, help=_VAULT_HELP)] = ""
    resource_group: Annotated[str, Parameter(alias="-g", metavar="RG", show_default=False)] = ""
    """Of the vault. Needed where vaults of several groups have that name."""

    def find(self, session: Session) -> BackupVault:
        """Return the vault. Raises `UsageError` where none or several are meant."""
        name, group = self.vault_name, self.resource_group
        if name.startswith("/"):
            return BackupVault.of(session.get(name))
        if name and group:
            return BackupVault.of(session.get(f"{session.group(group)}/providers/{VAULTS}/{name}"))
        found = [each for each in vaults(session, group) if not name or each.name.lower() == name.lower()]
        if len(found) == 1:
            return found[0]
        if not found:
            what = f"there is no backup vault {name!r}" if name else "there is no backup vault"
            raise UsageError(f"{what} in the subscription {session.subscription}", hint="strongroom vault list")
        listed = ", ".join(sorted(f"{each.name} (--resource-group {each.group})" for each in found))
        raise UsageError(f"{len(found)} backup vaults are meant", hint=f"Name one by --vault-name: {listed}")


DEFAULT_VAULT = VaultOptions()


def vaults(session: Session, group: str = "") -> list[BackupVault]:
    """Return the vaults of a resource group, "" for those of the whole subscription."""
    scope = session.group(group) if group else session.root
    return [BackupVault.of(document) for document in session.items(f"{scope}/providers/{VAULTS}")]


def instances(session: Session, vault: BackupVault) -> list[BackupInstance]:
    """Return the backup instances of a vault."""
    return [BackupInstance.of(document) for document in session.items(f"{vault.id}/backupInstances")]


def find_instance(session: Session, vault: BackupVault, name: str) -> BackupInstance:
    """Return the backup instance called *name* (a name, a unique beginning of it, or an ARM id).

    Raises `UsageError` where none or several are meant.
    """
    wanted = name.rpartition("/")[2].lower()
    listed = instances(session, vault)
    found = [each for each in listed if each.name.lower() == wanted]
    found = found or [each for each in listed if wanted and each.name.lower().startswith(wanted)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(each.name for each in (found or listed)) or "none"
    if found:
        raise UsageError(
            f"{len(found)} backup instances of {vault.name} begin with {name!r}", hint=f"There are {names}"
        )
    raise UsageError(f"the vault {vault.name} has no backup instance {name!r}", hint=f"There are {names}")


def find_cluster(session: Session, named: str) -> Cluster:
    """Return the connected cluster *named* (a name or an ARM id). Raises `UsageError` where it is not one alone."""
    if named.startswith("/"):
        return Cluster.of(session.get(named))
    listed = [Cluster.of(document) for document in session.items(f"{session.root}/providers/{CLUSTERS}")]
    found = [each for each in listed if each.name.lower() == named.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{len(found)} clusters are called {named!r}", hint="Give its ARM id: strongroom cluster list")
    names = ", ".join(sorted(each.name for each in listed)) or "none"
    raise UsageError(f"no cluster {named!r} is connected", hint=f"There are {names}")


def group_id(session: Session, named: str) -> str:
    """Return the ARM id of a resource group given by its name or its id."""
    return named if named.startswith("/") else session.group(named)


def points(session: Session, instance: BackupInstance) -> Iterable[RecoveryPoint]:
    """Yield the recovery points of an instance, newest first, as they are read."""
    return (RecoveryPoint.of(document) for document in session.items(f"{instance.id}/recoveryPoints"))


def find_point(session: Session, instance: BackupInstance, named: str) -> RecoveryPoint:
    """Return the recovery point *named*: an id, a unique beginning of it, or `latest`. Raises `UsageError`."""
    if not named:
        raise UsageError("the id of the recovery point is empty", hint=_see_points(instance))
    found = []
    for point in points(session, instance):
        if named in ("latest", point.name):
            return point
        if point.name.startswith(named):
            found.append(point)
    if len(found) == 1:
        return found[0]
    count = f"{len(found)} recovery points begin" if found else "no recovery point begins"
    raise UsageError(f"{count} with {named!r}", hint=_see_points(instance))


def _see_points(instance: BackupInstance) -> str:
    return f"See them: strongroom instance points {instance.name}"


def follow(session: Session, job_id: str, output: Output) -> Job:
    """Show how far a job is until it has ended. Ctrl-C leaves the job running."""
    note(output, f"job {job_id.rpartition('/')[2]}")
    with progress(output) as bar:
        while True:
            job = Job.of(session.get(job_id))
            if job.ended:
                return job
            known = job.percent is not None
            bar.report(job.task or job.category, job.percent or 0, 100 if known else 0, "%" if known else "")
            time.sleep(POLL_SECONDS)


def show_job(output: Output, job: Job) -> ExitCode:
    """Print a job, and return the exit code that it stands for."""
    values = {
        "job": job.name,
        "operation": job.category,
        "status": job.status,
        "backup instance": job.instance.rpartition("/")[2],
        "started": f"{job.started:%Y-%m-%d %H:%M:%S}Z" if job.started else "",
        "duration": job.duration if job.ended else "",
        "task": "" if job.ended else job.task,
        "recovery point": job.point,
    }
    tables = [problem_table("error", job.problems)] if job.problems else []
    if job.warnings:
        tables.append(problem_table("warning", job.warnings))
    shown = {name: value for name, value in values.items() if value}
    emit(output, job.document, Facts(shown, ids=[job.name], tables=tables))
    return exit_code(job)


def exit_code(job: Job) -> ExitCode:
    """Return 0 for a whole job, 3 for one with warnings or one that runs, else 1."""
    if job.status == JOB_WHOLE:
        return ExitCode.WHOLE
    return ExitCode.INCOMPLETE if job.status == JOB_WARNED or not job.ended else ExitCode.FAILED


def problem_table(heading: str, problems: Iterable[Problem]) -> Table:
    """Return problems with what mends each."""
    rows = [(each.code, each.message, " ".join(each.actions)) for each in problems]
    return Table((heading, "what", "what to do"), rows)
