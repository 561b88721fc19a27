"""Starts the extension: `python -m strongroom.extension.main`.

With `--pipe` it is the child that `serve` hosts for a cluster. With `--watch` it carries out the custom resources of a
cluster, by itself: in a pod of that cluster, or anywhere with a kubeconfig.
"""

import argparse
import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Final

from strongroom.errors import StrongroomError
from strongroom.extension.api.pipe import LINE_BYTES
from strongroom.extension.pipe import PipeServer, writer_to
from strongroom.extension.standalone import Target, watch
from strongroom.extension.watching.serving import Listen, parse_listen
from strongroom.process import leave

log = logging.getLogger("strongroom.extension")

OWN_NAMESPACE: Final = "dataprotection-microsoft"  # Azure's name, as everywhere

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# What a LogRecord has by itself; the rest are the fields of an event.
_RECORD_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class EventFormatter(logging.Formatter):
    """Writes an event with its fields on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a trace follows it."""
        fields = "".join(f" {name}={value!r}" for name, value in vars(record).items() if name not in _RECORD_FIELDS)
        return super().format(record) + fields


def main() -> int:
    """Run until the parent closes the pipe, or SIGTERM or SIGINT comes; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m strongroom.extension.main", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--pipe", action="store_true", help="take orders on stdin, answer on stdout")
    mode.add_argument("--watch", action="store_true", help="carry out custom resources")
    where = parser.add_argument_group("which cluster to watch; without any of these that of the pod this runs in")
    where.add_argument("--kubeconfig", type=Path, metavar="FILE")
    where.add_argument("--context", help="of the kubeconfig; unsaid: its current one")
    where.add_argument("--server", metavar="URL", help="of the API server, with --ca and --token-file")
    where.add_argument("--ca", type=Path, metavar="FILE", help="certificates of the server's authority, PEM")
    where.add_argument("--token-file", type=Path, metavar="FILE", help="read again every minute")
    where.add_argument("--namespace", default=OWN_NAMESPACE, help="of the custom resources; unsaid: %(default)s")
    shown = "with --watch: serve /metrics, /healthz and /readyz there; without a host on all addresses"
    parser.add_argument("--listen", metavar="[HOST]:PORT", help=shown)
    given = parser.parse_args()
    if given.watch:
        log_to_stderr()
        target = Target(given.kubeconfig, given.context, given.server, given.ca, given.token_file, given.namespace)
        try:
            return asyncio.run(_watch(target, parse_listen(given.listen) if given.listen else None))
        except StrongroomError as error:
            log.error("the extension cannot start: %s", error.message, extra={"hint": error.hint})
            return int(error.exit_code)
    # Whatever prints must not print among the answers.
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    log_to_stderr()
    _die_with_parent()
    return asyncio.run(_serve(answers))


def log_to_stderr() -> None:
    """Log events to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


async def _watch(target: Target, listen: Listen | None) -> int:
    task = asyncio.create_task(watch(target, listen))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return 0


async def _serve(answers: int) -> int:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    server = PipeServer(writer_to(answers))
    tasks = [
        asyncio.create_task(server.serve(reader)),
        asyncio.create_task(stopped.wait()),
    ]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await server.close()
    failed = [error for task in done if (error := task.exception()) is not None]
    for error in failed:
        if not isinstance(error, BrokenPipeError):
            log.error("the extension stops", exc_info=error)
    code = 1 if any(not isinstance(error, BrokenPipeError) for error in failed) else 0
    leave(code)  # not by returning: a run that will not stop, or a write that nobody reads, would keep the process


def _die_with_parent() -> None:
    """Have Linux send SIGTERM when the parent dies. Elsewhere, and before this call, the pipe's end says it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


if __name__ == "__main__":
    leave(main())
