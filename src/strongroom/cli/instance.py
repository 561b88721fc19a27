"""The commands `strongroom instance …`: what of which cluster is protected, backed up and restored."""

from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from strongroom.cli.instance_request import (
    EVERYTHING,
    NO_RESTORE,
    NOTHING_ASKED,
    FilterOptions,
    RequestOptions,
    RestoreOptions,
)
from strongroom.cli.output import DEFAULT_OUTPUT, Facts, Output, Table, emit, note
from strongroom.cli.protection import (
    DEFAULT_VAULT,
    VaultOptions,
    find_instance,
    find_point,
    follow,
    instances,
    points,
    problem_table,
    show_job,
    vaults,
)
from strongroom.cli.server import DEFAULT_SERVER, ServerOptions
from strongroom.client.backups import BackupInstance, Job, RecoveryPoint, rule_names
from strongroom.client.errors import RequestRefused
from strongroom.client.session import Session
from strongroom.errors import ExitCode, UsageError

app = App(name="instance", help="Backup instances: protect a cluster, back it up, restore it.")

Json = dict[str, Any]
Name = Annotated[str, Parameter(metavar="NAME", help="The backup instance, or a unique beginning of its name.")]
MaybeName = Annotated[
    str,
    Parameter(metavar="NAME", show_default=False, help="A backup instance of the vault, for what it is configured to."),
]
NoWait = Annotated[bool, Parameter(negative="", help="Only begin it; `strongroom job wait` waits for its end.")]


@app.command(name="list")
def list_(
    *,
    vault: VaultOptions = DEFAULT_VAULT,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """List the backup instances of a vault, or, where none is named, of all vaults."""
    with server.session() as session:
        chosen = [vault.find(session)] if vault.vault_name else vaults(session, vault.resource_group)
        found = [(each.name, instance) for each in chosen for instance in instances(session, each)]
    rows = [(i.name, where, i.cluster.rpartition("/")[2], i.policy.rpartition("/")[2], i.state) for where, i in found]
    columns = ("name", "vault", "cluster", "policy", "state")
    emit(output, [i.document for _, i in found], Table(columns, rows, [i.name for _, i in found]))


@app.command
def show(
    name: Name,
    /,
    *,
    vault: VaultOptions = DEFAULT_VAULT,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Show a backup instance. Exit code 3 when it is in an error."""
    with server.session() as session:
        found = find_instance(session, vault.find(session), name)
    _show(output, found)
    return ExitCode.INCOMPLETE if found.problems else ExitCode.WHOLE


@app.command
def create(
    name: Annotated[str, Parameter(metavar="NAME", help="What the backup instance is called.")],
    /,
    *,
    request: RequestOptions = NOTHING_ASKED,
    filters: FilterOptions = EVERYTHING,
    grant: Annotated[bool, Parameter(negative="")] = False,
    vault: VaultOptions = DEFAULT_VAULT,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Protect a cluster. Everything that is in the way is told at once, each with the command that mends it.

    Parameters
    ----------
    grant
        Give the missing roles first, as `instance grant` does.
    """
    with server.session() as session:
        found = vault.find(session)
        properties = request.properties(session, found, filters, policy_needed=True)
        if grant:
            _note_grants(output, _grant(session, f"{found.id}/grantPermissions", {"backupInstance": properties}))
        note(output, f"configuring protection of {properties['dataSourceInfo']['resourceID'].rpartition('/')[2]}")
        made = BackupInstance.of(session.put(f"{found.id}/backupInstances/{name}", {"properties": properties}))
    _show(output, made)


@app.command
def validate(
    name: MaybeName = "",
    /,
    *,
    request: RequestOptions = NOTHING_ASKED,
    filters: FilterOptions = EVERYTHING,
    vault: VaultOptions = DEFAULT_VAULT,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Say whether a backup instance could be configured, and all that is in the way. Exit code 1 if anything is.

    For the backup instance NAME as it is, or for what a request file or the options describe. Changes nothing.
    """
    with server.session() as session:
        found = vault.find(session)
        existing = name and not request.named()
        properties = request.of(session, found, name, filters)
        path = f"{find_instance(session, found, name).id}/validateForModifyBackup" if existing else ""
        try:
            session.post(path or f"{found.id}/validateForBackup", {"backupInstance": properties})
        except RequestRefused as refused:
            problems = refused.problems
            if not problems:
                raise
        else:
            problems = ()
    document = {"ready": not problems, "problems": [each.document for each in problems]}
    view = problem_table("problem", problems) if problems else "ready: nothing is in the way"
    emit(output, document, view)
    return ExitCode.FAILED if problems else ExitCode.WHOLE


@app.command
def grant(
    name: MaybeName = "",
    /,
    *,
    request: RequestOptions = NOTHING_ASKED,
    target: Annotated[str, Parameter(metavar="CLUSTER", show_default=False)] = "",
    permissions_scope: Literal["Resource", "ResourceGroup", "Subscription"] = "Resource",
    vault: VaultOptions = DEFAULT_VAULT,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Give the identities of vault, cluster and extension the roles that they lack, and no others.

    For the backup instance NAME, for the one that a request file describes, or for a new one of --cluster. You have to
    be allowed to assign roles at each scope.

    Parameters
    ----------
    target
        Give what a restore of NAME into this cluster needs, instead of what its backups need.
    permissions_scope
        How far the roles reach: the resource, its resource group, or its subscription.
    """
    with server.session() as session:
        found = vault.find(session)
        if target:
            instance = find_instance(session, found, _required(name))
            asked = RestoreOptions(point=find_point(session, instance, "latest").name, target=target)
            body: Json = {"restoreRequestObject": asked.request(session, instance, EVERYTHING)}
            path = f"{instance.id}/grantPermissions"
        else:
            body = {"backupInstance": request.of(session, found, name, EVERYTHING)}
            path = f"{found.id}/grantPermissions"
        made = _grant(session, path, {**body, "permissionsScope": permissions_scope})
    rows = [(role, each["properties"].get("description") or "", each["properties"]["scope"]) for role, each in made]
    ids = [str(each["id"]) for _, each in made]
    empty = "no role is missing"
    document = {"permissionsScope": permissions_scope, "roleAssignments": [each for _, each in made]}
    emit(output, document, Table(("role", "given to", "scope"), rows, ids) if rows else empty)


@app.command
def backup(
    name: Name,
    /,
    *,
    rule_name: Annotated[str, Parameter(metavar="RULE", show_default=False)] = "",
    retention_tag_override: Annotated[str, Parameter(metavar="TAG", show_default=False)] = "",
    no_wait: NoWait = False,
    vault: VaultOptions = DEFAULT_VAULT,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Back up now, beside the schedule. Exit code 0 whole, 3 with warnings, 1 failed; 0 with --no-wait.

    Parameters
    ----------
    rule_name
        A rule of the policy, whose retention the recovery point gets. Unsaid: the backup rule.
    retention_tag_override
        The retention rule that decides how long the recovery point is kept. Unsaid: the policy's default.
    """
    with server.session() as session:
        instance = find_instance(session, vault.find(session), name)
        rule, tag, _ = rule_names(session.get(instance.policy))
        options: Json = {"ruleName": rule_name or rule}
        # A retention rule's own name says already how long.
        if kept := retention_tag_override or ("" if rule_name else tag):
            options["triggerOption"] = {"retentionTagOverride": kept}
        begun = session.post(f"{instance.id}/backup", {"backupRuleOptions": options})
        return _job(session, begun, output, wait=not no_wait)


@app.command
def restore(
    name: Name,
    /,
    *,
    options: RestoreOptions = NO_RESTORE,
    filters: FilterOptions = EVERYTHING,
    validate_only: Annotated[bool, Parameter(negative="")] = False,
    no_wait: NoWait = False,
    vault: VaultOptions = DEFAULT_VAULT,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Restore from a recovery point. Exit code 0 whole, 3 with warnings, 1 failed; 0 with --no-wait.

    Parameters
    ----------
    validate_only
        Only say whether it could be carried out, and all that is in the way.
    """
    with server.session() as session:
        instance = find_instance(session, vault.find(session), name)
        request = options.request(session, instance, filters)
        if validate_only:
            return _validate_restore(session, instance, request, output)
        begun = session.post(f"{instance.id}/restore", request)
        return _job(session, begun, output, wait=not no_wait)


@app.command(name="points")
def points_(
    name: Name,
    /,
    *,
    vault: VaultOptions = DEFAULT_VAULT,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """List the recovery points of a backup instance, newest first."""
    with server.session() as session:
        found = list(points(session, find_instance(session, vault.find(session), name)))
    columns = ("recovery point", "time", "type", "state", "retention", "expires")
    rows = [(p.name, _time(p), p.type, p.state, p.tag, p.expires) for p in found]
    emit(output, [each.document for each in found], Table(columns, rows, [each.name for each in found]))


def _time(point: RecoveryPoint) -> str:
    return f"{point.time:%Y-%m-%d %H:%M:%S}Z" if point.time else ""


def _required(name: str) -> str:
    if not name:
        raise UsageError("--target needs the backup instance that is to be restored", hint="Give NAME")
    return name


def _grant(session: Session, path: str, body: Json) -> list[tuple[str, Json]]:
    """Carry out a grant; return each role assignment that it made with the role's name."""
    made: list[Json] = session.post(path, body)["roleAssignments"]
    names: dict[str, str] = {}
    for each in made:
        role = str(each["properties"]["roleDefinitionId"])
        names[role] = names.get(role) or str(session.get(role)["properties"]["roleName"])
    return [(names[str(each["properties"]["roleDefinitionId"])], each) for each in made]


def _note_grants(output: Output, made: list[tuple[str, Json]]) -> None:
    for role, each in made:
        note(output, f"granted {role} at {each['properties']['scope']}")


def _job(session: Session, begun: Json, output: Output, *, wait: bool) -> ExitCode:
    job_id = str(begun["jobId"])
    if wait:
        return show_job(output, follow(session, job_id, output))
    show_job(output, Job.of(session.get(job_id)))
    return ExitCode.WHOLE


def _validate_restore(session: Session, instance: BackupInstance, request: Json, output: Output) -> ExitCode:
    try:
        session.post(f"{instance.id}/validateRestore", {"restoreRequestObject": request})
    except RequestRefused as refused:
        if not refused.problems:
            raise
        document = {"ready": False, "problems": [each.document for each in refused.problems]}
        emit(output, document, problem_table("problem", refused.problems))
        return ExitCode.FAILED
    emit(output, {"ready": True, "problems": []}, "ready: nothing is in the way")
    return ExitCode.WHOLE


def _show(output: Output, instance: BackupInstance) -> None:
    values = {
        "backup instance": instance.name,
        "state": instance.state,
        "cluster": instance.cluster,
        "policy": instance.policy.rpartition("/")[2],
        "snapshot resource group": instance.snapshot_group,
        "id": instance.id,
    }
    tables = [problem_table("error", instance.problems)] if instance.problems else []
    emit(output, instance.document, Facts(values, ids=[instance.id], tables=tables))
