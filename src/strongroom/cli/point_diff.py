"""`strongroom point diff`: what changed between two recovery points, or between one and the live cluster."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated

from cyclopts import Parameter

from strongroom.cli.connection import connect
from strongroom.cli.documents import kind_name
from strongroom.cli.kinds import select
from strongroom.cli.options import (
    EVERYTHING,
    NO_CLUSTER_NAMED,
    ClusterOptions,
    RepositoryOptions,
    SelectionOptions,
)
from strongroom.cli.output import DEFAULT_OUTPUT, Facts, Output, Table, emit, note
from strongroom.cli.session import open_repository
from strongroom.dataplane.collector.filtering import ObjectFilter
from strongroom.dataplane.collector.selection import NAMESPACE, Resolved, resolve
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery, discover
from strongroom.dataplane.kube.errors import KubeForbidden
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.diff import Change, FieldChange, ObjectChange, diff_current, diff_points
from strongroom.dataplane.repository.model import KindEntry, ObjectRow, Selection
from strongroom.dataplane.repository.objects import Parts, split
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.repository import Repository
from strongroom.errors import ExitCode

# Values of fields are cut to this many characters in tables; `--output json` has them whole.
SHOWN_CHARACTERS = 60


async def diff(
    before: Annotated[str, Parameter(metavar="ID")],
    after: Annotated[str | None, Parameter(metavar="ID2")] = None,
    /,
    *,
    repository: RepositoryOptions,
    cluster: ClusterOptions = NO_CLUSTER_NAMED,
    selection: SelectionOptions = EVERYTHING,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Show what changed between two recovery points, or with one id between it and the live cluster.

    Bodies are compared, statuses are not. Values of Secrets are not printed. Against the live cluster only what the
    recovery point's selection would take counts as added. Exits with 3 when a kind could not be read.

    Parameters
    ----------
    before
        The id of a recovery point, a unique beginning of it, or `latest`.
    after
        Another one. Unsaid: the cluster that --kubeconfig names.
    """
    asked = selection.selection()
    missing: list[str] = []
    async with open_repository(repository) as opened:
        first = await opened.point(before)
        if after is not None:
            second = await opened.point(after)
            found = [change async for change in _between(first, second, asked)]
            target = str(second.id)
        else:
            async with connect(cluster, output) as api:
                found = [change async for change in _live(opened, first, api, asked, missing)]
                target = api.server
    for text in missing:
        note(output, f"warning: {text}")
    document = {
        "from": first.id,
        "to": target,
        "objects": [change_document(change) for change in found],
        "warnings": missing,
    }
    emit(output, document, _facts(first.id, target, found))
    return ExitCode.INCOMPLETE if missing else ExitCode.WHOLE


async def _between(first: RecoveryPoint, second: RecoveryPoint, asked: Selection) -> AsyncIterator[ObjectChange]:
    old_entries, keeps = select(first.manifest, asked)
    new_entries, _ = select(second.manifest, asked)
    kinds = sorted({(entry.group, entry.kind) for entry in (*old_entries, *new_entries)})
    async for change in diff_points(first, second, kinds, keeps):
        yield change


async def _live(
    repository: Repository, point: RecoveryPoint, api: KubeApi, asked: Selection, missing: list[str]
) -> AsyncIterator[ObjectChange]:
    """Yield what changed since *point*; kinds that cannot be read now are named in *missing*."""
    discovery = await discover(api)
    then = resolve(point.manifest.selection, discovery.kinds, discovery.find, discovery.failed)
    entries, keeps = select(point.manifest, asked, empty=True)
    for entry in entries:
        kind = _kind_now(discovery, entry)
        if kind is None:
            if entry.objects:
                missing.append(f"the cluster does not serve {kind_name(entry.group, entry.kind)} now")
            continue
        digest = repository.files.sealer.digest
        try:
            async for change in diff_current(point, entry, keeps, _pages(api, kind), digest, _selected(then, entry)):
                yield change
        except KubeForbidden as error:
            missing.append(error.message)


def _kind_now(discovery: Discovery, entry: KindEntry) -> Kind | None:
    """Return the kind in the version that the point has it in, else in the one that is preferred now."""
    kind = next((k for k in discovery.kinds if (k.group, k.kind) == (entry.group, entry.kind)), None)
    if kind is None or entry.version not in discovery.versions.get((kind.group, kind.kind), ()):
        return kind
    return Kind(kind.group, entry.version, kind.kind, kind.plural, kind.namespaced, kind.verbs)


async def _pages(api: KubeApi, kind: Kind) -> AsyncIterator[Sequence[Parts]]:
    async for page in api.list_pages(kind):
        yield [split(item, kind.group, kind.version, kind.kind) for item in page.items]


def _selected(then: Resolved, entry: KindEntry) -> Callable[[ObjectRow], bool]:
    """Return the test by which a backup with the point's selection takes an object of this kind."""
    rules = ObjectFilter(
        then.namespaces,
        then.labels if entry.namespaced else None,
        group=entry.group,
        needed_only=entry.needed_by_only,
        names_are_namespaces=(entry.group, entry.kind) == NAMESPACE,
    )
    return lambda row: not rules.rule(row.namespace, row.name, row.labels.encode())


def change_document(change: ObjectChange) -> dict[str, object]:
    """Return one changed object as documents list it."""
    return {
        "group": change.group,
        "version": change.version,
        "kind": change.kind,
        "namespace": change.namespace,
        "name": change.name,
        "change": change.change.value,
        "fields": change_fields(change.fields),
    }


def change_fields(fields: Sequence[FieldChange]) -> list[dict[str, object]]:
    """Return changed fields as documents list them."""
    return [{"path": f.path, "before": f.before, "after": f.after, "hidden": f.hidden} for f in fields]


def change_rows(change: ObjectChange) -> list[tuple[object, ...]]:
    """Return one changed object as rows of a table: one for each field."""
    name = f"{change.namespace}/{change.name}" if change.namespace else change.name
    head = (change.change.value, kind_name(change.group, change.kind), name)
    if change.change is not Change.CHANGED:
        return [(*head, "", "", "")]
    return [(*head, field.path, shown(field, field.before), shown(field, field.after)) for field in change.fields]


def shown(field: FieldChange, value: object) -> str:
    """Return a field's value as tables show it."""
    text = "(hidden)" if field.hidden else "" if value is None else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _facts(first: str, target: str, found: Sequence[ObjectChange]) -> Facts:
    counts = Counter(change.change.value for change in found)
    values = {
        "from": first,
        "to": target,
        "objects": ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "no differences",
    }
    rows = [row for change in found for row in change_rows(change)]
    tables = [Table(("change", "kind", "name", "field", "before", "after"), rows)] if rows else []
    ids = [f"{kind_name(c.group, c.kind)} {c.namespace}/{c.name}".replace(" /", " ") for c in found]
    return Facts(values, ids=ids, tables=tables)
