"""`strongroom restore`: shows what a restore would do, and does it."""

import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from strongroom.cli.connection import connect
from strongroom.cli.documents import document, kind_name
from strongroom.cli.options import (
    EVERYTHING,
    NO_CLUSTER_NAMED,
    ClusterOptions,
    Repeatable,
    RepositoryOptions,
    SelectionOptions,
    pairs,
)
from strongroom.cli.output import DEFAULT_OUTPUT, Facts, Format, Output, Table, emit, note, warn
from strongroom.cli.progress import Progress, progress
from strongroom.cli.session import open_repository
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.restore.errors import PlanUnreadable
from strongroom.dataplane.restore.execute import execute, load_plan, new_restore_id
from strongroom.dataplane.restore.gather import gather_plan
from strongroom.dataplane.restore.model import (
    Conflict,
    Done,
    FieldChange,
    ObjectResult,
    PlannedObject,
    RestorePlan,
    RestoreRequest,
    RestoreResult,
    RestoreState,
    VolumeMode,
)
from strongroom.dataplane.restore.model import Progress as Step
from strongroom.errors import ExitCode, UsageError

app = App(name="restore", help="Plan a restore, and carry it out.")

_STATUS_HELP = "Put the status of this kind back too (`Kind` or `Kind.group`). Repeatable."
_PORTS_HELP = "Keep the node ports of Services instead of letting the cluster choose new ones."

# Values of fields are cut to this many characters in tables; `--output json` has them whole.
SHOWN_CHARACTERS = 60


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """How objects are restored."""

    map_namespace: Repeatable = ()
    """SOURCE=TARGET: restore the objects of one namespace into another. Repeatable."""
    map_storage_class: Repeatable = ()
    """SOURCE=TARGET: use another StorageClass for claims. Repeatable."""
    conflict: Conflict = Conflict.SKIP
    """What to do with an object that is there already. Nothing is ever deleted."""
    volumes: VolumeMode = VolumeMode.DATA
    """Fill claims from their CSI snapshots, or provision them empty."""
    drop_finalizers: Annotated[bool, Parameter(negative="")] = False
    """Leave finalizers away, where their controllers do not run in the target."""
    preserve_node_ports: Annotated[bool, Parameter(negative="", help=_PORTS_HELP)] = False
    restore_status: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, help=_STATUS_HELP)] = ()
    suspend_cronjobs: Annotated[bool, Parameter(negative="")] = False
    """Restore CronJobs suspended."""

    def request(self, selection: SelectionOptions) -> RestoreRequest:
        """Return the options as the data plane's request. Raises `UsageError`."""
        return RestoreRequest(
            selection=selection.selection(),
            map_namespaces=pairs("--map-namespace", self.map_namespace),
            map_storage_classes=pairs("--map-storage-class", self.map_storage_class),
            conflict=self.conflict,
            volumes=self.volumes,
            drop_finalizers=self.drop_finalizers,
            preserve_node_ports=self.preserve_node_ports,
            restore_status=self.restore_status,
            suspend_cronjobs=self.suspend_cronjobs,
        )


AS_USUAL = RestoreOptions()


@app.command
async def plan(
    *,
    point: Annotated[str, Parameter(metavar="ID")],
    cluster: ClusterOptions = NO_CLUSTER_NAMED,
    repository: RepositoryOptions,
    selection: SelectionOptions = EVERYTHING,
    options: RestoreOptions = AS_USUAL,
    plan: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Show what a restore would do: create, patch with the field diff, skip or conflict. Changes nothing.

    Parameters
    ----------
    point
        The recovery point: its id, a unique beginning of it, or `latest`.
    plan
        Save the plan to this file, for `restore apply --plan`.
    """
    request = options.request(selection)
    async with open_repository(repository) as opened, connect(cluster, output) as api:
        source = await opened.point(point)
        with progress(output) as bar:
            made = await gather_plan(api, source, request, progress=lambda step: _show(bar, step))
    if plan is not None:
        _save(plan, made)
        note(output, f"plan saved to {plan}")
    emit(output, document(made), _plan_facts(made))
    warn(output, made.warnings)
    return ExitCode.WHOLE


@app.command
async def apply(
    *,
    point: Annotated[str | None, Parameter(metavar="ID")] = None,
    cluster: ClusterOptions = NO_CLUSTER_NAMED,
    repository: RepositoryOptions,
    selection: SelectionOptions = EVERYTHING,
    options: RestoreOptions = AS_USUAL,
    plan: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    resume: Annotated[str | None, Parameter(metavar="ID")] = None,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Restore: by a plan made now, by a saved plan, or by that of a restore that was broken off.

    The id of the restore is printed first: as the first line of the table, on stderr with JSON and YAML. Exits with 3
    when some objects failed, with 1 when nothing could be restored.

    Parameters
    ----------
    point
        The recovery point: its id, a unique beginning of it, or `latest`.
    plan
        Carry out the plan that `restore plan --plan` saved.
    resume
        Go on with the restore of this id, from its journal in the repository.
    """
    _check_sources(point, selection, options, plan, resume)
    async with open_repository(repository) as opened, connect(cluster, output) as api:
        restore_id = resume or new_restore_id()
        _print_id(output, restore_id)
        with progress(output) as bar:
            if resume is not None:
                chosen = await load_plan(opened, resume)
            elif plan is not None:
                chosen = await _load(opened, plan, point)
            else:
                assert point is not None, "checked above"
                source = await opened.point(point)
                request = options.request(selection)
                chosen = await gather_plan(api, source, request, progress=lambda step: _show(bar, step))
            source = await opened.point(chosen.point)
            result = await execute(
                api,
                opened,
                source,
                chosen,
                restore_id=restore_id,
                resume=resume is not None,
                progress=lambda step: _show(bar, step),
            )
    emit(output, document(result), _result_facts(result))
    warn(output, result.warnings)
    match result.state:
        case RestoreState.COMPLETED:
            return ExitCode.WHOLE
        case RestoreState.PARTIAL:
            return ExitCode.INCOMPLETE
        case RestoreState.FAILED:
            return ExitCode.FAILED


def _check_sources(
    point: str | None, selection: SelectionOptions, options: RestoreOptions, plan: Path | None, resume: str | None
) -> None:
    """Raise `UsageError` unless the restore has exactly one source, and options only where they still decide."""
    if plan is None and resume is None:
        if point is None:
            raise UsageError("restore apply needs --point, --plan or --resume")
        return
    said = "--resume" if resume is not None else "--plan"
    if resume is not None and (plan is not None or point is not None):
        raise UsageError("--resume goes on with a restore as it was begun: it takes neither --plan nor --point")
    if selection != EVERYTHING or options != AS_USUAL:
        raise UsageError(
            f"{said} carries out a plan as it was made: selection and restore options have no effect on it",
            hint="Leave them out, or make another plan with `strongroom restore plan`",
        )


def _print_id(output: Output, restore_id: str) -> None:
    if output.output is not Format.TABLE:
        sys.stderr.write(f"restore {restore_id}\n")
        sys.stderr.flush()
    else:
        sys.stdout.write(f"{restore_id}\n" if output.quiet else f"restore {restore_id}\n")
        sys.stdout.flush()


def _save(path: Path, plan: RestorePlan) -> None:
    # Names of objects and values of fields are nobody else's business: 0600, as for everything else we write.
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(plan.to_json())
    except OSError as error:
        raise UsageError(
            f"the plan cannot be written to {path}: {error.strerror}", hint="Name another file with --plan"
        ) from error


async def _load(repository: Repository, path: Path, point: str | None) -> RestorePlan:
    try:
        loaded = RestorePlan.from_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"the plan {path} cannot be read: {error.strerror}", hint="Make one: strongroom restore plan --plan FILE"
        ) from error
    except UnicodeDecodeError as error:
        raise PlanUnreadable(f"{path} is no text", hint="Make a plan with `strongroom restore plan`") from error
    if point is not None and (await repository.point(point)).id != loaded.point:
        raise UsageError(f"the plan {path} is for the recovery point {loaded.point}", hint="Leave --point out")
    return loaded


def _show(bar: Progress, step: Step) -> None:
    failed = f"objects, {step.failed} failed" if step.failed else "objects"
    phase = "planning" if step.wave.startswith("plan ") else step.wave
    bar.report(phase, step.done, step.total, failed)


def _plan_facts(plan: RestorePlan) -> Facts:
    counts = Counter(each.action.value for each in plan.objects())
    rows = [
        (each.action.value, kind_name(each.group, each.kind), _where(each), wave.name, _why(each))
        for wave in plan.waves
        for each in wave.objects
    ]
    left_out = Counter((kind_name(each.group, each.kind), each.reason) for each in plan.skipped)
    changes = [
        (
            kind_name(each.group, each.kind),
            _where(each),
            change.path,
            _shown(change, change.before),
            _shown(change, change.after),
        )
        for each in plan.objects()
        for change in each.diff
    ]
    values = {
        "plan": plan.id,
        "recovery point": plan.point,
        "target": f"{plan.target.server} ({plan.target.version}, {plan.target.id})",
        "objects": ", ".join(f"{count} {action}" for action, count in sorted(counts.items())) or "none",
    }
    tables = [Table(("action", "kind", "name", "wave", "reason"), rows)] if rows else []
    if left_out:
        tables.append(_counted("left out", left_out))
    if changes:
        tables.append(Table(("patch of", "name", "field", "now", "then"), changes))
    return Facts(values, ids=[plan.id], tables=tables)


def _where(planned: PlannedObject) -> str:
    source = "/".join(part for part in (planned.source_namespace, planned.source_name) if part)
    target = "/".join(part for part in (planned.namespace, planned.name) if part)
    return target if source == target else f"{source} → {target}"


def _why(planned: PlannedObject) -> str:
    needs = [f"after {need}" for need in planned.needs]
    return "; ".join(part for part in (planned.reason, *planned.notes, *needs) if part)


def _shown(change: FieldChange, value: object) -> str:
    text = "(hidden)" if change.hidden else "" if value is None else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _result_facts(result: RestoreResult) -> Facts:
    told = [each for each in result.objects if each.action is not Done.SKIPPED and each.reason]
    rows = [
        (each.action.value, kind_name(each.group, each.kind), _target(each), each.reason)
        for each in sorted(told, key=lambda each: each.action is not Done.FAILED)
    ]
    skipped = Counter(
        (kind_name(each.group, each.kind), each.reason) for each in result.objects if each.action is Done.SKIPPED
    )
    values = {
        "state": result.state.value,
        "created": result.created,
        "patched": result.patched,
        "skipped": result.skipped,
        "failed": result.failed,
        "seconds": f"{result.seconds:.2f}",
    }
    tables = [Table(("what", "kind", "name", "remark"), rows)] if rows else []
    if skipped:
        tables.append(_counted("skipped", skipped))
    return Facts(values, tables=tables)


def _target(result: ObjectResult) -> str:
    return f"{result.namespace}/{result.name}" if result.namespace else result.name


def _counted(what: str, counts: Counter[tuple[str, str]]) -> Table:
    # One by one they stand in the document; equal objects by the hundred would hide what happens.
    return Table((what, "objects", "reason"), [(kind, count, reason) for (kind, reason), count in counts.items()])
