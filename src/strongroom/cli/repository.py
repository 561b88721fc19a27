"""`strongroom repository`: makes a repository, describes, checks and prunes it."""

import base64
from typing import Annotated

from cyclopts import App, Parameter

from strongroom.cli.documents import document
from strongroom.cli.options import NO_CLUSTER_NAMED, ClusterOptions, RepositoryOptions, duration_seconds
from strongroom.cli.output import DEFAULT_OUTPUT, Facts, Output, Table, emit, note, size_text
from strongroom.cli.progress import progress
from strongroom.cli.session import open_repository
from strongroom.cli.volumes import NO_CLUSTER, snapshot_deleter, sweep_leftovers, waiting_document, waiting_table
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.repository.check import Finding
from strongroom.dataplane.repository.check import check as check_repository
from strongroom.dataplane.repository.info import MAX_RUN_SECONDS
from strongroom.dataplane.repository.keyentries import add_recipient, add_writer
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.prune import prune as prune_repository
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.repository.seen import Seen, load_seen, save_seen
from strongroom.dataplane.repository.signing import writer_id
from strongroom.errors import ExitCode, UsageError

app = App(name="repository", help="Make, inspect, check and prune a repository.")
# Its text stands here and not at the command: the list of commands would import the control plane.
app.command(
    "strongroom.cli.recovery:key_file",
    name="key-file",
    help="""Make a key file for a container of a server, by the server's recovery kit.

With it the commands of this tool work on that container. It has keys of its own: the kit can be put away again.
""",
)

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
            "rootKey": opened.info.root_key,
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
            "root key": opened.info.root_key,
            "signing as": opened.writer or "nobody (read only)",
            "recovery points": len(usable),
            "damaged points": len(damaged) or None,
            "latest": f"{newest.id} ({newest.manifest.finished})" if newest and newest.manifest else None,
        }
    shown = {name: value for name, value in view.items() if value is not None}
    emit(output, found, Facts(shown, ids=[opened.info.id]))
    return ExitCode.DAMAGED if damaged else ExitCode.WHOLE


@app.command
async def allow(
    *,
    recipient: Annotated[str, Parameter(metavar="AGE1")],
    writer: Annotated[str, Parameter(metavar="BASE64")],
    repository: RepositoryOptions,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Let a backup extension use a repository: it may read, add recovery points and restore, and delete nothing.

    Both keys stand in the status of the cluster's BackupStorageLocation. May be repeated. It cannot be taken back: what
    the root signed counts for ever.

    Parameters
    ----------
    recipient
        Whom to wrap the repository key for: status.recipient.
    writer
        Whose recovery points to believe: status.writer, the base64 of a raw Ed25519 public key.
    """
    try:
        public = base64.b64decode(writer, validate=True)
    except ValueError as error:
        raise UsageError("--writer is not base64", hint="Copy status.writer of the BackupStorageLocation") from error
    async with open_repository(repository) as opened:
        store, info = opened.store, opened.info
        keys = KeyFile.find(repository.key_file, info.id)
        if keys is None:
            raise UsageError(
                f"no key file of the repository {info.id} was found: only its root key lets others in",
                hint="Name it with --key-file",
            )
        if not info.encrypted:
            raise UsageError(
                f"the repository {info.id} is not encrypted, and an extension opens none that is not",
                hint="Make another one without --no-encryption",
            )
        # The recipient goes last: a stop in between leaves an extension that cannot open the repository, and says so.
        await add_writer(store, keys.root, public, backup_only=True)
        await add_recipient(store, keys, recipient)
    found = {"repositoryId": info.id, "repository": store.url, "recipient": recipient, "writer": writer_id(public)}
    view = {"repository": store.url, "id": info.id, "may read": recipient, "may add recovery points": writer_id(public)}
    emit(output, found, Facts(view, ids=[writer_id(public)]))
    return ExitCode.WHOLE


@app.command
async def check(
    *,
    repository: RepositoryOptions,
    read_data: Annotated[bool, Parameter(negative="")] = False,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Check structure, signatures and sequence of a repository. Exits with 4 when something is damaged.

    The newest recovery points are remembered under ${XDG_STATE_HOME:-~/.local/state}/strongroom, so that a later check
    finds a repository that was rolled back as a whole.

    Parameters
    ----------
    read_data
        Read every stored byte too.
    """
    async with open_repository(repository) as opened:
        seen = load_seen(opened.info.id)
        with progress(output) as bar:
            bar.report("checking every byte" if read_data else "checking structure")
            report = await check_repository(opened, read_data=read_data, seen=seen)
        if report.sound:
            # Only a sound state is worth remembering: a forged one must not take the place of what was seen.
            remembered = seen or Seen(config=opened.config_sha256)
            for writer, newest in report.newest.items():
                remembered.note(writer, newest.sequence, newest.sha256)
            save_seen(opened.info.id, remembered)
    found = {
        "sound": report.sound,
        "points": report.points,
        "files": report.files,
        "bytesRead": report.bytes_read,
        "readData": report.read_data,
        "memory": report.memory,
        "damage": [_finding(finding) for finding in report.damage],
        "notes": [_finding(finding) for finding in report.notes],
    }
    view = {
        "sound": report.sound,
        "recovery points": report.points,
        "files": report.files,
        "read": size_text(report.bytes_read) + ("" if read_data else " (lists and indexes; --read-data reads all)"),
        "held against": report.memory or "no memory of this machine: this was its first check here",
    }
    damage = Table(
        ("damaged", "problem", "hurts"), [(f.subject, f.problem, ", ".join(f.points)) for f in report.damage]
    )
    notes = Table(("note on", "what"), [(f.subject, f.problem) for f in report.notes])
    tables = [table for table, shown in ((damage, report.damage), (notes, report.notes)) if shown]
    emit(output, found, Facts(view, ids=[finding.subject for finding in report.damage], tables=tables))
    return ExitCode.WHOLE if report.sound else ExitCode.DAMAGED


def _finding(finding: Finding) -> dict[str, object]:
    return {"subject": finding.subject, "problem": finding.problem, "recoveryPoints": list(finding.points)}


@app.command
async def prune(
    *, repository: RepositoryOptions, cluster: ClusterOptions = NO_CLUSTER_NAMED, output: Output = DEFAULT_OUTPUT
) -> ExitCode:
    """Collect what no recovery point needs, in two steps: condemn now, delete twice the longest run later.

    With --kubeconfig or --context, CSI snapshots of deleted points that are still there are deleted through that
    cluster, and what dead backups and finished restores left in it is removed. Snapshots that remain make the exit
    code 3.
    """
    swept: list[str] = []
    why_not = ""
    async with open_repository(repository) as opened, snapshot_deleter(cluster, output) as deleter:
        with progress(output) as bar:
            bar.report("reading manifests")
            report = await prune_repository(opened, delete_volumes=deleter)
            if deleter:
                bar.report("looking for leftovers in the cluster")
                swept, why_not = await sweep_leftovers(opened, deleter)
    reasons = deleter.reasons if deleter else {}
    waiting = [waiting_document(volume, reasons.get(volume.handle, NO_CLUSTER)) for volume in report.waiting_volumes]
    found = {
        "condemnedFiles": report.condemned_files,
        "condemnedBytes": report.condemned_bytes,
        "condemnedPoints": list(report.condemned_points),
        "sweptFiles": report.swept_files,
        "sweptBytes": report.swept_bytes,
        "sweptPoints": list(report.swept_points),
        "nextSweep": report.next_sweep,
        "snapshotsLeft": waiting,
        "leftovers": swept,
        "leftoversNotSwept": why_not,
    }
    view = {
        "condemned": f"{report.condemned_files} files ({size_text(report.condemned_bytes)})",
        "deleted": f"{report.swept_files} files ({size_text(report.swept_bytes)})",
        "points gone": ", ".join(report.swept_points) or "none",
        "next files due": report.next_sweep or "none",
    }
    if why_not:
        view["left in the cluster"] = why_not
    tables = [waiting_table(report.waiting_volumes, reasons)] if waiting else []
    if swept:
        tables.append(Table(("leftover in the cluster",), [(line,) for line in swept]))
    emit(output, found, Facts(view, ids=list(report.swept_points), tables=tables))
    return ExitCode.INCOMPLETE if waiting or why_not else ExitCode.WHOLE
